r"""M-FAC, static form: inverse-Fisher products, diagonal and entries from a fixed set of gradients.

:math:`F=\lambda I+\frac1m\sum_ig_ig_i^\top` is the identity plus :math:`m` rank-one terms. Adding
them one at a time by the Sherman-Morrison formula turns the inverse into :math:`m` vectors and
:math:`m` numbers,

.. math:: F^{-1}=\frac1\lambda I-\sum_{i=1}^m\frac{v_iv_i^\top}{q_i},\qquad
          v_i=F_{i-1}^{-1}g_i,\qquad q_i=m+g_i^\top v_i .

Source: Frantar, Kurtic and Alistarh (NeurIPS 2021), static algorithm, and the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from descent.curvature.inverse_fisher import check_fisher

__all__ = ["StaticInverseFisher"]

PANEL, PIECE = 16, 8192


class StaticInverseFisher:
    r"""The inverse of a damped empirical Fisher matrix, stored as :math:`m` vectors.

    Building costs :math:`dm^2` multiply-adds and stores :math:`dm` numbers whatever the block size;
    a product costs :math:`2dm`, the diagonal :math:`dm`, an entry :math:`m`. With ``block_size``
    the Fisher matrix is replaced by its diagonal blocks.

    Args:
        gradients: :math:`G` with the gradients as rows, shape ``(m, d)``; copied, not overwritten.
        damp: :math:`\lambda>0`.
        block_size: :math:`B` from 1 to ``d``; ``None`` for one block. The last block may be smaller.

    Raises:
        ValueError: for gradients, a damping or a block size outside these ranges.

    Attributes:
        vectors: :math:`v_i` of every block, shape ``(blocks, m, B)``; the last block is padded by 0.
        denominators: :math:`q_i` of every block, shape ``(blocks, m)``.
    """

    def __init__(self, gradients: Tensor, damp: float, block_size: int | None = None) -> None:
        check_fisher(gradients, damp)
        m, d = gradients.shape
        size = d if block_size is None else block_size
        if not 1 <= size <= d:
            raise ValueError(f"block_size must be from 1 to {d}, got {block_size}")
        self.dim, self.damp, self.block_size = d, damp, size
        rows = self._split(gradients)
        self.vectors = torch.empty_like(rows)
        self.denominators = rows.new_empty(rows.shape[:2])
        # A panel of gradients meets the vectors before it as a product of matrices; numbers gain nothing by that.
        height = PANEL if size > 1 else 1
        for start in range(0, m, height):
            panel = rows[:, start : start + height]
            new = self._without(panel, panel / damp, slice(0, start))
            for i in range(panel.shape[1]):
                own = slice(start, start + i)
                vector = self._without(panel[:, i, None], new[:, i, None], own)
                self.vectors[:, start + i] = vector[:, 0]
                # Summed in pairs, since what a long product loses in float32 is amplified: see _inner.
                self.denominators[:, start + i] = m + (panel[:, i] * vector[:, 0]).sum(1)

    def _without(self, rows: Tensor, start: Tensor, chosen: slice) -> Tensor:
        r"""``start`` less the terms :math:`v_j\,(v_j^\top g)/q_j` of the chosen vectors, for ``(blocks, p, B)`` rows."""
        vectors, denominators = self.vectors[:, chosen], self.denominators[:, chosen, None]
        if not vectors.shape[1]:
            return start
        weights = _inner(vectors, rows.mT) / denominators
        return torch.baddbmm(start, weights.mT, vectors, alpha=-1)

    def _split(self, rows: Tensor) -> Tensor:
        """Cut ``(k, d)`` into ``(blocks, k, B)``; a view where there is one block."""
        k, d = rows.shape
        padded = pad(rows, (0, -d % self.block_size)) if d % self.block_size else rows
        return padded.reshape(k, -1, self.block_size).transpose(0, 1)

    def mul(self, vector: Tensor) -> Tensor:
        r"""Return :math:`F^{-1}x=\frac x\lambda-\sum_iv_i\,(v_i^\top x)/q_i`.

        Args:
            vector: :math:`x`, shape ``(d,)``, dtype of the gradients.

        Returns:
            Shape ``(d,)``.

        Raises:
            ValueError: for another shape.
        """
        if vector.shape != (self.dim,):
            raise ValueError(f"vector must have shape ({self.dim},), got {tuple(vector.shape)}")
        row = self._split(vector[None])
        return self._without(row, row / self.damp, slice(None)).reshape(-1)[: self.dim]

    def diag(self) -> Tensor:
        r"""Return the diagonal :math:`[F^{-1}]_{aa}=\frac1\lambda-\sum_iv_{ia}^2/q_i`.

        Returns:
            Shape ``(d,)``.
        """
        blocks, m, size = self.vectors.shape
        out = self.vectors.new_full((blocks, size), 1 / self.damp)
        # Row by row: squaring all vectors at once would double the memory.
        for i in range(m):
            row = self.vectors[:, i]
            out.addcmul_(row, row / self.denominators[:, i, None], value=-1)
        return out.reshape(-1)[: self.dim]

    def element(self, i: int, j: int) -> Tensor:
        r"""Return one entry :math:`[F^{-1}]_{ij}`; reads ``2m`` numbers of the vectors, ``m`` others.

        Args:
            i: row, from 0 to ``d - 1``.
            j: column, from 0 to ``d - 1``.

        Returns:
            A scalar tensor; 0 for an entry between two blocks.

        Raises:
            IndexError: for an index outside the matrix.
        """
        if not (0 <= i < self.dim and 0 <= j < self.dim):
            raise IndexError(f"entry ({i}, {j}) is outside a matrix of dimension {self.dim}")
        (block, a), (other, b) = divmod(i, self.block_size), divmod(j, self.block_size)
        if block != other:
            return self.vectors.new_zeros(())
        vectors = self.vectors[block]
        removed = (vectors[:, a] * vectors[:, b] / self.denominators[block]).sum()
        return (1 / self.damp if i == j else 0.0) - removed


def _inner(vectors: Tensor, columns: Tensor) -> Tensor:
    """``vectors @ columns``, the long sums taken in pieces.

    Some processors add up a product of long vectors one by one. What float32 loses there is amplified in every product
    with a gradient of the window, by its squared norm over the damping.
    """
    pieces = zip(vectors.split(PIECE, -1), columns.split(PIECE, 1), strict=True)
    return torch.stack([torch.bmm(v, c) for v, c in pieces]).sum(0)
