"""Independent copies of one network, evaluated and trained side by side as one batch.

Replicates of a small experiment differ in weights, data and options, not in shape. Stacking them along
a leading axis turns a loop over seeds into one call; copies never see each other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy

__all__ = [
    "NetworkCopies",
    "accuracies",
    "cross_entropies",
    "flat_norms",
    "scaled",
]

State = dict[str, Tensor]


def _broadcast(factor: Tensor, like: Tensor) -> Tensor:
    return factor.reshape(factor.shape + (1,) * (like.ndim - factor.ndim))


def flat_norms(update: State) -> Tensor:
    """Return the Euclidean norm of each copy's update over all its tensors, shape ``(copies,)``.

    Args:
        update: tensors ``(copies, ...)`` by parameter name.
    """
    return torch.stack([part.flatten(1).norm(dim=1) for part in update.values()]).norm(dim=0)


def scaled(update: State, factor: Tensor) -> State:
    """Return the update with copy ``c`` multiplied by ``factor[c]``.

    Args:
        update: tensors ``(copies, ...)`` by parameter name.
        factor: shape ``(copies,)``.
    """
    return {name: part * _broadcast(factor, part) for name, part in update.items()}


def _per_copy(temperature: Tensor | float) -> Tensor | float:
    return temperature[:, None, None] if isinstance(temperature, Tensor) else temperature


def cross_entropies(logits: Tensor, labels: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """Return the mean cross-entropy of each copy.

    Args:
        logits: shape ``(copies, samples, classes)``.
        labels: shape ``(copies, samples)``.
        temperature: divides the logits; a number, or one per copy.

    Returns:
        Shape ``(copies,)``.
    """
    flat = (logits / _per_copy(temperature)).flatten(0, 1)
    losses = cross_entropy(flat, labels.flatten(), reduction="none")
    return losses.unflatten(0, labels.shape).mean(-1)


def accuracies(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the fraction of right answers of each copy, shape ``(copies,)``; arguments as above."""
    return (logits.argmax(-1) == labels).double().mean(-1)


class NetworkCopies:
    """Stacked parameters and buffers of several copies of a network.

    Args:
        models: networks of one architecture, on one device.

    Attributes:
        parameters: leaf tensors ``(copies, ...)`` by name.
        buffers: tensors ``(copies, ...)`` by name, such as the statistics of batch normalisation.
    """

    def __init__(self, models: Sequence[torch.nn.Module]) -> None:
        self.parameters, self.buffers = stack_module_state(list(models))
        self.template = copy.deepcopy(models[0]).to("meta")

    def __len__(self) -> int:
        return len(next(iter(self.parameters.values())))

    def select(self, index: Sequence[int]) -> NetworkCopies:
        """Return new copies with the state of the named ones (repetitions allowed).

        Args:
            index: which copies, in order.
        """
        chosen = copy.copy(self)
        chosen.parameters = {
            k: p.detach()[list(index)].clone().requires_grad_() for k, p in self.parameters.items()
        }
        chosen.buffers = {k: b[list(index)].clone() for k, b in self.buffers.items()}
        return chosen

    def logits(
        self, inputs: Tensor, parameters: State | None = None, training: bool = False
    ) -> Tensor:
        """Evaluate every copy on its inputs.

        Args:
            inputs: shape ``(copies, samples, ...)``.
            parameters: other values to evaluate at.
            training: training mode: batch statistics are used, and running ones updated.

        Returns:
            Shape ``(copies, samples, classes)``.
        """
        self.template.train(training)

        def one(values: State, buffers: State, batch: Tensor) -> Tensor:
            return functional_call(self.template, (values, buffers), (batch,))

        return vmap(one)(
            self.parameters if parameters is None else parameters, self.buffers, inputs
        )

    def logits_and_slopes(
        self, inputs: Tensor, direction: State, temperature: Tensor | float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Return logits and their derivatives along a direction per copy, in eval mode.

        Args:
            inputs: shape ``(copies, samples, ...)``.
            direction: tensors ``(copies, ...)`` by parameter name.
            temperature: divides the logits before they are differentiated; a number or one per copy.

        Returns:
            Two tensors ``(copies, samples, classes)``.
        """
        # dual numbers rather than torch.func.jvp, whose first call loads a second of decompositions
        with torch.no_grad(), forward_ad.dual_level():
            point = {
                name: forward_ad.make_dual(p.detach(), direction[name])
                for name, p in self.parameters.items()
            }
            z, slopes = forward_ad.unpack_dual(self.logits(inputs, point) / _per_copy(temperature))
        return z, slopes

    def gradients(
        self,
        inputs: Tensor,
        labels: Tensor,
        temperature: Tensor | float = 1.0,
        training: bool = False,
    ) -> tuple[State, Tensor]:
        """Return the gradient of each copy's mean cross-entropy, and the losses.

        Args:
            inputs: shape ``(copies, samples, ...)``.
            labels: shape ``(copies, samples)``.
            temperature: divides the logits; a number, or one per copy.
            training: whether to evaluate in training mode.

        Returns:
            Tensors ``(copies, ...)`` by name, and losses ``(copies,)``.
        """
        losses = cross_entropies(self.logits(inputs, training=training), labels, temperature)
        found = torch.autograd.grad(losses.sum(), list(self.parameters.values()))
        return dict(zip(self.parameters, found, strict=True)), losses.detach()

    @torch.no_grad()
    def add(self, update: State) -> None:
        """Add an update to the parameters in place.

        Args:
            update: tensors ``(copies, ...)`` by name.
        """
        for name, p in self.parameters.items():
            p.add_(update[name])

    def train(
        self,
        inputs: Tensor,
        labels: Tensor,
        batches: Tensor,
        direction: Callable[[State], State],
        learning_rate: float,
        temperature: Tensor | float = 1.0,
    ) -> None:
        """Take one step per mini-batch: ``learning_rate`` times minus a direction made of gradients.

        Args:
            inputs: shape ``(copies, samples, ...)``.
            labels: shape ``(copies, samples)``.
            batches: indices, shape ``(copies, steps, batch)``.
            direction: maps gradients to the direction; the identity is SGD, :class:`~descent.adam.AdamDirection` Adam.
            learning_rate: common to all copies.
            temperature: divides the logits; a number, or one per copy.
        """
        rows = torch.arange(len(self), device=inputs.device)[:, None]
        for step in range(batches.shape[1]):
            index = batches[:, step]
            gradient, _ = self.gradients(
                inputs[rows, index], labels[rows, index], temperature, training=True
            )
            self.add({k: -learning_rate * d for k, d in direction(gradient).items()})
