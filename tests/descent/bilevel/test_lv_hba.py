"""The single-loop solver: optima, direction, invariances, merit function, warnings, errors."""

import warnings

import pytest
import torch

from descent.bilevel.coupled_toys import CoupledScalar, MerelyConvex
from descent.bilevel.fast_steps import AlternatingLVHBA, ExtragradientLVHBA
from descent.bilevel.lv_hba import LVHBA, LVHBAState
from descent.bilevel.lv_hba_controls import WeakenedLVHBA
from descent.bilevel.proximal_lagrangian import ProximalLagrangian

OPTIONS = {"alpha": 0.02, "beta": 0.1, "eta": 0.05, "gamma1": 1.0, "gamma2": 1.0, "r": 10.0}
CASES = [
    (1.5, 1.0, 1.25, 0.75, 0.5),
    (2.0, 0.5, 1.75, 0.25, 1.5),
    (3.0, 2.0, 1.5, 0.5, 1.0),
    (1.8, 0.0, 1.9, 0.1, 1.8),
]


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_finds_the_bilevel_optimum_of_coupled_problems():
    a, b, x, y, lam = (column(*v) for v in zip(*CASES, strict=True))
    solver = LVHBA(CoupledScalar(a, b), **OPTIONS)
    one = torch.ones_like(a)
    end = solver.run(solver.start(-one, one, 0 * one), 10_000)
    for found, exact in ((end.x, x), (end.y, y), (end.lam, lam), (end.z, lam)):
        torch.testing.assert_close(found, exact, atol=2e-3, rtol=0)


def test_works_on_autograd_alone():
    class Plain(CoupledScalar):
        """Without closed-form gradients."""

    for name in (
        "upper_gradient",
        "lower_gradient_x",
        "lower_gradient_y",
        "constraint_product_x",
        "constraint_product_y",
    ):
        setattr(Plain, name, getattr(CoupledScalar.__mro__[1], name))
    one = torch.ones(1, dtype=torch.float64)
    ends = []
    for kind in (CoupledScalar, Plain):
        solver = LVHBA(kind(1.8, 0.0), **OPTIONS)
        ends.append(solver.run(solver.start(-one, one, 0 * one), 50))
    torch.testing.assert_close(ends[0].x, ends[1].x, atol=1e-13, rtol=0)
    torch.testing.assert_close(ends[0].lam, ends[1].lam, atol=1e-13, rtol=0)


def test_direction_is_the_gradient_of_the_penalised_problem_at_the_saddle_point():
    problem = CoupledScalar(1.8, 0.0)
    solver = LVHBA(problem, c=3.0, p=0.2, **OPTIONS)
    value = ProximalLagrangian(problem, 1.0, 1.0, 10.0)
    x, y, z = (torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (1.4, 0.5, 0.6))
    weight = solver.penalty(6)
    psi = problem.upper(x, y) / weight + value.gap(x, y, z)
    expected = torch.autograd.grad(psi.sum(), (x, y, z))
    saddle = value.saddle(x.detach(), y.detach(), z.detach())
    assert 0 < float(saddle[1]) < 10  # else the multiplier would go unnoticed
    state = LVHBAState(x.detach(), y.detach(), z.detach(), *saddle, step=6)
    for found, exact in zip(solver.directions(state, *saddle), expected, strict=True):
        torch.testing.assert_close(found, exact, atol=1e-12, rtol=0)


def test_the_saddle_point_is_a_fixed_point_of_the_fast_step():
    problem = MerelyConvex(3)
    solver = LVHBA(problem, alpha=0.01, beta=0.1, eta=0.03, gamma1=10.0, gamma2=1.0, r=50.0)
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(4, k, generator=g, dtype=torch.float64) for k in (3, 6))
    z = torch.randn(4, 1, generator=g, dtype=torch.float64)
    saddle = problem.exact_saddle(x, y, z, 10.0, 1.0, 50.0)
    for kind in (LVHBA, AlternatingLVHBA, ExtragradientLVHBA):
        solver = kind(problem, alpha=0.01, beta=0.1, eta=0.03, gamma1=10.0, gamma2=1.0, r=50.0)
        for new, old in zip(solver.fast_step(LVHBAState(x, y, z, *saddle)), saddle, strict=True):
            torch.testing.assert_close(new, old, atol=1e-12, rtol=0)


