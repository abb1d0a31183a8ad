r"""Derivatives from finite complex displacements: Cauchy's integral formula on a circle.

For :math:`f` holomorphic in a disc around 0 that contains the circle of radius :math:`\rho`,

.. math:: f'(0)=\frac1{2\pi i}\oint\frac{f(z)}{z^2}\,dz=\frac1N\sum_{k<N}\frac{f(\rho e^{2\pi ik/N})}{\rho e^{2\pi ik/N}}
          -\sum_{m\ge1}c_{1+mN}\,\rho^{mN},

with the Taylor coefficients :math:`c_j` of :math:`f`: the mean over :math:`N\ge2` points has an error of order
:math:`\rho^N`, without making :math:`\rho` small. If :math:`f(\bar z)=\overline{f(z)}`, half of the circle suffices.

Source: Laborieux and Zenke (ICLR 2024), holomorphic equilibrium propagation; the error term is the classical one
of the trapezoidal rule on a circle.
"""

from __future__ import annotations

import cmath
from collections.abc import Callable

from torch import Tensor

__all__ = ["cauchy_derivative", "circle", "half_circle"]


def circle(radius: float, points: int) -> list[complex]:
    r"""Return :math:`\rho e^{2\pi ik/N}` for :math:`k<N`, the exact real numbers where real.

    Args:
        radius: :math:`\rho>0`.
        points: :math:`N\ge1`.

    Raises:
        ValueError: for arguments outside these ranges.
    """
    if radius <= 0:
        raise ValueError(f"radius must be positive, got {radius}")
    if points < 1:
        raise ValueError(f"points must be at least 1, got {points}")
    turn = [cmath.exp(2j * cmath.pi * k / points) for k in range(points)]
    real = {0: 1.0, points / 2: -1.0}
    return [radius * complex(real.get(k, z)) for k, z in enumerate(turn)]


def half_circle(radius: float, points: int) -> list[tuple[complex, int]]:
    """Return the points that conjugate symmetry leaves, with their multiplicity 1 (real) or 2.

    Args:
        radius: positive.
        points: of the whole circle; odd numbers have no point at ``-radius``.
    """
    nudges = circle(radius, points)
    return [(nudges[k], 1 if k in (0, points / 2) else 2) for k in range(points // 2 + 1)]


def cauchy_derivative(function: Callable[[complex], Tensor], radius: float, points: int) -> Tensor:
    r"""Estimate :math:`f'(0)` of a function that is real on the real axis.

    One point is the one-sided difference :math:`(f(\rho)-f(0))/\rho`, two the symmetric difference; both use
    real displacements only. More points need a function that takes complex ones.

    Args:
        function: maps a displacement to a tensor, with :math:`f(\\bar z)=\\overline{f(z)}`; evaluated at
            ``points // 2 + 1`` of the points, and at 0 if ``points`` is 1.
        radius: :math:`\rho`, below the distance to the nearest singularity.
        points: :math:`N\ge1`.

    Returns:
        The real estimate, shape of the function's value.

    Raises:
        ValueError: for a radius that is not positive or fewer points than one.
    """
    if points == 1:
        ((point, _),) = half_circle(radius, points)
        return (function(point) - function(0j)).real / radius
    total: Tensor | None = None
    for point, multiplicity in half_circle(radius, points):
        term = multiplicity * (function(point) / point).real
        total = term if total is None else total + term
    assert total is not None
    return total / points
