"""What a radius costs: the forward-mode pass against one backward pass per class, in counted work.

Source: Sao (arXiv 2603.13552), abstract and overhead table; the reverse-mode arm is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from descent.operation_counter import OperationCounter

__all__ = ["Work", "central_difference_slopes", "count_work", "reverse_mode_slopes"]


class Work(NamedTuple):
    """Evaluations of the model, multiply-adds in matrix products."""

    evaluations: int
    multiply_adds: int


def count_work(model: nn.Module, call: Callable[[], Any]) -> Work:
    """Count what a call does.

    Args:
        model: its evaluations are counted.
        call: anything that evaluates the model.

    Returns:
        The counts.
    """
    evaluations = 0

    def seen(*_: Any) -> None:
        nonlocal evaluations
        evaluations += 1

    handle = model.register_forward_hook(seen)
    try:
        with OperationCounter() as counter:
            call()
    finally:
        handle.remove()
    return Work(evaluations, counter.multiply_adds)


def reverse_mode_slopes(
    model: nn.Module, inputs: Tensor, direction: Mapping[str, Tensor]
) -> Tensor:
    """Return the slopes of all logits from per-sample gradients, one evaluation and backward pass per class.

    Args:
        model: maps ``(samples, ...)`` to ``(samples, n)``.
        inputs: shape ``(samples, ...)``.
        direction: by parameter name.

    Returns:
        Shape ``(samples, n)``.
    """
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    with torch.no_grad():
        classes = functional_call(model, parameters, (inputs[:1],)).shape[-1]
    columns = []
    for k in range(classes):

        def logit(values: dict[str, Tensor], x: Tensor, k: int = k) -> Tensor:
            return functional_call(model, values, (x[None],))[0, k]

        rows = vmap(grad(logit), in_dims=(None, 0))(parameters, inputs)
        columns.append(sum((rows[n] * direction[n]).flatten(1).sum(1) for n in parameters))
    return torch.stack(columns, -1)


@torch.no_grad()
def central_difference_slopes(
    model: nn.Module, inputs: Tensor, direction: Mapping[str, Tensor], step: float = 1e-3
) -> Tensor:
    """Return the slopes by central differences, two evaluations.

    Args:
        model: in the mode in which it is to be evaluated.
        inputs: shape ``(samples, ...)``.
        direction: by parameter name.
        step: half the distance of the two points.

    Returns:
        Shape ``(samples, n)``.
    """
    ends = []
    for sign in (1, -1):
        point = {n: p + sign * step * direction[n] for n, p in model.named_parameters()}
        ends.append(functional_call(model, point, (inputs,)))
    return (ends[0] - ends[1]) / (2 * step)
