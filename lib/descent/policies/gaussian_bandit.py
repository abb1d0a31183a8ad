r"""A contextual bandit with a Gaussian policy whose objective is known in closed form.

Contexts :math:`c_i\in\mathbb R^d` are drawn uniformly, actions :math:`a\sim N(\theta^\top c,s^2)`, and the reward is
:math:`\exp(-(a-\theta_*^\top c)^2/(2w^2))`. With :math:`v^2=w^2+s^2`

.. math:: J(\theta)=\frac1n\sum_i\frac wv\exp\Bigl(-\frac{((\theta-\theta_*)^\top c_i)^2}{2v^2}\Bigr),\qquad
          F=\frac1{s^2}E[cc^\top],

so that the Fisher matrix does not depend on the parameters: the policy is Fisher-non-degenerate. Its score is
:math:`(a-\theta^\top c)c/s^2`, and the estimates are

.. math:: g=r\,\text{score},\qquad Bu=r\,\bigl(\text{score}\,(\text{score}^\top u)-c\,(c^\top u)/s^2\bigr).

Derived, with the problem of the trial that preceded the chapter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["BanditDraw", "GaussianBandit"]


@dataclass(frozen=True)
class BanditDraw:
    """What chance decides in one episode of each run.

    Attributes:
        context: ``(..., d)``.
        action_noise: standard normal, ``(..., 1)``.
        reward_noise: standard normal, ``(..., 1)``; absent where rewards have no noise.
    """

    context: Tensor
    action_noise: Tensor
    reward_noise: Tensor | None = None


class GaussianBandit:
    """The bandit; parameters are ``(..., d)``, leading dimensions are independent runs.

    Args:
        contexts: ``(n, d)``.
        target: the optimal parameters, ``(d,)``.
        policy_std: standard deviation of the actions, positive.
        reward_width: the length over which the reward falls, positive.
        reward_noise: standard deviation of noise added to the reward; a tensor that broadcasts with
            ``(..., 1)`` gives each run its own.
        baseline: subtract the exact expected reward of the context from the reward.

    Raises:
        ValueError: for shapes that do not fit or a length that is not positive.
    """

    def __init__(
        self,
        contexts: Tensor,
        target: Tensor,
        policy_std: float = 0.5,
        reward_width: float = 2.0,
        *,
        reward_noise: float | Tensor = 0.0,
        baseline: bool = False,
    ) -> None:
        if contexts.ndim != 2 or target.shape != contexts.shape[1:]:
            raise ValueError(
                "contexts must be (n, d) and target (d,), got "
                f"{tuple(contexts.shape)} and {tuple(target.shape)}"
            )
        for name, length in (("policy_std", policy_std), ("reward_width", reward_width)):
            if not length > 0:
                raise ValueError(f"{name} must be positive, got {length}")
        self.contexts, self.target = contexts, target
        self.policy_std, self.reward_width = policy_std, reward_width
        self.reward_noise, self.baseline = reward_noise, baseline
        self._noisy = isinstance(reward_noise, Tensor) or reward_noise > 0
        self._spread = (policy_std**2 + reward_width**2) ** 0.5

    def _means(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Distance of the mean action from the best, and expected reward, for each context."""
        offset = (theta - self.target) @ self.contexts.T
        return offset, self._expected_reward(offset)

    def _expected_reward(self, offset: Tensor) -> Tensor:
        return self.optimum() * torch.exp(-offset.square() / (2 * self._spread**2))

    def objective(self, theta: Tensor) -> Tensor:
        """Expected reward, ``(..., d)`` to ``(...)``."""
        return self._means(theta)[1].mean(-1)

    def gradient(self, theta: Tensor) -> Tensor:
        """Exact gradient of the objective, ``(..., d)`` to ``(..., d)``."""
        offset, reward = self._means(theta)
        return -(reward * offset) @ self.contexts / (len(self.contexts) * self._spread**2)

    def optimum(self) -> float:
        """The largest expected reward of any parameters."""
        return self.reward_width / self._spread

    def fisher(self) -> Tensor:
        """Fisher matrix of the policy, the same for all parameters, ``(d, d)``."""
        return self.contexts.T @ self.contexts / (len(self.contexts) * self.policy_std**2)

    def draw(self, runs: tuple[int, ...], generator: torch.Generator) -> BanditDraw:
        """Draw what chance decides; the same draw may be broadcast over several arms.

        Args:
            runs: leading shape.
            generator: source of randomness, on the CPU.

        Returns:
            The draw, on the device and in the dtype of the contexts.
        """
        which = torch.randint(len(self.contexts), runs, generator=generator)
        shape = (*runs, 1)
        like = self.contexts
        noise = torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)
        extra = None
        if self._noisy:
            extra = torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)
        return BanditDraw(like[which.to(like.device)], noise, extra)

    def score(self, draw: BanditDraw) -> Tensor:
        """Gradient of the log-probability of the action drawn, ``(..., d)``."""
        return draw.action_noise / self.policy_std * draw.context

    def reward(self, theta: Tensor, draw: BanditDraw) -> Tensor:
        """Reward of each episode, less its baseline if there is one, ``(..., 1)``."""
        offset = ((theta - self.target) * draw.context).sum(-1, keepdim=True)
        miss = (offset + self.policy_std * draw.action_noise) / self.reward_width
        reward = torch.exp(-0.5 * miss.square())
        if draw.reward_noise is not None:
            reward = reward + self.reward_noise * draw.reward_noise
        if self.baseline:
            reward = reward - self._expected_reward(offset)
        return reward

    def estimate_gradient(self, theta: Tensor, draw: BanditDraw) -> Tensor:
        """One-episode gradient estimate, ``(..., d)``."""
        return self.reward(theta, draw) * self.score(draw)

    def estimate_hessian_vector(
        self, theta: Tensor, draw: BanditDraw, vector: Tensor, score_weight: float | Tensor = 1.0
    ) -> Tensor:
        """One-episode estimate of the Hessian times a vector.

        Args:
            theta: the parameters that drew the action, ``(..., d)``.
            draw: of the episode.
            vector: ``(..., d)``.
            score_weight: factor of the score term; only 1 is unbiased.

        Returns:
            ``(..., d)``.
        """
        along = (draw.context * vector).sum(-1, keepdim=True)
        strength = score_weight * draw.action_noise.square() - 1
        reward = self.reward(theta, draw)
        return reward * strength * along / self.policy_std**2 * draw.context
