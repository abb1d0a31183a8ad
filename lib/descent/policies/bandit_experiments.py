"""Runs on the Gaussian bandit: many arms and seeds at once, with exact errors and gaps recorded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from descent.adam import AdamDirection
from descent.policies.gaussian_bandit import GaussianBandit
from descent.policies.policy_ascent import HessianAidedAscent, MomentumAscent, Schedule

__all__ = ["AdamAscent", "Trace", "ascend"]


class AdamAscent:
    """Adam as a policy ascent, with the interface of :class:`~descent.policies.policy_ascent.MomentumAscent`.

    Args:
        start: ``(..., d)``.
        step: learning rates.
    """

    def __init__(self, start: Tensor, step: Schedule) -> None:
        self.theta, self.direction, self.steps = start.clone(), torch.zeros_like(start), 0
        self._step, self._adam = step, AdamDirection()

    def sampling_point(self) -> Tensor:
        """The current parameters."""
        return self.theta

    def update(self, gradient: Tensor) -> None:
        """Take a step.

        Args:
            gradient: ``(..., d)``.
        """
        self.direction = self._adam({"theta": gradient})["theta"]
        self.theta = self.theta + self._step(self.steps) * self.direction
        self.steps += 1


@dataclass(frozen=True)
class Trace:
    """What was recorded of a run.

    Attributes:
        steps: iterations taken, ``(k,)``.
        samples: episodes of one run up to there, ``(k,)``.
        error: distance of the direction just used from the gradient at the parameters where it was used,
            ``(k, ...)``.
        gap: optimum less the objective after the step, ``(k, ...)``.
    """

    steps: Tensor
    samples: Tensor
    error: Tensor
    gap: Tensor

    def at(self, step: int) -> int:
        """The row of a recorded iteration.

        Args:
            step: number of iterations.

        Returns:
            Its index.

        Raises:
            ValueError: if it was not recorded.
        """
        found = (self.steps == step).nonzero()
        if not len(found):
            raise ValueError(f"iteration {step} was not recorded")
        return int(found[0])

    def samples_to(self, level: float) -> Tensor:
        """Episodes until the mean gap over the last dimension first reaches a level.

        Args:
            level: of the gap.

        Returns:
            One number for each arm; infinity where it was never reached.
        """
        reached = self.gap.mean(-1) <= level
        first = reached.to(torch.uint8).argmax(0)
        return torch.where(reached.any(0), self.samples[first].to(self.gap), torch.inf)


def ascend(
    bandit: GaussianBandit,
    method: MomentumAscent | HessianAidedAscent | AdamAscent,
    steps: int,
    record: Iterable[int],
    generator: torch.Generator,
    *,
    score_weight: float | Tensor = 1.0,
    correction_weight: float | Tensor = 1.0,
) -> Trace:
    """Run a method for all its leading dimensions, of which the last counts seeds.

    All arms of a seed see the same contexts and the same noise.

    Args:
        bandit: where to act.
        method: at its start, parameters ``(arms..., seeds, d)``.
        steps: iterations.
        record: iterations after which to record.
        generator: source of randomness.
        score_weight: of the score term of Hessian-aided methods; 1 is unbiased. Tensors broadcast with
            ``(arms..., seeds, 1)``.
        correction_weight: 0 leaves the whole correction out.

    Returns:
        The trace.

    Raises:
        ValueError: if nothing is to be recorded.
    """
    wanted = {r for r in record if 1 <= r <= steps}
    if not wanted:
        raise ValueError(f"no iteration in 1..{steps} is to be recorded")
    runs = (method.theta.shape[-2],)
    hessian_aided = isinstance(method, HessianAidedAscent)
    errors, gaps = [], []
    for step in range(1, steps + 1):
        theta, draw = method.theta, bandit.draw(runs, generator)
        if isinstance(method, HessianAidedAscent):
            other = bandit.draw(runs, generator)
            share = torch.rand((*runs, 1), generator=generator, dtype=theta.dtype)
            correction = bandit.estimate_hessian_vector(
                method.segment_point(share.to(theta.device)),
                other,
                method.displacement,
                score_weight,
            )
            method.update(bandit.estimate_gradient(theta, draw), correction_weight * correction)
        else:
            method.update(bandit.estimate_gradient(method.sampling_point(), draw))
        if step in wanted:
            errors.append((method.direction - bandit.gradient(theta)).norm(dim=-1))
            gaps.append(bandit.optimum() - bandit.objective(method.theta))
    marks = torch.tensor(sorted(wanted))
    per_step = 2 if hessian_aided else 1
    return Trace(marks, marks * per_step, torch.stack(errors), torch.stack(gaps))
