r"""Bounds of the pre-activations of a ReLU network over a box: CROWN, and plain intervals.

CROWN writes an undecided ReLU between two lines,

.. math:: \alpha z\le\max(z,0)\le\frac{u}{u-l}(z-l),\qquad\alpha=1\text{ if }u>-l\text{ else }0,

and substitutes them backwards from each neuron to the input, where the box is inserted.

Source: forward bounds of Shi et al. (NeurIPS 2022); plain CROWN, slopes not optimised.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from descent.physics.clarke_relaxations import ACTIVE, UNDECIDED, clarke_states
from descent.physics.relu_network import ReluNetwork

__all__ = ["check_box", "crown_preactivation_bounds", "interval_preactivation_bounds"]

Bounds = tuple[Tensor, Tensor]


def check_box(network: ReluNetwork, lower: Tensor, upper: Tensor) -> None:
    """Refuse boxes that do not fit the network.

    Raises:
        ValueError: for another shape than ``(B, d)``, or ``lower > upper`` somewhere.
    """
    if lower.shape != upper.shape or lower.ndim != 2 or lower.shape[1] != network.in_size:
        raise ValueError(
            f"boxes must have lower and upper of shape (B, {network.in_size}), got "
            f"{tuple(lower.shape)} and {tuple(upper.shape)}"
        )
    if bool((lower > upper).any()):
        raise ValueError("a box has lower > upper")


def interval_preactivation_bounds(
    network: ReluNetwork, lower: Tensor, upper: Tensor
) -> list[Bounds]:
    """Bound the hidden pre-activations by interval arithmetic.

    Args:
        network: the network.
        lower: lower corners of the boxes, shape ``(B, d)``.
        upper: upper corners, same shape.

    Returns:
        Of each hidden layer, lower and upper bounds of shape ``(B, n_i)``.

    Raises:
        ValueError: for boxes that do not fit.
    """
    check_box(network, lower, upper)
    found: list[Bounds] = []
    for layer in network.layers[:-1]:
        middle, radius = (upper + lower) / 2, (upper - lower) / 2
        centre = layer.apply(middle) + layer.bias
        spread = layer.magnitude().apply(radius)
        found.append((centre - spread, centre + spread))
        lower, upper = found[-1][0].relu(), found[-1][1].relu()
    return found


def crown_preactivation_bounds(
    network: ReluNetwork,
    lower: Tensor,
    upper: Tensor,
    splits: Sequence[Tensor] | None = None,
    chunk: int = 1024,
) -> list[Bounds]:
    """Bound the hidden pre-activations by CROWN, layer after layer.

    Args:
        network: the network.
        lower: lower corners of the boxes, shape ``(B, d)``.
        upper: upper corners, same shape.
        splits: per hidden layer, decisions of shape ``(B, n_i)``: +1 for ``z >= 0``, -1 for ``z <= 0``, 0 for
            none. Bounds hold on the part of the box that obeys them; ``lower > upper`` shows that it is empty.
        chunk: neurons bounded at once, which limits memory.

    Returns:
        Of each hidden layer, lower and upper bounds of shape ``(B, n_i)``.

    Raises:
        ValueError: for boxes that do not fit.
    """
    check_box(network, lower, upper)
    middle, radius = (upper + lower) / 2, (upper - lower) / 2
    found: list[Bounds] = []
    lines: list[tuple[Tensor, Tensor, Tensor]] = []
    for i, layer in enumerate(network.layers[:-1]):
        if i == 0:
            centre = layer.apply(middle) + layer.bias
            spread = layer.magnitude().apply(radius)
            low, high = centre - spread, centre + spread
        else:
            neurons = torch.arange(layer.out_size, device=lower.device)
            parts = [
                _bound_rows(network, lines, i, index, middle, radius)
                for index in neurons.split(chunk)
            ]
            low, high = (torch.cat(side, 1) for side in zip(*parts, strict=True))
        split = None if splits is None else splits[i]
        if split is not None:
            low = torch.where(split > 0, low.clamp(min=0), low)
            high = torch.where(split < 0, high.clamp(max=0), high)
        found.append((low, high))
        lines.append(_relu_lines(low, high, clarke_states(low, high, split)))
    return found


def _relu_lines(low: Tensor, high: Tensor, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Upper slope, upper constant and lower slope of the ReLU; the lower constant is 0."""
    active = (states == ACTIVE).to(low)
    undecided = (states == UNDECIDED) & (high > low)
    width = torch.where(undecided, high - low, torch.ones_like(low))
    slope = torch.where(undecided, high / width, active)
    constant = torch.where(undecided, -low * high / width, torch.zeros_like(low))
    return slope, constant, torch.where(undecided, (high > -low).to(low), active)


def _bound_rows(
    network: ReluNetwork,
    lines: Sequence[tuple[Tensor, Tensor, Tensor]],
    i: int,
    index: Tensor,
    middle: Tensor,
    radius: Tensor,
) -> Bounds:
    """Lower and upper bounds of some neurons of layer ``i``, each of shape ``(B, len(index))``."""
    rows, bias = network.layers[i].rows(index), network.layers[i].bias[index]
    # Upper bounds of z and of -z at once.
    coefficients = torch.cat([rows, -rows]).expand(len(middle), -1, -1)
    constant = torch.cat([bias, -bias]).expand(len(middle), -1)
    for k in range(i - 1, -1, -1):
        upper_slope, upper_constant, lower_slope = (line[:, None, :] for line in lines[k])
        positive = coefficients.clamp(min=0)
        constant = constant + (positive @ upper_constant.mT)[..., 0]
        coefficients = coefficients * lower_slope + positive * (upper_slope - lower_slope)
        constant = constant + coefficients @ network.layers[k].bias
        coefficients = network.layers[k].adjoint(coefficients)
    bound = constant + (coefficients @ middle[..., None])[..., 0]
    bound = bound + (coefficients.abs() @ radius[..., None])[..., 0]
    above, below = bound.split(len(index), 1)
    return -below, above
