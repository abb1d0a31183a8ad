"""DADAO: events computed one by one against independent events at once, and the cost of an exact rate.

One thread, float64, the same list of events for all contestants, interleaved. (1) The level order of this book
against the same library taken one event at a time, on a complete graph. (2) With --peer FOLDER also the authors' code, from
a checkout of github.com/AdelNabli/DADAO (it carries no licence file and is not part of this book; it needs networkx): same
data, start and events, final points compared. (3) The exact mean-square rate by the secular equation against the dense
generator. Then two cost laws, one secular matrix against n and ordering the events against their number.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.interleaved import interleaved, ratio
from descent.first_order.continuized_flow import DADAOConstants
from descent.first_order.dadao import DADAO
from descent.first_order.dadao_moments import (
    curvature_profile,
    dadao_jump_process,
    exact_rate,
    uniform_rates,
)
from descent.first_order.decentralized_problems import QuadraticSum
from descent.first_order.gossip_graphs import complete_graph, graph_constants, path_graph
from descent.first_order.jump_moments import (
    LinearJumpProcess,
    second_moment_generator,
    secular_matrix,
    spectral_abscissa,
)
from descent.first_order.poisson_events import Events, poisson_events, schedule


class Instance:
    """One least-squares problem on one graph with its events."""

    def __init__(self, n: int, horizon: float, seed: int = 0, edges: torch.Tensor | None = None):
        generator = torch.Generator().manual_seed(seed)
        self.n, self.horizon = n, horizon
        self.edges = complete_graph(n) if edges is None else edges
        self.features = torch.randn(1, n, 100, 2, generator=generator, dtype=torch.float64)
        self.targets = torch.randn(1, n, 100, generator=generator, dtype=torch.float64)
        self.objective = QuadraticSum.least_squares(self.features, self.targets)
        rates = uniform_rates(self.edges, n)
        self.chi_1 = graph_constants(self.edges, n, rates)[0]
        self.constants = DADAOConstants.of(
            float(self.objective.mu), float(self.objective.smoothness), self.chi_1
        )
        self.start = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        self.events = poisson_events(torch.ones(n), self.edges, rates, horizon, generator)

    def run(self, concurrent: bool, copies: int = 1) -> torch.Tensor:
        """Final points of all copies; a window for the whole run."""
        events = Events.together([self.events] * copies, self.n) if copies > 1 else self.events
        dadao = DADAO(
            self.objective.repeated(copies) if copies > 1 else self.objective,
            [self.constants] * (copies * self.n),
            self.start.repeat(copies, 1),
        )
        return dadao.run(events, self.horizon, self.horizon, concurrent=concurrent)[:, 0]


def peer_run(instance: Instance, folder: Path) -> Callable[[], torch.Tensor]:
    """The authors' optimiser on the same problem and events; rows are brought to the end of the run."""
    sys.path.insert(0, str(folder))
    try:
        from cvx_functions import linear_regression
        from optimizers import DADAO_optimizer
    except ImportError as error:
        raise SystemExit(
            f"--peer: {folder} is not a usable checkout of AdelNabli/DADAO ({error})."
        ) from None
    data, labels = instance.features[0], instance.targets[0][..., None]
    rows = list(
        zip(
            instance.events.times.tolist(),
            instance.events.first.tolist(),
            instance.events.second.tolist(),
            strict=True,
        )
    )

    def run() -> torch.Tensor:
        function = linear_regression(2, instance.n, 100)
        function.theta_i.data = instance.start[..., None].clone()
        total = float(uniform_rates(instance.edges, instance.n).sum())
        optimizer = DADAO_optimizer(
            function,
            data,
            labels,
            chi_1_star=instance.chi_1,
            lamb_mix=total,
            n_nodes=instance.n,
            mu=float(instance.objective.mu),
            L=float(instance.objective.smoothness),
        )
        for time, i, j in rows:
            optimizer.step(j < 0, time, None if j < 0 else (i, j), i)
        for i in range(instance.n):
            optimizer.update_params_i_after_ode(optimizer.t_last_event[i], instance.horizon, i)
        return optimizer.X

    return run


