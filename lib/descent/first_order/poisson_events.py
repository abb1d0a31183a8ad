r"""Poisson clocks of nodes and edges, and which of their events may be computed together.

Every node computes gradients at the times of a clock of its own, every edge gossips at those of
another. Two generators give the same law: a heap that holds the next ring of every clock, and the
superposition of all clocks, in which the next event comes after an exponential time of the total
rate and belongs to a clock with probability proportional to its rate.

An event reads and writes only the rows of its one or two nodes. Events are therefore partially
ordered (*happened before*), and all events at the same height of that order can be computed at once,
with the same result as one after the other.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["EventBatch", "Events", "Window", "heap_events", "poisson_events", "schedule"]


@dataclass(frozen=True)
class Events:
    """Events in the order of time (within each instance).

    Attributes:
        times: shape ``(events,)``, float64.
        first: the node, or one end of the edge, shape ``(events,)``.
        second: the other end, or -1 for a gradient.
    """

    times: Tensor
    first: Tensor
    second: Tensor

    def __len__(self) -> int:
        return len(self.times)

    @property
    def is_gossip(self) -> Tensor:
        """Whether the event is a communication."""
        return self.second >= 0

    @staticmethod
    def together(parts: Sequence[Events], n: int) -> Events:
        """Independent instances of ``n`` nodes each side by side: nodes of instance k start at k n."""
        shifted = [
            Events(p.times, p.first + k * n, torch.where(p.second >= 0, p.second + k * n, -1))
            for k, p in enumerate(parts)
        ]
        return Events(
            torch.cat([p.times for p in shifted]),
            torch.cat([p.first for p in shifted]),
            torch.cat([p.second for p in shifted]),
        )


def _check_rates(gradient_rates: Tensor, edges: Tensor, gossip_rates: Tensor) -> None:
    if len(gossip_rates) != len(edges):
        raise ValueError(f"{len(gossip_rates)} gossip rates for {len(edges)} edges")
    if bool((gradient_rates < 0).any()) or bool((gossip_rates < 0).any()):
        raise ValueError("rates must not be negative")


def poisson_events(
    gradient_rates: Tensor,
    edges: Tensor | Sequence[Tensor],
    gossip_rates: Tensor | float,
    horizon: float,
    generator: torch.Generator,
    period: float | None = None,
) -> Events:
    r"""Draw all events up to ``horizon`` by superposition.

    Args:
        gradient_rates: rings per unit of time of every node, shape ``(n,)``; 1 each in the paper.
        edges: node pairs, shape ``(edges, 2)``; or a sequence of graphs, used in turn.
        gossip_rates: rate of every edge, shape ``(edges,)``, or the total rate, spread evenly over
            the edges of the present graph.
        horizon: length of the run in units of time.
        generator: the random stream.
        period: time after which the next graph is used; only for a sequence of graphs.

    Returns:
        The events in the order of time.

    Raises:
        ValueError: for negative rates, or a sequence of graphs without a period.
    """
    graphs = [edges] if isinstance(edges, Tensor) else list(edges)
    if (period is None) != (len(graphs) == 1) or (period is not None and not period > 0):
        raise ValueError("a sequence of graphs, and only that, needs a positive period")
    if isinstance(gossip_rates, Tensor):
        if len(graphs) > 1:
            raise ValueError("one rate for each edge needs a single graph")
        _check_rates(gradient_rates, graphs[0], gossip_rates)
        gossip_total = float(gossip_rates.sum())
    else:
        _check_rates(gradient_rates, graphs[0], torch.full((len(graphs[0]),), float(gossip_rates)))
        gossip_total = float(gossip_rates)
    gradient_total = float(gradient_rates.sum())
    total = gradient_total + gossip_total
    expected = total * horizon
    times = torch.zeros(0, dtype=torch.float64)
    while not len(times) or float(times[-1]) <= horizon:
        gaps = torch.empty(int(expected + 5 * expected**0.5) + 10, dtype=torch.float64)
        gaps.exponential_(total, generator=generator)
        start = times[-1] if len(times) else 0.0
        times = torch.cat([times, start + gaps.cumsum(0)])
    times = times[times <= horizon]
    count = len(times)
    kind = torch.rand(count, generator=generator, dtype=torch.float64) * total
    pick = torch.rand(count, generator=generator, dtype=torch.float64)
    gossip = kind >= gradient_total
    first = _choose(gradient_rates, pick)
    second = torch.full_like(first, -1)
    for number, graph in enumerate(graphs):
        here = gossip
        if period is not None:
            here = gossip & ((times / period).long() % len(graphs) == number)
        weights = gossip_rates if isinstance(gossip_rates, Tensor) else torch.ones(len(graph))
        chosen = graph[_choose(weights, pick[here])]
        first[here], second[here] = chosen[:, 0], chosen[:, 1]
    return Events(times, first, second)


def _choose(weights: Tensor, uniform: Tensor) -> Tensor:
    """Indices with probability proportional to the weights, from uniform numbers."""
    cumulative = weights.double().cumsum(0)
    found = torch.searchsorted(cumulative, uniform * cumulative[-1], right=True)
    return found.clamp_(max=len(weights) - 1)


def heap_events(
    gradient_rates: Tensor,
    edges: Tensor,
    gossip_rates: Tensor,
    horizon: float,
    generator: torch.Generator,
) -> Events:
    """Draw all events up to ``horizon`` from one clock for every node and edge, kept in a heap.

    Arguments as for :func:`poisson_events`, with a single graph and a rate for each edge.
    """
    _check_rates(gradient_rates, edges, gossip_rates)
    owners = [(i, -1) for i in range(len(gradient_rates))] + [(i, j) for i, j in edges.tolist()]
    rates = torch.cat([gradient_rates.double(), gossip_rates.double()]).tolist()
    size = int(sum(rates) * horizon) + len(rates)
    pool: Iterator[float] = iter(())

    def wait(rate: float) -> float:
        nonlocal pool
        draw = next(pool, None)
        if draw is None:
            fresh = torch.empty(size, dtype=torch.float64).exponential_(generator=generator)
            pool = iter(fresh.tolist())
            draw = next(pool)
        return draw / rate

    clocks = [(wait(rate), k) for k, rate in enumerate(rates) if rate > 0]
    heapq.heapify(clocks)
    rows: list[tuple[float, int, int]] = []
    while clocks and clocks[0][0] <= horizon:
        time, k = clocks[0]
        rows.append((time, *owners[k]))
        heapq.heapreplace(clocks, (time + wait(rates[k]), k))
    times, first, second = zip(*rows, strict=True) if rows else ((), (), ())
    return Events(
        torch.tensor(times, dtype=torch.float64),
        torch.tensor(first, dtype=torch.long),
        torch.tensor(second, dtype=torch.long),
    )


@dataclass(frozen=True)
class EventBatch:
    """Where the rows of one batch of independent events lie in its window.

    Rows ``start`` to ``middle`` are gradients, ``middle`` to ``end`` the first ends of the gossiping
    edges and then as many second ends.
    """

    start: int
    middle: int
    end: int


@dataclass(frozen=True)
class Window:
    """The events of a stretch of time, in batches, and what is needed to bring all nodes to its end.

    Attributes:
        end: the time at which the window closes.
        nodes: one row for each (event, node), shape ``(rows,)``, batch after batch.
        elapsed: time since the previous event of that node, or since the window opened.
        batches: the rows of each batch.
        idle: time from the last event of every node to the end, shape ``(nodes,)``.
    """

    end: float
    nodes: Tensor
    elapsed: Tensor
    batches: list[EventBatch]
    idle: Tensor


def schedule(
    events: Events,
    nodes: int,
    horizon: float,
    window: float,
    concurrent: bool = True,
    device: torch.device | str = "cpu",
) -> list[Window]:
    """Cut the run into windows and the events of each window into batches of independent events.

    The height of an event is one more than that of the last event of its nodes in the window; events
    of equal height share no node. Nodes are brought to a common time at the end of a window, which
    changes nothing because the flow between events is exact.

    Args:
        events: of all instances, each in the order of time.
        nodes: number of nodes of all instances together.
        horizon: where the last window ends.
        window: length of a window, the distance of the times at which a run can be looked at.
        concurrent: ``False`` for one event in each batch, in the order of time (one instance).
        device: where the index tensors go.

    Returns:
        The windows in order.

    Raises:
        ValueError: if the window does not fit into the horizon.
    """
    if not 0 < window <= horizon:
        raise ValueError(f"the window must be from 0 to {horizon}, got {window}")
    count = max(1, round(horizon / window))
    number = (events.times / window).long().clamp(max=count - 1)
    span = len(events) + 1
    last_height, last_time = [0] * nodes, [0.0] * nodes
    heights: list[int] = []
    before_first: list[float] = []
    before_second: list[float] = []
    for time, i, j, base in zip(
        events.times.tolist(),
        events.first.tolist(),
        events.second.tolist(),
        (number * span).tolist(),
        strict=True,
    ):
        height = last_height[i]
        if base > height:
            height = base
        before_first.append(last_time[i])
        if j >= 0:
            if last_height[j] > height:
                height = last_height[j]
            before_second.append(last_time[j])
            last_height[j], last_time[j] = height + 1, time
        else:
            before_second.append(0.0)
        last_height[i], last_time[i] = height + 1, time
        heights.append(height + 1)
    key = torch.tensor(heights, dtype=torch.long)
    if not concurrent:
        key = number * span + torch.arange(len(events)) + 1
    before = torch.tensor([before_first, before_second], dtype=torch.float64).T
    gossip = events.is_gossip
    order = torch.argsort(2 * key + gossip, stable=True)
    open_time = (number.double() * window)[order]
    elapsed = events.times[order, None] - torch.maximum(before[order], open_time[:, None])
    key, gossip = key[order], gossip[order]
    first, second = events.first[order], events.second[order]
    starts = torch.searchsorted(number[order].contiguous(), torch.arange(count + 1)).tolist()
    windows = []
    latest = torch.zeros(nodes, dtype=torch.float64)
    for w in range(count):
        a, b = starts[w], starts[w + 1]
        # Heights within the window are turned into batch numbers and their sizes.
        _, batch, sizes = torch.unique_consecutive(
            key[a:b], return_inverse=True, return_counts=True
        )
        talk = gossip[a:b]
        talks = torch.zeros_like(sizes).index_add_(0, batch, talk.long())
        gradients = sizes - talks
        row_start = torch.cumsum(sizes + talks, 0) - (sizes + talks)
        within = torch.arange(b - a) - (torch.cumsum(sizes, 0) - sizes)[batch]
        row = row_start[batch] + within
        other = (row + talks[batch])[talk]
        total = int((sizes + talks).sum())
        node_rows = torch.empty(total, dtype=torch.long)
        time_rows = torch.empty(total, dtype=torch.float64)
        node_rows[row], time_rows[row] = first[a:b], elapsed[a:b, 0]
        node_rows[other], time_rows[other] = second[a:b][talk], elapsed[a:b, 1][talk]
        here = events.times[order[a:b]]
        latest.fill_(w * window)
        latest.scatter_reduce_(0, first[a:b], here, "amax")
        latest.scatter_reduce_(0, second[a:b][talk], here[talk], "amax")
        end = (w + 1) * window if w < count - 1 else horizon
        batches = [
            EventBatch(s, s + g, s + g + 2 * t)
            for s, g, t in zip(row_start.tolist(), gradients.tolist(), talks.tolist(), strict=True)
        ]
        windows.append(
            Window(
                end, node_rows.to(device), time_rows.to(device), batches, (end - latest).to(device)
            )
        )
    return windows
