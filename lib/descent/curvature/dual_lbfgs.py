r"""L-BFGS on the dual potential, a quasi-Newton baseline that never sees the Hessian.

Source: not in the paper, whose reviewers asked for it; the optimiser is that of SciPy (Zhu et al. 1997).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from descent.curvature.entropic_transport import EntropicOT
from descent.curvature.sinkhorn import sinkhorn_sweep

__all__ = ["LBFGSResult", "dual_lbfgs"]


@dataclass(frozen=True)
class LBFGSResult:
    """Where a run ended and the marginal error at each evaluation.

    Args:
        x: row potential, shape ``(n,)``.
        y: column potential, shape ``(m,)``.
        errors: least marginal error so far, after each evaluation of potential and gradient.
        converged: whether it fell below the tolerance.
    """

    x: Tensor
    y: Tensor
    errors: tuple[float, ...]
    converged: bool


class _Converged(Exception):
    """Ends SciPy's loop at the tolerance."""


def dual_lbfgs(
    problem: EntropicOT,
    *,
    warmup: int = 20,
    evaluations: int = 2000,
    memory: int = 20,
    tol: float = 1e-12,
) -> LBFGSResult:
    r"""Maximise :math:`f` by L-BFGS after Sinkhorn sweeps.

    Args:
        problem: the transport problem.
        warmup: Sinkhorn sweeps before the first evaluation.
        evaluations: most evaluations of potential and gradient, one plan each.
        memory: pairs kept for the approximation of the inverse Hessian.
        tol: marginal error at which to stop.

    Returns:
        The best point found, and the error history.

    Raises:
        ValueError: if ``evaluations`` or ``memory`` is less than 1.
    """
    if evaluations < 1 or memory < 1:
        raise ValueError(f"evaluations and memory must be at least 1, got {evaluations}, {memory}")
    x, y = problem.start()
    for _ in range(warmup):
        x, y = sinkhorn_sweep(problem, x, y)
    n = x.numel()
    best = torch.cat([x, y])
    errors: list[float] = []

    def negative(point: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best
        z = torch.from_numpy(point).to(best)
        plan = problem.plan(z[:n], z[n:])
        gradient = problem.gradient(z[:n], z[n:], plan)
        error = float(gradient.abs().sum())
        if not errors or error < errors[-1]:
            best = z.clone()
        errors.append(min([error, *errors[-1:]]))
        if error < tol:
            raise _Converged
        # in units of 1/eta the variables are of order one, as the first step of L-BFGS presumes
        value = -problem.eta * float(problem.potential(z[:n], z[n:], plan))
        return value, (-problem.eta * gradient).cpu().numpy()

    options = {
        "maxfun": evaluations,
        "maxiter": evaluations,
        "maxcor": memory,
        "ftol": 0.0,
        "gtol": 0.0,
    }
    with contextlib.suppress(_Converged):
        minimize(negative, best.cpu().numpy(), jac=True, method="L-BFGS-B", options=options)
    return LBFGSResult(best[:n], best[n:], tuple(errors), errors[-1] < tol)