def test_merit_function_does_not_increase_with_small_steps():
    problem = CoupledScalar(0.2, 0.4)
    value = ProximalLagrangian(problem, 1.0, 1.0, 10.0)
    solver = LVHBA(problem, **(OPTIONS | {"alpha": 0.005, "eta": 0.02}))
    one = torch.ones(1, dtype=torch.float64)
    merit = []

    def observe(state):
        saddle = value.saddle(state.x, state.y, state.z)
        tracking = (state.theta - saddle[0]) ** 2 + (state.lam - saddle[1]) ** 2
        psi = problem.upper(state.x, state.y) / solver.penalty(state.step - 1)
        merit.append(float(psi + value.gap(state.x, state.y, state.z) + tracking.sum()))

    solver.run(solver.start(-one, one, 0 * one), 2000, observe)
    increases = torch.tensor(merit[51:]) - torch.tensor(merit[50:-1])
    assert float(increases.max()) <= 1e-10


def test_options_may_be_a_batch():
    problem = MerelyConvex(4)
    g = torch.Generator().manual_seed(1)
    x, y = (torch.randn(1, k, generator=g, dtype=torch.float64).expand(2, -1) for k in (4, 8))
    z = torch.zeros(2, 1, dtype=torch.float64)
    eta, r, p = column(0.01, 0.02), column(1000.0, 0.5), column(0.1, 0.3)
    both = LVHBA(problem, alpha=0.01, beta=0.1, eta=eta, p=p, r=r)
    end = both.run(both.start(x, y, z), 100, check=False)
    for i in range(2):
        alone = LVHBA(
            problem, alpha=0.01, beta=0.1, eta=float(eta[i]), p=float(p[i]), r=float(r[i])
        )
        single = alone.run(alone.start(x[i], y[i], z[i]), 100, check=False)
        torch.testing.assert_close(end.x[i], single.x, atol=1e-12, rtol=0)
        torch.testing.assert_close(end.lam[i], single.lam, atol=1e-12, rtol=0)


def test_weights_of_one_leave_the_method_as_it_is():
    problem = CoupledScalar(1.8, 0.0)
    one = torch.ones(1, dtype=torch.float64)
    ends = []
    for solver in (
        LVHBA(problem, **OPTIONS),
        WeakenedLVHBA(problem, coupling=1.0, proximal=1.0, **OPTIONS),
    ):
        ends.append(solver.run(solver.start(-one, one, 0 * one), 20))
    torch.testing.assert_close(ends[0].x, ends[1].x, atol=1e-14, rtol=0)


def test_warns_of_a_step_beyond_its_limit():
    problem = MerelyConvex(100)
    x, y, z = (torch.zeros(k, dtype=torch.float64) for k in (100, 200, 1))
    options = {"alpha": 0.001, "beta": 0.02, "gamma1": 10.0, "gamma2": 10.0, "r": 1000.0}
    solver = LVHBA(problem, eta=0.01, **options)
    with pytest.warns(UserWarning, match=r"eta = 0.01 is not below 0.0035"):
        solver.run(solver.start(x, y, z), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solver = LVHBA(problem, eta=0.003, **options)
        solver.run(solver.start(x, y, z), 1)


def test_warns_of_an_exponent_outside_of_the_theory():
    with pytest.warns(UserWarning, match="p < 1/2"):
        LVHBA(CoupledScalar(0.2, 0.4), p=0.5, **OPTIONS)


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma1", "gamma2", "c", "r"])
def test_refuses_constants_that_are_not_positive(name):
    with pytest.raises(ValueError, match=name):
        LVHBA(CoupledScalar(0.2, 0.4), **(OPTIONS | {name: 0.0}))


def test_refuses_mixed_dtypes():
    solver = LVHBA(CoupledScalar(0.2, 0.4), **OPTIONS)
    one = torch.ones(1, dtype=torch.float64)
    with pytest.raises(ValueError, match="share one dtype"):
        solver.start(one, one.float(), one)
