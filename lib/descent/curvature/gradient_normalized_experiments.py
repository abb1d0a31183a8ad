r"""Runs, controls and measurements of the chapter on gradient-normalized smoothness.

Source: Semenov, Jaggi and Doikov (ICLR 2026) and their notebook for the arms; controls are added here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from descent.curvature.approximate_hessians import (
    PowerOfResidual,
    dense_curvature,
    no_curvature,
    rank_one_curvature,
)
from descent.curvature.dual_metric import Metric
from descent.curvature.gradient_normalized_instances import Instance
from descent.curvature.gradient_normalized_newton import Trace, gradient_normalized_newton
from descent.curvature.regularised_steps import RankOneSteps, RegularisedSteps

__all__ = [
    "NoisySteps",
    "PhaseRun",
    "ScrambledFisher",
    "arrival",
    "decades",
    "minimise",
    "phase_runs",
    "progress_ratios",
]


def minimise(
    instance: Instance,
    kind: str,
    *,
    metric: Metric | None = None,
    shift: float = 0.0,
    **options: Any,
) -> Trace:
    r"""Run the gradient-normalized Newton method with a kind of matrix.

    Args:
        instance: problem, start, metric and optimal value.
        kind: ``"exact"``, ``"gauss_newton"``, ``"fisher"`` (rank one for powers of residuals) or ``"none"``.
        metric: in place of that of the instance.
        shift: adds this multiple of the metric to the matrix, a constant error.
        options: of :func:`~descent.curvature.gradient_normalized_newton.gradient_normalized_newton`.

    Returns:
        The run.
    """
    problem = instance.problem
    metric = instance.metric if metric is None else metric
    if kind == "none":
        curvature = no_curvature(metric)
    elif kind == "fisher" and isinstance(problem, PowerOfResidual):
        curvature = rank_one_curvature(problem, metric)
    else:
        curvature = dense_curvature(problem, kind, metric, shift=shift)
    options = {"f_star": instance.f_star} | options
    return gradient_normalized_newton(problem, instance.x0, curvature, metric, **options)


def arrival(trace: Trace, f_star: float = 0.0, tol: float = 1e-8) -> int | None:
    r"""Return the first iterate with :math:`f-f^*<` ``tol`` or :math:`\|g\|_*\le` ``tol``, or ``None``."""
    found = (trace.first_below(tol, f_star), trace.first_gradient_below(tol))
    return min((k for k in found if k is not None), default=None)


class ScrambledFisher:
    """A Fisher term whose vector is replaced by a random one of the same norm: a control."""

    def __init__(self, problem: PowerOfResidual, metric: Metric, generator: torch.Generator):
        self.problem, self.metric, self.generator = problem, metric, generator

    def __call__(self, x: Tensor) -> RegularisedSteps:
        weight, q = self.problem.fisher_term(x)
        noise = torch.randn(len(q), generator=self.generator, dtype=q.dtype).to(q.device)
        return RankOneSteps(weight, noise * (q.norm() / noise.norm()), self.metric)


class NoisySteps:
    r"""Solves with a random residual of a given relative size: the worst that a loose solve may be.

    Args:
        exact: solves the system exactly.
        metric: :math:`B`.
        size: :math:`\eta`, the residual's dual norm over that of the gradient.
        generator: of the directions; Gaussian covectors, scaled.
    """

    def __init__(
        self, exact: RegularisedSteps, metric: Metric, size: float, generator: torch.Generator
    ) -> None:
        self.exact, self.metric, self.size, self.generator = exact, metric, size, generator

    def step(self, lam: float, gradient: Tensor) -> Tensor | None:
        """Return the exact step for a gradient moved by the residual."""
        noise = torch.randn(len(gradient), generator=self.generator, dtype=gradient.dtype)
        noise = self.metric.to_dual(noise.to(gradient.device))
        scale = self.size * self.metric.dual_norm(gradient) / self.metric.dual_norm(noise)
        return self.exact.step(lam, gradient + scale * noise)


def progress_ratios(trace: Trace) -> np.ndarray:
    r"""Return the progress of each step over the progress lemma's, :math:`\frac{\gamma_k}8\|g_{k+1}\|_*^2/\|g_k\|_*`."""
    f, g, gamma = (np.array(v) for v in (trace.values, trace.gradient_norms, trace.gammas))
    return (f[:-1] - f[1:]) / (gamma / 8 * g[1:] ** 2 / g[:-1])


def decades(trace: Trace, f_star: float, exponents: range) -> list[int | None]:
    r"""Return the iterations to :math:`f-f^*<10^{-e}` for each exponent."""
    return [trace.first_below(10.0**-e, f_star) for e in exponents]


@dataclass(frozen=True)
class PhaseRun:
    """Runs on :math:`f=|x|^p/p` with an inexact second derivative, one per cell.

    Args:
        iterations: accepted steps until the tolerance, or the limit.
        converged: whether the tolerance was reached.
        tail: geometric mean of the last ten ratios of successive values.
    """

    iterations: Tensor
    converged: Tensor
    tail: Tensor


def phase_runs(
    power: Tensor,
    error: Tensor,
    exponent: Tensor,
    x0: Tensor,
    *,
    offset: Tensor | float = 0.0,
    tol: float = 1e-12,
    limit: int = 5000,
) -> PhaseRun:
    r"""Run the adaptive method in one dimension on many functions at once.

    The function is :math:`f(x)=|x|^p/p`, for which :math:`\gamma(x)\propto\|g\|^\alpha` with
    :math:`\alpha=1/(p-1)`, and the second derivative is replaced by
    :math:`H=(p-1)|x|^{p-2}+C_1+C_2|g|^{1-\beta}`. Each round is one probe of every cell; cells accept
    and reject on their own.

    Args:
        power: :math:`p\ge2`, shape ``(cells,)``, float64.
        error: :math:`C_2\ge0`, shape ``(cells,)``.
        exponent: :math:`\beta` in [0, 1], shape ``(cells,)``.
        x0: starts, shape ``(cells,)``.
        offset: :math:`C_1\ge0`, a number or shape ``(cells,)``.
        tol: a cell ends at :math:`f<` ``tol``.
        limit: most accepted steps.

    Returns:
        The outcome of every cell.
    """
    window = 10
    x, gamma = x0.clone(), torch.ones_like(x0)
    base = x.abs() ** (power - 2)  # all else follows from |x|^(p-2); powers are what takes the time
    value = base * x.square() / power
    steps = torch.zeros_like(x)
    recent = value.repeat(window, 1)
    while True:
        active = (value >= tol) & (steps < limit)
        if not bool(active.any()):
            break
        g = base * x
        lam = g.abs() / gamma
        curvature = (power - 1) * base + offset + error * g.abs() ** (1 - exponent)
        trial = x - g / (curvature + lam)
        next_base = trial.abs() ** (power - 2)
        next_value = next_base * trial.square() / power
        accept = active & (value - next_value >= (next_base * trial).square() / (8 * lam))
        reject = active & ~accept
        slot = (steps.long() % window)[None]
        recent.scatter_(0, slot, torch.where(accept, value, recent.gather(0, slot)[0])[None])
        x, value = torch.where(accept, trial, x), torch.where(accept, next_value, value)
        base = torch.where(accept, next_base, base)
        gamma = torch.where(accept, 2 * gamma, torch.where(reject, gamma / 2, gamma))
        steps = steps + accept
    oldest = recent.gather(0, (steps.long() % window)[None])[0]
    count = steps.clamp(min=1, max=window)
    tail = (value.clamp(min=math.ulp(0.0)) / oldest) ** (1 / count)
    return PhaseRun(steps, value < tol, tail)
