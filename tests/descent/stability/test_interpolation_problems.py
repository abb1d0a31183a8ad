"""Problem generators: interpolation, null space, geometry of inputs, reproducibility."""

import math

import pytest
import torch

from descent.stability.interpolation_problems import (
    constructed_interpolator,
    equal_norm_gradients,
    heavy_tailed_gradients,
    relu_student,
    relu_teacher_data,
    sparse_regression,
    sphere_inputs,
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_gradient_sets_have_the_announced_sizes():
    sets = heavy_tailed_gradients(40, generator(0))
    assert len(sets) == 40
    assert {size for one in sets for size in one.shape} == {3, 4, 5, 6, 7}
    norms = equal_norm_gradients(sets[0]).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_sparse_regression_is_noiseless():
    inputs, targets, truth = sparse_regression(5, 8, 3, [generator(1), generator(2)])
    assert inputs.shape == (2, 5, 8)
    assert truth.sum() == 3
    torch.testing.assert_close(targets, inputs[..., :3].sum(-1))
    with pytest.raises(ValueError, match="cannot place 9 ones in 8"):
        sparse_regression(5, 8, 9, [generator(1)])


def test_constructed_interpolator_interpolates_and_is_far_from_the_truth():
    inputs, targets, truth = sparse_regression(20, 40, 3, [generator(3)])
    a, b = constructed_interpolator(inputs[0], truth, generator(4))
    torch.testing.assert_close(inputs[0] @ (a * b), targets[0])
    assert float((a * b - truth).square().sum()) == pytest.approx(20, rel=0.5)
    torch.testing.assert_close(a, b.abs())
    a, b = constructed_interpolator(inputs[0], truth, generator(4), l1_norm=2.5)
    assert float((a * b - truth).abs().sum()) == pytest.approx(2.5)
    torch.testing.assert_close(inputs[0] @ (a * b), targets[0])
    with pytest.raises(ValueError, match="no null space"):
        constructed_interpolator(torch.ones(4, 4).double(), torch.ones(4).double(), generator(0))


def test_sphere_inputs_have_radius_root_d():
    inputs = sphere_inputs(500, 16, generator(5))
    torch.testing.assert_close(inputs.norm(dim=1), torch.full((500,), 4.0).double())
    assert float(inputs.mean(0).abs().max()) < 5 / math.sqrt(500)


def test_teacher_and_student():
    train_x, train_y, test_x, test_y = relu_teacher_data(
        6, 5, 10, 9, [generator(6), generator(7)], unit=True
    )
    assert train_x.shape == (2, 6, 5)
    assert test_y.shape == (2, 9)
    assert (train_y >= 0).all()
    assert (test_y >= 0).all()
    assert test_x.shape == (2, 9, 5)
    again = relu_teacher_data(6, 5, 10, 9, [generator(6), generator(7)], unit=True)
    assert torch.equal(again[3], test_y)
    a, weights = relu_student(400, 5, 1.0, 0.5, [generator(8)])
    assert a.shape == (1, 400)
    assert float(a.std()) == pytest.approx(1.0, rel=0.1)
    assert float(weights.std()) == pytest.approx(0.5, rel=0.1)


def test_teacher_of_unit_neurons_has_known_mean():
    """E relu(v.x) = E|v.x|/2; on the sphere of radius sqrt(d), E (v.x)^2 = 1 for a unit v."""
    _, targets, _, _ = relu_teacher_data(40_000, 10, 1, 1, [generator(9)], unit=True)
    assert float(targets.square().mean()) == pytest.approx(0.5, rel=0.05)
