r"""A finite Markov decision process in which everything can be computed exactly.

.. math:: V^\pi=(I-\gamma P_\pi)^{-1}r_\pi,\qquad d^\pi=(1-\gamma)\rho^\top(I-\gamma P_\pi)^{-1},\qquad
          J(\pi)=\rho^\top V^\pi .

For a parametrised policy also the gradient (policy gradient theorem), the Hessian and the Fisher matrix

.. math:: \nabla J=\frac1{1-\gamma}\,E_{d^\pi,\pi}[A^\pi\,\nabla\log\pi],\qquad
          F=E_{d^\pi,\pi}[\nabla\log\pi\,\nabla\log\pi^\top].

All functions take any number of leading dimensions: a policy is ``(..., S, A)``, parameters are ``(..., d)``.

Source: textbook formulas (Sutton, McAllester, Singh and Mansour 2000; Kakade 2001).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["ExactMDP", "Optimum", "ParametricPolicy"]


class ParametricPolicy(Protocol):
    """What a policy must offer to be differentiated on a finite MDP."""

    def probabilities(self, theta: Tensor) -> Tensor:
        """Action probabilities, ``(..., d)`` to ``(..., S, A)``."""

    def score(self, theta: Tensor) -> Tensor:
        """Gradients of the log-probabilities, ``(..., d)`` to ``(..., S, A, d)``."""


@dataclass(frozen=True)
class Optimum:
    """An optimal deterministic policy with its values.

    Attributes:
        policy: one-hot, ``(S, A)``.
        value: ``(S,)``.
        objective: the value of the start distribution, a scalar tensor.
    """

    policy: Tensor
    value: Tensor
    objective: Tensor


class ExactMDP:
    r"""A discounted MDP given by its tables.

    Args:
        transitions: :math:`P(s'|s,a)`, shape ``(S, A, S)``, rows sum to one.
        rewards: expected reward :math:`r(s,a)`, shape ``(S, A)``.
        discount: :math:`\gamma` in [0, 1).
        start: start distribution :math:`\rho`, shape ``(S,)``; uniform unless given.

    Raises:
        ValueError: for shapes that do not fit, rows that are no distributions, or a discount outside [0, 1).
    """

    def __init__(
        self, transitions: Tensor, rewards: Tensor, discount: float, start: Tensor | None = None
    ) -> None:
        states, actions = rewards.shape if rewards.ndim == 2 else (0, 0)
        if transitions.shape != (states, actions, states):
            raise ValueError(
                "transitions must be (S, A, S) and rewards (S, A), got "
                f"{tuple(transitions.shape)} and {tuple(rewards.shape)}"
            )
        if not 0 <= discount < 1:
            raise ValueError(f"discount must be in [0, 1), got {discount}")
        if start is None:
            start = torch.full_like(rewards[:, 0], 1 / states)
        if start.shape != (states,):
            raise ValueError(f"start must be ({states},), got {tuple(start.shape)}")
        for name, rows in (("transitions", transitions), ("start", start)):
            off = float((rows.sum(-1) - 1).abs().max())
            if off > 1e3 * torch.finfo(rows.dtype).eps or bool((rows < 0).any()):
                raise ValueError(f"{name} must be probabilities that sum to 1, off by {off:.1e}")
        self.transitions, self.rewards, self.discount, self.start = (
            transitions,
            rewards,
            discount,
            start,
        )

    @property
    def states(self) -> int:
        """Number of states."""
        return self.rewards.shape[0]

    @property
    def actions(self) -> int:
        """Number of actions."""
        return self.rewards.shape[1]

    def _resolvent(self, policy: Tensor) -> Tensor:
        if policy.shape[-2:] != self.rewards.shape:
            raise ValueError(
                f"a policy must be (..., {self.states}, {self.actions}), got {tuple(policy.shape)}"
            )
        kernel = torch.einsum("...sa,sat->...st", policy, self.transitions)
        identity = torch.eye(self.states, dtype=kernel.dtype, device=kernel.device)
        return identity - self.discount * kernel

    def value(self, policy: Tensor) -> Tensor:
        """State values.

        Args:
            policy: ``(..., S, A)``.

        Returns:
            ``(..., S)``.

        Raises:
            ValueError: for a policy of another shape.
        """
        reward = (policy * self.rewards).sum(-1)
        return torch.linalg.solve(self._resolvent(policy), reward.unsqueeze(-1)).squeeze(-1)

    def objective(self, policy: Tensor) -> Tensor:
        """Value of the start distribution, ``(..., S, A)`` to ``(...)``."""
        return self.value(policy) @ self.start

    def action_value(self, policy: Tensor) -> Tensor:
        """Values of state-action pairs, ``(..., S, A)`` to ``(..., S, A)``."""
        return self._backup(self.value(policy))

    def _backup(self, value: Tensor) -> Tensor:
        following = torch.einsum("sat,...t->...sa", self.transitions, value)
        return self.rewards + self.discount * following

    def advantage(self, policy: Tensor) -> Tensor:
        """How much better an action is than the policy, ``(..., S, A)`` to ``(..., S, A)``."""
        value = self.value(policy)
        return self._backup(value) - value.unsqueeze(-1)

    def occupancy(self, policy: Tensor) -> Tensor:
        r"""Discounted share of time spent in each state, which sums to one.

        Args:
            policy: ``(..., S, A)``.

        Returns:
            ``(..., S)``. State-action occupancy is this times the policy.
        """
        matrix = self._resolvent(policy).transpose(-1, -2)
        start = self.start.expand(*matrix.shape[:-1]).unsqueeze(-1)
        return (1 - self.discount) * torch.linalg.solve(matrix, start).squeeze(-1)

    def optimum(self) -> Optimum:
        """Find an optimal policy by policy iteration, exact after finitely many sweeps.

        Returns:
            The optimal deterministic policy and its values.
        """
        choice = torch.zeros(self.states, dtype=torch.long, device=self.rewards.device)
        slack = 1e3 * torch.finfo(self.rewards.dtype).eps * float(self.rewards.abs().max())
        while True:
            policy = torch.nn.functional.one_hot(choice, self.actions).to(self.rewards)
            advantage = self.advantage(policy)
            best, action = advantage.max(-1)
            improves = best > slack / (1 - self.discount)
            if not bool(improves.any()):
                return Optimum(policy, self.value(policy), self.objective(policy))
            choice = torch.where(improves, action, choice)

    def gradient(self, policy: ParametricPolicy, theta: Tensor) -> Tensor:
        """Gradient of the objective by the policy gradient theorem.

        Args:
            policy: gives probabilities and scores.
            theta: ``(..., d)``.

        Returns:
            ``(..., d)``.
        """
        table = policy.probabilities(theta)
        weight = self.occupancy(table).unsqueeze(-1) * table * self.advantage(table)
        return torch.einsum("...sa,...sad->...d", weight, policy.score(theta)) / (1 - self.discount)

    def hessian(self, policy: ParametricPolicy, theta: Tensor) -> Tensor:
        """Hessian of the objective, by differentiating the exact objective twice.

        Args:
            policy: gives probabilities.
            theta: ``(d,)``.

        Returns:
            ``(d, d)``.
        """
        result = torch.func.hessian(lambda t: self.objective(policy.probabilities(t)))(theta)
        assert isinstance(result, Tensor)
        return result

    def fisher(self, policy: ParametricPolicy, theta: Tensor) -> Tensor:
        """Fisher matrix of the policy under its own discounted occupancy.

        Args:
            policy: gives probabilities and scores.
            theta: ``(..., d)``.

        Returns:
            ``(..., d, d)``, symmetric and positive semi-definite.
        """
        table, score = policy.probabilities(theta), policy.score(theta)
        weight = self.occupancy(table).unsqueeze(-1) * table
        return torch.einsum("...sa,...sai,...saj->...ij", weight, score, score)
