"""The experiments of the chapter on complex singularities: lines through a trained network, and spiked training.

Source: Sao (arXiv 2603.13552), Figures 1 and 6 to 10; protocols from the text and the published scripts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from descent.adam import AdamDirection
from descent.stability.network_copies import (
    NetworkCopies,
    State,
    accuracies,
    cross_entropies,
    flat_norms,
    scaled,
)
from descent.stability.partition_zeros import has_zero_inside, nearest_zero
from descent.stability.step_limiters import (
    Limiter,
    Proposal,
    clip_gradients,
    no_limit,
    normalized_lengths,
)
from descent.stability.step_radius import logit_spread, radius_bound

__all__ = [
    "Responses",
    "SpikedRun",
    "descent_direction",
    "exact_radius_of_set",
    "linear_loss_ratios",
    "onset",
    "random_directions",
    "responses_along",
    "spiked_training",
    "temperature_onsets",
    "train_by_rates",
]


def descent_direction(
    copies: NetworkCopies, inputs: Tensor, labels: Tensor, temperature: Tensor | float = 1.0
) -> State:
    """Return the unit vector against the full-batch gradient of each copy.

    Args:
        copies: the networks.
        inputs: shape ``(copies, samples, ...)``.
        labels: shape ``(copies, samples)``.
        temperature: divides the logits; a number or one per copy.
    """
    gradient, _ = copies.gradients(inputs, labels, temperature)
    return scaled(gradient, -1 / flat_norms(gradient))


def random_directions(copies: NetworkCopies, generator: torch.Generator) -> State:
    """Return one uniformly distributed unit vector per copy.

    Args:
        copies: the networks.
        generator: source of the normal numbers, on the CPU.
    """
    draw = {
        name: torch.randn(p.shape, generator=generator).to(p)
        for name, p in copies.parameters.items()
    }
    return scaled(draw, 1 / flat_norms(draw))


class Responses(NamedTuple):
    """Along a line: loss over the loss at its start, and accuracy; both ``(points, copies)``."""

    loss_ratio: Tensor
    accuracy: Tensor | None


@torch.no_grad()
def responses_along(
    copies: NetworkCopies,
    direction: State,
    lengths: Tensor,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor] | None = None,
    temperature: Tensor | float = 1.0,
) -> Responses:
    """Evaluate training loss and test accuracy at points of a line, in eval mode.

    Args:
        copies: the networks; not changed.
        direction: tensors ``(copies, ...)`` by name.
        lengths: distances from the start, shape ``(points, copies)``.
        train: inputs and labels for the loss.
        test: inputs and labels for the accuracy, if wanted.
        temperature: divides the logits in the loss; a number or one per copy.

    Returns:
        Loss ratios and accuracies; a loss that overflows is infinite.
    """
    start = {name: p.detach() for name, p in copies.parameters.items()}
    base = cross_entropies(copies.logits(train[0], start), train[1], temperature)
    ratios, right = [], []
    for length in lengths:
        move = scaled(direction, length)
        point = {name: p + move[name] for name, p in start.items()}
        loss = cross_entropies(copies.logits(train[0], point), train[1], temperature)
        ratios.append(loss / base)
        if test is not None:
            right.append(accuracies(copies.logits(test[0], point), test[1]))
    return Responses(torch.stack(ratios).double(), torch.stack(right) if right else None)


def linear_loss_ratios(logits: Tensor, slopes: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
    """Return the loss over its start along lines with linear logits; exact for linear classifiers.

    Args:
        logits: shape ``(copies, samples, n)``.
        slopes: shape ``(copies, samples, n)``.
        lengths: shape ``(points, copies)``.
        labels: shape ``(copies, samples)``.

    Returns:
        Float64, shape ``(points, copies)``.
    """
    base = cross_entropies(logits, labels)
    losses = [cross_entropies(logits + t[:, None, None] * slopes, labels) for t in lengths]
    return (torch.stack(losses) / base).double()


def temperature_onsets(
    copies: NetworkCopies, temperatures: Tensor, train: tuple[Tensor, Tensor], grid: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Return where the loss at temperature T doubles along descent: as a length, and over the bound.

    The slopes are those of :math:`z/T`; the bound is :math:`\pi/\Delta` of them.

    Args:
        copies: the networks, one per temperature and replicate.
        temperatures: shape ``(copies,)``.
        train: inputs and labels.
        grid: normalised lengths to try, increasing, ``(points,)``.

    Returns:
        Raw and scaled onset, ``(copies,)``; infinite if beyond the grid.
    """
    direction = descent_direction(copies, *train, temperatures)
    slopes = copies.logits_and_slopes(train[0], direction, temperatures)[1]
    bound = radius_bound(slopes)
    lengths = grid[:, None] * bound
    ratio = responses_along(copies, direction, lengths, train, None, temperatures).loss_ratio
    r = onset(grid, ratio, 2.0)
    return r * bound, r


