r"""A fixed Euclidean metric and its dual norm, the ruler of a regularised Newton method.

.. math:: \|h\|^2=\langle Bh,h\rangle,\qquad \|s\|_*^2=\langle s,B^{-1}s\rangle,\qquad
          \|M\|_*=\|B^{-1/2}MB^{-1/2}\|_2 .

Steps are measured by the first, gradients by the second and matrices by the third. Mixing them is the
easiest way to lose every guarantee, so a method takes one :class:`Metric` and asks it for all three.

Source: Semenov, Jaggi and Doikov (ICLR 2026), notation, and the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Metric"]


class Metric:
    r"""The norms that a positive definite matrix :math:`B` defines.

    Args:
        matrix: :math:`B`, symmetric positive definite, shape ``(n, n)``; ``None`` for the identity,
            which then stores and factorises nothing.

    Raises:
        ValueError: for a matrix that is not square, not symmetric or not positive definite.
    """

    def __init__(self, matrix: Tensor | None = None) -> None:
        self.matrix = matrix
        self.factor: Tensor | None = None
        self._inverse_factor: Tensor | None = None
        if matrix is None:
            return
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"the metric must be a square matrix, got shape {tuple(matrix.shape)}")
        if not torch.allclose(matrix, matrix.mT):
            raise ValueError("the metric must be symmetric")
        factor, info = torch.linalg.cholesky_ex(matrix)
        if int(info):
            raise ValueError(
                "the metric must be positive definite: its Cholesky factorisation fails at pivot "
                f"{int(info)}; add a small multiple of the identity"
            )
        self.factor = factor
        # Gradients are measured at every probe: a product is far cheaper than a triangular solve.
        identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
        self._inverse_factor = torch.linalg.solve_triangular(factor, identity, upper=False)

    def to_dual(self, vector: Tensor) -> Tensor:
        """Return :math:`Bh`, shape ``(n,)``."""
        return vector if self.matrix is None else self.matrix @ vector

    def to_primal(self, covector: Tensor) -> Tensor:
        """Return :math:`B^{-1}s`, shape ``(n,)``."""
        if self._inverse_factor is None:
            return covector
        return self._inverse_factor.mT @ (self._inverse_factor @ covector)

    def norm(self, vector: Tensor) -> float:
        r"""Return :math:`\|h\|=\langle Bh,h\rangle^{1/2}` of a step, shape ``(n,)``."""
        return float(vector @ self.to_dual(vector)) ** 0.5

    def dual_norm(self, covector: Tensor) -> float:
        r"""Return :math:`\|s\|_*=\langle s,B^{-1}s\rangle^{1/2}` of a gradient, shape ``(n,)``."""
        if self._inverse_factor is not None:
            covector = self._inverse_factor @ covector
        return float(covector @ covector) ** 0.5

    def whiten(self, matrix: Tensor) -> Tensor:
        r"""Return :math:`L^{-1}ML^{-\top}` with :math:`B=LL^\top`, shape ``(n, n)``."""
        if self.factor is None:
            return matrix
        half = torch.linalg.solve_triangular(self.factor, matrix, upper=False)
        return torch.linalg.solve_triangular(self.factor, half.mT, upper=False).mT

    def operator_norm(self, matrix: Tensor) -> float:
        r"""Return :math:`\|M\|_*`, the largest :math:`\|Mh\|_*` over :math:`\|h\|\le1`.

        Args:
            matrix: symmetric, shape ``(n, n)``.
        """
        white = self.whiten(matrix)
        return float(torch.linalg.eigvalsh((white + white.mT) / 2).abs().max())

    def add_to(self, matrix: Tensor, weight: float) -> Tensor:
        r"""Return :math:`M+\lambda B`, shape ``(n, n)``."""
        if self.matrix is not None:
            return matrix + weight * self.matrix
        regularised = matrix.clone()
        regularised.diagonal().add_(weight)
        return regularised
