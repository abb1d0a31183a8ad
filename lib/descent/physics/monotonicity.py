r"""Certificates that a network's score is monotone in one feature, from bounds of the Jacobian.

The box leaves one feature free and fixes the others. If the derivative in that feature is at least 0 on all of it
the score is increasing, if at most 0 decreasing.

Source: the application of Shi et al. (NeurIPS 2022), from their code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from descent.physics.jacobian_bounds import jacobian_bounds
from descent.physics.local_lipschitz import box_states
from descent.physics.relu_network import ReluNetwork

__all__ = ["DECREASING", "INCREASING", "UNKNOWN", "certify", "derivative_bounds", "feature_boxes"]

DECREASING, UNKNOWN, INCREASING = -1, 0, 1


def feature_boxes(points: Tensor, low: float = 0.0, high: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return for each point and feature the box in which only that feature is free.

    Args:
        points: shape ``(S, d)``.
        low: the least value of a feature.
        high: the largest.

    Returns:
        Lower and upper corners, shape ``(S, d, d)``: point, free feature, coordinate.
    """
    d = points.shape[1]
    free = torch.eye(d, dtype=torch.bool, device=points.device)
    wide = points[:, None, :].expand(-1, d, -1)
    return torch.where(free, low, wide), torch.where(free, high, wide)


def derivative_bounds(
    network: ReluNetwork,
    points: Tensor,
    output_weights: Tensor,
    methods: Sequence[str] = ("linear",),
) -> list[tuple[Tensor, Tensor]]:
    """Bound the derivative of a score in each feature while that feature runs from 0 to 1.

    Args:
        network: the network.
        points: shape ``(S, d)``, features in [0, 1].
        output_weights: the score as a combination of outputs, shape ``(out_size,)``.
        methods: relaxations, see :func:`descent.physics.jacobian_bounds.jacobian_bounds`.

    Returns:
        Of each method, lower and upper bounds of shape ``(S, d)``: point, feature.
    """
    count, d = points.shape
    lower, upper = (side.reshape(count * d, d) for side in feature_boxes(points))
    states = box_states(network, lower, upper)
    pairs = []
    for method in methods:
        found = jacobian_bounds(network, states, output_weights[None], method)
        low, high = (
            side[:, 0].reshape(count, d, d).diagonal(dim1=1, dim2=2)
            for side in (found.lower, found.upper)
        )
        pairs.append((low, high))
    return pairs


def certify(low: Tensor, high: Tensor) -> Tensor:
    """Turn bounds of a derivative into certificates.

    Args:
        low: lower bounds, any shape.
        high: upper bounds, same shape.

    Returns:
        ``int8``: 1 increasing, -1 decreasing, 0 unknown. A derivative that is exactly 0 counts as increasing.
    """
    verdict = torch.zeros(low.shape, dtype=torch.int8, device=low.device)
    verdict[high <= 0] = DECREASING
    verdict[low >= 0] = INCREASING
    return verdict
