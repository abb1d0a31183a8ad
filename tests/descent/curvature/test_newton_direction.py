"""Newton directions: the thinned system against a dense solve, with and without projection."""

import pytest
import torch

from descent.curvature.entropic_transport import EntropicOT
from descent.curvature.newton_direction import coupling_product, dense_direction, sparse_direction
from descent.curvature.plan_sparsity import sparsify_top
from descent.curvature.sinkhorn import sinkhorn_sweep


@pytest.fixture(params=[(30, 30), (24, 37)], ids=["square", "wide"])
def state(request):
    n, m = request.param
    generator = torch.Generator().manual_seed(1)
    cost = torch.rand(n, m, generator=generator, dtype=torch.float64)
    marginals = [torch.rand(k, generator=generator, dtype=torch.float64) + 0.2 for k in (n, m)]
    problem = EntropicOT(cost, *(marginal / marginal.sum() for marginal in marginals), 60.0)
    x, y = problem.start()
    for _ in range(5):
        x, y = sinkhorn_sweep(problem, x, y)
    return problem, x, y


@pytest.mark.parametrize("keep", [60, 500])
def test_product_is_that_of_the_scaled_matrix(state, keep):
    problem, x, y = state
    plan = problem.plan(x, y)
    n, m = plan.shape
    thinned = sparsify_top(plan, keep)
    scale = torch.cat([plan.sum(1), plan.sum(0)]).rsqrt()
    matrix = torch.eye(n + m, dtype=plan.dtype)
    matrix[:n, n:] = thinned.dense()
    matrix[n:, :n] = thinned.dense().T
    matrix = torch.where(matrix == 1, matrix, scale[:, None] * matrix * scale)
    w = torch.randn(n + m, generator=torch.Generator().manual_seed(2), dtype=plan.dtype)
    torch.testing.assert_close(coupling_product(thinned, scale)(w), matrix @ w)


def test_thinned_system_has_the_exact_diagonal_blocks(state):
    problem, x, y = state
    plan, gradient = problem.plan(x, y), problem.gradient(x, y)
    n = plan.shape[0]
    keep = 3 * n
    matrix = torch.diag(torch.cat([plan.sum(1), plan.sum(0)]))
    matrix[:n, n:] = sparsify_top(plan, keep).dense()
    matrix[n:, :n] = matrix[:n, n:].T.clone()
    expected = torch.linalg.solve(problem.eta * matrix, gradient)
    found = sparse_direction(plan, gradient, problem.eta, keep, cg_tol=1e-13, project=False)
    torch.testing.assert_close(found.step, expected, rtol=1e-8, atol=1e-12)
    assert float(gradient @ found.step) > 0


def test_full_budget_gives_the_newton_step_of_the_hessian(state):
    problem, x, y = state
    plan, gradient = problem.plan(x, y), problem.gradient(x, y)
    expected = torch.linalg.lstsq(-problem.hessian(x, y), gradient, driver="gelsd").solution
    n = plan.shape[0]
    for found in (
        sparse_direction(plan, gradient, problem.eta, plan.numel(), cg_tol=1e-13),
        dense_direction(plan, gradient, problem.eta),
    ):
        # steps agree up to the null direction, which shifts rows against columns
        difference = found.step - expected
        shift = difference[:n].mean()
        torch.testing.assert_close(difference[:n], shift.expand(n), rtol=0, atol=1e-10)
        torch.testing.assert_close(difference[n:], -shift.expand(plan.shape[1]), rtol=0, atol=1e-10)


def test_projection_keeps_the_scaled_step_orthogonal_to_the_null_direction(state):
    problem, x, y = state
    plan, gradient = problem.plan(x, y), problem.gradient(x, y)
    n = plan.shape[0]
    sums = torch.cat([plan.sum(1), -plan.sum(0)])
    with_it = sparse_direction(plan, gradient, problem.eta, 3 * n)
    without = sparse_direction(plan, gradient, problem.eta, 3 * n, project=False)
    # in the scaled variables <nu, w> is sum of mass times step, rows minus columns
    assert abs(float(sums @ with_it.step)) <= 1e-14
    assert abs(float(sums @ without.step)) > 1e-6


def test_conjugate_directions_save_iterations(state):
    problem, x, y = state
    plan, gradient = problem.plan(x, y), problem.gradient(x, y)
    fast = sparse_direction(plan, gradient, problem.eta, 100, cg_max=2000)
    slow = sparse_direction(plan, gradient, problem.eta, 100, cg_max=2000, conjugate=False)
    assert fast.iterations < 70 < slow.iterations
    torch.testing.assert_close(fast.step, slow.step, rtol=1e-4, atol=1e-9)


def test_iteration_cap_holds_and_a_lost_row_gives_no_finite_step(state):
    problem, x, y = state
    plan, gradient = problem.plan(x, y), problem.gradient(x, y)
    assert sparse_direction(plan, gradient, problem.eta, 90, cg_max=3).iterations == 3
    plan[0] = 0.0
    assert not bool(sparse_direction(plan, gradient, problem.eta, 90).step.isfinite().all())
    assert not bool(dense_direction(plan, gradient, problem.eta).step.isfinite().all())
