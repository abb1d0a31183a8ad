r"""Train diagonal linear networks at many learning rates and seeds at once.

Update of both factors from the same residual, with sample weights :math:`\omega_i` (one sample:
:math:`\omega=e_i`; full batch: :math:`\omega_i=1/n`):

.. math:: v=\sum_i\omega_i\,r_i\,x_i,\qquad a\leftarrow a-\eta\,v\odot b,\qquad b\leftarrow
          b-\eta\,v\odot a .
"""

from __future__ import annotations

import torch
from torch import Tensor

from descent.stability.diagonal_linear_network import diagonal_predict
from descent.stability.learning_rate_sweep import History, Sweep

__all__ = ["sweep_diagonal_gd", "sweep_diagonal_sgd", "sweep_diagonal_weighted"]


class _Runs:
    """State, loss record and checks shared by the three training loops."""

    def __init__(
        self, inputs: Tensor, targets: Tensor, a: Tensor, b: Tensor, rates: Tensor, every: int
    ):
        if inputs.ndim != 3 or targets.shape != inputs.shape[:2]:
            raise ValueError(
                "need inputs (S, n, d) and targets (S, n), "
                f"got {tuple(inputs.shape)} and {tuple(targets.shape)}"
            )
        if rates.ndim != 2 or rates.shape[0] not in (1, inputs.shape[0]):
            raise ValueError(
                f"learning rates must have shape (S, L) or (1, L), got {tuple(rates.shape)}"
            )
        shape = (inputs.shape[0], rates.shape[1], inputs.shape[2])
        self.inputs, self.targets, self.every = inputs, targets, every
        self.rates = rates.to(inputs).expand(shape[:2]).unsqueeze(-1).contiguous()
        self.a = a.unsqueeze(1).expand(shape).clone()
        self.b = b.unsqueeze(1).expand(shape).clone()
        self.history = History()
        self.record(0)

    def update(self, direction: Tensor) -> None:
        """Apply the step; ``direction`` already carries the learning rate, shape (S, L, d)."""
        change = direction * self.b
        self.b.addcmul_(direction, self.a, value=-1.0)
        self.a.sub_(change)

    def record(self, step: int) -> None:
        if step % self.every == 0:
            outputs = diagonal_predict(self.a, self.b, self.inputs.unsqueeze(1))
            loss = 0.5 * (outputs - self.targets.unsqueeze(1)).square().mean(-1)
            powers = self.inputs.square().mean(1, keepdim=True)
            trace = ((self.a.square() + self.b.square()) * powers).sum(-1)
            self.history.add(step, loss, trace)

    def result(self) -> Sweep:
        return self.history.sweep(self.a, self.b)


def sweep_diagonal_sgd(
    inputs: Tensor,
    targets: Tensor,
    a: Tensor,
    b: Tensor,
    learning_rates: Tensor,
    order: Tensor,
    record_every: int,
) -> Sweep:
    r"""Run single-sample SGD for every seed and learning rate.

    Args:
        inputs: shape ``(S, n, d)``.
        targets: shape ``(S, n)``.
        a: first factor at the start, shape ``(S, d)``, common to all learning rates.
        b: second factor at the start, shape ``(S, d)``.
        learning_rates: shape ``(1, L)``, or ``(S, L)`` where each seed has its own.
        order: sample of each step, shape ``(steps, S)``, from
            :func:`descent.stability.learning_rate_sweep.sample_order`.
        record_every: steps between two evaluations of the full loss.

    Returns:
        The trained factors and the loss history. Runs that overflow stay non-finite; they are not
        dropped.

    Raises:
        ValueError: if shapes disagree.
    """
    runs = _Runs(inputs, targets, a, b, learning_rates, record_every)
    if order.ndim != 2 or order.shape[1] != inputs.shape[0]:
        raise ValueError(
            f"order must have shape (steps, {inputs.shape[0]}), got {tuple(order.shape)}"
        )
    seeds = torch.arange(inputs.shape[0], device=inputs.device)
    for start in range(0, order.shape[0], 512):
        index = order[start : start + 512].to(inputs.device)
        samples = inputs[seeds, index].unsqueeze(-1).unbind(0)
        labels = targets[seeds, index][:, :, None, None].unbind(0)
        for offset, (x, y) in enumerate(zip(samples, labels, strict=True), start=1):
            residual = (runs.a * runs.b) @ x
            residual.sub_(y).mul_(runs.rates)
            runs.update(residual * x.mT)
            runs.record(start + offset)
    return runs.result()


def sweep_diagonal_weighted(
    inputs: Tensor,
    targets: Tensor,
    a: Tensor,
    b: Tensor,
    learning_rates: Tensor,
    weights: Tensor,
    record_every: int,
) -> Sweep:
    r"""Run mini-batch SGD given the weight of each sample in each step.

    Args:
        inputs: shape ``(S, n, d)``.
        targets: shape ``(S, n)``.
        a: first factor at the start, shape ``(S, d)``.
        b: second factor at the start, shape ``(S, d)``.
        learning_rates: shape ``(1, L)`` or ``(S, L)``.
        weights: shape ``(steps, S, n)``, rows summing to one, from
            :func:`descent.stability.learning_rate_sweep.uniform_batches`.
        record_every: steps between two evaluations of the full loss.

    Returns:
        The trained factors and the loss history.

    Raises:
        ValueError: if shapes disagree.
    """
    runs = _Runs(inputs, targets, a, b, learning_rates, record_every)
    if weights.ndim != 3 or weights.shape[1:] != targets.shape:
        raise ValueError(
            f"weights must have shape (steps, *{tuple(targets.shape)}), got {tuple(weights.shape)}"
        )
    transposed, labels = inputs.mT.contiguous(), targets.unsqueeze(1)
    for step, weight in enumerate(weights.to(inputs), start=1):
        residual = torch.baddbmm(labels, runs.a * runs.b, transposed, beta=-1.0)
        residual.mul_(weight.unsqueeze(1))
        runs.update((residual @ inputs).mul_(runs.rates))
        runs.record(step)
    return runs.result()


def sweep_diagonal_gd(
    inputs: Tensor,
    targets: Tensor,
    a: Tensor,
    b: Tensor,
    learning_rates: Tensor,
    steps: int,
    record_every: int,
) -> Sweep:
    r"""Run full-batch gradient descent: every sample has weight :math:`1/n` in every step.

    Args:
        inputs: shape ``(S, n, d)``.
        targets: shape ``(S, n)``.
        a: first factor at the start, shape ``(S, d)``.
        b: second factor at the start, shape ``(S, d)``.
        learning_rates: shape ``(1, L)`` or ``(S, L)``.
        steps: number of steps.
        record_every: steps between two evaluations of the loss.

    Returns:
        The trained factors and the loss history.

    Raises:
        ValueError: if shapes disagree or ``steps`` is less than 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    weights = torch.full_like(targets, 1.0 / targets.shape[-1]).expand(steps, *targets.shape)
    return sweep_diagonal_weighted(inputs, targets, a, b, learning_rates, weights, record_every)
