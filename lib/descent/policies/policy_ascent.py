r"""Single-loop stochastic ascent with transported gradients: N-PG-IGT, HARPG and N-HARPG.

All average gradients, :math:`d_t=(1-\eta_t)d_{t-1}+\eta_tg_t`, and differ in how the old average follows the moving
parameters.

*Implicit gradient transport* takes the new gradient at an extrapolated point,

.. math:: \tilde\theta_t=\theta_t+\frac{1-\eta_t}{\eta_t}(\theta_t-\theta_{t-1}),\qquad g_t=g(\tau,\tilde\theta_t).

*Hessian-aided recursion* adds a Hessian-vector product at a random point of the last step,

.. math:: \hat\theta=q\theta_t+(1-q)\theta_{t-1},\quad q\sim U[0,1],\qquad
          d_t=(1-\eta_t)\bigl(d_{t-1}+B(\hat\tau,\hat\theta)(\theta_t-\theta_{t-1})\bigr)+\eta_tg(\tau,\theta_t).

The step is :math:`\gamma_td_t`, or :math:`\gamma_td_t/\|d_t\|` where normalised. The classes hold parameters and direction
only; whoever uses them samples where they ask. Parameters are ``(..., d)``: leading dimensions are independent runs.

Source: Fatkhullin et al. (ICML 2023), Algorithms 1 and 2, and the schedules of their code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "HessianAidedAscent",
    "MomentumAscent",
    "Schedule",
    "harpg",
    "n_harpg",
    "n_pg_igt",
    "n_sgdm",
    "vanilla_pg",
]


@dataclass(frozen=True)
class Schedule:
    r"""The sequence :math:`c\,(2/(t+2))^p`, equal to :math:`c` at :math:`t=0`.

    Attributes:
        scale: :math:`c>0`; a tensor must broadcast with ``(..., 1)``.
        exponent: :math:`p\ge0`, 0 for a constant; a tensor likewise.
    """

    scale: float | Tensor
    exponent: float | Tensor = 0.0

    def __call__(self, t: int) -> float | Tensor:
        """The value at step ``t``, counted from 0."""
        return self.scale * (2 / (t + 2)) ** self.exponent


class _Ascent:
    def __init__(
        self, start: Tensor, step: Schedule, momentum: Schedule, normalize: bool | Tensor
    ) -> None:
        if not start.is_floating_point() or not bool(start.isfinite().all()):
            raise ValueError("start must be finite and floating point")
        for name, schedule in (("step", step), ("momentum", momentum)):
            if bool((torch.as_tensor(schedule.scale) <= 0).any()):
                raise ValueError(f"the scale of {name} must be positive, got {schedule.scale}")
        if bool((torch.as_tensor(momentum.scale) > 1).any()):
            raise ValueError(f"the scale of momentum must be at most 1, got {momentum.scale}")
        self.theta = start.clone()
        """The parameters, ``(..., d)``."""
        self.previous = self.theta
        """The parameters one step earlier."""
        self.direction = torch.zeros_like(start)
        """The averaged gradient, ``(..., d)``."""
        self.steps = 0
        """Steps taken."""
        self._step, self._momentum, self._normalize = step, momentum, normalize

    @property
    def displacement(self) -> Tensor:
        """The last step, zero at the start."""
        return self.theta - self.previous

    def _share(self) -> float | Tensor:
        """The weight of the new gradient; 1 at first, whatever the schedule."""
        return self._momentum(self.steps) if self.steps else 1.0

    def _move(self) -> None:
        step: Tensor | float = self._step(self.steps)
        if self._normalize is not False:
            norm = self.direction.norm(dim=-1, keepdim=True)
            norm = torch.where(norm > 0, norm, torch.ones_like(norm))  # a zero direction stays zero
            if isinstance(self._normalize, Tensor):
                norm = torch.where(self._normalize, norm, torch.ones_like(norm))
            step = step / norm
        self.previous = self.theta
        self.theta = self.theta + step * self.direction
        self.steps += 1


class MomentumAscent(_Ascent):
    r"""Ascent along averaged gradients, taken at an extrapolated point.

    Without extrapolation this is momentum (N-SGDM if normalised); with ``momentum=Schedule(1.0)`` it is plain
    stochastic ascent.

    Args:
        start: :math:`\theta_0`, ``(..., d)``.
        step: the lengths :math:`\gamma_t`.
        momentum: the weights :math:`\eta_t` in (0, 1] of the new gradient.
        extrapolate: sample at :math:`\tilde\theta_t`, else at :math:`\theta_t`; a boolean tensor that
            broadcasts with ``(..., 1)`` chooses for each run.
        normalize: step lengths do not depend on the norm of the direction; a tensor likewise.

    Raises:
        ValueError: for a start that is not finite, a scale that is not positive, or a momentum above 1.
    """

    def __init__(
        self,
        start: Tensor,
        step: Schedule,
        momentum: Schedule,
        *,
        extrapolate: bool | Tensor = True,
        normalize: bool | Tensor = True,
    ) -> None:
        super().__init__(start, step, momentum, normalize)
        self._extrapolate = extrapolate

    def sampling_point(self) -> Tensor:
        """Where the next trajectory must be drawn and differentiated, ``(..., d)``."""
        if self._extrapolate is False:
            return self.theta
        share = self._share()
        ahead = self.theta + (1 - share) / share * self.displacement
        if isinstance(self._extrapolate, Tensor):
            return torch.where(self._extrapolate, ahead, self.theta)
        return ahead

    def update(self, gradient: Tensor) -> None:
        """Average the gradient into the direction and take a step.

        Args:
            gradient: estimated at :meth:`sampling_point`, ``(..., d)``.
        """
        share = self._share()
        self.direction = (1 - share) * self.direction + share * gradient
        self._move()


class HessianAidedAscent(_Ascent):
    r"""Ascent along a recursion that is corrected by Hessian-vector products.

    Args:
        start: :math:`\theta_0`, ``(..., d)``.
        step: the lengths :math:`\gamma_t`.
        momentum: the weights :math:`\eta_t` in (0, 1] of the new gradient.
        normalize: N-HARPG if true, HARPG if not; a boolean tensor that broadcasts with ``(..., 1)``
            chooses for each run.

    Raises:
        ValueError: for a start that is not finite, a scale that is not positive, or a momentum above 1.
    """

    def __init__(
        self,
        start: Tensor,
        step: Schedule,
        momentum: Schedule,
        *,
        normalize: bool | Tensor = True,
    ) -> None:
        super().__init__(start, step, momentum, normalize)

    def segment_point(self, share: float | Tensor) -> Tensor:
        r"""Where the trajectory of the correction must be drawn.

        Args:
            share: :math:`q`, uniform in [0, 1], one for each run: a number or a tensor that broadcasts with
                ``(..., 1)``.

        Returns:
            :math:`q\theta_t+(1-q)\theta_{t-1}`, ``(..., d)``.
        """
        return self.previous + share * self.displacement

    def update(self, gradient: Tensor, correction: Tensor) -> None:
        """Transport the direction, average the gradient in, and take a step.

        Args:
            gradient: estimated at ``theta``, ``(..., d)``.
            correction: Hessian at :meth:`segment_point` times ``displacement``, ``(..., d)``.
        """
        share = self._share()
        self.direction = (1 - share) * (self.direction + correction) + share * gradient
        self._move()


def vanilla_pg(start: Tensor, scale: float | Tensor) -> MomentumAscent:
    r"""Plain stochastic ascent with :math:`\gamma_t=\gamma_0(2/(t+2))^{1/2}`.

    Args:
        start: ``(..., d)``.
        scale: :math:`\gamma_0`.

    Returns:
        The method at its start.
    """
    return MomentumAscent(
        start, Schedule(scale, 0.5), Schedule(1.0), extrapolate=False, normalize=False
    )


def n_sgdm(start: Tensor, scale: float | Tensor) -> MomentumAscent:
    r"""Normalised momentum with :math:`\eta_t=(2/(t+2))^{2/3}` and :math:`\gamma_t=2\gamma_0/(t+2)`.

    Args:
        start: ``(..., d)``.
        scale: :math:`\gamma_0`.

    Returns:
        The method at its start.
    """
    return MomentumAscent(start, Schedule(scale, 1.0), Schedule(1.0, 2 / 3), extrapolate=False)


def n_pg_igt(start: Tensor, scale: float | Tensor) -> MomentumAscent:
    r"""N-PG-IGT (Algorithm 1) with :math:`\eta_t=(2/(t+2))^{4/5}` and :math:`\gamma_t=2\gamma_0/(t+2)`.

    Args:
        start: ``(..., d)``.
        scale: :math:`\gamma_0`.

    Returns:
        The method at its start.
    """
    return MomentumAscent(start, Schedule(scale, 1.0), Schedule(1.0, 0.8))


def n_harpg(start: Tensor, scale: float | Tensor) -> HessianAidedAscent:
    r"""N-HARPG (Algorithm 2) with :math:`\eta_t=2/(t+2)` and :math:`\gamma_t=2\gamma_0/(t+2)`.

    Args:
        start: ``(..., d)``.
        scale: :math:`\gamma_0`.

    Returns:
        The method at its start.
    """
    return HessianAidedAscent(start, Schedule(scale, 1.0), Schedule(1.0, 1.0))


def harpg(start: Tensor, scale: float | Tensor) -> HessianAidedAscent:
    r"""HARPG (Algorithm 2) with :math:`\eta_t=2/(t+2)` and :math:`\gamma_t=\gamma_0(2/(t+2))^{1/2}`.

    Args:
        start: ``(..., d)``.
        scale: :math:`\gamma_0`.

    Returns:
        The method at its start.
    """
    return HessianAidedAscent(start, Schedule(scale, 0.5), Schedule(1.0, 1.0), normalize=False)
