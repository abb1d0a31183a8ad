r"""Consensus-based optimization and consensus hopping: minimisation by function values alone.

A cloud of :math:`N` particles agrees on a *consensus point*, its softmin-weighted mean

.. math:: x_\alpha=\frac{\sum_iw_iX_i}{\sum_iw_i},\qquad w_i=e^{-\alpha(E(X_i)-\min_jE(X_j))} .

Consensus-based optimization (CBO) moves every particle towards it and adds noise as large as the
distance to it. Consensus hopping (CH) draws a fresh Gaussian cloud around it instead. Leading
dimensions of the particles are independent runs.

Source: Riedl, Klock, Geldhauser and Fornasier (arXiv 2306.09778) and the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = [
    "CloudRun",
    "cbo_step",
    "consensus_based_optimization",
    "consensus_hopping",
    "consensus_point",
    "consensus_weights",
    "effective_sample_size",
    "hop",
]

Objective = Callable[[Tensor], Any]
"""Maps points ``(..., d)`` to energies ``(...)``, a tensor or a NumPy array; never differentiated."""

NoiseModel = Literal["isotropic", "anisotropic"]


def consensus_weights(energies: Tensor, alpha: float) -> Tensor:
    r"""Return the weights :math:`w_i/\sum_jw_j` of the consensus point.

    Computed in the log domain relative to the lowest energy, so that :math:`\alpha=10^{15}` neither
    overflows nor loses the best particle; :math:`\alpha=\infty` selects it (equal ones in equal parts).

    Args:
        energies: :math:`E(X_i)`, shape ``(..., N)``, a floating dtype; ``inf`` has weight 0.
        alpha: inverse temperature, from 0 to infinity, in units of 1/energy.

    Returns:
        Shape ``(..., N)``, non-negative, summing to 1 along the last dimension.

    Raises:
        ValueError: for a negative alpha, an energy that is NaN, or a cloud without a finite energy.
    """
    if not alpha >= 0:
        raise ValueError(f"alpha must be from 0 to infinity, got {alpha}")
    lowest = energies.amin(-1, keepdim=True)
    if not bool(lowest.isfinite().all()):
        raise ValueError(
            "every cloud needs a lowest energy that is finite; an energy is NaN, or none is finite"
        )
    if alpha == 0:
        return torch.full_like(energies, 1 / energies.shape[-1])
    if math.isinf(alpha):
        best = (energies == lowest).to(energies.dtype)
        return best / best.sum(-1, keepdim=True)
    return torch.softmax(-alpha * (energies - lowest), -1)


def consensus_point(energies: Tensor, particles: Tensor, alpha: float) -> Tensor:
    r"""Return the consensus point :math:`x_\alpha`, the softmin-weighted mean of the particles.

    Args:
        energies: :math:`E(X_i)`, shape ``(..., N)``.
        particles: :math:`X`, shape ``(..., N, d)``.
        alpha: inverse temperature, from 0 (plain mean) to infinity (best particle).

    Returns:
        Shape ``(..., d)``.

    Raises:
        ValueError: as :func:`consensus_weights`, and for shapes that do not match.
    """
    if energies.shape != particles.shape[:-1]:
        raise ValueError(
            f"energies of shape {tuple(energies.shape)} do not fit particles of shape "
            f"{tuple(particles.shape)}"
        )
    weights = consensus_weights(energies, alpha)
    return (weights.unsqueeze(-2) @ particles).squeeze(-2)


def effective_sample_size(energies: Tensor, alpha: float) -> Tensor:
    r"""Return :math:`1/\sum_i\bar w_i^2`: how many particles the consensus point really averages.

    Args:
        energies: shape ``(..., N)``.
        alpha: inverse temperature.

    Returns:
        Shape ``(...)``, from 1 (one particle carries all the weight) to ``N`` (equal weights).
    """
    return 1 / consensus_weights(energies, alpha).square().sum(-1)


def cbo_step(
    particles: Tensor,
    objective: Objective,
    *,
    lam: float,
    sigma: float,
    dt: float,
    alpha: float,
    noise: NoiseModel = "isotropic",
    generator: torch.Generator | None = None,
    normals: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""One Euler-Maruyama step of CBO; evaluates the objective once per particle.

    .. math:: D_i=X_i-x_\alpha,\qquad
              X_i\leftarrow X_i-\lambda\,\Delta t\,D_i+\sigma\sqrt{\Delta t}\,|D_i|\,B_i,
              \qquad B_i\sim\mathcal N(0,I_d),

    with :math:`|D_i|` the Euclidean norm (isotropic) or each entry's own magnitude (anisotropic).

    Args:
        particles: :math:`X`, shape ``(..., N, d)``; not overwritten.
        objective: :math:`E`.
        lam: drift :math:`\lambda\ge0` towards the consensus, per unit of time.
        sigma: noise :math:`\sigma\ge0`, per square root of time.
        dt: time step :math:`\Delta t>0`.
        alpha: inverse temperature.
        noise: ``"isotropic"`` or ``"anisotropic"``.
        generator: random stream on the CPU.
        normals: :math:`B` of the shape of ``particles``, in place of a draw.

    Returns:
        The particles after the move, and the consensus point *before* it, shape ``(..., d)``.

    Raises:
        ValueError: for a negative coefficient or an unknown noise, and as :func:`consensus_point`.
    """
    if lam < 0 or sigma < 0 or dt <= 0:
        raise ValueError(f"need lam >= 0, sigma >= 0, dt > 0; got {lam}, {sigma}, {dt}")
    consensus = consensus_point(_energies(objective, particles), particles, alpha)
    offset = particles - consensus.unsqueeze(-2)
    if noise == "isotropic":
        size = offset.norm(dim=-1, keepdim=True)
    elif noise == "anisotropic":
        size = offset.abs()
    else:
        raise ValueError(f"noise must be 'isotropic' or 'anisotropic', got {noise!r}")
    if normals is None:
        normals = _normals(particles.shape, particles, generator)
    diffusion = sigma * dt**0.5
    return particles - lam * dt * offset + diffusion * size * normals, consensus


