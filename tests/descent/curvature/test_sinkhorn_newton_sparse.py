"""The two-stage solver: pilot counts, exact transport, POT and regot, safeguards and what it refuses."""

import itertools
import math

import numpy as np
import ot
import pytest
import regot
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.curvature.entropic_transport import EntropicOT
from descent.curvature.sinkhorn import sinkhorn_stabilized, sinkhorn_sweep
from descent.curvature.sinkhorn_newton_sparse import (
    adaptive_newton,
    dense_newton,
    sinkhorn_newton_sparse,
)
from descent.curvature.transport_problems import (
    blob_image,
    image_transport,
    point_clouds,
    random_assignment,
)


def pilot(size: int, seed: int) -> EntropicOT:
    """Random assignment with the costs of an independent implementation in NumPy."""
    cost = torch.from_numpy(np.random.RandomState(seed).rand(size, size))
    uniform = torch.full((size,), 1 / size, dtype=torch.float64)
    return EntropicOT(cost, uniform, uniform, 2.4 * size)


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("size", "seed", "iterations", "objective"),
    [
        (100, 0, 31, 0.0153298815),
        (100, 1, 28, 0.0171626274),
        (100, 2, 27, 0.0167825004),
        (200, 0, 28, 0.0084609039),
        (200, 1, 29, None),
        (200, 2, 28, None),
        (500, 0, 30, 0.0034187720),
    ],
)
def test_iteration_counts_are_those_of_an_independent_implementation(
    size, seed, iterations, objective
):
    problem = pilot(size, seed)
    result = sinkhorn_newton_sparse(problem)
    assert result.converged
    assert result.iterations == iterations
    if objective is not None:
        cost = problem.transport_cost(problem.plan(result.x, result.y))
        assert cost == pytest.approx(objective, abs=1e-10)


def test_sinkhorn_needs_the_sweeps_of_an_independent_implementation():
    result = sinkhorn_stabilized(pilot(100, 2))
    assert 3650 <= result.sweeps <= 3665


def test_all_newton_variants_end_at_the_plan_of_sinkhorn():
    problem = random_assignment(60, 80.0, stream(0))
    reference = sinkhorn_stabilized(problem, tol=1e-13, max_sweeps=50_000)
    expected = problem.plan(reference.x, reference.y)
    for result in (
        sinkhorn_newton_sparse(problem),
        dense_newton(problem),
        adaptive_newton(problem),
    ):
        assert result.converged, result.reason
        torch.testing.assert_close(
            problem.plan(result.x, result.y), expected, rtol=1e-7, atol=1e-12
        )


def test_plan_is_that_of_pot_on_rectangular_marginals():
    generator = stream(3)
    cost = torch.rand(40, 25, generator=generator, dtype=torch.float64)
    marginals = [torch.rand(k, generator=generator, dtype=torch.float64) + 0.1 for k in (40, 25)]
    problem = EntropicOT(cost, *(marginal / marginal.sum() for marginal in marginals), 100.0)
    result = sinkhorn_newton_sparse(problem, keep_per_row=8)
    assert result.converged
    expected = ot.sinkhorn(
        problem.source.numpy(), problem.target.numpy(), cost.numpy(), 0.01,
        method="sinkhorn_log", numItermax=100_000, stopThr=1e-14,
    )  # fmt: skip
    np.testing.assert_allclose(
        problem.plan(result.x, result.y).numpy(), expected, rtol=1e-6, atol=1e-12
    )


def test_cost_approaches_exact_transport_as_eta_grows():
    base = point_clouds(60, 1.0, stream(4))
    exact = ot.emd2(base.source.numpy(), base.target.numpy(), base.cost.numpy())
    excess = []
    for eta in (150.0, 300.0, 600.0, 1200.0):
        problem = EntropicOT(base.cost, base.source, base.target, eta)
        result = sinkhorn_newton_sparse(problem, keep_per_row=15, tol=1e-12)
        assert result.converged, result.reason
        excess.append(problem.transport_cost(problem.plan(result.x, result.y)) - exact)
    assert all(a > b > -1e-12 for a, b in itertools.pairwise(excess))
    assert excess[-1] < 0.1 * excess[0]


def test_plan_is_that_of_regot():
    problem = pilot(100, 1)
    result = sinkhorn_newton_sparse(problem)
    marginal = problem.source.numpy()
    peer = regot.sinkhorn_ssns(
        np.asfortranarray(problem.cost.numpy()),
        marginal,
        marginal,
        1 / problem.eta,
        tol=1e-13,
        max_iter=200,
    )
    np.testing.assert_allclose(
        problem.plan(result.x, result.y).numpy(), np.array(peer.plan), atol=1e-11
    )


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6), size=st.integers(2, 30), per_row=st.integers(1, 40),
    scale=st.floats(0.3, 3.0), warmup=st.integers(0, 8),
)  # fmt: skip
def test_potential_never_falls_in_the_newton_stage(seed, size, per_row, scale, warmup):
    problem = random_assignment(size, scale * size, stream(seed))
    result = sinkhorn_newton_sparse(problem, warmup=warmup, newton=15, keep_per_row=per_row)
    values = [step.potential for step in result.trace]
    assert all(b >= a - 1e-13 * max(1, abs(a)) for a, b in itertools.pairwise(values))
    assert all(0 <= step.step_length <= 1 for step in result.trace)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.floats(-1, 1))
