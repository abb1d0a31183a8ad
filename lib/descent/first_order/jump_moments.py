r"""Exact mean-square decay of a linear flow with linear random jumps.

A state follows :math:`\dot\sigma=A\sigma` and at the rings of independent Poisson clocks, of rates
:math:`\lambda_k`, jumps to :math:`\sigma-w_k(c_k^\top\sigma)`. Its second moment
:math:`\Sigma=\mathbb E\,\sigma\sigma^\top` obeys, with the mean drift
:math:`M=A-\sum_k\lambda_kw_kc_k^\top`,

.. math:: \dot\Sigma=M\Sigma+\Sigma M^\top+\sum_k\lambda_k\,(c_k^\top\Sigma c_k)\,w_kw_k^\top .

Two ways to the decay rate, minus the largest real part of that linear map. *Dense*: the map as a
matrix on symmetric matrices, whose eigenvalues are computed. *Secular*: :math:`\rho` is the decay
rate where the non-negative :math:`K\times K` matrix

.. math:: T_{kl}(\rho)=c_k^\top S_l(\rho)\,c_k,\qquad
          (M+\tfrac\rho2)S_l+S_l(M+\tfrac\rho2)^\top+\lambda_lw_lw_l^\top=0

has spectral radius 1; it grows with :math:`\rho`. The second handles a hundred dimensions.

Source: derived in the chapter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from torch import Tensor

__all__ = [
    "LinearJumpProcess",
    "mean_square_decay_rate",
    "second_moment_generator",
    "secular_matrix",
    "spectral_abscissa",
    "stationary_second_moment",
]


@dataclass(frozen=True)
class LinearJumpProcess:
    r"""A linear flow with linear random jumps of rank one.

    Attributes:
        drift: :math:`A`, shape ``(m, m)``, float64.
        rates: :math:`\lambda_k\ge0`, shape ``(K,)``.
        gains: :math:`w_k` as rows, shape ``(K, m)``.
        functionals: :math:`c_k` as rows, shape ``(K, m)``.
    """

    drift: Tensor
    rates: Tensor
    gains: Tensor
    functionals: Tensor

    def jump(self, k: int) -> Tensor:
        r"""The matrix :math:`J_k=I-w_kc_k^\top`."""
        size = len(self.drift)
        return torch.eye(size, dtype=self.drift.dtype) - torch.outer(
            self.gains[k], self.functionals[k]
        )

    def mean_drift(self) -> Tensor:
        r"""The matrix :math:`M=A-\sum_k\lambda_kw_kc_k^\top` of the mean."""
        return self.drift - self.gains.T @ (self.rates[:, None] * self.functionals)

    def restricted(self, basis: Tensor) -> LinearJumpProcess:
        """The same process on an invariant subspace.

        Args:
            basis: orthonormal columns, shape ``(m, p)``.

        Raises:
            ValueError: if a gain or the drift leads out of the subspace.
        """
        outside = torch.eye(len(basis), dtype=basis.dtype) - basis @ basis.T
        leak = max(float((outside @ self.drift @ basis).abs().max()),
                   float((self.gains @ outside).abs().max()))  # fmt: skip
        if leak > 1e-9 * float(self.gains.abs().max() + self.drift.abs().max()):
            raise ValueError("the subspace is not invariant under the flow and the jumps")
        return LinearJumpProcess(
            basis.T @ self.drift @ basis, self.rates, self.gains @ basis, self.functionals @ basis
        )


def second_moment_generator(process: LinearJumpProcess) -> Tensor:
    r"""Return the map :math:`\Sigma\mapsto\dot\Sigma` as a matrix.

    Args:
        process: of dimension ``m``.

    Returns:
        Shape ``(p, p)`` with :math:`p=m(m+1)/2`, in an orthonormal basis of the symmetric matrices;
        memory :math:`m^4` numbers, so that ``m`` is about 40 at most.
    """
    m = len(process.drift)
    row, column = torch.triu_indices(m, m)
    scale = torch.where(row == column, 1.0, 2.0**0.5).to(process.drift)
    basis = torch.zeros(len(row), m, m, dtype=process.drift.dtype)
    index = torch.arange(len(row))
    basis[index, row, column] = 1 / scale
    basis[index, column, row] = 1 / scale
    moved = process.mean_drift() @ basis
    image = moved + moved.mT
    seen = torch.einsum("km,pmn,kn->pk", process.functionals, basis, process.functionals)
    image += torch.einsum("pk,km,kn->pmn", seen * process.rates, process.gains, process.gains)
    return (image[:, row, column] * scale).T


def spectral_abscissa(generator: Tensor) -> float:
    """The largest real part of the eigenvalues of a square matrix."""
    return float(torch.linalg.eigvals(generator).real.max())


class _Secular:
    """The matrix T(rho), from one eigendecomposition of the mean drift."""

    def __init__(self, process: LinearJumpProcess) -> None:
        mean = process.mean_drift()
        values, vectors = torch.linalg.eig(mean)
        rebuilt = (vectors * values) @ torch.linalg.inv(vectors)
        # A (nearly) defective mean drift has no use for its eigenvectors.
        self.trusted = float((rebuilt - mean).abs().max()) < 1e-8 * float(mean.abs().max())
        self.values, self.vectors = values, vectors
        self.inputs = torch.linalg.solve(vectors, process.gains.T.to(values.dtype)).T
        self.outputs = process.functionals.to(values.dtype) @ vectors
        self.rates = process.rates
        self.edge = -2 * float(values.real.max())

    def lyapunov(self, source: Tensor, rho: float = 0.0) -> Tensor:
        """Solve (M + rho/2) S + S (M + rho/2)^T + source = 0, all in the eigenbasis."""
        return -source / (self.values[:, None] + self.values + rho)

    def matrix(self, rho: float) -> Tensor:
        kernel = -1 / (self.values[:, None] + self.values + rho)
        pairs = self.outputs[:, None] * self.inputs  # (K, K, m)
        return ((pairs @ kernel) * pairs).sum(-1).real * self.rates

    def log_radius(self, rho: float) -> float:
        radius = float(torch.linalg.eigvals(self.matrix(rho)).abs().max())
        return math.log(max(radius, 1e-300))


def secular_matrix(process: LinearJumpProcess, rho: float) -> Tensor:
    r"""Return :math:`T(\rho)`, shape ``(K, K)``; entries are non-negative for :math:`\rho` below twice
    the decay rate of the mean."""
    return _Secular(process).matrix(rho)


def mean_square_decay_rate(process: LinearJumpProcess) -> float:
    r"""Return the exponential decay rate of :math:`\mathbb E\|\sigma_t\|^2`.

    Uses the secular matrix, and the dense generator where the mean drift is nearly defective.

    Args:
        process: of dimension up to about 200 (40 where the dense form is needed).

    Returns:
        Positive if the second moment vanishes, negative if it grows.
    """
    secular = _Secular(process)
    if not secular.trusted:
        return -spectral_abscissa(second_moment_generator(process))
    scale = max(float(secular.values.abs().max()), 1e-12)

    # The radius has a pole at the edge: its logarithm is nearly linear in that of the distance.
    def excess(log_gap: float) -> float:
        return secular.log_radius(secular.edge - math.exp(log_gap))

    near = far = math.log(1e-9 * scale)
    if excess(near) <= 0:
        return secular.edge
    while excess(far) > 0:
        near, far = far, far + 4
    root = brentq(excess, near, far, xtol=1e-11, rtol=1e-11)
    return secular.edge - math.exp(float(root))


def stationary_second_moment(process: LinearJumpProcess, noise: Tensor) -> Tensor:
    r"""Return the second moment at which noise and contraction balance.

    Args:
        process: with a positive decay rate.
        noise: the matrix :math:`Q\succeq0` that is added to :math:`\dot\Sigma`, shape ``(m, m)``.

    Returns:
        :math:`\Sigma` with :math:`\dot\Sigma+Q=0`, shape ``(m, m)``.

    Raises:
        ValueError: if the second moment does not settle.
    """
    secular = _Secular(process)
    if secular.edge <= 0 or secular.log_radius(0.0) >= 0:
        raise ValueError("the second moment grows: there is no stationary one")
    half = torch.linalg.solve(secular.vectors, noise.to(secular.values.dtype))
    source = torch.linalg.solve(secular.vectors, half.T).T
    alone = secular.lyapunov(source)
    seen = torch.einsum("ki,ij,kj->k", secular.outputs, alone, secular.outputs).real
    identity = torch.eye(len(seen), dtype=seen.dtype)
    strength = torch.linalg.solve(identity - secular.matrix(0.0), seen) * secular.rates
    rings = torch.einsum("k,ki,kj->ij", strength.to(source.dtype), secular.inputs, secular.inputs)
    total = alone + secular.lyapunov(rings)
    return (secular.vectors @ total @ secular.vectors.T).real
