r"""Data splits, label noise and baselines for tuning a support vector machine example by example.

The data are scikit-learn's bundled breast-cancer measurements (569 patients, 30 features), scaled to
:math:`[-1,1]`; they stand in for the sets of the paper.

Source: Yao, Yu, Zeng and Zhang (ICLR 2024), experiments (protocol read in the authors' code).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.svm import LinearSVC
from torch import Tensor

from descent.bilevel.svm_tuning import SVMTuning

__all__ = ["SVMSplits", "draw_splits", "random_walk", "tuned_linear_svm", "uniform_cost_search"]

GRID = tuple(10.0**e for e in np.arange(-3, 3.1, 0.5))


@dataclass(frozen=True)
class SVMSplits:
    """A batch of splits of one data set.

    Attributes:
        features: training features, shape ``(B, N, d)``.
        labels: training labels, some of them flipped, shape ``(B, N)``.
        validation: shape ``(B, V, d)``.
        validation_labels: shape ``(B, V)``.
        test: all other examples, shape ``(B, T, d)``.
        test_labels: shape ``(B, T)``.
        flipped: which training labels were flipped, shape ``(B, N)``.
    """

    features: Tensor
    labels: Tensor
    validation: Tensor
    validation_labels: Tensor
    test: Tensor
    test_labels: Tensor
    flipped: Tensor

    @staticmethod
    def joined(batches: Sequence[SVMSplits]) -> SVMSplits:
        """Return several batches as one.

        Args:
            batches: of equal sizes of training, validation and test sets.

        Returns:
            Their concatenation along the first dimension.
        """
        names = [f.name for f in fields(SVMSplits)]
        return SVMSplits(*(torch.cat([getattr(b, n) for b in batches]) for n in names))

    def problem(self, low: float = -6.0, high: float = 2.0, scale: float = 1.0) -> SVMTuning:
        """Return the bilevel problem of these splits.

        Args:
            low: least cost (logarithm).
            high: largest cost.
            scale: see :class:`~descent.bilevel.svm_tuning.SVMTuning`.

        Returns:
            A batch of problems.
        """
        sets = (self.features, self.labels, self.validation, self.validation_labels)
        return SVMTuning(*sets, low=low, high=high, scale=scale)

    def test_accuracy(self, u: Tensor) -> Tensor:
        """Return the share of test examples on the right side.

        Args:
            u: weights and offset, shape ``(B, d+1)``.

        Returns:
            Shape ``(B,)``.
        """
        score = (self.test @ u[..., :-1, None]).squeeze(-1) + u[..., -1:]
        return (score.sign() == self.test_labels).double().mean(-1)


def draw_splits(
    generators: list[torch.Generator],
    train: int,
    validation: int = 150,
    flip: float = 0.0,
    device: torch.device | str = "cpu",
) -> SVMSplits:
    """Draw one split for each generator.

    Args:
        generators: sources of randomness, on the CPU.
        train: training examples.
        validation: validation examples.
        flip: share of the training labels that are flipped, in [0, 1).
        device: where the tensors go.

    Returns:
        The splits, in float64.

    Raises:
        ValueError: if nothing is left for the test, or for a share outside its range.
    """
    features, labels = load_breast_cancer(return_X_y=True)
    low, high = features.min(0), features.max(0)
    x = torch.tensor(2 * (features - low) / (high - low) - 1)
    t = torch.tensor(2.0 * labels - 1)
    if train + validation >= len(x):
        raise ValueError(f"{train} + {validation} examples leave no test set of {len(x)}")
    if not 0 <= flip < 1:
        raise ValueError(f"flip must be in [0, 1), got {flip}")
    parts: list[list[Tensor]] = []
    for generator in generators:
        order = torch.randperm(len(x), generator=generator)
        flipped = torch.zeros(train, dtype=torch.bool)
        flipped[torch.randperm(train, generator=generator)[: round(flip * train)]] = True
        first, second, rest = order.split([train, validation, len(x) - train - validation])
        noisy = torch.where(flipped, -t[first], t[first])
        parts.append([x[first], noisy, x[second], t[second], x[rest], t[rest], flipped])
    return SVMSplits(*(torch.stack(p).to(device) for p in zip(*parts, strict=True)))


def tuned_linear_svm(splits: SVMSplits) -> tuple[list[float], list[float]]:
    """Grid search of one common cost with scikit-learn: 13 values, chosen by validation accuracy.

    Args:
        splits: the data.

    Returns:
        Test accuracies and chosen costs, one for each split.
    """
    accuracies, chosen = [], []
    for sets in zip(
        *(
            t.cpu().numpy()
            for t in (
                splits.features,
                splits.labels,
                splits.validation,
                splits.validation_labels,
                splits.test,
                splits.test_labels,
            )
        ),
        strict=True,
    ):
        found = []
        for cost in GRID:
            machine = LinearSVC(C=cost, loss="squared_hinge", max_iter=100_000).fit(*sets[:2])
            found.append((machine.score(*sets[2:4]), -cost, machine.score(*sets[4:])))
        best = max(found)
        accuracies.append(float(best[2]))
        chosen.append(-best[1])
    return accuracies, chosen


def uniform_cost_search(problem: SVMTuning, count: int = 33) -> tuple[Tensor, Tensor]:
    """Grid search of one common cost by the upper objective itself.

    Args:
        problem: a batch of problems.
        count: values of the cost, evenly spaced over the box.

    Returns:
        The least upper objective and the cost that attains it, both of shape ``(B,)``.
    """
    grid = torch.linspace(problem.low, problem.high, count, dtype=problem.rows.dtype)
    shape = problem.rows.shape[:-1]
    losses = torch.stack(
        [
            problem.validation_loss(
                problem.solve_lower(torch.full(shape, float(c)).to(problem.rows))
            )
            for c in grid
        ]
    )
    best = losses.min(0)
    return best.values, grid.to(losses.device)[best.indices]


def random_walk(
    costs: Tensor, lengths: Tensor, low: float, high: float, generator: torch.Generator
) -> Tensor:
    """Walk in random directions with given step lengths, inside a box.

    Args:
        costs: start, shape ``(B, N)``.
        lengths: Euclidean length of each step, shape ``(K, B)``.
        low: least entry.
        high: largest entry.
        generator: source of randomness, on the CPU.

    Returns:
        The end of the walk, shape ``(B, N)``.
    """
    for length in lengths:
        direction = torch.randn(costs.shape, generator=generator, dtype=costs.dtype).to(costs)
        direction = direction / direction.norm(dim=-1, keepdim=True)
        costs = (costs + length.unsqueeze(-1) * direction).clamp(low, high)
    return costs
