"""Small classifiers of 8 x 8 digits, the architectures on which step radii are measured.

Inputs are 64 grey values; outputs 10 logits. GELU is the exact one (erf), which has no complex
singularity; where a ReLU stands the published script has it, and the logits are not analytic.

Source: Sao (arXiv 2603.13552), Figures 1, 6, 7, 9 and 10 and Table 1; shapes of the last three from the
published scripts, those of the first six fixed here, since no script for them was published.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = [
    "ARCHITECTURES",
    "PatchCNN",
    "RowTransformer",
    "TokenTransformer",
    "build",
    "mini_batches",
    "stratified_split",
]


def _gelu_mlp(*widths: int, norm: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers.append(nn.Linear(inputs, outputs))
        if norm:
            layers.append(nn.LayerNorm(outputs))
        layers.append(nn.GELU())
    return nn.Sequential(*layers[: -2 if norm else -1])


def _image_cnn(norm: bool) -> nn.Sequential:
    def maybe_norm() -> list[nn.Module]:
        return [nn.BatchNorm2d(16)] if norm else []

    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1),
        *maybe_norm(),
        nn.GELU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1),
        *maybe_norm(),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def _line_cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (1, 64)),
        nn.Conv1d(1, 32, 3, padding=1),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Conv1d(32, 32, 3, padding=1),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


class PatchCNN(nn.Module):
    """Two convolutions (4 x 4 stride 2 to 8 channels, 2 x 2 stride 2 to 16) on 14 x 14 images.

    Convolutions are written as unfolding and a matrix product, which stacked copies share well.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Linear(16, 8), nn.Linear(32, 16)
        self.head = nn.Linear(144, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(samples, 196)`` to ``(samples, 10)``."""
        patches = x.unflatten(-1, (14, 14)).unfold(-2, 4, 2).unfold(-2, 4, 2).flatten(-2)
        maps = nn.functional.gelu(self.conv1(patches))  # (samples, 6, 6, 8)
        tiles = maps.unflatten(-3, (3, 2)).unflatten(-2, (3, 2)).transpose(-4, -3).flatten(-3)
        return self.head(nn.functional.gelu(self.conv2(tiles)).flatten(-3))


class _Block(nn.Module):
    """A pre-norm transformer block with ``heads`` heads and a GELU network of the given width."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.ffn1, self.ffn2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(-2, -3)
            for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        attention = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        x = x + self.out((attention @ v).transpose(-2, -3).flatten(-2))
        return x + self.ffn2(nn.functional.gelu(self.ffn1(self.norm2(x))))


class RowTransformer(nn.Module):
    """One block over the 8 rows of the image as tokens, mean-pooled; width 32, 4 heads."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(8, 32), nn.Parameter(0.02 * torch.randn(8, 32))
        self.block, self.norm = _Block(32, 4, 64), nn.LayerNorm(32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(samples, 64)`` to ``(samples, 10)``."""
        tokens = self.embed(x.unflatten(-1, (8, 8))) + self.place
        return self.head(self.norm(self.block(tokens)).mean(-2))


class TokenTransformer(nn.Module):
    """The published "transformer" of Table 1: the whole image is one token, so attention is idle."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block, self.head = nn.Linear(64, 32), _Block(32, 1, 128), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(samples, 64)`` to ``(samples, 10)``."""
        return self.head(self.block(self.embed(x).unsqueeze(-2)).squeeze(-2))


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "Linear": lambda: nn.Sequential(nn.Linear(64, 10)),
    "MLP": lambda: _gelu_mlp(64, 128, 10),
    "MLP+LN": lambda: _gelu_mlp(64, 128, 128, 10, norm=True),
    "CNN": lambda: _image_cnn(norm=False),
    "CNN+BN": lambda: _image_cnn(norm=True),
    "Transformer": RowTransformer,
    "deep MLP": lambda: _gelu_mlp(64, 128, 128, 10),
    "ReLU MLP": lambda: nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)),
    "narrow MLP+LN": lambda: _gelu_mlp(64, 64, 64, 64, 10, norm=True),
    "one-token transformer": TokenTransformer,
    "Conv1d+BN": _line_cnn,
    "patch CNN": PatchCNN,
}


def build(name: str, generator: torch.Generator, device: torch.device | str = "cpu") -> nn.Module:
    """Return a freshly initialised network, with torch's default initialisation.

    Args:
        name: a key of ``ARCHITECTURES``.
        generator: source of the seed; torch's global state is left as it was.
        device: where the parameters live.

    Returns:
        A module in float32.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {name!r}; there are {', '.join(ARCHITECTURES)}")
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ARCHITECTURES[name]().to(device)


def stratified_split(
    labels: Tensor, generator: torch.Generator, test_fraction: float = 0.2
) -> tuple[Tensor, Tensor]:
    """Return indices of a training and a test set with the same share of every class.

    Args:
        labels: classes, shape ``(samples,)``.
        generator: source of the permutations.
        test_fraction: in (0, 1); rounded per class, so that sizes do not depend on the draw.

    Returns:
        Two index tensors on the device of the labels, shuffled.

    Raises:
        ValueError: for a fraction outside (0, 1).
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must be in (0, 1), got {test_fraction}")
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for label in labels.unique().tolist():
        members = (labels == label).nonzero()[:, 0].cpu()
        members = members[torch.randperm(len(members), generator=generator)]
        test = round(test_fraction * len(members))
        parts[0].append(members[test:])
        parts[1].append(members[:test])
    train, test_set = torch.cat(parts[0]), torch.cat(parts[1])
    train = train[torch.randperm(len(train), generator=generator)]
    return train.to(labels.device), test_set.to(labels.device)


def mini_batches(samples: int, steps: int, batch: int, generator: torch.Generator) -> Tensor:
    """Return index batches that run through the data in a fresh order per epoch.

    Args:
        samples: size of the training set.
        steps: number of batches.
        batch: size of each; the tail of an epoch that does not fill one is dropped.
        generator: source of the permutations.

    Returns:
        Shape ``(steps, batch)``.

    Raises:
        ValueError: if a batch is larger than the training set.
    """
    if batch > samples:
        raise ValueError(f"batch must be at most the {samples} samples, got {batch}")
    per_epoch = samples // batch
    epochs = -(-steps // per_epoch)
    orders = [
        torch.randperm(samples, generator=generator)[: per_epoch * batch] for _ in range(epochs)
    ]
    return torch.cat(orders).reshape(-1, batch)[:steps]
