"""Response and true error: autograd through the relaxation, implicit gradients, finite differences, symmetry."""

from dataclasses import replace

import pytest
import torch

from descent.beyond_gradients.activations import ACTIVATIONS
from descent.beyond_gradients.equilibrium_errors import (
    activity_jacobian,
    adjoint_error,
    finite_nudge_response,
    online_response,
    parameter_gradient,
    response,
)
from descent.beyond_gradients.fixed_point_network import (
    chain,
    cross_entropy_gradient,
    draw_network,
    feed_forward,
)
from descent.beyond_gradients.jacobian_homeostasis import transformed_error

LABELS = torch.arange(6) % 4
TARGETS = torch.nn.functional.one_hot(LABELS).double()


def case(angle=90.0, gain=0.5, activation="shifted sigmoid", wiring=None):
    generator = torch.Generator().manual_seed(3)
    net = draw_network(wiring or chain((6, 5, 4)), 7, 4, angle, [generator], torch.float64)
    net = replace(net, recurrent=gain * net.recurrent, activation=ACTIVATIONS[activation])
    x = torch.rand(1, 6, 7, generator=generator, dtype=torch.float64)
    drive = net.drive(x)
    state = net.relax(drive, 200)
    loss = cross_entropy_gradient(net, TARGETS)(net.activation.function(state))
    return net, x, drive, state, loss


def relative(a, b):
    return float((a - b).norm() / b.norm())


def gradients(net, x, state, error):
    activity = net.activation.function(state)
    residual = torch.softmax(net.logits(activity), -1) - TARGETS
    return parameter_gradient(net, x, activity, error, residual)


def settled_loss(net, x, parameters, steps=120):
    net = replace(net, **parameters)
    logits = net.logits(net.activation.function(net.relax(net.drive(x), steps)))
    return torch.nn.functional.cross_entropy(logits[0], LABELS)


def test_the_response_is_the_derivative_of_the_settled_activity_with_respect_to_the_nudge():
    net, _, drive, state, loss = case()
    gradient, phi, step = cross_entropy_gradient(net, TARGETS), net.activation.function, 1e-6
    up, down = (phi(net.relax(drive, 200, state, b, gradient)) for b in (step, -step))
    for error in (response(net, state, loss), response(net, state, loss, 200)):
        assert relative(error, (up - down) / (2 * step)) < 1e-7


def test_iterated_response_is_the_tangent_of_the_nudged_steps():
    net, _, drive, state, loss = case()
    gradient, step = cross_entropy_gradient(net, TARGETS), 1e-6

    def after(nudge, steps):
        return net.activation.function(net.relax(drive, steps, state, nudge, gradient))

    # With a constant loss gradient the tangent would be exact; with two steps its change is not yet felt.
    numerical = (after(step, 1) - after(-step, 1)) / (2 * step)
    assert relative(response(net, state, loss, 1), numerical) < 1e-7


@pytest.mark.parametrize("steps", [None, 200])
def test_recurrent_backpropagation_gives_the_gradients_of_autograd_through_the_relaxation(steps):
    net, x, _, state, loss = case()
    leaves = {k: v.clone().requires_grad_() for k, v in net.parameters().items()}
    automatic = torch.autograd.grad(settled_loss(net, x, leaves), list(leaves.values()))
    found = gradients(net, x, state, adjoint_error(net, state, loss, steps))
    mask = net.wiring.mask(torch.float64)
    for name, reference in zip(leaves, automatic, strict=True):
        reference = reference * mask if name == "recurrent" else reference
        assert relative(found[name], reference) < 1e-10, name


def test_both_errors_are_solves_with_the_jacobian_of_the_force():
    net, _, _, state, loss = case()
    jacobian = activity_jacobian(net, state)
    forward = torch.linalg.solve(jacobian, -loss[..., None])[..., 0]
    backward = torch.linalg.solve(jacobian.mT, -loss[..., None])[..., 0]
    torch.testing.assert_close(response(net, state, loss), forward)
    torch.testing.assert_close(adjoint_error(net, state, loss), backward)
    torch.testing.assert_close(transformed_error(jacobian, backward), forward)


def test_one_weight_by_finite_differences_agrees_with_backpropagation_and_not_with_the_response():
    net, x, _, state, loss = case()
    row, column, step = 2, 7, 1e-6

    def shifted(by):
        weights = net.recurrent.clone()
        weights[0, row, column] += by
        return settled_loss(net, x, {"recurrent": weights})

    numerical = float(shifted(step) - shifted(-step)) / (2 * step)
    true = gradients(net, x, state, adjoint_error(net, state, loss))["recurrent"][0, row, column]
    biased = gradients(net, x, state, response(net, state, loss))["recurrent"][0, row, column]
    assert float(true) == pytest.approx(numerical, rel=1e-6)
    assert abs(float(biased) / numerical - 1) > 1e-2


@pytest.mark.parametrize("activation", ["shifted sigmoid", "dsilu", "tanh"])
def test_with_tied_weights_the_response_of_activities_is_the_true_error(activation):
    net, _, _, state, loss = case(angle=0.0, activation=activation)
    # Tied kernels share their values, so scaling keeps the matrix symmetric.
    true = adjoint_error(net, state, loss)
    assert relative(response(net, state, loss), true) < 1e-12
    membranes = response(net, state, loss) / net.activation.slope(state)
    assert relative(membranes, true) > 1e-2


def test_without_feedback_the_response_stops_at_the_output():
    net, _, _, state, loss = case(wiring=feed_forward((6, 5, 4)))
    error = response(net, state, loss)
    assert float(error[..., :11].abs().max()) == 0
    assert float(adjoint_error(net, state, loss)[..., :6].abs().max()) > 0


@pytest.mark.parametrize("points", [1, 2, 4, 6])
def test_finite_nudges_converge_to_the_response_with_order_n(points):
    net, _, drive, state, loss = case()
    exact, fluid = response(net, state, loss), net.to(torch.complex128)
    gradient = cross_entropy_gradient(fluid, TARGETS)

    def error(radius):
        estimate = finite_nudge_response(
            fluid, drive + 0j, state + 0j, gradient, radius, points, 200
        )
        return relative(estimate, exact)

    order = torch.log2(torch.tensor(error(0.2) / error(0.1)))
    assert float(order) == pytest.approx(points, abs=0.3)


def test_the_online_estimate_is_the_static_one_and_knows_the_free_activity():
    net, _, drive, state, _ = case()
    fluid = net.to(torch.complex128)
    arguments = (fluid, drive + 0j, state + 0j, cross_entropy_gradient(fluid, TARGETS), 0.1, 4)
    online, free = online_response(*arguments, 60, 5)
    static = finite_nudge_response(*arguments, 60)
    torch.testing.assert_close(online, static, atol=1e-10, rtol=1e-7)
    assert relative(free, net.activation.function(state)) < 1e-4


def test_gradients_vanish_where_nothing_is_connected():
    net, x, _, state, loss = case()
    found = gradients(net, x, state, response(net, state, loss))["recurrent"]
    assert torch.equal(found * (1 - net.wiring.mask(torch.float64)), torch.zeros_like(found))
