r"""Functions of several matrices whose layer-wise smoothness constants are known exactly.

*Layer-wise smooth*: :math:`f(X+G)\le f(X)+\langle\nabla f,G\rangle+\sum_i\frac{L_i}2\|G_i\|_{(i)}^2`. *Layer-wise*
:math:`(L^0,L^1)`-*smooth*: the same with :math:`L_i` replaced by :math:`L_i^0+L_i^1\|\nabla_if(X)\|_{(i)*}`, for steps
no longer than :math:`1/L_i^1`. A layer that moves by :math:`-\gamma_i(\nabla_if)^\sharp`, with :math:`\gamma_i` the
reciprocal of its constant, then lowers :math:`f` by at least :math:`\frac{\gamma_i}2\|\nabla_if\|_{(i)*}^2`.

The constants of the cosh functions are derived in the chapter; those of the quadratic are elementary.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor

from descent.first_order.linear_minimisation import direction, dual_norm, smoothness_factor

__all__ = ["CoshLayers", "LayerFunction", "QuadraticLayers", "descend"]


class LayerFunction:
    """Base: a sum of one function per layer, with its norms and constants.

    Attributes:
        shapes: rows and columns of each layer.
        norms: the norm of each layer.
    """

    shapes: list[tuple[int, int]]
    norms: list[str]

    def values(self, layers: Sequence[Tensor]) -> Tensor:
        """Return the contribution of each layer, shape ``(..., b)``; :math:`f` is their sum."""
        raise NotImplementedError

    def gradients(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """Return the gradients, of the shapes of the layers."""
        raise NotImplementedError

    def constants(self, duals: Tensor) -> Tensor:
        """Return the constants of the layers, given the dual norms of their gradients, ``(..., b)``."""
        raise NotImplementedError

    def dual_norms(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the dual norm of each layer's gradient, shape ``(..., b)``."""
        parts = [dual_norm(g, n) for g, n in zip(gradients, self.norms, strict=True)]
        return torch.stack(parts, -1)


