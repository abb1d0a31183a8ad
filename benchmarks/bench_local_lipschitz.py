"""Bounds of local Lipschitz constants against auto_LiRPA, sampling and exact search; cost laws in width and depth.

One thread, float64. (a) The norm bounds of all ten outputs, forward bounds included: ours in one batch, auto_LiRPA
output by output as in its own example, with its slope optimisation off, on dense and convolutional networks; values
are compared first. Its release on the package index conflicts with this torch: put a checkout of its repository on
PYTHONPATH, or the comparison is left out with a sentence. (b) The bound against 4000 samples and against the exact
search over activation patterns on a tiny network. (c) Seconds against width over a decade (three and four layers)
and against the number of layers, beside the exponents that the matrix products suggest.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from benchmarks.interleaved import interleaved, ratio
from descent.physics.activation_patterns import exact_local_lipschitz
from descent.physics.jacobian_bounds import jacobian_bounds
from descent.physics.lipschitz_experiments import random_network
from descent.physics.lipschitz_lower_bounds import sampled_lipschitz
from descent.physics.local_lipschitz import box_states
from descent.physics.relu_network import ReluNetwork


def norms(network: ReluNetwork, x: torch.Tensor, radius: float, outputs: int) -> torch.Tensor:
    weights = torch.eye(network.out_size, dtype=x.dtype)[:outputs]
    return jacobian_bounds(network, box_states(network, x - radius, x + radius), weights).norm[0]


def models() -> dict[str, tuple[nn.Sequential, tuple[int, ...]]]:
    torch.manual_seed(0)

    def dense(width: int) -> nn.Sequential:
        hidden = (nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        return nn.Sequential(*hidden, nn.Linear(width, 10)).double()

    conv = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
    ).double()
    return {
        "16-32-32-10": (dense(32), (16,)),
        "16-256-256-10": (dense(256), (16,)),
        "8x8 convolutional": (conv, (1, 8, 8)),
    }


def against_auto_lirpa(repeats: int) -> None:
    try:
        from auto_LiRPA import BoundedModule, BoundedTensor
        from auto_LiRPA.jacobian import GradNorm, JacobianOP
        from auto_LiRPA.perturbations import PerturbationLpNorm
    except ImportError as error:
        print(
            f"auto_LiRPA is not importable ({error}): put its repository on PYTHONPATH to compare"
        )
        return
    logging.getLogger("auto_LiRPA").setLevel(logging.WARNING)

    class Norm(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model, self.norm = model, GradNorm(norm=1)

        def forward(self, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            return self.norm(JacobianOP.apply(self.model(x).matmul(weights), x))

    for name, (model, shape) in models().items():
        x = torch.full((1, *shape), 0.5, dtype=torch.float64)
        network = ReluNetwork.of_sequential(model, shape if len(shape) == 3 else None)
        units = torch.eye(10, dtype=torch.float64)
        bounded = BoundedModule(Norm(model), (BoundedTensor(x), units[:, :1]))
        box = BoundedTensor(x, PerturbationLpNorm(norm=np.inf, eps=0.1))

        def theirs(
            bounded: BoundedModule = bounded,
            box: BoundedTensor = box,
            units: torch.Tensor = units,
        ) -> torch.Tensor:
            found = [
                bounded.compute_jacobian_bounds(
                    (box, units[:, k : k + 1]), optimize=False, bound_lower=False
                )[1]
                for k in range(10)
            ]
            return torch.cat(found).detach().flatten()

        def ours(network: ReluNetwork = network, x: torch.Tensor = x) -> torch.Tensor:
            return norms(network, x.flatten(1), 0.1, 10)

        gap = float((theirs() / ours() - 1).abs().max())
        seconds = interleaved({"auto_LiRPA": theirs, "ours": ours}, repeats)
        print(f"{name}: values differ by {gap:.1e} relative")
        print(
            f"  ours {statistics.median(seconds['ours']) * 1e3:.2f} ms, {ratio(seconds, 'auto_LiRPA', 'ours')}"
        )


def against_sampling_and_search(repeats: int) -> None:
    generator = torch.Generator().manual_seed(0)
    network = random_network(generator, (16, 16, 16, 10))
    x, radius = torch.full((1, 16), 0.5, dtype=torch.float64), 0.03
    states = [s[0] for s in box_states(network, x - radius, x + radius)]
    low, high = (x - radius)[0], (x + radius)[0]
    found = exact_local_lipschitz(network, low, high, states)
    calls: dict[str, Callable[[], object]] = {
        "4000 samples": lambda: sampled_lipschitz(network, low, high, 4000, generator),
        "exact search": lambda: exact_local_lipschitz(network, low, high, states),
        "ours": lambda: norms(network, x, radius, 10),
    }
    seconds = interleaved(calls, repeats)
    per_program = statistics.median(seconds["exact search"]) / max(found.programs, 1)
    bound = float(norms(network, x, radius, 10).max())
    print(
        f"16-16-16-10, {found.undecided} undecided: bound {bound:.4f}, exact {found.value:.4f}; "
        f"{found.programs} programs of {per_program * 1e3:.2f} ms"
    )
    for other in ("4000 samples", "exact search"):
        print("  " + ratio(seconds, other, "ours"))


def fitted(sizes: list[int], seconds: list[float]) -> str:
    fit = np.polyfit(np.log(sizes), np.log(seconds), 1)
    listed = ", ".join(f"{s * 1e3:.3g}" for s in seconds)
    return f"slope {fit[0]:.2f} (ms: {listed})"


def cost_law(repeats: int) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.full((1, 16), 0.5, dtype=torch.float64)

    def timed(networks: list[ReluNetwork]) -> list[float]:
        calls = {str(k): (lambda n=n: norms(n, x, 0.1, 1)) for k, n in enumerate(networks)}
        return [statistics.median(s) for s in interleaved(calls, repeats).values()]

    widths = [64, 128, 256, 640]
    for layers, law in ((3, 2), (4, 3)):
        networks = [random_network(generator, (16, *[w] * (layers - 1), 10)) for w in widths]
        print(
            f"seconds in width 64 to 640, {layers} layers (products: {law}): {fitted(widths, timed(networks))}"
        )
    depths = [3, 5, 9, 17, 31]
    networks = [random_network(generator, (16, *[64] * (n - 1), 10)) for n in depths]
    print(f"seconds in layers 3 to 31, width 64 (products: 2): {fitted(depths, timed(networks))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="auto_LiRPA")
    against_auto_lirpa(options.repeats)
    against_sampling_and_search(options.repeats)
    cost_law(options.repeats)


if __name__ == "__main__":
    main()
