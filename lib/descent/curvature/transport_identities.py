r"""Numerical checks of the identities behind Sinkhorn and Newton's method on the dual potential.

Each check takes the plan times a ``factor``. With 1 it tests the identity; with :math:`e` it tests what becomes of it when
the :math:`-1` in the exponent of the plan is forgotten in the plan, but not in the potential.

Source: Tang et al. (ICLR 2024), section 3.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from descent.curvature.entropic_transport import EntropicOT
from descent.curvature.sinkhorn import maximise_columns, maximise_rows

__all__ = ["DerivativeErrors", "HalfSweep", "derivative_errors", "half_sweeps"]


class DerivativeErrors(NamedTuple):
    r"""Deviations at one point.

    Args:
        gradient: largest deviation of :math:`\nabla f` from automatic differentiation.
        hessian: the same for :math:`\nabla^2f`.
        eigenvalue: largest eigenvalue of :math:`\nabla^2f` over its norm; not above rounding for a concave function.
        null: largest entry of :math:`\nabla^2f\,(\mathbf 1,-\mathbf 1)` over the norm.
    """

    gradient: float
    hessian: float
    eigenvalue: float
    null: float


def derivative_errors(
    problem: EntropicOT, x: Tensor, y: Tensor, factor: float = 1.0
) -> DerivativeErrors:
    r"""Compare gradient and Hessian with automatic differentiation, and test concavity and null direction.

    Args:
        problem: the transport problem.
        x: row potential, shape ``(n,)``.
        y: column potential, shape ``(m,)``.
        factor: multiplies the plan; for concavity and null direction in the off-diagonal blocks only.

    Returns:
        The four deviations.
    """
    n = x.numel()
    z, plan = torch.cat([x, y]), problem.plan(x, y)

    def potential(z: Tensor) -> Tensor:
        return problem.potential(z[:n], z[n:])

    gradient = torch.func.grad(potential)(z)
    hessian = torch.func.hessian(potential)(z)
    blocks = problem.hessian(x, y, plan)
    diagonal = torch.diag(blocks.diagonal())
    mixed = diagonal + factor * (blocks - diagonal)
    norm = torch.linalg.matrix_norm(blocks, 2)
    null = torch.cat([torch.ones_like(x), -torch.ones_like(y)])
    return DerivativeErrors(
        float((problem.gradient(x, y, factor * plan) - gradient).abs().max()),
        float((problem.hessian(x, y, factor * plan) - hessian).abs().max()),
        float(torch.linalg.eigvalsh(mixed).max() / norm),
        float((mixed @ null).abs().max() / norm),
    )


class HalfSweep(NamedTuple):
    """What one half-sweep of Sinkhorn did.

    Args:
        residual: largest entry of the block of the gradient that it should have set to zero.
        decrease: decrease of the potential relative to max(1, its size); not above rounding.
        reversed_decrease: the same for the half-sweep with its sign reversed.
    """

    residual: float
    decrease: float
    reversed_decrease: float


def half_sweeps(
    problem: EntropicOT, x: Tensor, y: Tensor, count: int, factor: float = 1.0
) -> list[HalfSweep]:
    """Make ``count`` half-sweeps, rows and columns in turn, and check each.

    Args:
        problem: the transport problem.
        x: row potential to start from, shape ``(n,)``.
        y: column potential to start from, shape ``(m,)``.
        count: half-sweeps to make.
        factor: multiplies the plan in the gradient.

    Returns:
        One check per half-sweep.
    """
    n, found = x.numel(), []
    value = float(problem.potential(x, y))
    for half in range(count):
        old_x, old_y = x, y
        if half % 2 == 0:
            x, block = maximise_rows(problem, y), slice(None, n)
        else:
            y, block = maximise_columns(problem, x), slice(n, None)
        residual = problem.gradient(x, y, factor * problem.plan(x, y))[block].abs().max()
        scale = max(1.0, abs(value))
        new_value = float(problem.potential(x, y))
        backward = float(problem.potential(2 * old_x - x, 2 * old_y - y))
        found.append(
            HalfSweep(float(residual), (value - new_value) / scale, (value - backward) / scale)
        )
        value = new_value
    return found
