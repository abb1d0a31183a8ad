"""Objectives: derivatives by autograd, error identities of the approximations, error messages."""

import pytest
import torch

from descent.curvature.approximate_hessians import (
    ChebyshevResidual,
    DifferenceChain,
    LinearResidual,
    Logistic,
    LogSumExp,
    PowerOfResidual,
    RosenbrockResidual,
    hessian_error,
)
from descent.curvature.dual_metric import Metric
from descent.curvature.gradient_normalized_instances import FlatTail


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lse(rows, offsets):
    return LogSumExp(
        rows, offsets, 0.7
    ), lambda x: 0.7 * torch.logsumexp((rows @ x - offsets) / 0.7, 0)


def logistic(features, signs):
    return Logistic(features, signs), lambda x: torch.log1p(
        torch.exp(-signs * (features @ x))
    ).mean()


def power(residual, p):
    return PowerOfResidual(residual, p), lambda x: residual_value(residual, x).norm() ** p / p


def residual_value(residual, x):
    if isinstance(residual, ChebyshevResidual):
        return torch.cat([0.5 * (1 - x[:1]), x[1:] - 2 * x[:-1] ** 2 + 1])
    if isinstance(residual, RosenbrockResidual):
        return torch.stack([1 - x[0], 10 * (x[1] - x[0] ** 2)])
    return residual.value(x)


CASES = {
    "log-sum-exp": (*lse(normal(7, 4), normal(7, seed=1)), normal(4, seed=2)),
    "logistic": (*logistic(normal(9, 4), normal(9, seed=1).sign()), normal(4, seed=2)),
    "linear": (*power(LinearResidual(normal(3, 4), normal(3, seed=1)), 4), normal(4, seed=2)),
    "linear, p = 2.5": (*power(LinearResidual(normal(6, 4), normal(6, seed=1)), 2.5), normal(4, seed=2)),
    "rosenbrock": (*power(RosenbrockResidual(), 3), normal(2, seed=2)),
    "chebyshev": (*power(ChebyshevResidual(), 4), normal(6, seed=2)),
    "chebyshev, p = 2": (*power(ChebyshevResidual(), 2), normal(5, seed=2)),
    "flat tail": (FlatTail(), lambda x: 10 * x[0] ** -0.1, torch.tensor([1.7], dtype=torch.float64)),
    "chain": (
        DifferenceChain(),
        lambda x: (torch.diff(x, prepend=torch.zeros(1).double()).abs() ** 3).sum() / 3 - x[-1],
        normal(5, seed=2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_value_gradient_and_hessian_are_those_of_autograd(name):
    problem, function, x = CASES[name]
    assert problem.value(x) == pytest.approx(float(function(x)))
    expected = torch.autograd.functional.jacobian(function, x)
    torch.testing.assert_close(problem.gradient(x), expected)
    value, gradient = problem.value_and_gradient(x)
    assert value == pytest.approx(problem.value(x))
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(problem.hessian(x), torch.autograd.functional.hessian(function, x))


def test_jacobians_are_those_of_autograd_and_match_the_pull_back():
    for residual, x in ((RosenbrockResidual(), normal(2)), (ChebyshevResidual(), normal(6))):
        expected = torch.autograd.functional.jacobian(lambda y, r=residual: residual_value(r, y), x)
        torch.testing.assert_close(residual.jacobian(x), expected)
        v = normal(len(expected), seed=5)
        torch.testing.assert_close(residual.pull_back(x, v), expected.T @ v)


def test_the_chebyshev_chain_has_one_stationary_point():
    residual = ChebyshevResidual()
    assert float(residual.value(torch.ones(5, dtype=torch.float64)).norm()) == 0
    assert abs(float(torch.linalg.det(residual.jacobian(normal(8))))) == pytest.approx(0.5)


def test_weighted_gauss_newton_errs_by_the_squared_gradient():
    rows = normal(8, 5)
    problem, metric = LogSumExp(rows, normal(8, seed=1), 0.4), Metric(rows.T @ rows)
    x = normal(5, seed=3)
    expected = metric.dual_norm(problem.gradient(x)) ** 2 / 0.4
    assert hessian_error(problem, "gauss_newton", x, metric) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("p", [3, 4])
def test_the_fisher_term_of_a_square_system_errs_by_a_power_of_the_gradient(p):
    matrix = normal(5, 5)
    problem, metric = (
        PowerOfResidual(LinearResidual(matrix, normal(5, seed=1)), p),
        Metric(matrix.T @ matrix),
    )
    x = normal(5, seed=3)
    size = metric.dual_norm(problem.gradient(x))
    assert hessian_error(problem, "fisher", x, metric) == pytest.approx(size ** ((p - 2) / (p - 1)))


def test_the_fisher_matrix_of_logistic_regression_is_the_mean_outer_product():
    problem = Logistic(normal(9, 3), normal(9, seed=1).sign())
    x = normal(3, seed=2)
    s = problem.misfit(x)
    rows = -s[:, None] * problem.signed
    torch.testing.assert_close(problem.hessian(x, "fisher"), rows.T @ rows / 9)


@pytest.mark.parametrize("p", [2, 3, 4])
def test_a_solved_system_has_finite_matrices(p):
    problem, x = PowerOfResidual(ChebyshevResidual(), p), torch.ones(4, dtype=torch.float64)
    for kind in ("exact", "gauss_newton", "fisher"):
        assert problem.hessian(x, kind).isfinite().all()
    assert problem.gradient(x).norm() == 0


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        PowerOfResidual(RosenbrockResidual(), 1)
    for name in CASES.keys() - {"flat tail"}:
        problem, _, x = CASES[name]
        with pytest.raises(ValueError, match="unknown Hessian 'best'"):
            problem.hessian(x, "best")
