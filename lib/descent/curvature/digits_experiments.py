"""The small classification task behind the chapter on M-FAC: a 64-40-20-10 network on 8 x 8 digits.

The task stands in for the image networks of Frantar, Kurtic and Alistarh (NeurIPS 2021). Data are
passed in as arrays, so that nothing here loads files.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import Optimizer

from descent.curvature.mfac import MFAC
from descent.curvature.obs_pruning import Pruned, collect_gradients, obs_prune

__all__ = [
    "DigitsSplit",
    "GaussianRowsMFAC",
    "RepeatedRowsMFAC",
    "accuracy",
    "digits_network",
    "first_step_below",
    "gradient_source",
    "prune_network",
    "shuffle_rows_per_coordinate",
    "split_digits",
    "train",
]

WEIGHTS = ("0.weight", "2.weight", "4.weight")


class DigitsSplit(NamedTuple):
    """Images ``(n, 64)`` and labels ``(n,)`` for training and testing."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def split_digits(
    images: Tensor, labels: Tensor, generator: torch.Generator, train_size: int = 1200
) -> DigitsSplit:
    """Scale to about [-0.3, 0.7] and split by a random permutation.

    Args:
        images: grey values from 0 to 16, shape ``(n, 64)``.
        labels: classes, shape ``(n,)``.
        generator: source of the permutation.
        train_size: number of training images, less than ``n``.

    Returns:
        The split, images in float64.

    Raises:
        ValueError: if ``train_size`` leaves no test image.
    """
    if not 0 < train_size < len(images):
        raise ValueError(f"train_size must be from 1 to {len(images) - 1}, got {train_size}")
    order = torch.randperm(len(images), generator=generator).to(images.device)
    scaled = images.double() / 16 - 0.3
    first, rest = order[:train_size], order[train_size:]
    return DigitsSplit(scaled[first], labels[first].long(), scaled[rest], labels[rest].long())


def digits_network(generator: torch.Generator, device: torch.device | str = "cpu") -> nn.Sequential:
    """Return a 64-40-20-10 ReLU network in float64 with He initialisation and zero biases.

    Args:
        generator: source of the weights.
        device: where the parameters live.

    Returns:
        3,560 weights and 70 biases.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in ((64, 40), (40, 20), (20, 10)):
        layer = nn.Linear(inputs, outputs, dtype=torch.float64)
        noise = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(noise * (2 / inputs) ** 0.5)
            layer.bias.zero_()
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).to(device)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the fraction of images whose largest output is the label.

    Args:
        model: maps images to class scores.
        images: shape ``(n, 64)``.
        labels: shape ``(n,)``.

    Returns:
        From 0 to 1.
    """
    return float((model(images).argmax(1) == labels).double().mean())


def train(
    model: nn.Module,
    optimiser: Optimizer,
    split: DigitsSplit,
    steps: int,
    generator: torch.Generator,
    batch: int = 64,
) -> Tensor:
    """Train in place on mini-batches drawn with replacement.

    Args:
        model: maps images to class scores.
        optimiser: over the model's parameters.
        split: the data.
        steps: number of steps.
        generator: source of the batches.
        batch: batch size.

    Returns:
        The mini-batch loss before each step, shape ``(steps,)``.
    """
    count = len(split.train_labels)
    order = torch.randint(count, (steps, batch), generator=generator).to(split.train_labels.device)
    losses = []
    for index in order:
        optimiser.zero_grad()
        loss = cross_entropy(model(split.train_images[index]), split.train_labels[index])
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def first_step_below(losses: Tensor, level: float = 0.1, width: int = 10) -> int | None:
    """Return the first step at which the running mean of the last ``width`` losses is below ``level``.

    Args:
        losses: shape ``(steps,)``.
        level: the goal.
        width: number of losses averaged.

    Returns:
        Steps taken, from ``width`` on, or ``None`` if the goal is never met.
    """
    below = losses.unfold(0, width, 1).mean(1) < level
    return int(below.int().argmax()) + width if bool(below.any()) else None


def gradient_source(
    model: nn.Module, split: DigitsSplit, count: int, generator: torch.Generator, batch: int = 8
) -> Callable[[Tensor], Tensor]:
    """Return a function from weights to ``count`` fresh mini-batch gradients at these weights.

    Args:
        model: a network of :func:`digits_network`; its biases are used, its weights replaced.
        split: the data.
        count: number of gradients.
        generator: source of the batches, drawn with replacement.
        batch: batch size.

    Returns:
        Maps ``(3560,)`` to ``(count, 3560)``.
    """
    model = copy.deepcopy(model)

    def gradients(weights: Tensor) -> Tensor:
        vector_to_parameters(weights, [model.get_parameter(name) for name in WEIGHTS])
        labels = split.train_labels
        index = torch.randint(len(labels), (count, batch), generator=generator).to(labels.device)
        return collect_gradients(model, WEIGHTS, cross_entropy, split.train_images, labels, index)

    return gradients


def prune_network(
    model: nn.Module,
    split: DigitsSplit,
    sparsity: float,
    gradients: Callable[[Tensor], Tensor],
    **options: Any,
) -> tuple[float, Pruned]:
    """Prune the weight matrices of a copy of the network and test it.

    Args:
        model: a trained network of :func:`digits_network`; not changed.
        split: the data.
        sparsity: fraction of the 3,560 weights dropped.
        gradients: see :func:`gradient_source`.
        **options: passed to :func:`descent.curvature.obs_pruning.obs_prune`.

    Returns:
        Test accuracy and the pruned weights.
    """
    model = copy.deepcopy(model)
    parameters = [model.get_parameter(name) for name in WEIGHTS]
    pruned = obs_prune(parameters_to_vector(parameters).detach(), gradients, sparsity, **options)
    vector_to_parameters(pruned.weights, parameters)
    return accuracy(model, split.test_images, split.test_labels), pruned


def shuffle_rows_per_coordinate(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Permute every column independently: each weight keeps its gradients, correlations are lost.

    Args:
        rows: shape ``(m, d)``.
        generator: source of the permutations.

    Returns:
        Shape ``(m, d)``.
    """
    order = torch.rand(rows.shape, generator=generator).argsort(0).to(rows.device)
    return rows.gather(0, order)


class RepeatedRowsMFAC(MFAC):
    """M-FAC whose window holds every gradient several times: a longer window that knows no more.

    Args:
        params: as for :class:`descent.curvature.mfac.MFAC`.
        copies: how often each gradient is pushed.
        **options: as for :class:`descent.curvature.mfac.MFAC`.
    """

    def __init__(self, params: Any, copies: int, **options: Any) -> None:
        super().__init__(params, **options)
        self.copies = copies

    def window_rows(self, gradient: Tensor) -> Sequence[Tensor]:
        """Return the gradient ``copies`` times."""
        return (gradient,) * self.copies


class GaussianRowsMFAC(MFAC):
    """M-FAC whose window holds Gaussian noise of the norm of each gradient instead of the gradient.

    Args:
        params: as for :class:`descent.curvature.mfac.MFAC`.
        generator: source of the noise.
        **options: as for :class:`descent.curvature.mfac.MFAC`.
    """

    def __init__(self, params: Any, generator: torch.Generator, **options: Any) -> None:
        super().__init__(params, **options)
        self.generator = generator

    def window_rows(self, gradient: Tensor) -> Sequence[Tensor]:
        """Return one Gaussian row of the gradient's norm."""
        noise = torch.randn(gradient.shape, generator=self.generator, dtype=gradient.dtype)
        noise = noise.to(gradient.device)
        return (noise * (gradient.norm() / noise.norm()),)
