"""All bounds of a local Lipschitz constant side by side, on the same boxes, and the arms that must fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from descent.operation_counter import OperationCounter
from descent.physics.activation_patterns import exact_local_lipschitz
from descent.physics.clarke_relaxations import METHODS, UNDECIDED, clarke_states
from descent.physics.crown_bounds import interval_preactivation_bounds
from descent.physics.jacobian_bounds import JacobianBounds, jacobian_bounds
from descent.physics.lipschitz_experiments import undecided_as_active
from descent.physics.lipschitz_lower_bounds import sampled_lipschitz
from descent.physics.local_lipschitz import SplitNotes, box_states, global_product_bound
from descent.physics.relu_network import Dense, ReluNetwork

__all__ = [
    "Comparison",
    "RandomNeuron",
    "bound_work",
    "compare_methods",
    "entries_outside",
    "enumeration_counts",
    "stable_neuron",
    "unrolled",
]


@dataclass(frozen=True)
class Comparison:
    """Bounds over ``B`` boxes, each array of shape ``(B,)`` and of the largest output.

    Attributes:
        sampled: the largest gradient norm at sampled points, a lower bound.
        linear: the paper's bound.
        recurjac: RecurJac's.
        ibp: by intervals in the backward pass.
        product: the global product of norms.
        unsound: the paper's bound with undecided ReLUs treated as active, which is no bound.
        linear_loose: the paper's bound on interval bounds of the forward pass.
        recurjac_loose: RecurJac's on interval bounds of the forward pass.
        undecided: the share of neurons that are undecided.
        ambiguous: whether some gradient of unknown sign had to be relaxed.
    """

    sampled: np.ndarray
    linear: np.ndarray
    recurjac: np.ndarray
    ibp: np.ndarray
    product: np.ndarray
    unsound: np.ndarray
    linear_loose: np.ndarray
    recurjac_loose: np.ndarray
    undecided: np.ndarray
    ambiguous: np.ndarray


def compare_methods(
    network: ReluNetwork,
    lower: Tensor,
    upper: Tensor,
    samples: int,
    generator: torch.Generator,
    chunk: int = 1024,
    interval_forward: bool = True,
) -> Comparison:
    """Bound one network over boxes by every method.

    Args:
        network: the network.
        lower: lower corners, shape ``(B, d)``.
        upper: upper corners, same shape.
        samples: points sampled in each box.
        generator: a CPU generator.
        chunk: rows bounded at once, which limits memory.
        interval_forward: also compute the two arms on interval bounds of the forward pass; copies of the others
            stand in their place if not.

    Returns:
        The comparison.
    """
    states = box_states(network, lower, upper)
    bounds = {m: jacobian_bounds(network, states, None, m, chunk) for m in METHODS}
    unsound = jacobian_bounds(network, undecided_as_active(states), None, "linear", chunk)
    loose = {m: bounds[m] for m in METHODS[:2]}
    if interval_forward:
        intervals = interval_preactivation_bounds(network, lower, upper)
        wide = [clarke_states(low, high) for low, high in intervals]
        loose = {m: jacobian_bounds(network, wide, None, m, chunk) for m in METHODS[:2]}
    sampled = [
        float(sampled_lipschitz(network, low, high, samples, generator).max())
        for low, high in zip(lower, upper, strict=True)
    ]
    undecided = torch.cat([s == UNDECIDED for s in states], 1).double().mean(1)

    def array(bound: JacobianBounds) -> np.ndarray:
        return bound.lipschitz.cpu().numpy()

    return Comparison(
        sampled=np.array(sampled),
        linear=array(bounds["linear"]),
        recurjac=array(bounds["recurjac"]),
        ibp=array(bounds["ibp"]),
        product=np.full(len(lower), float(global_product_bound(network).max())),
        unsound=array(unsound),
        linear_loose=array(loose["linear"]),
        recurjac_loose=array(loose["recurjac"]),
        undecided=undecided.cpu().numpy(),
        ambiguous=bounds["linear"].ambiguous.any(1).cpu().numpy(),
    )


def entries_outside(network: ReluNetwork, states: Sequence[Tensor], points: Tensor) -> float:
    """Return how far gradients at points lie outside the bounds of their layer.

    Args:
        network: the network.
        states: of one box, shapes ``(1, n_i)``.
        points: in the box, shape ``(S, d)``.

    Returns:
        The largest excess over all layers and entries, relative to the largest bound of the layer; negative
        or 0 if all lie inside.
    """
    found = jacobian_bounds(network, states)
    identity = torch.eye(network.out_size, dtype=points.dtype, device=points.device)
    signs = [z > 0 for z in network.preactivations(points)[:-1]]
    worst = -np.inf
    for value, (low, high) in zip(
        network.gradients(signs, identity), ((found.lower, found.upper), *found.hidden), strict=True
    ):
        scale = float(torch.maximum(low.abs(), high.abs()).max())
        worst = max(worst, float(torch.maximum(low - value, value - high).max()) / scale)
    return worst


def unrolled(network: ReluNetwork) -> ReluNetwork:
    """Return the network with every layer written as a dense matrix."""
    return ReluNetwork(
        tuple(
            Dense(layer.rows(torch.arange(layer.out_size, device=layer.bias.device)), layer.bias)
            for layer in network.layers
        )
    )


def stable_neuron(
    network: ReluNetwork, notes: SplitNotes, splits: Sequence[Tensor]
) -> tuple[int, int] | None:
    """Choose a neuron whose state is known, for the arm in which splits are wasted."""
    for i, (state, split) in enumerate(zip(notes.states, splits, strict=True)):
        if len(found := ((state != UNDECIDED) & (split == 0)).nonzero()):
            return i, int(found[0, 0])
    return None


class RandomNeuron:
    """Chooses an undecided neuron uniformly at random.

    Args:
        generator: a CPU generator.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def __call__(
        self, network: ReluNetwork, notes: SplitNotes, splits: Sequence[Tensor]
    ) -> tuple[int, int] | None:
        places = [
            (i, int(j)) for i, s in enumerate(notes.states) for j in (s == UNDECIDED).nonzero()
        ]
        if not places:
            return None
        return places[int(torch.randint(len(places), (1,), generator=self.generator))]