def exact_radius_of_set(logits: Tensor, slopes: Tensor) -> Tensor:
    r"""Return :math:`\min_x\rho^*(x)`, looking for zeros only where the bound leaves room.

    The 16 samples with the least bound :math:`\pi/\Delta_a(x)\le\rho^*(x)` give a first radius; of the
    others only those with a zero inside it (by the argument principle) are solved.

    Args:
        logits: shape ``(samples, n)``.
        slopes: shape ``(samples, n)``, not all equal for any sample.

    Returns:
        A float64 scalar.
    """
    bound = torch.pi / logit_spread(slopes.double())
    order = bound.argsort()
    best = nearest_zero(logits[order[:16]], slopes[order[:16]]).abs().min()
    for some in order[16:].split(256):
        some = some[bound[some] < best]
        if not len(some):
            break
        inside = has_zero_inside(logits[some], slopes[some], best.expand(len(some)))
        if bool(inside.any()):
            found = nearest_zero(logits[some[inside]], slopes[some[inside]]).abs()
            best = torch.minimum(best, found.min())
    return best


def onset(grid: Tensor, values: Tensor, threshold: float) -> Tensor:
    """Return where each column first reaches the threshold, interpolated on logarithmic axes.

    Args:
        grid: increasing positive numbers, ``(points,)`` or ``(points, columns)``.
        values: positive numbers, ``(points, columns)``.
        threshold: positive.

    Returns:
        Shape ``(columns,)``; infinite where it is never reached, the first point where it is reached at once.
    """
    grid = (grid if grid.ndim == 2 else grid[:, None]).double().expand(values.shape)
    above = values >= threshold
    first = above.int().argmax(0)
    before = (first - 1).clamp(min=0)

    def pick(table: Tensor, index: Tensor) -> Tensor:
        return table.gather(0, index[None])[0]

    low, high = pick(values, before).log(), pick(values, first).log()
    part = (torch.log(torch.tensor(threshold, dtype=torch.float64)).to(low) - low) / (high - low)
    part = torch.where(first == 0, torch.ones_like(part), part.nan_to_num(1.0))
    x0, x1 = pick(grid, before).log(), pick(grid, first).log()
    return torch.where(above.any(0), (x0 + part * (x1 - x0)).exp(), torch.inf)


def train_by_rates(
    copies: NetworkCopies,
    inputs: Tensor,
    labels: Tensor,
    batches: Tensor,
    learning_rates: Tensor,
    targets: Tensor,
    constant: Tensor,
    momentum: float = 0.9,
    radius_samples: int = 64,
    after_step: Callable[[int], None] | None = None,
) -> Tensor:
    r"""Train with momentum SGD; copies with a target take steps of that normalised length instead.

    With the velocity :math:`u\leftarrow\mu u+g` a copy of target :math:`r` moves by
    :math:`-r\rho_a(u/\|u\|)\,u/\|u\|`, radius over the first samples of its mini-batch.

    Args:
        copies: the networks; trained in place.
        inputs: shared by all copies, ``(samples, ...)``.
        labels: shape ``(samples,)``.
        batches: indices ``(copies, steps, batch)``.
        learning_rates: shape ``(copies,)``, used where there is no target.
        targets: normalised step lengths, shape ``(copies,)``; 0 for none.
        constant: booleans ``(copies,)``: the radius measured at the first step is kept for good.
        momentum: of SGD.
        radius_samples: samples of the mini-batch over which the radius is taken.
        after_step: called with the number of steps taken.

    Returns:
        The normalised lengths taken, ``(steps, copies)``; of copies without a target only
        at every 25th step, otherwise NaN.
    """
    velocity: State = {name: torch.zeros_like(p) for name, p in copies.parameters.items()}
    with_target = (targets > 0).nonzero()[:, 0].tolist()
    first: Tensor | None = None
    lengths = []
    for step in range(batches.shape[1]):
        index = batches[:, step]
        gradient, _ = copies.gradients(inputs[index], labels[index], training=True)
        velocity = {name: momentum * u + gradient[name] for name, u in velocity.items()}
        norms = flat_norms(velocity)
        chosen = range(len(copies)) if step % 25 == 0 else with_target
        rows = list(chosen)
        some = copies.select(rows)
        unit = {name: (scaled(velocity, 1 / norms)[name])[rows] for name in velocity}
        r_of_unit = normalized_lengths(some, inputs[index[rows, :radius_samples]], unit)
        per_unit = torch.full_like(norms, torch.nan)
        per_unit[rows] = r_of_unit
        first = per_unit.clone() if first is None else first
        used = torch.where(constant, first, per_unit)
        rate = torch.where(targets > 0, targets / (used * norms), learning_rates)
        lengths.append(per_unit * norms * rate)
        copies.add(scaled(velocity, -rate))
        if after_step is not None:
            after_step(step + 1)
    return torch.stack(lengths)


