r"""Drop-Muon with momentum on noisy gradients: the average gradient norm against the number of steps.

.. math:: M_i\leftarrow(1-\beta)M_i+\beta(\nabla_if(X)+\text{noise}),\qquad X_i\leftarrow X_i-t\,D(M_i)
    \qquad\text{for }i\ge s^k,

with :math:`\beta=K^{-1/2}` and :math:`t\propto K^{-3/4}` for a run of :math:`K` steps, the schedule with which
full updates have the order :math:`K^{-1/4}`. Runs of all arms and lengths are one batch, and the layers of
a run, padded with zeros to one shape, one tensor: padding changes neither norms nor directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from descent.first_order.cutoff_sampling import CutoffSampler
from descent.first_order.linear_minimisation import direction, dual_norm

__all__ = ["Arm", "average_dual_norms", "stack_padded"]

CHUNK = 100


class Arm(NamedTuple):
    r"""One schedule: a sampler of cutoffs and the radius :math:`t=\text{radius}\cdot K^{\text{power}}`."""

    sampler: CutoffSampler
    radius: float
    power: float = -0.75


def stack_padded(matrices: Sequence[Tensor]) -> Tensor:
    """Stack matrices of several shapes, padded with zeros below and to the right.

    Args:
        matrices: shapes ``(m_i, n_i)``.

    Returns:
        Shape ``(b, max m_i, max n_i)``.
    """
    rows, columns = (max(m.shape[k] for m in matrices) for k in (0, 1))
    stacked = matrices[0].new_zeros(len(matrices), rows, columns)
    for padded, matrix in zip(stacked, matrices, strict=True):
        padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    return stacked


def average_dual_norms(
    gradient: Callable[[Tensor], Tensor],
    start: Tensor,
    mask: Tensor,
    arms: Sequence[Arm],
    lengths: Sequence[int],
    seeds: int,
    generator: torch.Generator,
    norm: str = "spectral",
    noise: float = 0.5,
    every: int = 4,
) -> Tensor:
    r"""Return :math:`\frac1K\sum_k\sum_i\|\nabla_if(X^k)\|_*` for every arm, seed and length.

    Args:
        gradient: maps layers ``(runs, b, m, n)`` to their gradients, batched over runs.
        start: :math:`X^0`, shape ``(b, m, n)``; momenta start at zero.
        mask: 1 where an entry belongs to its layer and 0 in the padding, same shape.
        arms: schedules to compare; cutoffs are drawn independently for every run and step.
        lengths: numbers of steps :math:`K`, increasing.
        seeds: independent runs per arm and length.
        generator: source of noise and cutoffs.
        norm: of every layer.
        noise: standard deviation of the noise, per entry.
        every: the average is over every so many steps.

    Returns:
        Shape ``(arms, seeds, lengths)``.

    Raises:
        ValueError: if ``lengths`` is not increasing.
    """
    if list(lengths) != sorted(set(lengths)):
        raise ValueError(f"lengths must be increasing, got {list(lengths)}")
    device, dtype = start.device, start.dtype
    order = torch.arange(len(start), device=device)
    radii, powers = (
        torch.tensor([getattr(arm, name) for arm in arms], dtype=dtype, device=device)
        .repeat_interleave(seeds)
        .repeat(len(lengths))
        for name in ("radius", "power")
    )
    width = len(arms) * seeds
    # runs of one length are neighbours, the shortest first, so that runs that end are a prefix
    steps = torch.tensor(lengths, dtype=dtype, device=device).repeat_interleave(width)
    beta = steps.pow(-0.5)[:, None, None, None]
    radius = (radii * steps.pow(powers))[:, None, None, None]
    layers = start.expand(len(steps), *start.shape).clone()
    momenta, total, averages = torch.zeros_like(layers), torch.zeros_like(steps), []
    k = 0
    for end in lengths:
        runs = len(layers)
        while k < end:
            block = min(CHUNK, end - k)
            shape = (block, runs, *start.shape)
            noises = torch.randn(shape, generator=generator, dtype=dtype).to(device) * noise * mask
            drawn = [
                arm.sampler.sample_many(block * runs // len(arms), generator).view(block, -1, seeds)
                for arm in arms
            ]
            cutoffs = torch.stack(drawn, 2).view(block, runs, 1).to(device)
            moved = (cutoffs <= order).to(dtype)[..., None, None]
            for noisy, average, move in zip(noises, moved * beta, moved * radius, strict=True):
                exact = gradient(layers)
                if k % every == 0:
                    total += dual_norm(exact, norm).sum(-1)
                momenta += average * (exact + noisy - momenta)
                layers -= move * direction(momenta, norm)
                k += 1
        averages.append(total[:width] / ((end - 1) // every + 1))
        layers, momenta, total = layers[width:], momenta[width:], total[width:]
        beta, radius = beta[width:], radius[width:]
    return torch.stack(averages).view(len(lengths), len(arms), seeds).permute(1, 2, 0)
