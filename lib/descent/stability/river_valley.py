r"""A two-dimensional river valley, and SGD in it.

.. math:: L(x,y)=\frac\gamma2\,(y-h(x))^2-c\,x,\qquad h(x)=a\sin x .

The river runs along :math:`y=h(x)` and falls with slope :math:`c`; across it the walls have curvature :math:`\gamma`.
Gradient noise of variance :math:`\sigma^2` acts across the valley, in :math:`y`, only. With :math:`a=0` the advance
along x is exactly :math:`c\sum_t\eta_t`, the area under the schedule.

Source: the picture of Wen et al. (2024); this formula is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["RiverValley"]


@dataclass(frozen=True)
class RiverValley:
    r"""The landscape above.

    Args:
        curvature: :math:`\gamma>0` of the hillsides.
        slope: :math:`c\ge0`, descent per unit of x along the river.
        noise: :math:`\sigma^2\ge0`, variance of the gradient across the valley.
        bend: :math:`a`, amplitude of the bends.

    Raises:
        ValueError: for an option outside its range.
    """

    curvature: float = 1.0
    slope: float = 0.02
    noise: float = 0.04
    bend: float = 0.5

    def __post_init__(self) -> None:
        if self.curvature <= 0 or self.slope < 0 or self.noise < 0:
            raise ValueError(
                "curvature must be positive, slope and noise not negative; got "
                f"{self.curvature}, {self.slope} and {self.noise}"
            )

    def river(self, x: Tensor) -> Tensor:
        """The river bed :math:`h(x)`."""
        return self.bend * torch.sin(x)

    def loss(self, point: Tensor) -> Tensor:
        """L at points of shape ``(..., 2)``."""
        x, y = point.unbind(-1)
        return self.curvature / 2 * (y - self.river(x)) ** 2 - self.slope * x

    def gradient(self, point: Tensor) -> Tensor:
        """The exact gradient, shape ``(..., 2)``."""
        x, y = point.unbind(-1)
        across = self.curvature * (y - self.river(x))
        return torch.stack((-across * self.bend * torch.cos(x) - self.slope, across), -1)

    def simulate(
        self, rates: Tensor, particles: int, generator: torch.Generator, start: float = 0.0
    ) -> Tensor:
        r"""SGD paths of many particles under several schedules, with the same noise for all schedules.

        Args:
            rates: learning rates, shape ``(B, T)``.
            particles: P.
            generator: of the noise, on the CPU.
            start: x at the start, on the river.

        Returns:
            Positions before the first and after every step, shape ``(T + 1, B, P, 2)``.
        """
        count, steps = rates.shape
        noise = torch.randn(steps, particles, generator=generator, dtype=rates.dtype)
        noise = (noise * self.noise**0.5).to(rates.device)
        point = rates.new_zeros(count, particles, 2)
        point[..., 0] = start
        point[..., 1] = self.river(point[..., 0])
        path = [point]
        for t in range(steps):
            gradient = self.gradient(point)
            gradient[..., 1] += noise[t]
            point = point - rates[:, t, None, None] * gradient
            path.append(point)
        return torch.stack(path)
