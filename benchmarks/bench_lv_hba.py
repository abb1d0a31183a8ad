"""LV-HBA's parts against cvxpy, scikit-learn and our AiPOD, one thread, float64, interleaved.

(a) The joint projection of the support-vector problem, ours (Newton in d + 1 variables) against cvxpy with Clarabel
(a parametrised programme, compiled once), values compared first. (b) The exact lower solution against cvxpy.
(c) The projection on a small polyhedron, all active sets at once, against cvxpy, for a batch of 64 points. (d) One
iteration of LV-HBA against one outer iteration of our AiPOD on the merely convex problem, n = 100 and 2000.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Callable

import cvxpy
import numpy as np
import torch

from benchmarks.interleaved import interleaved, ratio
from descent.bilevel.aipod import AiPOD
from descent.bilevel.coupled_toys import MerelyConvex
from descent.bilevel.lv_hba import LVHBA
from descent.bilevel.projections import SmallPolyhedron
from descent.bilevel.svm_experiments import draw_splits


def report(calls: dict[str, Callable[[], object]], repeats: int) -> None:
    seconds = interleaved(calls, repeats)
    first, second = calls
    print(
        f"  {second} {statistics.median(seconds[second]) * 1e3:.3g} ms, {ratio(seconds, first, second)}"
    )


def support_vectors(repeats: int) -> None:
    splits = draw_splits([torch.Generator().manual_seed(0)], 120)
    problem = splits.problem()
    g = torch.Generator().manual_seed(1)
    x = torch.rand(1, 120, generator=g, dtype=torch.float64) - 1.5
    y = torch.randn(1, 151, generator=g, dtype=torch.float64)
    rows = problem.rows[0].numpy()
    u, point = cvxpy.Variable(151), cvxpy.Parameter(151)
    margins = [1 - u[31:] - rows @ u[:31] <= 0]
    programme = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(u - point)), margins)

    def theirs() -> np.ndarray:
        point.value = y[0].numpy()
        programme.solve(solver="CLARABEL")
        return u.value

    def ours() -> np.ndarray:
        problem._warm = None
        return problem.project_joint(x, y)[1][0].numpy()

    print(f"joint projection, N = 120: values differ by {np.abs(theirs() - ours()).max():.1e}")
    report({"cvxpy": theirs, "ours": ours}, repeats)

    weights = cvxpy.Parameter(120, nonneg=True)
    hard = cvxpy.sum_squares(u[:30]) / 2 + cvxpy.sum_squares(cvxpy.multiply(weights, u[31:])) / 2
    exact = cvxpy.Problem(cvxpy.Minimize(hard), margins)

    def their_solution() -> np.ndarray:
        weights.value = np.exp(x[0].numpy() / 2)
        exact.solve(solver="CLARABEL")
        return u.value[:31]

    def our_solution() -> np.ndarray:
        return problem.solve_lower(x)[0].numpy()

    print(f"lower solution: values differ by {np.abs(their_solution() - our_solution()).max():.1e}")
    report({"cvxpy": their_solution, "ours": our_solution}, repeats)


def polyhedra(repeats: int) -> None:
    g = torch.Generator().manual_seed(2)
    rows, level = (torch.randn(4, k, generator=g, dtype=torch.float64) for k in (11, 1))
    points = 3 * torch.randn(64, 11, generator=g, dtype=torch.float64)
    ours = SmallPolyhedron(rows, level[:, 0])
    u, point = cvxpy.Variable(11), cvxpy.Parameter(11)
    programme = cvxpy.Problem(
        cvxpy.Minimize(cvxpy.sum_squares(u - point)), [rows.numpy() @ u <= level[:, 0].numpy()]
    )

    def theirs() -> np.ndarray:
        found = []
        for p in points.numpy():
            point.value = p
            programme.solve(solver="CLARABEL")
            found.append(u.value)
        return np.array(found)

    gap = np.abs(theirs() - ours.project(points).numpy()).max()
    print(f"64 points on a polyhedron with 4 rows: values differ by {gap:.1e}")
    report({"cvxpy": theirs, "ours": lambda: ours.project(points)}, repeats)


def iterations(repeats: int) -> None:
    for n in (100, 2000):
        problem = MerelyConvex(n)
        x, y, z = (torch.zeros(k, dtype=torch.float64) for k in (n, 2 * n, 1))
        solver = LVHBA(problem, alpha=0.01, beta=0.02, eta=0.01)
        state = solver.start(x, y, z)
        rows = torch.ones(1, 2 * n, dtype=torch.float64), torch.ones(1, n, dtype=torch.float64)
        rival = AiPOD(problem, *rows, upper_rate=0.1, lower_rate=1.0)

        def ours(solver: LVHBA = solver, state: object = state) -> None:
            solver.run(state, 100, check=False)  # type: ignore[arg-type]

        def theirs(rival: AiPOD = rival, x: torch.Tensor = x, y: torch.Tensor = y) -> None:
            for _ in range(100):
                rival.step(x, y)

        print(f"100 iterations on the merely convex problem, n = {n}")
        report({"AiPOD": theirs, "LV-HBA": ours}, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="cvxpy")
    support_vectors(options.repeats)
    polyhedra(options.repeats)
    iterations(options.repeats)


if __name__ == "__main__":
    main()
