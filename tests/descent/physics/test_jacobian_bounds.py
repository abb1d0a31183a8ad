"""Bounds of the Clarke Jacobian: sound, ordered, invariant, exact where they must be, equal to peers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.physics.clarke_relaxations import METHODS
from descent.physics.jacobian_bounds import jacobian_bounds
from descent.physics.local_lipschitz import box_states
from descent.physics.recurjac_loop import recurjac_bounds
from descent.physics.relu_network import Convolution, Dense, ReluNetwork
from tests.descent.physics.networks import drawn, points_in

cases = {"seed": st.integers(0, 10_000), "radius": st.floats(0, 1.5), "depth": st.integers(1, 4)}


@settings(max_examples=30, deadline=None)
@given(**cases)
def test_no_sampled_gradient_leaves_its_bounds(seed, radius, depth):
    network, lower, upper, generator = drawn(seed, (3, *[8] * depth, 2), radius)
    states = box_states(network, lower, upper)
    x = points_in(lower[0], upper[0], 200, generator)
    signs = [z > 0 for z in network.preactivations(x)[:-1]]
    gradients = network.gradients(signs, torch.eye(2, dtype=torch.float64))
    for method in METHODS:
        found = jacobian_bounds(network, states, method=method)
        assert (gradients[0].abs().sum(-1) <= found.norm * (1 + 1e-9)).all()
        for value, (low, high) in zip(
            gradients, ((found.lower, found.upper), *found.hidden), strict=True
        ):
            assert (value >= low - 1e-9).all()
            assert (value <= high + 1e-9).all()


@settings(max_examples=30, deadline=None)
@given(**cases)
def test_linear_is_below_recurjac_is_below_intervals(seed, radius, depth):
    network, lower, upper, _ = drawn(seed, (3, *[8] * depth, 2), radius)
    states = box_states(network, lower, upper)
    ours, recurjac, ibp = (jacobian_bounds(network, states, method=m) for m in METHODS)
    for tight, loose in ((ours, recurjac), (recurjac, ibp)):
        assert (tight.norm <= loose.norm * (1 + 1e-9)).all()
        assert (tight.lower >= loose.lower - 1e-9 * loose.norm[..., None]).all()
        assert (tight.upper <= loose.upper + 1e-9 * loose.norm[..., None]).all()


@settings(max_examples=15, deadline=None)
@given(**cases)
def test_constant_lines_are_recurjac(seed, radius, depth):
    network, lower, upper, _ = drawn(seed, (3, *[7] * depth, 2), radius)
    states = box_states(network, lower, upper)
    found = jacobian_bounds(network, states, method="recurjac")
    for k in range(2):
        loop = recurjac_bounds(
            [layer.weight.numpy() for layer in network.layers],
            [s[0].numpy() for s in states],
            np.eye(2)[k],
        )
        for (low, high), mine in zip(
            loop, ((found.lower, found.upper), *found.hidden), strict=True
        ):
            np.testing.assert_allclose(mine[0][0, k], low, rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(mine[1][0, k], high, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_point_gives_its_gradient_norm(method):
    network, lower, _, _ = drawn(4, (5, 11, 9, 7, 3))
    found = jacobian_bounds(network, box_states(network, lower, lower), method=method)
    exact = network.jacobian(lower)
    torch.testing.assert_close(found.norm, exact.abs().sum(-1), rtol=1e-13, atol=0)
    torch.testing.assert_close(found.lower, exact)
    torch.testing.assert_close(found.upper, exact)
    assert not found.ambiguous.any()


def test_output_weights_scale_and_symmetries_leave_the_bound():
    network, lower, upper, _ = drawn(6, (4, 10, 10, 3))
    base = jacobian_bounds(network, box_states(network, lower, upper)).norm
    states = box_states(network, lower, upper)
    scaled = jacobian_bounds(network, states, -2.5 * torch.eye(3, dtype=torch.float64)).norm
    torch.testing.assert_close(scaled, 2.5 * base)
    (w1, b1), (w2, b2), (w3, b3) = ((layer.weight, layer.bias) for layer in network.layers)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    permuted = ReluNetwork.of_weights([w1[order], w2[:, order], w3], [b1[order], b2, b3])
    stretched = ReluNetwork.of_weights([w1, 3 * w2, w3 / 3], [b1, 3 * b2, b3])
    for other in (permuted, stretched):
        norm = jacobian_bounds(other, box_states(other, lower, upper)).norm
        torch.testing.assert_close(norm, base, rtol=1e-10, atol=0)


def test_the_identity_written_with_two_relus_is_bounded_by_two():
    column = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)
    network = ReluNetwork.of_weights([column, column.T], [zero, zero[:1]])
    one = torch.ones(1, 1, dtype=torch.float64)
    for lower, expected in ((-one, 2.0), (0.1 * one, 1.0)):
        for method in METHODS:
            found = jacobian_bounds(network, box_states(network, lower, one), method=method)
            assert float(found.norm) == expected


def test_convolutions_give_the_bounds_of_their_matrices():
    generator = torch.Generator().manual_seed(2)

    def layer(out, channels, edge):
        weight = torch.randn(out, channels, 3, 3, generator=generator, dtype=torch.float64) / 3
        bias = torch.randn(out, generator=generator, dtype=torch.float64) / 3
        return Convolution.of_channels(weight, bias, (channels, edge, edge))

    first, second = layer(2, 1, 6), layer(3, 2, 4)
    last = Dense(
        torch.randn(4, 12, generator=generator, dtype=torch.float64), torch.zeros(4).double()
    )
    network = ReluNetwork((first, second, last))
    dense = ReluNetwork(
        tuple(Dense(m.rows(torch.arange(m.out_size)), m.bias) for m in network.layers)
    )
    x = torch.rand(3, 36, generator=generator, dtype=torch.float64)
    for method in METHODS:
        for chunk in (1024, 7):
            states = box_states(network, x - 0.1, x + 0.1)
            a = jacobian_bounds(network, states, method=method, chunk=chunk)
            b = jacobian_bounds(dense, box_states(dense, x - 0.1, x + 0.1), method=method)
            torch.testing.assert_close(a.norm, b.norm)
            torch.testing.assert_close(a.lower, b.lower)


def test_boxes_and_outputs_in_one_batch_are_those_one_by_one():
    network, lower, upper, _ = drawn(9, boxes=3)
    together = jacobian_bounds(network, box_states(network, lower, upper))
    weights = torch.eye(3, dtype=torch.float64)
    for b in range(3):
        states = box_states(network, lower[b : b + 1], upper[b : b + 1])
        for k in range(3):
            alone = jacobian_bounds(network, states, weights[k : k + 1])
            torch.testing.assert_close(together.norm[b, k], alone.norm[0, 0])
    torch.testing.assert_close(together.lipschitz, together.norm.amax(1))


def test_a_network_without_hidden_layers_is_its_matrix():
    network, lower, upper, _ = drawn(1, (4, 2))
    found = jacobian_bounds(network, box_states(network, lower, upper))
    torch.testing.assert_close(found.norm[0], network.layers[0].weight.abs().sum(1))


@pytest.mark.filterwarnings("ignore")
def test_values_are_those_of_auto_lirpa():
    lirpa = pytest.importorskip(
        "auto_LiRPA",
        reason="auto_LiRPA's release on the index conflicts with this torch; put its repository on PYTHONPATH",
    )
    from auto_LiRPA.jacobian import GradNorm, JacobianOP
    from auto_LiRPA.perturbations import PerturbationLpNorm
    from torch import nn

    class Norm(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model, self.norm = model, GradNorm(norm=1)

        def forward(self, x, weights):
            return self.norm(JacobianOP.apply(self.model(x).matmul(weights), x))

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3)
    ).double()
    network = ReluNetwork.of_sequential(model)
    x, weights = torch.rand(1, 6, dtype=torch.float64), torch.eye(3, dtype=torch.float64)[:, :1]
    bounded = lirpa.BoundedModule(Norm(model), (lirpa.BoundedTensor(x), weights))
    for radius in (0.05, 0.3):
        box = lirpa.BoundedTensor(x, PerturbationLpNorm(norm=np.inf, eps=radius))
        theirs = bounded.compute_jacobian_bounds((box, weights), optimize=False, bound_lower=False)
        ours = jacobian_bounds(network, box_states(network, x - radius, x + radius)).norm[0, 0]
        assert float(theirs[1].detach()) == pytest.approx(float(ours), rel=1e-4)


def test_wrong_arguments_are_told():
    network, lower, upper, _ = drawn(0)
    states = box_states(network, lower, upper)
    with pytest.raises(ValueError, match="hidden layers of \\[12, 9\\] neurons, got \\[12\\]"):
        jacobian_bounds(network, states[:1])
    with pytest.raises(ValueError, match="shape \\(K, 3\\), got \\(3,\\)"):
        jacobian_bounds(network, states, torch.ones(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="got 'crown'"):
        jacobian_bounds(network, states, method="crown")
