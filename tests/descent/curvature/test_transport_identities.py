"""The checks of the identities: at rounding for the method, far from it for the forgotten -1."""

import math

import pytest
import torch

from descent.curvature.transport_identities import derivative_errors, half_sweeps
from descent.curvature.transport_problems import random_assignment


@pytest.fixture
def point():
    generator = torch.Generator().manual_seed(0)
    problem = random_assignment(8, 10.0, generator)
    x, y = (0.1 * torch.randn(8, generator=generator, dtype=torch.float64) for _ in range(2))
    return problem, x, y


def test_identities_hold_to_rounding_and_break_without_the_minus_one(point):
    right, wrong = derivative_errors(*point), derivative_errors(*point, factor=math.e)
    assert max(right) < 1e-12
    assert min(wrong) > 1e-3


def test_half_sweeps_are_exact_and_ascend_and_their_reverse_descends(point):
    right = half_sweeps(*point, count=6)
    wrong = half_sweeps(*point, count=6, factor=math.e)
    assert max(h.residual for h in right) < 1e-14
    # with the factor e every maximised block is short by (e - 1) times its marginal
    assert all(h.residual == pytest.approx((math.e - 1) / 8, rel=1e-9) for h in wrong)
    assert max(h.decrease for h in right) <= 1e-15
    assert all(h.reversed_decrease > 0 for h in right[:3])
