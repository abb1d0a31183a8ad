r"""Arms that lack one ingredient of LV-HBA; they serve as controls.

Source: not in the paper.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from descent.bilevel.coupled_toys import CoupledScalar
from descent.bilevel.lv_hba import LVHBA, LVHBAState
from descent.bilevel.proximal_lagrangian import envelope_gradient

__all__ = ["WeakenedLVHBA", "hard_multiplier_gradient"]


class WeakenedLVHBA(LVHBA):
    r"""LV-HBA with two of its terms scaled; both weights equal to one give the method itself.

    Args:
        *args: as for :class:`~descent.bilevel.lv_hba.LVHBA`.
        coupling: factor of :math:`J_xg^\top\lambda` in the direction of ``x``, broadcastable.
        proximal: factor of :math:`(y-\theta)/\gamma_1` in the direction of ``y``, broadcastable.
        **options: as for :class:`~descent.bilevel.lv_hba.LVHBA`.
    """

    def __init__(
        self, *args: Any, coupling: Tensor | float, proximal: Tensor | float, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.coupling, self.proximal = coupling, proximal

    def directions(
        self, state: LVHBAState, theta: Tensor, lam: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        d_x, d_y, d_z = super().directions(state, theta, lam)
        product = self.problem.constraint_product_x(state.x, theta, lam)
        d_x = d_x + (1 - self.coupling) * product
        return d_x, d_y + (1 - self.proximal) * (state.y - theta) / self.gamma1, d_z


def hard_multiplier_gradient(
    problem: CoupledScalar, x: Tensor, y: Tensor, z: Tensor, gamma1: float, gamma2: float, r: float
) -> Tensor:
    r"""Return the value function's gradient with :math:`\lambda` chosen by the sign of the constraint.

    The multiplier is :math:`r` where the unconstrained proximal point violates :math:`g` and 0 elsewhere, as
    without a proximal term in :math:`\lambda`; at the border it jumps.

    Args:
        problem: the scalar problem.
        x: shape ``(..., 1)``.
        y: shape ``(..., 1)``.
        z: shape ``(..., 1)``.
        gamma1: positive.
        gamma2: positive.
        r: bound of the multiplier.

    Returns:
        Shape ``(..., 3)``.
    """
    stiff, pull = 1 + 1 / gamma1, x + y / gamma1
    lam = torch.where(problem.constraint(x, pull / stiff) > 0, r, 0.0).to(x)
    theta = (pull - lam) / stiff
    return torch.cat(envelope_gradient(problem, x, y, z, theta, lam, gamma1, gamma2), -1)
