"""The value function: closed forms, gradient, smoothness, equivalence, the Moreau special case."""

import pytest
import torch

from descent.bilevel.coupled_toys import CoupledScalar, MerelyConvex
from descent.bilevel.lv_hba_controls import hard_multiplier_gradient
from descent.bilevel.polyhedral_quadratic import random_polyhedral
from descent.bilevel.problem import BilevelProblem
from descent.bilevel.proximal_lagrangian import ProximalLagrangian
from descent.bilevel.stationarity import penalised_residual


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(g, *shape):
    return torch.randn(*shape, generator=g, dtype=torch.float64)


class Iterative(ProximalLagrangian):
    """The same, with its closed form out of sight."""

    def saddle(self, *args, **options):
        form = type(self.problem).exact_saddle
        del type(self.problem).exact_saddle
        try:
            return super().saddle(*args, **options)
        finally:
            type(self.problem).exact_saddle = form


@pytest.mark.parametrize("r", [0.3, 1000.0])
@pytest.mark.parametrize("kind", ["scalar", "merely convex"])
def test_iterative_saddle_point_agrees_with_the_closed_form(kind, r):
    g = generator()
    n, m = (1, 1) if kind == "scalar" else (5, 10)
    problem = CoupledScalar(1.8, 0.0) if kind == "scalar" else MerelyConvex(5)
    x, y, z = draw(g, 7, n), draw(g, 7, m), draw(g, 7, 1)
    exact = ProximalLagrangian(problem, 2.0, 0.7, r).saddle(x, y, z)
    found = Iterative(problem, 2.0, 0.7, r).saddle(x, y, z)
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0)


def test_saddle_inequalities_hold_at_random_points():
    g = generator(1)
    problem = CoupledScalar(1.8, 0.0)
    value = ProximalLagrangian(problem, 1.3, 0.6, 2.0)
    x, y, z = draw(g, 50, 1), draw(g, 50, 1), draw(g, 50, 1).abs()
    theta, lam = value.saddle(x, y, z)
    centre = value.lagrangian(x, y, z, theta, lam)
    other = value.lagrangian(x, y, z, theta + draw(g, 50, 1), lam)
    assert bool((other >= centre).all())
    moved = (lam + draw(g, 50, 1)).clamp(0, 2)
    assert bool((value.lagrangian(x, y, z, theta, moved) <= centre + 1e-14).all())


@pytest.mark.parametrize("kind", ["scalar", "merely convex", "polyhedral"])
def test_gradient_agrees_with_central_differences(kind):
    g = generator(2)
    if kind == "scalar":
        problem, n, m, q = CoupledScalar(1.8, 0.0), 1, 1, 1
    elif kind == "merely convex":
        problem, n, m, q = MerelyConvex(2), 2, 4, 1
    else:
        problem, n, m, q = random_polyhedral(3, 4, 2, g), 3, 4, 2
    value = ProximalLagrangian(problem, 1.5, 0.8, 2.0)
    point = torch.cat([draw(g, n), draw(g, m), draw(g, q).abs()])

    def v(u):
        return value.value(*u.split([n, m, q], -1))

    gradient = torch.cat(value.gradient(*point.split([n, m, q])))
    h = 1e-5
    shifts = h * torch.eye(n + m + q, dtype=torch.float64)
    differences = torch.stack([(v(point + s) - v(point - s)) / (2 * h) for s in shifts])
    torch.testing.assert_close(gradient, differences, atol=1e-8, rtol=0)


def test_without_constraint_it_is_the_moreau_envelope():
    class Free(BilevelProblem):
        def lower(self, x, y):
            return ((y - x) ** 2).sum(-1) / 2

        def constraint(self, x, y):
            return torch.zeros_like(x[..., :1])

    g = generator(3)
    x, y, z = draw(g, 6, 3), draw(g, 6, 3), draw(g, 6, 1).abs()
    value = ProximalLagrangian(Free(), 0.7, 1.0)
    expected = ((y - x) ** 2).sum(-1) / (2 * 1.7)
    torch.testing.assert_close(value.value(x, y, z), expected, atol=1e-11, rtol=0)
    torch.testing.assert_close(value.value(x, y, z + 1), expected, atol=1e-11, rtol=0)


def test_gap_vanishes_exactly_at_the_pair():
    problem = CoupledScalar(1.8, 0.0)
    value = ProximalLagrangian(problem, 1.0, 1.0, 10.0)
    x = torch.linspace(-1, 3, 50, dtype=torch.float64)[:, None]
    y, lam = problem.response(x)
    assert float(value.gap(x, y, lam).abs().max()) < 1e-14
    assert float(value.gap(x, y, lam + 1).min()) > 0.16
    assert float(value.gap(x, y - 0.3, lam).min()) > 0.02


def test_short_multipliers_shut_the_solution_out():
    problem = CoupledScalar(1.8, 0.0)
    x = torch.tensor([1.25], dtype=torch.float64)
    y, lam = problem.response(x)
    cut = ProximalLagrangian(problem, 1.0, 1.0, float(lam) / 2)
    assert float(cut.gap(x, y, lam / 2)) == pytest.approx(1 / 64)


def test_residual_vanishes_at_a_constrained_stationary_point():
    # F alone: at weight 0 the projection of (a, b) on the constraint is stationary
    problem = CoupledScalar(3.0, 2.0)
    value = ProximalLagrangian(problem, 1.0, 1.0, 10.0)
    x, y, z = (torch.tensor([[v]], dtype=torch.float64) for v in (1.5, 0.5, 1.0))
    assert float(penalised_residual(problem, value, x, y, z, 0.0)) < 1e-14
    assert float(penalised_residual(problem, value, x - 0.1, y, z, 0.0)) > 1
    with pytest.raises(ValueError, match="single inequality"):
        penalised_residual(MerelyConvex(1), value, x, y, z, 1.0)


def test_hard_multiplier_jumps_where_the_gradient_does_not():
    problem = CoupledScalar(1.8, 0.0)
    value = ProximalLagrangian(problem, 1.0, 1.0, 2.0)
    x, z = torch.tensor([1.0], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    sides = [torch.tensor([1.0 + s], dtype=torch.float64) for s in (-1e-6, 1e-6)]
    hard = [hard_multiplier_gradient(problem, x, y, z, 1.0, 1.0, 2.0) for y in sides]
    soft = [torch.cat(value.gradient(x, y, z)) for y in sides]
    assert float((hard[0] - hard[1]).norm()) > 1
    assert float((soft[0] - soft[1]).norm()) < 1e-5


def test_refuses_parameters_that_are_not_positive():
    with pytest.raises(ValueError, match="gamma2 must be positive"):
        ProximalLagrangian(CoupledScalar(0.2, 0.4), 1.0, 0.0)


def test_says_when_the_saddle_point_was_not_reached():
    problem = random_polyhedral(3, 4, 2, generator(4))
    value = ProximalLagrangian(problem, 1.0, 1.0)
    with pytest.raises(RuntimeError, match="after 2 steps"):
        value.saddle(*(draw(generator(5), k) for k in (3, 4, 2)), max_steps=2)
