r"""Softmax probabilities under a change of logits: divergence, its quadratic model, and its remainder.

Moving along a line tilts the probabilities, :math:`p_t\propto p_0e^{ta}`. With the cumulant function
:math:`K(t)=\log E_0e^{ta}`, so that :math:`K'=E_ta`, :math:`K''=\mathrm{Var}_ta` and :math:`K'''` is
the third central moment,

.. math::
   \mathrm{KL}(p_t\|p_0)=\int_0^tsK''(s)\,ds,\qquad
   \mathrm{KL}(p_0\|p_t)=K(t)-K(0)-tK'(0)=\int_0^t(t-s)K''(s)\,ds .

Both are :math:`\frac{t^2}2\mathrm{Var}_0a` to leading order. With the sharp bound
:math:`|K'''|\le\Delta^3/(6\sqrt3)` their remainders are at most :math:`t^3\Delta^3/(18\sqrt3)` and
:math:`t^3\Delta^3/(36\sqrt3)`.

Source: Sao (arXiv 2603.13552), Lemma A4.1 and Theorem A4.2; which divergence the gap of :math:`K`
belongs to, and the first integral, are derived here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from descent.stability.step_radius import logit_spread

__all__ = [
    "cumulant_gap",
    "extremal_bernoulli",
    "forward_divergence",
    "kl_remainder_bound",
    "quadratic_model",
    "reverse_divergence",
    "third_central_moment",
]


def _probabilities(logits: Tensor, slopes: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    shape = (logits.shape, slopes.shape)
    if shape[0] != shape[1] or logits.ndim < 1:
        raise ValueError(f"logits and slopes must share a shape (..., n), got {shape}")
    return logits.log_softmax(-1), (logits + t[..., None] * slopes).log_softmax(-1)


def forward_divergence(logits: Tensor, slopes: Tensor, t: Tensor) -> Tensor:
    r"""Return :math:`\mathrm{KL}(p_t\|p_0)`.

    Args:
        logits: of :math:`p_0`, shape ``(..., n)``.
        slopes: :math:`a`, shape ``(..., n)``.
        t: shape ``(...)``.

    Returns:
        Shape ``(...)``.

    Raises:
        ValueError: if logits and slopes differ in shape.
    """
    start, end = _probabilities(logits, slopes, t)
    return (end.exp() * (end - start)).sum(-1)


def reverse_divergence(logits: Tensor, slopes: Tensor, t: Tensor) -> Tensor:
    r"""Return :math:`\mathrm{KL}(p_0\|p_t)`; arguments as in :func:`forward_divergence`."""
    start, end = _probabilities(logits, slopes, t)
    return (start.exp() * (start - end)).sum(-1)


def cumulant_gap(logits: Tensor, slopes: Tensor, t: Tensor) -> Tensor:
    """Return :math:`K(t)-K(0)-tK'(0)`; arguments as in :func:`forward_divergence`."""
    mean = (logits.softmax(-1) * slopes).sum(-1)
    return (logits + t[..., None] * slopes).logsumexp(-1) - logits.logsumexp(-1) - t * mean


def third_central_moment(logits: Tensor, slopes: Tensor) -> Tensor:
    """Return the third central moment of the slopes under softmax probabilities.

    Args:
        logits: shape ``(..., n)``.
        slopes: shape ``(..., n)``.

    Returns:
        Shape ``(...)``, between -1 and 1 times ``spread**3 / (6 sqrt(3))``.
    """
    p = logits.softmax(-1)
    centred = slopes - (p * slopes).sum(-1, keepdim=True)
    return (p * centred**3).sum(-1)


def quadratic_model(logits: Tensor, slopes: Tensor, t: Tensor) -> Tensor:
    r"""Return :math:`\frac{t^2}2\mathrm{Var}_0a`; arguments as in :func:`forward_divergence`."""
    p = logits.softmax(-1)
    centred = slopes - (p * slopes).sum(-1, keepdim=True)
    return t.square() / 2 * (p * centred.square()).sum(-1)


def kl_remainder_bound(slopes: Tensor, t: Tensor, direction: str = "forward") -> Tensor:
    r"""Return the bound on ``|divergence - quadratic_model|``.

    Args:
        slopes: shape ``(..., n)``.
        t: shape ``(...)``.
        direction: ``"forward"`` for :math:`\mathrm{KL}(p_t\|p_0)`, constant :math:`1/(18\sqrt3)`;
            ``"reverse"`` for :math:`\mathrm{KL}(p_0\|p_t)`, constant :math:`1/(36\sqrt3)`.

    Returns:
        Shape ``(...)``.

    Raises:
        ValueError: for another direction.
    """
    divisors = {"forward": 18.0, "reverse": 36.0}
    if direction not in divisors:
        raise ValueError(f"direction must be 'forward' or 'reverse', got {direction!r}")
    return (t.abs() * logit_spread(slopes)) ** 3 / (divisors[direction] * math.sqrt(3))


def extremal_bernoulli() -> tuple[Tensor, Tensor]:
    r"""Return logits and slopes of the two-point law that makes the third-moment bound an equality.

    Probability :math:`(3-\sqrt3)/6` at slope 1, the rest at slope 0.

    Returns:
        Two float64 tensors of shape ``(2,)``.
    """
    p = (3 - math.sqrt(3)) / 6
    return (
        torch.tensor([math.log(p), math.log1p(-p)], dtype=torch.float64),
        torch.tensor([1.0, 0.0], dtype=torch.float64),
    )
