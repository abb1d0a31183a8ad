"""Gradient-normalized Newton against trust regions and L-BFGS: seconds to 1e-8, and gaps at equal seconds.

One thread, float64, interleaved. Log-sum-exp with n = 200 is handed over in whitened variables, so that methods that
know no metric lose nothing; the Chebyshev chain with n = 200 has the identity as its metric. Every contestant asks
the same torch problem through the same ledger. Then the price of a probe: a Cholesky factorisation for each, one
eigendecomposition for all, and Sherman-Morrison, with the number of probes at which the eigendecomposition pays, and
the cost laws as slopes of the median seconds over a decade in n. With --official PATH (a folder with the authors'
methods.py and oracles.py) their iteration counts and seconds are set beside ours.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.interleaved import interleaved, ratio
from descent.curvature.approximate_hessians import dense_curvature
from descent.curvature.backtracking_gradient import backtracking_gradient
from descent.curvature.dual_metric import Metric
from descent.curvature.gradient_normalized_experiments import minimise
from descent.curvature.gradient_normalized_instances import (
    PAPER_SEED,
    Instance,
    chebyshev_instance,
    log_sum_exp_instance,
    whitened,
)
from descent.curvature.gradient_normalized_newton import gradient_normalized_newton
from descent.curvature.oracle_counts import Ledger, run_scipy, run_torch_lbfgs
from descent.curvature.regularised_steps import CholeskySteps, EigenSteps, RankOneSteps


class TimedProblem:
    """A problem that notes the clock and the best gap at every evaluation."""

    def __init__(self, problem: Any, f_star: float) -> None:
        self.problem, self.f_star = problem, f_star
        self.start, self.history = time.perf_counter(), [(0.0, float("inf"))]

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        value, gradient = self.problem.value_and_gradient(x)
        best = min(self.history[-1][1], value - self.f_star)
        self.history.append((time.perf_counter() - self.start, best))
        return value, gradient

    def hessian(self, x: Tensor, kind: str = "exact") -> Tensor:
        return self.problem.hessian(x, kind)

    def gap_at(self, seconds: float) -> float:
        return [gap for t, gap in self.history if t <= seconds][-1]


def contestants(instance: Instance) -> dict[str, Callable[[], TimedProblem]]:
    def newton(kind: str, reuse: bool = False) -> Callable[[], TimedProblem]:
        def call() -> TimedProblem:
            timed = TimedProblem(instance.problem, instance.f_star)
            gradient_normalized_newton(
                Ledger(timed, instance.f_star), instance.x0,
                dense_curvature(timed, kind, Metric(), reuse=reuse), f_star=instance.f_star,
            )  # fmt: skip
            return timed

        return call

    def peer(method: str) -> Callable[[], TimedProblem]:
        def call() -> TimedProblem:
            timed = TimedProblem(instance.problem, instance.f_star)
            if method == "torch L-BFGS":
                run_torch_lbfgs(timed, instance.x0, f_star=instance.f_star)
            else:
                run_scipy(timed, instance.x0, method, f_star=instance.f_star)
            return timed

        return call

    return {
        "this method, exact": newton("exact"),
        "this method, exact, one eigendecomposition": newton("exact", reuse=True),
        "this method, Gauss-Newton": newton("gauss_newton"),
        **{f"SciPy {m}": peer(m) for m in ("trust-exact", "trust-ncg", "L-BFGS-B")},
        "torch L-BFGS": peer("torch L-BFGS"),
    }


def compare(title: str, instance: Instance, repeats: int) -> None:
    calls = contestants(instance)
    seconds = interleaved(calls, repeats)
    ours = "this method, exact"
    budget = statistics.median(seconds[ours])
    print(f"{title}: {ours} reaches 1e-8 in {budget * 1e3:.1f} ms (median of {repeats})")
    for name, call in calls.items():
        run = call()
        line = f"  evaluations {len(run.history) - 1:4d}, gap at {budget * 1e3:.1f} ms: {max(run.gap_at(budget), 0):.1e}"
        print(f"{line}  {ratio(seconds, name, ours) if name != ours else name}")


def slope(x: list[int], y: list[float]) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def probe_prices(sizes: list[int], repeats: int) -> None:
    medians: dict[str, list[float]] = {}
    for n in sizes:
        generator = torch.Generator().manual_seed(0)
        a = torch.randn(n, n, generator=generator, dtype=torch.float64)
        g = torch.randn(n, generator=generator, dtype=torch.float64)
        matrix, metric = a @ a.T / n, Metric(a.T @ a / n + torch.eye(n, dtype=torch.float64))
        eigen = EigenSteps(matrix, metric)
        found = interleaved(
            {
                "Cholesky probe": lambda m=matrix, b=metric, v=g: CholeskySteps(m, b).step(1.0, v),
                "eigendecomposition": lambda m=matrix, b=metric: EigenSteps(m, b),
                "eigen probe": lambda e=eigen, v=g: e.step(1.0, v),
                "rank-one step": lambda b=metric, v=g: RankOneSteps(1.0, v, b).step(1.0, v),
            },
            repeats,
        )
        times = {k: statistics.median(v) for k, v in found.items()}
        for k, v in times.items():
            medians.setdefault(k, []).append(v)
        even = times["eigendecomposition"] / (times["Cholesky probe"] - times["eigen probe"])
        shown = ", ".join(f"{k} {v * 1e3:.3f} ms" for k, v in times.items())
        print(f"  n = {n}: {shown}; one eigendecomposition pays from {even:.0f} probes on")
    theory = {"Cholesky probe": 3, "eigendecomposition": 3, "eigen probe": 2, "rank-one step": 2}
    for name, times_of in medians.items():
        print(f"  slope of {name} in n: {slope(sizes, times_of):.2f} (theory {theory[name]})")


def against_official(folder: Path, repeats: int) -> None:
    if not (folder / "methods.py").is_file():
        print(f"{folder} has no methods.py: fetch the authors' repository and name its src folder")
        return
    sys.path.insert(0, str(folder))
    import approximations  # type: ignore[import-not-found]
    import methods  # type: ignore[import-not-found]
    import oracles  # type: ignore[import-not-found]

    for n in (100, 200):
        random = np.random.RandomState(PAPER_SEED)
        a, b = random.rand(n, n) * 2 - 1, random.rand(n) * 2 - 1
        oracle = oracles.create_log_sum_exp_zero_oracle(a.T, b, 1.0)
        metric, f_star = a @ a.T, oracle.func(np.zeros(n))
        instance = log_sum_exp_instance(n, PAPER_SEED)
        for kind, approximate in (("exact", False), ("gauss_newton", True)):

            def theirs(
                n: int = n,
                oracle: Any = oracle,
                metric: Any = metric,
                f: float = f_star,
                k: bool = approximate,
            ) -> Any:
                return methods.grad_norm_smooth(
                    oracle, np.ones(n), B=metric, f_star=f, is_approx=k, approx_oracle=oracle,
                    approx_hess_fn=approximations.approx_hess_fn_logsumexp,
                )  # fmt: skip

            seconds = interleaved(
                {"authors": theirs, "ours": lambda i=instance, k=kind: minimise(i, k)}, repeats
            )
            count = len(theirs()[2]["func"]) - 1
            print(
                f"log-sum-exp n = {n}, {kind}: {count} iterations theirs, {minimise(instance, kind).iterations} ours; "
                + ratio(seconds, "authors", "ours")
            )
        history = methods.gradient_method(oracle, np.ones(n), max_iter=150, B=metric)[2]["func"]
        count = int(np.argmax(np.array(history) - f_star < 1e-8))
        own = backtracking_gradient(
            instance.problem, instance.x0, instance.metric, f_star=f_star
        ).iterations
        print(f"log-sum-exp n = {n}, gradient method in the metric: {count} theirs, {own} ours")
    instance = chebyshev_instance(100, PAPER_SEED)
    theirs_run = methods.grad_norm_smooth(
        oracles.ChebyshevOracle(100, 4), instance.x0.numpy(), f_star=0.0, is_approx=True,
        approx_oracle=oracles.ChebyshevOracle(100, 4), approx_hess_fn=approximations.approx_hess_fn_chebyshev,
    )  # fmt: skip
    exact_run = methods.grad_norm_smooth(
        oracles.ChebyshevOracle(100, 4), instance.x0.numpy(), f_star=0.0
    )
    print(
        f"Chebyshev n = 100: Gauss-Newton {len(theirs_run[2]['func']) - 1} theirs, "
        f"{minimise(instance, 'gauss_newton').iterations} ours; exact (failed factorisations treated differently) "
        f"{len(exact_run[2]['func']) - 1} theirs, {minimise(instance, 'exact').iterations} ours"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--official", type=Path, help="folder with the authors' methods.py")
    options = parser.parse_args()
    torch.set_num_threads(1)
    compare(
        "log-sum-exp, n = 200", whitened(log_sum_exp_instance(200, PAPER_SEED)), options.repeats
    )
    compare("Chebyshev chain, n = 200", chebyshev_instance(200, PAPER_SEED), options.repeats)
    print("price of a probe")
    probe_prices([100, 200, 400, 1000], options.repeats)
    if options.official:
        against_official(options.official, options.repeats)


if __name__ == "__main__":
    main()
