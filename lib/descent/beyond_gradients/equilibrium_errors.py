r"""Error signals of a settled network: equilibrium propagation and its reference, recurrent backpropagation.

At a free fixed point with activity :math:`r`, slopes :math:`D=\mathrm{diag}\,\varphi'(u)` and loss gradient
:math:`\ell=\partial L/\partial r`, both rules propagate :math:`\ell` through the network, one along its own
connections and one against them:

.. math:: \varepsilon=\frac{d\varphi(u^*_\beta)}{d\beta}=D(W\varepsilon+\ell),\qquad
          \delta=D(W^\top\delta+\ell),\qquad \frac{dL}{dW_{jk}}=\delta_jr_k .

With :math:`J=W-D^{-1}`, the Jacobian of the force in activity coordinates, :math:`\varepsilon=-J^{-1}\ell` and
:math:`\delta=-J^{-\top}\ell`.

Source: Laborieux and Zenke (ICLR 2024); relaxation schedules from the authors' code. The adjoint iteration is
that of Almeida and Pineda (1987).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from descent.beyond_gradients.cauchy_derivative import cauchy_derivative, circle
from descent.beyond_gradients.fixed_point_network import FixedPointNetwork, LossGradient

__all__ = [
    "activity_jacobian",
    "adjoint_error",
    "finite_nudge_response",
    "online_response",
    "parameter_gradient",
    "response",
    "settle",
]


def response(
    network: FixedPointNetwork, state: Tensor, loss: Tensor, steps: int | None = None
) -> Tensor:
    r"""The response to an infinitesimal nudge.

    The membranes respond by :math:`v=WDv+\ell`, the activities by :math:`\varepsilon=Dv`. Only the latter is the
    error signal.

    Args:
        network: real.
        state: free state :math:`u`, shape ``(..., batch, n)``.
        loss: :math:`\ell`, shape of ``state``.
        steps: iterate so many times, which is the tangent of that many nudged relaxation steps; ``None`` solves
            the linear system.

    Returns:
        :math:`\varepsilon`, shape of ``state``.
    """
    slope = network.activation.slope(state)
    if steps is None:
        membrane = _solve(network.recurrent[..., None, :, :] * slope[..., None, :], loss)
    else:
        membrane = loss
        for _ in range(steps - 1):
            membrane = network.field(slope * membrane, loss)
    return slope * membrane


def adjoint_error(
    network: FixedPointNetwork, state: Tensor, loss: Tensor, steps: int | None = None
) -> Tensor:
    r"""The true error by recurrent backpropagation, :math:`\delta=D(W^\top\delta+\ell)`.

    Args:
        network: real.
        state: free state, shape ``(..., batch, n)``.
        loss: :math:`\ell`, shape of ``state``.
        steps: iterate so many times; ``None`` solves the linear system.

    Returns:
        :math:`\delta`, shape of ``state``.
    """
    slope = network.activation.slope(state)
    error = slope * loss
    if steps is None:
        return _solve(slope[..., None] * network.recurrent.mT[..., None, :, :], error)
    for _ in range(steps - 1):
        back = error @ network.recurrent
        error = back.add_(loss).mul_(slope)
    return error


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Return the solution of ``x = matrix x + right`` for every example."""
    identity = torch.eye(right.shape[-1], dtype=right.dtype, device=right.device)
    return torch.linalg.solve(identity - matrix, right[..., None])[..., 0]


def activity_jacobian(network: FixedPointNetwork, state: Tensor) -> Tensor:
    r"""Return :math:`J=W-D^{-1}`, shape ``(..., batch, n, n)``.

    Args:
        network: with slopes that are not zero.
        state: shape ``(..., batch, n)``.
    """
    slope = network.activation.slope(state)
    return network.recurrent[..., None, :, :] - torch.diag_embed(1 / slope)


