"""The metric: duality, invariance under a change of variables, the identity, error messages."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.curvature.dual_metric import Metric


def positive_definite(n, seed):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, n + 3, generator=generator, dtype=torch.float64)
    return a @ a.T, torch.randn(n, generator=generator, dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 8), seed=st.integers(0, 1000))
def test_the_dual_norm_is_the_largest_product_with_a_unit_step(n, seed):
    matrix, s = positive_definite(n, seed)
    metric = Metric(matrix)
    best = metric.to_primal(s) / metric.dual_norm(s)
    assert metric.norm(best) == pytest.approx(1)
    assert float(s @ best) == pytest.approx(metric.dual_norm(s))
    other = torch.randn(n, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    assert float(s @ other) <= metric.dual_norm(s) * metric.norm(other) * (1 + 1e-12)
    torch.testing.assert_close(metric.to_dual(metric.to_primal(s)), s)


def test_norms_are_those_of_the_symmetric_square_root():
    matrix, s = positive_definite(6, 3)
    symmetric, _ = positive_definite(6, 4)
    values, q = torch.linalg.eigh(matrix)
    root = q @ torch.diag(values.rsqrt()) @ q.T
    metric = Metric(matrix)
    assert metric.dual_norm(s) == pytest.approx(float((root @ s).norm()))
    expected = torch.linalg.matrix_norm(root @ symmetric @ root, 2)
    assert metric.operator_norm(symmetric) == pytest.approx(float(expected))
    assert metric.operator_norm(-2.5 * matrix) == pytest.approx(2.5)


def test_the_identity_needs_no_matrix():
    _, s = positive_definite(5, 0)
    m, _ = positive_definite(5, 1)
    plain, stored = Metric(), Metric(torch.eye(5, dtype=torch.float64))
    assert plain.norm(s) == plain.dual_norm(s) == pytest.approx(float(s.norm()))
    assert plain.operator_norm(m) == pytest.approx(stored.operator_norm(m))
    torch.testing.assert_close(plain.add_to(m, 0.3), stored.add_to(m, 0.3))


def test_the_regulariser_is_the_metric_and_leaves_its_argument_alone():
    matrix, _ = positive_definite(4, 2)
    m = torch.zeros(4, 4, dtype=torch.float64)
    for metric, expected in ((Metric(matrix), 2 * matrix), (Metric(), 2 * torch.eye(4).double())):
        torch.testing.assert_close(metric.add_to(m, 2.0), expected)
    assert not m.any()


def test_wrong_matrices_are_told():
    with pytest.raises(ValueError, match="square"):
        Metric(torch.ones(2, 3))
    with pytest.raises(ValueError, match="symmetric"):
        Metric(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="pivot 2"):
        Metric(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
    assert math.isfinite(Metric(torch.eye(2)).norm(torch.ones(2)))
