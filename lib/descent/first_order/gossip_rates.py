r"""The gossip rates with the fewest communications that a graph allows.

Minimise :math:`\sum\lambda_{ij}` subject to :math:`2\chi_1[\Lambda]\chi_2[\Lambda]\le1`. With
:math:`t\le\lambda_2(\Lambda)` the constraint asks :math:`b^\top\Lambda^+b\le t` of every edge vector
:math:`b=e_i-e_j`, so that by Schur complements it is the semidefinite program

.. math:: \min_{\lambda\ge0,\,t}\ \sum_{(ij)}\lambda_{ij}\quad\text{s.t.}\quad
          \Lambda\succeq t\bigl(I-\tfrac1n\mathbf 1\mathbf 1^\top\bigr),\quad
          \begin{pmatrix}\Lambda&b_{ij}\\b_{ij}^\top&t\end{pmatrix}\succeq0\ \ \forall(ij)\in E .

Nothing is lost on the way. Source: derived in the chapter; Nabli and Oyallon (ICML 2023) announce a
program of this kind, whose exact form was not read.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from descent.first_order.gossip_graphs import graph_constants, required_gossip_rate

__all__ = ["optimal_gossip_rates", "scale_to_requirement"]


def scale_to_requirement(edges: Tensor, n: int, weights: Tensor) -> Tensor:
    r"""Scale edge weights so that :math:`2\chi_1\chi_2=1`.

    Args:
        edges: node pairs, shape ``(edges, 2)``.
        n: number of nodes.
        weights: shape ``(edges,)``, non-negative, positive on a connected subgraph.

    Returns:
        The rates, shape ``(edges,)``.
    """
    return weights * required_gossip_rate(*graph_constants(edges, n, weights))


def optimal_gossip_rates(edges: Tensor, n: int) -> Tensor:
    r"""Return the rates :math:`\lambda_{ij}` of least sum with :math:`2\chi_1\chi_2\le1`.

    Solved with cvxpy and an interior-point method, to about six digits;
    :func:`scale_to_requirement` puts the result exactly on the constraint.

    Args:
        edges: node pairs of a connected graph, shape ``(edges, 2)``.
        n: number of nodes, up to about 20.

    Returns:
        Rates in events per unit of time, shape ``(edges,)``, float64.

    Raises:
        ValueError: for a graph that is not connected.
        RuntimeError: if the solver does not reach an optimum.
    """
    import cvxpy  # a second to import: only where a program is solved
    import numpy as np

    graph_constants(edges, n)
    incidence = np.zeros((len(edges), n))
    for row, (i, j) in enumerate(edges.tolist()):
        incidence[row, [i, j]] = 1.0, -1.0
    # In an orthonormal basis of the zero-sum vectors the matrices have full rank, which an
    # interior-point method wants.
    basis = np.linalg.qr(np.eye(n)[:, 1:] - 1 / n)[0]
    reduced = incidence @ basis
    rates = cvxpy.Variable(len(edges), nonneg=True)
    connectivity = cvxpy.Variable()
    weighted = reduced.T @ cvxpy.diag(rates) @ reduced
    constraints = [weighted - connectivity * np.eye(n - 1) >> 0]
    for row in reduced:
        column = row[:, None]
        corner = cvxpy.reshape(connectivity, (1, 1), order="F")
        constraints.append(cvxpy.bmat([[weighted, column], [column.T, corner]]) >> 0)
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum(rates)), constraints)
    with warnings.catch_warnings():
        # The solver calls seven digits inaccurate; what it returns is checked below.
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        problem.solve(solver=cvxpy.CLARABEL)
    if rates.value is None:
        raise RuntimeError(f"the semidefinite program ended as {problem.status!r}")
    found = torch.from_numpy(np.maximum(rates.value, 0.0))
    product = required_gossip_rate(*graph_constants(edges, n, found)) ** 2
    if abs(product - 1) > 1e-5:
        raise RuntimeError(f"the solver left 2 chi_1 chi_2 at {product}, not at 1")
    return found
