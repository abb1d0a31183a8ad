r"""Experiments on consensus-based methods, and the sabotaged arms that they are compared with.

Runs are a batch dimension everywhere. A sabotaged arm is the same method with a wrapped objective, so
that nothing else differs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from descent.beyond_gradients.consensus import (
    Objective,
    cbo_step,
    consensus_based_optimization,
    consensus_point,
    effective_sample_size,
    hop,
)

__all__ = [
    "NormalisedObjective",
    "PermutedObjective",
    "consensus_displacement",
    "cosines_along_run",
    "gaussian_cloud",
    "hop_alignment",
    "hop_samples",
    "sample_size_along_path",
]


class PermutedObjective:
    """Hand every particle the energy of another one: all that the energies say about places is lost.

    Args:
        objective: the true objective.
        generator: random stream of the permutations, on the CPU.
    """

    def __init__(self, objective: Objective, generator: torch.Generator) -> None:
        self.objective, self.generator = objective, generator

    def __call__(self, points: Tensor) -> Tensor:
        energies = self.objective(points)
        order = torch.rand(energies.shape, generator=self.generator).argsort(-1)
        permuted: Tensor = energies.gather(-1, order.to(energies.device))
        return permuted


class NormalisedObjective:
    """Divide the energies of each cloud by their standard deviation, a frequent mistake.

    Args:
        objective: the true objective.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def __call__(self, points: Tensor) -> Tensor:
        energies: Tensor = self.objective(points)
        return energies / energies.std(-1, keepdim=True)


