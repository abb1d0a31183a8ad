"""Sinkhorn-Newton-Sparse against POT's log-domain Sinkhorn (and our kernel-form one), to equal accuracy.

Random assignment problems at the difficulty of the paper's table (eta = 2.4 n). Every contestant runs until the
marginal error ``|P1 - r|_1 + |P'1 - c|_1`` is below the tolerance; POT, whose own stopping rule is another one, gets
just the number of sweeps that it needs for that, found beforehand. One thread, float64.
"""

from __future__ import annotations

import argparse

import numpy as np
import ot
import torch

from benchmarks.interleaved import interleaved, ratio
from descent.curvature.entropic_transport import EntropicOT
from descent.curvature.sinkhorn import sinkhorn_stabilized
from descent.curvature.sinkhorn_newton_sparse import sinkhorn_newton_sparse


def pot_sinkhorn(problem: EntropicOT, sweeps: int) -> torch.Tensor:
    """The plan of POT's log-domain Sinkhorn after a fixed number of sweeps, on the same tensors."""
    return ot.sinkhorn(
        problem.source, problem.target, problem.cost, reg=1.0 / problem.eta, method="sinkhorn_log",
        numItermax=sweeps, stopThr=0.0, warn=False,
    )  # fmt: skip


def sweeps_needed(problem: EntropicOT, tol: float) -> int:
    """Sweeps that POT needs for the tolerance, to 5 %: doubling, then bisection."""
    low, high = 0, 50
    while problem.marginal_error(pot_sinkhorn(problem, high)) >= tol:
        low, high = high, 2 * high
        if high > 200_000:
            raise SystemExit(f"POT's Sinkhorn does not reach {tol} in {high} sweeps")
    while high - low > max(10, high // 20):
        middle = (low + high) // 2
        if problem.marginal_error(pot_sinkhorn(problem, middle)) < tol:
            high = middle
        else:
            low = middle
    return high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 200])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tol", type=float, default=1e-9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for n in options.sizes:
        cost = torch.from_numpy(np.random.default_rng(n).random((n, n)))
        uniform = torch.full((n,), 1.0 / n, dtype=torch.float64)
        problem = EntropicOT(cost, uniform, uniform, 2.4 * n)
        sweeps = sweeps_needed(problem, options.tol)
        newton = sinkhorn_newton_sparse(problem, tol=options.tol)
        plain = sinkhorn_stabilized(problem, tol=options.tol)
        gap = abs(
            problem.transport_cost(problem.plan(newton.x, newton.y))
            - problem.transport_cost(pot_sinkhorn(problem, sweeps))
        )
        seconds = interleaved(
            {
                "SNS": lambda problem=problem: sinkhorn_newton_sparse(problem, tol=options.tol),
                "POT sinkhorn_log": lambda problem=problem, sweeps=sweeps: pot_sinkhorn(
                    problem, sweeps
                ),
                "kernel-form Sinkhorn": lambda problem=problem: sinkhorn_stabilized(
                    problem, tol=options.tol
                ),
            },
            options.repeats,
        )
        print(
            f"n = {n}, eta = {2.4 * n:g}, error < {options.tol:g}: SNS {newton.iterations} iterations, "
            f"POT {sweeps} sweeps, kernel-form {plain.sweeps} sweeps; objectives differ by {gap:.1e}"
        )
        print("  " + ratio(seconds, "POT sinkhorn_log", "SNS"))
        print("  " + ratio(seconds, "kernel-form Sinkhorn", "SNS"))


if __name__ == "__main__":
    main()
