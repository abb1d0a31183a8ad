"""Cutoff distributions, their coupling, and the optimal one against a linear program."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from descent.first_order.cutoff_sampling import (
    CutoffSampler,
    EpochShiftCutoff,
    FixedCutoff,
    OptimalCutoff,
    UniformCutoff,
    WeightedCutoff,
    cost_to_accuracy,
    rpt_optimal_probabilities,
    subset_optimal_probabilities,
    update_probabilities,
)

SAMPLERS = [
    UniformCutoff(4),
    EpochShiftCutoff(4),
    OptimalCutoff([1.0, 4, 2, 8]),
    WeightedCutoff([0.0, 1, 0, 2]),
    FixedCutoff(4, 2),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("progress", [0.0, 0.7])
def test_frequencies_follow_the_distribution(sampler, progress):
    drawn = sampler.sample_many(20_000, torch.Generator().manual_seed(0), progress)
    expected = sampler.distribution(progress)
    assert float(expected.sum()) == pytest.approx(1)
    frequency = torch.bincount(drawn, minlength=4) / len(drawn)
    error = (expected * (1 - expected) / len(drawn)).sqrt()
    assert bool(((frequency - expected).abs() <= 4.5 * error).all())


def test_a_single_draw_is_the_first_of_many():
    many = UniformCutoff(5).sample_many(1, torch.Generator().manual_seed(7))
    assert UniformCutoff(5).sample(torch.Generator().manual_seed(7)) == int(many[0])


def test_no_shift_is_uniform_draw_by_draw_and_the_sign_reverses_it():
    draws = [
        s.sample_many(100, torch.Generator().manual_seed(1), 0.2)
        for s in (UniformCutoff(4), EpochShiftCutoff(4, 0.0))
    ]
    assert torch.equal(*draws)
    forward, backward = EpochShiftCutoff(4, 0.5), EpochShiftCutoff(4, -0.5)
    assert torch.allclose(forward.distribution(0.2), backward.distribution(0.8))
    assert torch.allclose(forward.distribution(0.5), torch.full((4,), 0.25, dtype=torch.float64))
    assert forward.distribution(0.0)[0] > forward.distribution(0.0)[3]


def test_update_probabilities_accumulate_from_the_input():
    assert torch.allclose(
        update_probabilities(UniformCutoff(4).distribution()),
        torch.tensor([0.25, 0.5, 0.75, 1], dtype=torch.float64),
    )


def test_worked_example():
    L, ones = torch.tensor([1.0, 4, 2, 8]), torch.ones(4)
    best = rpt_optimal_probabilities(L)
    assert best.tolist() == [0.125, 0.5, 0.5, 1]
    assert OptimalCutoff(L).distribution().tolist() == [0.125, 0.375, 0, 0.5]
    gain = cost_to_accuracy(ones, L, ones) / cost_to_accuracy(best, L, ones)
    assert float(gain) == pytest.approx(32 / 17)
    assert subset_optimal_probabilities(L).tolist() == [0.125, 0.5, 0.25, 1]


def least_cost(L, costs, forward):
    """With q = p times the number of steps the problem is linear: q_i >= L_i, q non-decreasing."""
    b = len(L)
    objective = np.array(costs, dtype=float)
    objective[-1] += forward
    order = np.eye(b)[:-1] - np.eye(b, k=1)[:-1]
    return linprog(objective, order, np.zeros(b - 1), bounds=[(least, None) for least in L]).fun


@settings(max_examples=40, deadline=None)
@given(
    L=st.lists(st.floats(0.1, 10), min_size=1, max_size=6),
    forward=st.floats(0, 5),
    seed=st.integers(0, 1000),
)
def test_closed_form_solves_the_linear_program(L, forward, seed):
    costs = np.random.default_rng(seed).uniform(0.1, 3, len(L))
    ours = cost_to_accuracy(rpt_optimal_probabilities(L), L, costs, forward)
    assert float(ours) == pytest.approx(least_cost(L, costs, forward), rel=1e-8)


def test_refusals():
    with pytest.raises(ValueError, match="at least one layer"):
        UniformCutoff(0)
    with pytest.raises(ValueError, match="from 0 to 2, got 3"):
        FixedCutoff(3, 3)
    with pytest.raises(ValueError, match="non-negative"):
        WeightedCutoff([1.0, -1])
    with pytest.raises(ValueError, match="positive, got"):
        OptimalCutoff([1.0, 0])
    with pytest.raises(ValueError, match="from 0 to 1, got 2"):
        EpochShiftCutoff(3).distribution(2)
    with pytest.raises(NotImplementedError):
        CutoffSampler(2).distribution()