def gaussian_cloud(
    centre: Tensor, spread: float, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw ``count`` particles of standard deviation ``spread`` around each centre.

    Args:
        centre: shape ``(..., d)``.
        spread: standard deviation, in units of the centre.
        count: particles per centre.
        generator: random stream on the CPU.

    Returns:
        Shape ``(..., count, d)``.
    """
    shape = (*centre.shape[:-1], count, centre.shape[-1])
    normals = torch.randn(shape, generator=generator, dtype=centre.dtype).to(centre.device)
    return centre.unsqueeze(-2) + spread * normals


def hop_samples(
    objective: Objective,
    point: Tensor,
    *,
    sigma: float,
    alpha: float,
    counts: Sequence[int],
    repeats: int,
    generator: torch.Generator | None = None,
    distinct: int | None = None,
) -> Tensor:
    """Draw consensus hops from one point with clouds of several sizes.

    Args:
        objective: :math:`E`.
        point: shape ``(d,)``.
        sigma: width of the clouds.
        alpha: inverse temperature.
        counts: numbers of particles :math:`N`.
        repeats: independent hops for each.
        generator: random stream on the CPU.
        distinct: draw only so many particles and repeat them to fill each cloud; every count must be a
            multiple of it. The same draws serve all counts.

    Returns:
        Shape ``(len(counts), repeats, d)``.
    """
    start = point.expand(repeats, -1)
    normals = None
    if distinct is not None:
        shape = (repeats, distinct, len(point))
        normals = torch.randn(shape, generator=generator, dtype=point.dtype).to(point.device)
    hops = []
    for count in counts:
        filled = None if normals is None else normals.repeat(1, count // normals.shape[1], 1)
        hops.append(
            hop(
                start,
                objective,
                sigma=sigma,
                alpha=alpha,
                count=count,
                generator=generator,
                normals=filled,
            )[0]
        )
    return torch.stack(hops)


def hop_alignment(
    objective: Objective,
    gradient: Tensor,
    points: Tensor,
    *,
    sigma: float,
    alpha: float,
    count: int,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Compare one hop from each point with the gradient there.

    Args:
        objective: :math:`E`, or a wrapped one.
        gradient: :math:`\nabla E` at the points, shape ``(R, d)``.
        points: shape ``(R, d)``.
        sigma: width of the cloud.
        alpha: inverse temperature.
        count: particles per hop.
        generator: random stream on the CPU.

    Returns:
        The cosine of the hop with :math:`-\nabla E`, and its length along :math:`-\nabla E` in units of
        :math:`\tau\|\nabla E\|`, :math:`\tau=\alpha\sigma^2`; both of shape ``(R,)``.
    """
    new, _ = hop(points, objective, sigma=sigma, alpha=alpha, count=count, generator=generator)
    move = new - points
    along = -(move * gradient).sum(-1) / (alpha * sigma**2 * gradient.square().sum(-1))
    return cosine_similarity(move, -gradient, dim=-1), along


def consensus_displacement(
    objective: Objective,
    centre: Tensor,
    *,
    spread: float,
    drift: float,
    noise_level: float,
    alpha: float,
    count: int,
    runs: int,
    generator: torch.Generator | None = None,
    constant_noise: bool = False,
) -> Tensor:
    r"""How far one CBO step moves the consensus point of a Gaussian cloud.

    Args:
        objective: :math:`E`.
        centre: mean of the cloud, shape ``(d,)``.
        spread: its standard deviation.
        drift: :math:`\lambda\,\Delta t`; 1 moves every particle onto the consensus point.
        noise_level: :math:`s=\sigma\sqrt{\Delta t}`.
        alpha: inverse temperature, before and after.
        count: particles.
        runs: independent clouds.
        generator: random stream on the CPU.
        constant_noise: the control, noise :math:`sB` in place of :math:`s|D|B`.

    Returns:
        Shape ``(runs,)``.
    """
    cloud = gaussian_cloud(centre.expand(runs, -1), spread, count, generator)
    moved, before = cbo_step(
        cloud,
        objective,
        lam=drift,
        sigma=0.0 if constant_noise else noise_level,
        dt=1.0,
        alpha=alpha,
        generator=generator,
    )
    if constant_noise:
        moved = gaussian_cloud(moved, noise_level, 1, generator).squeeze(-2)
    after = consensus_point(objective(moved), moved, alpha)
    return (after - before).norm(dim=-1)


def cosines_along_run(
    objective: Objective,
    gradient: Objective,
    particles: Tensor,
    *,
    steps: int,
    lam: float,
    sigma: float,
    dt: float,
    alpha: float,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    r"""How a run of CBO relates to the gradient, step by step.

    Args:
        objective: :math:`E`, or a wrapped one.
        gradient: :math:`\nabla E` of the true objective, ``(..., d)`` to ``(..., d)``.
        particles: initial clouds, shape ``(R, N, d)``.
        steps: number of moves looked at.
        lam: as in :func:`descent.beyond_gradients.consensus.cbo_step`, isotropic noise.
        sigma: as there.
        dt: as there.
        alpha: as there.
        generator: random stream on the CPU.

    Returns:
        Cosines of shape ``(steps, R)``: ``"move"`` of :math:`x_{k+1}-x_k` with :math:`-\nabla E(x_k)`;
        ``"offset"`` of :math:`x_k-\bar X_k` with :math:`-\operatorname{Cov}(X_k)\nabla E(\bar X_k)`;
        ``"preconditioned"`` of :math:`x_{k+1}-x_k` with :math:`-\operatorname{Cov}(X_k)\nabla E(x_k)`.
    """
    run = consensus_based_optimization(
        particles,
        objective,
        steps=steps + 1,
        lam=lam,
        sigma=sigma,
        dt=dt,
        alpha=alpha,
        generator=generator,
        keep_clouds_every=1,
    )
    clouds, consensus = torch.stack(run.clouds), run.path
    mean = clouds.mean(-2)
    centred = clouds - mean.unsqueeze(-2)
    covariance = (centred.mT @ centred / particles.shape[-2])[:-1]

    def preconditioned(vectors: Tensor) -> Tensor:
        return (covariance @ vectors.unsqueeze(-1)).squeeze(-1)

    move, slope = consensus.diff(dim=0), -gradient(consensus[:-1])
    offset, slope_at_mean = (consensus - mean)[:-1], -gradient(mean[:-1])
    return {
        "move": cosine_similarity(move, slope, dim=-1),
        "offset": cosine_similarity(offset, preconditioned(slope_at_mean), dim=-1),
        "preconditioned": cosine_similarity(move, preconditioned(slope), dim=-1),
    }


def sample_size_along_path(objective: Objective, clouds: Sequence[Tensor], alpha: float) -> Tensor:
    """Effective sample size of kept clouds.

    Args:
        objective: :math:`E`.
        clouds: each of shape ``(R, N, d)``.
        alpha: inverse temperature.

    Returns:
        Shape ``(len(clouds), R)``.
    """
    return torch.stack([effective_sample_size(objective(cloud), alpha) for cloud in clouds])
