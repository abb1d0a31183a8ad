"""Consensus-based optimization against cbx on the same work, its cost law, and evolutionary peers at equal evaluations.

One thread, float64. The timing runs 50 times 200 particles on the canyon with the authors' parameters, in this library
and in cbx, which is given the same objective; a check first feeds both the same noise. The cost law is fitted over the
number of particles. The peers, CMA-ES with restarts (cma) and differential evolution (SciPy), start from the same law
as the swarm, have its budget, and are tried with several populations.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import numpy as np
import torch
from cbx.dynamics import CBO

from benchmarks.interleaved import interleaved, ratio
from descent.beyond_gradients.consensus import consensus_based_optimization, consensus_hopping
from descent.beyond_gradients.consensus_experiments import gaussian_cloud
from descent.beyond_gradients.evolution_peers import (
    cma_evaluations_to_success,
    differential_evolution_to_success,
    first_success,
)
from descent.beyond_gradients.landscapes import grand_canyon, rough_absolute_value

CANYON = {"lam": 1.0, "sigma": 1.6, "dt": 0.01, "alpha": 100.0}


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def canyon_cloud(runs: int, count: int) -> torch.Tensor:
    centre = torch.full((runs, 2), 8.0, dtype=torch.float64)
    return gaussian_cloud(centre, 0.5, count, stream())


def ours(cloud: torch.Tensor, steps: int, generator: torch.Generator) -> torch.Tensor:
    with torch.inference_mode():
        return consensus_based_optimization(
            cloud, grand_canyon, steps=steps, generator=generator, **CANYON
        ).path


def of_cbx(
    cloud: torch.Tensor, steps: int, generator: torch.Generator | None = None
) -> torch.Tensor:
    def shared(size: tuple[int, ...]) -> np.ndarray:
        return torch.randn(size, generator=generator, dtype=torch.float64).numpy()

    peer = CBO(
        lambda x: grand_canyon(torch.from_numpy(x)).numpy(),
        f_dim="3D",
        check_f_dims=False,
        verbosity=0,
        max_it=steps,
        x=cloud.numpy(),
        noise="isotropic",
        lamda=1.0,
        sigma=1.6,
        dt=0.01,
        alpha=100.0,
        sampler=shared if generator else None,
        seed=0,
    )
    path = []
    for _ in range(steps):
        peer.step()
        path.append(peer.consensus[:, 0].copy())
    return torch.from_numpy(np.stack(path))


def against_cbx(repeats: int) -> None:
    cloud = canyon_cloud(50, 200)
    gap = (ours(cloud, 250, stream(1)) - of_cbx(cloud, 250, stream(1))).abs().amax((0, 2))
    # where two particles are nearly equal in energy, alpha amplifies the round-off of a run
    print(
        f"50 runs, 200 particles, 250 steps, same noise: paths differ by {gap.median():.1e} "
        f"in the median run, by {gap.max():.1e} in the worst"
    )
    seconds = interleaved(
        {
            "cbx (its own noise)": lambda: of_cbx(cloud, 250),
            "cbx (torch's noise)": lambda: of_cbx(cloud, 250, stream(1)),
            "ours": lambda: ours(cloud, 250, stream(1)),
        },
        repeats,
    )
    print(f"  ours {statistics.median(seconds['ours']):.3f} s")
    for peer in list(seconds)[:2]:
        print("  " + ratio(seconds, peer, "ours"))


def cost_law(repeats: int) -> None:
    counts = (2_000, 5_000, 10_000, 20_000)
    clouds = {n: canyon_cloud(1, n) for n in counts}
    seconds = interleaved(
        {str(n): lambda n=n: ours(clouds[n], 20, stream(1)) for n in counts}, repeats
    )
    medians = [statistics.median(seconds[str(n)]) for n in counts]
    slope = np.polyfit(np.log(counts), np.log(medians), 1)[0]
    print(f"cost law: seconds against particles, slope {slope:.2f} (evaluations: 1 exactly)")
    batch = (1, 10)
    work = {r: canyon_cloud(r, 200) for r in batch}
    timed = interleaved({str(r): lambda r=r: ours(work[r], 100, stream(1)) for r in batch}, repeats)
    gain = 10 * statistics.median(timed["1"]) / statistics.median(timed["10"])
    print(f"  ten runs of 200 particles as one batch: {gain:.1f} times faster than one by one")


def line(name: str, found: Sequence[int | None]) -> None:
    hits = [n for n in found if n is not None]
    middle = f"{statistics.median(hits):,.0f}" if hits else "-"
    print(f"  {name:18s} {len(hits):3d} of {len(found):3d}   median evaluations {middle:>8s}")


def peers(runs: int) -> None:
    def canyon_near(x: torch.Tensor) -> torch.Tensor:
        return x.norm(dim=-1) <= 0.5

    def rough_near(x: torch.Tensor) -> torch.Tensor:
        return x.abs().amax(-1) <= 0.25

    rough = {"lam": 1.0, "sigma": 2.0, "dt": 0.02, "alpha": 1e5, "noise": "anisotropic"}
    for title, objective, centre, spread, near, parameters in (
        ("canyon", grand_canyon, [8.0] * 2, 0.5, canyon_near, CANYON),
        ("nonsmooth, d = 4", rough_absolute_value, [2.0] * 4, 2.0, rough_near, rough),
    ):
        print(f"{title}: first incumbent near the minimiser within 50,000 evaluations")

        def one(x: np.ndarray, near=near) -> bool:
            return bool(near(torch.from_numpy(np.asarray(x))))

        start = torch.tensor(centre, dtype=torch.float64).expand(20, -1)
        with torch.inference_mode():
            path = consensus_based_optimization(
                gaussian_cloud(start, spread, 200, stream(2)),
                objective,
                steps=250,
                generator=stream(3),
                **parameters,
            ).path
            line("CBO", first_success(near(path), 200))
            if title == "canyon":
                hops = consensus_hopping(
                    start,
                    objective,
                    steps=250,
                    sigma=0.7,
                    alpha=100.0,
                    count=200,
                    generator=stream(4),
                )
                line("CH, width .7", first_success(near(hops.path), 200))
        options = {"near": one, "budget": 50_000}
        for population in (None, 20, 50):
            line(
                f"CMA-ES {population or 'default'}",
                [
                    cma_evaluations_to_success(
                        objective,
                        np.array(centre),
                        spread,
                        population=population,
                        seed=s + 1,
                        **options,
                    )
                    for s in range(runs)
                ],
            )
        for population in (20, 50, 200):
            clouds = np.random.default_rng(0).standard_normal((runs, population, len(centre)))
            line(
                f"DE {population}",
                [
                    differential_evolution_to_success(
                        objective, spread * cloud + np.array(centre), seed=s, **options
                    )
                    for s, cloud in enumerate(clouds)
                ],
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--runs", type=int, default=5, help="runs of each evolutionary peer")
    options = parser.parse_args()
    torch.set_num_threads(1)
    against_cbx(options.repeats)
    cost_law(options.repeats)
    peers(options.runs)


if __name__ == "__main__":
    main()
