"""Learning curves on control tasks: every arm and seed is a row of one batch of episodes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from descent.policies.control_rollouts import CartPole, Episodes, PendulumBalance
from descent.policies.policy_ascent import HessianAidedAscent, MomentumAscent
from descent.policies.sample_ledger import SampleLedger
from descent.policies.trajectory_estimators import (
    gpomdp_gradient,
    policy_hessian_vector,
    rewards_to_go,
)

__all__ = ["LearningCurve", "learning_curve", "mean_gradient", "mean_hessian_vector"]

Task = CartPole | PendulumBalance | SampleLedger


@dataclass(frozen=True)
class LearningCurve:
    """Returns of the current parameters as episodes are spent.

    Attributes:
        episodes: training episodes of one run up to each evaluation, ``(k,)``.
        returns: mean undiscounted return in separate evaluation episodes, ``(k, ...)``.
        theta: the last parameters, ``(..., d)``.
    """

    episodes: Tensor
    returns: Tensor
    theta: Tensor

    @property
    def area(self) -> Tensor:
        """Mean height of the curve over the episodes spent, ``(...)``."""
        total = torch.trapezoid(self.returns, self.episodes.to(self.returns), dim=0)
        return total / (self.episodes[-1] - self.episodes[0])


def _episodes(
    task: Task, theta: Tensor, count: int, generator: torch.Generator
) -> tuple[Episodes, Tensor]:
    rows = theta.reshape(-1, 1, theta.shape[-1]).expand(-1, count, -1).reshape(-1, theta.shape[-1])
    return task.rollout(rows, generator), rows


def _average(rows: Tensor, theta: Tensor, count: int) -> Tensor:
    return rows.view(-1, count, theta.shape[-1]).mean(1).view_as(theta)


def mean_gradient(
    task: Task, theta: Tensor, count: int, discount: float, generator: torch.Generator
) -> Tensor:
    """Average the gradient estimates of ``count`` episodes for each run.

    Args:
        task: where to act.
        theta: ``(..., d)``.
        count: episodes for each run.
        discount: in [0, 1].
        generator: source of randomness.

    Returns:
        ``(..., d)``.
    """
    episodes, rows = _episodes(task, theta, count, generator)
    weights = rewards_to_go(episodes.rewards, discount)
    found = gpomdp_gradient(lambda t: task.log_probability(episodes, t), rows, weights)
    return _average(found, theta, count)


def mean_hessian_vector(
    task: Task,
    theta: Tensor,
    vector: Tensor,
    count: int,
    discount: float,
    generator: torch.Generator,
    score_weight: float = 1.0,
) -> Tensor:
    """Average the Hessian-vector products of ``count`` episodes for each run.

    Args:
        task: where to act.
        theta: the parameters that act, ``(..., d)``.
        vector: ``(..., d)``.
        count: episodes for each run.
        discount: in [0, 1].
        generator: source of randomness.
        score_weight: as for :func:`descent.policies.trajectory_estimators.policy_hessian_vector`.

    Returns:
        ``(..., d)``.
    """
    episodes, rows = _episodes(task, theta, count, generator)
    spread = vector.reshape(-1, 1, vector.shape[-1]).expand(-1, count, -1).reshape(rows.shape)
    found = policy_hessian_vector(
        lambda t: task.log_probability(episodes, t),
        rows,
        rewards_to_go(episodes.rewards, discount),
        spread,
        mask=episodes.mask,
        score_weight=score_weight,
    )
    return _average(found, theta, count)


def learning_curve(
    task: Task,
    method: MomentumAscent | HessianAidedAscent,
    budget: int,
    generator: torch.Generator,
    *,
    batch: int = 5,
    discount: float = 0.99,
    evaluations: int = 10,
    evaluation_episodes: int = 10,
) -> LearningCurve:
    """Train until a budget of episodes is spent, and evaluate the parameters on the way.

    Args:
        task: where to act.
        method: at its start; a Hessian-aided method spends two batches in each step.
        budget: training episodes of each run, at least ``2 * batch``.
        generator: source of randomness.
        batch: episodes in each estimate.
        discount: of the objective.
        evaluations: how often to evaluate, besides at the start.
        evaluation_episodes: separate episodes in each evaluation; they are not counted.

    Returns:
        The curve, with leading dimensions of the method's parameters.

    Raises:
        ValueError: for a budget that is too small.
    """
    cost = batch * (2 if isinstance(method, HessianAidedAscent) else 1)
    steps = budget // cost
    if steps < evaluations:
        raise ValueError(f"{budget} episodes are only {steps} steps, fewer than the evaluations")
    marks = {round(steps * k / evaluations) for k in range(evaluations + 1)}
    spent, returns = [], []
    for step in range(steps + 1):
        if step in marks:
            played, _ = _episodes(task, method.theta, evaluation_episodes, generator)
            spent.append(step * cost)
            returns.append(
                played.returns.view(-1, evaluation_episodes).mean(1).view(method.theta.shape[:-1])
            )
        if step == steps:
            break
        if isinstance(method, HessianAidedAscent):
            share = torch.rand(
                (*method.theta.shape[:-1], 1), generator=generator, dtype=method.theta.dtype
            )
            correction = mean_hessian_vector(
                task,
                method.segment_point(share.to(method.theta.device)),
                method.displacement,
                batch,
                discount,
                generator,
            )
            gradient = mean_gradient(task, method.theta, batch, discount, generator)
            method.update(gradient, correction)
        else:
            method.update(mean_gradient(task, method.sampling_point(), batch, discount, generator))
    return LearningCurve(torch.tensor(spent), torch.stack(returns), method.theta)
