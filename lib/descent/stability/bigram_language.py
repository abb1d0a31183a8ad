r"""A bigram language with certain and uncertain contexts, and the table of logits that learns it.

Context j comes with frequency :math:`f_j` and is followed by token k with probability :math:`q_{jk}`. The model is one
row of logits :math:`W_j\in\mathbb R^V` per context, trained by SGD on the cross-entropy; :math:`p_j` is the softmax of
:math:`W_j`. The Hessian of row j is :math:`f_j(\operatorname{diag}p_j-p_jp_j^\top)`: zero once a deterministic context is
learned, :math:`f_j/V` in V - 1 directions for a uniform one.

Source: the pretraining model of Wen et al. (2024), section 4, which trains GPT-2 on such data; the table in place of
GPT-2, and the sizes, are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "BigramLanguage",
    "curvature_trace",
    "dirichlet_language",
    "entropies",
    "excess_losses",
    "gradient_noise_trace",
    "train_table",
    "two_class_language",
]


@dataclass(frozen=True)
class BigramLanguage:
    r"""Frequencies and next-token probabilities.

    Args:
        frequencies: :math:`f_j`, shape ``(J,)``, summing to 1.
        probabilities: :math:`q_{jk}`, shape ``(J, V)``, rows summing to 1.
        uncertain: which contexts count as uncertain, shape ``(J,)``, bool.

    Raises:
        ValueError: if the sums are not 1.
    """

    frequencies: Tensor
    probabilities: Tensor
    uncertain: Tensor

    def __post_init__(self) -> None:
        if abs(float(self.frequencies.sum()) - 1) > 1e-9:
            raise ValueError(f"frequencies must sum to 1, got {float(self.frequencies.sum())}")
        if float((self.probabilities.sum(1) - 1).abs().max()) > 1e-9:
            raise ValueError("every row of probabilities must sum to 1")

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Contexts and next tokens, two integer tensors of the given shape."""
        draws = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
        draws = draws.to(self.frequencies.device)
        cumulative = self.frequencies.cumsum(0)
        contexts = torch.searchsorted(cumulative, draws[0]).clamp_(max=len(cumulative) - 1)
        below = self.probabilities.cumsum(1)[contexts] < draws[1].unsqueeze(-1)
        return contexts, below.sum(-1).clamp_(max=self.probabilities.shape[1] - 1)


def two_class_language(
    deterministic: int, uncertain: int, vocabulary: int, generator: torch.Generator
) -> BigramLanguage:
    """Half of the tokens from deterministic contexts with a random target, half from uniform ones.

    Args:
        deterministic: number of deterministic contexts, equally frequent.
        uncertain: number of uniform contexts, equally frequent.
        vocabulary: V.
        generator: of the targets.
    """
    targets = torch.randint(vocabulary, (deterministic,), generator=generator)
    uniform = torch.full((uncertain, vocabulary), 1 / vocabulary, dtype=torch.float64)
    certain = torch.nn.functional.one_hot(targets, vocabulary).double()
    frequencies = torch.cat(
        [
            torch.full((count,), 0.5 / count, dtype=torch.float64)
            for count in (deterministic, uncertain)
        ]
    )
    probabilities = torch.cat([certain, uniform])
    is_uncertain = torch.arange(deterministic + uncertain) >= deterministic
    return BigramLanguage(frequencies, probabilities, is_uncertain)


def dirichlet_language(
    contexts: int, vocabulary: int, exponents: tuple[float, float], generator: torch.Generator
) -> BigramLanguage:
    r"""Equally frequent contexts whose rows are Dirichlet with concentration :math:`10^U`.

    Args:
        contexts: J.
        vocabulary: V.
        exponents: the interval of the uniform U; small values give peaked rows.
        generator: of U and of the rows.
    """
    low, high = exponents
    spread = torch.rand(contexts, 1, generator=generator, dtype=torch.float64)
    concentration = 10 ** (low + (high - low) * spread)
    gamma = torch._standard_gamma(concentration.expand(-1, vocabulary), generator=generator)
    probabilities = gamma.clamp_min(1e-300)
    probabilities /= probabilities.sum(1, keepdim=True)
    frequencies = torch.full((contexts,), 1 / contexts, dtype=torch.float64)
    return BigramLanguage(frequencies, probabilities, torch.ones(contexts, dtype=torch.bool))


