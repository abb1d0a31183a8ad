r"""Training many networks at once, each from its own settled state: rules, penalties, and what is watched.

Seeds are the leading dimension of every tensor, so that one batched product relaxes all of them.

Source: Laborieux and Zenke (ICLR 2024) and the authors' code for rules, penalty and measured quantities; data,
sizes and optimiser are those of a small stand-in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

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
    """

    wiring: Wiring
    angle: float
    rule: str
    penalty: str = "homeostasis"
    coefficient: float = 0.0

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
    arm: Arm,
    data: Digits,
    streams: Streams,
    epochs: int = 20,
    learning_rate: float = 3e-3,
    batch: int = 100,
    free_steps: int = 25,
    error_steps: int = 15,
    probes_per_example: int = 5,
    measured: Sequence[int] | None = None,
) -> History:
    """Train one network per seed with Adam; seeds see their own batches, the same for every arm.

    Args:
        arm: how to learn.
        data: split data; a last incomplete batch is dropped.
        streams: ``streams(name)`` gives fresh generators, equal between arms; used for weights, batches, probes.
        epochs: passes over the training set.
        learning_rate: of Adam with its usual constants.
        batch: examples per step.
        free_steps: relaxation steps from the zero state.
        error_steps: steps of either error propagation.
        probes_per_example: Gaussian probes of the homeostatic loss.
        measured: epochs after which to measure, besides the last; every one unless given.

    Returns:
        The history.
    """
    device = data.train_inputs.device
    network = draw_network(
        arm.wiring, data.train_inputs.shape[1], int(data.train_labels.max()) + 1, arm.angle, streams("weights")
    )
    parameters = {k: v.to(device) for k, v in network.parameters().items()}
    network = replace(network, **parameters)
    optimiser = torch.optim.Adam(list(parameters.values()), lr=learning_rate)
    orders, probes = streams("batches"), streams("probes")
    mask = arm.wiring.mask().to(device)
    identity = torch.eye(arm.wiring.units, device=device)
    propagate = response if arm.rule == "response" else adjoint_error
    one_hot = torch.nn.functional.one_hot(data.train_labels).to(data.train_inputs)
    watched = set(range(epochs + 1)) if measured is None else {*measured, epochs}
    records = []
    with torch.no_grad():
        for epoch in range(epochs + 1):
            if epoch in watched:
                records.append((epoch, _measure(network, data, one_hot, batch, free_steps, error_steps)))
            if epoch == epochs:
                break
            count = len(one_hot) // batch * batch
            order = torch.stack([torch.randperm(len(one_hot), generator=g) for g in orders])[:, :count]
            for chosen in order.to(device).split(batch, dim=1):
                inputs, targets = data.train_inputs[chosen], one_hot[chosen]
                state = network.relax(network.drive(inputs), free_steps)
                activity = network.activation.function(state)
                loss = cross_entropy_gradient(network, targets)(activity)
                error = propagate(network, state, loss, error_steps)
                residual = torch.softmax(network.logits(activity), -1) - targets
                gradient = parameter_gradient(network, inputs, activity, error, residual)
                if arm.coefficient:
                    weights, size = network.recurrent, len(identity)
                    if arm.penalty == "homeostasis":
                        moment = probe_moment(probes_per_example * batch, size, probes).to(device)
                        pull = homeostatic_gradient(weights - identity, moment) * mask
                    elif arm.penalty == "symmetric part":
                        pull = 4 * symmetric(weights) / size * mask
                    else:
                        pull = 2 * weights / size
                    gradient["recurrent"] += arm.coefficient * pull
                for name, parameter in parameters.items():
                    parameter.grad = gradient[name]
                optimiser.step()
    measurements = [m for _, m in records]
    accuracy, index, asymmetry, cosine = (torch.stack(column) for column in zip(*measurements, strict=True))
    return History(tuple(e for e, _ in records), accuracy, index, asymmetry, cosine, network)


def _measure(
    network: FixedPointNetwork, data: Digits, one_hot: Tensor, batch: int, free_steps: int, error_steps: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Accuracy on the test set; index, asymmetry and cosines on the first training examples."""
    seeds = len(network.recurrent)

    def settled(inputs: Tensor) -> Tensor:
        return network.relax(network.drive(inputs.expand(seeds, -1, -1)), free_steps)

    answer = network.logits(network.activation.function(settled(data.test_inputs))).argmax(-1)
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
