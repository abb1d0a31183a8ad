r"""How long the single descent-ascent step may be.

With frozen :math:`(x,y,z)` and no clipping the step is affine in :math:`(\theta,\lambda)` with the matrix

.. math:: I-\eta M,\qquad M=\begin{pmatrix}H+I/\gamma_1&J^\top\\-J&I/\gamma_2\end{pmatrix},

where :math:`H` is the curvature of the Lagrangian in :math:`\theta` and :math:`J=J_yg`. It contracts iff
:math:`|1-\eta\nu|<1` for every eigenvalue :math:`\nu` of :math:`M`, that is

.. math:: \eta<\min_\nu\frac{2\operatorname{Re}\nu}{|\nu|^2},

which on one coupled mode with complex eigenvalues is
:math:`(\mu_\theta+\mu_\lambda)/(\mu_\theta\mu_\lambda+\sigma^2)`.

Source: derived, not read; the paper's own bounds were not found.
"""

from __future__ import annotations

import torch
from torch import Tensor

from descent.bilevel.problem import BilevelProblem

__all__ = ["lagrangian_curvature", "mode_step_limit", "saddle_step_limit"]


def mode_step_limit(mu_theta: float, mu_lam: float, sigma_squared: float) -> float:
    r"""Return the limit of :math:`\eta` on one mode of the primal-dual step.

    Args:
        mu_theta: curvature of :math:`f` along the mode plus :math:`1/\gamma_1`, positive.
        mu_lam: :math:`1/\gamma_2`, positive.
        sigma_squared: squared singular value of :math:`J_yg`, non-negative.

    Returns:
        The largest :math:`\eta` below which the mode contracts.

    Raises:
        ValueError: for a curvature that is not positive or a negative ``sigma_squared``.
    """
    if not (mu_theta > 0 and mu_lam > 0 and sigma_squared >= 0):
        raise ValueError(
            f"need mu_theta, mu_lam > 0 and sigma_squared >= 0, got {mu_theta}, {mu_lam}, {sigma_squared}"
        )
    determinant = mu_theta * mu_lam + sigma_squared
    half = (mu_theta + mu_lam) / 2
    if half**2 < determinant:
        return 2 * half / determinant
    return 2 / (half + (half**2 - determinant) ** 0.5)


def saddle_step_limit(curvature: Tensor, jacobian: Tensor, gamma1: float, gamma2: float) -> float:
    r"""Return the limit of :math:`\eta` for the whole step.

    Args:
        curvature: :math:`H`, shape ``(m, m)``, symmetric.
        jacobian: :math:`J`, shape ``(q, m)``.
        gamma1: positive.
        gamma2: positive.

    Returns:
        The limit; not positive if no step length contracts.
    """
    m, q = curvature.shape[0], jacobian.shape[0]
    top = torch.cat([curvature + torch.eye(m).to(curvature) / gamma1, jacobian.T], 1)
    bottom = torch.cat([-jacobian, torch.eye(q).to(curvature) / gamma2], 1)
    values = torch.linalg.eigvals(torch.cat([top, bottom]))
    return float((2 * values.real / values.abs().square()).min())


def lagrangian_curvature(
    problem: BilevelProblem, x: Tensor, y: Tensor, lam: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Return :math:`\nabla^2_{yy}(f+\lambda^\top g)` and :math:`J_yg` of the first member of the batch.

    These second derivatives serve the choice of :math:`\eta` only; no method here uses them.

    Args:
        problem: gives ``lower`` and ``constraint``.
        x: shape ``(..., n)``.
        y: shape ``(..., m)``.
        lam: shape ``(..., q)``.

    Returns:
        Shapes ``(m, m)`` and ``(q, m)``.
    """
    rest = y.reshape(-1, y.shape[-1])[1:]

    def whole(point: Tensor) -> Tensor:
        return torch.cat([point[None], rest]).reshape(y.shape)

    def lagrangian(point: Tensor) -> Tensor:
        at = whole(point)
        return (problem.lower(x, at) + (lam * problem.constraint(x, at)).sum(-1)).flatten()[0]

    def constraint(point: Tensor) -> Tensor:
        return problem.constraint(x, whole(point)).reshape(-1, lam.shape[-1])[0]

    first = y.reshape(-1, y.shape[-1])[0]
    hessian = torch.autograd.functional.hessian(lagrangian, first)
    return hessian, torch.autograd.functional.jacobian(constraint, first)
