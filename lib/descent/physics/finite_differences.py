"""First differences on a uniform grid: central inside, one-sided at both ends.

Source: the official code of Chalapathi, Du and Krishnapriyan (ICLR 2024); a second derivative there is a first
difference applied twice, which spans five points.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["first_difference"]


def first_difference(values: Tensor, spacing: float, dim: int) -> Tensor:
    r"""Approximate the first derivative along one axis.

    .. math:: (u_{i+1}-u_{i-1})/2h\ \text{inside},\qquad (u_1-u_0)/h,\ (u_n-u_{n-1})/h\ \text{at the ends.}

    Args:
        values: any shape with at least three points along ``dim``.
        spacing: distance :math:`h>0` of neighbours.
        dim: the axis.

    Returns:
        A tensor of the same shape.

    Raises:
        ValueError: for fewer than three points or a spacing that is not positive.
    """
    count = values.shape[dim]
    if count < 3 or spacing <= 0:
        raise ValueError(
            f"a difference needs three points and a positive spacing, got {count}, {spacing}"
        )
    inside = (values.narrow(dim, 2, count - 2) - values.narrow(dim, 0, count - 2)) / (2 * spacing)
    first = (values.narrow(dim, 1, 1) - values.narrow(dim, 0, 1)) / spacing
    last = (values.narrow(dim, count - 1, 1) - values.narrow(dim, count - 2, 1)) / spacing
    return torch.cat((first, inside, last), dim)
