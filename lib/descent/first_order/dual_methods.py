r"""Two dual rivals: synchronous MSDA and the asynchronous continuized method.

Both work on the dual and need :math:`\nabla f_i^*`, a linear solve for least squares and an inner
optimisation in general.

Sources: Scaman et al. (ICML 2017), algorithm 2; Even et al. (NeurIPS 2021), decentralised
appendix. Constants as in the code of Nabli and Oyallon, which corrects a factor 2 of the latter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from descent.first_order.decentralized_problems import QuadraticSum
from descent.first_order.gossip_graphs import edge_resistances, graph_constants, laplacian
from descent.first_order.poisson_events import Events, schedule

__all__ = ["MSDA", "ContinuizedDual", "chebyshev_rounds"]


def chebyshev_rounds(edges: Tensor, n: int) -> int:
    r"""Gossip rounds in each step of MSDA, :math:`\lfloor1/\sqrt g\rfloor` with
    :math:`g=\lambda_2/\lambda_{\max}`."""
    eigenvalues = torch.linalg.eigvalsh(laplacian(edges, n))
    return math.floor(math.sqrt(float(eigenvalues[-1] / eigenvalues[1])) + 1e-9)


class MSDA:
    r"""Accelerated gradient descent on the dual with Chebyshev-accelerated gossip.

    Args:
        objective: least squares, any number of instances on the same graph.
        edges: node pairs of one instance.

    Attributes:
        edges_per_step: edge uses of one step, :math:`K|E|`.
    """

    def __init__(self, objective: QuadraticSum, edges: Tensor) -> None:
        n = objective.n
        self.objective = objective
        matrix = laplacian(edges, n)
        eigenvalues = torch.linalg.eigvalsh(matrix)
        gap = float(eigenvalues[1] / eigenvalues[-1])
        self.rounds = chebyshev_rounds(edges, n)
        self.edges_per_step = self.rounds * len(edges)
        device = objective.minimiser.device
        self._nodes = torch.arange(objective.instances * n, device=device)
        ratio = ((1 - math.sqrt(gap)) / (1 + math.sqrt(gap))) ** self.rounds
        # With a gap of 1 the Chebyshev argument is infinite, and with a single round it cancels.
        self._stretch = (1 + gap) / (1 - gap) if self.rounds > 1 else 1.0
        scale = 2 / ((1 + gap) * float(eigenvalues[-1]))
        shifted = torch.eye(n, dtype=torch.float64) - scale * matrix
        self._shifted = (self._stretch * shifted).to(device)
        mu, root = objective.mu, (objective.smoothness / objective.mu).sqrt()
        self._step = (mu * (1 + ratio**2) / (1 + ratio) ** 2)[:, None, None]
        momentum = ((1 + ratio) * root - 1 + ratio) / ((1 + ratio) * root + 1 - ratio)
        self._momentum = momentum[:, None, None]
        self.lookahead = objective.minimiser.new_zeros(objective.instances, n, objective.dim)
        self.iterate = self.lookahead

    def estimate(self) -> Tensor:
        """The primal points of the nodes, shape ``(instances, n, d)``."""
        flat = self.lookahead.flatten(0, 1)
        return self.objective.dual_gradient(self._nodes, flat).view_as(self.lookahead)

    def _gossip(self, points: Tensor) -> Tensor:
        before, now = points, self._shifted @ points
        low, high = 1.0, self._stretch
        for _ in range(1, self.rounds):
            before, now = now, 2 * (self._shifted @ now) - before
            low, high = high, 2 * self._stretch * high - low
        return points - now / high

    def step(self) -> None:
        """One round: ``n`` dual gradients and ``edges_per_step`` edge uses."""
        moved = self.lookahead - self._step * self._gossip(self.estimate())
        self.lookahead = (1 + self._momentum) * moved - self._momentum * self.iterate
        self.iterate = moved


class ContinuizedDual:
    r"""Randomised coordinate descent on the dual with continuized momentum.

    One clock of rate 1 for the whole graph; when it rings an edge is drawn, both ends compute a dual
    gradient and exchange it: computation and communication are *coupled*.

    Args:
        objective: least squares, any number of instances on the same graph.
        edges: node pairs of one instance.
    """

    def __init__(self, objective: QuadraticSum, edges: Tensor) -> None:
        n, mu = objective.n, objective.mu
        self.objective = objective
        chi_1, chi_2 = graph_constants(edges, n)
        spread, gap = 2 * chi_2, 1 / chi_1
        mixing = math.sqrt(gap / spread) * (mu / objective.smoothness).sqrt()
        self._mixing = mixing.repeat_interleave(n)
        self._short = (mu / (2 * spread)).repeat_interleave(n)[:, None]
        self._long = ((objective.smoothness * mu) / (2 * gap * spread)).sqrt()
        self._long = self._long.repeat_interleave(n)[:, None]
        resistance = torch.zeros(n, n, dtype=torch.float64)
        resistance[edges[:, 0], edges[:, 1]] = edge_resistances(edges, n)
        self._resistance = (resistance + resistance.T).to(objective.minimiser.device)
        self.state = objective.minimiser.new_zeros(objective.instances * n, 2, objective.dim)

    def estimate(self) -> Tensor:
        """The primal points of the nodes, shape ``(instances n, d)``."""
        nodes = torch.arange(len(self.state), device=self.state.device)
        return self.objective.dual_gradient(nodes, self.state[:, 1])

    def _flow(self, nodes: Tensor, rows: Tensor, elapsed: Tensor) -> Tensor:
        mean = rows.mean(1, keepdim=True)
        fade = torch.exp(-2 * self._mixing[nodes] * elapsed)[:, None, None]
        return mean + fade * (rows - mean)

    def run(self, events: Events, horizon: float, window: float) -> list[Tensor]:
        """Play communication events (times counted in events of one instance).

        Returns:
            The estimates at the end of every window, each of shape ``(instances n, d)``.
        """
        n, everyone = self.objective.n, torch.arange(len(self.state), device=self.state.device)
        estimates = []
        for stretch in schedule(events, len(self.state), horizon, window, device=self.state.device):
            for batch in stretch.batches:
                nodes = stretch.nodes[batch.start : batch.end]
                elapsed = stretch.elapsed[batch.start : batch.end]
                rows = self._flow(nodes, self.state[nodes], elapsed)
                own = self.objective.dual_gradient(nodes, rows[:, 0])
                half = len(nodes) // 2
                other = torch.cat([own[half:], own[:half]])
                partner = torch.cat([nodes[half:], nodes[:half]])
                gap = own - other
                resistance = self._resistance[nodes % n, partner % n][:, None]
                moves = torch.stack(
                    [self._short[nodes] * resistance * gap, self._long[nodes] * gap], 1
                )
                self.state[nodes] = rows - moves
            self.state = self._flow(everyone, self.state, stretch.idle)
            estimates.append(self.estimate())
        return estimates
