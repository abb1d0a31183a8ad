r"""SGD on a noisy quadratic whose iterates are averaged exponentially: exact second moments of the average.

With :math:`a_{t+1}=(1-\beta)a_t+\beta w_{t+1}`, :math:`\rho=1-\eta\gamma`, :math:`V=\mathbb Ew^2`, :math:`C=\mathbb Ewa`,
:math:`A=\mathbb Ea^2`, and noise independent of the past,

.. math:: C_{t+1}=(1-\beta)\rho C_t+\beta V_{t+1},\qquad
          A_{t+1}=(1-\beta)^2A_t+2\beta(1-\beta)\rho C_t+\beta^2V_{t+1}.

Source: derived here; averaging in place of decay is not in Wen et al. (2024) as far as it was read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from descent.stability.noisy_quadratic import NoisyQuadratic

__all__ = ["averaged_losses"]


def averaged_losses(
    problem: NoisyQuadratic, rate: float, weights: Tensor, record: Sequence[int]
) -> Tensor:
    r"""Expected loss of the average at a constant rate.

    Args:
        problem: with one copy per averaging weight; its second moments are advanced in place.
        rate: :math:`\eta`.
        weights: :math:`\beta` in (0, 1], shape ``(B,)``; the horizon is :math:`1/\beta` steps.
        record: numbers of steps done, increasing, at least 1.

    Returns:
        Shape ``(B, len(record))``.

    Raises:
        ValueError: for weights outside (0, 1].
    """
    if not bool(((weights > 0) & (weights <= 1)).all()):
        raise ValueError(f"averaging weights must lie in (0, 1], got {weights.tolist()}")
    beta = weights[:, None]
    contraction = 1 - rate * problem.curvatures
    cross, square = problem.second_moments.clone(), problem.second_moments.clone()
    rates = torch.full_like(weights, rate)
    found = []
    for t in range(1, max(record) + 1):
        problem.step(rates)
        ahead = contraction * cross
        square.mul_((1 - beta) ** 2).add_(2 * beta * (1 - beta) * ahead)
        square.add_(beta**2 * problem.second_moments)
        cross = ahead.mul_(1 - beta).add_(beta * problem.second_moments)
        if t in record:
            found.append(square @ problem.curvatures / 2)
    return torch.stack(found, 1)