def test_plan_does_not_depend_on_the_null_direction_of_the_start(seed, shift):
    problem = random_assignment(20, 30.0, stream(seed))
    x, y = sinkhorn_sweep(problem, *problem.start())
    plans = []
    for offset in (0.0, shift):
        result = sinkhorn_newton_sparse(
            problem, warmup=0, start=(x + offset, y - offset), tol=1e-11
        )
        assert result.converged
        plans.append(problem.plan(result.x, result.y))
    torch.testing.assert_close(plans[0], plans[1], rtol=1e-6, atol=1e-12)


def test_few_entries_converge_linearly_and_many_superlinearly():
    problem = pilot(100, 0)
    many = sinkhorn_newton_sparse(problem, keep_per_row=20, cg_tol=1e-10)
    few = sinkhorn_newton_sparse(problem, keep_per_row=2, cg_tol=1e-10, newton=120)
    least = sinkhorn_newton_sparse(problem, keep_per_row=1)
    assert many.newton_steps == dense_newton(problem).newton_steps == 9
    assert few.newton_steps > 60
    tail = few.newton_errors[-6:]
    assert all(b / a == pytest.approx(0.775, abs=0.01) for a, b in itertools.pairwise(tail))
    assert not least.converged
    assert 1e-7 < least.error < 1e-4


def test_adaptive_budget_grows_as_the_error_falls():
    result = adaptive_newton(pilot(200, 2))
    kept = [step.kept for step in result.trace if step.stage == "newton"]
    assert result.converged
    assert kept == sorted(kept)
    assert kept[-1] > 2 * kept[0]


def test_trace_tells_the_stages_and_their_cost():
    problem = pilot(100, 2)
    result = sinkhorn_newton_sparse(problem, warmup=4, keep_per_row=5)
    assert [step.stage for step in result.trace[:4]] == ["warm-up"] * 4
    newton = result.trace[4:]
    assert {step.stage for step in newton} == {"newton"}
    assert all(step.kept == 500 and step.trials >= 1 and step.cg_iterations > 0 for step in newton)
    assert result.newton_errors == result.errors[3:]
    assert result.error == result.errors[-1] < 1e-13
    plan = problem.plan(result.x, result.y)
    assert problem.marginal_error(plan) == pytest.approx(result.error, rel=1e-9)


def test_ends_early_where_the_warm_up_or_the_start_is_enough():
    problem = random_assignment(10, 1.0, stream(0))
    result = sinkhorn_newton_sparse(problem, warmup=50)
    assert result.reason == "converged during the warm-up"
    assert result.iterations < 50
    again = sinkhorn_newton_sparse(problem, warmup=0, tol=1e-12, start=(result.x, result.y))
    assert again.reason == "converged at the start"
    assert again.iterations == 0
    assert again.error == math.inf


def l1_images(seed: int) -> EntropicOT:
    generator = stream(seed)
    return image_transport(
        blob_image(12, generator), blob_image(12, generator), "manhattan", 1200.0
    )


def test_a_failed_step_becomes_a_sweep_or_the_reason_of_the_end():
    problem = l1_images(2)
    options = {"warmup": 20, "newton": 30, "keep_per_row": 15, "tol": 1e-10}
    with_it = sinkhorn_newton_sparse(problem, **options)
    without = sinkhorn_newton_sparse(problem, **options, fallback=False)
    fallen = [step for step in with_it.trace if step.stage == "fallback"]
    assert fallen
    assert all(step.step_length == 0 and step.trials >= 40 for step in fallen)
    assert not without.converged
    assert "Newton step" in without.reason


def test_reports_when_the_steps_run_out():
    result = sinkhorn_newton_sparse(pilot(100, 0), newton=2)
    assert not result.converged
    assert result.reason == "not converged in 2 Newton steps"
    assert result.iterations == 22


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"warmup": -1}, "warmup and newton must be at least 0, got -1"),
        ({"newton": -2}, "warmup and newton must be at least 0"),
        ({"keep_per_row": 0}, "keep_per_row must be at least 1, got 0"),
        ({"tol": 0.0}, "tol must be positive, got 0.0"),
        ({"cg_max": 0}, "cg_tol and cg_max must be positive"),
    ],
)
def test_refuses_settings_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        sinkhorn_newton_sparse(random_assignment(5, 5.0, stream(0)), **change)