def settle(
    network: FixedPointNetwork,
    drive: Tensor,
    steps: int,
    start: Tensor,
    nudge: complex,
    loss_gradient: LossGradient,
) -> Tensor:
    r"""Activity :math:`\varphi(u^*_\beta)` after nudged relaxation from ``start``; arguments as in ``relax``."""
    state = network.relax(drive, steps, start, nudge, loss_gradient)
    return network.activation.function(state)


def finite_nudge_response(
    network: FixedPointNetwork,
    drive: Tensor,
    state: Tensor,
    loss_gradient: LossGradient,
    radius: float,
    points: int,
    steps: int,
) -> Tensor:
    r"""Holomorphic equilibrium propagation: the response from ``points`` finite nudges on a circle.

    Every nudged relaxation starts at the free state. One point is classical one-sided equilibrium propagation,
    two its symmetric form.

    Args:
        network: complex if ``points`` exceeds 2.
        drive: of the dtype of ``network``, shape ``(..., batch, n)``.
        state: free state, same shape and dtype.
        loss_gradient: holomorphic continuation of :math:`\partial L/\partial r`.
        radius: :math:`|\beta|`.
        points: :math:`N`.
        steps: relaxation steps per nudge.

    Returns:
        Real estimate of :math:`\varepsilon`, shape of ``drive``.
    """
    return cauchy_derivative(
        lambda nudge: settle(network, drive, steps, state, nudge, loss_gradient), radius, points
    )


def online_response(
    network: FixedPointNetwork,
    drive: Tensor,
    state: Tensor,
    loss_gradient: LossGradient,
    radius: float,
    points: int,
    steps: int,
    turns: int,
) -> tuple[Tensor, Tensor]:
    r"""The same from one continuing run: the nudge rotates, the state is never reset.

    Error and free activity are the time averages of :math:`\varphi(u)/\beta(t)` and of :math:`\varphi(u)`.

    Args:
        network: complex.
        drive: complex, shape ``(..., batch, n)``.
        state: where the run starts, same shape.
        loss_gradient: holomorphic continuation of :math:`\partial L/\partial r`.
        radius: :math:`|\beta|`.
        points: :math:`N`, nudges per turn.
        steps: relaxation steps between two nudges.
        turns: number of turns that are averaged.

    Returns:
        Real estimates of the error and of the free activity.
    """
    error, activity = torch.zeros_like(drive), torch.zeros_like(drive)
    for nudge in _rotating(radius, points, turns):
        state = network.relax(drive, steps, state, nudge, loss_gradient)
        now = network.activation.function(state)
        error, activity = error + now / nudge, activity + now
    return (error / (points * turns)).real, (activity / (points * turns)).real


def _rotating(radius: float, points: int, turns: int) -> Iterator[complex]:
    for _ in range(turns):
        yield from circle(radius, points)


def parameter_gradient(
    network: FixedPointNetwork,
    inputs: Tensor,
    activity: Tensor,
    error: Tensor,
    residual: Tensor,
) -> dict[str, Tensor]:
    r"""Gradients of the mean loss from an error signal: :math:`dL/dW_{jk}=\langle e_jr_k\rangle` on connections.

    Args:
        network: real.
        inputs: shape ``(..., batch, d)``.
        activity: free activity :math:`r`, shape ``(..., batch, n)``.
        error: :math:`\varepsilon` or :math:`\delta`, shape of ``activity``.
        residual: derivative of the loss by the logits, shape ``(..., batch, classes)``; the readout learns
            from it directly.

    Returns:
        By the names of ``FixedPointNetwork.parameters``.
    """
    wiring, batch = network.wiring, activity.shape[-2]
    first, last = wiring.layer(0), wiring.layer(-1)
    mask = wiring.mask(activity.dtype).to(activity.device)
    return {
        "recurrent": error.mT @ activity / batch * mask,
        "input_weights": error[..., first].mT @ inputs / batch,
        "bias": error.mean(-2),
        "readout": residual.mT @ activity[..., last] / batch,
        "readout_bias": residual.mean(-2),
    }
