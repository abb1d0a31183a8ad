r"""Gradient-normalized smoothness: how far a linear model of the gradient can be trusted.

For a function with gradient :math:`\nabla f`, a point :math:`x`, a covector :math:`g` (the gradient
unless given) and a symmetric matrix :math:`H`,

.. math:: \gamma(x,g)=\max\Bigl\{\gamma\ge0:\ \|\nabla f(x+h)-\nabla f(x)-Hh\|_*\le
          \frac{\|g\|_*}\gamma\|h\|\ \text{ for all }\|h\|\le\gamma,\ h\in O_{x,g}\Bigr\},

with the region :math:`O_{x,g}=\{h:\langle Gh,h\rangle+\langle g,h\rangle\le0\}` of a matrix
:math:`G`. A regularised Newton step lies in the region of its own :math:`H`, so :math:`G=H` unless
another is given; without the region the whole ball counts.

The condition is monotone in :math:`\gamma`, and along one direction it is a crossing: with
:math:`E(r)` the largest error per length up to the radius :math:`r`, the radius sought is that at
which :math:`\gamma E(\gamma)` passes :math:`\|g\|_*`.

Source: Semenov, Jaggi and Doikov (ICLR 2026), Definition 1, as restated by a third party; whose
Hessian enters the region could not be read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from descent.curvature.dual_metric import Metric

__all__ = ["gradient_normalized_smoothness", "harmonic_combination"]


def harmonic_combination(*radii: float) -> float:
    r"""Return :math:`(\sum_i1/\gamma_i)^{-1}`, the guarantee for added errors.

    Args:
        radii: positive; infinity contributes nothing.
    """
    return 1 / total if (total := sum(1 / r for r in radii)) else math.inf


def gradient_normalized_smoothness(
    gradient: Callable[[Tensor], Tensor],
    x: Tensor,
    model: Tensor,
    *,
    g: Tensor | None = None,
    region: Tensor | Literal["model", "ball"] = "model",
    metric: Metric | None = None,
    directions: Tensor | None = None,
    samples: int = 2048,
    smallest: float = 1e-6,
    largest: float = 1e6,
    normalised: bool = True,
) -> float:
    r"""Measure :math:`\gamma(x,g)` along directions, to the resolution of a two-level grid.

    In one dimension the two directions are all there are and the result is :math:`\gamma`. In more,
    it is the minimum over the directions handed over, hence an upper estimate.

    Args:
        gradient: :math:`\nabla f`, from points of shape ``(k, n)`` to shape ``(k, n)``.
        x: shape ``(n,)``, floating point; use float64.
        model: :math:`H`, symmetric, shape ``(n, n)``.
        g: covector, shape ``(n,)``; :math:`\nabla f(x)` by default.
        region: the matrix :math:`G` of the region, ``"model"`` for :math:`G=H`, or ``"ball"``.
        metric: the norms; Euclidean by default.
        directions: shape ``(k, n)``, of any length but zero; by default both signs of every axis.
        samples: grid points per level and direction.
        smallest: radius from which on is searched; nearer to :math:`x` round-off is all one sees.
        largest: radius up to which is searched; beyond it the result is infinite.
        normalised: with ``False`` the factor :math:`\|g\|_*` is dropped from the condition, an
            absolute error that the paper does not use, kept for comparison.

    Returns:
        :math:`\gamma`; 0 where it is below ``smallest``, infinity where no error is seen.

    Raises:
        ValueError: for shapes that do not fit, fewer than two samples, or a region matrix with
            negative curvature in a direction of ascent, for which the region is not a segment.
    """
    n = x.numel()
    if x.shape != (n,) or model.shape != (n, n):
        raise ValueError(
            f"x and model must have shapes (n,) and (n, n), got {tuple(x.shape)}, {tuple(model.shape)}"
        )
    if samples < 2:
        raise ValueError(f"samples must be at least 2, got {samples}")
    metric = Metric() if metric is None else metric
    at_x = gradient(x[None])[0]
    g = at_x if g is None else g
    level = metric.dual_norm(g) if normalised else 1.0
    if directions is None:
        directions = torch.cat([torch.eye(n, dtype=x.dtype), -torch.eye(n, dtype=x.dtype)]).to(x)
    matrix = None if isinstance(region, str) and region == "ball" else region
    matrix = model if isinstance(matrix, str) else matrix

    def dual_norms(rows: Tensor) -> Tensor:
        if metric.factor is None:
            return rows.norm(dim=1)
        return torch.linalg.solve_triangular(metric.factor, rows.mT, upper=False).norm(dim=0)

    def error_per_length(unit: Tensor, radii: Tensor) -> Tensor:
        steps = radii[:, None] * unit
        change, linear = gradient(x + steps) - at_x, steps @ model
        # A difference of gradients is known to round-off only: what is below that is no error.
        noise = 32 * torch.finfo(x.dtype).eps * (dual_norms(at_x[None]) + dual_norms(linear))
        found = dual_norms(change - linear)
        found = torch.where(found <= noise, 0.0, found) / radii
        return torch.nan_to_num(found, nan=math.inf, posinf=math.inf)

    radius = math.inf
    fractions = torch.linspace(0, 1, samples, dtype=x.dtype, device=x.device)
    for direction in directions:
        unit = direction / metric.norm(direction)
        reach = largest
        if matrix is not None:
            slope, curvature = float(g @ unit), float(unit @ matrix @ unit)
            if max(slope, curvature) > 0 and min(slope, curvature) >= 0:
                continue  # only h = 0 of this direction is in the region
            if slope > 0:
                raise ValueError("a region matrix with negative curvature uphill is not supported")
            reach = min(reach, -slope / curvature) if curvature > 0 else reach
        low = min(smallest, reach)
        radii = low * (reach / low) ** fractions
        worst = error_per_length(unit, radii).cummax(0).values
        beyond = (radii * worst > level).nonzero()
        if not len(beyond):
            if reach < largest and float(worst[-1]) > 0:
                radius = min(radius, level / float(worst[-1]))
            continue
        first = int(beyond[0])
        if first == 0:
            return 0.0
        low, high, before = float(radii[first - 1]), float(radii[first]), float(worst[first - 1])
        fine = low + (high - low) * fractions
        worst = error_per_length(unit, fine).cummax(0).values.clamp(min=before)
        passed = (fine * worst > level).nonzero()
        radius = min(radius, float(fine[int(passed[0])]) if len(passed) else high)
    return radius
