r"""SGD on a quadratic with constant gradient noise, by exact second moments: no sampling, no seeds.

In the eigenbasis of the Hessian each mode obeys :math:`w_{t+1}=w_t-\eta_t(\gamma w_t+\xi_t)` with
:math:`\mathbb E\xi_t=0` and :math:`\mathbb E\xi_t^2=\sigma^2`, hence

.. math:: V_{t+1}=(1-\eta_t\gamma)^2V_t+\eta_t^2\sigma^2,\qquad V_t=\mathbb E w_t^2,\qquad
          \mathbb E L=\tfrac12\sum_i\gamma_iV_i.

Source: the model of the valley in Wen et al. (2024), whose theorems were not read; the formulas are derived here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "NoisyQuadratic",
    "optimal_inverse_decay",
    "stationary_variance",
]


def stationary_variance(
    rate: float | Tensor, curvature: float | Tensor, noise: float | Tensor
) -> float | Tensor:
    r"""The fixed point :math:`V=\eta\sigma^2/(\gamma(2-\eta\gamma))` of the recursion.

    The excess loss :math:`\frac12\gamma V\approx\frac14\eta\sigma^2` does not depend on :math:`\gamma` when
    :math:`\eta\gamma\ll1`.

    Args:
        rate: :math:`\eta` in :math:`(0,2/\gamma)`.
        curvature: :math:`\gamma>0`.
        noise: :math:`\sigma^2\ge0`, the variance of the gradient.

    Raises:
        ValueError: if :math:`\eta\gamma` lies outside (0, 2), where there is no fixed point.
    """
    product = torch.as_tensor(rate * curvature)
    if not bool(((product > 0) & (product < 2)).all()):
        raise ValueError(f"rate times curvature must lie in (0, 2), got {product.tolist()}")
    return rate * noise / (curvature * (2 - rate * curvature))


def optimal_inverse_decay(
    variance: float, curvature: float, noise: float, steps: int
) -> tuple[Tensor, Tensor]:
    r"""The rates that minimise :math:`V_{t+1}` in every step, for one mode.

    .. math:: \eta_t=\frac{\gamma V_t}{\gamma^2V_t+\sigma^2},\qquad
              \frac1{V_{t+1}}=\frac1{V_t}+\frac{\gamma^2}{\sigma^2},\qquad \frac1{\eta_{t+1}}=\frac1{\eta_t}+\gamma,

    so that :math:`1/\eta` is linear in the step: inverse-proportional decay. (Minimising every step also minimises
    the last variance, since :math:`V_{t+1}` increases with :math:`V_t`.)

    Args:
        variance: :math:`V_0>0`.
        curvature: :math:`\gamma>0`.
        noise: :math:`\sigma^2>0`.
        steps: how many.

    Returns:
        The rates, shape ``(steps,)``, and the variances :math:`V_0,\dots,V_{\text{steps}}`, float64.
    """
    variances, rates = [variance], []
    for _ in range(steps):
        rates.append(curvature * variances[-1] / (curvature**2 * variances[-1] + noise))
        contraction = 1 - rates[-1] * curvature
        variances.append(contraction**2 * variances[-1] + rates[-1] ** 2 * noise)
    return (
        torch.tensor(rates, dtype=torch.float64),
        torch.tensor(variances, dtype=torch.float64),
    )


class NoisyQuadratic:
    r"""Second moments of SGD, for several schedules side by side.

    Args:
        curvatures: :math:`\gamma_i>0`, shape ``(n,)``, float64 for long recursions.
        noise: :math:`\sigma_i^2`, shape ``(n,)`` or a number.
        second_moments: :math:`\mathbb E w_i^2` at the start, shape ``(n,)`` or a number.
        copies: B, how many schedules.

    Raises:
        ValueError: for curvatures that are not positive or moments that are negative.
    """

    def __init__(
        self,
        curvatures: Tensor,
        noise: Tensor | float,
        second_moments: Tensor | float,
        copies: int = 1,
    ) -> None:
        if not bool((curvatures > 0).all()):
            raise ValueError("curvatures must be positive")
        self.curvatures = curvatures
        self.noise = torch.as_tensor(noise, dtype=curvatures.dtype, device=curvatures.device)
        start = torch.as_tensor(second_moments, dtype=curvatures.dtype, device=curvatures.device)
        if bool((self.noise < 0).any()) or bool((start < 0).any()):
            raise ValueError("noise and second moments must not be negative")
        self.second_moments = start.expand(copies, len(curvatures)).clone()

    def step(self, rates: Tensor) -> None:
        """One step of all copies.

        Args:
            rates: learning rates, shape ``(B,)``.
        """
        rate = rates[:, None]
        contraction = 1 - rate * self.curvatures
        self.second_moments.mul_(contraction.square_()).add_(rate**2 * self.noise)

    def loss(self) -> Tensor:
        r"""Expected losses :math:`\frac12\sum\gamma_iV_i`, shape ``(B,)``."""
        return self.second_moments @ self.curvatures / 2

    def run(self, rates: Tensor, record: Sequence[int]) -> Tensor:
        """Follow whole schedules.

        Args:
            rates: shape ``(B, T)``.
            record: numbers of steps done, from 0 to T, at which the loss is wanted.

        Returns:
            Expected losses, shape ``(B, len(record))``, in the order of ``record``.

        Raises:
            ValueError: for a record beyond T.
        """
        if max(record) > rates.shape[1]:
            raise ValueError(f"record asks for step {max(record)} of {rates.shape[1]}")
        wanted, found = set(record), {}
        if 0 in wanted:
            found[0] = self.loss()
        for t, column in enumerate(rates.T.contiguous(), start=1):
            self.step(column)
            if t in wanted:
                found[t] = self.loss()
        return torch.stack([found[t] for t in record], 1)
