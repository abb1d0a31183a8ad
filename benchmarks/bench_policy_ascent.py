"""Policy ascents: what an iteration of each costs, and one Hessian-vector product against the whole Hessian.

One thread, float64, interleaved. (1) 300 iterations on the Gaussian bandit, 100 runs side by side: the second episode and
the Hessian-vector product of N-HARPG against N-PG-IGT, N-SGDM and plain ascent. (2) The product of one trajectory's Hessian
estimate with a vector against d such products, the dense matrix, and the cost law in d.
"""

from __future__ import annotations

import statistics

import numpy as np
import torch

from benchmarks.interleaved import interleaved, ratio
from descent.policies.bandit_experiments import ascend
from descent.policies.gaussian_bandit import GaussianBandit
from descent.policies.policy_ascent import n_harpg, n_pg_igt, n_sgdm, vanilla_pg
from descent.policies.trajectory_estimators import policy_hessian_vector


def ascents(steps: int = 300, runs: int = 100) -> None:
    contexts = torch.randn(8, 3, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    bandit = GaussianBandit(contexts, torch.ones(3, dtype=torch.float64))
    start = torch.full((1, runs, 3), -0.2, dtype=torch.float64)
    makers = {"N-PG-IGT": n_pg_igt, "N-HARPG": n_harpg, "N-SGDM": n_sgdm, "vanilla": vanilla_pg}
    seconds = interleaved(
        {
            name: lambda make=make: ascend(
                bandit, make(start, 0.3), steps, [steps], torch.Generator().manual_seed(0)
            )
            for name, make in makers.items()
        },
        7,
    )
    print(
        f"{steps} iterations, {runs} runs: N-PG-IGT {1e3 * statistics.median(seconds['N-PG-IGT']):.0f} ms"
    )
    for other in ("N-HARPG", "N-SGDM", "vanilla"):
        print("  " + ratio(seconds, other, "N-PG-IGT"))


def products() -> None:
    sizes, medians = (1_000, 5_000, 20_000, 50_000), []
    for d in sizes:
        generator = torch.Generator().manual_seed(d)
        features = torch.randn(50, 4, d, generator=generator, dtype=torch.float64)
        theta = torch.zeros(d, dtype=torch.float64)
        weights = torch.rand(50, generator=generator, dtype=torch.float64)
        directions = torch.eye(8, d, dtype=torch.float64)

        def logs(point, features=features):
            return torch.log_softmax(features @ point, -1)[:, 0]

        def product(u, logs=logs, theta=theta, weights=weights):
            return policy_hessian_vector(logs, theta, weights, u)

        seconds = interleaved(
            {
                "one product": lambda product=product, u=directions[0]: product(u),
                "8 columns": lambda product=product, us=directions: [product(u) for u in us],
            },
            5,
        )
        medians.append(statistics.median(seconds["one product"]))
        dense = statistics.median(seconds["8 columns"]) / 8 * d
        print(
            f"d = {d}: product {1e3 * medians[-1]:.2f} ms, all {d} columns / product: {dense / medians[-1]:.0f}"
        )
    slope = np.polyfit(np.log(sizes[-3:]), np.log(medians[-3:]), 1)[0]
    print(f"slope of a product in d, 5,000 to 50,000: {slope:.2f} (law 1)")


def main() -> None:
    torch.set_num_threads(1)
    ascents()
    products()


if __name__ == "__main__":
    main()
