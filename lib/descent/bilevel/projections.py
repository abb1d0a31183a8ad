r"""Exact Euclidean projections on the sets that couple the two levels.

Source: textbook formulas; the least-distance problem is Lawson and Hanson's reduction to non-negative
least squares, solved by SciPy.
"""

from __future__ import annotations

import itertools

import numpy as np
import scipy.linalg
import scipy.optimize
import torch
from torch import Tensor

__all__ = ["AffineSet", "SmallPolyhedron", "least_distance", "project_halfspace"]

FEASIBLE = 1e-10


def project_halfspace(point: Tensor, normal: Tensor, offset: Tensor | float) -> Tensor:
    r"""Project on :math:`\{u:a^\top u\le s\}`.

    .. math:: u-a\,\max(0,a^\top u-s)/\|a\|^2.

    Args:
        point: shape ``(..., d)``.
        normal: :math:`a\neq0`, shape ``(d,)``.
        offset: :math:`s`, a number or shape ``(...)``.

    Returns:
        Shape ``(..., d)``.

    Raises:
        ValueError: for a zero normal.
    """
    square = normal @ normal
    if float(square) == 0:
        raise ValueError("normal must not be zero: {u : 0 <= s} is no half-space")
    excess = (point @ normal - offset).clamp(min=0)
    return point - excess.unsqueeze(-1) * normal / square


class AffineSet:
    r"""The set :math:`\{u:Au=b\}` with its projection :math:`u-A^+(Au-b)`.

    Args:
        matrix: :math:`A`, shape ``(..., q, d)``, of any rank.
        right_side: :math:`b`, shape ``(..., q)``, in the range of ``A``; zero unless given.
    """

    def __init__(self, matrix: Tensor, right_side: Tensor | None = None) -> None:
        pseudo = torch.linalg.pinv(matrix)
        self.matrix = matrix
        self._null = torch.eye(matrix.shape[-1]).to(matrix) - pseudo @ matrix
        b = matrix.new_zeros(matrix.shape[:-1]) if right_side is None else right_side
        self._shift = (pseudo @ b.unsqueeze(-1)).squeeze(-1)

    def project(self, point: Tensor) -> Tensor:
        """Return the nearest point of the set.

        Args:
            point: shape ``(..., d)``.

        Returns:
            Shape ``(..., d)``.
        """
        return (self._null @ point.unsqueeze(-1)).squeeze(-1) + self._shift


class SmallPolyhedron:
    r"""The set :math:`\{u:Gu\le h\}` with few rows; its projection tries all active sets at once.

    For an active set :math:`S` the multipliers are :math:`\mu_S=(G_SG_S^\top)^{-1}(G_Su-h_S)`. Exactly one
    projection exists, and it is that of any :math:`S` for which :math:`\mu_S\ge0` and :math:`u-G_S^\top\mu_S`
    is feasible. All :math:`2^q` candidates are computed in one product, for a whole batch.

    Args:
        matrix: :math:`G`, shape ``(q, d)``, at most 10 rows.
        right_side: :math:`h`, shape ``(q,)``.

    Raises:
        ValueError: for more than 10 rows.
    """

    def __init__(self, matrix: Tensor, right_side: Tensor) -> None:
        q = len(matrix)
        if q > 10:
            raise ValueError(
                f"{q} rows make 2^{q} active sets; use a quadratic-programming solver instead"
            )
        self.matrix, self.right_side = matrix, right_side
        gram, solvers = matrix @ matrix.T, []
        for size in range(q + 1):
            for active in itertools.combinations(range(q), size):
                solver = torch.zeros_like(gram)
                if size and int(torch.linalg.matrix_rank(matrix[list(active)])) < size:
                    continue
                for row, i in enumerate(active):
                    solver[i, list(active)] = torch.linalg.inv(gram[list(active)][:, list(active)])[
                        row
                    ]
                solvers.append(solver)
        self._solvers = torch.stack(solvers)
        self._gram = gram

    def project(self, point: Tensor) -> Tensor:
        """Return the nearest point of the set.

        Args:
            point: shape ``(..., d)``.

        Returns:
            Shape ``(..., d)``.
        """
        excess = point @ self.matrix.T - self.right_side
        multipliers = torch.einsum("sij,...j->...si", self._solvers, excess)
        left = excess.unsqueeze(-2) - multipliers @ self._gram
        fault = torch.maximum(left.amax(-1), -multipliers.amin(-1))
        best = fault.argmin(-1)[..., None, None].expand(*excess.shape[:-1], 1, len(self._gram))
        return point - multipliers.gather(-2, best).squeeze(-2) @ self.matrix


def least_distance(
    point: np.ndarray,
    matrix: np.ndarray,
    right_side: np.ndarray,
    equal_matrix: np.ndarray | None = None,
    equal_right_side: np.ndarray | None = None,
) -> np.ndarray | None:
    r"""Project one point on :math:`\{u:Gu\le h,\;Eu=e\}`, or find the set empty.

    Args:
        point: shape ``(d,)``.
        matrix: :math:`G`, shape ``(q, d)``.
        right_side: :math:`h`, shape ``(q,)``.
        equal_matrix: :math:`E`, shape ``(k, d)``; none unless given.
        equal_right_side: :math:`e`, shape ``(k,)``.

    Returns:
        Shape ``(d,)``, or ``None`` if no point satisfies the constraints.
    """
    start, basis = point, np.eye(len(point))
    if equal_matrix is not None and len(equal_matrix):
        assert equal_right_side is not None
        fix = np.linalg.pinv(equal_matrix, rcond=FEASIBLE)
        start = point - fix @ (equal_matrix @ point - equal_right_side)
        if np.abs(equal_matrix @ start - equal_right_side).max() > FEASIBLE:
            return None
        basis = scipy.linalg.null_space(equal_matrix, rcond=FEASIBLE)
    rows, bound = -matrix @ basis, matrix @ start - right_side
    # rows that the equalities already fix are no constraints; rounding would make them contradictions
    fixed = np.abs(rows).max(1, initial=0) < FEASIBLE
    if (bound[fixed] > FEASIBLE).any():
        return None
    if fixed.all():
        return start
    system = np.vstack([rows[~fixed].T, bound[None, ~fixed]])
    target = np.zeros(len(system))
    target[-1] = 1.0
    weights, _ = scipy.optimize.nnls(system, target, maxiter=100 * system.shape[1])
    residual = system @ weights - target
    if abs(residual[-1]) < FEASIBLE:
        return None
    return start + basis @ (-residual[:-1] / residual[-1])
