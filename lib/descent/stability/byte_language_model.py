r"""A small causal transformer over bytes, many independently initialised copies at once.

Parameters carry a leading dimension of C copies (seeds, learning-rate schedules), and every linear map is one batched
matrix product, so that ten small models train in little more than the time of one. Each block is

.. math:: x\leftarrow x+\mathrm{Attention}(\mathrm{rms}(x)),\qquad x\leftarrow x+W_2\,\mathrm{relu}(W_1\,\mathrm{rms}(x)).

Source: the standard decoder; its size is ours. Wen et al. (2024) train LLaMA-type models of 0.1 to 1.2 billion
parameters.
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from descent.adam import AdamDirection

__all__ = [
    "BatchedAdamW",
    "DecoderShape",
    "decoder_logits",
    "initial_decoder",
    "read_bytes",
    "token_losses",
]

Parameters = dict[str, Tensor]


def read_bytes(path: Path) -> tuple[Tensor, int]:
    """A text file, ``.xz`` or plain, as numbers of its distinct bytes.

    Args:
        path: the file.

    Returns:
        The text as int64 in 0, …, V - 1, and V, the number of distinct bytes.
    """
    raw = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    content = torch.frombuffer(bytearray(raw), dtype=torch.uint8).long()
    distinct = torch.bincount(content, minlength=256) > 0
    return (distinct.cumsum(0) - 1)[content], int(distinct.sum())


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of the transformer.

    Args:
        vocabulary: V.
        context: T, the longest sequence.
        width: d, divisible by ``heads``.
        layers: number of blocks.
        heads: attention heads.

    Raises:
        ValueError: if the heads do not divide the width.
    """

    vocabulary: int
    context: int = 32
    width: int = 32
    layers: int = 1
    heads: int = 2

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide the width {self.width}")

    def parameter_count(self) -> int:
        """Numbers in one copy."""
        return self.width * (2 * self.vocabulary + self.context + 12 * self.layers * self.width)


def initial_decoder(shape: DecoderShape, generators: list[torch.Generator]) -> Parameters:
    """Initial float32 parameters, one copy per generator; the output layer starts at zero (loss log V)."""
    d = shape.width
    sizes = {"embedding": (shape.vocabulary, d), "position": (shape.context, d)}
    for layer in range(shape.layers):
        sizes |= {
            f"{layer}.qkv": (d, 3 * d),
            f"{layer}.out": (d, d),
            f"{layer}.up": (d, 4 * d),
            f"{layer}.down": (4 * d, d),
        }
    parameters = {
        name: torch.stack([torch.randn(*size, generator=g) * size[0] ** -0.5 for g in generators])
        for name, size in sizes.items()
    }
    parameters["embedding"] *= shape.vocabulary**0.5 * 0.5
    parameters["position"] *= shape.context**0.5 * 0.1
    parameters["head"] = torch.zeros(len(generators), d, shape.vocabulary)
    return parameters


def _rms(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)


def decoder_logits(parameters: Mapping[str, Tensor], tokens: Tensor, heads: int = 2) -> Tensor:
    """Next-token logits.

    Args:
        parameters: of C copies.
        tokens: shape ``(C, N, T)``.
        heads: attention heads.

    Returns:
        Shape ``(C, N, T, V)``.
    """
    copies, count, length = tokens.shape
    embedding = parameters["embedding"]
    vocabulary, width = embedding.shape[1:]
    shift = torch.arange(copies, device=tokens.device)[:, None, None] * vocabulary
    x = F.embedding(tokens + shift, embedding.reshape(-1, width))
    x = (x + parameters["position"][:, None, :length]).reshape(copies, count * length, width)
    layer = 0
    while f"{layer}.qkv" in parameters:
        mixed = torch.bmm(_rms(x), parameters[f"{layer}.qkv"])
        parts = mixed.view(copies * count, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        attended = attended.transpose(1, 2).reshape(copies, count * length, width)
        x = x + torch.bmm(attended, parameters[f"{layer}.out"])
        hidden = F.relu(torch.bmm(_rms(x), parameters[f"{layer}.up"]))
        x = x + torch.bmm(hidden, parameters[f"{layer}.down"])
        layer += 1
    return torch.bmm(_rms(x), parameters["head"]).view(copies, count, length, vocabulary)


def token_losses(parameters: Mapping[str, Tensor], windows: Tensor, heads: int = 2) -> Tensor:
    """Cross-entropy of every token after the first.

    Args:
        parameters: of C copies.
        windows: pieces of text, shape ``(C, N, T + 1)``.
        heads: attention heads.

    Returns:
        Nats, shape ``(C, N, T)``.
    """
    logits = decoder_logits(parameters, windows[..., :-1], heads)
    flat = F.cross_entropy(logits.flatten(0, 2), windows[..., 1:].flatten(), reduction="none")
    return flat.view(logits.shape[:-1])


class BatchedAdamW:
    r"""AdamW on parameters with a leading dimension of copies, each copy with its own learning rate.

    Equal to ``torch.optim.AdamW`` on every copy.

    Args:
        parameters: shape ``(C, ...)`` each; changed in place.
        betas: decay of the first and second moments.
        eps: added to the root of the second moment.
        weight_decay: relative to the learning rate.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ) -> None:
        self.parameters = dict(parameters)
        self.weight_decay, self.direction = weight_decay, AdamDirection(betas, eps)

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], rates: Tensor) -> None:
        """One update.

        Args:
            gradients: by name.
            rates: learning rates, shape ``(C,)``.
        """
        for name, direction in self.direction(gradients).items():
            parameter = self.parameters[name]
            rate = rates.view(-1, *[1] * (parameter.ndim - 1)).to(parameter)
            parameter.mul_(1 - rate * self.weight_decay).sub_(direction.mul_(rate))

    def select(self, rows: Tensor) -> None:
        """Go on with some of the copies, repeated or left out as ``rows`` says, moments included.

        Args:
            rows: indices of copies.
        """
        self.parameters = {k: p.detach()[rows] for k, p in self.parameters.items()}
        self.direction.select(rows)
