"""Rademacher complexities: exact enumeration of signs, Massart's bound, scaling."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.stability.complexity import massart_bound, rademacher_complexities


def enumerated(inputs: torch.Tensor) -> tuple[float, float]:
    n = inputs.shape[0]
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=n)), dtype=inputs.dtype)
    correlations = (signs @ inputs / n).abs()
    return float(correlations.amax(-1).mean()), float(correlations.sum(-1).mean())


def test_estimates_agree_with_the_enumeration_of_all_signs():
    inputs = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = enumerated(inputs)
    estimated = rademacher_complexities(inputs, 2.0, 40_000, torch.Generator().manual_seed(1))
    for value, expected in zip(estimated, exact, strict=True):
        assert float(value) == pytest.approx(2.0 * expected, rel=0.01)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 7), st.integers(1, 20))
def test_massart_bounds_the_exact_complexity(seed, n, d):
    inputs = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert enumerated(inputs)[0] <= float(massart_bound(inputs, 1.0)) * (1 + 1e-12)


def test_orthonormal_columns_have_a_closed_form():
    """Identity inputs: every correlation is 1/n, so the classes have complexities 1/n and d/n."""
    small, large = rademacher_complexities(torch.eye(6).double(), 3.0, 5, torch.Generator())
    assert float(small) == pytest.approx(3.0 / 6)
    assert float(large) == pytest.approx(3.0)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"\(n, d\), got \(3,\)"):
        rademacher_complexities(torch.ones(3), 1.0, 3, torch.Generator())
    with pytest.raises(ValueError, match="draws must be at least 1"):
        rademacher_complexities(torch.ones(3, 2), 1.0, 0, torch.Generator())
    with pytest.raises(ValueError, match=r"\(n, d\), got \(3,\)"):
        massart_bound(torch.ones(3), 1.0)
