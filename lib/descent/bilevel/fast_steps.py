r"""Other ways to take the single step on :math:`(\theta,\lambda)`.

The published step is simultaneous: both gradients at the old pair. Here are the alternating step, whose
ascent already sees the new :math:`\theta`, and the extragradient step, which takes its gradients at a look-ahead
point and costs twice as much.

Source: textbook variants; not in what was read of the paper.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from descent.bilevel.lv_hba import LVHBA, LVHBAState

__all__ = ["AlternatingLVHBA", "ExtragradientLVHBA"]


class AlternatingLVHBA(LVHBA):
    r"""LV-HBA whose ascent in :math:`\lambda` uses the new :math:`\theta`."""

    def fast_step(self, state: LVHBAState) -> tuple[Tensor, Tensor]:
        theta, _ = super().fast_step(state)
        d_lam = -self.problem.constraint(state.x, theta) + (state.lam - state.z) / self.gamma2
        return theta, self.problem.project_multiplier(state.lam - self.eta * d_lam, self.r)


class ExtragradientLVHBA(LVHBA):
    r"""LV-HBA whose step on :math:`(\theta,\lambda)` takes its gradients at a look-ahead point."""

    def fast_step(self, state: LVHBAState) -> tuple[Tensor, Tensor]:
        ahead_theta, ahead_lam = super().fast_step(state)
        theta, lam = super().fast_step(replace(state, theta=ahead_theta, lam=ahead_lam))
        return (
            self.problem.project_lower(state.theta + theta - ahead_theta),
            self.problem.project_multiplier(state.lam + lam - ahead_lam, self.r),
        )
