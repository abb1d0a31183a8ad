r"""Norms of matrices, their duals, and the steepest directions that belong to them.

For a norm on :math:`m\times n` matrices with dual :math:`\|M\|_*=\max_{\|Z\|\le1}\langle M,Z\rangle`, let
:math:`D(M)` be a maximiser. Everything else is made of these two:

.. math:: \mathrm{LMO}_t(M)=\arg\min_{\|Z\|\le t}\langle M,Z\rangle=-t\,D(M),\qquad
    M^\sharp=\arg\max_Z\{\langle M,Z\rangle-\tfrac12\|Z\|^2\}=\|M\|_*\,D(M).

============  ===========================  ================  ============================
name          norm                         dual              :math:`D(M)`
============  ===========================  ================  ============================
``spectral``  largest singular value       nuclear norm      polar factor :math:`UV^\top`
``fro``       Frobenius                    Frobenius         :math:`M/\|M\|_F`
``linf``      largest absolute entry       sum of absolute   signs
============  ===========================  ================  ============================

All functions act on the last two dimensions; leading ones are a batch. A step of length
:math:`t=\gamma\|M\|_*` along the oracle is the same as a step :math:`\gamma` along :math:`-M^\sharp`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from descent.first_order.polar import polar

__all__ = ["NORMS", "direction", "dual_norm", "lmo", "norm", "sharp", "smoothness_factor"]


def _unit(matrix: Tensor) -> Tensor:
    length = torch.linalg.matrix_norm(matrix, keepdim=True)
    return torch.where(length > 0, matrix / length, 0.0)


class _Pair(NamedTuple):
    norm: Callable[[Tensor], Tensor]
    dual: Callable[[Tensor], Tensor]
    direction: Callable[[Tensor], Tensor]
    factor: Callable[[int, int], int]


NORMS: dict[str, _Pair] = {
    "spectral": _Pair(
        lambda m: torch.linalg.svdvals(m).amax(-1),
        lambda m: torch.linalg.svdvals(m).sum(-1),
        polar,
        min,
    ),
    "fro": _Pair(torch.linalg.matrix_norm, torch.linalg.matrix_norm, _unit, lambda m, n: 1),
    "linf": _Pair(
        lambda m: m.abs().amax((-2, -1)),
        lambda m: m.abs().sum((-2, -1)),
        torch.sign,
        lambda m, n: m * n,
    ),
}


def _pair(name: str) -> _Pair:
    if name not in NORMS:
        raise ValueError(f"unknown norm {name!r}; choose one of {', '.join(NORMS)}")
    return NORMS[name]


def norm(matrix: Tensor, name: str = "spectral") -> Tensor:
    """Return the norm of each matrix.

    Args:
        matrix: shape ``(..., m, n)``.
        name: ``"spectral"``, ``"fro"`` or ``"linf"``.

    Returns:
        Shape ``(...)``.

    Raises:
        ValueError: for an unknown norm.
    """
    return _pair(name).norm(matrix)


def dual_norm(matrix: Tensor, name: str = "spectral") -> Tensor:
    r"""Return the dual norm :math:`\max_{\|Z\|\le1}\langle M,Z\rangle` of each matrix.

    Args:
        matrix: shape ``(..., m, n)``.
        name: the primal norm.

    Returns:
        Shape ``(...)``; the nuclear norm for ``"spectral"``.

    Raises:
        ValueError: for an unknown norm.
    """
    return _pair(name).dual(matrix)


def direction(matrix: Tensor, name: str = "spectral") -> Tensor:
    r"""Return a unit-norm maximiser :math:`D(M)` of :math:`\langle M,Z\rangle`; zero for a zero matrix.

    Args:
        matrix: shape ``(..., m, n)``.
        name: the norm of the unit ball.

    Returns:
        Shape ``(..., m, n)``.

    Raises:
        ValueError: for an unknown norm.
    """
    return _pair(name).direction(matrix)


def lmo(matrix: Tensor, radius: float | Tensor, name: str = "spectral") -> Tensor:
    r"""Return the linear minimisation oracle :math:`-t\,D(M)` over the ball of radius ``radius``.

    Args:
        matrix: shape ``(..., m, n)``.
        radius: :math:`t\ge0`, a number or shape ``(...)``.
        name: the norm of the ball.

    Returns:
        Shape ``(..., m, n)``.

    Raises:
        ValueError: for an unknown norm or a negative radius.
    """
    radius = torch.as_tensor(radius, dtype=matrix.dtype, device=matrix.device)
    if bool((radius < 0).any()):
        raise ValueError(f"the radius must be non-negative, got {float(radius.min())}")
    return -radius[..., None, None] * direction(matrix, name)


def sharp(matrix: Tensor, name: str = "spectral") -> Tensor:
    r"""Return :math:`M^\sharp=\|M\|_*D(M)`, with :math:`\langle M,M^\sharp\rangle=\|M\|_*^2=\|M^\sharp\|^2`.

    Args:
        matrix: shape ``(..., m, n)``.
        name: the norm.

    Returns:
        Shape ``(..., m, n)``; the matrix itself for ``"fro"``.

    Raises:
        ValueError: for an unknown norm.
    """
    return dual_norm(matrix, name)[..., None, None] * direction(matrix, name)


def smoothness_factor(rows: int, columns: int, name: str = "spectral") -> int:
    r"""Return the largest :math:`\|Z\|_F^2` in the unit ball.

    A layer :math:`\frac\ell2\|X-A\|_F^2` has the constant :math:`L=\ell` times this factor: the
    smaller side for ``"spectral"``, 1 for ``"fro"``, the number of entries for ``"linf"``.

    Args:
        rows: of the matrix.
        columns: of the matrix.
        name: the norm.

    Returns:
        A positive integer.

    Raises:
        ValueError: for an unknown norm.
    """
    return _pair(name).factor(rows, columns)
