r"""The orthogonal polar factor :math:`UV^\top` of a matrix :math:`M=U\Sigma V^\top`, exactly and cheaply.

The exact factor comes from a singular value decomposition. Muon in practice uses five steps of an odd
quintic iteration,

.. math:: X\leftarrow aX+(b\,G+c\,G^2)X,\qquad G=XX^\top,\qquad X_0=M/\|M\|_F,

which maps each singular value :math:`s` to :math:`as+bs^3+cs^5` and leaves the singular vectors alone. Its
coefficients are tuned to lift small singular values fast, not to converge: after five steps they lie
between about 0.7 and 1.2. Whatever relies on a theorem here uses the exact factor.

Source: Gruntkowska et al. (arXiv 2510.02239); iteration and coefficients of K. Jordan's Muon.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["COEFFICIENTS", "newton_schulz", "newton_schulz_cost", "polar"]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def polar(matrix: Tensor) -> Tensor:
    r"""Return :math:`UV^\top`, dropping directions whose singular value is round-off.

    Args:
        matrix: shape ``(..., m, n)``, floating point.

    Returns:
        Shape ``(..., m, n)``: singular values 1, or 0 where those of ``matrix`` vanish.
    """
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    floor = values[..., :1] * max(matrix.shape[-2:]) * torch.finfo(matrix.dtype).eps
    kept = (values > floor).to(matrix.dtype)
    return (left * kept[..., None, :]) @ right


def _batched_addmm(
    added: Tensor, left: Tensor, right: Tensor, beta: float, alpha: float = 1.0
) -> Tensor:
    return beta * added + alpha * (left @ right)


def newton_schulz(
    matrix: Tensor,
    steps: int = 5,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    floor: float = 1e-7,
) -> Tensor:
    """Return an approximate polar factor by the quintic iteration, in the precision of the input.

    Args:
        matrix: shape ``(..., m, n)``; tall matrices are transposed, so that the Gram matrix is small.
        steps: number of iterations.
        coefficients: ``a``, ``b``, ``c`` of the iteration.
        floor: least Frobenius norm divided by, which sends a zero matrix to zero.

    Returns:
        Shape ``(..., m, n)``.

    Raises:
        ValueError: if ``steps`` is negative.
    """
    if steps < 0:
        raise ValueError(f"the number of steps must be non-negative, got {steps}")
    a, b, c = coefficients
    tall = matrix.shape[-2] > matrix.shape[-1]
    iterate = matrix.mT if tall else matrix
    iterate = iterate / torch.linalg.matrix_norm(iterate, keepdim=True).clamp_min(floor)
    fused = torch.addmm if matrix.ndim == 2 else _batched_addmm
    for _ in range(steps):
        gram = iterate @ iterate.mT
        iterate = fused(iterate, fused(gram, gram, gram, beta=b, alpha=c), iterate, beta=a)
    return iterate.mT if tall else iterate


def newton_schulz_cost(rows: int, columns: int, steps: int = 5) -> int:
    r"""Return the multiply-adds of :func:`newton_schulz`: :math:`\text{steps}\cdot(2r^2c+r^3)`, :math:`r\le c`.

    Args:
        rows: of the matrix.
        columns: of the matrix.
        steps: number of iterations.

    Returns:
        Multiply-adds in matrix products.
    """
    short, long = sorted((rows, columns))
    return steps * (2 * short**2 * long + short**3)
