"""Values, minimisers and derivatives of the landscapes; the counter of evaluations."""

import math

import numpy as np
import pytest
import torch

from descent.beyond_gradients.landscapes import (
    CountedObjective,
    double_well,
    grand_canyon,
    kink,
    quadratic,
    rastrigin,
    rough_absolute_value,
    tilted_wells,
)


def points(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def canyon_by_the_formula(v1, v2, roughness):
    a = v2 - (2 / 16 * (v1 - 1) * (v1 - 4) ** 2 + 2)
    b = -v1 - 1.6 * v2
    sign = (b > 0) - (b < 0)
    return (
        25 * (1 - math.exp(-1.4 * a**2 * math.exp(-0.002 * v1**4)))
        + 0.4 * v1**2
        + 0.2 * v2**2
        + roughness * sum(1 - math.cos(0.75 * math.pi * v) for v in (v1, v2))
        + 4 * math.exp(1 - 2 * a**4) * max((1 - math.exp(-9 * b**2)) * sign, 0)
    )


@pytest.mark.parametrize("roughness", [0.25, 1.1625])
def test_the_canyon_is_the_formula(roughness):
    sample = 4 * points(200, 2) + 2
    expected = [canyon_by_the_formula(*v, roughness) for v in sample.tolist()]
    torch.testing.assert_close(
        grand_canyon(sample, roughness), torch.tensor(expected, dtype=torch.float64)
    )


def test_known_values_of_the_canyon():
    known = torch.tensor([[8.0, 8.0], [0.0, 0.0]], dtype=torch.float64)
    values = grand_canyon(known)
    assert float(values[0]) == pytest.approx(39.0125366353719, abs=1e-10)
    assert float(values[1]) == pytest.approx(0, abs=1e-12)


def test_the_origin_is_the_global_minimiser_of_the_canyon_on_a_fine_grid():
    ticks = torch.linspace(-4, 12, 801, dtype=torch.float64)
    plane = torch.stack(torch.meshgrid(ticks, ticks, indexing="ij"), -1)
    values = grand_canyon(plane)
    best = plane.reshape(-1, 2)[int(values.argmin())]
    assert float(values.min()) >= -1e-12
    assert float(best.norm()) < 1e-9


def test_the_canyon_needs_two_dimensions():
    with pytest.raises(ValueError, match=r"needs points \(\.\.\., 2\), got \(4, 3\)"):
        grand_canyon(points(4, 3))


@pytest.mark.parametrize("function", [rastrigin, rough_absolute_value])
def test_rough_functions_vanish_at_the_origin_only(function):
    sample = points(500, 4)
    assert float(function(torch.zeros(4))) == 0
    assert float(function(sample).min()) > 0
    assert torch.equal(function(sample), function(-sample))


def test_separable_functions_are_sums():
    sample = points(6, 3)
    for function in (rastrigin, rough_absolute_value, double_well, kink):
        parts = torch.stack([function(sample[:, j : j + 1]) for j in range(3)], -1)
        torch.testing.assert_close(function(sample), parts.sum(-1))


def test_gradients_by_finite_differences():
    matrix = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    tilt = points(2, seed=1)
    sample = points(5, 2).requires_grad_(True)
    for function in (
        quadratic(matrix), rastrigin, double_well, lambda x: tilted_wells(x, tilt), grand_canyon
    ):  # fmt: skip
        torch.autograd.gradcheck(function, sample)


def test_kink_has_its_corner_at_its_minimum():
    corner = torch.tensor([[0.4]], dtype=torch.float64)
    assert float(kink(corner)) == pytest.approx(0, abs=1e-12)
    assert float(kink(corner + 0.1)) == pytest.approx(0.2)
    assert float(kink(corner - 0.1)) == pytest.approx(0.05)


def test_the_counter_counts_points_and_backward_passes():
    counted = CountedObjective(rastrigin)
    counted(points(3, 5, 2))
    assert (counted.evaluations, counted.backward_passes) == (15, 0)
    sample = points(4, 2).requires_grad_(True)
    counted(sample).sum().backward()
    assert (counted.evaluations, counted.backward_passes) == (19, 1)
    plain = CountedObjective(lambda x: np.square(x).sum(-1), numpy=True)
    assert isinstance(plain(sample), np.ndarray)
