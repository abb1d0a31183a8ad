r"""The explicit block-wise inverse of the empirical Fisher matrix, as WoodFisher keeps it.

Each diagonal block of size :math:`B` is inverted by one Sherman-Morrison update per gradient,

.. math:: A\leftarrow A-\frac{(Ag_i)(Ag_i)^\top}{m+g_i^\top Ag_i},\qquad A_0=\frac1\lambda I .

It is the matrix that M-FAC with the same blocks represents; what differs is what is stored,
:math:`dB` numbers here against :math:`dm` there, and the work, :math:`2mdB` against :math:`dm^2`.

Source: Singh and Alistarh (NeurIPS 2020) for the method, here as the baseline of Frantar, Kurtic and
Alistarh (NeurIPS 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from descent.curvature.inverse_fisher import check_fisher

__all__ = ["explicit_block_inverse"]


def explicit_block_inverse(gradients: Tensor, damp: float, block_size: int) -> Tensor:
    r"""Return the inverses of the diagonal blocks of :math:`F`.

    Args:
        gradients: :math:`G`, shape ``(m, d)``.
        damp: :math:`\lambda>0`.
        block_size: :math:`B` from 1 to ``d``. The last block is padded by zero gradients.

    Returns:
        Shape ``(blocks, B, B)``; rows and columns of padding hold :math:`\frac1\lambda I`.

    Raises:
        ValueError: for gradients, a damping or a block size outside these ranges.
    """
    check_fisher(gradients, damp)
    m, d = gradients.shape
    if not 1 <= block_size <= d:
        raise ValueError(f"block_size must be from 1 to {d}, got {block_size}")
    rows = pad(gradients, (0, -d % block_size)).reshape(m, -1, block_size, 1)
    identity = torch.eye(block_size, dtype=gradients.dtype, device=gradients.device)
    inverse = (identity / damp).repeat(rows.shape[1], 1, 1)
    for row in rows:
        image = torch.bmm(inverse, row)
        scale = m + torch.bmm(row.mT, image)
        inverse.baddbmm_(image / scale, image.mT, alpha=-1)
    return inverse
