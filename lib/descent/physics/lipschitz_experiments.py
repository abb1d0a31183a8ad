r"""Data sets and networks on which local Lipschitz constants are measured.

Source: the code of Shi et al. (NeurIPS 2022) for the synthetic classification data, its networks and their
training (Adam, learning rate 1e-3, 10 epochs, batches of 256).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from descent.physics.clarke_relaxations import ACTIVE, UNDECIDED
from descent.physics.relu_network import Dense, ReluNetwork

__all__ = [
    "monotone_score_data",
    "nearest_leader_data",
    "random_network",
    "train_convolutional",
    "train_replicates",
    "undecided_as_active",
]


def nearest_leader_data(
    rng: np.random.Generator, dim: int = 16, samples: int = 10_000, classes: int = 10
) -> tuple[Tensor, Tensor]:
    """Draw points of the unit cube that take the random label of the nearest of ``5 dim`` leaders.

    Args:
        rng: random stream.
        dim: number of inputs.
        samples: number of points, the leaders among them.
        classes: number of labels.

    Returns:
        Points, float64, shape ``(samples, dim)``, and labels, shape ``(samples,)``.
    """
    points = rng.random((samples, dim))
    leaders = points[: 5 * dim]
    labels = rng.integers(classes, size=5 * dim)
    distance = (leaders**2).sum(1) - 2 * points @ leaders.T
    return torch.from_numpy(points), torch.from_numpy(labels[distance.argmin(1)])


def monotone_score_data(rng: np.random.Generator, samples: int = 5_000) -> tuple[Tensor, Tensor]:
    r"""Draw points of the six-dimensional unit cube labelled by the sign of a noisy score.

    .. math:: 2x_0+1.5x_1^2-2x_2+\sin6x_3-1.7+0.3\,\varepsilon :

    increasing in the first two features, decreasing in the third, neither in the fourth; the others do not matter.

    Args:
        rng: random stream.
        samples: number of points.

    Returns:
        Points, float64, shape ``(samples, 6)``, and labels 0 or 1.
    """
    x = rng.random((samples, 6))
    score = 2 * x[:, 0] + 1.5 * x[:, 1] ** 2 - 2 * x[:, 2] + np.sin(6 * x[:, 3]) - 1.7
    score += 0.3 * rng.standard_normal(samples)
    return torch.from_numpy(x), torch.from_numpy((score > 0).astype(np.int64))


def random_network(
    generator: torch.Generator, sizes: Sequence[int], device: torch.device | None = None
) -> ReluNetwork:
    r"""Draw an untrained network: weights of variance 2 / fan-in, biases of standard deviation 0.3.

    Args:
        generator: a CPU generator.
        sizes: widths from input to output.
        device: where the network lives.

    Returns:
        A dense network in float64.
    """
    layers = []
    for n, m in itertools.pairwise(sizes):
        weight = torch.randn(m, n, generator=generator, dtype=torch.float64) * (2 / n) ** 0.5
        bias = torch.randn(m, generator=generator, dtype=torch.float64) * 0.3
        layers.append(Dense(weight.to(device), bias.to(device)))
    return ReluNetwork(tuple(layers))


def undecided_as_active(states: Sequence[Tensor]) -> list[Tensor]:
    """Return states in which undecided neurons are wrongly called active, the unsound control arm."""
    return [torch.where(s == UNDECIDED, torch.full_like(s, ACTIVE), s) for s in states]


def train_replicates(
    points: Tensor,
    labels: Tensor,
    widths: Sequence[int],
    generator: torch.Generator,
    epochs: int = 10,
    batch: int = 256,
    weight_decay: float = 0.0,
) -> list[ReluNetwork]:
    """Train several dense networks at once, one per replicate of the data, by Adam in float32.

    Args:
        points: shape ``(R, N, d)``.
        labels: shape ``(R, N)``.
        widths: widths behind the input, the number of classes last.
        generator: a CPU generator, for weights and batches.
        epochs: passes through the data.
        batch: samples per step.
        weight_decay: of Adam.

    Returns:
        ``R`` networks in float64.
    """
    device, (replicates, samples) = points.device, labels.shape
    sizes = [points.shape[2], *widths]
    parameters = []
    for n, m in itertools.pairwise(sizes):
        for shape in ((replicates, n, m), (replicates, 1, m)):
            draw = torch.rand(*shape, generator=generator) * 2 - 1
            parameters.append((draw / n**0.5).to(device).requires_grad_())
    optimiser = torch.optim.Adam(parameters, lr=1e-3, weight_decay=weight_decay, fused=True)
    inputs = points.float()
    for _ in range(epochs):
        order = torch.randperm(samples, generator=generator).to(device)
        for index in order.split(batch):
            h = inputs[:, index]
            for k in range(0, len(parameters), 2):
                h = torch.baddbmm(parameters[k + 1], h.relu() if k else h, parameters[k])
            # The sum over replicates keeps them independent: Adam works entry by entry.
            loss = replicates * cross_entropy(h.flatten(0, 1), labels[:, index].flatten())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return [
        ReluNetwork.of_weights(
            [p[r].detach().T.double() for p in parameters[::2]],
            [p[r, 0].detach().double() for p in parameters[1::2]],
        )
        for r in range(replicates)
    ]


def train_convolutional(
    images: Tensor,
    labels: Tensor,
    channels: Sequence[int],
    dense: Sequence[int],
    generator: torch.Generator,
    kernel: int = 3,
    stride: int = 1,
    epochs: int = 10,
    batch: int = 256,
) -> ReluNetwork:
    """Train convolutions followed by dense layers by Adam in float32.

    Args:
        images: shape ``(N, channels, height, width)``.
        labels: shape ``(N,)``.
        channels: output channels of the convolutions.
        dense: widths of the dense layers, the number of classes last.
        generator: a CPU generator, for weights and batches.
        kernel: edge of the square filters; no padding.
        stride: of every convolution.
        epochs: passes through the data.
        batch: samples per step.

    Returns:
        The network in float64.
    """
    modules: list[nn.Module] = []
    c, height, width = images.shape[1:]
    for out in channels:
        modules += [nn.Conv2d(c, out, kernel, stride), nn.ReLU()]
        c, height, width = out, (height - kernel) // stride + 1, (width - kernel) // stride + 1
    modules.append(nn.Flatten())
    size = c * height * width
    for out in dense:
        modules += [nn.Linear(size, out), nn.ReLU()]
        size = out
    model = nn.Sequential(*modules[:-1])
    with torch.no_grad():
        for module in model:
            if isinstance(module, nn.Conv2d | nn.Linear):
                bound = module.weight[0].numel() ** -0.5
                for p in module.parameters():
                    p.copy_((torch.rand(p.shape, generator=generator) * 2 - 1) * bound)
    model.to(images.device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    inputs = images.float()
    for _ in range(epochs):
        order = torch.randperm(len(labels), generator=generator).to(images.device)
        for index in order.split(batch):
            loss = cross_entropy(model(inputs[index]), labels[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    in_shape = (images.shape[1], images.shape[2], images.shape[3])
    return ReluNetwork.of_sequential(model, in_shape).to(images.new_zeros(1, dtype=torch.float64))
