"""The entropic problem: closed form, derivatives by autograd, concavity, and what it refuses."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.curvature.entropic_transport import EntropicOT


def problem_and_point(seed: int, n: int = 20, m: int = 17, eta: float = 30.0):
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(n, m, generator=generator, dtype=torch.float64)
    marginals = [torch.rand(k, generator=generator, dtype=torch.float64) + 0.1 for k in (n, m)]
    source, target = (marginal / marginal.sum() for marginal in marginals)
    x, y = (0.1 * torch.randn(k, generator=generator, dtype=torch.float64) for k in (n, m))
    return EntropicOT(cost, source, target, eta), x, y


def test_plan_is_the_formula():
    problem, x, y = problem_and_point(0, 3, 2, 5.0)
    expected = [
        [
            math.exp(5.0 * (float(x[i]) + float(y[j]) - float(problem.cost[i, j])) - 1)
            for j in range(2)
        ]
        for i in range(3)
    ]
    torch.testing.assert_close(problem.plan(x, y), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(3))
def test_gradient_and_hessian_are_those_of_autograd(seed):
    problem, x, y = problem_and_point(seed)
    n = x.numel()
    z = torch.cat([x, y])

    def potential(z):
        return problem.potential(z[:n], z[n:])

    gradient = torch.func.grad(potential)(z)
    torch.testing.assert_close(problem.gradient(x, y), gradient, rtol=0, atol=1e-11)
    hessian = torch.autograd.functional.hessian(potential, z)
    torch.testing.assert_close(problem.hessian(x, y), hessian, rtol=0, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), eta=st.floats(0.5, 100.0), shift=st.floats(-3.0, 3.0))
def test_potential_is_concave_and_flat_along_the_null_direction(seed, eta, shift):
    problem, x, y = problem_and_point(seed, 6, 4, eta)
    hessian = problem.hessian(x, y)
    scale = float(torch.linalg.matrix_norm(hessian, 2))
    assert float(torch.linalg.eigvalsh(hessian).max()) <= 1e-12 * scale
    null = torch.cat([torch.ones_like(x), -torch.ones_like(y)])
    assert float((hessian @ null).abs().max()) <= 1e-12 * scale
    moved = float(problem.potential(x + shift, y - shift))
    assert moved == pytest.approx(float(problem.potential(x, y)), rel=1e-9, abs=1e-9)


def test_errors_and_costs_of_a_plan():
    cost = torch.tensor([[0.0, 2.0], [1.0, 0.0]], dtype=torch.float64)
    half = torch.full((2,), 0.5, dtype=torch.float64)
    problem = EntropicOT(cost, half, half, 1.0)
    plan = torch.tensor([[0.5, 0.25], [0.0, 0.5]], dtype=torch.float64)
    assert problem.marginal_error(plan) == pytest.approx(0.25 + 0.25)
    assert problem.transport_cost(plan) == pytest.approx(0.5)
    assert problem.shape == (2, 2)


def test_entries_stay_clear_of_subnormal_numbers_and_overflow_to_infinity():
    cost = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    problem = EntropicOT(cost, cost[:, 0] + 2.0, cost[0] + 0.5, 1e4)
    plan = problem.plan(torch.ones(1, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    assert plan[0, 0] == math.inf
    x, y = problem.start()
    assert problem.plan(x, y)[0, 1] == pytest.approx(math.exp(-650))
    assert float(problem.potential(x + 1, y)) == -math.inf


GOOD = {
    "cost": torch.rand(3, 2, dtype=torch.float64),
    "source": torch.full((3,), 1 / 3, dtype=torch.float64),
    "target": torch.full((2,), 1 / 2, dtype=torch.float64),
    "eta": 10.0,
}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"cost": torch.rand(3, 2)}, TypeError, r"cost is torch.float32.*\.double\(\)"),
        ({"target": torch.full((2,), 0.5)}, TypeError, "target is torch.float32"),
        ({"cost": torch.rand(6, dtype=torch.float64)}, ValueError, r"shape \(n, m\), got \(6,\)"),
        ({"source": torch.full((2,), 0.5, dtype=torch.float64)}, ValueError, r"shapes \(3,\) and \(2,\), got \(2,\)"),
        ({"source": torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64)}, ValueError, r"source\[1\] = 0, but every .*background"),
        ({"target": torch.tensor([1.5, -0.5], dtype=torch.float64)}, ValueError, r"target\[1\] = -0.5"),
        ({"target": torch.full((2,), 0.6, dtype=torch.float64)}, ValueError, "same total, got .* and 1.2"),
        ({"cost": torch.full((3, 2), math.nan, dtype=torch.float64)}, ValueError, "cost has entries that are not finite"),
        ({"eta": 0.0}, ValueError, "eta must be positive and finite, got 0.0"),
        ({"eta": math.inf}, ValueError, "eta must be positive and finite, got inf"),
    ],
)  # fmt: skip
def test_refuses_what_it_cannot_solve(change, error, message):
    EntropicOT(**GOOD)
    with pytest.raises(error, match=message):
        EntropicOT(**(GOOD | change))
