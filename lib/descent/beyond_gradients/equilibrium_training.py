r"""Training many networks at once, each from its own settled state: rules, penalties, and what is watched.

Seeds are the leading dimension of every tensor, so that one batched product relaxes all of them.

Source: Laborieux and Zenke (ICLR 2024) and the authors' code for rules, penalty and measured quantities; data,
sizes and optimiser are those of a small stand-in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from descent.adam import AdamDirection
from descent.beyond_gradients.equilibrium_errors import (
    adjoint_error,
    parameter_gradient,
    response,
)
from descent.beyond_gradients.fixed_point_network import (
    FixedPointNetwork,
    Wiring,
    cross_entropy_gradient,
    draw_network,
)
from descent.beyond_gradients.jacobian_homeostasis import (
    antisymmetric,
    error_alignment,
    homeostatic_gradient,
    probe_moment,
    symmetric,
    symmetry_index,
)

__all__ = ["Arm", "Digits", "History", "layer_alignment", "train"]

PENALTIES = ("homeostasis", "symmetric part", "weight decay")

Streams = Callable[[str], Sequence[torch.Generator]]
"""Gives the generators of a named random stream, one per seed."""


@dataclass(frozen=True)
class Digits:
    """A split data set: inputs in ``(count, d)``, integer labels."""

    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor

    @classmethod
    def split(cls, inputs: Tensor, labels: Tensor, test: int) -> Digits:
        """The last ``test`` examples are for testing."""
        return cls(inputs[:-test], labels[:-test], inputs[-test:], labels[-test:])


@dataclass(frozen=True)
class Arm:
    """One way of learning.

    Attributes:
        wiring: layers and connections.
        angle: initial angle between forward and backward weights, in degrees.
        rule: ``"response"`` (equilibrium propagation) or ``"adjoint"`` (recurrent backpropagation).
        penalty: ``"homeostasis"`` with fresh probes, gradient :math:`4A/n` in the mean; or one of two for
            comparison on the same weights, ``"symmetric part"`` with :math:`4S/n`, which removes the wrong half,
            and ``"weight decay"`` with :math:`2W/n`, half of both.
        coefficient: of the penalty.
        seeds: how many networks learn this way.
    """

    wiring: Wiring
    angle: float
    rule: str
    penalty: str = "homeostasis"
    coefficient: float = 0.0
    seeds: int = 8

    def __post_init__(self) -> None:
        if self.rule not in ("response", "adjoint"):
            raise ValueError(f"rule must be 'response' or 'adjoint', got {self.rule!r}")
        if self.penalty not in PENALTIES:
            raise ValueError(f"penalty must be one of {', '.join(PENALTIES)}, got {self.penalty!r}")


@dataclass(frozen=True)
class History:
    """What was measured, epochs by seeds, and the trained networks.

    Attributes:
        epochs: numbers of finished epochs at which it was measured; 0 is the start.
        accuracy: on the test set, shape ``(epochs, seeds)``.
        index: symmetry index of :math:`W-I`, same shape.
        asymmetry: Frobenius norm of the antisymmetric part of ``W``, same shape.
        cosine: of response and true error, per layer, shape ``(epochs, seeds, layers)``.
        network: the trained networks.
    """

    epochs: tuple[int, ...]
    accuracy: Tensor
    index: Tensor
    asymmetry: Tensor
    cosine: Tensor
    network: FixedPointNetwork

    def late_accuracy(self, last: int = 5) -> Tensor:
        """Mean accuracy of the last measurements, shape ``(seeds,)``: single epochs jitter."""
        return self.accuracy[-last:].mean(0)


def layer_alignment(wiring: Wiring, error: Tensor, reference: Tensor) -> Tensor:
    """Cosines per layer, shape ``(..., layers)``; arguments as in ``error_alignment``."""
    layers = [wiring.layer(k) for k in range(len(wiring.sizes))]
    return torch.stack([error_alignment(error[..., k], reference[..., k]) for k in layers], -1)


def train(
    arms: Mapping[str, Arm],
    data: Digits,
    streams: Streams,
    epochs: int = 20,
    learning_rate: float = 3e-3,
    batch: int = 100,
    free_steps: int = 25,
    error_steps: int = 15,
    probes_per_example: int = 5,
    measured: Sequence[int] | None = None,
) -> dict[str, History]:
    """Train the networks of all arms side by side with Adam.

    Seed ``k`` starts from the same draws and sees the same batches in every arm.

    Args:
        arms: by name; all with one wiring.
        data: split data, in whose dtype is trained; a last incomplete batch is dropped.
        streams: ``streams(name)`` gives fresh generators, one per seed, equal at every call; used for weights,
            batches and probes.
        epochs: passes over the training set.
        learning_rate: of Adam with its usual constants.
        batch: examples per step.
        free_steps: relaxation steps from the zero state.
        error_steps: steps of either error propagation.
        probes_per_example: Gaussian probes of the homeostatic loss.
        measured: epochs after which to measure, besides the last; every one unless given.

    Returns:
        One history per arm.

    Raises:
        ValueError: for arms of different wirings.
    """
    if len({arm.wiring for arm in arms.values()}) != 1:
        raise ValueError("arms that are trained side by side need one wiring")
    ordered = sorted(arms.items(), key=lambda item: item[1].rule == "adjoint")
    device, dtype = data.train_inputs.device, data.train_inputs.dtype
    classes = int(data.train_labels.max()) + 1
    drawn = [
        draw_network(
            arm.wiring,
            data.train_inputs.shape[1],
            classes,
            arm.angle,
            streams("weights")[: arm.seeds],
            dtype,
        )
        for _, arm in ordered
    ]
    parameters = {
        name: torch.cat([one.parameters()[name] for one in drawn]).to(device)
        for name in drawn[0].parameters()
    }
    network = drawn[0].with_parameters(parameters)
    counts = [arm.seeds for _, arm in ordered]
    places = [slice(sum(counts[:k]), sum(counts[: k + 1])) for k in range(len(counts))]
    responding = sum(arm.seeds for _, arm in ordered if arm.rule == "response")
    groups = [
        (rule, place, network.select(place))
        for rule, place in (
            (response, slice(0, responding)),
            (adjoint_error, slice(responding, sum(counts))),
        )
        if place.start < place.stop
    ]
    adam = AdamDirection()
    orders, probes = streams("batches"), [streams("probes")[:count] for count in counts]
    mask = network.wiring.mask(dtype).to(device)
    one_hot = torch.nn.functional.one_hot(data.train_labels).to(data.train_inputs)
    watched = set(range(epochs + 1)) if measured is None else {*measured, epochs}
    records = []
    with torch.no_grad():
        for epoch in range(epochs + 1):
            if epoch in watched:
                found = _measure(network, data, one_hot, batch, free_steps, error_steps)
                records.append((epoch, found))
            if epoch == epochs:
                break
            shuffled = [torch.randperm(len(one_hot), generator=g) for g in orders]
            order = torch.stack([shuffled[k] for count in counts for k in range(count)]).to(device)
            for chosen in order[:, : len(one_hot) // batch * batch].split(batch, dim=1):
                inputs, targets = data.train_inputs[chosen], one_hot[chosen]
                state = network.relax(network.drive(inputs), free_steps)
                activity = network.activation.function(state)
                loss = cross_entropy_gradient(network, targets)(activity)
                error = torch.cat(
                    [rule(part, state[i], loss[i], error_steps) for rule, i, part in groups]
                )
                residual = torch.softmax(network.logits(activity), -1) - targets
                gradient = parameter_gradient(network, inputs, activity, error, residual)
                for (_, arm), place, generators in zip(ordered, places, probes, strict=True):
                    if arm.coefficient:
                        pull = _penalty_gradient(
                            arm.penalty,
                            network.recurrent[place],
                            probes_per_example * batch,
                            generators,
                        )
                        gradient["recurrent"][place] += arm.coefficient * pull * mask
                for name, direction in adam(gradient).items():
                    parameters[name].sub_(direction, alpha=learning_rate)
    epochs_measured = tuple(epoch for epoch, _ in records)
    accuracy, index, asymmetry, cosine = (
        torch.stack(column) for column in zip(*(m for _, m in records), strict=True)
    )
    histories = {
        name: History(
            epochs_measured,
            accuracy[:, place],
            index[:, place],
            asymmetry[:, place],
            cosine[:, place],
            network.select(place),
        )
        for (name, _), place in zip(ordered, places, strict=True)
    }
    return {name: histories[name] for name in arms}


def _penalty_gradient(
    penalty: str, weights: Tensor, draws: int, generators: Sequence[torch.Generator]
) -> Tensor:
    """Gradient of a penalty by the recurrent weights, before masking."""
    size = weights.shape[-1]
    if penalty == "homeostasis":
        moment = probe_moment(draws, size, generators, weights.dtype).to(weights.device)
        identity = torch.eye(size, dtype=weights.dtype, device=weights.device)
        return homeostatic_gradient(weights - identity, moment)
    return (4 * symmetric(weights) if penalty == "symmetric part" else 2 * weights) / size


def _measure(
    network: FixedPointNetwork,
    data: Digits,
    one_hot: Tensor,
    batch: int,
    free_steps: int,
    error_steps: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Accuracy on the test set; index, asymmetry and cosines on the first training examples."""
    seeds = len(network.recurrent)

    def settled(inputs: Tensor) -> Tensor:
        return network.relax(network.drive(inputs.expand(seeds, -1, -1)), free_steps)

    # In pieces: states of all test images at once would not fit a processor's cache.
    answer = torch.cat(
        [
            network.logits(network.activation.function(settled(piece))).argmax(-1)
            for piece in data.test_inputs.split(100)
        ],
        dim=-1,
    )
    accuracy = (answer == data.test_labels).double().mean(-1)
    state = settled(data.train_inputs[:batch])
    loss = cross_entropy_gradient(network, one_hot[:batch])(network.activation.function(state))
    errors = [rule(network, state, loss, error_steps) for rule in (response, adjoint_error)]
    identity = torch.eye(network.wiring.units, device=state.device)
    return (
        accuracy.cpu(),
        symmetry_index(network.recurrent - identity).cpu(),
        torch.linalg.matrix_norm(antisymmetric(network.recurrent)).cpu(),
        layer_alignment(network.wiring, *errors).cpu(),
    )
