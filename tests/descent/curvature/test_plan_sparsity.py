"""Thinning: what is kept, what is lost, ties, and the budget for a given loss."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.curvature.plan_sparsity import approximate_sparsity, budget_for_mass, sparsify_top

PLAN = torch.tensor([[0.4, 0.1, 0.0], [0.05, 0.1, 0.35]], dtype=torch.float64)


def test_keeps_the_largest_entries_of_the_whole_matrix():
    thinned = sparsify_top(PLAN, 2)
    expected = torch.tensor([[0.4, 0, 0], [0, 0, 0.35]], dtype=torch.float64)
    assert torch.equal(thinned.dense(), expected)
    assert thinned.kept == 2
    assert thinned.dropped_mass == pytest.approx(0.25, rel=1e-14)


def test_keeps_all_ties_and_no_zeros():
    assert sparsify_top(PLAN, 3).kept == 4
    assert sparsify_top(PLAN, 6).kept == 5
    assert torch.equal(sparsify_top(PLAN, 6).dense(), PLAN)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 9), m=st.integers(1, 9), share=st.floats(0, 1))
def test_thinned_and_dropped_add_up_and_no_other_choice_loses_less(seed, n, m, share):
    generator = torch.Generator().manual_seed(seed)
    plan = torch.rand(n, m, generator=generator, dtype=torch.float64).pow(8)
    keep = max(1, round(share * n * m))
    thinned = sparsify_top(plan, keep)
    total = float(plan.sum())
    assert float(thinned.dense().sum()) + thinned.dropped_mass == pytest.approx(total, rel=1e-12)
    assert thinned.dropped_mass == pytest.approx(
        approximate_sparsity(plan, keep), rel=1e-10, abs=1e-18
    )
    others = plan.flatten()[torch.randperm(n * m, generator=generator)[keep:]].sum()
    assert thinned.dropped_mass <= float(others) + 1e-15


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), mass=st.floats(0, 2))
def test_budget_is_the_least_that_loses_no_more(seed, mass):
    plan = torch.rand(5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / 10
    keep = budget_for_mass(plan, mass)
    assert keep == 1 or approximate_sparsity(plan, keep) <= mass + 1e-15
    assert keep == 1 or approximate_sparsity(plan, keep - 1) > mass - 1e-15


def test_small_masses_are_not_lost_in_cancellation():
    plan = torch.tensor([[0.5, 1e-20], [1e-20, 0.5]], dtype=torch.float64)
    assert approximate_sparsity(plan, 2) == pytest.approx(2e-20, rel=1e-12)
    assert sparsify_top(plan, 2).dropped_mass == pytest.approx(2e-20, rel=1e-12)


def test_refuses_budgets_out_of_range():
    with pytest.raises(ValueError, match="between 1 and 6, got 0"):
        sparsify_top(PLAN, 0)
    with pytest.raises(ValueError, match=r"shape \(n, m\), got \(6,\)"):
        sparsify_top(PLAN.flatten(), 1)
    with pytest.raises(ValueError, match="between 0 and 6, got 7"):
        approximate_sparsity(PLAN, 7)
    with pytest.raises(ValueError, match="at least 0, got -1"):
        budget_for_mass(PLAN, -1)
