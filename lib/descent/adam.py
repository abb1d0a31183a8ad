r"""Adam's direction as a function of the gradient, for parameters that live in plain tensors.

``torch.optim`` updates parameters that own their gradients, with one learning rate for a group. Methods here train
many copies of a network as one batch, change the update before it is applied, or use a learning rate for each copy.

Source: Kingma and Ba, Adam (ICLR 2015), Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["AdamDirection"]


class AdamDirection:
    r"""Adam's direction :math:`\hat m/(\sqrt{\hat v}+\epsilon)` before any learning rate.

    Args:
        betas: decay of the first and second moment.
        eps: added to the root of the second.
    """

    def __init__(self, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.betas, self.eps, self.steps = betas, eps, 0
        self.first: dict[str, Tensor] = {}
        self.second: dict[str, Tensor] = {}

    def __call__(self, gradient: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Update the moments and return the direction.

        Args:
            gradient: by name of the parameter; names and shapes are those of the first call.

        Returns:
            New tensors of the same names and shapes.
        """
        self.steps += 1
        (b1, b2), result = self.betas, {}
        for name, g in gradient.items():
            m = self.first.setdefault(name, torch.zeros_like(g)).lerp_(g, 1 - b1)
            v = self.second.setdefault(name, torch.zeros_like(g)).mul_(b2)
            v.addcmul_(g, g, value=1 - b2)
            root = (v / (1 - b2**self.steps)).sqrt_().add_(self.eps)
            result[name] = m / (1 - b1**self.steps) / root
        return result

    def select(self, rows: Tensor) -> None:
        """Go on with some of the copies that the leading dimension counts, repeated or left out.

        Args:
            rows: indices of copies.
        """
        self.first = {k: m[rows] for k, m in self.first.items()}
        self.second = {k: v[rows] for k, v in self.second.items()}
