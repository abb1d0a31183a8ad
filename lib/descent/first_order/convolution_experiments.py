"""The image task behind the chapter on Drop-Muon: a small convolutional network, trained to an accuracy.

Every weight is kept as a matrix ``(out, in * 3 * 3)``, the form in which Muon steps. Data are passed in as
tensors, so that nothing here loads files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, relu
from torch.optim import Optimizer

from descent.first_order.cutoff_sampling import CutoffSampler
from descent.first_order.drop_muon import DropMuon, Muon
from descent.first_order.linear_minimisation import dual_norm, lmo
from descent.first_order.matrix_convolution import convolve
from descent.first_order.training_cost import step_cost

__all__ = [
    "ConvolutionNet",
    "SkipOnlyDropMuon",
    "TrainingRun",
    "balanced_subset",
    "epoch_batches",
    "first_crossing",
    "layer_smoothness",
    "pooled",
    "train",
    "train_from",
]


class ConvolutionNet(nn.Module):
    """Three 3 x 3 convolutions with ReLU and a linear layer, no biases: four weight matrices.

    Args:
        channels: of the three convolutions.
        strides: of the three convolutions.
        side: height and width of the images, which have one channel.
        generator: source of the weights, uniform within one over the root of the number of inputs, as
            torch's own layers start.
        classes: number of outputs.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        side: int,
        generator: torch.Generator,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.strides, before = list(strides), [1, *channels[:-1]]
        self.macs: list[int] = []
        self.shapes: list[tuple[int, int]] = []
        for inputs, outputs, stride in zip(before, channels, strides, strict=True):
            side = (side - 1) // stride + 1
            self.shapes.append((outputs, 9 * inputs))
            self.macs.append(side**2 * 9 * inputs * outputs)
        self.shapes.append((classes, side**2 * channels[-1]))
        self.macs.append(classes * side**2 * channels[-1])
        self.weights = nn.ParameterList(
            (2 * torch.rand(rows, columns, generator=generator) - 1) / columns**0.5
            for rows, columns in self.shapes
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores.

        Args:
            images: shape ``(1, side, side, n)``, batch last.

        Returns:
            Shape ``(n, classes)``.
        """
        hidden = images
        *kernels, last = self.weights
        for kernel, stride in zip(kernels, self.strides, strict=True):
            hidden = relu(convolve(hidden, kernel, stride), inplace=True)
        return (last @ hidden.flatten(0, 2)).T


class SkipOnlyDropMuon(DropMuon):
    """Drop-Muon that freezes nothing: the whole network is differentiated, then some layers are skipped."""

    def sample_cutoff(self, progress: float = 0.0) -> int:
        """Draw the cutoff and leave every layer differentiable."""
        cutoff = super().sample_cutoff(progress)
        for group in self.param_groups:
            for p in group["params"]:
                p.requires_grad_(True)
        return cutoff


def balanced_subset(labels: Tensor, per_class: int, generator: torch.Generator) -> Tensor:
    """Return indices of ``per_class`` random images of every class.

    Args:
        labels: shape ``(n,)``.
        per_class: images per class.
        generator: source of the choice.

    Returns:
        Shape ``(classes * per_class,)``.

    Raises:
        ValueError: if a class has too few images.
    """
    chosen = []
    for label in labels.unique():
        index = (labels == label).nonzero().squeeze(1)
        if len(index) < per_class:
            raise ValueError(f"class {int(label)} has {len(index)} images, asked for {per_class}")
        chosen.append(index[torch.randperm(len(index), generator=generator)[:per_class]])
    return torch.cat(chosen)


def pooled(images: Tensor, side: int) -> Tensor:
    """Scale grey values to [0, 1] and average square blocks.

    Args:
        images: uint8, shape ``(n, h, h)``.
        side: a divisor of ``h``.

    Returns:
        Shape ``(1, side, side, n)``, float32, batch last.

    Raises:
        ValueError: if ``side`` does not divide ``h``.
    """
    if images.shape[-1] % side:
        raise ValueError(f"{side} does not divide {images.shape[-1]}")
    small = avg_pool2d(images.float() / 255, images.shape[-1] // side)
    return small.permute(1, 2, 0)[None].contiguous()


def epoch_batches(count: int, batch: int, epochs: int, generator: torch.Generator) -> Tensor:
    """Return the batches of several epochs, each a fresh permutation without its remainder.

    Args:
        count: number of samples.
        batch: batch size.
        epochs: number of epochs.
        generator: source of the permutations.

    Returns:
        Indices, shape ``(epochs * (count // batch), batch)``.
    """
    kept = count // batch * batch
    rows = [torch.randperm(count, generator=generator)[:kept] for _ in range(epochs)]
    return torch.cat(rows).view(-1, batch)


@dataclass
class TrainingRun:
    """What one training gave, evaluation by evaluation.

    Attributes:
        steps: steps taken.
        costs: multiply-adds spent on them, evaluations not counted.
        full_backward_costs: the same if every step had differentiated the whole network and only
            then skipped the layers below the cutoff, which gives the same weights.
        accuracies: accuracy on the whole training set.
        cutoffs: the cutoff of every step.
    """

    steps: list[int] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    full_backward_costs: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    cutoffs: list[int] = field(default_factory=list)

    def at_step(self, step: int) -> float:
        """Return the accuracy after so many steps, which must have been evaluated."""
        return self.accuracies[self.steps.index(step)]


def train(
    model: ConvolutionNet,
    optimiser: Optimizer,
    images: Tensor,
    labels: Tensor,
    batches: Tensor,
    evaluate_at: Collection[int],
    stop_at: float = 1.1,
    least_steps: int = 0,
) -> TrainingRun:
    """Train in place, at a constant learning rate, and follow the training accuracy.

    Args:
        model: the network.
        optimiser: Muon or Drop-Muon over its weights, layer by layer.
        images: shape ``(1, side, side, n)``.
        labels: shape ``(n,)``.
        batches: indices of every step, shape ``(steps, batch)``.
        evaluate_at: numbers of steps after which to evaluate.
        stop_at: end at the first evaluation with this accuracy.
        least_steps: but not before so many steps.

    Returns:
        The run.
    """
    run, spent, unsaved, total = TrainingRun(), 0, 0, len(batches)
    cutoffs = range(len(model.macs))
    costs = [step_cost(model.macs, model.shapes, batches.shape[1], s) for s in cutoffs]
    products = [step_cost(model.macs, model.shapes, 0, s) for s in cutoffs]
    for k, index in enumerate(batches.to(labels.device), 1):
        cutoff = 0
        if isinstance(optimiser, DropMuon):
            cutoff = optimiser.sample_cutoff((k - 1) / total)
        else:
            optimiser.zero_grad()
        cross_entropy(model(images[..., index]), labels[index]).backward()
        optimiser.step()
        spent += costs[cutoff]
        unsaved += costs[0] - products[0] + products[cutoff]
        run.cutoffs.append(cutoff)
        if k in evaluate_at:
            with torch.no_grad():
                score = float((model(images).argmax(1) == labels).double().mean())
            run.steps.append(k)
            run.costs.append(spent)
            run.full_backward_costs.append(unsaved)
            run.accuracies.append(score)
            if score >= stop_at and k >= least_steps:
                break
    return run


def train_from(
    images: Tensor,
    labels: Tensor,
    lr: float,
    sampler: CutoffSampler | None,
    streams: Callable[[str], torch.Generator],
    epochs: int,
    batch: int,
    stop_at: float = 1.1,
    least_epochs: int = 0,
    evaluated: Collection[int] | None = None,
) -> TrainingRun:
    """Train a fresh 16-32-64 network with Muon or Drop-Muon.

    Args:
        images: shape ``(1, 8, 8, n)``.
        labels: shape ``(n,)``.
        lr: learning rate.
        sampler: of the cutoffs; ``None`` is Muon.
        streams: random streams by name: ``"weights"``, ``"batches"`` and ``"cutoffs"``.
        epochs: at most so many; the progress of the sampler refers to them.
        batch: batch size.
        stop_at: end at the first evaluation with this accuracy.
        least_epochs: but not before so many epochs.
        evaluated: epochs after which to evaluate; all by default.

    Returns:
        The run.
    """
    net = ConvolutionNet((16, 32, 64), (1, 2, 2), 8, streams("weights")).to(images.device)
    optimiser: Optimizer = (
        Muon(net.parameters(), lr=lr)
        if sampler is None
        else DropMuon(list(net.weights), sampler, streams("cutoffs"), lr=lr)
    )
    batches = epoch_batches(len(labels), batch, epochs, streams("batches"))
    per_epoch = len(labels) // batch
    evaluate_at = {per_epoch * e for e in (evaluated or range(1, epochs + 1))}
    least_steps = per_epoch * least_epochs
    return train(net, optimiser, images, labels, batches, evaluate_at, stop_at, least_steps)


def first_crossing(x: Sequence[float], accuracies: Sequence[float], level: float) -> float | None:
    """Return where the accuracy first reaches a level, linear between evaluations.

    Args:
        x: steps or costs at the evaluations.
        accuracies: at the evaluations.
        level: the goal.

    Returns:
        The place on the axis of ``x``, or ``None`` if the goal is never met.
    """
    above = np.flatnonzero(np.asarray(accuracies) >= level)
    if not len(above):
        return None
    k = int(above[0])
    if k == 0:
        return float(x[0])
    low, high = accuracies[k - 1], accuracies[k]
    return float(x[k - 1] + (x[k] - x[k - 1]) * (level - low) / (high - low))


def layer_smoothness(
    model: ConvolutionNet,
    loss: Callable[[Any], Tensor],
    radius: float,
    norm: str = "spectral",
) -> Tensor:
    r"""Estimate :math:`L_i` by :math:`\|\nabla_if(X+\Delta_i)-\nabla_if(X)\|_*/\|\Delta_i\|` along the step of each layer.

    Args:
        model: the network; its weights are restored.
        loss: maps the model to a scalar.
        radius: norm of :math:`\Delta_i=\mathrm{LMO}(\nabla_i)`.
        norm: of every layer.

    Returns:
        Shape ``(b,)``, float64.
    """
    weights = list(model.weights)
    gradients = torch.autograd.grad(loss(model), weights)
    found = []
    for weight, gradient in zip(weights, gradients, strict=True):
        saved = weight.detach().clone()
        with torch.no_grad():
            weight.add_(lmo(gradient, radius, norm))
        (moved,) = torch.autograd.grad(loss(model), [weight])
        with torch.no_grad():
            weight.copy_(saved)
        found.append(dual_norm(moved - gradient, norm).double() / radius)
    return torch.stack(found)
