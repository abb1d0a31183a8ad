r"""M-FAC as an optimiser: steps along the inverse empirical Fisher of the last gradients.

.. math:: w\leftarrow w-\eta\,v,\qquad v\leftarrow\mu v+(1-\mu)F^{-1}g,

where the window behind :math:`F` already contains the current gradient :math:`g`.

Source: Frantar, Kurtic and Alistarh (NeurIPS 2021) and the authors' code (update order, weight decay,
defaults).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from descent.curvature.sliding_inverse_fisher import SlidingInverseFisher

__all__ = ["MFAC"]


class MFAC(Optimizer):
    r"""Stochastic natural-gradient-like descent with a matrix-free empirical Fisher matrix.

    One window spans all parameters of all groups; ``lr``, ``momentum`` and ``weight_decay`` may
    differ between groups. Weight decay is added to the gradient before it enters the window.

    Args:
        params: parameters or parameter groups, of one floating-point dtype on one device.
        lr: learning rate :math:`\eta>0`.
        damp: :math:`\lambda>0`. Before the window fills, steps are of order ``lr / damp``.
        window: :math:`m`, the number of gradients kept; memory is ``window`` times the parameters.
        momentum: :math:`\mu` in [0, 1).
        weight_decay: non-negative.

    Raises:
        ValueError: for an option outside its range or parameters of several dtypes or devices.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        damp: float = 1e-5,
        window: int = 1024,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        if not 0 < damp < float("inf"):
            raise ValueError(f"damp must be positive and finite, got {damp}")
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self._ready = False
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            group.update(damp=damp, window=window)
        self._ready = True
        kinds = {(p.dtype, p.device) for p in self._parameters()}
        if len(kinds) > 1:
            raise ValueError(
                f"all parameters must share one dtype and device, got {sorted(map(str, kinds))}"
            )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group before training; the window cannot grow later.

        Args:
            param_group: as for every optimiser.

        Raises:
            ValueError: for an option outside its range.
            RuntimeError: after construction.
        """
        if getattr(self, "_ready", False):
            raise RuntimeError("M-FAC's window spans all parameters: pass every group at the start")
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if not 0 < group["lr"] < float("inf"):
            raise ValueError(f"lr must be positive and finite, got {group['lr']}")
        if not 0 <= group["momentum"] < 1:
            raise ValueError(f"momentum must be in [0, 1), got {group['momentum']}")
        if group["weight_decay"] < 0:
            raise ValueError(f"weight_decay must be non-negative, got {group['weight_decay']}")

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def window_rows(self, gradient: Tensor) -> Sequence[Tensor]:
        """Return the rows that a gradient adds to the window: by default the gradient itself.

        Args:
            gradient: shape ``(d,)``, all parameters flattened.

        Returns:
            Rows of shape ``(d,)``, pushed in order.
        """
        return (gradient,)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Args:
            closure: re-evaluates the model and returns the loss; optional.

        Returns:
            The loss of ``closure``, or ``None``.

        Raises:
            RuntimeError: for sparse gradients.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradient = self._flat_gradient()
        first = self.state[self._parameters()[0]]
        options = self.param_groups[0]
        if "fisher" in first:
            fisher = SlidingInverseFisher.from_state(first["fisher"], options["damp"])
        else:
            fisher = SlidingInverseFisher(
                options["window"],
                gradient.numel(),
                options["damp"],
                gradient.dtype,
                gradient.device,
            )
        for row in self.window_rows(gradient):
            fisher.push(row)
        update = fisher.mul(gradient)
        first["fisher"] = fisher.state_dict()
        offset = 0
        for group in self.param_groups:
            for p in group["params"]:
                part = update[offset : offset + p.numel()].view_as(p)
                offset += p.numel()
                if group["momentum"]:
                    state = self.state[p]
                    if "velocity" not in state:
                        state["velocity"] = torch.zeros_like(p)
                    part = state["velocity"].lerp_(part, 1 - group["momentum"])
                p.add_(part, alpha=-group["lr"])
        return loss

    def _flat_gradient(self) -> Tensor:
        parts = []
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p.grad.is_sparse:
                    raise RuntimeError("M-FAC needs dense gradients, got a sparse one")
                part = torch.zeros_like(p) if p.grad is None else p.grad
                parts.append(part.add(p, alpha=group["weight_decay"]).reshape(-1))
        return torch.cat(parts)
