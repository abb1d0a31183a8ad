r"""The loss along the straight segment between two checkpoints.

.. math:: \alpha\mapsto L\bigl((1-\alpha)\,\theta_A+\alpha\,\theta_B\bigr)

In a river valley the segment between two points of the stable phase crosses the valley: its interior lies lower than its
ends. Between two decayed points it follows the river and falls all the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["interior_dip", "interpolate_loss"]


def interpolate_loss(
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    alphas: Sequence[float],
    loss: Callable[[dict[str, Tensor]], Tensor],
) -> Tensor:
    """Evaluate a loss on the segment between two state dicts.

    Args:
        start: tensors by name, as of ``state_dict()``.
        end: the same names and shapes. Floating-point entries, running statistics included, are
            interpolated; integer ones (step counters) are taken from ``start``.
        alphas: places on the segment, 0 is ``start`` and 1 is ``end``.
        loss: of a state dict; a scalar, or a batch of any shape.

    Returns:
        Losses, shape ``(len(alphas), ...)``.

    Raises:
        ValueError: if names or shapes differ.
    """
    if start.keys() != end.keys():
        raise ValueError(f"only one of the two has {sorted(start.keys() ^ end.keys())}")
    for name in start:
        if start[name].shape != end[name].shape:
            raise ValueError(
                f"{name} has shapes {tuple(start[name].shape)} and {tuple(end[name].shape)}"
            )
    values = []
    for alpha in alphas:
        mixed = {
            name: torch.lerp(value, end[name], alpha) if value.is_floating_point() else value
            for name, value in start.items()
        }
        values.append(loss(mixed))
    return torch.stack(values)


def interior_dip(losses: Tensor) -> Tensor:
    """How far the lowest interior point lies below the lower end; negative where there is no interior minimum.

    Args:
        losses: shape ``(n, ...)``, at places in increasing order, n at least 3.
    """
    lower_end = torch.minimum(losses[0], losses[-1])
    return lower_end - losses[1:-1].amin(0)
