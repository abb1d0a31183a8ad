r"""How far from stationary a point of the penalised problem is.

.. math:: R_k(x,y,z)=\operatorname{dist}\bigl(0,(\nabla F,0)+c_k((\nabla f,0)-\nabla v_{\gamma,r})+N_{C\times Z}(x,y,z)\bigr)

for one linear constraint :math:`a^\top(x,y)\le s`, whose normal cone is known in closed form.

Source: Yao, Yu, Zeng and Zhang (ICLR 2024), the residual of Theorem 3.1 (reconstructed, not read).
"""

from __future__ import annotations

import torch
from torch import Tensor

from descent.bilevel.problem import BilevelProblem
from descent.bilevel.proximal_lagrangian import ProximalLagrangian

__all__ = ["penalised_residual"]


def penalised_residual(
    problem: BilevelProblem,
    value: ProximalLagrangian,
    x: Tensor,
    y: Tensor,
    z: Tensor,
    weight: Tensor | float,
    tol: float = 1e-12,
) -> Tensor:
    r"""Return :math:`R_k`.

    Args:
        problem: with a single linear inequality and :math:`X`, :math:`Y` whole spaces.
        value: its value function.
        x: shape ``(..., n)``.
        y: shape ``(..., m)``.
        z: shape ``(..., 1)``.
        weight: :math:`c_k`, broadcastable to ``(..., 1)``.
        tol: slack within which the constraint counts as active.

    Returns:
        Shape ``(...)``.

    Raises:
        ValueError: for more than one constraint, or an equality.
    """
    if z.shape[-1] != 1 or problem.equality:
        raise ValueError("the normal cone is known here for a single inequality only")
    upper_x, upper_y = problem.upper_gradient(x, y)
    v_x, v_y, v_z = value.gradient(x, y, z)
    gradient = torch.cat(
        [
            upper_x + weight * (problem.lower_gradient_x(x, y) - v_x),
            upper_y + weight * (problem.lower_gradient_y(x, y) - v_y),
        ],
        -1,
    )
    one = torch.ones_like(z)
    normal = torch.cat(
        [problem.constraint_product_x(x, y, one), problem.constraint_product_y(x, y, one)], -1
    )
    multiplier = -(gradient * normal).sum(-1, keepdim=True) / (normal**2).sum(-1, keepdim=True)
    active = problem.constraint(x, y) >= -tol
    multiplier = torch.where(active, multiplier.clamp(min=0), 0.0)
    in_xy = gradient + multiplier * normal
    in_z = -weight * v_z
    in_z = torch.where(z <= 0, in_z.clamp(max=0), in_z)
    in_z = torch.where(z >= value.r, in_z.clamp(min=0), in_z)
    return torch.cat([in_xy, in_z], -1).norm(dim=-1)
