r"""Levenberg-Marquardt for a batch of small nonlinear least-squares problems.

.. math:: \min_w\tfrac12\|r(w)\|^2,\qquad
          \Delta w=-\bigl(J^\top J+\lambda\,\operatorname{diag}(J^\top J)\bigr)^{-1}J^\top r .

A step is kept if the cost falls, and then :math:`\lambda\leftarrow\lambda/5`; else :math:`\lambda\leftarrow4\lambda`.
Where costs agree to twelve digits, round-off decides that comparison; there a step is kept if the gradient shrinks.

Source: Levenberg (1944), Marquardt (1963); Chalapathi, Du and Krishnapriyan (ICLR 2024) for its place in a hard
constraint, at most 50 iterations and a tolerance of 1e-4. The schedule of the damping is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["LMResult", "LeastSquares", "levenberg_marquardt"]


LIMIT = 1e-12
SMALL_BATCH = 32


class LeastSquares(Protocol):
    """A batch of problems that can state its normal equations."""

    def normal_equations(self, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""Return :math:`J^\top J`, :math:`J^\top r` and :math:`\|r\|^2` at ``weights`` of shape ``(..., N)``.

        Args:
            weights: the unknowns of each problem.

        Returns:
            Shapes ``(..., N, N)``, ``(..., N)`` and ``(...)``.
        """
        ...

    def select(self, index: Tensor) -> LeastSquares:
        """Return some of the problems as a batch of one axis.

        Args:
            index: into the flattened batch, shape ``(B,)``.

        Returns:
            The smaller batch.
        """
        ...


@dataclass(frozen=True)
class LMResult:
    """The outcome of each problem of a batch.

    Attributes:
        weights: minimisers, shape ``(..., N)``.
        iterations: steps tried until the problem stopped, shape ``(...)``.
        cost: squared norm of the residual, shape ``(...)``.
        gradient_norm: norm of :math:`J^\\top r` at the end, shape ``(...)``; the implicit gradient is
            only as good as this is small.
        converged: whether the tolerance was met within the iterations, shape ``(...)``.
    """

    weights: Tensor
    iterations: Tensor
    cost: Tensor
    gradient_norm: Tensor
    converged: Tensor


@torch.no_grad()
def levenberg_marquardt(
    problem: LeastSquares,
    start: Tensor,
    max_iter: int = 50,
    tol: float = 1e-4,
    damping: float = 1e-3,
) -> LMResult:
    r"""Minimise every problem of the batch; one that has stopped stays as it is while others go on.

    So the answer to one problem does not depend on its neighbours in the batch.

    Args:
        problem: the batch.
        start: first weights, float64, shape ``(..., N)``.
        max_iter: most steps tried.
        tol: a problem stops when an accepted step lowers :math:`\|r\|^2` by less than this fraction; with 0 it
            goes on to the end.
        damping: first :math:`\lambda>0`.

    Returns:
        Weights and diagnostics.

    Raises:
        TypeError: for a start that is not float64; the normal equations lose half of the digits.
        ValueError: for options out of range.
    """
    if start.dtype != torch.float64:
        raise TypeError(
            f"Levenberg-Marquardt needs float64 here, not {start.dtype}; cast the basis"
        )
    if max_iter < 1 or tol < 0 or damping <= 0:
        raise ValueError(
            f"max_iter >= 1, tol >= 0 and damping > 0 are needed, got {max_iter}, {tol}, {damping}"
        )
    shape, size = start.shape[:-1], start.shape[-1]
    whole = start.reshape(-1, size).clone()
    count = len(whole)
    every = torch.arange(count, device=start.device)
    active, problem, weights = every, problem.select(every), whole.clone()
    gram, gradient, cost = problem.normal_equations(weights)
    level, running = torch.full_like(cost, damping), torch.ones_like(cost, dtype=torch.bool)
    all_cost, all_norm = cost.clone(), gradient.norm(dim=-1)
    iterations, converged = torch.zeros_like(active), torch.zeros_like(running)
    tiny = torch.finfo(cost.dtype).tiny
    for iteration in range(1, max_iter + 1):
        diagonal = gram.diagonal(dim1=-2, dim2=-1)
        damped = gram + torch.diag_embed(level[:, None] * diagonal + tiny)
        factor, failed = torch.linalg.cholesky_ex(damped)
        trial = weights - torch.cholesky_solve(gradient[..., None], factor)[..., 0]
        new_gram, new_gradient, new_cost = problem.normal_equations(trial)
        lower = new_cost < cost * (1 - LIMIT)
        level_ground = (new_cost <= cost * (1 + LIMIT)) & (
            new_gradient.square().sum(-1) < gradient.square().sum(-1)
        )
        better = running & (lower | level_ground) & (failed == 0)
        small = better & (cost - new_cost <= tol * cost) & (tol > 0)
        level = torch.where(better, level / 5, level * 4)
        weights = torch.where(better[:, None], trial, weights)
        gradient = torch.where(better[:, None], new_gradient, gradient)
        gram = torch.where(better[:, None, None], new_gram, gram)
        cost = torch.where(better, new_cost, cost)
        iterations[active] += running
        running = running & ~small
        left = int(running.sum())
        few = len(active) > SMALL_BATCH and 2 * left <= len(active)
        if not left or few or iteration == max_iter:
            whole[active], all_cost[active] = weights, cost
            all_norm[active], converged[active] = gradient.norm(dim=-1), ~running
            if not left or iteration == max_iter:
                break
            # go on with the problems that still run; the others are done
            keep = running.nonzero()[:, 0]
            active, problem, weights = active[keep], problem.select(keep), weights[keep]
            gram, gradient, cost, level = gram[keep], gradient[keep], cost[keep], level[keep]
            running = running[keep]
    return LMResult(
        whole.reshape(start.shape),
        iterations.reshape(shape),
        all_cost.reshape(shape),
        all_norm.reshape(shape),
        converged.reshape(shape),
    )
