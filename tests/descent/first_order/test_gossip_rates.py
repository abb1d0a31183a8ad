"""The semidefinite program: known optima, feasibility, no better competitor."""

import pytest
import torch

from descent.first_order.gossip_graphs import (
    cliques_joined,
    cycle_graph,
    graph_constants,
    path_graph,
    required_gossip_rate,
    star_graph,
)
from descent.first_order.gossip_rates import optimal_gossip_rates, scale_to_requirement


@pytest.mark.parametrize(("edges", "n"), [(cycle_graph(6), 6), (path_graph(6), 6), (star_graph(6), 6)])  # fmt: skip
def test_uniform_rates_are_optimal_on_trees_and_the_cycle(edges, n):
    rates = optimal_gossip_rates(edges, n)
    uniform = required_gossip_rate(*graph_constants(edges, n)) / len(edges)
    torch.testing.assert_close(rates, torch.full_like(rates, uniform), rtol=1e-3, atol=0)


def test_two_triangles():
    rates = optimal_gossip_rates(cliques_joined(3), 6)
    assert float(rates[-1]) == pytest.approx(1.8593, abs=1e-3)
    torch.testing.assert_close(rates[:-1], torch.full((6,), 1.0603).double(), rtol=1e-3, atol=0)
    chi_1, chi_2 = graph_constants(cliques_joined(3), 6, rates)
    assert 2 * chi_1 * chi_2 == pytest.approx(1, abs=1e-5)


def test_no_random_competitor_needs_less():
    edges = cliques_joined(3)
    best = float(optimal_gossip_rates(edges, 6).sum())
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        weights = torch.empty(len(edges), dtype=torch.float64).exponential_(generator=generator)
        rates = scale_to_requirement(edges, 6, weights)
        chi_1, chi_2 = graph_constants(edges, 6, rates)
        assert 2 * chi_1 * chi_2 == pytest.approx(1, rel=1e-10)
        assert float(rates.sum()) >= best * (1 - 1e-6)


def test_a_graph_in_two_pieces_is_refused():
    with pytest.raises(ValueError, match="not connected"):
        optimal_gossip_rates(torch.tensor([[0, 1], [2, 3]]), 4)