class SpikedRun(NamedTuple):
    """What a run leaves behind: mini-batch ``losses`` before each step, ``factors`` by which the limiter shortened
    the updates and ``lengths`` (Euclidean norms) of the proposed ones, all ``(steps, copies)``, and the test
    ``accuracy`` after each of the numbers of steps in ``accuracy_steps``."""

    losses: Tensor
    factors: Tensor
    lengths: Tensor
    accuracy: Tensor
    accuracy_steps: list[int]


def spiked_training(
    copies: NetworkCopies,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    learning_rates: Tensor,
    batches: Tensor | None = None,
    limiter: Limiter = no_limit,
    max_gradient_norm: float | Tensor | None = None,
    evaluate_every: int = 10,
    also_evaluate: tuple[int, ...] = (),
    radius_on_batch: bool = False,
    reference: Tensor | None = None,
) -> SpikedRun:
    """Train with Adam under a schedule of learning rates, every update passed through a limiter.

    The limiter shortens what is applied; Adam's moments see the gradients as they are (clipped if asked).

    Args:
        copies: the networks; trained in place.
        train: inputs ``(copies, samples, ...)`` and labels.
        test: the same for the accuracy.
        learning_rates: shape ``(steps, copies)``.
        batches: indices ``(copies, steps, batch)``; the full batch if ``None``.
        limiter: see :mod:`descent.stability.step_limiters`.
        max_gradient_norm: clip gradients before Adam sees them; a number, or one per copy.
        evaluate_every: period of the accuracy; the last step is always evaluated.
        also_evaluate: further numbers of steps after which to evaluate.
        radius_on_batch: hand the mini-batch to the limiter as its reference.
        reference: otherwise hand it these inputs ``(copies, ...)``; the training set if ``None``.

    Returns:
        The record of the run.
    """
    inputs, labels = train
    rows = torch.arange(len(copies), device=inputs.device)[:, None]
    adam = AdamDirection()
    losses, factors, lengths, accuracy, seen = [], [], [], [], []
    steps = len(learning_rates)
    for step, rate in enumerate(learning_rates):
        index = None if batches is None else batches[:, step]
        x = inputs if index is None else inputs[rows, index]
        y = labels if index is None else labels[rows, index]
        gradient, loss = copies.gradients(x, y, training=True)
        if max_gradient_norm is not None:
            gradient = clip_gradients(gradient, max_gradient_norm)
        update = scaled(adam(gradient), -rate)
        seen_by = x if radius_on_batch else inputs if reference is None else reference
        factor = limiter(Proposal(copies, seen_by, x, y, loss, gradient, update, rate))
        lengths.append(flat_norms(update))
        copies.add(scaled(update, factor))
        losses.append(loss)
        factors.append(factor)
        done = step + 1
        if done % evaluate_every == 0 or done == steps or done in also_evaluate:
            with torch.no_grad():
                accuracy.append(accuracies(copies.logits(test[0]), test[1]))
            seen.append(done)
    return SpikedRun(
        torch.stack(losses), torch.stack(factors), torch.stack(lengths), torch.stack(accuracy), seen
    )