def simulators(repeats: int, peer: Path | None) -> None:
    instance = Instance(20, 40.0)
    contestants: dict[str, Callable[[], object]] = {
        "one by one": lambda: instance.run(False),
        "at once": lambda: instance.run(True),
    }
    scale = float(instance.run(True).abs().max())
    gap = float((instance.run(True) - instance.run(False)).abs().max()) / scale
    print(f"complete graph, n = 20, {len(instance.events)} events: orders differ by {gap:.1e}")
    if peer is not None:
        contestants["authors' code"] = peer_run(instance, peer)
        gap = float((instance.run(True) - contestants["authors' code"]()).abs().max()) / scale  # type: ignore[operator]
        print(f"  final points differ from the authors' by {gap:.1e} (relative)")
    seconds = interleaved(contestants, repeats)
    for name in contestants:
        speed = len(instance.events) / statistics.median(seconds[name])
        print(f"  {name}: {speed:,.0f} events/s")
    for name in contestants:
        if name != "at once":
            print("  " + ratio(seconds, name, "at once"))
    copies = [1, 4, 16, 64]
    batched: dict[str, Callable[[], object]] = {
        str(c): (lambda c=c: instance.run(True, c)) for c in copies
    }
    taken = interleaved(batched, max(2, repeats // 2))
    medians = [statistics.median(taken[str(c)]) for c in copies]
    for c, s in zip(copies, medians, strict=True):
        print(f"  {c} instances side by side: {c * len(instance.events) / s:,.0f} events/s")


def exact_rates(repeats: int) -> None:
    edges, curvatures = path_graph(5), curvature_profile("mixed", 5, 64)
    rates = uniform_rates(edges, 5)
    constants = DADAOConstants.of(1.0, 64.0, graph_constants(edges, 5, rates)[0])

    def dense() -> float:
        process = dadao_jump_process(curvatures, edges, rates, constants)
        return -spectral_abscissa(second_moment_generator(process))

    def secular() -> float:
        return exact_rate(curvatures, edges, rates, constants)

    print(f"exact rate, path of 5: {secular():.6f} secular, {dense():.6f} dense")
    print(
        "  " + ratio(interleaved({"dense": dense, "secular": secular}, repeats), "dense", "secular")
    )
    sizes = [4, 8, 16, 40]
    processes = {str(n): _path_process(n) for n in sizes}
    calls: dict[str, Callable[[], object]] = {
        name: (lambda p=process: secular_matrix(p, 0.0)) for name, process in processes.items()
    }
    seconds = interleaved(calls, max(2, repeats // 2))
    medians = [statistics.median(seconds[str(n)]) for n in sizes]
    text = ", ".join(f"n = {n}: {1e3 * s:.2f}" for n, s in zip(sizes, medians, strict=True))
    slope = np.polyfit(np.log(sizes[1:]), np.log(medians[1:]), 1)[0]
    print(f"  milliseconds of one secular matrix with its eigendecomposition on a path: {text}")
    print(
        f"  slope from n = 8 on: {slope:.2f} (law n^4: K² m² multiply-adds, K = 2n - 1, m = 6n - 2)"
    )


def _path_process(n: int) -> LinearJumpProcess:
    edges = path_graph(n)
    rates = uniform_rates(edges, n)
    constants = DADAOConstants.of(1.0, 64.0, graph_constants(edges, n, rates)[0])
    return dadao_jump_process(curvature_profile("mixed", n, 64), edges, rates, constants)


def cost_of_scheduling(repeats: int) -> None:
    edges, horizons = complete_graph(20), [30.0, 100.0, 300.0]
    lists = {
        str(h): poisson_events(
            torch.ones(20), edges, uniform_rates(edges, 20), h, torch.Generator().manual_seed(0)
        )
        for h in horizons
    }
    calls: dict[str, Callable[[], object]] = {
        name: (lambda e=events, h=float(name): schedule(e, 20, h, h))
        for name, events in lists.items()
    }
    seconds = interleaved(calls, max(2, repeats))
    counts = [len(events) for events in lists.values()]
    medians = [statistics.median(seconds[name]) for name in lists]
    slope = np.polyfit(np.log(counts), np.log(medians), 1)[0]
    print(
        f"ordering {counts[-1]} events: {1e3 * medians[-1]:.0f} ms; slope in the events {slope:.2f} (law 1)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer", type=Path, help="a checkout of AdelNabli/DADAO")
    options = parser.parse_args()
    torch.set_num_threads(1)
    simulators(options.repeats, options.peer)
    exact_rates(options.repeats)
    cost_of_scheduling(options.repeats)


if __name__ == "__main__":
    main()
