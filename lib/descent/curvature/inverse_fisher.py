r"""The damped empirical Fisher matrix and the reference ways to apply its inverse.

With gradients :math:`g_1,\dots,g_m\in\mathbb R^d` as the rows of :math:`G` and damping
:math:`\lambda>0`,

.. math:: F=\lambda I_d+\frac1m G^\top G .

The functions here are the yardsticks for M-FAC: the dense inverse (:math:`d\times d` numbers), the
Woodbury identity with one Cholesky factor of an :math:`m\times m` matrix, and conjugate gradients.

Source: Frantar, Kurtic and Alistarh (NeurIPS 2021) for the definition of :math:`F`; the rest is
textbook linear algebra.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "check_fisher",
    "conjugate_gradient_solve",
    "dense_fisher",
    "dense_inverse",
    "fisher_product",
    "gauss_jordan_inverse",
    "woodbury_solve",
]


def check_fisher(gradients: Tensor, damp: float) -> None:
    """Refuse gradients and damping that define no invertible Fisher matrix.

    Args:
        gradients: shape ``(m, d)``, floating point, ``m`` at least 1.
        damp: the damping, positive and finite.

    Raises:
        ValueError: for another shape, dtype or a damping that is not positive and finite.
    """
    if gradients.ndim != 2 or 0 in gradients.shape or not gradients.is_floating_point():
        raise ValueError(
            "gradients must be a non-empty floating-point matrix of shape (m, d), got "
            f"{tuple(gradients.shape)} of {gradients.dtype}"
        )
    if not 0 < damp < float("inf"):
        raise ValueError(f"damp must be positive and finite, got {damp}")


def dense_fisher(gradients: Tensor, damp: float) -> Tensor:
    r"""Return :math:`F=\lambda I+\frac1mG^\top G` as a matrix; for small :math:`d` only.

    Args:
        gradients: :math:`G`, shape ``(m, d)``.
        damp: :math:`\lambda>0`.

    Returns:
        Shape ``(d, d)``.

    Raises:
        ValueError: see :func:`check_fisher`.
    """
    check_fisher(gradients, damp)
    fisher = gradients.mT @ gradients / gradients.shape[0]
    fisher.diagonal().add_(damp)
    return fisher


def dense_inverse(gradients: Tensor, damp: float) -> Tensor:
    r"""Return :math:`F^{-1}` as a matrix, by a Cholesky factor of the dense :math:`F`.

    Args:
        gradients: :math:`G`, shape ``(m, d)``.
        damp: :math:`\lambda>0`.

    Returns:
        Shape ``(d, d)``.

    Raises:
        ValueError: see :func:`check_fisher`.
    """
    return torch.cholesky_inverse(torch.linalg.cholesky(dense_fisher(gradients, damp)))


def gauss_jordan_inverse(matrix: Tensor) -> Tensor:
    r"""Return the inverse of a symmetric positive definite matrix by Gauss-Jordan elimination.

    Every step is a rank-one update of the whole matrix, so that its :math:`d^3` multiply-adds are
    visible to a counter of matrix products. No pivoting: definiteness makes every pivot positive.

    Args:
        matrix: shape ``(d, d)``, symmetric positive definite.

    Returns:
        Shape ``(d, d)``.

    Raises:
        ValueError: if ``matrix`` is not square.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"matrix must be square, got shape {tuple(matrix.shape)}")
    inverse = matrix.clone()
    for k in range(matrix.shape[0]):
        pivot = inverse[k, k].clone()
        row, column = inverse[k : k + 1] / pivot, inverse[:, k : k + 1].clone()
        inverse.addmm_(column, row, alpha=-1)
        inverse[k], inverse[:, k] = row[0], -column[:, 0] / pivot
        inverse[k, k] = 1 / pivot
    return inverse


def fisher_product(gradients: Tensor, damp: float, vector: Tensor) -> Tensor:
    r"""Return :math:`Fx=\lambda x+\frac1mG^\top(Gx)` without forming :math:`F`; :math:`2dm`
    multiply-adds.

    Args:
        gradients: :math:`G`, shape ``(m, d)``.
        damp: :math:`\lambda>0`.
        vector: :math:`x`, shape ``(d,)``.

    Returns:
        Shape ``(d,)``.
    """
    return damp * vector + gradients.mT @ (gradients @ vector) / gradients.shape[0]


def woodbury_solve(gradients: Tensor, damp: float, vector: Tensor) -> Tensor:
    r"""Return :math:`F^{-1}x` by the Woodbury identity,

    .. math:: F^{-1}x=\frac1\lambda\Bigl(x-G^\top(\lambda m I_m+GG^\top)^{-1}Gx\Bigr),

    with a Cholesky factor of the :math:`m\times m` matrix. Cost :math:`O(dm^2+m^3)`, or
    :math:`O(dm+m^2)` per further product if the factor is kept: the orders of M-FAC.

    Args:
        gradients: :math:`G`, shape ``(m, d)``.
        damp: :math:`\lambda>0`.
        vector: :math:`x`, shape ``(d,)``.

    Returns:
        Shape ``(d,)``.

    Raises:
        ValueError: see :func:`check_fisher`; also if the shapes disagree.
    """
    check_fisher(gradients, damp)
    m, d = gradients.shape
    if vector.shape != (d,):
        raise ValueError(f"vector must have shape ({d},), got {tuple(vector.shape)}")
    gram = gradients @ gradients.mT
    gram.diagonal().add_(damp * m)
    factor = torch.linalg.cholesky(gram)
    weights = torch.cholesky_solve((gradients @ vector)[:, None], factor)[:, 0]
    return (vector - gradients.mT @ weights) / damp


def conjugate_gradient_solve(
    gradients: Tensor, damp: float, vector: Tensor, tol: float = 1e-8, max_steps: int = 1000
) -> tuple[Tensor, int]:
    r"""Solve :math:`Fy=x` by conjugate gradients from zero; :math:`2dm` multiply-adds per step.

    Args:
        gradients: :math:`G`, shape ``(m, d)``.
        damp: :math:`\lambda>0`.
        vector: :math:`x`, shape ``(d,)``.
        tol: stop when the residual norm is below ``tol`` times the norm of ``vector``.
        max_steps: the most steps taken.

    Returns:
        The solution, shape ``(d,)``, and the number of steps.

    Raises:
        ValueError: see :func:`check_fisher`.
        RuntimeError: if ``max_steps`` do not reach the tolerance.
    """
    check_fisher(gradients, damp)
    solution, residual = torch.zeros_like(vector), vector.clone()
    direction, squared = residual.clone(), residual.dot(residual)
    goal = tol**2 * squared
    for step in range(max_steps):
        if bool(squared <= goal):
            return solution, step
        image = fisher_product(gradients, damp, direction)
        length = squared / direction.dot(image)
        solution += length * direction
        residual -= length * image
        before, squared = squared, residual.dot(residual)
        direction = residual + (squared / before) * direction
    raise RuntimeError(
        f"conjugate gradients did not reach {tol:g} in {max_steps} steps: raise max_steps or damp"
    )
