"""Activations of real and complex membranes, with their slopes.

Source: Laborieux and Zenke (ICLR 2024) and the authors' code for the shifted sigmoid and ``dsilu``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ACTIVATIONS", "Activation"]


@dataclass(frozen=True)
class Activation:
    """A scalar function and its derivative, both of the membrane; complex arguments are allowed.

    Attributes:
        function: activity of the membrane.
        slope: derivative of ``function``.
        holomorphic: whether it is complex-differentiable where it is used.
    """

    function: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    holomorphic: bool = True


def _shifted(u: Tensor) -> Tensor:
    return torch.sigmoid(torch.add(u.new_full((), -2.0), u, alpha=4))


def _shifted_slope(u: Tensor) -> Tensor:
    r = _shifted(u)
    return 4 * r * (1 - r)


def _dsilu(u: Tensor) -> Tensor:
    return u / 2 * torch.sigmoid(u) + (1 - u / 2) * torch.sigmoid(u - 2)


def _dsilu_slope(u: Tensor) -> Tensor:
    low, high = torch.sigmoid(u), torch.sigmoid(u - 2)
    return (low - high) / 2 + u / 2 * low * (1 - low) + (1 - u / 2) * high * (1 - high)


def _relu_slope(u: Tensor) -> Tensor:
    return (u.real > 0).to(u.dtype)


ACTIVATIONS = {
    "shifted sigmoid": Activation(_shifted, _shifted_slope),
    "dsilu": Activation(_dsilu, _dsilu_slope),
    "tanh": Activation(torch.tanh, lambda u: 1 - torch.tanh(u) ** 2),
    "relu": Activation(lambda u: u * _relu_slope(u), _relu_slope, holomorphic=False),
}
r"""The paper's :math:`1/(1+e^{2-4u})` and its smooth hard sigmoid, and two for comparison; a name gives each."""
