r"""A step controller without a hyper-parameter: no update longer than its radius bound.

Any optimiser proposes an update :math:`p`; the controller applies

.. math:: s\,p,\qquad s=\min\Bigl(1,\frac{\rho_a(p/\|p\|)}{\|p\|}\Bigr),

so that every applied step has :math:`r\le1`, whatever the learning rate.

Source: Sao (arXiv 2603.13552), Proposition 5.2 and Section 6.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from descent.stability.step_radius import normalized_step

__all__ = ["RadiusClip", "clip_factor"]


def clip_factor(r: Tensor, cap: float | Tensor = 1.0) -> Tensor:
    r"""Return :math:`s=\min(1,\text{cap}/r)`.

    Args:
        r: normalised step lengths, not negative.
        cap: largest normalised length allowed, positive; infinity leaves the step alone.

    Returns:
        Shape of ``r``; 1 for a step of length 0.
    """
    cap = torch.as_tensor(cap, dtype=r.dtype, device=r.device)
    return torch.where(r > cap, cap / r.clamp(min=torch.finfo(r.dtype).tiny), torch.ones_like(r))


class RadiusClip:
    """Wrap an optimiser so that its updates stay within a multiple of the radius bound.

    The state of the optimiser is what it would have been: only the applied update is shortened. The
    full update counts, weight decay included. One forward-mode pass and a copy of the parameters per step.

    Args:
        optimizer: any optimiser over all trainable parameters of ``model``.
        model: maps inputs to logits.
        cap: largest normalised step; 1 is the paper's controller.
        stretch: also lengthen shorter steps to ``cap``, which makes the learning rate irrelevant
            (the paper's schedule-free variant).

    Raises:
        ValueError: if ``cap`` is not positive.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        model: torch.nn.Module,
        cap: float = 1.0,
        stretch: bool = False,
    ) -> None:
        if not cap > 0:
            raise ValueError(f"cap must be positive, got {cap}")
        self.optimizer, self.model, self.cap, self.stretch = optimizer, model, cap, stretch

    def zero_grad(self) -> None:
        """Clear the gradients, as the optimiser does."""
        self.optimizer.zero_grad()

    def step(self, inputs: Tensor, closure: Callable[[], Any] | None = None) -> tuple[float, float]:
        """Take one step of the optimiser and shorten it if need be.

        Args:
            inputs: the samples over which the radius is taken.
            closure: passed to the optimiser.

        Returns:
            The normalised length of the proposed and of the applied update.
        """
        before = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.optimizer.step(closure)
        with torch.no_grad():
            after = {name: p.detach().clone() for name, p in self.model.named_parameters()}
            for name, p in self.model.named_parameters():
                p.copy_(before[name])  # the radius belongs to the point where the step starts
            update = {name: after[name] - before[name] for name in before}
            r = normalized_step(self.model, inputs, update)
            if self.stretch:
                scale = torch.where(r > 0, self.cap / r, torch.ones_like(r))
            else:
                scale = clip_factor(r, self.cap)
            for name, p in self.model.named_parameters():
                p.add_(scale * update[name])
        return float(r), float(scale * r)
