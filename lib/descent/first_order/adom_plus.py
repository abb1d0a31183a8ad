r"""ADOM+, the primal synchronous rival on time-varying graphs, with and without multi-consensus.

In every round each node computes one gradient and all edges of the present graph are used; with
multi-consensus :math:`q=\lceil\chi\ln2\rceil` graphs in a row are used in each round, which makes the
effective condition number of the network 2.

Source: Kovalev et al. (NeurIPS 2021). Steps as recalled from the reference, constants as in the code
of Nabli and Oyallon.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from descent.first_order.dadao import NodeObjective
from descent.first_order.gossip_graphs import laplacian

__all__ = ["ADOMPlus", "consensus_rounds", "network_condition"]


def network_condition(graphs: Sequence[Tensor], n: int) -> float:
    r"""The worst :math:`\chi=\lambda_{\max}/\lambda_2` of the graphs."""
    spectra = [torch.linalg.eigvalsh(laplacian(edges, n)) for edges in graphs]
    return max(float(values[-1] / values[1]) for values in spectra)


def consensus_rounds(graphs: Sequence[Tensor], n: int) -> int:
    r"""Graphs used in each round of multi-consensus, :math:`\lceil\chi\ln2\rceil`."""
    return math.ceil(network_condition(graphs, n) * math.log(2) - 1e-9)


class ADOMPlus:
    """The states of ADOM+ for many instances on the same sequence of graphs.

    Args:
        objective: the functions, ``instances * n`` nodes.
        mu: strong convexity of each instance, shape ``(instances,)``.
        smoothness: of each instance, shape ``(instances,)``.
        start: shape ``(instances, n, d)``.
        graphs: edges of the graphs that are used in turn.
        multi_consensus: whether several graphs are used in each round.

    Attributes:
        point: the estimate, shape ``(instances, n, d)``.
    """

    def __init__(
        self,
        objective: NodeObjective,
        mu: Tensor,
        smoothness: Tensor,
        start: Tensor,
        graphs: Sequence[Tensor],
        multi_consensus: bool = False,
    ) -> None:
        n = start.shape[1]
        self.objective, self.graphs = objective, list(graphs)
        chi = network_condition(self.graphs, n)
        self.rounds = consensus_rounds(self.graphs, n) if multi_consensus else 1
        if self.rounds > 1:
            chi = 2.0
        self._averages = []
        for edges in self.graphs:
            matrix = laplacian(edges, n) * len(edges)
            top = torch.linalg.eigvalsh(matrix)[-1]
            self._averages.append(
                (torch.eye(n, dtype=torch.float64) - matrix / top).to(start.device)
            )
        self._number = 0
        self._products: dict[int, Tensor] = {}
        mu, smoothness = mu[:, None, None], smoothness[:, None, None]
        self.tau_1 = 1 / ((smoothness / mu).sqrt() + 0.5)
        self.tau_2 = (mu / smoothness).sqrt()
        self.sigma_2 = self.tau_2 / (16 * chi)
        self.sigma_1 = 1 / (1 / self.sigma_2 + 0.5)
        self.nu = mu / 2
        self.eta, self.alpha = 1 / (smoothness * self.tau_2), self.nu
        self.beta, self.delta = 1 / (2 * smoothness), 1 / (17 * smoothness)
        self.gamma = self.nu / (14 * self.sigma_2 * chi**2)
        self.theta = self.nu / (4 * self.sigma_2)
        self.point = self._fast = start
        self._y = self._y_fast = self._z = self._z_fast = self._memory = torch.zeros_like(start)
        self._nodes = torch.arange(start.shape[0] * n, device=start.device)

    def _gossip_matrix(self) -> tuple[Tensor, int]:
        """I minus the product of the averaging matrices of this round, and the edges used."""
        first = self._number % len(self.graphs)
        used = [(first + k) % len(self.graphs) for k in range(self.rounds)]
        self._number += self.rounds
        if first not in self._products:
            product = torch.eye(len(self._averages[0])).to(self._averages[0])
            identity = product
            for k in used:
                product = product @ self._averages[k]
            self._products[first] = identity - product
        return self._products[first], sum(len(self.graphs[k]) for k in used)

    def step(self) -> int:
        """One round: one gradient at every node; returns the number of edge uses."""
        gossip, edges_used = self._gossip_matrix()
        x_ahead = self.tau_1 * self.point + (1 - self.tau_1) * self._fast
        y_ahead = self.sigma_1 * self._y + (1 - self.sigma_1) * self._y_fast
        z_ahead = self.sigma_1 * self._z + (1 - self.sigma_1) * self._z_fast
        slope = self.objective.gradient(self._nodes, x_ahead.flatten(0, 1)).view_as(x_ahead)
        slope = slope - self.nu * x_ahead
        both = y_ahead + z_ahead
        # The pair (x, y) is implicit: a 2 x 2 system with the same matrix at every node.
        right_x = self.point + self.eta * (self.alpha * x_ahead - slope)
        right_y = self._y + self.theta * (self.beta * slope - both / self.nu)
        a, b = 1 + self.eta * self.alpha, 1 + self.theta * self.beta
        determinant = a * b + self.eta * self.theta
        x = (b * right_x + self.eta * right_y) / determinant
        y = (a * right_y - self.theta * right_x) / determinant
        push = self.gamma / self.nu * both + self._memory
        mixed = gossip @ push
        self._z = self._z + self.gamma * self.delta * (z_ahead - self._z) - mixed
        self._memory = push - mixed
        self._fast = x_ahead + self.tau_2 * (x - self.point)
        self._y_fast = y_ahead + self.sigma_2 * (y - self._y)
        self._z_fast = z_ahead - 0.5 * (gossip @ both)
        self.point, self._y = x, y
        return edges_used
