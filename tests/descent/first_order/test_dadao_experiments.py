"""Rivals and counted runs: they find the minimiser, and their costs are what the text says."""

import pytest
import torch

from descent.first_order.dadao_experiments import (
    edges_between_gradient_rounds,
    expected_round_time,
    run_adom_plus,
    run_continuized,
    run_dadao,
    run_msda,
)
from descent.first_order.decentralized_problems import random_regression
from descent.first_order.dual_methods import chebyshev_rounds
from descent.first_order.gossip_graphs import (
    complete_graph,
    cycle_graph,
    path_graph,
    random_geometric_graph,
    star_graph,
)

N = 8


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def objective():
    return random_regression(2, N, 60, 2, generator())


@pytest.fixture(scope="module")
def start():
    return torch.randn(2, N, 2, generator=generator(1), dtype=torch.float64)


@pytest.mark.parametrize("edges", [complete_graph(N), star_graph(N), cycle_graph(N)])
def test_msda_converges_with_the_counted_rounds(objective, edges):
    trace = run_msda(objective, edges, 1e-16)
    assert float(trace.errors[:, -1].max()) <= 1e-16
    assert int(trace.communications[0, 3]) == 3 * chebyshev_rounds(edges, N) * len(edges)
    assert int(trace.gradients[0, 3]) == 3 * N


def test_continuized_converges_and_spends_two_gradients_for_each_message(objective):
    trace = run_continuized(objective, cycle_graph(N), 1200.0, generator(2))
    assert float(trace.errors[:, -1].max()) <= 1e-12
    assert torch.equal(trace.gradients, 2 * trace.communications)


@pytest.mark.parametrize("multi", [False, True])
def test_adom_plus_converges_on_changing_graphs(objective, start, multi):
    graphs = [random_geometric_graph(N, 0.6, generator(k)) for k in range(3)]
    trace = run_adom_plus(objective, graphs, start, 1e-10, multi, most=8000)
    assert float(trace.errors[:, -1].max()) <= 1e-10
    if not multi:
        sizes = [len(edges) for edges in graphs]
        assert trace.communications[0, :4].tolist() == [0, sizes[0], sum(sizes[:2]), sum(sizes)]


def test_dadao_costs_are_the_events_so_far(objective, start):
    trace = run_dadao(objective, [cycle_graph(N)] * 2, start, 120.0, generator(3))
    assert float(trace.errors[:, -1].max()) < 1e-6
    assert abs(int(trace.gradients[0, -1]) - 120 * N) < 4 * (120 * N) ** 0.5
    first = trace.cost(1e-3)[0]
    look = int(torch.nonzero(trace.errors[0] <= 1e-3)[0])
    assert first == (int(trace.gradients[0, look]), int(trace.communications[0, look]))
    assert trace.cost(1e-30) == [None, None]
    assert len(trace[:1].errors) == 1


def test_fitted_rate_of_an_exponential():
    from descent.first_order.dadao_experiments import Trace

    times = torch.arange(50, dtype=torch.float64)
    errors = torch.exp(-0.3 * times)[None] * 7
    counts = torch.zeros(1, 50, dtype=torch.long)
    assert Trace(times, errors, counts, counts).decay_rates(10.0) == pytest.approx([0.3])


def test_the_integers_that_the_authors_print():
    counted = edges_between_gradient_rounds(star_graph(300), 300)
    assert list(counted.values()) == [299, 299, 5083, 299, 62192]
    assert edges_between_gradient_rounds(star_graph(300), 300, half=False)["DADAO"] == 422


def test_a_round_waits_for_the_slowest():
    assert expected_round_time(torch.ones(5)) == pytest.approx(1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5, rel=1e-6)  # fmt: skip
    two = torch.tensor([0.2, 3.0])
    assert expected_round_time(two) == pytest.approx(5 + 1 / 3 - 1 / 3.2, rel=1e-6)


def test_chebyshev_rounds_of_simple_graphs():
    assert chebyshev_rounds(complete_graph(7), 7) == 1
    assert chebyshev_rounds(star_graph(300), 300) == 17
    assert chebyshev_rounds(path_graph(2), 2) == 1
