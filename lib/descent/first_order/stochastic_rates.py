r"""Drop-Muon with momentum on noisy gradients: the average gradient norm against the number of steps.

.. math:: M_i\leftarrow(1-\beta)M_i+\beta(\nabla_if(X)+\text{noise}),\qquad X_i\leftarrow X_i-t\,D(M_i)
    \qquad\text{for }i\ge s^k,

with :math:`\beta=K^{-1/2}` and :math:`t\propto K^{-3/4}` for a run of :math:`K` steps, the schedule with which
full updates have the order :math:`K^{-1/4}`. Many runs of different length are one batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from descent.first_order.cutoff_sampling import CutoffSampler
from descent.first_order.layerwise_smoothness import LayerFunction
from descent.first_order.linear_minimisation import direction

__all__ = ["average_dual_norms"]


def average_dual_norms(
    function: LayerFunction,
    start: Sequence[Tensor],
    lengths: Sequence[int],
    sampler: CutoffSampler,
    seeds: int,
    generator: torch.Generator,
    radius: float,
    radius_power: float = -0.75,
    noise: float = 0.5,
    every: int = 1,
) -> Tensor:
    r"""Return :math:`\frac1K\sum_k\sum_i\|\nabla_if(X^k)\|_{(i)*}` for every length and seed.

    Args:
        function: the objective; noise is added to its gradients, entry by entry.
        start: one matrix per layer, the same for all runs.
        lengths: numbers of steps :math:`K`, increasing.
        sampler: of the cutoffs, drawn independently for every run and step.
        seeds: independent runs per length.
        generator: source of noise and cutoffs.
        radius: :math:`t=\text{radius}\cdot K^{\text{radius\_power}}`.
        radius_power: 0 keeps the radius constant.
        noise: standard deviation of the noise.
        every: steps between evaluations of the norms, which enter the average.

    Returns:
        Shape ``(seeds, lengths)``.

    Raises:
        ValueError: if ``lengths`` is not increasing.
    """
    if list(lengths) != sorted(set(lengths)):
        raise ValueError(f"lengths must be increasing, got {list(lengths)}")
    device = start[0].device
    steps = torch.tensor(lengths, device=device).repeat_interleave(seeds)
    beta = steps.to(start[0].dtype).pow(-0.5)
    t = radius * steps.to(start[0].dtype).pow(radius_power)
    layers = [x.expand(len(steps), *x.shape).clone() for x in start]
    momenta = [torch.zeros_like(x) for x in layers]
    total = torch.zeros(len(steps), dtype=start[0].dtype, device=device)
    count = torch.zeros_like(total)
    first = 0  # runs before this one have ended
    for k in range(lengths[-1]):
        if k == steps[first]:
            first += seeds
        gradients = function.gradients([x[first:] for x in layers])
        if k % every == 0:
            total[first:] += function.dual_norms(gradients).sum(-1)
            count[first:] += 1
        cutoffs = sampler.sample_many(len(steps) - first, generator).to(device)
        for i, g in enumerate(gradients):
            noisy = g + noise * torch.randn(g.shape, generator=generator, dtype=g.dtype).to(device)
            moved = (cutoffs <= i).to(g.dtype)[:, None, None]
            momenta[i][first:] += moved * beta[first:, None, None] * (noisy - momenta[i][first:])
            step = t[first:, None, None] * direction(momenta[i][first:], function.norms[i])
            layers[i][first:] -= moved * step
    return (total / count).view(len(lengths), seeds).T
