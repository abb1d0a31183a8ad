"""Counting the episodes that a method draws, and checking that it uses them where they were drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from descent.policies.control_rollouts import CartPole, Episodes, PendulumBalance

__all__ = ["SampleLedger"]


class SampleLedger:
    """A task that keeps books.

    Args:
        task: where to act.
    """

    def __init__(self, task: CartPole | PendulumBalance) -> None:
        self.task, self.dimension, self.horizon = task, task.dimension, task.horizon
        self.episodes = 0
        """Episodes drawn so far."""
        self.off_policy = 0.0
        """Largest distance between the parameters that drew an episode and those it was differentiated at."""
        self._last: tuple[Episodes, Tensor] | None = None

    def rollout(self, theta: Tensor, generator: torch.Generator) -> Episodes:
        """Draw episodes and count them.

        Args:
            theta: ``(n, d)``.
            generator: source of randomness.

        Returns:
            ``n`` episodes.
        """
        result = self.task.rollout(theta, generator)
        self.episodes += len(theta)
        self._last = result, theta.detach().clone()
        return result

    def log_probability(self, episodes: Episodes, theta: Tensor) -> Tensor:
        """Log-probabilities, noting how far the parameters are from those that acted.

        Args:
            episodes: the last ones drawn.
            theta: ``(n, d)``.

        Returns:
            ``(n, H)``.

        Raises:
            ValueError: for episodes that are not the last ones drawn here.
        """
        if self._last is None or episodes is not self._last[0]:
            raise ValueError("these episodes are not the last ones drawn through this ledger")
        apart = (theta.detach() - self._last[1]).norm(dim=-1).max()
        self.off_policy = max(self.off_policy, float(apart))
        return self.task.log_probability(episodes, theta)
