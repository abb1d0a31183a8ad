"""Certified constants: closed forms, branch and bound over ReLUs and inputs, exact enumeration, lower bounds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.physics.activation_patterns import exact_local_lipschitz
from descent.physics.jacobian_bounds import jacobian_bounds
from descent.physics.lipschitz_lower_bounds import (
    ascended_lipschitz,
    gradient_norms,
    sample_box,
    sampled_lipschitz,
)
from descent.physics.local_lipschitz import (
    box_states,
    global_product_bound,
    local_lipschitz,
    split_inputs,
    split_relus,
)
from descent.physics.relu_network import ReluNetwork
from tests.descent.physics.networks import drawn


def exact(network, lower, upper, **options):
    states = [s[0] for s in box_states(network, lower, upper)]
    return exact_local_lipschitz(network, lower[0], upper[0], states, **options)


def identity_of_two_relus():
    column = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)
    return ReluNetwork.of_weights([column, column.T], [zero, zero[:1]])


def test_splits_of_relus_cannot_see_that_two_states_exclude_each_other():
    network, one = identity_of_two_relus(), torch.ones(1, dtype=torch.float64)
    result = split_relus(network, -one, one, one, 10)
    assert result.bound == 2.0
    assert result.finished
    assert split_inputs(network, -one, one, one, 1).bound == 2.0
    assert exact(network, -one[None], one[None]).value == 1.0


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), radius=st.floats(0.01, 0.6))
def test_everything_is_in_its_order(seed, radius):
    network, lower, upper, generator = drawn(seed, (3, 6, 5, 2), radius)
    sampled = sampled_lipschitz(network, lower[0], upper[0], 300, generator)
    found = exact(network, lower, upper)
    root = local_lipschitz(network, lower[0], upper[0])
    split = local_lipschitz(network, lower[0], upper[0], splits=20)
    assert (sampled <= found.per_output * (1 + 1e-9)).all()
    assert found.value <= split.propagated * (1 + 1e-9) <= root.propagated * (1 + 2e-9)
    assert root.value == min(root.propagated, root.product)
    climbed = ascended_lipschitz(
        network, lower[0], upper[0], torch.eye(2, dtype=torch.float64)[0], generator, 8, 5
    )
    assert climbed <= float(found.per_output[0]) * (1 + 1e-9)


def test_enumeration_and_pruned_search_agree_and_count():
    network, lower, upper, _ = drawn(11, (3, 8, 6, 2), 0.6)
    full, pruned = (exact(network, lower, upper, prune=p) for p in (False, True))
    assert full.undecided == pruned.undecided >= 4
    assert full.programs == 2**full.undecided
    assert pruned.programs < full.programs
    assert full.feasible == pruned.feasible
    torch.testing.assert_close(full.per_output, pruned.per_output)
    with pytest.raises(RuntimeError, match="more than 3 linear programs"):
        exact(network, lower, upper, limit=3)
    with pytest.raises(RuntimeError, match="exceed the limit of 8"):
        exact(network, lower, upper, prune=False, limit=8)


def test_halving_inputs_comes_down_to_the_exact_constant():
    network, lower, upper, _ = drawn(4, (2, 8, 8, 2), 0.5)
    g0 = torch.eye(2, dtype=torch.float64)[0]
    target = float(exact(network, lower, upper, output_weights=g0[None]).per_output[0])
    relus = split_relus(network, lower[0], upper[0], g0, 400, 8)
    inputs = split_inputs(network, lower[0], upper[0], g0, 1500, 32)
    assert relus.finished
    assert relus.bound > 1.05 * target
    assert inputs.bound == pytest.approx(target, rel=1e-6)


def test_a_finished_search_equals_the_largest_norm_over_the_states_that_bounds_leave():
    network, lower, upper, _ = drawn(21, (3, 5, 2), 0.2)
    g0 = torch.eye(2, dtype=torch.float64)[0]
    (states,) = box_states(network, lower, upper)
    free = (states[0] == 2).nonzero()[:, 0]
    patterns = torch.cartesian_prod(*[torch.tensor([0, 1])] * len(free)).reshape(-1, len(free))
    all_states = states.repeat(len(patterns), 1)
    all_states[:, free] = patterns.to(torch.int8)
    largest = network.gradients([all_states], g0[None])[0].abs().sum(-1).max()
    result = split_relus(network, lower[0], upper[0], g0, 200)
    assert result.finished
    assert result.bound == pytest.approx(float(largest), rel=1e-12)


def test_splitting_stable_neurons_gains_nothing():
    network, lower, upper, _ = drawn(21, (3, 9, 6, 2), 0.2)
    g0 = torch.eye(2, dtype=torch.float64)[0]

    def stable(network, notes, splits):
        for i, (state, split) in enumerate(zip(notes.states, splits, strict=True)):
            if len(found := ((state != 2) & (split == 0)).nonzero()):
                return i, int(found[0, 0])
        return None

    result = split_relus(network, lower[0], upper[0], g0, 5, choose=stable)
    assert result.splits == 5
    assert result.bound == pytest.approx(result.trace[0], rel=1e-12)


def test_outputs_are_searched_in_turn():
    network, lower, upper, _ = drawn(2, (3, 12, 10, 4), 0.4)
    root = local_lipschitz(network, lower[0], upper[0])
    split = local_lipschitz(network, lower[0], upper[0], splits=30, batch=4)
    assert split.search
    assert sum(s.splits for s in split.search) <= 30
    assert split.propagated == pytest.approx(float(split.per_output.max()))
    assert (split.per_output <= root.per_output).all()
    assert root.undecided == split.undecided > 0
    assert root.search == ()


def test_the_global_bound_is_the_product_of_norms():
    network, lower, _, _ = drawn(0, (3, 7, 2))
    w1, w2 = (layer.weight.abs().sum(1) for layer in network.layers)
    torch.testing.assert_close(global_product_bound(network), w2 * w1.max())
    torch.testing.assert_close(
        global_product_bound(network, torch.eye(2, dtype=torch.float64)), w2 * w1.max()
    )
    assert (
        jacobian_bounds(network, box_states(network, lower, lower)).norm[0] <= w2 * w1.max()
    ).all()


def test_samples_are_in_the_box_and_half_are_corners():
    lower, upper = torch.tensor([-1.0, 2.0]).double(), torch.tensor([0.0, 5.0]).double()
    x = sample_box(lower, upper, 100, torch.Generator().manual_seed(0))
    assert (x >= lower).all()
    assert (x <= upper).all()
    corner = ((x == lower) | (x == upper)).all(1)
    assert corner[::2].all()
    assert not corner[1::2].any()


def test_gradient_norms_do_not_depend_on_how_points_are_cut():
    network, lower, _, _ = drawn(3, boxes=50)
    torch.testing.assert_close(
        gradient_norms(network, lower), gradient_norms(network, lower, limit=1)
    )


def test_ascent_finds_what_random_points_miss():
    # a corner of 30 dimensions: all of 20 neurons must be active at once
    generator = torch.Generator().manual_seed(0)
    w = torch.rand(20, 30, generator=generator, dtype=torch.float64)
    network = ReluNetwork.of_weights(
        [w, torch.ones(1, 20, dtype=torch.float64)],
        [-0.9 * w.sum(1), torch.zeros(1, dtype=torch.float64)],
    )
    lower, upper = torch.zeros(30, dtype=torch.float64), torch.ones(30, dtype=torch.float64)
    g0 = torch.ones(1, dtype=torch.float64)
    climbed = ascended_lipschitz(network, lower, upper, g0, generator, 4, 20)
    sampled = float(sampled_lipschitz(network, lower, upper, 1000, generator)[0])
    assert climbed == pytest.approx(float(w.sum()))
    assert sampled < climbed
