r"""What a learning-rate sweep returns, and the sample order that all its runs share.

All runs of a sweep live in one tensor with leading axes (seed, learning rate). Runs of one seed
visit the samples in the same order, so that two learning rates are compared pair by pair.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["History", "Sweep", "sample_order", "uniform_batches"]


@dataclass(frozen=True)
class Sweep:
    r"""End state and loss history of S seeds times L learning rates.

    Attributes:
        parameters: the trained tensors, each of shape ``(S, L, ...)``. Entries of diverged runs
            are not finite.
        steps: the recorded step numbers, shape ``(K,)``, first 0.
        loss: :math:`\frac1{2n}\sum_i(f(x_i)-y_i)^2` at those steps, shape ``(K, S, L)``; not
            finite once diverged.
        trace: :math:`\mathrm{Tr}\,G=\frac1n\sum_i\|\nabla_\theta f(x_i)\|^2` at those steps, shape
            ``(K, S, L)``.
    """

    parameters: tuple[Tensor, ...]
    steps: Tensor
    loss: Tensor
    trace: Tensor

    @property
    def final_loss(self) -> Tensor:
        """Loss after the last step, shape ``(S, L)``."""
        return self.loss[-1]

    @property
    def diverged(self) -> Tensor:
        """Whether the run ended in a non-finite state, shape ``(S, L)``."""
        states = [value.flatten(2).isfinite().all(-1) for value in self.parameters]
        return ~(torch.stack(states).all(0) & self.final_loss.isfinite())

    def converged(self, tolerance: float = 1e-8) -> Tensor:
        """Whether the final loss is below ``tolerance``, shape ``(S, L)``."""
        return self.final_loss < tolerance

    def peak_ratio(self, cap: float = 1e30) -> Tensor:
        """Largest recorded loss after the start over the loss at the start, shape ``(S, L)``; at
        most ``cap``."""
        later = torch.nan_to_num(self.loss[1:], nan=torch.inf).amax(0)
        return (later / self.loss[0]).clamp_max(cap)


@dataclass
class History:
    """Losses and traces gathered during a sweep.

    Attributes:
        steps: recorded step numbers.
        losses: loss at each, shape ``(S, L)``.
        traces: trace of the Gauss-Newton matrix at each, shape ``(S, L)``.
    """

    steps: list[int] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    traces: list[Tensor] = field(default_factory=list)

    def add(self, step: int, loss: Tensor, trace: Tensor) -> None:
        """Append one record."""
        self.steps.append(step)
        self.losses.append(loss)
        self.traces.append(trace)

    def sweep(self, *parameters: Tensor) -> Sweep:
        """Close the history with the trained parameters."""
        numbers = torch.tensor(self.steps)
        return Sweep(parameters, numbers, torch.stack(self.losses), torch.stack(self.traces))


def sample_order(n: int, steps: int, generators: list[torch.Generator]) -> Tensor:
    """Draw the sample visited at each step, uniformly with replacement.

    Args:
        n: number of samples.
        steps: number of steps.
        generators: one per seed, on the CPU.

    Returns:
        Integers in ``[0, n)``, shape ``(steps, S)``.

    Raises:
        ValueError: if there is no generator, no sample or no step.
    """
    if not generators or n < 1 or steps < 1:
        raise ValueError(
            f"need samples, steps and generators, got {n}, {steps} and {len(generators)}"
        )
    return torch.stack([torch.randint(n, (steps,), generator=g) for g in generators], dim=1)


def uniform_batches(n: int, steps: int, batch: int, generators: list[torch.Generator]) -> Tensor:
    r"""Draw batches uniformly with replacement, as the weight of each sample in each step.

    Args:
        n: number of samples.
        steps: number of steps.
        batch: batch size :math:`B\ge1`.
        generators: one per seed, on the CPU.

    Returns:
        Counts divided by :math:`B`, shape ``(steps, S, n)``; rows sum to one.

    Raises:
        ValueError: if a size is less than 1 or there is no generator.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    drawn = sample_order(n, steps * batch, generators).reshape(steps, batch, -1).movedim(1, 2)
    weights = torch.zeros(steps, len(generators), n, dtype=torch.float64)
    return weights.scatter_add_(2, drawn, torch.full(drawn.shape, 1.0 / batch, dtype=torch.float64))
