"""Toy problems: gradients, optima, solutions by enumeration."""

import numpy as np
import pytest
import torch

from descent.bilevel.coupled_toys import CoupledScalar, MerelyConvex
from descent.bilevel.polyhedral_quadratic import random_polyhedral
from descent.bilevel.problem import BilevelProblem


def draw(seed, *shape):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


PROBLEMS = {
    "scalar": (CoupledScalar(1.8, 0.3), 1, 1, 1),
    "merely convex": (MerelyConvex(3, 0.7, 1.3, 2.0), 3, 6, 1),
    "polyhedral": (random_polyhedral(3, 4, 2, torch.Generator().manual_seed(0)), 3, 4, 2),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_closed_form_gradients_are_those_of_autograd(name):
    problem, n, m, q = PROBLEMS[name]
    x, y, lam = draw(1, 5, n), draw(2, 5, m), draw(3, 5, q)

    def compare(method, *args):
        found = getattr(problem, method)(*args)
        expected = getattr(BilevelProblem, method)(problem, *args)
        pairs = (
            zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
        )
        for a, b in pairs:
            torch.testing.assert_close(a.expand_as(b), b)

    for method in ("upper_gradient", "lower_gradient_x", "lower_gradient_y"):
        compare(method, x, y)
    for method in ("constraint_product_x", "constraint_product_y"):
        compare(method, x, y, lam)


@pytest.mark.parametrize("name", PROBLEMS)
def test_joint_projection_is_feasible_and_nearest(name):
    problem, n, m, _ = PROBLEMS[name]
    x, y = 3 * draw(4, 40, n), 3 * draw(5, 40, m)
    px, py = problem.project_joint(x, y)
    g = problem.constraint(px, py)
    assert float((g.abs() if problem.equality else g).max()) < 1e-10
    qx, qy = problem.project_joint(draw(6, 40, n), draw(7, 40, m))
    product = ((x - px) * (qx - px)).sum(-1) + ((y - py) * (qy - py)).sum(-1)
    assert float(product.max()) < 1e-10


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (1.8, 0.0, (1.9, 0.1, 1.8, 0.02)),
        (1.5, 1.0, (1.25, 0.75, 0.5, 0.125)),
        (0.2, 0.4, (0.3, 0.3, 0.0, 0.02)),
    ],
)
def test_scalar_optimum(a, b, expected):
    found = [float(v) for v in CoupledScalar(a, b).optimum()]
    assert found == pytest.approx(expected)
    x = torch.linspace(-3, 5, 8001, dtype=torch.float64)
    problem = CoupledScalar(a, b)
    along = problem.upper(x[:, None], problem.response(x)[0][:, None])
    assert float(along.min()) == pytest.approx(expected[3], abs=1e-5)


def test_merely_convex_optimum():
    problem = MerelyConvex(4, 0.7, 1.3)
    t = torch.linspace(-1, 1, 4001, dtype=torch.float64)[:, None].expand(-1, 4)
    y = torch.cat([t + 1, -(2 * t + 1)], 1)
    assert float(problem.lower_gap(t, y).abs().max()) < 1e-12
    best = problem.upper(t, y).argmin()
    assert float(t[best, 0]) == pytest.approx(problem.optimal_x(), abs=1e-3)


def test_enumeration_against_a_sweep_of_the_solution_map():
    g = torch.Generator().manual_seed(3)
    problem = random_polyhedral(2, 3, 3, g)
    best, x, y = problem.solve_by_enumeration()[0]
    point = torch.as_tensor(x)[None]
    response = problem.lower_response(point)
    np.testing.assert_allclose(response[0], y, atol=1e-8)
    around = point + 0.4 * draw(8, 3000, 2)
    feasible = []
    for start in around:
        try:
            feasible.append((start, problem.lower_response(start[None])[0]))
        except (TypeError, ValueError):
            continue
    values = [float(problem.upper(u, v)) for u, v in feasible]
    assert min(values) >= best - 1e-9
    assert min(values) < best * 1.05
