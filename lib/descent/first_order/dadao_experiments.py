"""Runs of DADAO and its rivals with their costs counted, for the chapter on DADAO.

A :class:`Trace` holds the mean squared distance of the nodes to the minimiser, relative to the squared
norm of the minimiser, beside the gradients and edge uses spent so far. Protocols follow the code of
Nabli and Oyallon (ICML 2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from descent.first_order.adom_plus import ADOMPlus, consensus_rounds
from descent.first_order.continuized_flow import DADAOConstants
from descent.first_order.dadao import DADAO
from descent.first_order.dadao_tuning import scaled_constants
from descent.first_order.decentralized_problems import LogisticSum, QuadraticSum
from descent.first_order.dual_methods import MSDA, ContinuizedDual, chebyshev_rounds
from descent.first_order.gossip_graphs import graph_constants, required_gossip_rate
from descent.first_order.poisson_events import Events, poisson_events

__all__ = [
    "Trace",
    "edges_between_gradient_rounds",
    "expected_round_time",
    "run_adom_plus",
    "run_continuized",
    "run_dadao",
    "run_msda",
    "worst_constants",
]


@dataclass(frozen=True)
class Trace:
    """What a run spent and how far it came.

    Attributes:
        times: at which the run was looked at, shape ``(looks,)``; rounds for synchronous methods.
        errors: shape ``(instances, looks)``.
        gradients: of all nodes together so far, shape ``(instances, looks)``.
        communications: edge uses so far, shape ``(instances, looks)``.
    """

    times: Tensor
    errors: Tensor
    gradients: Tensor
    communications: Tensor

    def __getitem__(self, instances: slice) -> Trace:
        return replace(
            self,
            errors=self.errors[instances],
            gradients=self.gradients[instances],
            communications=self.communications[instances],
        )

    def cost(self, level: float) -> list[tuple[int, int] | None]:
        """Gradients and edge uses at the first look below ``level``, for each instance."""
        costs: list[tuple[int, int] | None] = []
        for b, row in enumerate(self.errors):
            below = torch.nonzero(row <= level)
            if len(below):
                k = int(below[0])
                costs.append((int(self.gradients[b, k]), int(self.communications[b, k])))
            else:
                costs.append(None)
        return costs

    def decay_rates(self, burn_in: float) -> np.ndarray:
        """Least-squares slopes of -log(error) against time after ``burn_in``, shape ``(instances,)``."""
        late = (self.times >= burn_in).numpy()
        time, log_error = self.times.numpy()[late], self.errors.log().numpy()[:, late]
        return -np.polyfit(time, log_error.T, 1)[0]


def worst_constants(graphs: Sequence[Tensor], n: int) -> tuple[float, float]:
    r"""The largest :math:`\chi_1` and the largest :math:`\chi_2` (total rate 1) of several graphs."""
    pairs = [graph_constants(edges, n) for edges in graphs]
    return max(first for first, _ in pairs), max(second for _, second in pairs)


def _relative_error(objective: QuadraticSum | LogisticSum, points: Tensor) -> Tensor:
    """Mean over nodes of the squared distance to the minimiser, over its squared norm, on the CPU."""
    by_instance = points.reshape(objective.instances, objective.n, objective.dim)
    distance = (by_instance - objective.minimiser[:, None]).square().sum(2).mean(1)
    return (distance / objective.minimiser.square().sum(1)).cpu()


def run_dadao(
    objective: QuadraticSum | LogisticSum,
    networks: Sequence[Tensor | Sequence[Tensor]],
    start: Tensor,
    horizon: float,
    generator: torch.Generator,
    factor: float = 1.0,
    window: float = 1.0,
    period: float | None = None,
    retune: bool = True,
    constant_factors: Sequence[float] | None = None,
) -> Trace:
    r"""Run DADAO on all instances at once, each with its own events.

    Args:
        objective: the functions of all instances.
        networks: edges of the graph of each instance, or a sequence of graphs used in turn.
        start: :math:`x` at time 0, shape ``(instances, n, d)``.
        horizon: units of time.
        generator: the random stream of the events.
        factor: total gossip rate over :math:`\lambda^*`.
        window: time between two looks.
        period: time after which the next graph of a sequence is used, in units of
            :math:`1/\chi_1` (the authors' code: 1).
        retune: whether :math:`\tilde\beta` follows the actual rate, or stays that of
            :math:`\lambda^*`.
        constant_factors: as in :func:`descent.first_order.dadao_tuning.scaled_constants`.

    Returns:
        The trace.
    """
    n = objective.n
    parts, constants = [], []
    mu, smoothness = objective.mu.tolist(), objective.smoothness.tolist()
    ones = torch.ones(n, dtype=torch.float64)
    for b, network in enumerate(networks):
        graphs = [network] if isinstance(network, Tensor) else list(network)
        chi_1, chi_2 = worst_constants(graphs, n)
        total = factor * required_gossip_rate(chi_1, chi_2)
        actual = chi_1 / (total if retune else total / factor)
        entry = DADAOConstants.of(mu[b], smoothness[b], actual)
        if constant_factors is not None:
            entry = scaled_constants(entry, constant_factors)
        constants += [entry] * n
        switch = None if period is None else period / chi_1
        parts.append(poisson_events(ones, network, total, horizon, generator, switch))
    dadao = DADAO(objective, constants, start.flatten(0, 1))
    looks: list[float] = []
    errors = []

    def record(time: float, state: Tensor) -> None:
        looks.append(time)
        errors.append(_relative_error(objective, state[:, 0]))

    dadao.run(Events.together(parts, n), horizon, window, record)
    times = torch.tensor(looks, dtype=torch.float64)

    def count(gossip: bool) -> Tensor:
        chosen = [part.times[part.is_gossip == gossip].contiguous() for part in parts]
        return torch.stack([torch.searchsorted(t, times, right=True) for t in chosen])

    return Trace(times, torch.stack(errors, 1), count(False), count(True))


def _trace_of_rounds(errors: list[Tensor], gradients: int, edges: list[int]) -> Trace:
    rounds = torch.arange(len(errors), dtype=torch.float64)
    shape = (len(errors[0]), len(errors))
    spent = torch.tensor(edges[: len(errors)])
    return Trace(
        rounds,
        torch.stack(errors, 1),
        (gradients * rounds.long()).expand(shape),
        spent.expand(shape),
    )


def run_msda(objective: QuadraticSum, edges: Tensor, level: float, most: int = 2000) -> Trace:
    """Run MSDA until every instance is below ``level``, at most ``most`` rounds."""
    method = MSDA(objective, edges)
    errors, used = [_relative_error(objective, method.estimate())], [0]
    while float(errors[-1].max()) > level and len(errors) <= most:
        method.step()
        errors.append(_relative_error(objective, method.estimate()))
        used.append(used[-1] + method.edges_per_step)
    return _trace_of_rounds(errors, objective.n, used)


def run_adom_plus(
    objective: QuadraticSum | LogisticSum,
    graphs: Sequence[Tensor],
    start: Tensor,
    level: float,
    multi_consensus: bool,
    most: int = 5000,
) -> Trace:
    """Run ADOM+ until every instance is below ``level``, at most ``most`` rounds."""
    method = ADOMPlus(objective, objective.mu, objective.smoothness, start, graphs, multi_consensus)
    errors, used = [_relative_error(objective, method.point)], [0]
    while float(errors[-1].max()) > level and len(errors) <= most:
        used.append(used[-1] + method.step())
        errors.append(_relative_error(objective, method.point))
    return _trace_of_rounds(errors, objective.n, used)


def run_continuized(
    objective: QuadraticSum,
    edges: Tensor,
    horizon: float,
    generator: torch.Generator,
    window: float = 10.0,
) -> Trace:
    """Run the continuized dual method for ``horizon`` expected events of each instance."""
    n, count = objective.n, objective.instances
    silent = torch.zeros(n, dtype=torch.float64)
    parts = [poisson_events(silent, edges, 1.0, horizon, generator) for _ in range(count)]
    method = ContinuizedDual(objective, edges)
    errors = [
        _relative_error(objective, points)
        for points in method.run(Events.together(parts, n), horizon, window)
    ]
    times = window * torch.arange(1, len(errors) + 1, dtype=torch.float64)
    events = torch.stack([torch.searchsorted(part.times, times, right=True) for part in parts])
    return Trace(times, torch.stack(errors, 1), 2 * events, events)


def edges_between_gradient_rounds(edges: Tensor, n: int, half: bool = True) -> dict[str, int]:
    r"""Expected edge uses while every node computes one gradient, rounded down as the authors print it.

    Args:
        edges: node pairs of the graph.
        n: number of nodes.
        half: whether :math:`\chi_2` has its factor one half (without it: a common slip).

    Returns:
        For DADAO :math:`\lfloor\lambda^*\rfloor`, for MSDA
        :math:`|E|\lfloor1/\sqrt g\rfloor`, for ADOM+ :math:`|E|`, with multi-consensus
        :math:`|E|\lceil\chi\ln2\rceil`. The authors print for the continuized method what they print
        for DADAO.
    """
    chi_1, chi_2 = graph_constants(edges, n)
    # The rate is an integer for some graphs: without the margin round-off would lose one.
    gossip = math.floor(required_gossip_rate(chi_1, chi_2 if half else 2 * chi_2) + 1e-9)
    return {
        "DADAO": gossip,
        "Continuized": gossip,
        "MSDA": len(edges) * chebyshev_rounds(edges, n),
        "ADOM+": len(edges),
        "ADOM+ with multi-consensus": len(edges) * consensus_rounds([edges], n),
    }


def expected_round_time(rates: Tensor) -> float:
    r"""Mean of the largest of independent exponential times, the length of a synchronous round.

    Args:
        rates: of the nodes, positive, shape ``(n,)``.

    Returns:
        :math:`\int_0^\infty1-\prod_i(1-e^{-p_it})\,dt`, by the trapezoidal rule in :math:`\log t`.
    """
    log_time = torch.linspace(-25, 10, 20_001, dtype=torch.float64) - rates.min().double().log()
    survival = 1 - (1 - torch.exp(-rates.double() * log_time.exp()[:, None])).prod(1)
    return float(torch.trapezoid(survival * log_time.exp(), log_time))
