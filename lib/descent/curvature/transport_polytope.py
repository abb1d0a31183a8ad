r"""The vertices of the transport polytope between uniform marginals, for sizes at which all can be listed.

By Birkhoff's theorem the vertices are the permutation matrices divided by :math:`n`. The *gap*

.. math:: \Delta=\min_{V\ne V^*}\langle C,V\rangle-\langle C,V^*\rangle

between the best and the second-best vertex governs how fast the entropic plan concentrates on :math:`V^*`:
for :math:`\eta>(1+2\log n)/\Delta` the mass outside the :math:`n` largest entries is at most
:math:`6n^2e^{-\eta\Delta}`.

Sources: Tang et al. (ICLR 2024), theorem 1, first term; Weed (COLT 2018), corollary 9.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Vertices", "concentration_bound", "least_eta", "vertex_gap"]

LARGEST_SIZE = 7


@dataclass(frozen=True)
class Vertices:
    r"""Best and second-best vertex, and the two gaps.

    Args:
        best: :math:`V^*`, shape ``(n, n)``.
        second: the vertex of second-least cost.
        gap: :math:`\Delta`, in units of cost.
        exchange_gap: :math:`\Delta'`, the least excess cost of a vertex that differs from :math:`V^*` by one cycle, divided by
            the length of the cycle. The dropped mass decays like :math:`e^{-\eta n\Delta'}`.
    """

    best: Tensor
    second: Tensor
    gap: float
    exchange_gap: float


def vertex_gap(cost: Tensor) -> Vertices:
    r"""Enumerate all :math:`n!` vertices for uniform marginals.

    Args:
        cost: :math:`C`, shape ``(n, n)`` with ``n`` from 2 to 7.

    Returns:
        Vertices and gaps.

    Raises:
        ValueError: if ``cost`` is not square or too large to enumerate, or the best vertex is not unique (then the
            gap is not defined by two vertices and the theorem speaks of a face).
    """
    if cost.ndim != 2 or cost.shape[0] != cost.shape[1]:
        raise ValueError(f"cost must be square, got shape {tuple(cost.shape)}")
    n = cost.shape[0]
    if not 2 <= n <= LARGEST_SIZE:
        raise ValueError(f"can enumerate sizes 2 to {LARGEST_SIZE}, got {n}")
    permutations = torch.tensor(list(itertools.permutations(range(n))), device=cost.device)
    totals = cost[torch.arange(n, device=cost.device), permutations].sum(1) / n
    order = totals.argsort()
    best, second = permutations[order[0]], permutations[order[1]]
    gap = float(totals[order[1]] - totals[order[0]])
    if gap <= 1e-14 * float(cost.abs().max()):
        raise ValueError("two vertices have the same least cost: the gap is zero")
    # tau differs from the best permutation sigma by the cycles of sigma^-1 tau
    relative = torch.argsort(best)[permutations]
    moved = (relative != torch.arange(n, device=cost.device)).sum(1)
    exchange = min(
        float(total - totals[order[0]]) / int(count)
        for total, count, permutation in zip(totals, moved, relative.tolist(), strict=True)
        if count > 0 and _is_single_cycle(permutation)
    )
    eye = torch.eye(n, dtype=cost.dtype, device=cost.device) / n
    return Vertices(eye[best], eye[second], gap, exchange)


def _is_single_cycle(permutation: list[int]) -> bool:
    """Whether all points that move form one cycle."""
    moved = [i for i, image in enumerate(permutation) if image != i]
    length, point = 1, permutation[moved[0]]
    while point != moved[0]:
        length, point = length + 1, permutation[point]
    return length == len(moved)


def least_eta(size: int, gap: float) -> float:
    r"""Return :math:`(1+2\log n)/\Delta`, above which theorem 1 speaks.

    Args:
        size: :math:`n`.
        gap: :math:`\Delta>0`, in units of cost.

    Returns:
        A value of :math:`\eta`, in units of one over cost.

    Raises:
        ValueError: if ``gap`` is not positive.
    """
    if gap <= 0:
        raise ValueError(f"gap must be positive, got {gap}")
    return (1 + 2 * math.log(size)) / gap


def concentration_bound(size: int, gap: float, eta: float) -> float:
    r"""Return :math:`6n^2e^{-\eta\Delta}`, the bound at convergence (first term of theorem 1).

    Args:
        size: :math:`n`.
        gap: :math:`\Delta`.
        eta: :math:`\eta`.

    Returns:
        A bound on a mass out of 1; vacuous from 1 (for the dropped mass) or 2 (for the distance) on.
    """
    return 6 * size**2 * math.exp(-eta * gap)