def entropies(language: BigramLanguage) -> Tensor:
    """The entropy of every row in nats, shape ``(J,)``."""
    return torch.special.entr(language.probabilities).sum(1)


def excess_losses(logits: Tensor, language: BigramLanguage) -> tuple[Tensor, Tensor]:
    r"""Expected loss above the entropy, split into deterministic and uncertain contexts.

    .. math:: \sum_jf_j\Bigl(-\sum_kq_{jk}\log p_{jk}-H(q_j)\Bigr)

    over either class of contexts. Their sum is the total excess.

    Args:
        logits: shape ``(..., J, V)``.
        language: the truth.

    Returns:
        Two tensors of shape ``(...)``, in nats per token.
    """
    cross = torch.logsumexp(logits, -1) - (logits * language.probabilities).sum(-1)
    weighted = (cross - entropies(language)) * language.frequencies
    return (
        (weighted * ~language.uncertain).sum(-1),
        (weighted * language.uncertain).sum(-1),
    )


def curvature_trace(logits: Tensor) -> Tensor:
    r"""Trace :math:`\sum_kp_k(1-p_k)` of the Hessian of each row, not yet times the frequency; shape ``(..., J)``."""
    return 1 - torch.softmax(logits, -1).square().sum(-1)


def gradient_noise_trace(logits: Tensor, language: BigramLanguage) -> Tensor:
    r"""Trace of the covariance of the gradient of one sampled token, by rows, shape ``(..., J)``.

    .. math:: f_j\,\mathbb E_{y\sim q_j}\|p_j-e_y\|^2-f_j^2\|p_j-q_j\|^2 .
    """
    model, truth = torch.softmax(logits, -1), language.probabilities
    second = model.square().sum(-1) - 2 * (model * truth).sum(-1) + 1
    mean = (model - truth).square().sum(-1)
    return language.frequencies * second - language.frequencies**2 * mean


def train_table(
    language: BigramLanguage,
    rates: Tensor,
    batch: int,
    streams: Sequence[torch.Generator],
    record: Sequence[int],
    keep: Sequence[int] = (),
) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
    r"""SGD on the table, for several schedules and seeds side by side; schedules share the samples of a seed.

    A step changes the rows that occur in the batch by :math:`-\frac\eta b\sum(p_j-e_y)`.

    Args:
        language: the data.
        rates: shape ``(A, T)``, one schedule per arm.
        batch: b, tokens per step.
        streams: one generator per seed; S of them.
        record: numbers of steps done at which the expected losses are wanted.
        keep: numbers of steps done at which the table itself is wanted.

    Returns:
        Deterministic and uncertain excess, both of shape ``(A, S, len(record))``, and the tables kept,
        each of shape ``(A, S, J, V)``.
    """
    arms, steps = rates.shape
    seeds, (contexts, vocabulary) = len(streams), language.probabilities.shape
    samples = [language.sample((steps, batch), stream) for stream in streams]
    rows = torch.stack([s[0] for s in samples], 1)  # (T, S, b)
    tokens = torch.stack([s[1] for s in samples], 1)
    offset = torch.arange(arms * seeds, device=rows.device)[:, None] * contexts
    table = rates.new_zeros(arms * seeds * contexts, vocabulary)
    shape = (arms, seeds, contexts, vocabulary)
    scale = (rates / batch).repeat_interleave(seeds * batch, 0).T.unsqueeze(-1)  # (T, A·S·b, 1)
    wanted, kept = set(record), {}
    losses: dict[int, tuple[Tensor, Tensor]] = {}
    for t in range(steps + 1):
        if t in wanted:
            losses[t] = excess_losses(table.view(shape), language)
        if t in keep:
            kept[t] = table.view(shape).clone()
        if t == steps:
            break
        at = (rows[t].repeat(arms, 1) + offset).flatten()
        gradient = torch.softmax(table[at], -1)
        target = tokens[t].repeat(arms, 1).flatten()[:, None]
        gradient.scatter_add_(1, target, torch.full_like(target, -1.0, dtype=gradient.dtype))
        table.index_add_(0, at, gradient.mul_(scale[t]), alpha=-1.0)
    deterministic, uncertain = (torch.stack([losses[t][k] for t in record], -1) for k in (0, 1))
    return deterministic, uncertain, kept
