"""Interleaved timing: the contestants take turns, so that a slow minute of the machine hits all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(
    contestants: Mapping[str, Callable[[], object]], repeats: int
) -> dict[str, list[float]]:
    """Seconds of each call, ``repeats`` rounds after one unmeasured round."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(repeats + 1):
        for name, call in contestants.items():
            start = time.perf_counter()
            call()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: Mapping[str, list[float]], slower: str, faster: str) -> str:
    """The paired ratio of two contestants: median and range over the rounds."""
    pairs = [a / b for a, b in zip(seconds[slower], seconds[faster], strict=True)]
    return (
        f"{slower} / {faster}: {statistics.median(pairs):.3g} "
        f"(range {min(pairs):.3g} to {max(pairs):.3g}, {len(pairs)} rounds)"
    )
