"""Clocks: laws of counts and gaps, heap against superposition, and a valid concurrent order."""

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.first_order.gossip_graphs import complete_graph, cycle_graph, path_graph, star_graph
from descent.first_order.poisson_events import Events, heap_events, poisson_events, schedule


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("draw", [poisson_events, heap_events])
def test_every_clock_rings_at_its_rate(draw):
    clocks = torch.tensor([0.5, 1.0, 2.0, 0.0], dtype=torch.float64)
    edges, rates = cycle_graph(4), torch.tensor([1.0, 0.2, 3.0, 0.7], dtype=torch.float64)
    horizon = 2000.0
    events = draw(clocks, edges, rates, horizon, generator())
    assert bool((events.times.diff() >= 0).all())
    assert float(events.times[-1]) <= horizon
    gradients = torch.bincount(events.first[~events.is_gossip], minlength=4)
    assert bool(((gradients - clocks * horizon).abs() <= 4 * (clocks * horizon).sqrt()).all())
    for (i, j), rate in zip(edges.tolist(), rates.tolist(), strict=True):
        rung = int(((events.first == i) & (events.second == j)).sum())
        assert abs(rung - rate * horizon) < 4 * (rate * horizon) ** 0.5


def test_heap_and_superposition_have_gaps_of_one_exponential_law():
    clocks, edges = torch.ones(5, dtype=torch.float64), path_graph(5)
    rates = torch.full((4,), 0.5, dtype=torch.float64)
    for draw in (poisson_events, heap_events):
        gaps = draw(clocks, edges, rates, 400.0, generator(3)).times.diff()
        assert scipy.stats.kstest(gaps.numpy(), "expon", (0, 1 / 7)).pvalue > 1e-3


def test_graphs_take_turns():
    graphs = [path_graph(4), star_graph(4)]
    events = poisson_events(torch.zeros(4), graphs, 5.0, 40.0, generator(), period=2.0)
    turn = (events.times / 2.0).long() % 2
    for number, graph in enumerate(graphs):
        known = {tuple(e) for e in graph.tolist()}
        here = turn == number
        used = set(zip(events.first[here].tolist(), events.second[here].tolist(), strict=True))
        assert used <= known


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(3, 9), window=st.floats(0.3, 5))
def test_batches_are_independent_complete_and_in_order(seed, n, window):
    edges = complete_graph(n)
    rates = torch.full((len(edges),), 0.4, dtype=torch.float64)
    events = poisson_events(torch.ones(n, dtype=torch.float64), edges, rates, 5.0, generator(seed))
    clock = torch.zeros(n, dtype=torch.float64)
    seen: list[list[float]] = [[] for _ in range(n)]
    for stretch in schedule(events, n, 5.0, min(window, 5.0)):
        for batch in stretch.batches:
            nodes = stretch.nodes[batch.start : batch.end]
            assert len(set(nodes.tolist())) == len(nodes)
            clock[nodes] += stretch.elapsed[batch.start : batch.end]
            for node in nodes.tolist():
                seen[node].append(float(clock[node]))
        clock += stretch.idle
        torch.testing.assert_close(clock, torch.full_like(clock, stretch.end))
    for node in range(n):
        mine = events.times[(events.first == node) | (events.second == node)]
        torch.testing.assert_close(torch.tensor(seen[node], dtype=torch.float64), mine)


def test_one_by_one_keeps_the_order_of_time():
    edges = cycle_graph(4)
    events = poisson_events(torch.ones(4), edges, 3.0, 10.0, generator())
    (stretch,) = schedule(events, 4, 10.0, 10.0, concurrent=False)
    assert len(stretch.batches) == len(events)
    firsts = [int(stretch.nodes[b.start]) for b in stretch.batches]
    assert firsts == events.first.tolist()


def test_instances_side_by_side_do_not_meet():
    part = poisson_events(torch.ones(3), path_graph(3), 2.0, 5.0, generator())
    both = Events.together([part, part], 3)
    assert int(both.first.max()) == 5
    gossip = both.is_gossip
    assert torch.equal(both.first[gossip] // 3, both.second[gossip] // 3)


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match="needs a positive period"):
        poisson_events(torch.ones(3), [path_graph(3), star_graph(3)], 1.0, 1.0, generator())
    with pytest.raises(ValueError, match="2 gossip rates for 3 edges|3 gossip rates for 2 edges"):
        poisson_events(torch.ones(3), path_graph(3), torch.ones(3), 1.0, generator())
    with pytest.raises(ValueError, match="must not be negative"):
        heap_events(-torch.ones(3), path_graph(3), torch.ones(2), 1.0, generator())
    events = poisson_events(torch.ones(3), path_graph(3), 1.0, 1.0, generator())
    with pytest.raises(ValueError, match="window must be"):
        schedule(events, 3, 1.0, 2.0)
