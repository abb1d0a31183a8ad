r"""Muon and Drop-Muon as optimisers.

.. math:: M_i\leftarrow(1-\beta)M_i+\beta\,\nabla_if,\qquad X_i\leftarrow X_i+\mathrm{LMO}_{t_i}(M_i),
    \qquad t_i=\eta\sqrt{\max(1,m_i/n_i)}

for each layer (Muon), or for the layers from a random cutoff on (Drop-Muon). The cutoff is drawn *before*
the forward pass and the layers below it stop requiring gradients, so that backpropagation ends at the
cutoff. Their weights and momenta stay as they are; a stale momentum is not decayed.

Source: Gruntkowska et al. (arXiv 2510.02239), Algorithm 1 as restated in two independent summaries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from descent.first_order.cutoff_sampling import CutoffSampler
from descent.first_order.linear_minimisation import NORMS, direction
from descent.first_order.polar import newton_schulz

__all__ = ["DropMuon", "Muon"]


class Muon(Optimizer):
    r"""Steps of fixed length along the steepest direction of a layer's norm, from averaged gradients.

    Parameters without a gradient are left alone. Parameters of more than two dimensions are flattened to
    ``(first, rest)``; vectors count as one column.

    Args:
        params: parameters or groups; ``lr``, ``beta``, ``norm`` and ``orthogonaliser`` may differ per group.
        lr: :math:`\eta>0`, the radius of the ball up to the shape factor.
        beta: :math:`\beta\in(0,1]`, the weight of the *new* gradient (``1 - momentum`` elsewhere).
        norm: ``"spectral"`` (Muon), ``"fro"`` or ``"linf"``. The shape factor belongs to ``"spectral"``.
        orthogonaliser: for the spectral norm, ``"newton-schulz"`` (five steps) or ``"svd"`` (exact).

    Raises:
        ValueError: for an option outside its range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        beta: float = 0.1,
        norm: str = "spectral",
        orthogonaliser: str = "newton-schulz",
    ) -> None:
        super().__init__(
            params, {"lr": lr, "beta": beta, "norm": norm, "orthogonaliser": orthogonaliser}
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters.

        Args:
            param_group: as for every optimiser.

        Raises:
            ValueError: for an option outside its range.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if not 0 < group["lr"] < float("inf"):
            raise ValueError(f"lr must be positive and finite, got {group['lr']}")
        if not 0 < group["beta"] <= 1:
            raise ValueError(f"beta must be in (0, 1], got {group['beta']}")
        if group["norm"] not in NORMS:
            raise ValueError(f"unknown norm {group['norm']!r}; choose one of {', '.join(NORMS)}")
        if group["orthogonaliser"] not in ("newton-schulz", "svd"):
            raise ValueError(
                f"the orthogonaliser is 'newton-schulz' or 'svd', got {group['orthogonaliser']!r}"
            )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Args:
            closure: re-evaluates the model and returns the loss; optional.

        Returns:
            The loss of ``closure``, or ``None``.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._update(group)
        return loss

    def _update(self, group: dict[str, Any]) -> None:
        """Average the gradients of one group into its momenta and move its parameters."""
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(p)
            momentum = state["momentum"].lerp_(p.grad, group["beta"])
            matrix = momentum.reshape(len(momentum), -1) if p.ndim else momentum.reshape(1, 1)
            radius = group["lr"]
            if group["norm"] == "spectral":
                radius *= max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
            if group["norm"] == "spectral" and group["orthogonaliser"] == "newton-schulz":
                step = newton_schulz(matrix)
            else:
                step = direction(matrix, group["norm"])
            p.sub_(step.view_as(p), alpha=radius)


class DropMuon(Muon):
    """Muon that updates only the layers from a random cutoff on.

    Use, in every step::

        optimiser.sample_cutoff(progress)  # before the forward pass
        loss = loss_of(model(batch))
        loss.backward()                    # stops at the cutoff
        optimiser.step()

    or pass a closure to :meth:`step`, which then draws the cutoff itself.

    Args:
        layers: the parameters of each layer, from the input to the output; an entry is a parameter, a
            list of parameters, or a group with options of its own. Biases and normalisations belong to
            the layer that they follow.
        sampler: distribution of the cutoff over as many layers.
        generator: source of the cutoffs; the global one by default.
        **options: as for :class:`Muon`.

    Raises:
        ValueError: if the sampler has another number of layers, or for an option outside its range.
    """

    def __init__(
        self,
        layers: Sequence[Any],
        sampler: CutoffSampler,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> None:
        groups = [entry if isinstance(entry, dict) else {"params": entry} for entry in layers]
        super().__init__(groups, **options)
        if sampler.layers != len(self.param_groups):
            raise ValueError(
                f"the sampler has {sampler.layers} layers, the optimiser {len(self.param_groups)}"
            )
        self.sampler, self.generator = sampler, generator
        self.cutoff: int | None = None

    def sample_cutoff(self, progress: float = 0.0) -> int:
        """Draw the cutoff of the coming step, drop all gradients and freeze the layers below it.

        Args:
            progress: share of the training that is done, for samplers that depend on it.

        Returns:
            The first layer that will move.
        """
        self.cutoff = self.sampler.sample(self.generator, progress)
        self.zero_grad(set_to_none=True)
        for index, group in enumerate(self.param_groups):
            for p in group["params"]:
                p.requires_grad_(index >= self.cutoff)
        return self.cutoff

    def release(self) -> None:
        """Let every layer require gradients again; :meth:`step` does it at its end."""
        self.cutoff = None
        for group in self.param_groups:
            for p in group["params"]:
                p.requires_grad_(True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move the layers from the cutoff on, then release the others.

        Args:
            closure: re-evaluates the model and returns the loss; with it the cutoff is drawn here,
                unless one is pending.

        Returns:
            The loss of ``closure``, or ``None``.

        Raises:
            RuntimeError: without a closure, if no cutoff was drawn since the last step.
        """
        if self.cutoff is None:
            if closure is None:
                raise RuntimeError(
                    "call sample_cutoff() before the forward pass, or pass a closure"
                )
            self.sample_cutoff()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups[self.cutoff :]:
            self._update(group)
        self.release()
        return loss
