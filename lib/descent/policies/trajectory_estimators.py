r"""Unbiased estimates of the gradient and of Hessian-vector products from single trajectories.

With rewards :math:`r_0,\dots,r_{H-1}` and the surrogate

.. math:: \Phi(\theta;\tau)=\sum_{t<H}\Bigl(\sum_{h\ge t}\gamma^hr_h\Bigr)\log\pi_\theta(a_t|s_t)

and :math:`p(\tau)` the probability of the trajectory (only its actions depend on the parameters),

.. math:: g=\nabla\Phi,\qquad Bu=\nabla\Phi\,(\nabla\log p^\top u)+\nabla^2\Phi\,u,\qquad
          E[g]=\nabla J_H,\quad E[B]=\nabla^2J_H .

The discount is that of absolute time. Nothing of size ``(d, d)`` is formed.

Source: Fatkhullin et al. (ICML 2023), read through their code; that both are unbiased is derived and tested.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["gpomdp_gradient", "policy_hessian_vector", "rewards_to_go"]

LogProbability = Callable[[Tensor], Tensor]


def rewards_to_go(rewards: Tensor, discount: float, restart: bool = False) -> Tensor:
    r"""Discounted sums of the rewards from each step on.

    Args:
        rewards: ``(..., H)``; zero after the end of an episode.
        discount: :math:`\gamma` in [0, 1].
        restart: discount from the current step, :math:`\gamma^{h-t}`, as is common practice. The
            resulting gradient is a biased one of the discounted objective.

    Returns:
        ``(..., H)``.

    Raises:
        ValueError: for a discount outside [0, 1].
    """
    if not 0 <= discount <= 1:
        raise ValueError(f"discount must be in [0, 1], got {discount}")
    steps = torch.arange(rewards.shape[-1], dtype=rewards.dtype, device=rewards.device)
    powers = discount**steps
    sums = (rewards * powers).flip(-1).cumsum(-1).flip(-1)
    return sums / powers if restart else sums


def gpomdp_gradient(log_probability: LogProbability, theta: Tensor, weights: Tensor) -> Tensor:
    r"""One gradient estimate :math:`\nabla\Phi` for each trajectory.

    Args:
        log_probability: maps ``(..., d)`` to the log-probabilities ``(..., H)`` of the actions taken; each
            row of the result may depend on its own row of parameters only, and steps after the end of
            an episode must not matter (weight zero).
        theta: the parameters that drew each trajectory, ``(..., d)``.
        weights: from :func:`rewards_to_go`, ``(..., H)``, perhaps with a baseline subtracted.

    Returns:
        ``(..., d)``.
    """
    with torch.enable_grad():
        point = theta.detach().requires_grad_()
        surrogate = (weights * log_probability(point)).sum()
        (gradient,) = torch.autograd.grad(surrogate, point)
    return gradient


def policy_hessian_vector(
    log_probability: LogProbability,
    theta: Tensor,
    weights: Tensor,
    vector: Tensor,
    *,
    mask: Tensor | None = None,
    score_weight: float | Tensor = 1.0,
) -> Tensor:
    r"""One Hessian-vector product :math:`Bu` for each trajectory, in two backward passes.

    Args:
        log_probability: as for :func:`gpomdp_gradient`, twice differentiable.
        theta: the parameters that drew each trajectory, ``(..., d)``.
        weights: from :func:`rewards_to_go`, ``(..., H)``.
        vector: :math:`u`, ``(..., d)``.
        mask: 1 for the steps of the episode, 0 after its end, ``(..., H)``; all ones unless given.
        score_weight: factor of the score term; 1 is unbiased. Other values are for ablations, and
            :math:`-1` is the relative sign found in published code. A tensor must broadcast with ``(..., 1)``.

    Returns:
        ``(..., d)``.
    """
    with torch.enable_grad():
        point = theta.detach().requires_grad_()
        logs = log_probability(point)
        total = logs.sum() if mask is None else (logs * mask).sum()
        (gradient,) = torch.autograd.grad((weights * logs).sum(), point, create_graph=True)
        (score,) = torch.autograd.grad(total, point, retain_graph=True)
        (curvature,) = torch.autograd.grad((gradient * vector).sum(), point)
    along = (score * vector).sum(-1, keepdim=True)
    return score_weight * along * gradient.detach() + curvature
