r"""Linear bound propagation through the backward pass: bounds of the Clarke Jacobian and of its norm.

For weights :math:`g_0` on the outputs the gradient is :math:`J_n=W_n^\top g_0`,
:math:`J_i=W_i^\top p_i` with :math:`p_i=D_i\circ J_{i+1}`. A linear form :math:`A\,J_i` is bounded from
above by putting the upper line of :math:`p_i` where the coefficient is positive and the lower line where it
is negative, and going on with :math:`J_{i+1}` until the constant :math:`J_n`:

.. math:: A\leftarrow AW_i^\top,\qquad c\leftarrow c+A^+c^{up}_i+A^-c^{lo}_i,\qquad
          A\leftarrow A^+s^{up}_i+A^-s^{lo}_i .

Source: Shi, Wang, Zhang, Kolter and Hsieh (NeurIPS 2022) and their code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from descent.physics.clarke_relaxations import (
    INACTIVE,
    ProductLines,
    abs_chord,
    product_lines,
)
from descent.physics.relu_network import ReluNetwork

__all__ = ["JacobianBounds", "back_substitute", "jacobian_bounds"]


@dataclass(frozen=True)
class JacobianBounds:
    r"""Bounds over ``B`` boxes of the gradients of ``K`` combinations of outputs.

    Attributes:
        lower: lower bounds of the entries of :math:`J_1`, shape ``(B, K, d)``.
        upper: upper bounds, same shape.
        norm: upper bounds of :math:`\sum_j|J_{1,j}|`, shape ``(B, K)``.
        hidden: of :math:`J_2,\dots,J_n`, the gradients that enter hidden layers 1 to n-1 from behind, lower and
            upper bounds of shape ``(B, K, n_i)``.
        ambiguous: whether some ReLU that may be active receives a gradient of unknown sign, or the norm
            has to bridge one, shape ``(B, K)``.
    """

    lower: Tensor
    upper: Tensor
    norm: Tensor
    hidden: tuple[tuple[Tensor, Tensor], ...]
    ambiguous: Tensor

    @property
    def lipschitz(self) -> Tensor:
        r"""The bound of :math:`\|J\|_\infty`, the largest over the ``K`` rows, shape ``(B,)``."""
        return self.norm.amax(1)


def jacobian_bounds(
    network: ReluNetwork,
    states: Sequence[Tensor],
    output_weights: Tensor | None = None,
    method: str = "linear",
    chunk: int = 1024,
) -> JacobianBounds:
    r"""Bound the Clarke Jacobian of a ReLU network whose neuron states are partly known.

    The boxes enter through the states alone, so that methods are compared on the same forward bounds.

    Args:
        network: the network.
        states: of each hidden layer, as of :func:`descent.physics.clarke_relaxations.clarke_states`, shape ``(B, n_i)``.
        output_weights: :math:`g_0` as rows, shape ``(K, out_size)``; the identity if left out.
        method: ``"linear"`` (the paper's), ``"recurjac"`` or ``"ibp"``, the relaxation of
            :func:`descent.physics.clarke_relaxations.product_lines`; the last two bound the norm by the sum of the largest absolute entries.
        chunk: entries bounded at once, which limits memory.

    Returns:
        The bounds.

    Raises:
        ValueError: for an unknown method, or states or weights that do not fit.
    """
    g0 = _output_weights(network, output_weights)
    if [s.shape[-1] for s in states] != network.hidden_sizes:
        raise ValueError(
            f"states must be given for hidden layers of {network.hidden_sizes} neurons, got "
            f"{[s.shape[-1] for s in states]}"
        )
    last = network.layers[-1].adjoint(g0)[None]
    if not states:
        return JacobianBounds(last, last, last.abs().sum(-1), (), last.new_zeros(1, len(g0)) > 0)
    last = last.expand(len(states[0]), -1, -1)
    lines: list[ProductLines] = []  # of the layers from the current one to the last hidden one
    hidden: list[tuple[Tensor, Tensor]] = []
    low = high = last
    ambiguous = torch.zeros(last.shape[:2], dtype=torch.bool, device=last.device)
    for i in range(len(states) - 1, -1, -1):
        hidden.insert(0, (low, high))
        state = states[i][:, None, :]
        ambiguous |= ((low < 0) & (high > 0) & (state != INACTIVE)).any(-1)
        lines.insert(0, product_lines(state, low, high, method))
        entries = torch.arange(network.layers[i].in_size, device=last.device)
        parts = []
        for index in entries.split(chunk):
            rows = network.layers[i].adjoint_rows(index)
            # Upper bounds of the entries and of their negatives at once.
            both = back_substitute(network, lines, torch.cat([rows, -rows]), i, last)
            above, below = both.split(len(index), -1)
            parts.append((-below, above))
        low, high = (torch.cat(side, -1) for side in zip(*parts, strict=True))
    ambiguous |= ((low < 0) & (high > 0)).any(-1)
    if method == "linear":
        slope, constant = abs_chord(low, high)
        form = network.layers[0].apply(slope)[..., None, :]
        norm = constant.sum(-1) + back_substitute(network, lines, form, 0, last)[..., 0]
    else:
        norm = torch.maximum(low.abs(), high.abs()).sum(-1)
    return JacobianBounds(low, high, norm, tuple(hidden), ambiguous)


def _output_weights(network: ReluNetwork, output_weights: Tensor | None) -> Tensor:
    bias = network.layers[-1].bias
    if output_weights is None:
        return torch.eye(network.out_size, dtype=bias.dtype, device=bias.device)
    if output_weights.ndim != 2 or output_weights.shape[1] != network.out_size:
        raise ValueError(
            f"output_weights must have shape (K, {network.out_size}), got "
            f"{tuple(output_weights.shape)}"
        )
    return output_weights


def back_substitute(
    network: ReluNetwork,
    lines: Sequence[ProductLines],
    coefficients: Tensor,
    start: int,
    last: Tensor,
) -> Tensor:
    r"""Bound linear forms :math:`A\,p` of the products behind hidden layer ``start`` from above.

    Args:
        network: the network.
        lines: lines around the products of hidden layers ``start`` (counted from 0), ``start + 1`` and so on,
            each of shape ``(B, K, n_i)``.
        coefficients: :math:`A`, rows of shape ``(R, n_start)`` or ``(B, K, R, n_start)``.
        start: the hidden layer at which the forms begin.
        last: the exact gradient :math:`J_n` behind the last hidden layer, shape ``(B, K, n)``.

    Returns:
        Upper bounds, shape ``(B, K, R)``.
    """
    constant = last.new_zeros(*last.shape[:2], coefficients.shape[-2])
    for k, line in enumerate(lines, start):
        if k > start:
            coefficients = network.layers[k].apply(coefficients)
        upper_slope, upper_constant, lower_slope, lower_constant = (t[..., None, :] for t in line)
        positive = coefficients.clamp(min=0)
        constant = constant + (coefficients @ lower_constant.mT)[..., 0]
        constant = constant + (positive @ (upper_constant - lower_constant).mT)[..., 0]
        if not (line.upper_slope.any() or line.lower_slope.any()):
            return constant  # intervals: nothing of the gradients behind is left
        coefficients = coefficients * lower_slope + positive * (upper_slope - lower_slope)
    return constant + (coefficients @ last[..., None])[..., 0]
