r"""Gradient descent in a metric, its smoothness constant found by doubling and halving.

.. math:: x_{k+1}=x_k-\tfrac1{L_k}B^{-1}g_k,\qquad
          f(x_{k+1})\le f(x_k)+\langle g_k,x_{k+1}-x_k\rangle+\tfrac{L_k}2\|x_{k+1}-x_k\|^2 ;

:math:`L` is doubled until this holds and halved after each step.

Source: the gradient method of the code of Semenov, Jaggi and Doikov (ICLR 2026), with its constants; in
the metric of the data their figures call it "Gauss-Newton".
"""

from __future__ import annotations

import math

from torch import Tensor

from descent.curvature.dual_metric import Metric
from descent.curvature.gradient_normalized_newton import Objective, Trace

__all__ = ["backtracking_gradient"]


def backtracking_gradient(
    objective: Objective,
    x0: Tensor,
    metric: Metric | None = None,
    *,
    iterations: int = 1000,
    first: float = 1.0,
    least: float = 1e-5,
    max_probes: int = 30,
    f_star: float = 0.0,
    tol: float = 1e-8,
) -> Trace:
    r"""Minimise by gradient steps of adaptive length.

    Args:
        objective: :math:`f` and :math:`\nabla f`.
        x0: starting point, shape ``(n,)``.
        metric: :math:`B`; identity by default.
        iterations: most steps.
        first: :math:`L_0`.
        least: smallest :math:`L`, the code's cap on the step; 0 removes it.
        max_probes: per step, after which the run ends.
        f_star: optimal value.
        tol: stop when :math:`f(x_k)-f^*<` ``tol``.

    Returns:
        The run. Its ``gammas`` are :math:`\|g_k\|_*/L_k`, which is the length of the step.
    """
    metric = Metric() if metric is None else metric
    x, smoothness = x0.clone(), first
    value, gradient = objective.value(x), objective.gradient(x)
    trace = Trace([value], [metric.dual_norm(gradient)])
    while True:
        trace.x = x
        if value - f_star < tol:
            trace.status = "converged"
            return trace
        if trace.iterations == iterations:
            return trace
        direction = metric.to_primal(gradient)
        square = trace.gradient_norms[-1] ** 2
        probes = 0
        while probes < max_probes:
            probes += 1
            trial = x - direction / smoothness
            next_value = objective.value(trial)
            if math.isfinite(next_value) and next_value <= value - square / (2 * smoothness):
                break
            smoothness *= 2
        else:
            trace.status = "search exhausted"
            return trace
        x, value, gradient = trial, next_value, objective.gradient(trial)
        trace.probes.append(probes)
        trace.gammas.append(trace.gradient_norms[-1] / smoothness)
        trace.steps.append(trace.gammas[-1])
        smoothness = max(smoothness / 2, least)
        trace.values.append(value)
        trace.gradient_norms.append(metric.dual_norm(gradient))
