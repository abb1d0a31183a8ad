"""The batched solver of the hard constraint against SciPy's least_squares on the same problems, interleaved.

SciPy (MINPACK's Levenberg-Marquardt with the same analytic Jacobian) takes one problem after the other; ours takes the
batch. With --peer also Optimistix in JAX, batched by vmap and compiled, on the same rows; it has to be installed separately.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
import scipy.optimize
import torch

from benchmarks.interleaved import interleaved, ratio
from descent.physics.basis_networks import PerceptronBasis
from descent.physics.diffusion_sorption import (
    DIFFUSION,
    EXPONENT,
    SHIFT,
    SORPTION,
    DiffusionSorption,
)
from descent.physics.domain_router import DomainRouter
from descent.physics.hard_constraint import ConstraintProblem, HardConstraint


def problems(experts: int, bases: int, batch: int) -> tuple[HardConstraint, ConstraintProblem]:
    """A batch of problems with the bases of an untrained network."""
    equation, source = DiffusionSorption(), torch.Generator().manual_seed(0)
    layer = HardConstraint(
        equation,
        DomainRouter.blocks(equation.shape, (1, experts)),
        ridge=1e-2,
        max_iter=50,
        tol=1e-8,
    )
    network = PerceptronBasis(bases)
    initial = 0.02 + 0.17 * torch.rand(1, batch, generator=source, dtype=torch.float64)
    basis = network(network.initialise(1, source), initial, equation.shape).double()
    return layer, layer.problem(basis, initial, layer.sample_points(150, source))


def scipy_costs(batch: ConstraintProblem, count: int, bases: int) -> np.ndarray:
    """Minimal cost of each problem by MINPACK."""
    costs = []
    for k in range(count):
        alone = batch.select(torch.tensor([k]))
        found = scipy.optimize.least_squares(
            lambda w, p=alone: p.residual(torch.from_numpy(w)[None])[0].numpy(),
            np.ones(bases),
            lambda w, p=alone: p.jacobian(torch.from_numpy(w)[None])[0].numpy(),
            method="lm",
            ftol=1e-8,
        )
        costs.append(2 * found.cost)
    return np.array(costs)


def optimistix_solver(batch: ConstraintProblem, bases: int):  # type: ignore[no-untyped-def]
    """A compiled function that solves the batch by Optimistix."""
    import jax
    import jax.numpy as jnp
    import optimistix

    jax.config.update("jax_enable_x64", True)
    operators, matrix, target = (
        jnp.asarray(a.numpy()) for a in (batch.operators, batch.matrix, batch.target)
    )

    def residual(w, args):  # type: ignore[no-untyped-def]
        ops, a, y = args
        u, ut, uxx = ops @ w
        base = jnp.maximum(u, 0) + SHIFT
        r = 1 + SORPTION * base ** (EXPONENT - 1)
        equation = batch.weight * (ut - DIFFUSION * uxx / r)
        return jnp.concatenate((equation, a @ w - y, batch.ridge * w))

    solver = optimistix.LevenbergMarquardt(rtol=1e-8, atol=1e-8)

    def solve(args):  # type: ignore[no-untyped-def]
        found = optimistix.least_squares(
            residual, solver, jnp.ones(bases), args, max_steps=50, throw=False
        )
        return jnp.sum(residual(found.value, args) ** 2)

    compiled = jax.jit(jax.vmap(solve))
    return lambda: np.asarray(compiled((operators, matrix, target)))


def cost_law(repeats: int) -> None:
    """Seconds of a fixed number of iterations against the points, and against the experts at equal points in all."""
    equation, source = DiffusionSorption(101, 128), torch.Generator().manual_seed(1)
    network = PerceptronBasis(8)
    initial = torch.tensor([[0.03, 0.08, 0.13, 0.18]], dtype=torch.float64)
    basis = network(network.initialise(1, source), initial, equation.shape).double()

    def solver(experts: int, points: int):  # type: ignore[no-untyped-def]
        router = DomainRouter.blocks(equation.shape, (1, experts))
        layer = HardConstraint(equation, router, max_iter=10, tol=0.0)
        problem = layer.problem(basis, initial, layer.sample_points(points // experts, source))
        return lambda: layer.solve(problem)

    sizes = (1_000, 2_000, 5_000, 10_000)
    seconds = interleaved({str(m): solver(1, m) for m in sizes}, repeats)
    slope = np.polyfit(np.log(sizes), [np.log(statistics.median(s)) for s in seconds.values()], 1)[
        0
    ]
    print(f"slope of a solve in the points, 1,000 to 10,000: {slope:.2f} (law 1)")
    seconds = interleaved({str(k): solver(k, 10_000) for k in (1, 2, 4, 8)}, repeats)
    print("all experts of a batch, 10,000 points in all:")
    for k in ("2", "4", "8"):
        print(f"  experts {ratio(seconds, k, '1')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peer", action="store_true", help="also Optimistix")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for experts, bases, batch in ((1, 16, 6), (4, 16, 6), (4, 8, 20)):
        layer, stated = problems(experts, bases, batch)
        count = experts * batch
        flat = stated.select(torch.arange(count))
        start = torch.ones(count, bases, dtype=torch.float64)
        ours = layer.solve(flat, start).cost.numpy()
        peer = scipy_costs(flat, count, bases)
        gap = np.abs(ours / peer - 1)
        print(
            f"{count} problems, {bases} unknowns: costs differ by {np.median(gap):.1e} in the median, "
            f"{gap.max():.1e} at most (relative)"
        )
        contestants = {
            "batched": lambda p=flat, s=start, c=layer: c.solve(p, s),
            "SciPy": lambda p=flat, n=count, b=bases: scipy_costs(p, n, b),
        }
        if options.peer:
            contestants["Optimistix"] = optimistix_solver(flat, bases)
            other = np.abs(ours / contestants["Optimistix"]() - 1)
            print(
                f"  Optimistix: costs differ by {np.median(other):.1e} in the median, {other.max():.1e} at most"
            )
        seconds = interleaved(contestants, options.repeats)
        print(f"  batched {statistics.median(seconds['batched']) * 1e3:.2f} ms")
        for name in contestants:
            if name != "batched":
                print("    " + ratio(seconds, name, "batched"))
    cost_law(options.repeats)


if __name__ == "__main__":
    main()
