r"""Sinkhorn-Newton-Sparse: a few Sinkhorn sweeps, then Newton steps with a thinned Hessian.

1. Start from :math:`x=y=0` and make :math:`N_1` sweeps, after which the plan is nearly sparse.
2. At most :math:`N_2` times: keep the :math:`kn` largest entries of the plan, solve :math:`M\Delta z=\nabla f` by conjugate
   gradients and set :math:`z\leftarrow z+\alpha\Delta z`, with :math:`\alpha\in\{1,\frac12,\frac14,\dots\}` by backtracking
   on :math:`f`. Where no step can be found, one Sinkhorn sweep takes its place.

Source: Tang et al. (ICLR 2024), the algorithm of section 3. Safeguards (null space, fallback, slack) are choices made here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from descent.curvature.entropic_transport import EntropicOT
from descent.curvature.newton_direction import Direction, dense_direction, sparse_direction
from descent.curvature.plan_sparsity import budget_for_mass
from descent.curvature.sinkhorn import sinkhorn_sweep

__all__ = ["Iteration", "SNSResult", "adaptive_newton", "dense_newton", "sinkhorn_newton_sparse"]

Solver = Callable[[Tensor, Tensor], Direction]

ARMIJO = 1e-4
# Near the optimum differences of f drown in the rounding of its two inner products; without slack, in units of these,
# the step length would collapse.
SLACK = 1e-15
SMALLEST_STEP = 1e-12


@dataclass(frozen=True)
class Iteration:
    r"""One sweep or one Newton step, and the state after it.

    Args:
        stage: ``"warm-up"``, ``"newton"`` or ``"fallback"`` (a sweep in place of a failed Newton step).
        marginal_error: :math:`e` after the iteration.
        potential: :math:`f` after the iteration.
        kept: entries of the plan in the matrix of this step; 0 in the warm-up.
        dropped_mass: mass of the plan left out of that matrix.
        cg_iterations: conjugate-gradient iterations of this step.
        trials: step lengths tried, each with one evaluation of the plan.
        step_length: the accepted :math:`\alpha`; 0 for sweeps.
    """

    stage: Literal["warm-up", "newton", "fallback"]
    marginal_error: float
    potential: float
    kept: int = 0
    dropped_mass: float = 0.0
    cg_iterations: int = 0
    trials: int = 0
    step_length: float = 0.0


@dataclass(frozen=True)
class SNSResult:
    """Where a run ended, and every iteration of it.

    Args:
        x: row potential, shape ``(n,)``.
        y: column potential, shape ``(m,)``.
        converged: whether the marginal error fell below the tolerance.
        reason: why the run ended, as a sentence.
        trace: all iterations in order, warm-up included.
    """

    x: Tensor
    y: Tensor
    converged: bool
    reason: str
    trace: tuple[Iteration, ...]

    @property
    def iterations(self) -> int:
        """Sweeps and Newton steps together."""
        return len(self.trace)

    @property
    def newton_steps(self) -> int:
        """Iterations after the warm-up, fallback sweeps included."""
        return sum(step.stage != "warm-up" for step in self.trace)

    @property
    def errors(self) -> list[float]:
        """The marginal error after each iteration."""
        return [step.marginal_error for step in self.trace]

    @property
    def newton_errors(self) -> list[float]:
        """The marginal error at the end of the warm-up and after each later iteration."""
        return self.errors[max(0, len(self.trace) - self.newton_steps - 1) :]

    @property
    def error(self) -> float:
        """The last marginal error; infinite for a run without iterations."""
        return self.trace[-1].marginal_error if self.trace else math.inf


def sinkhorn_newton_sparse(
    problem: EntropicOT,
    *,
    warmup: int = 20,
    newton: int = 60,
    keep_per_row: int = 5,
    tol: float = 1e-13,
    cg_tol: float = 1e-8,
    cg_max: int = 500,
    project: bool = True,
    fallback: bool = True,
    start: tuple[Tensor, Tensor] | None = None,
) -> SNSResult:
    r"""Solve the problem with warm-up sweeps followed by sparse Newton steps.

    Args:
        problem: the transport problem.
        warmup: :math:`N_1\ge0`, Sinkhorn sweeps before the first Newton step.
        newton: :math:`N_2\ge0`, most Newton steps.
        keep_per_row: :math:`k`; the :math:`kn` largest entries of the whole plan enter the Hessian (capped at all).
        tol: marginal error at which to stop.
        cg_tol: relative residual of conjugate gradients.
        cg_max: most conjugate-gradient iterations per step.
        project: remove the null direction :math:`(\mathbf 1,-\mathbf 1)` in conjugate gradients.
        fallback: make a Sinkhorn sweep where a Newton step fails, instead of giving up.
        start: potentials to start from; zero by default.

    Returns:
        Potentials, reason of the end, and the trace.

    Raises:
        ValueError: if a count is negative, or ``keep_per_row`` or a tolerance is not positive.
    """
    if keep_per_row < 1:
        raise ValueError(f"keep_per_row must be at least 1, got {keep_per_row}")
    if cg_tol <= 0 or cg_max < 1:
        raise ValueError(f"cg_tol and cg_max must be positive, got {cg_tol} and {cg_max}")
    n, m = problem.shape
    keep = min(keep_per_row * n, n * m)

    def solve(plan: Tensor, gradient: Tensor) -> Direction:
        return sparse_direction(
            plan, gradient, problem.eta, keep, cg_tol=cg_tol, cg_max=cg_max, project=project
        )

    return _two_stages(problem, solve, warmup, newton, tol, fallback, start)


def dense_newton(
    problem: EntropicOT,
    *,
    warmup: int = 20,
    newton: int = 60,
    tol: float = 1e-13,
    fallback: bool = True,
    start: tuple[Tensor, Tensor] | None = None,
) -> SNSResult:
    """Solve the problem with warm-up sweeps followed by Newton steps with the exact Hessian.

    Args:
        problem: the transport problem.
        warmup: Sinkhorn sweeps before the first Newton step.
        newton: most Newton steps.
        tol: marginal error at which to stop.
        fallback: make a Sinkhorn sweep where a Newton step fails.
        start: potentials to start from; zero by default.

    Returns:
        Potentials, reason of the end, and the trace.

    Raises:
        ValueError: if a count is negative or ``tol`` is not positive.
    """

    def solve(plan: Tensor, gradient: Tensor) -> Direction:
        return dense_direction(plan, gradient, problem.eta)

    return _two_stages(problem, solve, warmup, newton, tol, fallback, start)


def adaptive_newton(
    problem: EntropicOT,
    *,
    warmup: int = 20,
    newton: int = 60,
    tol: float = 1e-13,
    cg_tol: float = 1e-8,
    cg_max: int = 500,
    start: tuple[Tensor, Tensor] | None = None,
) -> SNSResult:
    r"""Sinkhorn-Newton-Sparse that drops no more mass than the present marginal error.

    The Newton matrix is wrong by about the dropped mass, the point by about the marginal error. With the two kept in step
    the contraction factor goes to zero together with the error, with the fewest entries. Not in the paper.

    Args:
        problem: the transport problem.
        warmup: Sinkhorn sweeps before the first Newton step.
        newton: most Newton steps.
        tol: marginal error at which to stop.
        cg_tol: relative residual of conjugate gradients.
        cg_max: most conjugate-gradient iterations per step.
        start: potentials to start from; zero by default.

    Returns:
        Potentials, reason of the end, and the trace; ``kept`` varies from step to step.

    Raises:
        ValueError: if a count is negative or ``tol`` is not positive.
    """

    def solve(plan: Tensor, gradient: Tensor) -> Direction:
        # at least one entry per row: fewer decouple rows of the matrix that the plan couples
        keep = max(plan.shape[0], budget_for_mass(plan, float(gradient.abs().sum())))
        return sparse_direction(plan, gradient, problem.eta, keep, cg_tol=cg_tol, cg_max=cg_max)

    return _two_stages(problem, solve, warmup, newton, tol, True, start)


def _two_stages(
    problem: EntropicOT,
    solve: Solver,
    warmup: int,
    newton: int,
    tol: float,
    fallback: bool,
    start: tuple[Tensor, Tensor] | None,
) -> SNSResult:
    """Make the warm-up sweeps, then Newton steps with the directions of ``solve``."""
    if warmup < 0 or newton < 0:
        raise ValueError(f"warmup and newton must be at least 0, got {warmup} and {newton}")
    if tol <= 0:
        raise ValueError(f"tol must be positive, got {tol}")
    x, y = problem.start() if start is None else start
    plan = problem.plan(x, y)
    trace: list[Iteration] = []

    def sweep() -> Iteration:
        nonlocal x, y, plan
        x, y = sinkhorn_sweep(problem, x, y)
        plan = problem.plan(x, y)
        value = float(problem.potential(x, y, plan))
        return Iteration("warm-up", problem.marginal_error(plan), value)

    for _ in range(warmup):
        trace.append(sweep())
        if trace[-1].marginal_error < tol:
            return SNSResult(x, y, True, "converged during the warm-up", tuple(trace))
    for step in range(1, newton + 1):
        gradient = problem.gradient(x, y, plan)
        if float(gradient.abs().sum()) < tol:
            return SNSResult(x, y, True, "converged at the start", tuple(trace))
        direction = solve(plan, gradient)
        length, trials, trial_plan = _step_length(problem, x, y, plan, gradient, direction.step)
        spent = Iteration(
            "newton", 0.0, 0.0, direction.kept, direction.dropped_mass, direction.iterations, trials, length
        )  # fmt: skip
        if length > 0:
            x = x + length * direction.step[: x.numel()]
            y = y + length * direction.step[x.numel() :]
            plan = trial_plan
            value = float(problem.potential(x, y, plan))
            spent = replace(spent, marginal_error=problem.marginal_error(plan), potential=value)
        elif fallback:
            made = sweep()
            spent = replace(
                spent,
                stage="fallback",
                marginal_error=made.marginal_error,
                potential=made.potential,
            )
        else:
            cause = (
                "no step length increases the potential" if trials else "the linear solve failed"
            )
            return SNSResult(x, y, False, f"{cause} at Newton step {step}", tuple(trace))
        trace.append(spent)
        if trace[-1].marginal_error < tol:
            return SNSResult(x, y, True, "converged", tuple(trace))
    return SNSResult(x, y, False, f"not converged in {newton} Newton steps", tuple(trace))


def _step_length(
    problem: EntropicOT, x: Tensor, y: Tensor, plan: Tensor, gradient: Tensor, step: Tensor
) -> tuple[float, int, Tensor]:
    """Backtrack from 1 to the first length that ascends enough; 0 where none does. Also trials and last plan."""
    if not bool(step.isfinite().all()):
        return 0.0, 0, plan
    slope = float(gradient @ step)
    value = float(problem.potential(x, y, plan))
    slack = SLACK * float(problem.source @ x.abs() + problem.target @ y.abs())
    dx, dy = step[: x.numel()], step[x.numel() :]
    length, trials = 1.0, 0
    while length >= SMALLEST_STEP:
        trials += 1
        new_x, new_y = x + length * dx, y + length * dy
        new_plan = problem.plan(new_x, new_y)
        new_value = float(problem.potential(new_x, new_y, new_plan))
        # a trial that overflows gives -inf or nan, which satisfies no comparison
        if new_value >= value + ARMIJO * length * slope - slack:
            return length, trials, new_plan
        length /= 2
    return 0.0, trials, plan
