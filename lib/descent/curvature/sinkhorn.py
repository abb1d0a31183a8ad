r"""Sinkhorn's algorithm: alternating exact maximisation of the dual potential.

One sweep sets first the rows, then the columns right,

.. math:: x\leftarrow x+\frac{\log r-\log P\mathbf 1}{\eta},\qquad
          y\leftarrow y+\frac{\log c-\log P^\top\mathbf 1}{\eta} ,

each half being the exact maximiser of :math:`f` in its block. :func:`sinkhorn_sweep` does it with log-sum-exp,
:func:`sinkhorn_stabilized` with the kernel and two scaling vectors, which is an order of magnitude cheaper.

Source: Tang et al. (ICLR 2024), section 3; the absorption of scalings is that of Schmitzer (2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from descent.curvature.entropic_transport import LEAST_EXPONENT, EntropicOT

__all__ = [
    "SinkhornResult",
    "maximise_columns",
    "maximise_rows",
    "sinkhorn_stabilized",
    "sinkhorn_sweep",
]


@dataclass(frozen=True)
class SinkhornResult:
    """Where a Sinkhorn run ended and how it got there.

    Args:
        x: row potential, shape ``(n,)``.
        y: column potential, shape ``(m,)``.
        sweeps: sweeps made.
        converged: whether the marginal error fell below the tolerance.
        checked: sweeps after which the error was measured.
        errors: the marginal error there.
    """

    x: Tensor
    y: Tensor
    sweeps: int
    converged: bool
    checked: tuple[int, ...]
    errors: tuple[float, ...]


def maximise_rows(problem: EntropicOT, y: Tensor) -> Tensor:
    r"""Return :math:`x_i=[\log r_i+1-\mathrm{LSE}_j\,\eta(y_j-C_{ij})]/\eta`, the maximiser of :math:`f(\cdot,y)`.

    Args:
        problem: the transport problem.
        y: column potential, shape ``(m,)``.

    Returns:
        Row potential, shape ``(n,)``; the plan then has the row sums ``source``.
    """
    log_sums = _log_sum_exp(problem.eta * (y - problem.cost), 1)
    return (problem.source.log() + 1.0 - log_sums) / problem.eta


def maximise_columns(problem: EntropicOT, x: Tensor) -> Tensor:
    r"""Return :math:`y_j=[\log c_j+1-\mathrm{LSE}_i\,\eta(x_i-C_{ij})]/\eta`, the maximiser of :math:`f(x,\cdot)`.

    Args:
        problem: the transport problem.
        x: row potential, shape ``(n,)``.

    Returns:
        Column potential, shape ``(m,)``; the plan then has the column sums ``target``.
    """
    log_sums = _log_sum_exp(problem.eta * (x.unsqueeze(1) - problem.cost), 0)
    return (problem.target.log() + 1.0 - log_sums) / problem.eta


def sinkhorn_sweep(problem: EntropicOT, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the potentials after one sweep, rows first, in the log domain.

    Args:
        problem: the transport problem.
        x: row potential, shape ``(n,)``. It is overwritten by the first half, and enters only for symmetry.
        y: column potential, shape ``(m,)``.

    Returns:
        The new ``x`` and ``y``.
    """
    x = maximise_rows(problem, y)
    return x, maximise_columns(problem, x)


def _log_sum_exp(exponents: Tensor, dim: int) -> Tensor:
    """``torch.logsumexp`` without its detour through subnormal numbers (see ``LEAST_EXPONENT``)."""
    largest = exponents.amax(dim, keepdim=True)
    terms = (exponents - largest).clamp_min_(LEAST_EXPONENT).exp_()
    return largest.squeeze(dim) + terms.sum(dim).log_()


def sinkhorn_stabilized(
    problem: EntropicOT,
    x: Tensor | None = None,
    y: Tensor | None = None,
    *,
    tol: float = 1e-12,
    max_sweeps: int = 20_000,
    absorb: int = 50,
    check: int = 10,
) -> SinkhornResult:
    r"""Run Sinkhorn in kernel form until the marginal error is below ``tol``.

    Between two absorptions the potentials are fixed and :math:`K=P(x,y)` is scaled to
    :math:`\mathrm{diag}(u)K\,\mathrm{diag}(v)`, two matrix-vector products per sweep. Every ``absorb`` sweeps the scalings
    move into the potentials, :math:`x\leftarrow x+\log u/\eta`, and :math:`K` is evaluated anew, so that neither
    overflows. The first sweeps, and any block in which a scaling leaves the range of ``float64``, run in the log domain.

    Args:
        problem: the transport problem.
        x: row potential to start from; zero by default.
        y: column potential to start from; zero by default.
        tol: marginal error to reach. At large :math:`\eta` rounding keeps the error above about 1e-13.
        max_sweeps: sweeps after which the run gives up.
        absorb: sweeps between two evaluations of the kernel.
        check: sweeps between two measurements of the error; the count returned is a multiple of it.

    Returns:
        Potentials, count and error history; ``converged`` is false at the cap.

    Raises:
        ValueError: if a count is not positive, ``absorb`` is no multiple of ``check``, or ``tol`` is not positive.
    """
    if min(max_sweeps, absorb, check) < 1 or tol <= 0:
        raise ValueError(
            f"tol, max_sweeps, absorb and check must be positive, got {tol}, {max_sweeps}, {absorb}, {check}"
        )
    if absorb % check:
        raise ValueError(f"absorb ({absorb}) must be a multiple of check ({check})")
    zero = problem.start()
    x, y = zero[0] if x is None else x, zero[1] if y is None else y
    checked: list[int] = []
    errors: list[float] = []
    done = 0
    while done < max_sweeps:
        count = min(check if done == 0 else absorb, max_sweeps - done)
        scaled = None if done == 0 else _scaled_block(problem, x, y, count, check, tol)
        if scaled is None:
            for _ in range(count):
                x, y = sinkhorn_sweep(problem, x, y)
            history = [(count, problem.marginal_error(problem.plan(x, y)))]
        else:
            x, y, history = scaled
        checked += [done + sweeps for sweeps, _ in history]
        errors += [error for _, error in history]
        done = checked[-1]
        if errors[-1] < tol:
            break
    return SinkhornResult(x, y, done, errors[-1] < tol, tuple(checked), tuple(errors))


def _scaled_block(
    problem: EntropicOT, x: Tensor, y: Tensor, count: int, check: int, tol: float
) -> tuple[Tensor, Tensor, list[tuple[int, float]]] | None:
    """Make ``count`` sweeps with one kernel; ``None`` where a scaling leaves the range of the numbers."""
    kernel = problem.plan(x, y)
    transposed = kernel.T
    source, target = problem.source, problem.target
    row_sums = kernel.sum(1)
    v = torch.ones_like(target)
    history: list[tuple[int, float]] = []
    for sweep in range(1, count + 1):
        u = source / row_sums
        column_sums = transposed @ u
        v = target / column_sums
        row_sums = kernel @ v
        if sweep % check == 0 or sweep == count:
            # the columns are right after a sweep: what is left of the error is that of the rows
            error = float(
                (u * row_sums - source).abs().sum() + (v * column_sums - target).abs().sum()
            )
            history.append((sweep, error))
            if error < tol:
                break
    x, y = x + u.log() / problem.eta, y + v.log() / problem.eta
    if not bool(x.isfinite().all() & y.isfinite().all()):
        return None
    return x, y, history
