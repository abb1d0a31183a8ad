"""Graph constants: closed forms, Foster's theorem, scaling, and what is refused."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.first_order.gossip_graphs import (
    cliques_joined,
    complete_graph,
    complete_with_tail,
    cycle_graph,
    edge_resistances,
    graph_constants,
    grid_graph,
    laplacian,
    path_graph,
    random_geometric_graph,
    required_gossip_rate,
    star_graph,
)


@pytest.mark.parametrize("n", [3, 5, 16])
def test_closed_forms(n):
    half = (n - 1) / 2
    expected = {
        star_graph: (n - 1, half, n - 1),
        complete_graph: (half, half, (n - 1) / math.sqrt(2)),
        cycle_graph: (n / (2 - 2 * math.cos(2 * math.pi / n)), half, None),
        path_graph: ((n - 1) / (2 - 2 * math.cos(math.pi / n)), half, None),
    }
    for make, (chi_1, chi_2, rate) in expected.items():
        found = graph_constants(make(n), n)
        assert found == pytest.approx((chi_1, chi_2), rel=1e-10)
        if rate is not None:
            assert required_gossip_rate(*found) == pytest.approx(rate, rel=1e-10)


def test_rates_for_sixteen_nodes():
    rates = {make: required_gossip_rate(*graph_constants(make(16), 16)) for make in (cycle_graph, path_graph)}  # fmt: skip
    assert rates[cycle_graph] == pytest.approx(39.7045, abs=1e-4)
    assert rates[path_graph] == pytest.approx(76.5172, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 12), radius=st.floats(0.05, 1.4), seed=st.integers(0, 10**6))
def test_fosters_theorem_and_the_order_of_the_constants(n, radius, seed):
    edges = random_geometric_graph(n, radius, torch.Generator().manual_seed(seed))
    assert float(edge_resistances(edges, n).mean()) == pytest.approx(n - 1, rel=1e-8)
    chi_1, chi_2 = graph_constants(edges, n)
    assert (n - 1) / 2 <= chi_2 * (1 + 1e-9)
    assert chi_2 <= chi_1 * (1 + 1e-9)
    rates = torch.rand(len(edges), generator=torch.Generator().manual_seed(seed)).double() + 0.1
    once, thrice = graph_constants(edges, n, rates), graph_constants(edges, n, 3 * rates)
    assert once == pytest.approx((3 * thrice[0], 3 * thrice[1]), rel=1e-9)


def test_laplacian_is_the_sum_over_edges():
    edges, rates = cycle_graph(4), torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    expected = torch.zeros(4, 4, dtype=torch.float64)
    for (i, j), rate in zip(edges.tolist(), rates.tolist(), strict=True):
        difference = torch.zeros(4, dtype=torch.float64)
        difference[i], difference[j] = 1, -1
        expected += rate * torch.outer(difference, difference)
    torch.testing.assert_close(laplacian(edges, 4, rates), expected)
    torch.testing.assert_close(
        laplacian(edges, 4, torch.stack([rates, 2 * rates]))[1], 2 * expected
    )


def test_composed_graphs():
    assert len(grid_graph(4)) == 24
    assert len(cliques_joined(5)) == 21
    assert cliques_joined(3)[-1].tolist() == [2, 3]
    assert len(complete_with_tail(6, 4)) == 19
    assert int(complete_with_tail(6, 4).max()) == 9


def test_wrong_graphs_are_told():
    with pytest.raises(ValueError, match="not connected"):
        graph_constants(torch.tensor([[0, 1], [2, 3]]), 4)
    with pytest.raises(ValueError, match="outside 0 to 2"):
        graph_constants(path_graph(4), 3)
    with pytest.raises(ValueError, match="3 non-negative numbers"):
        graph_constants(path_graph(4), 4, torch.tensor([1.0, -1.0, 1.0]))
    with pytest.raises(ValueError, match="shape"):
        laplacian(torch.zeros(3, 3, dtype=torch.long), 3)
