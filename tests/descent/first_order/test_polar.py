"""Polar factors: SciPy, rank deficiency, Newton-Schulz and torch's own iteration."""

import pytest
import scipy.linalg
import torch
from torch.optim._muon import _zeropower_via_newtonschulz

from descent.first_order.polar import COEFFICIENTS, newton_schulz, newton_schulz_cost, polar
from descent.first_order.training_cost import counted_multiply_adds


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (7, 3), (1, 5)])
def test_polar_factor_is_scipys(shape):
    matrix = draw(*shape)
    expected, _ = scipy.linalg.polar(matrix.numpy())
    assert torch.allclose(polar(matrix), torch.tensor(expected), atol=1e-12)
    assert torch.allclose(polar(torch.stack([matrix, -matrix]))[1], -polar(matrix))


def test_vanishing_directions_are_dropped():
    matrix = draw(5, 2) @ draw(2, 6, seed=1)
    values = torch.linalg.svdvals(polar(matrix))
    assert torch.allclose(values, torch.tensor([1.0, 1, 0, 0, 0], dtype=torch.float64), atol=1e-12)
    assert not polar(torch.zeros(3, 2)).any()


def test_newton_schulz_maps_singular_values_by_its_polynomial():
    matrix = draw(4, 6)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    a, b, c = COEFFICIENTS
    expected = values / values.norm()
    for _ in range(5):
        expected = a * expected + b * expected**3 + c * expected**5
    assert torch.allclose(newton_schulz(matrix), (left * expected) @ right, atol=1e-12)
    assert torch.allclose(newton_schulz(matrix.T), newton_schulz(matrix).T, atol=1e-12)


@pytest.mark.parametrize("shape", [(16, 9), (32, 144), (64, 288), (10, 256)])
def test_five_steps_bring_singular_values_near_one(shape):
    values = torch.linalg.svdvals(newton_schulz(draw(*shape, dtype=torch.float32)))
    assert 0.6 < float(values.min()) < float(values.max()) < 1.25


def test_agrees_with_torch_in_its_bfloat16_precision():
    matrix = draw(32, 144, dtype=torch.float32)
    theirs = _zeropower_via_newtonschulz(matrix, COEFFICIENTS, 5, 1e-7).float()
    assert float((newton_schulz(matrix) - theirs).abs().max()) < 0.03


def test_a_batch_is_its_members_and_zero_stays_zero():
    batch = draw(3, 4, 6)
    assert torch.allclose(newton_schulz(batch)[1], newton_schulz(batch[1]), atol=1e-12)
    assert not newton_schulz(torch.zeros(2, 3)).any()
    with pytest.raises(ValueError, match="non-negative, got -1"):
        newton_schulz(batch, steps=-1)


@pytest.mark.parametrize("shape", [(16, 9), (9, 16), (10, 256)])
def test_cost_is_what_runs(shape):
    matrix = draw(*shape)
    assert counted_multiply_adds(lambda: newton_schulz(matrix)) == newton_schulz_cost(*shape)
