"""Branch and bound for the largest value of something that can only be bounded from above.

The driver knows nothing of networks: it keeps open *domains* with an upper bound each, takes the worst ones,
splits them into parts, bounds the parts, and reports the largest bound that is left.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["BranchAndBoundResult", "branch_and_bound"]

Domain = TypeVar("Domain")
Notes = TypeVar("Notes")


@dataclass(frozen=True)
class BranchAndBoundResult:
    """What is left after branch and bound.

    Attributes:
        bound: the upper bound over the root domain.
        trace: the bound before the first split and after each round of splits; never increases.
        splits: the number of domains that were split.
        bounded: the number of domains that were bounded.
        finished: whether more splits could not lower the bound, or it has come down to the target.
    """

    bound: float
    trace: tuple[float, ...]
    splits: int
    bounded: int
    finished: bool


def branch_and_bound(
    root: Domain,
    evaluate: Callable[[Sequence[Domain]], Sequence[tuple[float, Notes]]],
    branch: Callable[[Domain, Notes], Sequence[Domain]],
    max_splits: int,
    batch: int = 1,
    target: float = -math.inf,
) -> BranchAndBoundResult:
    """Lower an upper bound by splitting the domain with the worst bound, again and again.

    A part is credited with the better of its own bound and that of the domain it comes from, so that the
    bound never rises. An empty part is told by the bound ``-inf``.

    Args:
        root: the whole domain.
        evaluate: bounds several domains at once; returns of each an upper bound and notes for ``branch``.
        branch: splits a domain into parts that cover it; none if it cannot be split further.
        max_splits: splits at most; 0 only bounds the root.
        batch: domains split per round, the worst ones first.
        target: a value known to be attained; the search ends once the bound is no larger.

    Returns:
        The bound and its history.

    Raises:
        ValueError: for a negative number of splits or an empty batch.
    """
    if max_splits < 0 or batch < 1:
        raise ValueError(f"max_splits must be >= 0 and batch >= 1, got {max_splits} and {batch}")
    order = itertools.count()  # ties go to the older domain
    ((value, notes),) = evaluate([root])
    open_domains = [(-value, next(order), root, notes)]
    closed = -math.inf  # the worst of the domains that cannot be split
    trace, splits, bounded = [value], 0, 1
    while splits < max_splits and open_domains and trace[-1] > target:
        parts: list[tuple[Domain, float]] = []
        for _ in range(min(batch, max_splits - splits)):
            if not open_domains or -open_domains[0][0] <= closed:
                break
            negative, _, domain, notes = heapq.heappop(open_domains)
            children = branch(domain, notes)
            if not children:
                closed = max(closed, -negative)
                continue
            splits += 1
            parts += [(child, -negative) for child in children]
        if not parts:
            break
        outcomes = evaluate([child for child, _ in parts])
        bounded += len(parts)
        for (child, inherited), (value, notes) in zip(parts, outcomes, strict=True):
            if value > -math.inf:
                heapq.heappush(open_domains, (-min(value, inherited), next(order), child, notes))
        worst = -open_domains[0][0] if open_domains else -math.inf
        trace.append(max(worst, closed))
    finished = not open_domains or -open_domains[0][0] <= closed or trace[-1] <= target
    return BranchAndBoundResult(trace[-1], tuple(trace), splits, bounded, finished)
