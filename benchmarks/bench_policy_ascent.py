"""Policy ascents: what an iteration of each costs, and one Hessian-vector product against the whole Hessian.

One thread, float64, interleaved. (1) 300 iterations on the Gaussian bandit, 100 runs side by side: the second episode and
the Hessian-vector product of N-HARPG against N-PG-IGT, N-SGDM and plain ascent. (2) The product of one trajectory's Hessian
estimate with a vector against d such products, the dense matrix, and the cost law in d. (3) With --peer FOLDER also the
authors' optimisers, from the files SGDM_optimizer.py, NIGT_optimizer.py and STORMHess_optimizer.py of their fork of garage:
the same iterates on a quadratic with the same noise, and seconds per step.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import statistics
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

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


def authors_optimisers(folder: Path) -> tuple[type, type]:
    """Their N-PG-IGT and N-HARPG; the packages around them, a logger and a namespace, are replaced by empty ones."""
    log, names = ModuleType("dowel"), ModuleType("garage.torch.optimizers")
    table: Any = ModuleType("tabular")
    table.prefix = lambda _: contextlib.nullcontext()
    table.record = lambda *_: None
    log.logger, log.tabular = None, table  # type: ignore[attr-defined]
    sys.path.insert(0, str(folder))
    sys.modules |= {"dowel": log, "garage": ModuleType("garage")}
    sys.modules |= {"garage.torch": ModuleType("garage.torch"), names.__name__: names}
    try:
        base = importlib.import_module("SGDM_optimizer")
        names.SGDMOptimizer = base.SGDMOptimizer  # type: ignore[attr-defined]
        nigt = importlib.import_module("NIGT_optimizer").NIGTOptimizer
        return nigt, importlib.import_module("STORMHess_optimizer").STORMHessOptimizer
    except ImportError as error:
        raise SystemExit(
            f"--peer: {folder} lacks the authors' optimiser files ({error})."
        ) from None


class Quadratic:
    """The objective -theta' A theta / 2 with the same noise in the gradient of step t for whoever asks."""

    def __init__(self, d: int, steps: int, noise: float) -> None:
        source = torch.Generator().manual_seed(d)
        root = torch.randn(d, d, generator=source, dtype=torch.float64) / d**0.5
        self.matrix = root @ root.mT + 0.1 * torch.eye(d, dtype=torch.float64)
        self.start = torch.randn(d, generator=source, dtype=torch.float64)
        self.noise = noise * torch.randn(steps, d, generator=source, dtype=torch.float64)

    def gradient(self, theta: torch.Tensor, t: int) -> torch.Tensor:
        return self.noise[t] - self.matrix @ theta

    def cost(self, theta: torch.Tensor) -> torch.Tensor:
        return theta @ self.matrix @ theta / 2

    def igt(self) -> list[torch.Tensor]:
        ours = n_pg_igt(self.start, 0.3)
        for t in range(len(self.noise)):
            ours.update(self.gradient(ours.sampling_point(), t))
        return [ours.theta, ours.direction, self.gradient(ours.previous, t) - self.noise[t]]

    def authors_igt(self, optimiser: type, weight_in_time: bool) -> list[torch.Tensor]:
        theta = self.start.clone().requires_grad_()
        theirs: Any = optimiser([theta], gamma_0=0.3)
        for t in range(len(self.noise)):
            if weight_in_time and t:
                theirs.iteration += 1
                theirs.update_eta()
                theirs.iteration -= 1
            theirs.update_model_to_line_point()
            theta.grad = -self.gradient(theta.detach(), t)
            theirs.step()
        state = theirs.state[theta]
        truth = self.gradient(state["last_point"], t) - self.noise[t]
        return [theta.detach(), -state["momentum_buffer"], truth]

    def harpg(self) -> torch.Tensor:
        """With the product by two passes of automatic differentiation, as theirs."""
        ours = n_harpg(self.start, 0.3)
        for t in range(len(self.noise)):
            point = ours.segment_point(0.5).requires_grad_()
            (slope,) = torch.autograd.grad(-self.cost(point), point, create_graph=True)
            (product,) = torch.autograd.grad(slope, point, ours.displacement)
            ours.update(self.gradient(ours.theta, t), product)
        return ours.theta

    def authors_harpg(self, optimiser: type) -> torch.Tensor:
        theta = self.start.clone().requires_grad_()
        theirs: Any = optimiser([theta], gamma_0=0.3)

        def loss(batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
            return self.cost(theta), 0 * theta.sum()

        for t in range(len(self.noise)):
            theta.grad = -self.gradient(theta.detach(), t)
            theirs.step(loss)
        return theta.detach()


def against_the_authors(folder: Path) -> None:
    nigt, storm = authors_optimisers(folder)
    exact, noisy = Quadratic(50, 50, 0.0), Quadratic(50, 500, 0.1)
    ours, late, mended = exact.igt(), exact.authors_igt(nigt, False), exact.authors_igt(nigt, True)
    print(
        "distance of the average from the gradient at the current point, 50 steps, no noise:\n"
        f"  ours {float((ours[1] - ours[2]).norm()):.1e}, authors' {float((late[1] - late[2]).norm()):.1e}, "
        f"authors' with the weight of the step to come {float((mended[1] - mended[2]).norm()):.1e}"
    )
    ours, late, mended = noisy.igt(), noisy.authors_igt(nigt, False), noisy.authors_igt(nigt, True)
    print(
        f"largest difference of iterates, 500 noisy steps: {float((ours[0] - late[0]).abs().max()):.1e}, "
        f"with the weight of the step to come {float((ours[0] - mended[0]).abs().max()):.1e}"
    )
    off = float((noisy.harpg() - noisy.authors_harpg(storm)).abs().max())
    print(f"largest difference of N-HARPG's iterates: {off:.1e}")
    seconds = interleaved(
        {
            "N-PG-IGT": noisy.igt,
            "authors' N-PG-IGT": lambda: noisy.authors_igt(nigt, False),
            "N-HARPG": noisy.harpg,
            "authors' N-HARPG": lambda: noisy.authors_harpg(storm),
        },
        7,
    )
    for ours_name in ("N-PG-IGT", "N-HARPG"):
        print("  " + ratio(seconds, f"authors' {ours_name}", ours_name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=Path, help="a folder with the authors' optimiser files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ascents()
    products()
    if options.peer is not None:
        against_the_authors(options.peer)


if __name__ == "__main__":
    main()
