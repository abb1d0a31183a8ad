r"""A small supervised problem for zero-order training: regularised logistic regression, batched over splits.

.. math:: L(w)=\frac1n\sum_i\log\bigl(1+e^{-y_i\,w^\top z_i}\bigr)+\frac\mu2\|w\|^2,\qquad y_i=\pm1 .
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["LogisticProblem", "whitened_halves"]


@dataclass(frozen=True)
class LogisticProblem:
    """Training and test halves of several splits.

    Attributes:
        train_inputs: shape ``(S, n, d)``.
        train_labels: plus or minus one, shape ``(S, n)``.
        test_inputs: shape ``(S, m, d)``.
        test_labels: shape ``(S, m)``.
        penalty: :math:`\\mu`.
    """

    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    penalty: float

    def loss(self, weights: Tensor) -> Tensor:
        """Training loss of weights ``(S, N, d)``, one for each, shape ``(S, N)``."""
        margins = self.train_labels.unsqueeze(-2) * (weights @ self.train_inputs.mT)
        return softplus(-margins).mean(-1) + self.penalty / 2 * weights.square().sum(-1)

    def gradient(self, weights: Tensor) -> Tensor:
        """Gradient of the training loss at weights ``(S, d)``, shape ``(S, d)``."""
        margins = self.train_labels * (self.train_inputs @ weights.unsqueeze(-1)).squeeze(-1)
        pull = -self.train_labels * torch.sigmoid(-margins) / margins.shape[-1]
        return (pull.unsqueeze(-2) @ self.train_inputs).squeeze(-2) + self.penalty * weights

    def accuracy(self, weights: Tensor) -> Tensor:
        """Test accuracy of weights ``(S, d)``, shape ``(S,)``."""
        scores = (self.test_inputs @ weights.unsqueeze(-1)).squeeze(-1)
        return (scores * self.test_labels > 0).to(weights.dtype).mean(-1)


def whitened_halves(
    inputs: Tensor,
    labels: Tensor,
    *,
    splits: int,
    components: int,
    penalty: float,
    generator: torch.Generator,
) -> LogisticProblem:
    """Split data in halves, and project both on the training half's whitened principal components.

    Args:
        inputs: shape ``(n, p)``.
        labels: 0 or 1, shape ``(n,)``.
        splits: number of random splits.
        components: principal components kept, at most ``p``; a constant input is appended.
        penalty: factor of the ridge penalty.
        generator: random stream on the CPU.

    Returns:
        The problem with ``d = components + 1``.

    Raises:
        ValueError: for more components than inputs have.
    """
    if components > inputs.shape[1]:
        raise ValueError(f"components must be at most {inputs.shape[1]}, got {components}")
    signs = labels.to(inputs.dtype) * 2 - 1
    half = len(inputs) // 2
    parts: list[list[Tensor]] = [[], [], [], []]
    for _ in range(splits):
        order = torch.randperm(len(inputs), generator=generator).to(inputs.device)
        train, test = order[:half], order[half:]
        mean, scale = inputs[train].mean(0), inputs[train].std(0)
        standard = (inputs - mean) / scale
        _, sizes, basis = torch.linalg.svd(standard[train], full_matrices=False)
        whitened = standard @ basis[:components].T / sizes[:components] * (half - 1) ** 0.5
        design = torch.cat([whitened, torch.ones_like(whitened[:, :1])], 1)
        for part, rows in zip(
            parts, (design[train], signs[train], design[test], signs[test]), strict=True
        ):
            part.append(rows)
    stacked = [torch.stack(part) for part in parts]
    return LogisticProblem(stacked[0], stacked[1], stacked[2], stacked[3], penalty)
