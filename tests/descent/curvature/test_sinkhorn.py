"""Sinkhorn: exact half-steps, monotone ascent, agreement of its two forms and with POT."""

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.curvature.entropic_transport import EntropicOT
from descent.curvature.sinkhorn import (
    maximise_columns,
    maximise_rows,
    sinkhorn_stabilized,
    sinkhorn_sweep,
)
from descent.curvature.transport_problems import random_assignment


def rectangular(seed: int, eta: float = 40.0) -> EntropicOT:
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(9, 14, generator=generator, dtype=torch.float64)
    marginals = [torch.rand(k, generator=generator, dtype=torch.float64) + 0.05 for k in (9, 14)]
    return EntropicOT(cost, *(marginal / marginal.sum() for marginal in marginals), eta)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), eta=st.floats(0.1, 500.0))
def test_each_half_sets_its_block_of_the_gradient_to_zero_and_ascends(seed, eta):
    problem = rectangular(seed, eta)
    x, y = problem.start()
    before = float(problem.potential(x, y))
    x = maximise_rows(problem, y)
    middle = float(problem.potential(x, y))
    assert float(problem.gradient(x, y)[:9].abs().max()) <= 1e-12
    y = maximise_columns(problem, x)
    after = float(problem.potential(x, y))
    assert float(problem.gradient(x, y)[9:].abs().max()) <= 1e-12
    assert middle >= before - 1e-14 * max(1, abs(before))
    assert after >= middle - 1e-14 * max(1, abs(middle))


def test_half_steps_are_the_updates_of_the_paper():
    problem = rectangular(3)
    x, y = sinkhorn_sweep(problem, *problem.start())
    plan = problem.plan(x, y)
    expected = x + (problem.source.log() - plan.sum(1).log()) / problem.eta
    torch.testing.assert_close(maximise_rows(problem, y), expected)
    plan = problem.plan(expected, y)
    expected_columns = y + (problem.target.log() - plan.sum(0).log()) / problem.eta
    torch.testing.assert_close(sinkhorn_sweep(problem, x, y)[1], expected_columns)


def test_closed_form_of_two_points():
    cost = torch.tensor([[0.0, 0.3], [0.3, 0.0]], dtype=torch.float64)
    half = torch.full((2,), 0.5, dtype=torch.float64)
    problem = EntropicOT(cost, half, half, 20.0)
    plan = problem.plan(*sinkhorn_sweep(problem, *problem.start()))
    assert float(plan[0, 1]) == pytest.approx(0.5 * math.exp(-6) / (1 + math.exp(-6)), rel=1e-13)
    assert float(plan[0, 1]) == pytest.approx(0.00123631157832, rel=1e-11)


def test_both_forms_take_the_same_sweeps_to_the_same_plan():
    problem = rectangular(0, 60.0)
    result = sinkhorn_stabilized(problem, tol=1e-11)
    x, y = problem.start()
    for _ in range(result.sweeps):
        x, y = sinkhorn_sweep(problem, x, y)
    assert result.converged
    assert result.errors[-1] < 1e-11
    torch.testing.assert_close(
        problem.plan(result.x, result.y), problem.plan(x, y), rtol=1e-9, atol=1e-15
    )
    assert problem.marginal_error(problem.plan(result.x, result.y)) < 2e-11


@pytest.mark.parametrize("eta", [20.0, 200.0])
def test_plan_is_that_of_pot(eta):
    problem = rectangular(1, eta)
    result = sinkhorn_stabilized(problem, tol=1e-12, max_sweeps=100_000)
    expected = ot.sinkhorn(
        problem.source.numpy(), problem.target.numpy(), problem.cost.numpy(), 1 / eta,
        method="sinkhorn_log", numItermax=100_000, stopThr=1e-13,
    )  # fmt: skip
    np.testing.assert_allclose(
        problem.plan(result.x, result.y).numpy(), expected, rtol=1e-6, atol=1e-12
    )


def test_history_is_measured_where_it_says():
    problem = random_assignment(30, 100.0, torch.Generator().manual_seed(0))
    result = sinkhorn_stabilized(problem, tol=1e-30, max_sweeps=75, absorb=20, check=10)
    assert not result.converged
    assert result.sweeps == 75
    assert result.checked == (10, 20, 30, 40, 50, 60, 70, 75)
    x, y = problem.start()
    for sweep in range(1, 51):
        x, y = sinkhorn_sweep(problem, x, y)
        if sweep in (10, 20, 50):
            error = problem.marginal_error(problem.plan(x, y))
            assert result.errors[sweep // 10 - 1] == pytest.approx(error, rel=1e-8)


def test_a_block_that_overflows_runs_in_the_log_domain():
    # from this far away the first scalings exceed the range of the numbers
    problem = rectangular(2, 3000.0)
    x, y = problem.start()
    far = 2.0 * torch.rand(14, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    result = sinkhorn_stabilized(problem, x, y + far, max_sweeps=210)
    assert all(math.isfinite(error) for error in result.errors)
    assert bool(result.x.isfinite().all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tol": 0.0}, "must be positive, got 0.0"),
        ({"check": 0}, "must be positive"),
        ({"absorb": 25}, r"absorb \(25\) must be a multiple of check \(10\)"),
    ],
)
def test_refuses_counts_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        sinkhorn_stabilized(rectangular(0), **change)
