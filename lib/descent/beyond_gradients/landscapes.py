r"""Objectives on which heuristics are compared; each maps ``(..., d)`` to ``(...)``.

``grand_canyon`` is the authors' test function (``GrandCanyon3noisy`` of the code of arXiv
2306.09778); the others are standard or defined here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "CountedObjective",
    "double_well",
    "grand_canyon",
    "kink",
    "quadratic",
    "rastrigin",
    "rough_absolute_value",
    "tilted_wells",
]


def grand_canyon(points: Tensor, roughness: float = 1.1625) -> Tensor:
    r"""The canyon: a curved valley with ripples and a wall across it, in two dimensions.

    With :math:`a=v_2-\frac18(v_1-1)(v_1-4)^2-2` (zero along the valley) and :math:`b=-v_1-1.6v_2`
    (zero at the wall),

    .. math:: E(v)=25\bigl(1-e^{-1.4a^2e^{-.002v_1^4}}\bigr)+.4v_1^2+.2v_2^2
              +r\sum_j(1-\cos\tfrac34\pi v_j)+4e^{1-2a^4}\max\bigl((1-e^{-9b^2})\operatorname{sign}b,0\bigr).

    The global minimiser is the origin with :math:`E=0`; the function jumps in slope at the wall.

    Args:
        points: shape ``(..., 2)``.
        roughness: :math:`r`, 1.1625 for the noisy version and 0.25 for the smooth one.

    Returns:
        Shape ``(...)``.

    Raises:
        ValueError: if the points are not two-dimensional.
    """
    if points.shape[-1] != 2:
        raise ValueError(f"grand_canyon needs points (..., 2), got {tuple(points.shape)}")
    first, second = points.unbind(-1)
    # Horner's rule and addcmul: the function is called for small batches many thousand times
    floor = ((0.125 * first - 1.125) * first + 3.0) * first
    valley = (second - floor).square()
    wall = torch.add(first, second, alpha=1.6)
    barrier = (wall.square() * -9.0).expm1() * (wall < 0)
    squared = points.square()
    width = (squared[..., 0].square() * -0.002).exp()
    depth = (valley * width).mul(-1.4).expm1()
    bowl = torch.add(squared[..., 0], squared[..., 1], alpha=0.5)
    ripples = (points * (0.75 * math.pi)).cos().sum(-1)
    crossing = (1.0 - 2.0 * valley.square()).exp() * barrier
    energy = bowl.mul(0.4).add(2 * roughness).add(depth, alpha=-25.0)
    return energy.add(ripples, alpha=-roughness).add(crossing, alpha=-4.0)


def rastrigin(points: Tensor) -> Tensor:
    r"""Smooth and nonconvex: :math:`\sum_jx_j^2+2.5(1-\cos2\pi x_j)`; minimum 0 at the origin."""
    return (points.square() + 2.5 * (1 - (2 * math.pi * points).cos())).sum(-1)


def rough_absolute_value(points: Tensor) -> Tensor:
    r"""Nonsmooth and nonconvex: :math:`\sum_j|x_j|+2.5(1-\cos2\pi x_j)`; minimum 0 at the origin."""
    return (points.abs() + 2.5 * (1 - (2 * math.pi * points).cos())).sum(-1)


def double_well(points: Tensor) -> Tensor:
    r"""Two wells of unequal depth: :math:`\sum_jx_j^4/4-x_j^2+.3x_j`."""
    return tilted_wells(points, torch.ones_like(points[..., :1]))


def tilted_wells(points: Tensor, tilt: Tensor) -> Tensor:
    r"""Return :math:`\sum_jx_j^4/4-x_j^2+.3c_jx_j`.

    Args:
        points: shape ``(..., d)``.
        tilt: :math:`c`, broadcast against ``points``.
    """
    squared = points.square()
    return (squared.square() / 4 - squared + 0.3 * tilt * points).sum(-1)


def kink(points: Tensor) -> Tensor:
    r"""Convex with a kink at 0.4: :math:`\sum_j\max(2x_j-.8,\,-x_j/2+.2)`."""
    return torch.maximum(2 * points - 0.8, 0.2 - points / 2).sum(-1)


def quadratic(matrix: Tensor) -> Callable[[Tensor], Tensor]:
    r"""Return :math:`E(x)=\frac12x^\top Ax` for a symmetric matrix of shape ``(d, d)``."""
    return lambda points: ((points @ matrix) * points).sum(-1) / 2


class CountedObjective:
    """An objective that counts its evaluations, and the backward passes through it.

    Args:
        objective: maps ``(..., d)`` to ``(...)``.
        numpy: hand the points over, and the energies back, as plain NumPy arrays.

    Attributes:
        evaluations: points evaluated since construction.
        backward_passes: gradients that automatic differentiation took of the objective.
    """

    def __init__(self, objective: Callable[[Any], Any], numpy: bool = False) -> None:
        self.objective, self.numpy = objective, numpy
        self.evaluations = self.backward_passes = 0

    def __call__(self, points: Tensor) -> Any:
        self.evaluations += math.prod(points.shape[:-1])
        if self.numpy:
            return self.objective(points.detach().cpu().numpy())
        energies = self.objective(points)
        if energies.requires_grad:
            energies.register_hook(self._count)
        return energies

    def _count(self, gradient: Tensor) -> None:
        self.backward_passes += 1