def bound_work(network: ReluNetwork, lower: Tensor, upper: Tensor) -> tuple[int, int, int]:
    """Count the work of bounding the first output over one box.

    Args:
        network: a dense network.
        lower: lower corner, shape ``(d,)``.
        upper: upper corner, same shape.

    Returns:
        Multiply-adds of the bound, forward bounds included; multiply-adds of one gradient; undecided neurons.
    """
    first = torch.eye(network.out_size, dtype=lower.dtype, device=lower.device)[:1]
    with OperationCounter() as counter:
        states = box_states(network, lower[None], upper[None])
        jacobian_bounds(network, states, first)
    gradient = sum(layer.in_size * layer.out_size for layer in network.layers[:-1])
    return counter.multiply_adds, gradient, sum(int((s == UNDECIDED).sum()) for s in states)


def enumeration_counts(
    cases: Sequence[tuple[ReluNetwork, Tensor, Tensor]], largest: int
) -> list[dict[str, int]]:
    """Enumerate activation patterns for one case of each number of undecided neurons.

    Args:
        cases: networks with the corners of a box, shape ``(d,)``.
        largest: the largest number of undecided neurons that is enumerated.

    Returns:
        One entry for the first case with each number of undecided neurons, where there is one. It holds
        ``undecided``, the linear programs of the enumeration (``programs``) and of the pruned search (``pruned``),
        and the patterns that occur (``occurring``).
    """
    found: dict[int, dict[str, int]] = {}
    for network, lower, upper in cases:
        states = [s[0] for s in box_states(network, lower[None], upper[None])]
        count = sum(int((s == UNDECIDED).sum()) for s in states)
        if not 1 <= count <= largest or count in found:
            continue
        full = exact_local_lipschitz(network, lower, upper, states, prune=False)
        pruned = exact_local_lipschitz(network, lower, upper, states)
        found[count] = {
            "undecided": count,
            "programs": full.programs,
            "pruned": pruned.programs,
            "occurring": full.feasible,
        }
    return [found[k] for k in sorted(found)]
