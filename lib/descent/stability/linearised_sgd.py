r"""SGD linearised about an interpolating minimum: the model that has nowhere to land.

The linear recursion :math:`\delta_{t+1}=\delta_t-\eta\,g_{i_t}g_{i_t}^\top\delta_t` shares its
first steps with SGD near the minimum. Where it grows, SGD leaves; that SGD then settles elsewhere
is a property of the nonlinear network alone.

Source: Wu and Su (ICML 2023), linear stability in the abstract.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["linearised_sgd_loss"]


def linearised_sgd_loss(
    jacobian: Tensor,
    displacement: Tensor,
    learning_rate: Tensor,
    order: Tensor,
    record_every: int = 1,
) -> Tensor:
    r"""Run single-sample SGD on :math:`\frac1{2n}\|J\delta\|^2` and record that loss.

    Args:
        jacobian: per-sample gradients at the minimum, shape ``(S, n, p)``; S independent problems.
        displacement: start :math:`\delta_0`, shape ``(S, p)``.
        learning_rate: step sizes, shape ``(S,)``.
        order: sample index of each step, shape ``(steps, S)``, integers in ``[0, n)``.
        record_every: steps between two records.

    Returns:
        Losses, shape ``(1 + steps // record_every, S)``; the first row is the start.

    Raises:
        ValueError: if ``order`` does not name one sample per step and problem.
    """
    if order.ndim != 2 or order.shape[1] != jacobian.shape[0]:
        raise ValueError(
            f"order must have shape (steps, {jacobian.shape[0]}), got {tuple(order.shape)}"
        )
    problems = torch.arange(jacobian.shape[0], device=jacobian.device)
    delta = displacement.clone()
    rate = learning_rate[:, None]

    def loss() -> Tensor:
        return 0.5 * torch.einsum("snp,sp->sn", jacobian, delta).square().mean(-1)

    losses = [loss()]
    for step, index in enumerate(order.to(jacobian.device), start=1):
        gradient = jacobian[problems, index]
        residual = (gradient * delta).sum(-1, keepdim=True)
        delta.addcmul_(gradient, rate * residual, value=-1.0)
        if step % record_every == 0:
            losses.append(loss())
    return torch.stack(losses)
