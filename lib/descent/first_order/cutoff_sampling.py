r"""Which layers move: distributions over cutoffs, and the one that is cheapest in theory.

Layers are counted from the input, 0 to :math:`b-1`. A cutoff :math:`s` drawn with probability
:math:`q_s` updates the suffix :math:`\{s,\dots,b-1\}`, so that backpropagation may stop at layer
:math:`s`; layer :math:`i` moves with probability :math:`p_i=\sum_{s\le i}q_s`, non-decreasing, with
:math:`p_{b-1}=1`.

Source: Gruntkowska et al. (arXiv 2510.02239), Randomised Progressive Training. The epoch-shift form is
that of an unofficial implementation. The optimal probabilities are derived in the chapter, from a cost
model that the paper's reviews describe; their form in the paper was not read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "CutoffSampler",
    "EpochShiftCutoff",
    "FixedCutoff",
    "OptimalCutoff",
    "UniformCutoff",
    "WeightedCutoff",
    "cost_to_accuracy",
    "rpt_optimal_probabilities",
    "subset_optimal_probabilities",
    "update_probabilities",
]


class CutoffSampler:
    """Base of the samplers: a distribution over cutoffs that may depend on the progress of training.

    One uniform number is used per draw (the distribution function is inverted), so that samplers fed by
    equal streams are coupled: their cutoffs differ only where their distributions do.

    Args:
        layers: number of layers :math:`b`.

    Raises:
        ValueError: if there is no layer.
    """

    def __init__(self, layers: int) -> None:
        if layers < 1:
            raise ValueError(f"there must be at least one layer, got {layers}")
        self.layers = layers

    def distribution(self, progress: float = 0.0) -> Tensor:
        """Return the probabilities of the cutoffs.

        Args:
            progress: share of the training that is done, from 0 to 1.

        Returns:
            Shape ``(layers,)``, float64, sum 1.
        """
        raise NotImplementedError

    def sample(self, generator: torch.Generator | None = None, progress: float = 0.0) -> int:
        """Draw one cutoff.

        Args:
            generator: source of randomness; the global one by default.
            progress: share of the training that is done.

        Returns:
            From 0 (all layers move) to ``layers - 1`` (only the last one does).
        """
        return int(self.sample_many(1, generator, progress)[0])

    def sample_many(
        self, count: int, generator: torch.Generator | None = None, progress: float = 0.0
    ) -> Tensor:
        """Draw independent cutoffs.

        Args:
            count: how many.
            generator: source of randomness; the global one by default.
            progress: share of the training that is done.

        Returns:
            Shape ``(count,)``, int64.
        """
        steps = self.distribution(progress).cumsum(0)
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        return torch.searchsorted(steps, uniform, right=True).clamp_max(self.layers - 1)


class FixedCutoff(CutoffSampler):
    """Always the same cutoff; 0 updates every layer, which is Muon.

    Args:
        layers: number of layers.
        cutoff: the first layer that moves.

    Raises:
        ValueError: if ``cutoff`` is not a layer.
    """

    def __init__(self, layers: int, cutoff: int = 0) -> None:
        super().__init__(layers)
        if not 0 <= cutoff < layers:
            raise ValueError(f"the cutoff must be from 0 to {layers - 1}, got {cutoff}")
        self.cutoff = cutoff

    def distribution(self, progress: float = 0.0) -> Tensor:
        """Return the unit mass at the cutoff."""
        mass = torch.zeros(self.layers, dtype=torch.float64)
        mass[self.cutoff] = 1
        return mass


class WeightedCutoff(CutoffSampler):
    """Cutoffs with given weights.

    Args:
        weights: one non-negative number per layer; normalised to sum 1.

    Raises:
        ValueError: for a negative weight, or if all are zero.
    """

    def __init__(self, weights: Sequence[float] | Tensor) -> None:
        values = torch.as_tensor(weights, dtype=torch.float64)
        super().__init__(len(values))
        if bool((values < 0).any()) or not float(values.sum()) > 0:
            raise ValueError(
                f"weights must be non-negative with a positive sum, got {values.tolist()}"
            )
        self.weights = values / values.sum()

    def distribution(self, progress: float = 0.0) -> Tensor:
        """Return the normalised weights."""
        return self.weights


class UniformCutoff(WeightedCutoff):
    r"""Every cutoff equally likely: :math:`q_s=1/b`, :math:`p_i=(i+1)/b`.

    Args:
        layers: number of layers.
    """

    def __init__(self, layers: int) -> None:
        super().__init__(torch.ones(layers))


class EpochShiftCutoff(CutoffSampler):
    r"""From early cutoffs (much is updated) to late ones as training goes on.

    .. math:: q_s\propto\exp\bigl(\alpha[(1-\rho)(b-1-s)+\rho s]\bigr),\qquad\rho=\text{progress}.

    Args:
        layers: number of layers.
        alpha: strength; 0 is uniform, a negative value shifts the other way.
    """

    def __init__(self, layers: int, alpha: float = 0.5) -> None:
        super().__init__(layers)
        self.alpha = alpha

    def distribution(self, progress: float = 0.0) -> Tensor:
        """Return the probabilities at this progress.

        Raises:
            ValueError: if ``progress`` is not in [0, 1].
        """
        if not 0 <= progress <= 1:
            raise ValueError(f"progress must be from 0 to 1, got {progress}")
        cutoff = torch.arange(self.layers, dtype=torch.float64)
        exponent = (1 - progress) * (self.layers - 1 - cutoff) + progress * cutoff
        return torch.softmax(self.alpha * exponent, 0)


class OptimalCutoff(WeightedCutoff):
    """The cutoffs whose update probabilities are :func:`rpt_optimal_probabilities`.

    Args:
        smoothness: positive constants of the layers, from the input on.
    """

    def __init__(self, smoothness: Sequence[float] | Tensor) -> None:
        probabilities = rpt_optimal_probabilities(smoothness)
        super().__init__(torch.diff(probabilities, prepend=probabilities.new_zeros(1)))


def update_probabilities(cutoffs: Tensor) -> Tensor:
    r"""Return :math:`p_i=\sum_{s\le i}q_s`, the probability that each layer moves.

    Args:
        cutoffs: distribution of the cutoff, shape ``(..., b)``.

    Returns:
        Shape ``(..., b)``, non-decreasing, last entry 1.
    """
    return cutoffs.cumsum(-1)


def _positive(smoothness: Sequence[float] | Tensor) -> Tensor:
    constants = torch.as_tensor(smoothness, dtype=torch.float64)
    if not bool((constants > 0).all()):
        raise ValueError(f"smoothness constants must be positive, got {constants.tolist()}")
    return constants


def rpt_optimal_probabilities(smoothness: Sequence[float] | Tensor) -> Tensor:
    r"""Return :math:`p_i=\max_{j\le i}L_j/\max_jL_j`, the cheapest update probabilities of suffixes.

    They minimise :func:`cost_to_accuracy` over all non-decreasing :math:`p` that end in 1, whatever the
    costs of the layers.

    Args:
        smoothness: positive constants :math:`L_i`, shape ``(..., b)``.

    Returns:
        Shape ``(..., b)``, float64.

    Raises:
        ValueError: for a constant that is not positive.
    """
    running = _positive(smoothness).cummax(-1).values
    return running / running[..., -1:]


def subset_optimal_probabilities(smoothness: Sequence[float] | Tensor) -> Tensor:
    r"""Return :math:`p_i=L_i/\max_jL_j`, the optimum if any subset could be updated at its own cost.

    Backpropagation does not allow that: the gradient of a layer needs the layers after it.

    Args:
        smoothness: positive constants :math:`L_i`, shape ``(..., b)``.

    Returns:
        Shape ``(..., b)``, float64.

    Raises:
        ValueError: for a constant that is not positive.
    """
    constants = _positive(smoothness)
    return constants / constants.amax(-1, keepdim=True)


def cost_to_accuracy(
    probabilities: Tensor,
    smoothness: Sequence[float] | Tensor,
    layer_costs: Sequence[float] | Tensor,
    forward_cost: float = 0.0,
) -> Tensor:
    r"""Return the cost of a fixed accuracy, :math:`\max_i\frac{L_i}{p_i}\cdot\bigl(c_f+\sum_ic_ip_i\bigr)`.

    The first factor is the number of steps up to a constant, the second the expected cost of a step.

    Args:
        probabilities: update probabilities :math:`p_i`, shape ``(..., b)``.
        smoothness: constants :math:`L_i`, broadcast with them.
        layer_costs: cost :math:`c_i` of updating each layer, broadcast with them.
        forward_cost: :math:`c_f\ge0`, paid in every step.

    Returns:
        Shape ``(...)``.
    """
    constants = torch.as_tensor(smoothness, dtype=torch.float64)
    costs = torch.as_tensor(layer_costs, dtype=torch.float64)
    steps = (constants / probabilities).amax(-1)
    return steps * (forward_cost + (costs * probabilities).sum(-1))
