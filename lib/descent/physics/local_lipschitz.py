r"""Certified local Lipschitz constants of ReLU networks in the maximum norm.

.. math:: \mathrm{Lip}(f,B)=\sup_{x\in B}\;\sup_{J\in\partial_Cf(x)}\|J\|_\infty,\qquad
          \|J\|_\infty=\max_k\sum_j|J_{kj}| .

Forward bounds by CROWN, the norm of the Clarke Jacobian by linear bound propagation through the backward
pass, and branch and bound over undecided ReLUs.

Source: Shi, Wang, Zhang, Kolter and Hsieh (NeurIPS 2022) and their code. The splits are of a simpler
kind than there: one sets the bound of a pre-activation to exactly 0, recomputes all bounds behind it, and
chooses the neuron by a score without the coefficients of the last bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from descent.physics.branch_and_bound import BranchAndBoundResult, branch_and_bound
from descent.physics.clarke_relaxations import UNDECIDED, clarke_states
from descent.physics.crown_bounds import crown_preactivation_bounds
from descent.physics.jacobian_bounds import jacobian_bounds
from descent.physics.relu_network import ReluNetwork

__all__ = [
    "LipschitzBound",
    "SplitNotes",
    "area_score",
    "box_states",
    "global_product_bound",
    "local_lipschitz",
    "split_inputs",
    "split_relus",
    "worst_undecided",
]


def box_states(network: ReluNetwork, lower: Tensor, upper: Tensor) -> list[Tensor]:
    """Return the states of all hidden neurons over boxes, from CROWN bounds.

    Args:
        network: the network.
        lower: lower corners, shape ``(B, d)``.
        upper: upper corners, same shape.

    Returns:
        Per hidden layer, ``int8`` of shape ``(B, n_i)``: 0 inactive, 1 active, 2 undecided.
    """
    bounds = crown_preactivation_bounds(network, lower, upper)
    return [clarke_states(low, high) for low, high in bounds]


def global_product_bound(network: ReluNetwork, output_weights: Tensor | None = None) -> Tensor:
    r"""Return :math:`\|g_0^\top W_n\|_1\prod_{i<n}\|W_i\|_\infty`, a Lipschitz constant on the whole space.

    Args:
        network: the network.
        output_weights: :math:`g_0` as rows, shape ``(K, out_size)``; the identity if left out.

    Returns:
        Shape ``(K,)``.
    """
    if output_weights is None:
        last = network.layers[-1].row_norms()
    else:
        last = network.layers[-1].adjoint(output_weights).abs().sum(-1)
    for layer in network.layers[:-1]:
        last = last * layer.row_norms().max()
    return last


@dataclass(frozen=True)
class LipschitzBound:
    """A certified local Lipschitz constant of one box.

    Attributes:
        value: the smaller of ``propagated`` and ``product``.
        propagated: the bound by propagation, after branch and bound if that was asked for.
        product: the global product bound.
        per_output: propagated bounds of the outputs, shape ``(K,)``.
        search: what branch and bound did for the outputs it looked at, in their order.
        undecided: the number of undecided neurons over the box.
    """

    value: float
    propagated: float
    product: float
    per_output: Tensor
    search: tuple[BranchAndBoundResult, ...]
    undecided: int


def local_lipschitz(
    network: ReluNetwork,
    lower: Tensor,
    upper: Tensor,
    output_weights: Tensor | None = None,
    method: str = "linear",
    splits: int = 0,
    batch: int = 1,
) -> LipschitzBound:
    """Bound the local Lipschitz constant (maximum norm) of a network over one box.

    Args:
        network: the network.
        lower: lower corner, shape ``(d,)``.
        upper: upper corner, same shape.
        output_weights: combinations of outputs as rows, shape ``(K, out_size)``; the outputs if left out.
        method: the relaxation, see :func:`descent.physics.jacobian_bounds.jacobian_bounds`.
        splits: ReLUs split by branch and bound, in all. The outputs are treated in the order of their bounds,
            worst first, each until another output has become the worst.
        batch: domains split per round.

    Returns:
        The bound.

    Raises:
        ValueError: for a box, weights or a method that do not fit.
    """
    states = box_states(network, lower[None], upper[None])
    root = jacobian_bounds(network, states, output_weights, method)
    norms = root.norm[0].clone()
    if output_weights is None:
        output_weights = torch.eye(network.out_size, dtype=norms.dtype, device=norms.device)
    searches: list[BranchAndBoundResult] = []
    left = splits
    for k in norms.argsort(descending=True).tolist():
        others = torch.cat([norms[:k], norms[k + 1 :]])
        rest = float(others.max()) if len(others) else -torch.inf
        if left <= 0 or norms[k] < rest:
            break
        searches.append(
            split_relus(
                network, lower, upper, output_weights[k], left, batch, method=method, target=rest
            )
        )
        left -= searches[-1].splits
        norms[k] = min(float(norms[k]), searches[-1].bound)
    product = float(global_product_bound(network, output_weights).max())
    propagated = float(norms.max())
    return LipschitzBound(
        min(propagated, product),
        propagated,
        product,
        norms,
        tuple(searches),
        sum(int((s == UNDECIDED).sum()) for s in states),
    )


@dataclass(frozen=True)
class SplitNotes:
    """What a bound leaves behind for the choice of the next split: per hidden layer, of one domain.

    Attributes:
        states: shape ``(n_i,)``.
        gradients: lower and upper bounds of the gradients entering the layer from behind, shape ``(n_i,)``.
    """

    states: list[Tensor]
    gradients: list[tuple[Tensor, Tensor]]


def area_score(network: ReluNetwork, notes: SplitNotes) -> list[Tensor]:
    r"""Score neurons by the area between the lines of an undecided product.

    .. math:: (g_u|g_u|-g_l|g_l|)\,\sum_j|W_{ij}|,

    with the row of weights that leads into the neuron.

    Args:
        network: the network.
        notes: of the domain.

    Returns:
        Per hidden layer, shape ``(n_i,)``; larger is better.
    """
    return [
        (high * high.abs() - low * low.abs()) * layer.row_norms()
        for layer, (low, high) in zip(network.layers, notes.gradients, strict=False)
    ]


Splits = tuple[Tensor, ...]
Chooser = Callable[[ReluNetwork, SplitNotes, Splits], tuple[int, int] | None]


def worst_undecided(
    network: ReluNetwork, notes: SplitNotes, splits: Splits
) -> tuple[int, int] | None:
    """Choose the undecided neuron with the largest :func:`area_score`.

    Args:
        network: the network.
        notes: of the domain.
        splits: the decisions already taken, which the states reflect.

    Returns:
        Hidden layer and neuron, counted from 0, or ``None`` if none is undecided.
    """
    best, chosen = -torch.inf, None
    for i, (score, state) in enumerate(zip(area_score(network, notes), notes.states, strict=True)):
        masked = torch.where(state == UNDECIDED, score, -torch.inf)
        value, neuron = masked.max(0)
        if float(value) > best:
            best, chosen = float(value), (i, int(neuron))
    return chosen


def split_relus(
    network: ReluNetwork,
    lower: Tensor,
    upper: Tensor,
    output_weights: Tensor,
    max_splits: int,
    batch: int = 1,
    choose: Chooser = worst_undecided,
    method: str = "linear",
    target: float = -torch.inf,
) -> BranchAndBoundResult:
    r"""Tighten the bound of one output by splitting undecided ReLUs into their two states.

    Of a split neuron the bound of its pre-activation is set to 0 on one side and its state is known; all
    bounds behind it are computed anew. Only what the bounds show to be empty is discarded, so that the search
    may end at a combination of states that no input of the box attains.

    Args:
        network: the network.
        lower: lower corner of the box, shape ``(d,)``.
        upper: upper corner, same shape.
        output_weights: :math:`g_0`, shape ``(out_size,)``.
        max_splits: splits at most.
        batch: domains split per round.
        choose: picks (layer, neuron) from the notes and splits of a domain, or ``None`` if there is none.
        method: the relaxation.
        target: a lower bound of the Lipschitz constant at which to stop.

    Returns:
        The bound and its history.
    """

    def evaluate(domains: Sequence[Splits]) -> list[tuple[float, SplitNotes]]:
        splits = [torch.stack(parts) for parts in zip(*domains, strict=True)]
        boxes = [side.expand(len(domains), -1) for side in (lower, upper)]
        bounds = crown_preactivation_bounds(network, boxes[0], boxes[1], splits)
        states = [clarke_states(*b, s) for b, s in zip(bounds, splits, strict=True)]
        found = jacobian_bounds(network, states, output_weights[None], method)
        empty = torch.stack([(low > high).any(1) for low, high in bounds]).any(0)
        values = torch.where(empty, -torch.inf, found.norm[:, 0]).tolist()
        return [
            (
                value,
                SplitNotes([s[j] for s in states], [(a[j, 0], b[j, 0]) for a, b in found.hidden]),
            )
            for j, value in enumerate(values)
        ]

    def branch(splits: Splits, notes: SplitNotes) -> list[Splits]:
        chosen = choose(network, notes, splits)
        if chosen is None:
            return []
        layer, neuron = chosen
        children = []
        for decision in (1, -1):
            child = [s.clone() if i == layer else s for i, s in enumerate(splits)]
            child[layer][neuron] = decision
            children.append(tuple(child))
        return children

    root = tuple(
        torch.zeros(n, dtype=torch.int8, device=lower.device) for n in network.hidden_sizes
    )
    return branch_and_bound(root, evaluate, branch, max_splits, batch, target)


def split_inputs(
    network: ReluNetwork,
    lower: Tensor,
    upper: Tensor,
    output_weights: Tensor,
    max_splits: int,
    batch: int = 1,
    target: float = -torch.inf,
) -> BranchAndBoundResult:
    """Tighten the bound of one output by halving the box along its longest edge; for few inputs.

    Args:
        network: the network.
        lower: lower corner, shape ``(d,)``.
        upper: upper corner, same shape.
        output_weights: :math:`g_0`, shape ``(out_size,)``.
        max_splits: splits at most.
        batch: boxes split per round.
        target: a lower bound of the Lipschitz constant at which to stop.

    Returns:
        The bound and its history.
    """
    Box = tuple[Tensor, Tensor]

    def evaluate(boxes: Sequence[Box]) -> list[tuple[float, bool]]:
        low, high = (torch.stack(side) for side in zip(*boxes, strict=True))
        states = box_states(network, low, high)
        norms = jacobian_bounds(network, states, output_weights[None]).norm[:, 0]
        undecided = torch.stack([(s == UNDECIDED).any(1) for s in states]).any(0)
        return list(zip(norms.tolist(), undecided.tolist(), strict=True))

    def branch(box: Box, undecided: bool) -> list[Box]:
        if not undecided:
            return []
        low, high = box
        axis = int((high - low).argmax())
        cut_high, cut_low = high.clone(), low.clone()
        cut_high[axis] = cut_low[axis] = (low[axis] + high[axis]) / 2
        return [(low, cut_high), (cut_low, high)]

    return branch_and_bound((lower, upper), evaluate, branch, max_splits, batch, target)
