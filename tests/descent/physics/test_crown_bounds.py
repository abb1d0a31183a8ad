"""Bounds of pre-activations: soundness on samples, exact cases, splits, and batches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.physics.crown_bounds import (
    crown_preactivation_bounds,
    interval_preactivation_bounds,
)
from tests.descent.physics.networks import drawn, points_in


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), radius=st.floats(0, 2), depth=st.integers(1, 4))
def test_no_sampled_preactivation_leaves_its_bounds(seed, radius, depth):
    network, lower, upper, generator = drawn(seed, (3, *[9] * depth, 2), radius)
    values = network.preactivations(points_in(lower[0], upper[0], 200, generator))
    for method in (crown_preactivation_bounds, interval_preactivation_bounds):
        for z, (low, high) in zip(values, method(network, lower, upper), strict=False):
            assert (z >= low - 1e-9).all()
            assert (z <= high + 1e-9).all()


def test_the_first_layer_is_exact_and_a_point_gives_its_value():
    network, lower, upper, _ = drawn(3)
    w, b = network.layers[0].weight, network.layers[0].bias
    corner = torch.where(w > 0, upper, lower)
    (_, high), *_ = crown_preactivation_bounds(network, lower, upper)
    torch.testing.assert_close(high[0], (w * corner).sum(1) + b)
    for z, (low, high) in zip(
        network.preactivations(lower),
        crown_preactivation_bounds(network, lower, lower),
        strict=False,
    ):
        torch.testing.assert_close(low, z)
        torch.testing.assert_close(high, z)


def test_crown_is_tighter_than_intervals_on_a_cancelling_network():
    one = torch.ones(1, 1, dtype=torch.float64)
    from descent.physics.relu_network import ReluNetwork

    # z_2 = relu(x) - relu(x) = 0 for x in [1, 2], which intervals do not see
    network = ReluNetwork.of_weights(
        [torch.cat([one, one]), torch.cat([one, -one], 1), one],
        [torch.zeros(2).double(), torch.zeros(1).double(), torch.zeros(1).double()],
    )
    low, high = crown_preactivation_bounds(network, one, 2 * one)[1]
    assert float(low) == float(high) == 0
    low, high = interval_preactivation_bounds(network, one, 2 * one)[1]
    assert (float(low), float(high)) == (-1, 1)


def test_splits_bound_the_part_that_obeys_them():
    network, lower, upper, generator = drawn(5, (3, 10, 10, 2), 0.8)
    x = points_in(lower[0], upper[0], 4000, generator)
    z = network.preactivations(x)
    split = [torch.zeros(1, 10, dtype=torch.int8) for _ in range(2)]
    split[0][0, 2], split[1][0, 4] = 1, -1
    inside = (z[0][:, 2] >= 0) & (z[1][:, 4] <= 0)
    assert inside.any()
    bounds = crown_preactivation_bounds(network, lower, upper, split)
    for values, (low, high) in zip(z, bounds, strict=False):
        assert (values[inside] >= low - 1e-9).all()
        assert (values[inside] <= high + 1e-9).all()
    assert float(bounds[0][0][0, 2]) >= 0
    assert float(bounds[1][1][0, 4]) <= 0


def test_a_contradiction_shows_as_an_empty_interval():
    network, lower, upper, _ = drawn(5, radius=0.0)
    z = network.preactivations(lower)[0]
    split = [-z.sign().to(torch.int8), torch.zeros(1, 9, dtype=torch.int8)]
    low, high = crown_preactivation_bounds(network, lower, upper, split)[0]
    assert (low > high).all()


def test_batches_and_chunks_change_nothing():
    network, lower, upper, _ = drawn(8, boxes=4)
    together = crown_preactivation_bounds(network, lower, upper, chunk=5)
    for b in range(4):
        alone = crown_preactivation_bounds(network, lower[b : b + 1], upper[b : b + 1])
        for (low, high), (low1, high1) in zip(together, alone, strict=True):
            torch.testing.assert_close(low[b], low1[0])
            torch.testing.assert_close(high[b], high1[0])


def test_wrong_boxes_are_told():
    network, lower, upper, _ = drawn(0)
    with pytest.raises(ValueError, match="shape \\(B, 4\\), got \\(4,\\)"):
        crown_preactivation_bounds(network, lower[0], upper[0])
    with pytest.raises(ValueError, match="lower > upper"):
        interval_preactivation_bounds(network, upper, lower)
