"""What each event of DADAO reads, sends and changes, counted, for the chapter on DADAO."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from descent.first_order.continuized_flow import ContinuizedFlow, DADAOConstants
from descent.first_order.dadao import DADAO
from descent.first_order.decentralized_problems import QuadraticSum
from descent.first_order.dual_methods import ContinuizedDual
from descent.first_order.poisson_events import Events

__all__ = [
    "Accounts",
    "CountedQuadratics",
    "alternating_events",
    "audit_continuized",
    "audit_dadao",
    "counts_in_windows",
    "flow_of_handlers",
    "jumps_of_handlers",
]


class CountedQuadratics(QuadraticSum):
    """Quadratics that count every gradient and every conjugate gradient they are asked for."""

    gradients = 0
    conjugates = 0
    last_points: Tensor | None = None

    def gradient(self, nodes: Tensor, points: Tensor) -> Tensor:
        """As :meth:`~descent.first_order.decentralized_problems.QuadraticSum.gradient`, counted."""
        self.gradients += len(nodes)
        self.last_points = points
        return super().gradient(nodes, points)

    def dual_gradient(self, nodes: Tensor, slopes: Tensor) -> Tensor:
        """As :meth:`~descent.first_order.decentralized_problems.QuadraticSum.dual_gradient`, counted."""
        self.conjugates += len(nodes)
        return super().dual_gradient(nodes, slopes)


@dataclass
class Accounts:
    """Events that broke the rules of a decoupled, primal, decentralised method.

    Attributes:
        gradient_events: events with a gradient.
        gradient_faults: those with other than one gradient, at another point than the node's own
            :math:`x_i`, with a message, or with a change in any other row.
        gossip_events: events with messages.
        gossip_faults: those with a gradient, with other than one vector each way, or with a change in
            a row that is not one of the two ends.
        conjugates: conjugate gradients asked for.
    """

    gradient_events: int = 0
    gradient_faults: int = 0
    gossip_events: int = 0
    gossip_faults: int = 0
    conjugates: int = 0


def audit_dadao(
    objective: CountedQuadratics,
    constants: DADAOConstants,
    start: Tensor,
    events: Events,
    horizon: float,
) -> Accounts:
    """Run one instance event by event and check each event.

    Args:
        objective: one instance.
        constants: of all nodes.
        start: shape ``(n, d)``.
        events: of the instance.
        horizon: units of time, one window.

    Returns:
        The accounts.
    """
    accounts = Accounts()
    sent: list[tuple[int, ...]] = []

    def channel(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        sent.extend([tuple(first.shape), tuple(second.shape)])
        return second, first

    dadao = DADAO(objective, [constants] * len(start), start, channel)
    before = dadao.state.clone()
    one_each_way = [(1, objective.dim)] * 2
    asked = 0

    def check(nodes: Tensor, rows: Tensor, split: int) -> None:
        nonlocal asked, before
        calls, asked = objective.gradients - asked, objective.gradients
        touched = torch.nonzero((dadao.state != before).any(2).any(1))[:, 0].tolist()
        strangers = set(touched) - set(nodes.tolist())
        if split:
            accounts.gradient_events += 1
            points = objective.last_points
            own = points is not None and torch.equal(points, rows[:, 0])
            if len(nodes) != 1 or calls != 1 or not own or sent or strangers:
                accounts.gradient_faults += 1
        else:
            accounts.gossip_events += 1
            if len(nodes) != 2 or calls != 0 or sent != one_each_way or strangers:
                accounts.gossip_faults += 1
        sent.clear()
        before = dadao.state.clone()

    dadao.run(events, horizon, horizon, concurrent=False, after_batch=check)
    accounts.conjugates = objective.conjugates
    return accounts


def audit_continuized(
    objective: CountedQuadratics, edges: Tensor, events: Events, most: int
) -> Accounts:
    """The same rules applied to the coupled method, whose every event has gradients and messages.

    Args:
        objective: one instance.
        edges: of the graph.
        events: communication events of the coupled method.
        most: number of events looked at.

    Returns:
        The accounts; every event counts as both kinds.
    """
    method = ContinuizedDual(objective, edges)
    accounts = Accounts()
    for k in range(min(most, len(events))):
        alone = Events(torch.ones(1).double(), events.first[k : k + 1], events.second[k : k + 1])
        asked = objective.conjugates
        method.run(alone, 1.0, 1.0)
        # The look at the end of the run asks one of every node.
        calls = objective.conjugates - asked - objective.n
        accounts.gradient_events += 1
        accounts.gossip_events += 1
        accounts.gradient_faults += calls != 1 or bool(events.is_gossip[k])
        accounts.gossip_faults += calls != 0
    accounts.conjugates = objective.conjugates
    return accounts


def alternating_events(n: int, edges: Tensor, horizon: float) -> Events:
    """Rounds instead of clocks: a gradient and a gossip in turn, evenly spaced, nodes and edges in turn.

    The gradients come at the same mean rate as in DADAO, one for each node and unit of time.
    """
    count = int(n * horizon)
    steps = torch.arange(count)
    # In the middle of their slots, so that none falls on the border of a window.
    times = (steps.double() + 0.25) / n
    chosen = edges[steps % len(edges)]
    gradient = Events(times, steps % n, torch.full((count,), -1))
    first = torch.stack([gradient.first, chosen[:, 0]], 1).flatten()
    second = torch.stack([gradient.second, chosen[:, 1]], 1).flatten()
    return Events(torch.stack([times, times + 0.5 / n], 1).flatten(), first, second)


def counts_in_windows(events: Events, horizon: int) -> tuple[Tensor, Tensor]:
    """Gradients and gossips in every unit of time, two vectors of length ``horizon``."""
    unit = events.times.long().clamp(max=horizon - 1)
    return (
        torch.bincount(unit[~events.is_gossip], minlength=horizon).double(),
        torch.bincount(unit[events.is_gossip], minlength=horizon).double(),
    )


def jumps_of_handlers(curvatures: Tensor, edges: Tensor, constants: DADAOConstants) -> Tensor:
    r"""The jump matrices that the event handlers of the simulator produce, by applying them to unit
    vectors.

    Args:
        curvatures: :math:`a_i` of :math:`f_i(x)=\frac{a_i}2x^2`, shape ``(n,)``.
        edges: node pairs, shape ``(edges, 2)``.
        constants: of all nodes.

    Returns:
        Shape ``(n + edges, 6 n, 6 n)``, gradients first, coordinates ordered by variable, then node.
    """
    n = len(curvatures)
    size = 6 * n
    identity = torch.eye(size, dtype=torch.float64)
    zero = torch.zeros(1, n, size, dtype=torch.float64)
    objective = QuadraticSum(curvatures[None, :, None, None] * identity, zero)
    dadao = DADAO(objective, [constants] * n, zero[0])
    # One column for each unit vector: the state of node i is its six rows of the identity.
    units = identity.view(6, n, size).transpose(0, 1)
    jumps = []
    for nodes in [torch.tensor([i]) for i in range(n)] + list(edges):
        state = units.clone()
        handler = dadao.gradient_event if len(nodes) == 1 else dadao.gossip_event
        state[nodes] = handler(nodes, units[nodes])
        jumps.append(state.transpose(0, 1).reshape(size, size))
    return torch.stack(jumps)


def flow_of_handlers(n: int, constants: DADAOConstants, elapsed: Tensor) -> Tensor:
    r"""The flow of the simulator applied to unit vectors, shape ``(times, 6 n, 6 n)``.

    Args:
        n: number of nodes.
        constants: of all nodes.
        elapsed: shape ``(times,)``.
    """
    size = 6 * n
    flow = ContinuizedFlow([constants] * n)
    units = torch.eye(size, dtype=torch.float64).view(6, n, size).transpose(0, 1)
    moved = [flow.advance(units, time.expand(n)) for time in elapsed]
    return torch.stack([state.transpose(0, 1).reshape(size, size) for state in moved])
