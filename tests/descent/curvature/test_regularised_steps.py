"""Regularised steps: all solvers agree, steps are short, failures are answers and not errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.curvature.dual_metric import Metric
from descent.curvature.regularised_steps import (
    CholeskySteps,
    ConjugateGradientSteps,
    EigenSteps,
    RankOneSteps,
)


def draw(n, seed, rank=None):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, rank or n, generator=generator, dtype=torch.float64)
    b = torch.randn(n, n + 2, generator=generator, dtype=torch.float64)
    g = torch.randn(n, generator=generator, dtype=torch.float64)
    return a @ a.T, Metric(b @ b.T), g


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 9), seed=st.integers(0, 500), exponent=st.floats(-3, 2))
def test_cholesky_eigen_and_conjugate_gradients_solve_the_same_system(n, seed, exponent):
    matrix, metric, g = draw(n, seed)
    lam = 10**exponent
    expected = -torch.linalg.solve(matrix + lam * metric.matrix, g)
    for steps in (CholeskySteps(matrix, metric), EigenSteps(matrix, metric)):
        torch.testing.assert_close(steps.step(lam, g), expected, rtol=1e-7, atol=1e-9)
    loose = ConjugateGradientSteps(lambda v: matrix @ v, metric, 1e-10).step(lam, g)
    residual = matrix @ loose + lam * (metric.matrix @ loose) + g
    assert metric.dual_norm(residual) <= 1e-6 * metric.dual_norm(g)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 9), seed=st.integers(0, 500), gamma=st.floats(1e-3, 1e3))
def test_no_step_is_longer_than_gamma(n, seed, gamma):
    matrix, metric, g = draw(n, seed, rank=1 + seed % n)
    lam = metric.dual_norm(g) / gamma
    cg = ConjugateGradientSteps(lambda v: matrix @ v, metric, 0.5)
    for steps in (CholeskySteps(matrix, metric), EigenSteps(matrix, metric), cg):
        assert metric.norm(steps.step(lam, g)) <= gamma * (1 + 1e-9)
    none = RankOneSteps(0.0, g, metric).step(lam, g)
    assert metric.norm(none) == pytest.approx(gamma)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 9), seed=st.integers(0, 500), weight=st.floats(0, 50))
def test_sherman_morrison_is_the_dense_solve(n, seed, weight):
    _, metric, g = draw(n, seed)
    v = torch.randn(n, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    steps = RankOneSteps(weight, v, metric)
    for lam in (1e-2, 1.0, 30.0):
        expected = -torch.linalg.solve(lam * metric.matrix + weight * torch.outer(v, v), g)
        torch.testing.assert_close(steps.step(lam, g), expected, rtol=1e-6, atol=1e-8)


def test_an_indefinite_system_is_a_rejected_probe():
    matrix = torch.diag(torch.tensor([3.0, -1.0], dtype=torch.float64))
    g = torch.ones(2, dtype=torch.float64)
    cg = ConjugateGradientSteps(lambda v: matrix @ v, Metric(), 1e-9)
    for steps in (CholeskySteps(matrix, Metric()), EigenSteps(matrix, Metric()), cg):
        assert steps.step(0.5, g) is None
        torch.testing.assert_close(
            steps.step(2.0, g), torch.tensor([-0.2, -1.0], dtype=torch.float64)
        )


def test_truncated_conjugate_gradients_meet_their_residual_and_are_counted():
    matrix, metric, g = draw(30, 5)
    used = []
    for forcing in (0.5, 1e-2, 1e-6):
        cg = ConjugateGradientSteps(lambda v: matrix @ v, metric, forcing)
        h = cg.step(0.1, g)
        assert metric.dual_norm(matrix @ h + 0.1 * metric.to_dual(h) + g) <= forcing * (
            1 + 1e-6
        ) * metric.dual_norm(g)
        used.append(cg.products)
    assert used == sorted(used)
    assert ConjugateGradientSteps(lambda v: matrix @ v, metric, 1e-9, most=2).step(0.1, g) is None


def test_wrong_arguments_are_told():
    g = torch.ones(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        RankOneSteps(-1.0, g, Metric())
    with pytest.raises(ValueError, match="between 0 and 1, got 1"):
        ConjugateGradientSteps(lambda v: v, Metric(), 1)