class QuadraticLayers(LayerFunction):
    r""":math:`f(X)=\sum_i\frac{\ell_i}2\|X_i-A_i\|_F^2`, with :math:`L_i=\ell_i\max_{\|Z\|\le1}\|Z\|_F^2`.

    Args:
        curvatures: :math:`\ell_i>0`.
        targets: :math:`A_i`, shape ``(m_i, n_i)``.
        norm: of every layer.
    """

    def __init__(
        self, curvatures: Sequence[float], targets: Sequence[Tensor], norm: str = "spectral"
    ) -> None:
        self.curvatures, self.targets = list(curvatures), list(targets)
        self.shapes = [(a.shape[-2], a.shape[-1]) for a in targets]
        self.norms = [norm] * len(self.shapes)

    def values(self, layers: Sequence[Tensor]) -> Tensor:
        """Return :math:`\\frac{\\ell_i}2\\|X_i-A_i\\|_F^2`."""
        parts = [g.square().sum((-2, -1)) / 2 for g in self._offsets(layers)]
        return torch.stack([c * p for c, p in zip(self.curvatures, parts, strict=True)], -1)

    def gradients(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """Return :math:`\\ell_i(X_i-A_i)`."""
        return [c * d for c, d in zip(self.curvatures, self._offsets(layers), strict=True)]

    def constants(self, duals: Tensor) -> Tensor:
        """Return :math:`L_i`, whatever the gradients."""
        factors = [smoothness_factor(m, n, self.norms[0]) for m, n in self.shapes]
        values = [c * f for c, f in zip(self.curvatures, factors, strict=True)]
        return duals.new_tensor(values).expand_as(duals)

    def _offsets(self, layers: Sequence[Tensor]) -> list[Tensor]:
        return [x - a for x, a in zip(layers, self.targets, strict=True)]


class CoshLayers(LayerFunction):
    r"""Layers that grow exponentially: smooth nowhere, :math:`(L^0,L^1)`-smooth everywhere.

    With ``norm="linf"`` a layer is :math:`\sum_{jk}(\cosh(aX_{jk})-1)`, with ``norm="spectral"`` it is
    :math:`\sum_j(\cosh(a\sigma_j(X))-1)`. With :math:`\kappa=1/\ln2`,

    .. math:: L^1=\kappa a,\qquad L^0=\kappa a^2\cdot\begin{cases}mn&\text{(linf)}\\(m+n)/2&\text{(spectral)}\end{cases}

    Args:
        rates: :math:`a_i>0`.
        shapes: rows and columns of each layer.
        norm: ``"linf"`` or ``"spectral"``.

    Raises:
        ValueError: for another norm.
    """

    def __init__(
        self, rates: Sequence[float], shapes: Sequence[tuple[int, int]], norm: str = "linf"
    ) -> None:
        if norm not in ("linf", "spectral"):
            raise ValueError(f"the norm of cosh layers is 'linf' or 'spectral', got {norm!r}")
        self.rates, self.shapes = list(rates), list(shapes)
        self.norms = [norm] * len(self.shapes)

    def values(self, layers: Sequence[Tensor]) -> Tensor:
        """Return the sum of cosh minus 1 over entries or singular values."""
        parts = []
        for a, x in zip(self.rates, layers, strict=True):
            entries = torch.linalg.svdvals(x) if self.norms[0] == "spectral" else x.flatten(-2)
            parts.append((torch.cosh(a * entries) - 1).sum(-1))
        return torch.stack(parts, -1)

    def gradients(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """Return :math:`a\\sinh(aX)`, of the entries or of the singular values."""
        found = []
        for a, x in zip(self.rates, layers, strict=True):
            if self.norms[0] == "spectral":
                left, values, right = torch.linalg.svd(x, full_matrices=False)
                found.append((left * (a * torch.sinh(a * values))[..., None, :]) @ right)
            else:
                found.append(a * torch.sinh(a * x))
        return found

    def constants(self, duals: Tensor) -> Tensor:
        """Return :math:`L_i^0+L_i^1\\|\\nabla_i\\|_*`."""
        zero, one = self.pair(duals)
        return zero + one * duals

    def pair(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return :math:`L^0` and :math:`L^1`, each of shape ``(b,)``, in the dtype of ``like``."""
        spectral = self.norms[0] == "spectral"
        sizes = [(m + n) / 2 if spectral else m * n for m, n in self.shapes]
        rates = like.new_tensor(self.rates)
        return rates.square() * like.new_tensor(sizes) / log(2), rates / log(2)


def descend(
    function: LayerFunction,
    start: Sequence[Tensor],
    cutoffs: Tensor,
    steps: Tensor | None = None,
    stretch: float = 1.0,
) -> dict[str, Tensor]:
    r"""Run :math:`X_i\leftarrow X_i-\gamma_i(\nabla_if)^\sharp` for :math:`i\ge s^k`, many runs at once.

    Args:
        function: the objective.
        start: one tensor per layer, shape ``(runs, m_i, n_i)``.
        cutoffs: :math:`s^k` of every step and run, shape ``(K, runs)``.
        steps: :math:`\gamma_i` of shape ``(b,)`` in place of the reciprocal constants.
        stretch: factor on the steps.

    Returns:
        ``values`` :math:`f(X^k)`, shape ``(K + 1, runs)``; ``guarantee`` of every step and layer,
        :math:`\|\nabla_i\|_*^2/(2L_i)`, shape ``(K, runs, b)``; ``moved``, of the same shape, whether the layer did;
        ``slack`` :math:`f(X^k)-f(X^{k+1})-\sum_{i\ge s^k}\text{guarantee}_i`, shape ``(K, runs)``.
    """
    layers = [x.clone() for x in start]
    order = torch.arange(len(layers), device=cutoffs.device)
    values, guarantees, moves, slacks = [function.values(layers).sum(-1)], [], [], []
    before = function.values(layers)
    for cutoff in cutoffs:
        gradients = function.gradients(layers)
        duals = function.dual_norms(gradients)
        constants = function.constants(duals)
        gamma = stretch * (1 / constants if steps is None else steps.expand_as(duals))
        moved = order >= cutoff[:, None]
        for i, g in enumerate(gradients):
            radius = gamma[:, i] * duals[:, i] * moved[:, i]
            layers[i] = layers[i] - radius[:, None, None] * direction(g, function.norms[i])
        guarantee = duals.square() / (2 * constants)
        after = function.values(layers)
        slacks.append(((before - after) - guarantee * moved).sum(-1))
        values.append(after.sum(-1))
        guarantees.append(guarantee)
        moves.append(moved)
        before = after
    return {
        "values": torch.stack(values),
        "guarantee": torch.stack(guarantees),
        "moved": torch.stack(moves),
        "slack": torch.stack(slacks),
    }
