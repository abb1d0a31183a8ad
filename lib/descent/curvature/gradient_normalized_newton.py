r"""The gradient-regularised Newton method with its adaptive search.

.. math:: x_{k+1}=x_k-\Bigl(H_k+\frac{\|g_k\|_*}{\gamma_k}B\Bigr)^{-1}g_k .

A probe :math:`\gamma` is accepted if it makes the progress that the theory promises for every
:math:`\gamma\le\gamma(x_k)`,

.. math:: f(x_k)-f(x_{k+1})\ge\frac{\gamma}{8}\frac{\|g_{k+1}\|_*^2}{\|g_k\|_*} ;

then :math:`\gamma` is doubled for the next iterate, otherwise halved and tried again. A factorisation
that fails, or a trial point without a finite value or gradient, is a rejected probe.

Source: Semenov, Jaggi and Doikov (ICLR 2026), Algorithm 1 and its adaptive search, with the constants
of the authors' code; the treatment of failed factorisations is ours (their code then leaves the search
and applies the step of an earlier probe). The other acceptance test is that of the super-universal
Newton method of Doikov, Mishchenko and Nesterov, also from the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from torch import Tensor

from descent.curvature.dual_metric import Metric
from descent.curvature.regularised_steps import RegularisedSteps

__all__ = [
    "Objective",
    "Trace",
    "Trial",
    "accept_always",
    "gradient_normalized_newton",
    "inner_product_progress",
    "sufficient_progress",
]


class Objective(Protocol):
    """A differentiable function."""

    def value(self, x: Tensor) -> float:
        """Return :math:`f(x)`."""
        ...

    def gradient(self, x: Tensor) -> Tensor:
        r"""Return :math:`\nabla f(x)`, shape ``(n,)``."""
        ...

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """Return both; one evaluation."""
        ...


class Trial(NamedTuple):
    r"""What an acceptance test may look at.

    Args:
        decrease: :math:`f(x_k)-f(x_{k+1})`.
        gradient_norm: :math:`\|g_{k+1}\|_*` at the trial point.
        lam: :math:`\lambda=\|g_k\|_*/\gamma`.
        gradient: :math:`g_{k+1}`, shape ``(n,)``.
        step: :math:`x_{k+1}-x_k`, shape ``(n,)``.
    """

    decrease: float
    gradient_norm: float
    lam: float
    gradient: Tensor
    step: Tensor


def sufficient_progress(trial: Trial) -> bool:
    r"""Whether :math:`f_k-f_{k+1}\ge\|g_{k+1}\|_*^2/(8\lambda)`, the progress lemma."""
    return math.isfinite(trial.decrease) and (
        trial.decrease >= trial.gradient_norm**2 / (8 * trial.lam)
    )


def inner_product_progress(trial: Trial) -> bool:
    r"""Whether :math:`\langle g_{k+1},x_k-x_{k+1}\rangle\ge\|g_{k+1}\|_*^2/(4\lambda)` (super-universal Newton)."""
    return math.isfinite(trial.gradient_norm) and (
        -float(trial.gradient @ trial.step) >= trial.gradient_norm**2 / (4 * trial.lam)
    )


def accept_always(trial: Trial) -> bool:
    """No test at all."""
    return True


@dataclass
class Trace:
    r"""A run: one entry per iterate, and one per accepted step.

    Args:
        values: :math:`f(x_k)`, of all iterates including the first.
        gradient_norms: :math:`\|g_k\|_*`, of all iterates.
        points: iterates, if asked for.
        gammas: :math:`\gamma_k` of the accepted steps.
        steps: :math:`\|x_{k+1}-x_k\|` of the accepted steps.
        probes: probes spent on each accepted step.
        failures: probes whose linear system was not positive definite, over the whole run.
        final_gamma: :math:`\gamma` with which the next search would start.
        status: ``"converged"``, ``"iterations"``, ``"search exhausted"`` or ``"not finite"``.
        x: the last iterate, shape ``(n,)``.
    """

    values: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    points: list[Tensor] = field(default_factory=list)
    gammas: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    probes: list[int] = field(default_factory=list)
    failures: int = 0
    final_gamma: float = math.nan
    status: str = "iterations"
    x: Tensor | None = None

    @property
    def iterations(self) -> int:
        """Accepted steps."""
        return len(self.values) - 1

    def first_below(self, tol: float, f_star: float = 0.0) -> int | None:
        r"""Return the first :math:`k` with :math:`f(x_k)-f^*<` ``tol``, or ``None``."""
        return next((k for k, f in enumerate(self.values) if f - f_star < tol), None)

    def first_gradient_below(self, tol: float) -> int | None:
        r"""Return the first :math:`k` with :math:`\|g_k\|_*\le` ``tol``, or ``None``."""
        return next((k for k, g in enumerate(self.gradient_norms) if g <= tol), None)


def gradient_normalized_newton(
    objective: Objective,
    x0: Tensor,
    curvature: Callable[[Tensor], RegularisedSteps],
    metric: Metric | None = None,
    *,
    iterations: int = 1000,
    gamma0: float = 1.0,
    factor: float = 2.0,
    restart: float | None = None,
    accept: Callable[[Trial], bool] = sufficient_progress,
    max_probes: int = 40,
    f_star: float = 0.0,
    tol: float = 1e-8,
    gradient_tol: float = 0.0,
    keep_points: bool = False,
) -> Trace:
    r"""Minimise by regularised Newton steps whose length is searched through :math:`\gamma`.

    Args:
        objective: :math:`f` and :math:`\nabla f`.
        x0: starting point, shape ``(n,)``, float64.
        curvature: from an iterate to the solver of its regularised systems, which holds :math:`H_k`.
        metric: :math:`B`; must be the one that ``curvature`` regularises with. Identity by default.
        iterations: most accepted steps.
        gamma0: :math:`\gamma` of the first probe.
        factor: by which :math:`\gamma` grows after acceptance and shrinks after rejection; 1 keeps it fixed.
        restart: :math:`\gamma` with which every search starts; ``None`` continues from the last one.
        accept: the acceptance test.
        max_probes: per iterate; if all are rejected the run ends.
        f_star: optimal value, if known.
        tol: stop when :math:`f(x_k)-f^*<` ``tol``.
        gradient_tol: stop when :math:`\|g_k\|_*\le` ``gradient_tol``.
        keep_points: keep all iterates in the trace.

    Returns:
        The run; ``status`` says how it ended.

    Raises:
        ValueError: for ``gamma0``, ``factor`` or ``max_probes`` outside their range.
    """
    if not gamma0 > 0 or not factor >= 1 or max_probes < 1:
        raise ValueError(
            f"gamma0 must be positive, factor and max_probes at least 1; got {gamma0}, {factor}, {max_probes}"
        )
    metric = Metric() if metric is None else metric
    x, gamma = x0.clone(), gamma0
    value, gradient = objective.value_and_gradient(x)
    norm = metric.dual_norm(gradient)
    trace = Trace([value], [norm], [x] if keep_points else [])
    while True:
        trace.x, trace.final_gamma = x, gamma
        if not math.isfinite(value) or not math.isfinite(norm):
            trace.status = "not finite"
            return trace
        if value - f_star < tol or norm <= gradient_tol:
            trace.status = "converged"
            return trace
        if trace.iterations == iterations:
            return trace
        solver = curvature(x)
        gamma = gamma if restart is None else restart
        probes = 0
        while probes < max_probes:
            probes += 1
            lam = norm / gamma
            step = solver.step(lam, gradient)
            if step is None:
                trace.failures += 1
            else:
                next_value, next_gradient = objective.value_and_gradient(x + step)
                next_norm = metric.dual_norm(next_gradient)
                if accept(Trial(value - next_value, next_norm, lam, next_gradient, step)):
                    break
            gamma /= factor
        else:
            trace.status, trace.final_gamma = "search exhausted", gamma
            return trace
        trace.gammas.append(gamma)
        trace.steps.append(metric.norm(step))
        trace.probes.append(probes)
        x, value, gradient, norm = x + step, next_value, next_gradient, next_norm
        gamma *= factor
        trace.values.append(value)
        trace.gradient_norms.append(norm)
        if keep_points:
            trace.points.append(x)
