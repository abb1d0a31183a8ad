"""Limits of the step sizes: closed form, eigenvalues and what the iteration really does."""

from dataclasses import replace

import pytest
import torch

from descent.bilevel.coupled_toys import CoupledScalar, MerelyConvex
from descent.bilevel.loop_stability import loop_matrix, loop_spectral_radius
from descent.bilevel.lv_hba import LVHBA, LVHBAState
from descent.bilevel.saddle_step import (
    lagrangian_curvature,
    mode_step_limit,
    saddle_step_limit,
)


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.6, 3.0])
@pytest.mark.parametrize(("curvature", "gamma1", "gamma2"), [(1.0, 10.0, 1.0), (0.0, 1.0, 10.0)])
def test_mode_formula_is_the_general_limit_in_one_dimension(curvature, gamma1, gamma2, sigma):
    general = saddle_step_limit(
        torch.tensor([[curvature]], dtype=torch.float64),
        torch.tensor([[sigma]], dtype=torch.float64),
        gamma1,
        gamma2,
    )
    mode = mode_step_limit(curvature + 1 / gamma1, 1 / gamma2, sigma**2)
    assert mode == pytest.approx(general, rel=1e-9)


@pytest.mark.parametrize(("factor", "settles"), [(0.97, True), (1.03, False)])
def test_limit_separates_contraction_from_divergence(factor, settles):
    problem = MerelyConvex(3, scale=4.0)
    x, y, z = (torch.zeros(k, dtype=torch.float64) for k in (3, 6, 1))
    state = LVHBAState(x, y, z, y + 1, z)
    limit = LVHBA(problem, alpha=1, beta=1, eta=1.0, gamma1=10.0).step_limit(state)
    solver = LVHBA(problem, alpha=1, beta=1, eta=factor * limit, gamma1=10.0)
    target = problem.exact_saddle(x, y, z, 10.0, 1.0, float("inf"))
    distances = []
    for _ in range(8000):
        theta, lam = solver.fast_step(state)
        state = replace(state, theta=theta, lam=lam)
        distances.append(float((theta - target[0]).norm() + (lam - target[1]).norm()))
    assert (max(distances[-300:]) < max(distances[3000:3300])) is settles


def test_curvature_is_that_of_the_first_member():
    problem = CoupledScalar(torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [0.0]]))
    one = torch.ones(2, 1)
    hessian, jacobian = lagrangian_curvature(problem, one, one, one)
    torch.testing.assert_close(hessian, torch.ones(1, 1))
    torch.testing.assert_close(jacobian, torch.ones(1, 1))


def resting(n):
    return LVHBAState(*(torch.zeros(k, dtype=torch.float64) for k in (n, 2 * n, 1, 2 * n, 1)))


OPTIONS = {"alpha": 0.01, "beta": 0.02, "gamma1": 10.0, "gamma2": 1.0, "c": 10.0, "p": 0.0}


def test_two_entries_with_a_scaled_constraint_have_the_spectrum_of_a_hundred():
    small = LVHBA(MerelyConvex(2, scale=50**0.5), eta=0.008, **OPTIONS)
    large = LVHBA(MerelyConvex(100), eta=0.008, **OPTIONS)
    assert loop_spectral_radius(small, resting(2)) == pytest.approx(
        loop_spectral_radius(large, resting(100)), abs=1e-10
    )


def test_loop_matrix_predicts_an_iteration():
    solver = LVHBA(MerelyConvex(2), eta=0.01, **OPTIONS)
    g = torch.Generator().manual_seed(0)
    parts = [torch.randn(k, generator=g, dtype=torch.float64) for k in (2, 4, 1, 4, 1)]
    other = [torch.randn(k, generator=g, dtype=torch.float64) for k in (2, 4, 1, 4, 1)]

    def flat(s):
        return torch.cat([s.x, s.y, s.z, s.theta, s.lam])

    first, second = LVHBAState(*parts), LVHBAState(*other)
    moved = flat(solver.step(first)) - flat(solver.step(second))
    torch.testing.assert_close(
        loop_matrix(solver, resting(2)) @ (flat(first) - flat(second)), moved
    )


def test_the_loop_diverges_if_eta_is_too_small_for_alpha():
    problem = MerelyConvex(2, scale=50**0.5)
    assert loop_spectral_radius(LVHBA(problem, eta=0.005, **OPTIONS), resting(2)) > 1.001
    calm = OPTIONS | {"alpha": 0.002}
    assert loop_spectral_radius(LVHBA(problem, eta=0.005, **calm), resting(2)) < 1


def test_refuses_a_curvature_that_is_not_positive():
    with pytest.raises(ValueError, match="mu_theta"):
        mode_step_limit(0.0, 1.0, 1.0)
