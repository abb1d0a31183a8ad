r"""Measurements on runs of Sinkhorn and of Newton's method: work, order of convergence, concentration of the plan.

Work is counted in multiply-adds, an exponential as ten: a kernel sweep :math:`2nm`, a log-domain sweep :math:`22nm` (two
evaluations of the plan with a sum each), a trial step of Newton's method :math:`12nm` (plan and both sums), a
conjugate-gradient iteration two per kept entry, a dense solve :math:`(n+m)^3/3`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from descent.curvature.entropic_transport import EntropicOT
from descent.curvature.newton_direction import sparse_direction
from descent.curvature.plan_sparsity import approximate_sparsity
from descent.curvature.sinkhorn import sinkhorn_sweep
from descent.curvature.sinkhorn_newton_sparse import (
    Iteration,
    dense_newton,
    sinkhorn_newton_sparse,
)
from descent.curvature.transport_polytope import Vertices, concentration_bound, least_eta

__all__ = [
    "Concentration",
    "Order",
    "concentration_ladder",
    "convergence_order",
    "cumulative_work",
    "dropped_mass_along_sweeps",
    "inner_iterations",
    "kernel_sweep_work",
    "steepest_descent_iterations",
    "two_point_landscape",
]

LADDER_STEP = 1.2


@dataclass(frozen=True)
class Order:
    """How fast the error of consecutive steps falls, over the steps inside a window.

    Args:
        exponents: :math:`p_t=\\log e_{t+1}/\\log e_t`.
        contractions: :math:`e_{t+1}/e_t`.
    """

    exponents: tuple[float, ...]
    contractions: tuple[float, ...]


def convergence_order(errors: Sequence[float], start: float = 1e-2, floor: float = 1e-13) -> Order:
    r"""Measure exponents and contractions over the steps with :math:`e_t<` ``start`` and :math:`e_{t+1}>` ``floor``.

    Without the window any method passes for fast: near :math:`e=1` the logarithm in the denominator vanishes, and below
    the floor there is only rounding.

    Args:
        errors: errors of consecutive iterations, positive.
        start: upper end of the window, below 1.
        floor: lower end of the window.

    Returns:
        Exponents and contractions, in the order of the steps; empty where no step lies inside.

    Raises:
        ValueError: if the window is empty or reaches 1.
    """
    if not 0 < floor < start < 1:
        raise ValueError(f"need 0 < floor < start < 1, got floor {floor} and start {start}")
    inside = [(a, b) for a, b in itertools.pairwise(errors) if a < start and b > floor]
    return Order(
        tuple(math.log(b) / math.log(a) for a, b in inside), tuple(b / a for a, b in inside)
    )


def kernel_sweep_work(shape: tuple[int, int]) -> float:
    """Return the multiply-adds of one Sinkhorn sweep in kernel form, two products with the kernel.

    Args:
        shape: ``(n, m)``.

    Returns:
        Multiply-adds.
    """
    return 2.0 * shape[0] * shape[1]


def cumulative_work(
    trace: Sequence[Iteration], shape: tuple[int, int], *, dense: bool = False
) -> list[float]:
    """Return the multiply-adds spent up to and including each iteration.

    Args:
        trace: iterations of a run.
        shape: ``(n, m)``.
        dense: whether the Newton systems were solved by factorisation.

    Returns:
        One number per iteration, increasing.
    """
    n, m = shape
    spent = []
    for step in trace:
        sweep = 0.0 if step.stage == "newton" else 22.0 * n * m
        solve = 2.0 * step.kept * step.cg_iterations
        if dense and step.stage != "warm-up":
            solve = (n + m) ** 3 / 3
        spent.append(sweep + 12.0 * n * m * step.trials + solve)
    return list(itertools.accumulate(spent))


def inner_iterations(problem: EntropicOT, keep_per_row: int) -> float:
    """Run Sinkhorn-Newton-Sparse and return its conjugate-gradient iterations per Newton step.

    Args:
        problem: the transport problem.
        keep_per_row: kept entries per row.

    Returns:
        The mean over the Newton steps of the run.
    """
    trace = sinkhorn_newton_sparse(problem, keep_per_row=keep_per_row).trace
    counts = [step.cg_iterations for step in trace if step.stage == "newton"]
    return sum(counts) / len(counts)


def steepest_descent_iterations(problem: EntropicOT, keep_per_row: int, cap: int) -> int:
    """Solve the first Newton system after 20 sweeps by steepest descent in place of conjugate gradients.

    Args:
        problem: the transport problem.
        keep_per_row: kept entries per row.
        cap: iterations at which to stop.

    Returns:
        The iterations made.
    """
    x, y = problem.start()
    for _ in range(20):
        x, y = sinkhorn_sweep(problem, x, y)
    plan = problem.plan(x, y)
    keep = keep_per_row * plan.shape[0]
    gradient = problem.gradient(x, y, plan)
    return sparse_direction(
        plan, gradient, problem.eta, keep, cg_max=cap, conjugate=False
    ).iterations


def dropped_mass_along_sweeps(problem: EntropicOT, sweeps: Sequence[int], keep: int) -> list[float]:
    """Measure the mass outside the ``keep`` largest entries of the plan along Sinkhorn's iteration.

    Args:
        problem: the transport problem.
        sweeps: increasing numbers of sweeps at which to measure, from 0.
        keep: entries to keep.

    Returns:
        The dropped mass at each of them.

    Raises:
        ValueError: if ``sweeps`` does not increase.
    """
    if any(b <= a for a, b in itertools.pairwise([-1, *sweeps])):
        raise ValueError(f"sweeps must increase from 0 on, got {list(sweeps)}")
    x, y = problem.start()
    masses, done = [], 0
    for goal in sweeps:
        for _ in range(goal - done):
            x, y = sinkhorn_sweep(problem, x, y)
        done = goal
        masses.append(approximate_sparsity(problem.plan(x, y), keep))
    return masses


@dataclass(frozen=True)
class Concentration:
    r"""The plan of a small problem at one :math:`\eta`, against the best vertex.

    Args:
        multiple: :math:`\eta\Delta/(1+2\log n)`.
        eta: :math:`\eta`.
        dropped_mass: mass outside the ``n`` largest entries.
        distance: :math:`\|P-V^*\|_1`.
        distance_to_second: the same to the second-best vertex.
        bound: :math:`6n^2e^{-\eta\Delta}`.
        converged: whether the marginal error is below 1e-12.
    """

    multiple: float
    eta: float
    dropped_mass: float
    distance: float
    distance_to_second: float
    bound: float
    converged: bool


def concentration_ladder(
    cost: Tensor, vertices: Vertices, multiples: Sequence[float], kernel_power: float = 1.0
) -> list[Concentration]:
    r"""Solve a small assignment at increasing multiples of :math:`(1+2\log n)/\Delta`, each from the one before.

    Sinkhorn alone would need of the order of one over the dropped mass sweeps. The ladder climbs in factors of at most 1.2
    with two sweeps and exact Newton steps on each rung.

    Args:
        cost: :math:`C`, shape ``(n, n)``.
        vertices: its vertices, from :func:`descent.curvature.transport_polytope.vertex_gap`.
        multiples: increasing positive multiples at which to measure.
        kernel_power: exponent of the kernel; 1 is the method, other values are for control arms.

    Returns:
        One measurement per multiple.

    Raises:
        ValueError: if ``multiples`` does not increase from above 0.
    """
    if any(b <= a for a, b in itertools.pairwise([0.0, *multiples])):
        raise ValueError(f"multiples must be positive and increase, got {list(multiples)}")
    n = cost.shape[0]
    uniform = torch.full_like(cost[0], 1.0 / n)
    unit = least_eta(n, vertices.gap)
    start: tuple[Tensor, Tensor] | None = None
    found, before = [], multiples[0]
    for multiple in multiples:
        rungs = max(1, math.ceil(math.log(multiple / before) / math.log(LADDER_STEP)))
        for rung in range(1, rungs + 1):
            eta = unit * before * (multiple / before) ** (rung / rungs)
            problem = EntropicOT(cost, uniform, uniform, kernel_power * eta)
            result = dense_newton(problem, warmup=2, newton=50, tol=1e-12, start=start)
            start = (result.x, result.y)
        before = multiple
        plan = problem.plan(result.x, result.y)
        found.append(
            Concentration(
                multiple,
                eta,
                approximate_sparsity(plan, n),
                float((plan - vertices.best).abs().sum()),
                float((plan - vertices.second).abs().sum()),
                concentration_bound(n, vertices.gap, eta),
                result.converged,
            )
        )
    return found


def two_point_landscape(problem: EntropicOT, rows: Tensor, columns: Tensor) -> Tensor:
    r"""Evaluate the potential of a 2 x 2 problem as a function of one row and one column coordinate.

    With :math:`x=(a+s,a-s)` and :math:`y=(t,-t)` the level :math:`a` has the closed-form maximiser that gives the plan
    the right total mass. What remains is

    .. math:: F(s,t)=-\frac{1+\log Z(s,t)}\eta+s\,(r_1-r_2)+t\,(c_1-c_2),\qquad
              Z=\sum_{ij}e^{\eta(\pm s\pm t-C_{ij})-1} ,

    of which a half-sweep of Sinkhorn is the exact maximisation over one coordinate.

    Args:
        problem: a problem with two rows, two columns and total mass 1.
        rows: values of :math:`s`, shape ``(a,)``.
        columns: values of :math:`t`, shape ``(b,)``.

    Returns:
        :math:`F`, shape ``(a, b)``.

    Raises:
        ValueError: if the problem is not 2 x 2.
    """
    if problem.shape != (2, 2):
        raise ValueError(f"the landscape needs a 2 x 2 problem, got {problem.shape}")
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64, device=problem.cost.device)
    sums = (
        signs[:, None, None, None] * rows[:, None] + signs[:, None, None] * columns
        - problem.cost[:, :, None, None]
    )  # fmt: skip
    log_z = torch.logsumexp((problem.eta * sums - 1.0).flatten(0, 1), dim=0)
    tilt = rows[:, None] * (signs @ problem.source) + columns * (signs @ problem.target)
    return tilt - (1.0 + log_z) / problem.eta
