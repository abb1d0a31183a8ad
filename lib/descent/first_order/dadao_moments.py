r"""DADAO on one-dimensional quadratics as a linear jump process, and its exact rates.

For :math:`f_i(x)=\frac{a_i}2(x-c_i)^2` the difference :math:`\sigma\in\mathbb R^{6n}` from the fixed
point :math:`x=\tilde x=x^*`, :math:`y=\tilde y=\nabla f_i(x^*)-\nu x^*`,
:math:`z=\tilde z=-\nabla f_i(x^*)` moves linearly. Gradient and gossip events see it only through

.. math:: r=(a_i-\nu)x_i-\tilde y_i,\qquad m=(y_i+z_i)-(y_j+z_j),

so that every jump has rank one. :math:`z` and :math:`\tilde z` stay in the zero-sum subspace.

Source: derived in the chapter.
"""

from __future__ import annotations

import torch
from torch import Tensor

from descent.first_order.continuized_flow import DADAOConstants
from descent.first_order.gossip_graphs import graph_constants, required_gossip_rate
from descent.first_order.jump_moments import (
    LinearJumpProcess,
    mean_square_decay_rate,
    stationary_second_moment,
)

__all__ = [
    "curvature_profile",
    "dadao_jump_process",
    "exact_rate",
    "full_jump_process",
    "noise_floor",
    "uniform_rates",
    "zero_sum_basis",
]


def curvature_profile(kind: str, n: int, condition: float) -> Tensor:
    r"""Curvatures :math:`a_i\in[1,\kappa]` of ``n`` nodes, shape ``(n,)``, with :math:`\mu=1`.

    Args:
        kind: ``"all L"``, ``"all mu"`` or ``"mixed"`` (evenly spaced).
        n: number of nodes.
        condition: :math:`\kappa=L/\mu\ge1`.

    Raises:
        ValueError: for another kind.
    """
    if kind == "all L":
        return torch.full((n,), float(condition), dtype=torch.float64)
    if kind == "all mu":
        return torch.ones(n, dtype=torch.float64)
    if kind == "mixed":
        return torch.linspace(1, condition, n, dtype=torch.float64)
    raise ValueError(f"kind must be 'all L', 'all mu' or 'mixed', got {kind!r}")


def uniform_rates(edges: Tensor, n: int, factor: float = 1.0) -> Tensor:
    r"""Equal rates of total ``factor`` times :math:`\lambda^*`, shape ``(edges,)``."""
    total = factor * required_gossip_rate(*graph_constants(edges, n))
    return torch.full((len(edges),), total / len(edges), dtype=torch.float64)


def zero_sum_basis(n: int) -> Tensor:
    r"""Orthonormal basis of :math:`\{\sigma:\sum_iz_i=\sum_i\tilde z_i=0\}`, shape ``(6n, 6n - 2)``."""
    centred = torch.eye(n, dtype=torch.float64)[:, 1:] - 1 / n
    half = torch.linalg.qr(centred)[0]
    return torch.block_diag(torch.eye(4 * n, dtype=torch.float64), half, half)


def full_jump_process(
    curvatures: Tensor,
    edges: Tensor,
    gossip_rates: Tensor,
    constants: DADAOConstants,
    gradient_rates: Tensor | None = None,
) -> LinearJumpProcess:
    """The process on all ``6 n`` coordinates, ordered by variable, then node.

    Gradients of the nodes come first among the jumps, then the edges. Arguments as for
    :func:`dadao_jump_process`.
    """
    n, count = len(curvatures), len(edges)
    identity = torch.eye(n, dtype=torch.float64)
    zero = torch.zeros(n, n, dtype=torch.float64)
    residual = torch.cat(
        [torch.diag(curvatures - constants.nu), zero, zero, -identity, zero, zero], 1
    )
    incidence = torch.zeros(count, n, dtype=torch.float64)
    incidence[torch.arange(count), edges[:, 0]] = 1.0
    incidence[torch.arange(count), edges[:, 1]] = -1.0
    none = torch.zeros_like(incidence)
    difference = torch.cat([none, none, incidence, none, incidence, none], 1)
    clocks = torch.ones(n, dtype=torch.float64) if gradient_rates is None else gradient_rates
    return LinearJumpProcess(
        torch.kron(constants.drift(), identity),
        torch.cat([clocks.double(), gossip_rates.double()]),
        torch.cat(
            [
                torch.kron(constants.gradient_gain()[None], identity),
                torch.kron(constants.gossip_gain()[None], incidence),
            ]
        ),
        torch.cat([residual, difference]),
    )


def dadao_jump_process(
    curvatures: Tensor,
    edges: Tensor,
    gossip_rates: Tensor,
    constants: DADAOConstants,
    gradient_rates: Tensor | None = None,
) -> LinearJumpProcess:
    r"""DADAO on quadratics around its fixed point, in the zero-sum subspace.

    Args:
        curvatures: :math:`a_i`, shape ``(n,)``.
        edges: node pairs, shape ``(edges, 2)``.
        gossip_rates: rate of every edge, shape ``(edges,)``.
        constants: of the method.
        gradient_rates: rate of every node's gradient clock, 1 if left out.

    Returns:
        A process of dimension ``6 n - 2``.
    """
    n = len(curvatures)
    return full_jump_process(curvatures, edges, gossip_rates, constants, gradient_rates).restricted(
        zero_sum_basis(n)
    )


def exact_rate(
    curvatures: Tensor,
    edges: Tensor,
    gossip_rates: Tensor | None = None,
    constants: DADAOConstants | None = None,
    gradient_rates: Tensor | None = None,
    smoothness: float | None = None,
) -> float:
    r"""Return the exact decay rate of :math:`\mathbb E\|\sigma_t\|^2`, with :math:`\mu=1`.

    Args:
        curvatures: :math:`a_i`, shape ``(n,)``.
        edges: node pairs, shape ``(edges, 2)``.
        gossip_rates: rate of every edge; :math:`\lambda^*` spread evenly if left out.
        constants: those of the paper for ``smoothness`` and the :math:`\chi_1` of the actual rates
            if left out.
        gradient_rates: of the gradient clocks; 1 if left out.
        smoothness: :math:`L`, the largest curvature if left out.

    Returns:
        Per unit of time (one gradient for each node).
    """
    n = len(curvatures)
    rates = uniform_rates(edges, n) if gossip_rates is None else gossip_rates
    if constants is None:
        top = float(curvatures.max()) if smoothness is None else smoothness
        constants = DADAOConstants.of(1.0, top, graph_constants(edges, n, rates)[0])
    return mean_square_decay_rate(
        dadao_jump_process(curvatures, edges, rates, constants, gradient_rates)
    )


def noise_floor(
    curvatures: Tensor, edges: Tensor, gossip_rates: Tensor, constants: DADAOConstants
) -> float:
    r"""Return the stationary :math:`\frac1n\sum_i\mathbb E(x_i-x^*)^2` for gradient noise of variance 1.

    Every gradient is read with an independent error of mean 0, which enters through the gain of the
    gradient event.
    """
    n = len(curvatures)
    process = dadao_jump_process(curvatures, edges, gossip_rates, constants)
    gains = process.gains[:n]
    covariance = stationary_second_moment(process, gains.T @ gains)
    return float(covariance.diagonal()[:n].mean())
