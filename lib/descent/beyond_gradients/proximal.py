r"""What a consensus hop computes in the limit of many particles: a smoothed proximal step.

A Gaussian times :math:`e^{-\alpha E}` is :math:`e^{-\alpha[E(u)+|u-x|^2/(2\tau)]}` with
:math:`\tau=\alpha\sigma^2`. Its mean is the mean-field hop, its mode the proximal point

.. math:: \operatorname{prox}_{\tau E}(x)=\arg\min_uE(u)+\frac{|u-x|^2}{2\tau} .

The two agree exactly for a quadratic :math:`E`, and up to :math:`O(\sqrt{\tau/\alpha})` otherwise.
Derived here; the theorem of the paper (arXiv 2306.09778) was not read.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["gibbs_mean", "laplace_free_energy", "proximal_point", "quadratic_proximal_point"]

Energy = Callable[[Tensor], Tensor]


def quadratic_proximal_point(matrix: Tensor, point: Tensor, tau: float) -> Tensor:
    r"""Return :math:`(I+\tau A)^{-1}x`, the proximal point of :math:`E(u)=\frac12u^\top Au`.

    Args:
        matrix: :math:`A`, symmetric positive semi-definite, shape ``(d, d)``.
        point: :math:`x`, shape ``(d,)``.
        tau: step size, positive.

    Returns:
        Shape ``(d,)``.
    """
    identity = torch.eye(len(point), dtype=point.dtype, device=point.device)
    return torch.linalg.solve(identity + tau * matrix, point)


def proximal_point(
    energy: Energy, point: float, tau: float, grid: Tensor, refinements: int = 4
) -> float:
    """Return the proximal point of a function of one variable: the *global* minimiser.

    The minimum on the grid is bracketed by its neighbours, and the bracket is divided again and
    again, which needs no derivative and finds a kink as well as a smooth minimum.

    Args:
        energy: maps ``(n,)`` to ``(n,)``.
        point: :math:`x`.
        tau: step size, positive.
        grid: increasing, fine enough to separate local minima, shape ``(n,)``.
        refinements: divisions of the bracket into 1000.

    Returns:
        The minimiser to about ``1e-9``, where round-off in the energy sets the limit.
    """
    for _ in range(refinements + 1):
        values = energy(grid) + (grid - point).square() / (2 * tau)
        best = int(values.argmin())
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        found = float(grid[best])
        grid = torch.linspace(float(low), float(high), 1001, dtype=grid.dtype, device=grid.device)
    return found


def gibbs_mean(energy: Energy, alpha: float, point: float, sigma: float, grid: Tensor) -> float:
    r"""Return the hop of infinitely many particles in one dimension, by quadrature.

    .. math:: \frac{\int u\,e^{-\alpha E(u)}\,\mathcal N(u;x,\sigma^2)\,du}
                   {\int e^{-\alpha E(u)}\,\mathcal N(u;x,\sigma^2)\,du}

    Args:
        energy: maps ``(n,)`` to ``(n,)``.
        alpha: inverse temperature, 0 or larger.
        point: :math:`x`.
        sigma: width of the Gaussian, positive.
        grid: equidistant, with a spacing well below the width of the posterior, shape ``(n,)``.

    Returns:
        The mean.
    """
    log_density = -alpha * energy(grid) - (grid - point).square() / (2 * sigma**2)
    weights = (log_density - log_density.max()).exp_()
    return float((weights * grid).sum() / weights.sum())


def laplace_free_energy(
    energy: Energy, alpha: float, point: float, sigma: float, grid: Tensor
) -> float:
    r"""Return :math:`-\frac1\alpha\log\int e^{-\alpha E}\,d\mathcal N(x,\sigma^2)`, by quadrature.

    The Laplace principle says that it tends to :math:`\min E` as :math:`\alpha\to\infty`.

    Args:
        energy: maps ``(n,)`` to ``(n,)``.
        alpha: inverse temperature, positive.
        point: mean of the Gaussian.
        sigma: its width, positive.
        grid: equidistant, covering the Gaussian's mass, shape ``(n,)``.

    Returns:
        The free energy, an upper bound of the minimum.
    """
    gaussian = (-(grid - point).square() / (2 * sigma**2)).exp()
    values = energy(grid)
    lowest = values.min()
    mean = (gaussian * (-alpha * (values - lowest)).exp()).sum() / gaussian.sum()
    return float(lowest - mean.log() / alpha)