@dataclass(frozen=True)
class CloudRun:
    """What a run leaves behind.

    Attributes:
        path: consensus point of every step, before the move of that step, shape ``(K, ..., d)``.
        particles: the cloud after the last move, shape ``(..., N, d)``.
        clouds: the cloud before each step ``0, every, 2 every, ...`` that was to be kept, if any.
    """

    path: Tensor
    particles: Tensor
    clouds: list[Tensor]


def consensus_based_optimization(
    particles: Tensor,
    objective: Objective,
    *,
    steps: int,
    lam: float,
    sigma: float,
    dt: float,
    alpha: float,
    noise: NoiseModel = "isotropic",
    generator: torch.Generator | None = None,
    keep_clouds_every: int = 0,
) -> CloudRun:
    """Run :func:`cbo_step` ``steps`` times; the cost is ``N`` evaluations per step and run.

    Args:
        particles: the initial cloud, shape ``(..., N, d)``.
        objective: :math:`E`.
        steps: :math:`K`, at least 1.
        lam: as in :func:`cbo_step`.
        sigma: as in :func:`cbo_step`.
        dt: as in :func:`cbo_step`.
        alpha: as in :func:`cbo_step`.
        noise: as in :func:`cbo_step`.
        generator: random stream on the CPU.
        keep_clouds_every: keep the whole cloud of every such step; 0 keeps none.

    Returns:
        The path of the consensus point; its last entry is the result of the method.

    Raises:
        ValueError: for fewer than one step, and as :func:`cbo_step`.
    """
    _check_steps(steps)
    path, clouds = [], []
    for step in range(steps):
        if keep_clouds_every and step % keep_clouds_every == 0:
            clouds.append(particles)
        particles, consensus = cbo_step(
            particles,
            objective,
            lam=lam,
            sigma=sigma,
            dt=dt,
            alpha=alpha,
            noise=noise,
            generator=generator,
        )
        path.append(consensus)
    return CloudRun(torch.stack(path), particles, clouds)


def hop(
    point: Tensor,
    objective: Objective,
    *,
    sigma: float,
    alpha: float,
    count: int,
    generator: torch.Generator | None = None,
    normals: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""One consensus hop: the consensus point of ``count`` fresh draws :math:`x+\sigma B_i`.

    Its mean-field limit is the mean of the Gibbs measure of :math:`E+|\cdot-x|^2/(2\tau)` with
    :math:`\tau=\alpha\sigma^2`, a smoothed proximal step.

    Args:
        point: :math:`x`, shape ``(..., d)``.
        objective: :math:`E`.
        sigma: width of the cloud, in units of ``point``, positive.
        alpha: inverse temperature.
        count: :math:`N`, at least 1.
        generator: random stream on the CPU.
        normals: :math:`B`, shape ``(..., N, d)``, in place of a draw.

    Returns:
        The new point, shape ``(..., d)``, and the cloud, shape ``(..., N, d)``.

    Raises:
        ValueError: for a width or a count outside these ranges, and as :func:`consensus_point`.
    """
    if sigma <= 0 or count < 1:
        raise ValueError(f"need sigma > 0 and count >= 1; got {sigma}, {count}")
    if normals is None:
        normals = _normals((*point.shape[:-1], count, point.shape[-1]), point, generator)
    cloud = point.unsqueeze(-2) + sigma * normals
    return consensus_point(_energies(objective, cloud), cloud, alpha), cloud


def consensus_hopping(
    start: Tensor,
    objective: Objective,
    *,
    steps: int,
    sigma: float,
    alpha: float,
    count: int,
    generator: torch.Generator | None = None,
    keep_clouds_every: int = 0,
) -> CloudRun:
    """Run :func:`hop` ``steps`` times; the cost is ``count`` evaluations per step and run.

    Args:
        start: shape ``(..., d)``.
        objective: :math:`E`.
        steps: :math:`K`, at least 1.
        sigma: width of the cloud, the same at every step.
        alpha: inverse temperature.
        count: :math:`N`.
        generator: random stream on the CPU.
        keep_clouds_every: keep the whole cloud of every such step; 0 keeps none.

    Returns:
        The path of hops, the last entry being the result.

    Raises:
        ValueError: for fewer than one step, and as :func:`hop`.
    """
    _check_steps(steps)
    point, path, clouds = start, [], []
    for step in range(steps):
        point, cloud = hop(
            point, objective, sigma=sigma, alpha=alpha, count=count, generator=generator
        )
        path.append(point)
        if keep_clouds_every and step % keep_clouds_every == 0:
            clouds.append(cloud)
    return CloudRun(torch.stack(path), cloud, clouds)


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")


def _energies(objective: Objective, points: Tensor) -> Tensor:
    return torch.as_tensor(objective(points), dtype=points.dtype, device=points.device)


def _normals(shape: Any, like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)
