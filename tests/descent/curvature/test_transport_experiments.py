"""Measurements: order of convergence on known sequences, work by hand, concentration against its closed form."""

import math

import pytest
import torch

from descent.curvature.entropic_transport import EntropicOT
from descent.curvature.sinkhorn import sinkhorn_sweep
from descent.curvature.sinkhorn_newton_sparse import Iteration
from descent.curvature.transport_experiments import (
    concentration_ladder,
    convergence_order,
    cumulative_work,
    dropped_mass_along_sweeps,
    inner_iterations,
    kernel_sweep_work,
    steepest_descent_iterations,
    two_point_landscape,
)
from descent.curvature.transport_polytope import least_eta, vertex_gap
from descent.curvature.transport_problems import random_assignment


def test_order_of_a_quadratic_and_of_a_linear_sequence():
    quadratic = convergence_order([1e-1 ** (2**k) for k in range(6)])
    assert quadratic.exponents == pytest.approx([2.0])  # only 1e-4 -> 1e-8 lies inside
    linear = convergence_order([0.5**k for k in range(40)])
    assert linear.contractions == pytest.approx([0.5] * len(linear.contractions))
    assert max(linear.exponents) == pytest.approx(8 / 7)  # from 2^-7, the first below 1e-2
    assert convergence_order([0.5, 0.4]).exponents == ()
    with pytest.raises(ValueError, match="floor < start < 1"):
        convergence_order([0.1], start=2.0)


def test_work_is_counted_by_stage():
    trace = [
        Iteration("warm-up", 0.1, 0.0),
        Iteration("newton", 0.01, 0.0, kept=30, cg_iterations=7, trials=2, step_length=0.5),
        Iteration("fallback", 0.01, 0.0, kept=30, cg_iterations=1, trials=40),
    ]
    plan = 10 * 10
    assert cumulative_work(trace, (10, 10)) == pytest.approx(
        [22 * plan, (22 + 24) * plan + 2 * 30 * 7, (22 + 24 + 22 + 480) * plan + 2 * 30 * 8]
    )
    dense = cumulative_work(trace, (10, 10), dense=True)
    assert dense[1] - dense[0] == pytest.approx(24 * plan + 20**3 / 3)
    assert kernel_sweep_work((10, 10)) == 2 * plan


def test_dropped_mass_is_measured_after_the_named_sweeps():
    problem = random_assignment(20, 50.0, torch.Generator().manual_seed(0))
    masses = dropped_mass_along_sweeps(problem, [1, 3], 100)
    assert masses[1] == dropped_mass_along_sweeps(problem, [3], 100)[0]
    assert masses[0] != masses[1]
    with pytest.raises(ValueError, match="must increase"):
        dropped_mass_along_sweeps(problem, [3, 3], 100)


def test_concentration_of_two_points_has_its_closed_form():
    cost = torch.tensor([[0.0, 0.3], [0.3, 0.0]], dtype=torch.float64)
    found = concentration_ladder(cost, vertex_gap(cost), [0.5, 1.0, 3.0])
    for point in found:
        assert point.eta == pytest.approx(point.multiple * least_eta(2, 0.3))
        weight = math.exp(-0.3 * point.eta)
        assert point.dropped_mass == pytest.approx(weight / (1 + weight), rel=1e-9)
        assert point.distance == pytest.approx(2 * point.dropped_mass, rel=1e-6)
        assert point.distance_to_second == pytest.approx(2 - 2 * point.dropped_mass, rel=1e-6)
        assert point.bound == pytest.approx(24 * weight)
        assert point.converged


def test_concentration_decays_at_the_exchange_rate_and_half_as_fast_with_half_the_kernel():
    cost = torch.rand(4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    vertices = vertex_gap(cost)
    for power in (1.0, 0.5):
        found = concentration_ladder(cost, vertices, [0.1, 2.0, 3.0], power)
        rate = math.log(found[1].dropped_mass / found[2].dropped_mass) / (
            found[2].eta - found[1].eta
        )
        assert rate == pytest.approx(power * 4 * vertices.exchange_gap, rel=0.03)
    with pytest.raises(ValueError, match="must be positive and increase"):
        concentration_ladder(cost, vertices, [0.0, 1.0])


def test_landscape_of_two_points_is_the_potential_at_its_best_level():
    cost = torch.tensor([[0.0, 0.7], [0.9, 0.2]], dtype=torch.float64)
    source, target = torch.tensor([[0.7, 0.3], [0.4, 0.6]], dtype=torch.float64)
    problem = EntropicOT(cost, source, target, 6.0)
    x, y = problem.start()
    for _ in range(3):
        x, y = sinkhorn_sweep(problem, x, y)
        s, t = (x[:1] - x[1:]) / 2, (y[:1] - y[1:]) / 2
        # after a sweep the plan has mass 1, so that its level is the best one
        value = float(problem.potential(x, y))
        assert float(two_point_landscape(problem, s, t)) == pytest.approx(value, abs=1e-12)
        assert float(two_point_landscape(problem, s, t + 0.01)) < value
    larger = random_assignment(3, 1.0, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"2 x 2 problem, got \(3, 3\)"):
        two_point_landscape(larger, s, t)


def test_inner_iterations_are_those_of_the_run_and_steepest_descent_needs_more():
    problem = random_assignment(50, 120.0, torch.Generator().manual_seed(0))
    mean = inner_iterations(problem, 5)
    assert 30 < mean < 100
    assert steepest_descent_iterations(problem, 5, cap=200) == 200
    assert steepest_descent_iterations(problem, 5, cap=3) == 3
