r"""Communication graphs and the two numbers that decide how often neighbours must talk.

For intensities :math:`\lambda_{ij}\ge0` on the edges (events per unit of time) let

.. math:: \Lambda=\sum_{(ij)\in E}\lambda_{ij}(e_i-e_j)(e_i-e_j)^\top,\qquad
          \chi_1[\Lambda]=\frac1{\lambda_2(\Lambda)},\qquad
          \chi_2[\Lambda]=\max_{(ij)\in E}\tfrac12(e_i-e_j)^\top\Lambda^+(e_i-e_j).

Always :math:`\chi_2\le\chi_1`, and :math:`\chi[c\Lambda]=\chi[\Lambda]/c`. A total rate
:math:`\lambda` spread evenly satisfies :math:`2\chi_1\chi_2\le1` from
:math:`\lambda^*=\sqrt{2\chi_1\chi_2}` on, where the :math:`\chi` are those of total rate 1.

Source: Nabli and Oyallon (ICML 2023), definitions as in the authors' code.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

__all__ = [
    "cliques_joined",
    "complete_graph",
    "complete_with_tail",
    "cycle_graph",
    "edge_resistances",
    "graph_constants",
    "grid_graph",
    "laplacian",
    "path_graph",
    "random_geometric_graph",
    "required_gossip_rate",
    "star_graph",
]


def _edges(pairs: list[tuple[int, int]]) -> Tensor:
    return torch.tensor(pairs, dtype=torch.long)


def complete_graph(n: int) -> Tensor:
    """All pairs of ``n`` nodes, shape ``(n (n - 1) / 2, 2)``."""
    return _edges([(i, j) for i in range(n) for j in range(i + 1, n)])


def star_graph(n: int) -> Tensor:
    """Node 0 joined to the ``n - 1`` others."""
    return _edges([(0, i) for i in range(1, n)])


def cycle_graph(n: int) -> Tensor:
    """A ring of ``n >= 3`` nodes."""
    return _edges([(i, (i + 1) % n) for i in range(n)])


def path_graph(n: int) -> Tensor:
    """A line of ``n`` nodes."""
    return _edges([(i, i + 1) for i in range(n - 1)])


def grid_graph(side: int) -> Tensor:
    """A square grid of ``side * side`` nodes, numbered row by row."""
    right = [(r * side + c, r * side + c + 1) for r in range(side) for c in range(side - 1)]
    down = [(r * side + c, (r + 1) * side + c) for r in range(side - 1) for c in range(side)]
    return _edges(right + down)


def cliques_joined(size: int) -> Tensor:
    """Two complete graphs of ``size`` nodes, the last node of one joined to the first of the other."""
    one = complete_graph(size)
    return torch.cat([one, one + size, _edges([(size - 1, size)])])


def complete_with_tail(size: int, tail: int) -> Tensor:
    """A complete graph of ``size`` nodes with a path of ``tail`` more hanging from its last node."""
    return torch.cat([complete_graph(size), path_graph(tail + 1) + size - 1])


def random_geometric_graph(n: int, radius: float, generator: torch.Generator) -> Tensor:
    """Points in the unit square, joined where closer than ``radius``, then made connected.

    Components are visited in the order of their smallest node; each is joined to the next by an edge
    between two nodes drawn at random.

    Args:
        n: number of nodes.
        radius: from 0 to :math:`\\sqrt2`.
        generator: the random stream.

    Returns:
        The edges, shape ``(edges, 2)``.
    """
    points = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    close = torch.cdist(points, points) < radius
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n) if close[i, j]]
    component = list(range(n))
    for i, j in pairs:
        low, high = sorted((component[i], component[j]))
        component = [low if c == high else c for c in component]
    groups = [[i for i in range(n) if component[i] == c] for c in sorted(set(component))]
    for here, there in pairwise(groups):
        picks = torch.rand(2, generator=generator)
        pairs.append((here[int(picks[0] * len(here))], there[int(picks[1] * len(there))]))
    return _edges(pairs)


def _check_graph(edges: Tensor, n: int, rates: Tensor | None) -> Tensor:
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype != torch.long:
        raise ValueError(f"edges must be integers of shape (edges, 2), got {tuple(edges.shape)}")
    if not bool(((edges >= 0) & (edges < n)).all()):
        raise ValueError(f"an edge names a node outside 0 to {n - 1}")
    if rates is None:
        return torch.full((len(edges),), 1 / len(edges), dtype=torch.float64)
    if rates.shape[-1:] != (len(edges),) or bool((rates < 0).any()):
        raise ValueError(f"rates must be {len(edges)} non-negative numbers, one per edge")
    return rates.double()


def laplacian(edges: Tensor, n: int, rates: Tensor | None = None) -> Tensor:
    r"""Return :math:`\Lambda=\sum\lambda_{ij}(e_i-e_j)(e_i-e_j)^\top`.

    Args:
        edges: node pairs, shape ``(edges, 2)``, integers.
        n: number of nodes.
        rates: :math:`\lambda_{ij}\ge0`, shape ``(..., edges)``; total rate 1 spread evenly if left out.

    Returns:
        Shape ``(..., n, n)``, float64.

    Raises:
        ValueError: for edges or rates that do not fit.
    """
    rates = _check_graph(edges, n, rates)
    incidence = torch.zeros(len(edges), n, dtype=torch.float64)
    rows = torch.arange(len(edges))
    incidence[rows, edges[:, 0]] = 1.0
    incidence[rows, edges[:, 1]] = -1.0
    return incidence.T @ (rates[..., None] * incidence)


def edge_resistances(edges: Tensor, n: int, rates: Tensor | None = None) -> Tensor:
    r"""Return :math:`(e_i-e_j)^\top\Lambda^+(e_i-e_j)` of every edge (without the factor one half).

    Arguments as for :func:`laplacian`.

    Returns:
        Shape ``(..., edges)``.
    """
    inverse = torch.linalg.pinv(laplacian(edges, n, rates), hermitian=True)
    i, j = edges.T
    return inverse[..., i, i] + inverse[..., j, j] - 2 * inverse[..., i, j]


def graph_constants(edges: Tensor, n: int, rates: Tensor | None = None) -> tuple[float, float]:
    r"""Return :math:`(\chi_1,\chi_2)` of a connected graph.

    Args:
        edges: node pairs, shape ``(edges, 2)``.
        n: number of nodes.
        rates: edge intensities, shape ``(edges,)``; total rate 1 spread evenly if left out.

    Returns:
        :math:`\chi_1` and :math:`\chi_2`, in units of time.

    Raises:
        ValueError: for a graph that is not connected, or arguments that do not fit.
    """
    eigenvalues = torch.linalg.eigvalsh(laplacian(edges, n, rates))
    if float(eigenvalues[1]) <= 1e-12 * float(eigenvalues[-1]):
        raise ValueError("the graph is not connected: information cannot reach every node")
    chi_2 = 0.5 * float(edge_resistances(edges, n, rates).max())
    return 1.0 / float(eigenvalues[1]), chi_2


def required_gossip_rate(chi_1: float, chi_2: float) -> float:
    r"""Return :math:`\lambda^*=\sqrt{2\chi_1\chi_2}`, the least total rate with
    :math:`2\chi_1\chi_2\le1`, from the constants of total rate 1."""
    return math.sqrt(2.0 * chi_1 * chi_2)
