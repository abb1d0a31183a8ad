"""Every trajectory of a small MDP with its probability, to take expectations of estimators exactly."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from descent.policies.exact_mdp import ExactMDP
from descent.policies.log_linear_policy import LogLinearPolicy

__all__ = ["EnumeratedTrajectories"]


class EnumeratedTrajectories:
    r"""All :math:`(SA)^H` trajectories of ``horizon`` steps.

    Args:
        mdp: the process.
        policy: the parametrised policy.
        horizon: number of actions :math:`H\ge1`.

    Raises:
        ValueError: for a horizon below 1, or more than a million trajectories.
    """

    def __init__(self, mdp: ExactMDP, policy: LogLinearPolicy, horizon: int) -> None:
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1, got {horizon}")
        pairs = mdp.states * mdp.actions
        if pairs**horizon > 10**6:
            raise ValueError(f"{pairs}^{horizon} trajectories are too many to enumerate")
        self.mdp, self.policy, self.horizon = mdp, policy, horizon
        index = torch.arange(pairs, device=mdp.rewards.device)
        steps = torch.cartesian_prod(*[index] * horizon).view(-1, horizon)
        self.states, self.actions = steps // mdp.actions, steps % mdp.actions
        """Visited states and actions, ``(N, H)`` each."""
        self.rewards = mdp.rewards[self.states, self.actions]
        """Rewards, ``(N, H)``."""
        moves = mdp.transitions[self.states[:, :-1], self.actions[:, :-1], self.states[:, 1:]]
        self.environment = mdp.start[self.states[:, 0]] * moves.prod(-1)
        """The factor of the probability that is not the policy's, ``(N,)``."""

    def log_probability(self, theta: Tensor) -> Tensor:
        """Log-probability of each action, ``(N, d)`` to ``(N, H)``, with parameters for each trajectory."""
        table = self.policy.log_probabilities(theta)
        rows = torch.arange(len(self.states), device=theta.device).unsqueeze(-1)
        return table[rows, self.states, self.actions]

    def probability(self, theta: Tensor) -> Tensor:
        """Probability of each trajectory under one policy, ``(d,)`` to ``(N,)``."""
        table = self.policy.log_probabilities(theta)
        return self.environment * table[self.states, self.actions].sum(-1).exp()

    def expectation(self, theta: Tensor, estimate: Callable[[Tensor], Tensor]) -> Tensor:
        """Exact mean of an estimator.

        Args:
            theta: the sampling policy, ``(d,)``.
            estimate: maps the parameters, repeated to ``(N, d)``, to one row for each trajectory.

        Returns:
            The probability-weighted sum of the rows.
        """
        rows = estimate(theta.expand(len(self.states), -1))
        return torch.tensordot(self.probability(theta), rows, dims=1)

    def truncated_objective(self, theta: Tensor) -> Tensor:
        """Expected discounted reward of the first ``horizon`` steps, by backward induction.

        Args:
            theta: ``(d,)``.

        Returns:
            A scalar tensor, twice differentiable; no trajectory is enumerated for it.
        """
        table = self.policy.probabilities(theta)
        value = torch.zeros_like(self.mdp.start)
        for _ in range(self.horizon):
            following = self.mdp.transitions @ value
            value = (table * (self.mdp.rewards + self.mdp.discount * following)).sum(-1)
        return value @ self.mdp.start
