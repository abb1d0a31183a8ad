r"""Batched episodes on gymnasium's classic control tasks with linear policies.

One environment object steps all episodes at once, each with its own parameters: parameters ``(n, d)`` give ``n``
independent episodes. ``CartPole-v1`` has a vectorised environment. The dynamics of ``Pendulum-v1`` are written
element by element, so that its one environment steps a state of shape ``(2, n)``; a test compares the two uses.

Source: the environments are gymnasium's; the policies are the two classes of the chapter, softmax and Gaussian.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from torch import Tensor

__all__ = ["CartPole", "Episodes", "PendulumBalance"]


@dataclass(frozen=True)
class Episodes:
    """A batch of episodes, padded to one length.

    Attributes:
        features: what the policy saw, ``(n, H, d)``.
        actions: ``(n, H)``.
        rewards: zero after the end, ``(n, H)``.
        mask: 1 during the episode and 0 after its end, ``(n, H)``.
    """

    features: Tensor
    actions: Tensor
    rewards: Tensor
    mask: Tensor

    @classmethod
    def of_steps(cls, parts: Sequence[np.ndarray], device: torch.device) -> Episodes:
        """Episodes from features, actions, rewards and mask whose first axis is time.

        Args:
            parts: the four arrays, ``(H, n, ...)``.
            device: where the tensors live.

        Returns:
            The batch.
        """
        swapped = (np.ascontiguousarray(np.swapaxes(part, 0, 1)) for part in parts)
        return cls(*(torch.from_numpy(part).to(device) for part in swapped))

    @property
    def returns(self) -> Tensor:
        """Undiscounted sum of the rewards, ``(n,)``."""
        return self.rewards.sum(-1)


def _check(theta: Tensor, dimension: int) -> None:
    if theta.ndim != 2 or theta.shape[-1] != dimension:
        raise ValueError(f"theta must be (n, {dimension}), got {tuple(theta.shape)}")


class CartPole:
    r"""``CartPole-v1`` with the softmax policy :math:`\pi(1|x)=\sigma(\theta^\top x)`.

    Features are position, velocity, angle and angular velocity, divided by 2.4, 2, 0.2 and 2.

    Args:
        horizon: steps after which an episode is cut.
    """

    dimension = 4
    """Number of parameters of the policy."""

    def __init__(self, horizon: int = 200) -> None:
        self.horizon = horizon
        self._scale = torch.tensor([2.4, 2.0, 0.2, 2.0], dtype=torch.float64)

    def rollout(self, theta: Tensor, generator: torch.Generator) -> Episodes:
        """Draw one episode for each row of parameters.

        Args:
            theta: ``(n, 4)``, float64.
            generator: source of randomness, on the CPU.

        Returns:
            ``n`` episodes.

        Raises:
            ValueError: for parameters of another shape.
        """
        _check(theta, self.dimension)
        environment = CartPoleVectorEnv(len(theta), max_episode_steps=self.horizon)
        seed = int(torch.randint(2**31, (), generator=generator))
        observation, _ = environment.reset(seed=seed)
        shape = (self.horizon, len(theta))
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64).numpy()
        weights, scale = theta.cpu().numpy(), self._scale.numpy()
        features = np.zeros((*shape, 4))
        actions, rewards, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape), np.zeros(shape)
        alive = np.ones(len(theta))
        for step in range(self.horizon):
            seen = observation / scale
            logit = np.clip((seen * weights).sum(-1), -700, 700)
            action = (uniform[step] < 1 / (1 + np.exp(-logit))).astype(np.int64)
            features[step], actions[step], mask[step] = seen, action, alive
            observation, reward, ended, _, _ = environment.step(action)
            rewards[step] = reward * alive
            alive = alive * ~ended
            if not alive.any():
                break
        return Episodes.of_steps((features, actions, rewards, mask), theta.device)

    def log_probability(self, episodes: Episodes, theta: Tensor) -> Tensor:
        """Log-probability of each action, ``(n, 4)`` to ``(n, H)``.

        Args:
            episodes: from :meth:`rollout`.
            theta: parameters for each episode.

        Returns:
            ``(n, H)``; what stands after the end of an episode has no meaning.
        """
        logit = (episodes.features @ theta.unsqueeze(-1)).squeeze(-1)
        return torch.nn.functional.logsigmoid(torch.where(episodes.actions > 0, logit, -logit))


class PendulumBalance:
    r"""``Pendulum-v1`` started near the upright position, with a Gaussian policy.

    The torque is :math:`a\sim N(\theta^\top x,s^2)` with features
    :math:`x=(4\sin\text{angle},\text{angular velocity},1)`; the environment clips it to 2 in size. Rewards are a tenth
    of the environment's, so that a pendulum that hangs costs about 1 a step.

    Args:
        horizon: steps of an episode, 0.05 s each.
        start: initial angle (radians) and velocity are uniform within this of 0.
        policy_std: :math:`s>0`.
    """

    dimension = 3
    """Number of parameters of the policy."""

    def __init__(self, horizon: int = 60, start: float = 0.2, policy_std: float = 0.5) -> None:
        if not policy_std > 0:
            raise ValueError(f"policy_std must be positive, got {policy_std}")
        self.horizon, self.start, self.policy_std = horizon, start, policy_std

    def rollout(self, theta: Tensor, generator: torch.Generator) -> Episodes:
        """Draw one episode for each row of parameters.

        Args:
            theta: ``(n, 3)``, float64.
            generator: source of randomness, on the CPU.

        Returns:
            ``n`` episodes of full length.

        Raises:
            ValueError: for parameters of another shape.
        """
        _check(theta, self.dimension)
        count = len(theta)
        initial = torch.rand((2, count), generator=generator, dtype=torch.float64)
        noise = torch.randn((self.horizon, count), generator=generator, dtype=torch.float64).numpy()
        environment = PendulumEnv()
        environment.state = ((2 * initial - 1) * self.start).numpy()
        weights = theta.cpu().numpy()
        features = np.ones((self.horizon, count, 3))
        actions, rewards = np.zeros((self.horizon, count)), np.zeros((self.horizon, count))
        for step in range(self.horizon):
            angle, velocity = environment.state
            features[step, :, 0], features[step, :, 1] = 4 * np.sin(angle), velocity
            actions[step] = (features[step] * weights).sum(-1) + self.policy_std * noise[step]
            _, reward, _, _, _ = environment.step(actions[step : step + 1])
            rewards[step] = 0.1 * np.asarray(reward)
        parts = (features, actions, rewards, np.ones_like(rewards))
        return Episodes.of_steps(parts, theta.device)

    def log_probability(self, episodes: Episodes, theta: Tensor) -> Tensor:
        """Log-density of each action, ``(n, 3)`` to ``(n, H)``.

        Args:
            episodes: from :meth:`rollout`.
            theta: parameters for each episode.

        Returns:
            ``(n, H)``.
        """
        mean = (episodes.features @ theta.unsqueeze(-1)).squeeze(-1)
        residual = (episodes.actions - mean) / self.policy_std
        return -0.5 * residual.square() - math.log(self.policy_std * math.sqrt(2 * math.pi))
