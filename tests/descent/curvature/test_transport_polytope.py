"""Vertices: exact transport as the oracle, gaps by hand, and the bound of theorem 1."""

import math

import ot
import pytest
import torch

from descent.curvature.transport_polytope import concentration_bound, least_eta, vertex_gap


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_best_vertex_is_the_exact_plan(size):
    cost = torch.rand(
        size, size, generator=torch.Generator().manual_seed(size), dtype=torch.float64
    )
    vertices = vertex_gap(cost)
    uniform = [1 / size] * size
    torch.testing.assert_close(
        vertices.best, torch.from_numpy(ot.emd(uniform, uniform, cost.numpy()))
    )
    excess = float((cost * (vertices.second - vertices.best)).sum())
    assert excess == pytest.approx(vertices.gap)
    assert vertices.gap > 0


def test_gaps_of_two_and_three_points_by_hand():
    two = vertex_gap(torch.tensor([[0.0, 0.3], [0.3, 0.0]], dtype=torch.float64))
    assert two.gap == pytest.approx(0.3)
    assert two.exchange_gap == pytest.approx(0.15)
    # one cycle of three is cheap, the three exchanges are dear
    cost = torch.tensor([[0.0, 0.1, 5], [5, 0.0, 0.1], [0.1, 5, 0.0]], dtype=torch.float64)
    three = vertex_gap(cost)
    assert three.gap == pytest.approx(0.1)
    assert three.exchange_gap == pytest.approx(0.1 / 3)


def test_relabelling_the_columns_changes_no_gap():
    cost = torch.rand(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    order = torch.tensor([3, 0, 4, 1, 2])
    one, other = vertex_gap(cost), vertex_gap(cost[:, order])
    assert one.gap == pytest.approx(other.gap)
    assert one.exchange_gap == pytest.approx(other.exchange_gap)
    assert torch.equal(one.best[:, order], other.best)


def test_bound_and_threshold_are_the_formulas():
    assert least_eta(4, 0.5) == pytest.approx(2 * (1 + 2 * math.log(4)))
    # at the threshold the bound is 6/e whatever the size: it says nothing yet
    for size in (4, 6):
        assert concentration_bound(size, 0.5, least_eta(size, 0.5)) == pytest.approx(6 / math.e)


def test_refuses_what_cannot_be_enumerated_or_has_no_gap():
    with pytest.raises(ValueError, match=r"square, got shape \(2, 3\)"):
        vertex_gap(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="sizes 2 to 7, got 8"):
        vertex_gap(torch.zeros(8, 8))
    with pytest.raises(ValueError, match="same least cost"):
        vertex_gap(torch.ones(3, 3))
    with pytest.raises(ValueError, match="gap must be positive, got 0"):
        least_eta(3, 0)
