"""Error signals of a settled network against autograd and linear solves: same network, same gradients, interleaved.

A digits-sized network (64 inputs, layers 48, 48, 10, one hundred examples, float64) with weights small enough that
30 relaxation steps reach round-off. Recurrent backpropagation by iteration is timed against three ways to the same
gradient: autograd through the unrolled relaxation, a linear solve per example, and, if installed, torchdeq's
implicit differentiation. Then the response, exact and from six complex nudges, and the cost laws in the number of
units and in the number of nudges.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace

import numpy as np
import torch

from benchmarks.interleaved import interleaved, ratio
from descent.beyond_gradients.equilibrium_errors import (
    adjoint_error,
    finite_nudge_response,
    parameter_gradient,
    response,
)
from descent.beyond_gradients.fixed_point_network import (
    FixedPointNetwork,
    chain,
    cross_entropy_gradient,
    draw_network,
)

STEPS = 30


class Problem:
    """One network, one batch, and every way to its recurrent gradient."""

    def __init__(self, hidden: int, batch: int = 100) -> None:
        generator = torch.Generator().manual_seed(0)
        drawn = draw_network(chain((hidden, hidden, 10)), 64, 10, 90.0, [generator], torch.float64)
        self.network = replace(drawn, recurrent=0.3 * drawn.recurrent)
        self.inputs = torch.rand(1, batch, 64, generator=generator, dtype=torch.float64)
        self.labels = torch.arange(batch) % 10
        self.targets = torch.nn.functional.one_hot(self.labels, 10).double()
        self.drive = self.network.drive(self.inputs)
        self.mask = self.network.wiring.mask(torch.float64)
        self.fluid = self.network.to(torch.complex128)
        self.state = self.network.relax(self.drive, STEPS)

    def gradient(self, rule: str) -> torch.Tensor:
        """Free relaxation and one error signal, without autograd."""
        state = self.network.relax(self.drive, STEPS)
        activity = self.network.activation.function(state)
        loss = cross_entropy_gradient(self.network, self.targets)(activity)
        error = {
            "RBP": lambda: adjoint_error(self.network, state, loss, STEPS),
            "RBP solve": lambda: adjoint_error(self.network, state, loss),
            "EP": lambda: response(self.network, state, loss, STEPS),
        }[rule]()
        residual = torch.softmax(self.network.logits(activity), -1) - self.targets
        return parameter_gradient(self.network, self.inputs, activity, error, residual)["recurrent"]

    def _loss(self, network: FixedPointNetwork, state: torch.Tensor) -> torch.Tensor:
        logits = network.logits(network.activation.function(state))
        return torch.nn.functional.cross_entropy(logits[0], self.labels)

    def unrolled(self) -> torch.Tensor:
        leaf = self.network.recurrent.clone().requires_grad_()
        network = replace(self.network, recurrent=leaf)
        loss = self._loss(network, network.relax(self.drive, STEPS))
        return torch.autograd.grad(loss, leaf)[0] * self.mask

    def torchdeq(self) -> torch.Tensor:
        from torchdeq import get_deq

        deq = get_deq(
            f_solver="fixed_point_iter",
            b_solver="fixed_point_iter",
            f_max_iter=STEPS,
            b_max_iter=STEPS,
            f_tol=1e-14,
            b_tol=1e-14,
            ift=True,
        )
        leaf = self.network.recurrent.clone().requires_grad_()
        network = replace(self.network, recurrent=leaf)
        states, _ = deq(lambda u: network.relax(self.drive, 1, u), torch.zeros_like(self.drive))
        return torch.autograd.grad(self._loss(network, states[-1]), leaf)[0] * self.mask

    def nudged(self, points: int) -> torch.Tensor:
        gradient = cross_entropy_gradient(self.fluid, self.targets)
        return finite_nudge_response(
            self.fluid, self.drive + 0j, self.state + 0j, gradient, 0.2, points, STEPS
        )


def compare(repeats: int) -> None:
    problem = Problem(48)
    contestants = {
        "RBP iterated": lambda: problem.gradient("RBP"),
        "RBP solved": lambda: problem.gradient("RBP solve"),
        "EP response": lambda: problem.gradient("EP"),
        "autograd unrolled": problem.unrolled,
    }
    try:
        import torchdeq  # noqa: F401

        contestants["torchdeq"] = problem.torchdeq
    except ImportError:
        print("torchdeq is not installed: its implicit differentiation is left out")
    truth = problem.unrolled()
    for name, call in contestants.items():
        gap = float((call() - truth).norm() / truth.norm())
        print(f"{name}: gradient differs from autograd by {gap:.1e} (relative)")
    seconds = interleaved(contestants, repeats)
    print(f"RBP iterated: {statistics.median(seconds['RBP iterated']) * 1e3:.1f} ms")
    for name in contestants:
        if name != "RBP iterated":
            print("  " + ratio(seconds, name, "RBP iterated"))


def slope(x: list[int], y: list[float]) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def laws(repeats: int) -> None:
    widths = [100, 200, 400, 1000]
    problems = {f"{2 * w + 10}": Problem(w) for w in widths}
    seconds = interleaved(
        {name: lambda p=p: p.network.relax(p.drive, STEPS) for name, p in problems.items()}, repeats
    )
    units = [2 * w + 10 for w in widths]
    medians = [statistics.median(seconds[str(n)]) for n in units]
    print(f"relaxation against units, {units[0]} to {units[-1]}: slope {slope(units, medians):.2f}")
    print("  (theory: 2 for the product, 1 for the activations)")
    problem, points = Problem(48), [2, 4, 8, 16, 32]
    seconds = interleaved({str(n): lambda n=n: problem.nudged(n) for n in points}, repeats)
    medians = [statistics.median(seconds[str(n)]) for n in points]
    work = [n // 2 + 1 for n in points]
    print(
        f"finite nudges against N/2 + 1, N = 2 to 32: slope {slope(work, medians):.2f} (theory: 1)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    compare(options.repeats)
    laws(options.repeats)


if __name__ == "__main__":
    main()
