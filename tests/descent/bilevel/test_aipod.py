"""The reconstructed rival: its implicit gradient by differences, and what it cannot do."""

import pytest
import torch

from descent.bilevel.aipod import AiPOD
from descent.bilevel.coupled_toys import MerelyConvex
from descent.bilevel.lv_hba import LVHBA
from descent.bilevel.oracle_log import FactorisationCounter, OracleLog
from descent.bilevel.problem import BilevelProblem


class StronglyConvex(BilevelProblem):
    """f = ½y'Qy − x'Ty, constraint Ay + Bx = 0, a smooth F."""

    def __init__(self):
        g = torch.Generator().manual_seed(0)
        root = torch.randn(5, 5, generator=g, dtype=torch.float64)
        self.quadratic = root @ root.T / 5 + torch.eye(5, dtype=torch.float64)
        self.cross = torch.randn(3, 5, generator=g, dtype=torch.float64)
        self.rows_y = torch.randn(2, 5, generator=g, dtype=torch.float64)
        self.rows_x = torch.randn(2, 3, generator=g, dtype=torch.float64)

    def upper(self, x, y):
        return torch.sin(x.sum(-1)) + torch.cos(y).sum(-1) + (x[..., :1] * y).sum(-1)

    def lower(self, x, y):
        return ((y @ self.quadratic) * y).sum(-1) / 2 - ((x @ self.cross) * y).sum(-1)

    def response(self, x):
        zero = torch.zeros(2, 2, dtype=torch.float64)
        system = torch.cat(
            [
                torch.cat([self.quadratic, self.rows_y.T], 1),
                torch.cat([self.rows_y, zero], 1),
            ]
        )
        right = torch.cat([x @ self.cross, -self.rows_x @ x])
        return torch.linalg.solve(system, right)[:5]


@pytest.mark.parametrize("terms", [None, 400])
def test_hypergradient_agrees_with_differences_along_the_solution_map(terms):
    problem = StronglyConvex()
    rate = 1 / float(torch.linalg.eigvalsh(problem.quadratic).max())
    solver = AiPOD(
        problem,
        problem.rows_y,
        problem.rows_x,
        upper_rate=0.1,
        lower_rate=0.1,
        neumann_terms=terms,
        neumann_rate=rate,
    )
    x = torch.tensor([0.3, -0.7, 0.2], dtype=torch.float64)
    gradient = solver.hypergradient(x, problem.response(x))
    h = 1e-6
    shifts = h * torch.eye(3, dtype=torch.float64)

    def total(u):
        return problem.upper(u, problem.response(u))

    differences = torch.stack([(total(x + s) - total(x - s)) / (2 * h) for s in shifts])
    torch.testing.assert_close(gradient, differences, atol=1e-7, rtol=0)


def test_inner_steps_stay_feasible_and_reach_the_solution():
    problem = StronglyConvex()
    solver = AiPOD(
        problem, problem.rows_y, problem.rows_x, upper_rate=0.0, lower_rate=0.3, inner_steps=300
    )
    x = torch.tensor([0.3, -0.7, 0.2], dtype=torch.float64)
    y = solver.step(x, torch.zeros(5, dtype=torch.float64))[1]
    torch.testing.assert_close(y, problem.response(x), atol=1e-9, rtol=0)


def test_cannot_choose_among_lower_solutions():
    problem = MerelyConvex(4)
    g = torch.Generator().manual_seed(2)
    y = torch.randn(8, generator=g, dtype=torch.float64)
    x = torch.zeros(4, dtype=torch.float64)
    rows = torch.ones(1, 8, dtype=torch.float64), torch.ones(1, 4, dtype=torch.float64)
    solver = AiPOD(problem, *rows, upper_rate=0.1, lower_rate=0.5)
    shape = y[4:] - y[4:].mean()
    for _ in range(200):
        x, y = solver.step(x, y)
    torch.testing.assert_close(y[4:] - y[4:].mean(), shape, atol=1e-9, rtol=0)
    assert float((x + 0.3).norm()) > 0.3


def test_counts_tell_the_two_methods_apart():
    log = OracleLog(MerelyConvex(3))
    x, y, z = (torch.zeros(k, dtype=torch.float64) for k in (3, 6, 1))
    solver = LVHBA(log, alpha=0.01, beta=0.02, eta=0.01)
    state = solver.start(x, y, z)
    log.counts.clear()
    with FactorisationCounter() as factorisations:
        solver.run(state, 3, check=False)
    assert log.counts["second_derivatives"] == factorisations.count == 0
    assert log.counts["lower_gradient_y"] == log.counts["lower_gradient_x"] == 6
    assert log.counts["project_multiplier"] == 6
    assert log.counts["project_joint"] == log.counts["constraint"] == 3
    rows = torch.ones(1, 6, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)
    rival = AiPOD(log, *rows, upper_rate=0.1, lower_rate=0.1, neumann_terms=None)
    with FactorisationCounter() as factorisations:
        rival.step(x, y)
    assert log.counts["second_derivatives"] == 7
    assert factorisations.count == 1


def test_refuses_counts_below_one():
    rows = torch.ones(1, 2), torch.ones(1, 1)
    with pytest.raises(ValueError, match="at least 1"):
        AiPOD(MerelyConvex(1), *rows, upper_rate=0.1, lower_rate=0.1, inner_steps=0)
