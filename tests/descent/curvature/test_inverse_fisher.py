"""Reference solvers: agreement with one another, limits in the damping, curvlinops as peer."""

import pytest
import torch
from torch import nn

from descent.curvature.inverse_fisher import (
    conjugate_gradient_solve,
    dense_fisher,
    dense_inverse,
    fisher_product,
    gauss_jordan_inverse,
    woodbury_solve,
)


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(7, 20, generator=generator, dtype=torch.float64)
    return gradients, torch.randn(20, generator=generator, dtype=torch.float64)


def test_dense_fisher_is_its_definition(problem):
    gradients, _ = problem
    expected = 0.3 * torch.eye(20, dtype=torch.float64)
    for g in gradients:
        expected += torch.outer(g, g) / 7
    torch.testing.assert_close(dense_fisher(gradients, 0.3), expected)


def test_all_references_agree(problem):
    gradients, x = problem
    y = dense_inverse(gradients, 0.1) @ x
    torch.testing.assert_close(woodbury_solve(gradients, 0.1, x), y)
    torch.testing.assert_close(conjugate_gradient_solve(gradients, 0.1, x, 1e-12)[0], y)
    torch.testing.assert_close(fisher_product(gradients, 0.1, y), x)
    inverse = gauss_jordan_inverse(dense_fisher(gradients, 0.1))
    torch.testing.assert_close(inverse, dense_inverse(gradients, 0.1))


def test_conjugate_gradients_need_one_step_per_distinct_eigenvalue(problem):
    _, x = problem
    orthogonal = torch.eye(20, dtype=torch.float64)[:7] * 3
    assert conjugate_gradient_solve(orthogonal, 0.1, x, 1e-12)[1] == 2


def test_large_damping_gives_the_identity_and_small_damping_a_projection(problem):
    gradients, x = problem
    torch.testing.assert_close(1e9 * woodbury_solve(gradients, 1e9, x), x, rtol=1e-6, atol=1e-6)
    basis = torch.linalg.qr(gradients.T).Q
    complement = x - basis @ (basis.T @ x)
    small = 1e-8 * woodbury_solve(gradients, 1e-8, x)
    torch.testing.assert_close(small, complement, rtol=1e-5, atol=1e-6)


def test_curvlinops_has_the_same_empirical_fisher_and_its_inverse():
    curvlinops = pytest.importorskip("curvlinops")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    inputs, targets = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    parameters, loss = list(model.parameters()), nn.CrossEntropyLoss()
    rows = []
    for x, t in zip(inputs, targets, strict=True):
        grads = torch.autograd.grad(loss(model(x[None]), t[None]), parameters)
        rows.append(torch.cat([g.flatten() for g in grads]))
    gradients = torch.stack(rows)
    operator = curvlinops.EFLinearOperator(model, loss, parameters, [(inputs, targets)])
    vector = torch.randn(gradients.shape[1], dtype=torch.float64)
    ours = fisher_product(gradients, 0.1, vector) - 0.1 * vector
    torch.testing.assert_close(ours, operator @ vector)
    dense = operator @ torch.eye(len(vector), dtype=torch.float64)
    dense.diagonal().add_(0.1)
    expected = torch.linalg.solve(dense, vector)
    torch.testing.assert_close(woodbury_solve(gradients, 0.1, vector), expected)


@pytest.mark.parametrize(
    ("gradients", "damp", "message"),
    [
        (torch.zeros(3), 1.0, "shape \\(m, d\\)"),
        (torch.zeros(0, 3), 1.0, "non-empty"),
        (torch.zeros(2, 3, dtype=torch.long), 1.0, "floating-point"),
        (torch.zeros(2, 3), 0.0, "damp must be positive"),
        (torch.zeros(2, 3), float("nan"), "damp must be positive"),
    ],
)
def test_what_defines_no_inverse_is_refused(gradients, damp, message):
    with pytest.raises(ValueError, match=message):
        dense_fisher(gradients, damp)


def test_wrong_shapes_and_too_few_steps_are_told(problem):
    gradients, x = problem
    with pytest.raises(ValueError, match="vector must have shape \\(20,\\)"):
        woodbury_solve(gradients, 0.1, x[:3])
    with pytest.raises(ValueError, match="square"):
        gauss_jordan_inverse(gradients)
    with pytest.raises(RuntimeError, match="in 2 steps"):
        conjugate_gradient_solve(gradients, 1e-4, x, 1e-12, max_steps=2)
