"""Settling networks: masks, slopes, fixed points, batches of copies, the angle of the initial weights."""

from dataclasses import replace

import pytest
import torch

from descent.beyond_gradients.activations import ACTIVATIONS
from descent.beyond_gradients.fixed_point_network import (
    Wiring,
    chain,
    cross_entropy_gradient,
    draw_network,
    feed_forward,
    loop,
    quadratic_gradient,
)


def generators(count, seed=0):
    return [torch.Generator().manual_seed(seed + k) for k in range(count)]


def network(wiring=None, angle=90.0, count=3, gain=0.5):
    drawn = draw_network(wiring or chain((6, 5, 4)), 7, 4, angle, generators(count), torch.float64)
    return replace(drawn, recurrent=gain * drawn.recurrent)


def inputs(batch=8):
    return torch.rand(batch, 7, generator=generators(1, 99)[0], dtype=torch.float64)


@pytest.mark.parametrize("wiring", [chain((6, 5, 4)), loop((6, 5, 4)), feed_forward((6, 5, 4))])
def test_weights_exist_only_where_the_mask_says(wiring):
    drawn = draw_network(wiring, 7, 4, 90.0, generators(2))
    assert torch.equal(drawn.recurrent != 0, (wiring.mask() != 0).expand(2, -1, -1))


def test_the_loop_has_no_reciprocal_pair_and_the_chain_only_such():
    assert float((loop((3, 4, 2)).mask() * loop((3, 4, 2)).mask().T).sum()) == 0
    assert torch.equal(chain((3, 4, 2)).mask(), chain((3, 4, 2)).mask().T)


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_slopes_are_derivatives(name):
    u = torch.linspace(-2, 3, 51, dtype=torch.float64) + 0.013
    step = 1e-6
    phi = ACTIVATIONS[name]
    numerical = (phi.function(u + step) - phi.function(u - step)) / (2 * step)
    torch.testing.assert_close(phi.slope(u), numerical, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("name", [k for k, phi in ACTIVATIONS.items() if phi.holomorphic])
def test_holomorphic_activations_satisfy_cauchy_riemann(name):
    z = torch.complex(torch.linspace(-1, 2, 9), torch.linspace(-0.3, 0.3, 9)).to(torch.complex128)
    phi, step = ACTIVATIONS[name], 1e-6
    along = (phi.function(z + step) - phi.function(z - step)) / (2 * step)
    across = (phi.function(z + 1j * step) - phi.function(z - 1j * step)) / (2j * step)
    torch.testing.assert_close(along, across, atol=1e-8, rtol=1e-7)
    torch.testing.assert_close(along, phi.slope(z), atol=1e-8, rtol=1e-7)


def test_the_shifted_sigmoid_has_slope_one_in_its_middle():
    half = torch.tensor([0.5, 0.0], dtype=torch.float64)
    phi = ACTIVATIONS["shifted sigmoid"]
    assert float(phi.slope(half)[0]) == pytest.approx(1)
    assert phi.function(half).tolist() == pytest.approx([0.5, 1 / (1 + 2.718281828459045**2)])


def test_relaxation_ends_where_the_force_vanishes_and_damping_does_not_move_it():
    net = network()
    drive = net.drive(inputs())
    plain, damped = net.relax(drive, 100), net.relax(drive, 200, step_size=0.5)
    assert float(net.force(plain, drive).abs().max()) < 1e-13
    torch.testing.assert_close(plain, damped)


def test_a_feed_forward_network_is_settled_after_one_step_per_layer():
    net = network(feed_forward((6, 5, 4)), gain=1.0)
    drive = net.drive(inputs())
    assert torch.equal(net.relax(drive, 4), net.relax(drive, 5))


def test_a_batch_of_copies_is_the_copies_one_by_one():
    net, x = network(), inputs()
    together = net.relax(net.drive(x.expand(3, -1, -1)), 10)
    for k in range(3):
        alone = replace(net, **{name: v[k] for name, v in net.parameters().items()})
        torch.testing.assert_close(alone.relax(alone.drive(x), 10), together[k])


def test_a_tensor_of_nudges_is_the_nudges_one_by_one():
    net = network(count=1).to(torch.complex128)
    drive = net.drive(inputs(1).to(torch.complex128))
    target = torch.eye(4, dtype=torch.complex128)[:1]
    gradient = cross_entropy_gradient(net, target)
    nudges = torch.tensor([0.1, 0.1j, -0.2], dtype=torch.complex128)
    together = net.relax(
        drive.expand(3, -1, -1), 30, nudge=nudges[:, None, None], loss_gradient=gradient
    )
    for k, nudge in enumerate(nudges.tolist()):
        torch.testing.assert_close(
            net.relax(drive, 30, nudge=nudge, loss_gradient=gradient)[0], together[k]
        )


def test_the_angle_of_initial_weights():
    wiring = chain((30, 30, 30))
    block = lambda net, a, b: net.recurrent[0, wiring.layer(a), wiring.layer(b)]  # noqa: E731
    tied = draw_network(wiring, 7, 4, 0.0, generators(1))
    torch.testing.assert_close(block(tied, 0, 1), block(tied, 1, 0).T)
    for angle in (30.0, 60.0, 90.0):
        net = draw_network(wiring, 7, 4, angle, generators(1))
        forward, backward = block(net, 1, 0).T, block(net, 0, 1)
        cosine = float((forward * backward).sum() / forward.norm() / backward.norm())
        assert cosine == pytest.approx(
            float(torch.cos(torch.deg2rad(torch.tensor(angle)))), abs=0.08
        )
        torch.testing.assert_close(block(net, 1, 0), block(tied, 1, 0))


def test_every_kernel_has_its_own_fan_in():
    wiring = chain((100, 10))
    net = draw_network(wiring, 7, 4, 90.0, generators(8))
    forward, backward = (
        net.recurrent[:, wiring.layer(t), wiring.layer(s)] for t, s in ((1, 0), (0, 1))
    )
    assert float(forward.var()) == pytest.approx(1 / 100, rel=0.1)
    assert float(backward.var()) == pytest.approx(1 / 10, rel=0.1)


def test_loss_gradients_are_those_of_autograd():
    net = network()
    activity = torch.rand(
        3, 8, 15, generator=generators(1, 5)[0], dtype=torch.float64
    ).requires_grad_()
    labels = torch.arange(8) % 4
    loss = torch.nn.functional.cross_entropy(
        net.logits(activity).reshape(-1, 4), labels.repeat(3), reduction="sum"
    )
    (automatic,) = torch.autograd.grad(loss, activity)
    targets = torch.nn.functional.one_hot(labels).double()
    torch.testing.assert_close(cross_entropy_gradient(net, targets)(activity.detach()), automatic)
    y = torch.rand(8, 4, dtype=torch.float64)
    squares = (activity[..., net.wiring.layer(-1)] - y).square().sum() / 2
    (automatic,) = torch.autograd.grad(squares, activity)
    torch.testing.assert_close(quadratic_gradient(net.wiring, y)(activity.detach()), automatic)


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match="connection \\(0, 3\\) names a layer outside 0 to 1"):
        Wiring((2, 2), ((0, 3),))
    with pytest.raises(ValueError, match="at least one unit, got sizes \\(2, 0\\)"):
        Wiring((2, 0), ())
    net = network()
    drive = net.drive(inputs())
    with pytest.raises(ValueError, match="step_size must be in \\(0, 1\\], got 1.5"):
        net.relax(drive, 1, step_size=1.5)
    with pytest.raises(ValueError, match="the nudge 0.1 needs a loss_gradient"):
        net.relax(drive, 1, nudge=0.1)
