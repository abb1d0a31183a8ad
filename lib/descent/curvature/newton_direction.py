r"""Newton directions of the dual potential: from the thinned Hessian by conjugate gradients, or from the dense one.

With the exact row and column sums and the thinned plan :math:`S`, the matrix

.. math:: M=\eta\begin{pmatrix}\mathrm{diag}(P\mathbf 1)&S\\S^\top&\mathrm{diag}(P^\top\mathbf 1)\end{pmatrix}

is symmetric and diagonally dominant, so that the solution of :math:`M\Delta z=\nabla f` ascends. It is solved in the
variables :math:`w=D^{1/2}\Delta z`, :math:`D=\mathrm{diag}(P\mathbf 1,P^\top\mathbf 1)` (Jacobi preconditioner on both
sides), where the null direction :math:`(\mathbf 1,-\mathbf 1)` of the exact Hessian is
:math:`\nu=(\sqrt{P\mathbf 1},-\sqrt{P^\top\mathbf 1})`.

Source: Tang et al. (ICLR 2024), section 3 and their algorithm; preconditioner and projection are choices made here.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from descent.curvature.plan_sparsity import ThinnedPlan, sparsify_top

__all__ = ["Direction", "coupling_product", "dense_direction", "sparse_direction"]

# Above this share of kept entries the products run on the dense matrix: compressed rows no longer pay.
DENSE_SHARE = 0.25


@dataclass(frozen=True)
class Direction:
    """A step for both potentials, and what it took to find it.

    Args:
        step: change of ``(x, y)``, shape ``(n + m,)``; not finite where the solve broke down.
        iterations: conjugate-gradient iterations; 0 for a dense solve.
        kept: entries of the plan that entered the matrix.
        dropped_mass: mass of the others.
    """

    step: Tensor
    iterations: int
    kept: int
    dropped_mass: float


def coupling_product(thinned: ThinnedPlan, scale: Tensor) -> Callable[[Tensor], Tensor]:
    r"""Return the map :math:`w\mapsto w+\begin{pmatrix}0&\tilde S\\\tilde S^\top&0\end{pmatrix}w`, :math:`\tilde S=D^{-1/2}SD^{-1/2}`.

    This is :math:`D^{-1/2}MD^{-1/2}/\eta`. One product costs twice the number of kept entries.

    Args:
        thinned: the kept entries of the plan.
        scale: diagonal of :math:`D^{-1/2}`, shape ``(n + m,)``.

    Returns:
        A function of a vector of shape ``(n + m,)``.
    """
    n, m = thinned.shape
    values = thinned.values * scale[:n][thinned.rows] * scale[n:][thinned.columns]
    if thinned.kept > DENSE_SHARE * n * m:
        block = values.new_zeros(n, m)
        block[thinned.rows, thinned.columns] = values
        return lambda w: torch.cat(
            [torch.addmv(w[:n], block, w[n:]), torch.addmv(w[n:], block.T, w[:n])]
        )
    by_column = torch.argsort(thinned.columns, stable=True)
    columns = torch.cat([thinned.columns + n, thinned.rows[by_column]])
    counts = torch.cat(
        [
            torch.bincount(thinned.rows, minlength=n),
            torch.bincount(thinned.columns, minlength=m),
        ]
    )
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (CSR|invariant)", category=UserWarning)
        # 32-bit indices: the CPU product is twice as fast with them
        matrix = torch.sparse_csr_tensor(
            starts.int(), columns.int(), torch.cat([values, values[by_column]]), (n + m, n + m)
        )
    return lambda w: torch.addmv(w, matrix, w)


def sparse_direction(
    plan: Tensor,
    gradient: Tensor,
    eta: float,
    keep: int,
    *,
    cg_tol: float = 1e-8,
    cg_max: int = 500,
    project: bool = True,
    conjugate: bool = True,
) -> Direction:
    r"""Solve :math:`M\Delta z=\nabla f` with the ``keep`` largest entries of the plan.

    Args:
        plan: :math:`P`, shape ``(n, m)``.
        gradient: :math:`\nabla f`, shape ``(n + m,)``.
        eta: :math:`\eta>0`.
        keep: entries of the plan to keep, of the whole matrix.
        cg_tol: residual at which to stop, relative to the right-hand side, both in the scaled variables.
        cg_max: iterations after which to stop in any case.
        project: remove the null direction :math:`\nu` from the right-hand side and from every product. Without it
            rounding errors grow along :math:`\nu` when :math:`M` is close to the exact, singular Hessian.
        conjugate: make the search directions conjugate; otherwise each is the residual, which is steepest descent.

    Returns:
        The direction. Where a row or column of the plan has lost all mass, or conjugate gradients meet a curvature that
        is not positive at once, the step is not finite.
    """
    thinned = sparsify_top(plan, keep)
    diagonal = torch.cat([plan.sum(1), plan.sum(0)])
    scale = diagonal.rsqrt()
    null = diagonal.sqrt()
    null[plan.shape[0] :].neg_()
    null /= torch.linalg.vector_norm(null)
    product = coupling_product(thinned, scale)
    residual = gradient * scale / eta
    if project:
        residual = residual - null * (null @ residual)
    solution = torch.zeros_like(residual)
    search = residual.clone()
    square = float(residual @ residual)
    goal = cg_tol * math.sqrt(square) if square >= 0 else math.nan
    iterations = 0
    while iterations < cg_max and math.sqrt(square) > goal:
        image = product(search)
        if project:
            image.sub_(null, alpha=float(null @ image))
        curvature = float(search @ image)
        if not curvature > 0:
            # the Krylov space is exhausted to rounding: keep what there is
            solution = solution if iterations else torch.full_like(solution, math.nan)
            break
        length = square / curvature
        solution.add_(search, alpha=length)
        residual.sub_(image, alpha=length)
        previous, square = square, float(residual @ residual)
        if not math.isfinite(square):
            break
        search.mul_(square / previous if conjugate else 0.0).add_(residual)
        iterations += 1
    if not math.isfinite(goal):
        solution = torch.full_like(solution, math.nan)
    return Direction(solution * scale, iterations, thinned.kept, thinned.dropped_mass)


def dense_direction(plan: Tensor, gradient: Tensor, eta: float) -> Direction:
    r"""Solve the exact Newton system :math:`-\nabla^2f\,\Delta z=\nabla f` by factorisation.

    The rank-one term :math:`\nu\nu^\top` (in the scaled variables) fills the null direction; the gradient is orthogonal
    to it, so that it does not change the step. The cost is that of one Cholesky factorisation, :math:`(n+m)^3/3`.

    Args:
        plan: :math:`P`, shape ``(n, m)``.
        gradient: :math:`\nabla f`, shape ``(n + m,)``.
        eta: :math:`\eta>0`.

    Returns:
        The direction; not finite where the factorisation breaks down.
    """
    n, m = plan.shape
    diagonal = torch.cat([plan.sum(1), plan.sum(0)])
    scale = diagonal.rsqrt()
    null = diagonal.sqrt()
    null[n:].neg_()
    null /= torch.linalg.vector_norm(null)
    matrix = torch.outer(null, null)
    matrix.diagonal().add_(1.0)
    coupling = scale[:n, None] * plan * scale[n:]
    matrix[:n, n:] += coupling
    matrix[n:, :n] += coupling.T
    factor, info = torch.linalg.cholesky_ex(matrix)
    right = gradient * scale / eta
    right = right - null * (null @ right)
    if int(info) != 0:
        return Direction(torch.full_like(gradient, math.nan), 0, n * m, 0.0)
    step = torch.cholesky_solve(right.unsqueeze(1), factor).squeeze(1) * scale
    return Direction(step, 0, n * m, 0.0)
