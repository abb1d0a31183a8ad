r"""DADAO: gradients and gossip on clocks of their own, momentum by an exact flow in between.

Node :math:`i` keeps :math:`u_i=(x_i,\tilde x_i,y_i,\tilde y_i,z_i,\tilde z_i)` and the time of its
last event. When its clock rings it brings its own row to the present with the flow of
:mod:`descent.first_order.continuized_flow` and computes one gradient,

.. math:: r=\nabla f_i(x_i)-\nu x_i-\tilde y_i,\qquad
          x_i\mathrel{-}=\gamma r,\quad\tilde x_i\mathrel{-}=\tilde\gamma r,\quad
          \tilde y_i\mathrel{+}=(\delta+\tilde\delta)r .

When the clock of an edge :math:`(ij)` rings its two ends exchange one vector each,

.. math:: m=(y_i+z_i)-(y_j+z_j),\qquad
          z_i\mathrel{-}=\beta m,\ z_j\mathrel{+}=\beta m,\quad
          \tilde z_i\mathrel{-}=\tilde\beta m,\ \tilde z_j\mathrel{+}=\tilde\beta m .

Nothing else happens and nobody waits.

Source: Nabli and Oyallon (ICML 2023); updates as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from descent.first_order.continuized_flow import ContinuizedFlow, DADAOConstants
from descent.first_order.poisson_events import Events, schedule

__all__ = ["DADAO", "NodeObjective"]


class NodeObjective(Protocol):
    """A sum of functions, one at each node."""

    def gradient(self, nodes: Tensor, points: Tensor) -> Tensor:
        """Gradients of the functions of the given nodes, each at its own point, shape ``(k, d)``."""
        ...


class DADAO:
    """The states of all nodes, and what an event does to them.

    Independent instances (seeds, graphs, problems) lie side by side: a node belongs to one of them
    and only meets nodes of its own.

    Args:
        objective: the functions of the nodes.
        constants: of each node; equal within an instance.
        start: :math:`x` at time 0, shape ``(nodes, d)``; the other five vectors start at 0.
        channel: what carries messages. It is given the messages of first ends and of second ends,
            shapes ``(k, d)``, and returns what the first and the second ends receive.

    Attributes:
        state: shape ``(nodes, 6, d)``, all rows at the time of the last call.
    """

    def __init__(
        self,
        objective: NodeObjective,
        constants: list[DADAOConstants],
        start: Tensor,
        channel: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        if len(constants) != len(start):
            raise ValueError(f"{len(constants)} sets of constants for {len(start)} nodes")
        self.objective = objective
        self.flow = ContinuizedFlow(constants, start.device)
        self.channel = channel or (lambda first, second: (second, first))
        self.state = start.new_zeros(len(start), 6, start.shape[1])
        self.state[:, 0] = start
        gains = {entry: entry.gradient_gain() for entry in set(constants)}
        mixes = {entry: entry.gossip_gain() for entry in set(constants)}
        self.nu = start.new_tensor([entry.nu for entry in constants])[:, None]
        self.gradient_gain = torch.stack([gains[entry] for entry in constants]).to(start)[..., None]
        self.gossip_gain = torch.stack([mixes[entry] for entry in constants]).to(start)[..., None]

    def gradient_event(self, nodes: Tensor, rows: Tensor) -> Tensor:
        """Rows of nodes whose clock rings, after their gradient.

        Args:
            nodes: shape ``(k,)``.
            rows: their states at this moment, shape ``(k, 6, d)``.
        """
        x, y_tilde = rows[:, 0], rows[:, 3]
        residual = self.objective.gradient(nodes, x) - self.nu[nodes] * x - y_tilde
        return rows - self.gradient_gain[nodes] * residual[:, None]

    def gossip_event(self, nodes: Tensor, rows: Tensor) -> Tensor:
        """Rows of both ends of edges whose clock rings, after their exchange.

        Args:
            nodes: first ends, then second ends in the same order, shape ``(2 k,)``.
            rows: their states at this moment, shape ``(2 k, 6, d)``.
        """
        message = rows[:, 2] + rows[:, 4]
        half = len(nodes) // 2
        received = torch.cat(self.channel(message[:half], message[half:]))
        return rows - self.gossip_gain[nodes] * (message - received)[:, None]

    def run(
        self,
        events: Events,
        horizon: float,
        window: float = 1.0,
        record: Callable[[float, Tensor], None] | None = None,
        concurrent: bool = True,
        after_batch: Callable[[Tensor, Tensor, int], None] | None = None,
    ) -> Tensor:
        """Play the events and return the states at ``horizon``.

        Args:
            events: of all instances.
            horizon: length of the run in units of time.
            window: distance of the times at which ``record`` is called.
            record: called with the time and the states of all nodes at that time.
            concurrent: compute independent events at once (the same result as one by one).
            after_batch: called after each batch with its nodes, their states before it (at the
                time of the event) and the number of gradients, which come first.

        Returns:
            Shape ``(nodes, 6, d)``.
        """
        state = self.state
        for stretch in schedule(events, len(state), horizon, window, concurrent, state.device):
            flows = self.flow.exponential(stretch.nodes, stretch.elapsed)
            for batch in stretch.batches:
                start, middle, end = batch.start, batch.middle, batch.end
                nodes = stretch.nodes[start:end]
                rows = torch.bmm(flows[start:end], state[nodes])
                split = middle - start
                if middle == end:
                    new = self.gradient_event(nodes, rows)
                elif split == 0:
                    new = self.gossip_event(nodes, rows)
                else:
                    new = torch.cat(
                        [
                            self.gradient_event(nodes[:split], rows[:split]),
                            self.gossip_event(nodes[split:], rows[split:]),
                        ]
                    )
                state[nodes] = new
                if after_batch is not None:
                    after_batch(nodes, rows, split)
            self.state = state = self.flow.advance(state, stretch.idle)
            if record is not None:
                record(stretch.end, state)
        return state
