"""Model problems on which schedules are compared: river and hills, power-law quadratic, and a run that branches.

Source: the questions are those of Wen et al. (2024); the model problems are ours.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from descent.stability.cycle_schedule import CycleLR, CycleSchedule, RateSchedule
from descent.stability.noisy_quadratic import NoisyQuadratic

__all__ = ["BranchingRun", "power_law_quadratic", "rate_table", "river_and_hills"]


def rate_table(schedules: Sequence[RateSchedule], peaks: Sequence[float] | float) -> Tensor:
    """Rates of several schedules as rows of one table, zero after a schedule's end.

    Args:
        schedules: B schedules.
        peaks: one for all, or one each.

    Returns:
        Shape ``(B, longest total)``, float64.
    """
    peaks = [peaks] * len(schedules) if isinstance(peaks, int | float) else list(peaks)
    rows = [s.ratios() * p for s, p in zip(schedules, peaks, strict=True)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def river_and_hills(
    rates: Tensor, curvatures: Tensor, noise: float, slope: float
) -> tuple[Tensor, Tensor]:
    r"""Expected hill loss and river loss of SGD from a point on the river, before and after every step.

    The river falls with a constant gradient g, so that its loss is :math:`-g^2\sum_{s<t}\eta_s`.

    Args:
        rates: shape ``(B, T)``.
        curvatures: of the hills, shape ``(n,)``.
        noise: variance of the gradient along each hill direction.
        slope: g.

    Returns:
        Two tensors of shape ``(B, T + 1)``.
    """
    count, steps = rates.shape
    hills = NoisyQuadratic(curvatures, noise, 0.0, count).run(rates, range(steps + 1))
    river = torch.cat([rates.new_zeros(count, 1), rates.cumsum(1)], 1) * -(slope**2)
    return hills, river


def power_law_quadratic(
    copies: int, exponent: float = 1.5, noise: float = 0.02, modes: int = 3000
) -> NoisyQuadratic:
    r"""Curvatures :math:`\lambda_i=i^{-a}`, unit second moments, gradient noise of variance :math:`\nu\lambda_i`.

    Args:
        copies: B, schedules side by side.
        exponent: a.
        noise: :math:`\nu`.
        modes: n.
    """
    curvatures = torch.arange(1, modes + 1, dtype=torch.float64) ** -exponent
    return NoisyQuadratic(curvatures, noise * curvatures, 1.0, copies)


class BranchingRun:
    r"""AdamW on a quadratic with gradient noise, under a :class:`~descent.stability.cycle_schedule.CycleLR`, that can be saved and branched.

    The noise of step t depends on t and the seed alone, so that runs under different schedules see the same.

    Args:
        schedule: of the run.
        noise: shape ``(steps, n)``; row t is added to the gradient of step t.
        peak: learning rate at ratio 1.
    """

    def __init__(self, schedule: CycleSchedule, noise: Tensor, peak: float = 0.02) -> None:
        size = noise.shape[1]
        self.noise = noise
        self.curvatures = torch.arange(1, size + 1, dtype=noise.dtype) ** -1.0
        self.weights = torch.nn.Parameter(torch.ones(size, dtype=noise.dtype))
        self.optimiser = torch.optim.AdamW([self.weights], lr=peak, foreach=False)
        self.scheduler = CycleLR(self.optimiser, schedule)

    def advance(self, steps: int) -> Tensor:
        """Take steps and return the weights after each, shape ``(steps, n)``."""
        path = []
        for _ in range(steps):
            gradient = (
                self.curvatures * self.weights.detach() + self.noise[self.scheduler.last_epoch]
            )
            self.weights.grad = gradient
            self.optimiser.step()
            self.scheduler.step()
            path.append(self.weights.detach().clone())
        return torch.stack(path)

    def loss(self) -> float:
        """The loss without noise."""
        return float((self.curvatures * self.weights.detach() ** 2).sum() / 2)

    def checkpoint(self) -> dict[str, Any]:
        """Weights and the states of optimiser and scheduler."""
        return copy.deepcopy(
            {
                "weights": self.weights.detach(),
                "optimiser": self.optimiser.state_dict(),
                "scheduler": self.scheduler.state_dict(),
            }
        )

    def branch(
        self, saved: dict[str, Any], schedule: CycleSchedule, keep_moments: bool = True
    ) -> BranchingRun:
        """Another run that continues from a checkpoint under another schedule.

        Args:
            saved: from :meth:`checkpoint`.
            schedule: must agree with the saved one on all steps taken.
            keep_moments: whether the optimiser's state comes along.
        """
        peak = saved["scheduler"]["base_lrs"][0]
        run = BranchingRun(schedule, self.noise, peak)
        run.weights.data.copy_(saved["weights"])
        if keep_moments:
            run.optimiser.load_state_dict(saved["optimiser"])
        run.scheduler.load_state_dict(saved["scheduler"])
        return run
