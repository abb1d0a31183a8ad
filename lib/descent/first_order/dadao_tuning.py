r"""How much faster DADAO could be with other constants: direct search on the exact rate.

Not part of the paper. Every constant is the paper's times a factor; the factors are searched so that
the worst exact rate over several curvature profiles is largest. Since the factors multiply formulas
in :math:`\mu`, :math:`L` and :math:`\chi_1` they can be carried to other problems.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import minimize
from torch import Tensor

from descent.first_order.continuized_flow import DADAOConstants
from descent.first_order.dadao_moments import curvature_profile, exact_rate, uniform_rates
from descent.first_order.gossip_graphs import graph_constants

__all__ = ["FOUND_FACTORS", "PROFILES", "TUNED", "scaled_constants", "search_factors", "worst_rate"]

PROFILES = ("all mu", "mixed", "all L")
TUNED = (
    ("nu",),
    ("eta", "eta_tilde"),
    ("alpha",),
    ("alpha_tilde",),
    ("theta",),
    ("gamma",),
    ("gamma_tilde",),
    ("beta_tilde",),
)

# What ``search_factors(path_graph(4), 4, (4.0, 1024.0), 300)`` returned, to two decimals.
FOUND_FACTORS = (0.99, 5.86, 2.12, 0.12, 3.44, 1.16, 1.54, 0.42)


def scaled_constants(constants: DADAOConstants, factors: Sequence[float]) -> DADAOConstants:
    """The constants with each group of ``TUNED`` multiplied by its factor."""
    changes = {
        name: getattr(constants, name) * factor
        for group, factor in zip(TUNED, factors, strict=True)
        for name in group
    }
    return replace(constants, **changes)


def worst_rate(
    factors: Sequence[float], edges: Tensor, n: int, condition: float, intensity: float = 1.0
) -> float:
    r"""The least exact rate over the profiles, in units of :math:`s/8`.

    Args:
        factors: one for each group of ``TUNED``.
        edges: node pairs, shape ``(edges, 2)``.
        n: number of nodes.
        condition: :math:`\kappa`.
        intensity: total gossip rate over :math:`\lambda^*`.
    """
    rates = uniform_rates(edges, n, intensity)
    chi_1 = graph_constants(edges, n, rates)[0]
    constants = scaled_constants(DADAOConstants.of(1.0, condition, chi_1), factors)
    bound = math.sqrt(0.5 / condition) / 8
    return min(
        exact_rate(curvature_profile(kind, n, condition), edges, rates, constants) / bound
        for kind in PROFILES
    )


def search_factors(
    edges: Tensor, n: int, conditions: Sequence[float], evaluations: int
) -> np.ndarray:
    r"""Factors with a large worst rate, by the method of Nelder and Mead from the paper's constants.

    Args:
        edges: node pairs, shape ``(edges, 2)``.
        n: number of nodes.
        conditions: values of :math:`\kappa` over which the worst is taken.
        evaluations: of the worst rate.

    Returns:
        Shape ``(len(TUNED),)``.
    """

    def loss(log_factors: np.ndarray) -> float:
        if np.abs(log_factors).max() > 3:  # a factor of 20 and more is outside of the search
            return 1e3
        factors = np.exp(log_factors).tolist()
        return -min(worst_rate(factors, edges, n, condition) for condition in conditions)

    size = len(TUNED)
    simplex = np.vstack([np.zeros(size), 0.4 * np.eye(size)])
    found = minimize(
        loss,
        np.zeros(size),
        method="Nelder-Mead",
        options={"maxfev": evaluations, "initial_simplex": simplex, "adaptive": True},
    )
    return np.exp(found.x)
