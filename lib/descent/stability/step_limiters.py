r"""Rules that shorten a proposed update, for comparison under one roof.

A limiter sees the state of a batch of network copies and their proposed updates :math:`p` and returns one
factor :math:`s\in(0,1]` per copy. The radius limiter is the paper's controller; step-norm clipping, a cap
on the change of logits, backtracking and the Polyak step are the usual alternatives.

Source: Sao (arXiv 2603.13552), Proposition 5.2 (radius); Armijo (1966) and Polyak (1987) for the last two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from descent.stability.network_copies import (
    NetworkCopies,
    State,
    cross_entropies,
    flat_norms,
    scaled,
)
from descent.stability.radius_clip import clip_factor
from descent.stability.step_radius import logit_spread

__all__ = [
    "Limiter",
    "Proposal",
    "RadiusLimiter",
    "backtracking",
    "clip_gradients",
    "grouped",
    "logit_change_limiter",
    "no_limit",
    "normalized_lengths",
    "polyak",
    "radius_along_gradient",
    "step_norm_limiter",
]


@dataclass
class Proposal:
    """What a limiter may look at: the ``copies`` where the step starts, the ``reference`` inputs over which radii
    are taken, ``inputs``, ``labels``, ``losses`` and ``gradient`` of the mini-batch, the proposed ``update`` of the
    parameters and the ``learning_rates`` in force, one per copy."""

    copies: NetworkCopies
    reference: Tensor
    inputs: Tensor
    labels: Tensor
    losses: Tensor
    gradient: State
    update: State
    learning_rates: Tensor

    def of(self, rows: Sequence[int]) -> Proposal:
        """Return the part of the proposal that concerns some of the copies.

        Args:
            rows: which copies.
        """
        index = list(rows)
        return Proposal(
            self.copies.select(index),
            self.reference[index],
            self.inputs[index],
            self.labels[index],
            self.losses[index],
            {k: g[index] for k, g in self.gradient.items()},
            {k: p[index] for k, p in self.update.items()},
            self.learning_rates[index],
        )


Limiter = Callable[[Proposal], Tensor]


def clip_gradients(gradient: State, max_norm: float | Tensor) -> State:
    """Scale each copy's gradient to a norm of at most ``max_norm``, as ``clip_grad_norm_`` does.

    Args:
        gradient: tensors ``(copies, ...)`` by name.
        max_norm: positive, a number or one per copy; infinity leaves the gradient alone.

    Returns:
        The clipped gradient.
    """
    return scaled(gradient, (max_norm / (flat_norms(gradient) + 1e-6)).clamp(max=1.0))


def normalized_lengths(copies: NetworkCopies, inputs: Tensor, update: State) -> Tensor:
    r"""Return :math:`r=\max_x\Delta_{J_zp}(x)/\pi` of each copy's update.

    The direction is normalised first and the length multiplied back, so that huge updates do not overflow.

    Args:
        copies: the networks.
        inputs: shape ``(copies, samples, ...)``.
        update: tensors ``(copies, ...)`` by name.

    Returns:
        Shape ``(copies,)``; 0 for an update of 0.
    """
    norms = flat_norms(update)
    unit = scaled(update, 1 / norms.clamp(min=torch.finfo(norms.dtype).tiny))
    slopes = copies.logits_and_slopes(inputs, unit)[1]
    return norms * logit_spread(slopes).amax(-1) / math.pi


def no_limit(proposal: Proposal) -> Tensor:
    """Leave every step alone."""
    return torch.ones_like(proposal.losses)


class RadiusLimiter:
    r"""The paper's controller for copies, :math:`s=\min(1,\text{cap}/r)`, with a record of what it saw.

    Args:
        cap: largest normalised step; a number or one per copy. Copies with an infinite cap are left alone.
        observe: steps (from 0) at which the copies with an infinite cap are looked at too.

    Attributes:
        seen: normalised lengths of the proposed updates, ``(copies,)`` per step, NaN where not looked at.
    """

    def __init__(self, cap: float | Tensor = 1.0, observe: Collection[int] = ()) -> None:
        self.cap, self.observe = cap, observe
        self.seen: list[Tensor] = []

    def __call__(self, proposal: Proposal) -> Tensor:
        """Return one factor per copy."""
        like = proposal.losses
        cap = torch.as_tensor(self.cap, dtype=like.dtype, device=like.device).expand_as(like)
        look = cap.isfinite() | (len(self.seen) in self.observe)
        r = torch.full_like(like, torch.nan)
        factor = torch.ones_like(like)
        if bool(look.any()):
            part = proposal if bool(look.all()) else proposal.of(look.nonzero()[:, 0].tolist())
            r[look] = normalized_lengths(part.copies, part.reference, part.update)
            factor[look] = clip_factor(r[look], cap[look])
        self.seen.append(r)
        return factor


def grouped(limiters: Sequence[Limiter]) -> Limiter:
    """Return a limiter that splits the copies into equal consecutive groups, each with a rule of its own.

    Args:
        limiters: one per group; their number divides the number of copies.
    """

    def limit(proposal: Proposal) -> Tensor:
        size = len(proposal.losses) // len(limiters)
        return torch.cat(
            [
                limiter(proposal.of(range(k * size, (k + 1) * size)))
                for k, limiter in enumerate(limiters)
            ]
        )

    return limit


def radius_along_gradient(cap: float = 1.0) -> Limiter:
    r"""Return the rule of a published script: the radius of :math:`-g` limits :math:`\eta\|g\|`.

    The factor is then applied to another update, Adam's, whose length and direction it never saw.

    Args:
        cap: largest value of ``learning rate * |g| / radius``.
    """

    def limit(proposal: Proposal) -> Tensor:
        step = scaled(proposal.gradient, -proposal.learning_rates)
        return clip_factor(normalized_lengths(proposal.copies, proposal.reference, step), cap)

    return limit


def step_norm_limiter(max_norm: float) -> Limiter:
    """Return the rule ``|p| <= max_norm``.

    Args:
        max_norm: positive.
    """
    return lambda proposal: clip_factor(flat_norms(proposal.update), max_norm)


def logit_change_limiter(max_change: float) -> Limiter:
    r"""Return the rule :math:`\max_{x,k}|(J_zp)_k|\le` ``max_change``, at the cost of the radius.

    Args:
        max_change: in units of logits.
    """

    def limit(proposal: Proposal) -> Tensor:
        norms = flat_norms(proposal.update)
        unit = scaled(proposal.update, 1 / norms.clamp(min=torch.finfo(norms.dtype).tiny))
        slopes = proposal.copies.logits_and_slopes(proposal.reference, unit)[1]
        return clip_factor(norms * slopes.abs().amax((-1, -2)), max_change)

    return limit


def _slope(proposal: Proposal) -> Tensor:
    """Derivative of the mini-batch loss along the update."""
    return sum(  # type: ignore[return-value]
        (g * proposal.update[name]).flatten(1).sum(1) for name, g in proposal.gradient.items()
    )


def backtracking(trials: int = 10, sufficient: float = 1e-4, shrink: float = 0.25) -> Limiter:
    r"""Return Armijo's rule on the mini-batch: shrink :math:`s` until the loss falls enough.

    :math:`f(\theta+sp)\le f(\theta)+10^{-4}s\,g^\top p`. An update that does not descend to first order
    is shortened as far as the trials go.

    Args:
        trials: most reductions.
        sufficient: Armijo's constant.
        shrink: factor of a reduction, in (0, 1).
    """

    def limit(proposal: Proposal) -> Tensor:
        slope = _slope(proposal)
        factor = torch.ones_like(proposal.losses)
        point = {k: p.detach() for k, p in proposal.copies.parameters.items()}
        for _ in range(trials):
            move = scaled(proposal.update, factor)
            with torch.no_grad():
                z = proposal.copies.logits(
                    proposal.inputs, {k: p + move[k] for k, p in point.items()}
                )
            after = cross_entropies(z, proposal.labels)
            good = after <= proposal.losses + sufficient * factor * slope
            if bool(good.all()):
                break
            factor = torch.where(good, factor, shrink * factor)
        return factor

    return limit


def polyak(optimum: float = 0.0) -> Limiter:
    r"""Return the stochastic Polyak step as a cap: :math:`s=\min(1,(f-f^*)/|g^\top p|)`.

    Args:
        optimum: :math:`f^*`, the least loss; 0 for cross-entropy that can be interpolated.
    """

    def limit(proposal: Proposal) -> Tensor:
        size = _slope(proposal).abs().clamp(min=1e-30)
        return ((proposal.losses - optimum) / size).clamp(max=1.0)

    return limit
