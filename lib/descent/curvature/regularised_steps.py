r"""Ways to solve :math:`(H+\lambda B)h=-g` for several :math:`\lambda` at one iterate.

A *probe* is one value of :math:`\lambda`. Each class prepares what it can once per iterate; its method
``step`` answers a probe with the step, or with ``None`` where :math:`H+\lambda B` is not positive
definite: a reason to reject the probe, not an error.

================================  ======================  ==================================
class                             once per iterate        per probe
================================  ======================  ==================================
:class:`CholeskySteps`            nothing                 a factorisation, :math:`\frac16n^3`
:class:`EigenSteps`               an eigendecomposition   :math:`2n^2`
:class:`RankOneSteps`             two solves with B       :math:`n`
:class:`ConjugateGradientSteps`   nothing                 a product with H per inner step
================================  ======================  ==================================

Source: Semenov, Jaggi and Doikov (ICLR 2026), Algorithm 1, and the authors' code (Cholesky and
Sherman-Morrison). Eigendecomposition and conjugate gradients are additions of this project.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from descent.curvature.dual_metric import Metric

__all__ = [
    "CholeskySteps",
    "ConjugateGradientSteps",
    "EigenSteps",
    "RankOneSteps",
    "RegularisedSteps",
]


class RegularisedSteps(Protocol):
    """Answers probes at one iterate."""

    def step(self, lam: float, gradient: Tensor) -> Tensor | None:
        r"""Return :math:`h=-(H+\lambda B)^{-1}g`, shape ``(n,)``, or ``None`` if that is not defined.

        Args:
            lam: :math:`\lambda>0`.
            gradient: :math:`g`, shape ``(n,)``; the same at every probe of an iterate.
        """
        ...


class CholeskySteps:
    r"""A Cholesky factorisation for every probe.

    Args:
        matrix: :math:`H`, symmetric, shape ``(n, n)``; it need not be positive definite.
        metric: :math:`B`.
    """

    def __init__(self, matrix: Tensor, metric: Metric) -> None:
        self.matrix, self.metric = matrix, metric

    def step(self, lam: float, gradient: Tensor) -> Tensor | None:
        """Factorise and solve; ``None`` if a pivot is not positive."""
        factor, info = torch.linalg.cholesky_ex(self.metric.add_to(self.matrix, lam))
        if int(info):
            return None
        return torch.cholesky_solve(-gradient[:, None], factor)[:, 0]


class EigenSteps:
    r"""One eigendecomposition per iterate, reused by all of its probes.

    With :math:`B=LL^\top` and :math:`L^{-1}HL^{-\top}=Q\Lambda Q^\top` a probe is
    :math:`h=-L^{-\top}Q(\Lambda+\lambda I)^{-1}Q^\top L^{-1}g`.

    Args:
        matrix: :math:`H`, symmetric, shape ``(n, n)``.
        metric: :math:`B`.
    """

    def __init__(self, matrix: Tensor, metric: Metric) -> None:
        white = metric.whiten(matrix)
        self.values, vectors = torch.linalg.eigh((white + white.mT) / 2)
        if metric.factor is not None:
            vectors = torch.linalg.solve_triangular(metric.factor.mT, vectors, upper=True)
        self.vectors = vectors

    def step(self, lam: float, gradient: Tensor) -> Tensor | None:
        """Scale and rotate back; ``None`` if an eigenvalue is not above ``-lam``."""
        shifted = self.values + lam
        if float(shifted[0]) <= 0:
            return None
        return -self.vectors @ ((self.vectors.mT @ gradient) / shifted)


class RankOneSteps:
    r"""The Sherman-Morrison formula for :math:`H=\alpha vv^\top`.

    .. math:: (\lambda B+\alpha vv^\top)^{-1}g=\frac1\lambda\Bigl(B^{-1}g-
              \frac{\alpha\langle v,B^{-1}g\rangle}{\lambda+\alpha\langle v,B^{-1}v\rangle}B^{-1}v\Bigr)

    Args:
        weight: :math:`\alpha\ge0`; 0 gives :math:`H=0`, gradient descent in the metric.
        vector: :math:`v`, shape ``(n,)``.
        metric: :math:`B`, factorised once and for all.

    Raises:
        ValueError: for a negative weight.
    """

    def __init__(self, weight: float, vector: Tensor, metric: Metric) -> None:
        if weight < 0:
            raise ValueError(f"the weight of the rank-one term must not be negative, got {weight}")
        self.weight, self.vector, self.metric = weight, vector, metric
        self._solved: tuple[Tensor, Tensor, float, float] | None = None

    def step(self, lam: float, gradient: Tensor) -> Tensor | None:
        """Two solves with the metric at the first probe, vector operations at the others."""
        if self._solved is None:
            plain = self.metric.to_primal(gradient)
            w = self.metric.to_primal(self.vector) if self.weight else plain
            self._solved = (plain, w, float(self.vector @ plain), float(self.vector @ w))
        plain, w, with_gradient, square = self._solved
        if self.weight == 0:
            return plain * (-1 / lam)
        share = self.weight * with_gradient / (lam + self.weight * square)
        return -(plain - share * w) / lam


class ConjugateGradientSteps:
    r"""Conjugate gradients, preconditioned by :math:`B^{-1}`, to a relative residual.

    Args:
        product: :math:`v\mapsto Hv`.
        metric: :math:`B`.
        forcing: :math:`\eta` in (0, 1); stops when :math:`\|(H+\lambda B)h+g\|_*\le\eta\|g\|_*`.
        most: inner steps after which the probe is given up, as when it meets negative curvature.

    Attributes:
        products: applications of :math:`H` so far.

    Raises:
        ValueError: for a forcing term outside (0, 1).
    """

    def __init__(
        self,
        product: Callable[[Tensor], Tensor],
        metric: Metric,
        forcing: float,
        most: int = 1000,
    ) -> None:
        if not 0 < forcing < 1:
            raise ValueError(f"the forcing term must be between 0 and 1, got {forcing}")
        self.product, self.metric, self.forcing, self.most = product, metric, forcing, most
        self.products = 0

    def step(self, lam: float, gradient: Tensor) -> Tensor | None:
        """Iterate; ``None`` on negative curvature or if ``most`` steps do not suffice."""
        h, residual = torch.zeros_like(gradient), -gradient
        z = self.metric.to_primal(residual)
        direction, square = z, float(residual @ z)
        goal = self.forcing**2 * square
        for _ in range(self.most):
            image = self.product(direction) + lam * self.metric.to_dual(direction)
            self.products += 1
            curvature = float(direction @ image)
            if curvature <= 0:
                return None
            h = h + (square / curvature) * direction
            residual = residual - (square / curvature) * image
            z = self.metric.to_primal(residual)
            previous, square = square, float(residual @ z)
            if square <= goal:
                return h
            direction = z + (square / previous) * direction
        return None
