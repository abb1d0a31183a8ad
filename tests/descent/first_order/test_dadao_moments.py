"""Exact rates of DADAO on quadratics: the dense form, known values, and runs."""

import pytest

from descent.first_order.continuized_flow import DADAOConstants
from descent.first_order.dadao_moments import (
    curvature_profile,
    dadao_jump_process,
    exact_rate,
    noise_floor,
    uniform_rates,
)
from descent.first_order.dadao_tuning import (
    FOUND_FACTORS,
    TUNED,
    scaled_constants,
    search_factors,
    worst_rate,
)
from descent.first_order.gossip_graphs import (
    complete_graph,
    cycle_graph,
    graph_constants,
    path_graph,
)
from descent.first_order.jump_moments import second_moment_generator, spectral_abscissa


@pytest.mark.parametrize("make", [cycle_graph, path_graph, complete_graph])
def test_secular_rate_is_that_of_the_dense_generator(make):
    edges, curvatures = make(4), curvature_profile("mixed", 4, 10)
    rates = uniform_rates(edges, 4)
    constants = DADAOConstants.of(1.0, 10.0, graph_constants(edges, 4, rates)[0])
    dense = second_moment_generator(dadao_jump_process(curvatures, edges, rates, constants))
    assert exact_rate(curvatures, edges) == pytest.approx(-spectral_abscissa(dense), rel=1e-6)


def test_rates_of_an_independent_trial():
    values = {4: 0.069537, 16: 0.034546, 64: 0.017248}
    for condition, rate in values.items():
        found = exact_rate(curvature_profile("mixed", 5, condition), cycle_graph(5))
        assert found == pytest.approx(rate, abs=1e-6)
    flat = exact_rate(curvature_profile("all mu", 5, 4), complete_graph(5), smoothness=4.0)
    assert flat == pytest.approx(0.083668, abs=1e-6)


def test_noise_floor_of_an_independent_trial():
    edges = cycle_graph(5)
    rates = uniform_rates(edges, 5)
    constants = DADAOConstants.of(1.0, 16.0, graph_constants(edges, 5, rates)[0])
    floor = noise_floor(curvature_profile("all mu", 5, 16), edges, rates, constants)
    assert 4 * floor == pytest.approx(0.0190, abs=1e-4)


def test_too_little_gossip_diverges():
    edges, curvatures = path_graph(5), curvature_profile("all L", 5, 20)
    assert (
        exact_rate(curvatures, edges)
        > 0
        > exact_rate(curvatures, edges, uniform_rates(edges, 5, 0.5))
    )


def test_unknown_profile_is_told():
    with pytest.raises(ValueError, match="kind must be"):
        curvature_profile("some", 3, 4)


def test_found_factors_are_faster_where_they_were_not_searched():
    ones = [1.0] * len(TUNED)
    assert worst_rate(FOUND_FACTORS, cycle_graph(6), 6, 50.0) > 3 * worst_rate(ones, cycle_graph(6), 6, 50.0)  # fmt: skip
    constants = DADAOConstants.of(1.0, 4.0, 1.0)
    assert scaled_constants(constants, ones) == constants


def test_search_does_not_lose_against_its_start():
    factors = search_factors(cycle_graph(4), 4, (20.0,), 15)
    assert worst_rate(factors, cycle_graph(4), 4, 20.0) >= worst_rate([1.0] * len(TUNED), cycle_graph(4), 4, 20.0)  # fmt: skip
