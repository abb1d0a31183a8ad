"""CycleLR against torch's schedulers and pytorch_optimizer's WSD: the same rates, and the time per step.

First the rates: how far linear WSD is from torch's SequentialLR, cyclic cosine from CosineAnnealingWarmRestarts, and
every decay of pytorch_optimizer's get_wsd_schedule from ours (it counts from the start of a step, so it is compared one
decay step later), with and without a floor. Then seconds for a whole schedule, interleaved, and the cost laws: of a
scheduler step against the number of cycles (a bisection: nearly 0), and of the exact second moments against steps and
modes (1 each), beside a Monte Carlo estimate of the same expected loss, whose error falls as the square root of its cost.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np
import torch
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingWarmRestarts,
    LinearLR,
    LRScheduler,
    SequentialLR,
)

from benchmarks.interleaved import interleaved, ratio
from descent.stability.cycle_schedule import (
    CycleLR,
    cyclic_cosine_schedule,
    wsd_schedule,
    wsds_schedule,
)
from descent.stability.noisy_quadratic import NoisyQuadratic

STEPS, WARMUP, DECAY, FLOOR = 2000, 100, 200, 0.1


def optimiser() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)


def sequential() -> SequentialLR:
    base = optimiser()
    parts = [
        LinearLR(base, 1e-12, 1.0, WARMUP),
        ConstantLR(base, 1.0, STEPS - WARMUP - DECAY - 1),
        LinearLR(base, 1.0, FLOOR, DECAY),
    ]
    return SequentialLR(base, parts, [WARMUP, STEPS - DECAY - 1])


def ours(shape: str = "linear", floor: float = FLOOR) -> CycleLR:
    schedule = wsd_schedule(STEPS, decay=DECAY, warmup=WARMUP, shape=shape, floor_ratio=floor)
    return CycleLR(optimiser(), schedule)


def rates(scheduler: LRScheduler, steps: int = STEPS) -> np.ndarray:
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return np.array(found)


def same_rates(peer: Callable[..., LRScheduler] | None) -> None:
    print(
        f"linear WSD against SequentialLR: {np.abs(rates(ours()) - rates(sequential())).max():.1e}"
    )
    cyclic = rates(
        CycleLR(optimiser(), cyclic_cosine_schedule((500, 1000), floor_ratio=FLOOR)), 1000
    )
    restarts = rates(CosineAnnealingWarmRestarts(optimiser(), 500, eta_min=FLOOR), 1000)
    inside = [t for t in range(999) if t != 499]
    gap = np.abs(cyclic[inside] - restarts[[t + 1 for t in inside]]).max()
    print(f"cyclic cosine against CosineAnnealingWarmRestarts, one step ahead: {gap:.1e}")
    if peer is None:
        print("pytorch_optimizer is not installed: its get_wsd_schedule is not compared")
        return
    for theirs, shape in (("linear", "linear"), ("1-sqrt", "sqrt"), ("cosine", "cosine")):
        for floor in (0.0, FLOOR):
            other = rates(
                peer(
                    optimiser(), WARMUP, STEPS - WARMUP - DECAY, DECAY,
                    min_lr_ratio=floor, cooldown_type=theirs,
                ),
                STEPS + 1,
            )  # fmt: skip
            gap = np.abs(rates(ours(shape, floor)) - np.delete(other, STEPS - DECAY)).max()
            verdict = "agree" if gap < 1e-9 else "DIFFER: the floor is ignored during the decay"
            print(
                f"pytorch_optimizer, {theirs}, floor {floor:g}: largest gap {gap:.1e} ({verdict})"
            )


def timing(peer: Callable[..., LRScheduler] | None, repeats: int) -> None:
    contestants: dict[str, Callable[[], object]] = {
        "CycleLR": lambda: rates(ours()),
        "SequentialLR": lambda: rates(sequential()),
    }
    if peer is not None:
        contestants["pytorch_optimizer"] = lambda: rates(
            peer(optimiser(), WARMUP, STEPS - WARMUP - DECAY, DECAY)
        )
    seconds = interleaved(contestants, repeats)
    per_step = statistics.median(seconds["CycleLR"]) / STEPS
    print(f"a step of SGD with CycleLR: {per_step * 1e6:.0f} µs")
    for other in list(contestants)[1:]:
        print("  " + ratio(seconds, "CycleLR", other))


def slope(x: list[int], y: list[float]) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def cost_laws(repeats: int) -> None:
    counts = [1, 10, 100, 1000]
    schedules = [
        wsds_schedule(tuple(20 * (k + 1) for k in range(c)), decay_of="cycle") for c in counts
    ]
    calls = {
        str(c): lambda s=s: [s(t % s.total) for t in range(0, 40_000, 8)]
        for c, s in zip(counts, schedules, strict=True)
    }
    seconds = interleaved(calls, repeats)
    medians = [statistics.median(seconds[str(c)]) for c in counts]
    print(
        f"  schedule against cycles 1 to 1000: slope {slope(counts, medians):.2f} (theory: 0, log)"
    )
    for axis, sizes, make in (
        ("steps", [100, 300, 1000], lambda n: (3000, n)),
        ("modes", [30_000, 100_000, 300_000], lambda n: (n, 30)),
    ):
        calls = {str(n): (lambda n=n, make=make: exact_loss(*make(n))) for n in sizes}
        seconds = interleaved(calls, repeats)
        medians = [statistics.median(seconds[str(n)]) for n in sizes]
        print(f"  exact moments against {axis}: slope {slope(sizes, medians):.2f} (theory: 1)")


def curvatures(modes: int) -> torch.Tensor:
    return torch.arange(1, modes + 1, dtype=torch.float64) ** -1.5


def exact_loss(modes: int, steps: int) -> float:
    problem = NoisyQuadratic(curvatures(modes), 0.02 * curvatures(modes), 1.0)
    return float(problem.run(torch.full((1, steps), 1.2, dtype=torch.float64), [steps]))


def sampled_loss(modes: int, steps: int, particles: int, generator: torch.Generator) -> float:
    values = curvatures(modes)
    shape = (particles, modes)
    weights = torch.randn(shape, generator=generator, dtype=torch.float64)
    for _ in range(steps):
        noise = (
            torch.randn(shape, generator=generator, dtype=torch.float64) * (0.02 * values).sqrt()
        )
        weights.sub_(1.2 * (values * weights + noise))
    return float((weights.square() * values).sum(1).mean() / 2)


def against_sampling(repeats: int) -> None:
    modes, steps, particles = 300, 200, [4, 12, 40]
    truth, generator = exact_loss(modes, steps), torch.Generator().manual_seed(0)
    errors = []
    for count in particles:
        runs = [sampled_loss(modes, steps, count, generator) for _ in range(8)]
        errors.append(float(np.sqrt(np.mean((np.array(runs) / truth - 1) ** 2))))
    seconds = interleaved(
        {
            "exact": lambda: exact_loss(modes, steps),
            "sampled": lambda: sampled_loss(modes, steps, particles[-1], generator),
        },
        repeats,
    )
    print(f"exact moments against Monte Carlo, {modes} modes, {steps} steps")
    print(f"  relative error of {particles} particles: {', '.join(f'{e:.3f}' for e in errors)}")
    print(f"  error against particles: slope {slope(particles, errors):.2f} (theory: -0.5)")
    print("  " + ratio(seconds, "sampled", "exact"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        from pytorch_optimizer import get_wsd_schedule as peer
    except ImportError:
        peer = None
    same_rates(peer)
    timing(peer, options.repeats)
    print("cost laws")
    cost_laws(options.repeats)
    against_sampling(options.repeats)


if __name__ == "__main__":
    main()
