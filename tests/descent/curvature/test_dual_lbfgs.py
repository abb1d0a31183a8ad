"""L-BFGS on the dual: reaches the plan of Sinkhorn, keeps its record, refuses bad counts."""

import pytest
import torch

from descent.curvature.dual_lbfgs import dual_lbfgs
from descent.curvature.sinkhorn import sinkhorn_stabilized
from descent.curvature.transport_problems import random_assignment


def test_reaches_the_plan_of_sinkhorn():
    problem = random_assignment(20, 20.0, torch.Generator().manual_seed(0))
    result = dual_lbfgs(problem, tol=1e-6)
    assert result.converged
    assert list(result.errors) == sorted(result.errors, reverse=True)
    plan = problem.plan(result.x, result.y)
    assert problem.marginal_error(plan) == pytest.approx(result.errors[-1], rel=1e-9)
    reference = sinkhorn_stabilized(problem)
    torch.testing.assert_close(plan, problem.plan(reference.x, reference.y), rtol=1e-3, atol=1e-7)


def test_keeps_to_its_budget_and_refuses_none():
    problem = random_assignment(20, 50.0, torch.Generator().manual_seed(0))
    assert len(dual_lbfgs(problem, warmup=1, evaluations=10, tol=1e-13).errors) <= 32
    with pytest.raises(ValueError, match="at least 1, got 0"):
        dual_lbfgs(problem, evaluations=0)
