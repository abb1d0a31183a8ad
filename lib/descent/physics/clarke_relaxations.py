r"""Straight lines around the two nonlinear pieces of a backward pass: an undecided ReLU, and a norm.

An undecided ReLU multiplies the gradient :math:`g\in[g_l,g_u]` by an unknown :math:`D\in[0,1]`. If the
sign of :math:`g` is known, :math:`Dg` lies between :math:`0` and :math:`g`. If not, the best lines are
chords,

.. math:: \frac{g_l\,(g_u-g)}{g_u-g_l}\le Dg\le\frac{g_u\,(g-g_l)}{g_u-g_l},\qquad
          |g|\le\frac{(g_u+g_l)\,g-2g_lg_u}{g_u-g_l}.

Source: Shi, Wang, Zhang, Kolter and Hsieh (NeurIPS 2022) and their code; the constant lines are those of
RecurJac as re-implemented there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "ACTIVE",
    "INACTIVE",
    "METHODS",
    "UNDECIDED",
    "ProductLines",
    "abs_chord",
    "clarke_product_lines",
    "clarke_states",
    "product_lines",
]

INACTIVE, ACTIVE, UNDECIDED = 0, 1, 2
METHODS = ("linear", "recurjac", "ibp")


class ProductLines(NamedTuple):
    """``upper_slope * g + upper_constant`` and ``lower_slope * g + lower_constant`` enclose ``D g``."""

    upper_slope: Tensor
    upper_constant: Tensor
    lower_slope: Tensor
    lower_constant: Tensor


def clarke_states(lower: Tensor, upper: Tensor, splits: Tensor | None = None) -> Tensor:
    """Return what is known of each ReLU from bounds of its pre-activation.

    At 0 the Clarke derivative is all of [0, 1], so that a neuron with ``lower <= 0 <= upper`` is undecided.

    Args:
        lower: lower bounds, any shape.
        upper: upper bounds, same shape.
        splits: decisions that override the bounds, same shape: +1 active, -1 inactive, 0 none.

    Returns:
        ``int8`` of the same shape: 0 inactive, 1 active, 2 undecided.
    """
    states = torch.full(lower.shape, UNDECIDED, dtype=torch.int8, device=lower.device)
    states[lower > 0] = ACTIVE
    states[upper < 0] = INACTIVE
    if splits is not None:
        states[splits > 0] = ACTIVE
        states[splits < 0] = INACTIVE
    return states


def clarke_product_lines(lower: Tensor, upper: Tensor) -> ProductLines:
    r"""Return the tightest lines around :math:`Dg` for free :math:`D\in[0,1]` and :math:`g\in[g_l,g_u]`.

    Args:
        lower: :math:`g_l`, any shape.
        upper: :math:`g_u\ge g_l`, same shape.

    Returns:
        Slopes and constants, each of that shape.
    """
    zero, one = torch.zeros_like(lower), torch.ones_like(lower)
    chord = (lower < 0) & (upper > 0)
    width = torch.where(chord, upper - lower, one)
    return ProductLines(
        torch.where(chord, upper / width, torch.where(lower >= 0, one, zero)),
        torch.where(chord, -lower * upper / width, zero),
        torch.where(chord, -lower / width, torch.where(upper <= 0, one, zero)),
        torch.where(chord, lower * upper / width, zero),
    )


def product_lines(states: Tensor, lower: Tensor, upper: Tensor, method: str) -> ProductLines:
    """Return lines around :math:`Dg` for neurons in given states.

    ``linear`` takes :func:`clarke_product_lines` where undecided and the exact product elsewhere.
    ``recurjac`` does the same but replaces the gradient by its interval wherever its sign is unknown and
    the neuron is not inactive. ``ibp`` replaces it always.

    Args:
        states: as of :func:`clarke_states`, shape broadcastable to that of the gradients.
        lower: lower bounds of the gradients.
        upper: upper bounds of the gradients, same shape.
        method: ``"linear"``, ``"recurjac"`` or ``"ibp"``.

    Returns:
        Slopes and constants, each of the shape of the gradients.

    Raises:
        ValueError: for an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    zero, one = torch.zeros_like(lower), torch.ones_like(lower)
    active, inactive = states == ACTIVE, states == INACTIVE
    if method == "ibp":
        top = torch.where(active, upper, upper.clamp(min=0))
        bottom = torch.where(active, lower, lower.clamp(max=0))
        return ProductLines(
            zero, torch.where(inactive, zero, top), zero, torch.where(inactive, zero, bottom)
        )
    exact = ProductLines(one, zero, one, zero)
    lines = clarke_product_lines(lower, upper)
    if method == "recurjac":
        ambiguous = (lower < 0) & (upper > 0)
        interval = ProductLines(zero, upper, zero, lower)
        lines = _choose(ambiguous, interval, lines)
        exact = _choose(ambiguous, interval, exact)
    return _choose(inactive, ProductLines(zero, zero, zero, zero), _choose(active, exact, lines))


def _choose(where: Tensor, first: ProductLines, second: ProductLines) -> ProductLines:
    return ProductLines(*(torch.where(where, a, b) for a, b in zip(first, second, strict=True)))


def abs_chord(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Return slope and constant of the best affine upper bound of the absolute value.

    Args:
        lower: lower bounds, any shape.
        upper: upper bounds, same shape.

    Returns:
        Slope and constant; the exact sign and 0 where the interval does not contain 0 inside.
    """
    chord = (lower < 0) & (upper > 0)
    width = torch.where(chord, upper - lower, torch.ones_like(lower))
    sign = torch.where(lower >= 0, torch.ones_like(lower), -torch.ones_like(lower))
    slope = torch.where(chord, (upper + lower) / width, sign)
    constant = torch.where(chord, -2 * lower * upper / width, torch.zeros_like(lower))
    return slope, constant
