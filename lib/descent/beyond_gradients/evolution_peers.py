"""Established evolutionary optimisers, stopped at the first incumbent near a known minimiser.

CMA-ES is that of the package ``cma``, differential evolution that of SciPy. Both are zero-order and
invariant under monotone changes of the objective, like consensus methods with an infinite ``alpha``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

__all__ = ["cma_evaluations_to_success", "differential_evolution_to_success", "first_success"]

Batch = Callable[[np.ndarray], np.ndarray]


def as_batch(objective: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
    """Wrap a torch objective ``(n, d)`` to ``(n,)`` for NumPy arrays."""
    return lambda points: objective(torch.from_numpy(np.ascontiguousarray(points))).numpy()


def cma_evaluations_to_success(
    objective: Callable[[torch.Tensor], torch.Tensor],
    start: np.ndarray,
    spread: float,
    *,
    near: Callable[[np.ndarray], bool],
    budget: int,
    population: int | None = None,
    seed: int = 1,
) -> int | None:
    """Run CMA-ES with restarts from the same start, doubling the population each time.

    Args:
        objective: maps ``(n, d)`` to ``(n,)``.
        start: shape ``(d,)``.
        spread: initial step size.
        near: whether an incumbent counts as a success.
        budget: largest number of evaluations.
        population: of the first start; ``None`` for the package's default.
        seed: positive.

    Returns:
        Evaluations when the best point so far first was a success, or ``None``.
    """
    from cma import CMAEvolutionStrategy  # type: ignore[import-untyped]

    evaluate, used, best, restart = as_batch(objective), 0, math.inf, 0
    size = population or 4 + int(3 * math.log(len(start)))
    while used < budget:
        options = {"seed": 1000 * seed + restart, "verbose": -9, "popsize": size * 2**restart}
        strategy = CMAEvolutionStrategy(start, spread, options)
        while used < budget and not strategy.stop():
            points = np.asarray(strategy.ask())
            energies = evaluate(points)
            strategy.tell(points, energies.tolist())
            used += len(points)
            lowest = int(energies.argmin())
            if energies[lowest] < best:
                best = float(energies[lowest])
                if near(points[lowest]):
                    return used
        restart += 1
    return None


def differential_evolution_to_success(
    objective: Callable[[torch.Tensor], torch.Tensor],
    population: np.ndarray,
    *,
    near: Callable[[np.ndarray], bool],
    budget: int,
    bounds: tuple[float, float] = (-20.0, 20.0),
    seed: int = 1,
) -> int | None:
    """Run SciPy's differential evolution from a given population, without a final polish.

    Args:
        objective: maps ``(n, d)`` to ``(n,)``.
        population: initial points, shape ``(n, d)``, at least five.
        near: whether an incumbent counts as a success.
        budget: largest number of evaluations.
        bounds: the box, the same for all coordinates.
        seed: of its random stream.

    Returns:
        Evaluations when the best member first was a success, or ``None``.
    """
    from scipy.optimize import differential_evolution

    evaluate, size = as_batch(objective), len(population)
    used, reached = 0, None

    def counted(points: np.ndarray) -> np.ndarray:
        nonlocal used
        used += points.shape[1]
        return evaluate(points.T)

    def stop(intermediate_result: Any) -> bool:
        nonlocal reached
        if near(intermediate_result.x):
            reached = used
        return reached is not None or used + size > budget

    differential_evolution(
        counted,
        [bounds] * population.shape[1],
        init=population,
        maxiter=budget // size,
        tol=0,
        polish=False,
        vectorized=True,
        updating="deferred",
        callback=stop,
        rng=seed,
    )
    return reached


def first_success(near: torch.Tensor, cost: int) -> list[int | None]:
    """Return the evaluations of each run until its path first is near the minimiser.

    Args:
        near: for each step and run, shape ``(K, R)``, boolean.
        cost: evaluations per step.

    Returns:
        One number per run, ``None`` for a run that never is.
    """
    steps = near.to(torch.int64).argmax(0)
    return [
        (int(step) + 1) * cost if bool(hit) else None
        for step, hit in zip(steps, near.any(0), strict=True)
    ]
