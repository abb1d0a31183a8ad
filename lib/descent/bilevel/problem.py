r"""Bilevel problems with coupled constraints, as the methods of this part see them.

.. math:: \min_{x\in X,\,y\in Y}F(x,y)\quad\text{s.t.}\quad y\in\arg\min_{\theta\in Y}\{f(x,\theta):g(x,\theta)\le0\}.

Tensors carry the variables in their last dimension; leading dimensions are a batch of independent problems.
A problem says what :math:`F,f,g` are and how to project; its gradients come from autograd, or from
closed forms where a subclass gives them.

Source: Yao, Yu, Zeng and Zhang (ICLR 2024), problem statement.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["BilevelProblem"]


class BilevelProblem:
    r"""Base class: override ``upper``, ``lower``, ``constraint`` and ``project_joint``.

    Attributes:
        equality: whether the constraint is :math:`g=0`, so that multipliers lie in :math:`[-r,r]^q`
            instead of :math:`[0,r]^q`.
    """

    equality = False

    def upper(self, x: Tensor, y: Tensor) -> Tensor:
        """Return :math:`F(x,y)`.

        Args:
            x: shape ``(..., n)``.
            y: shape ``(..., m)``.

        Returns:
            Shape ``(...)``.
        """
        raise NotImplementedError

    def lower(self, x: Tensor, y: Tensor) -> Tensor:
        """Return :math:`f(x,y)`, shape ``(...)``.

        Args:
            x: shape ``(..., n)``.
            y: shape ``(..., m)``.

        Returns:
            Shape ``(...)``.
        """
        raise NotImplementedError

    def constraint(self, x: Tensor, y: Tensor) -> Tensor:
        """Return :math:`g(x,y)`.

        Args:
            x: shape ``(..., n)``.
            y: shape ``(..., m)``.

        Returns:
            Shape ``(..., q)``.
        """
        raise NotImplementedError

    def project_joint(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return the Euclidean projection on :math:`C=\{(x,y)\in X\times Y:g(x,y)\le0\}`.

        Args:
            x: shape ``(..., n)``.
            y: shape ``(..., m)``.

        Returns:
            The pair projected jointly.
        """
        raise NotImplementedError

    def project_lower(self, y: Tensor) -> Tensor:
        """Return the projection on :math:`Y`; the whole space unless overridden.

        Args:
            y: shape ``(..., m)``.

        Returns:
            Shape ``(..., m)``.
        """
        return y

    def project_multiplier(self, z: Tensor, r: Tensor | float) -> Tensor:
        r"""Return the projection on :math:`Z`, the box of multipliers.

        Args:
            z: shape ``(..., q)``.
            r: bound, a number or broadcastable to ``z``.

        Returns:
            Shape ``(..., q)``.
        """
        if isinstance(r, Tensor):
            low = -r if self.equality else torch.zeros_like(r)
            return torch.minimum(torch.maximum(z, low), r)
        return z.clamp(-r if self.equality else 0.0, r)

    def upper_gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return both parts of the gradient of :math:`F`.

        Args:
            x: shape ``(..., n)``.
            y: shape ``(..., m)``.

        Returns:
            Shapes of ``x`` and ``y``.
        """
        return _gradient(self.upper, x, y, 0), _gradient(self.upper, x, y, 1)

    def lower_gradient_x(self, x: Tensor, y: Tensor) -> Tensor:
        r"""Return :math:`\nabla_xf`.

        Args:
            x: shape ``(..., n)``.
            y: shape ``(..., m)``.

        Returns:
            Shape of ``x``.
        """
        return _gradient(self.lower, x, y, 0)

    def lower_gradient_y(self, x: Tensor, y: Tensor) -> Tensor:
        r"""Return :math:`\nabla_yf`.

        Args:
            x: shape ``(..., n)``.
            y: shape ``(..., m)``.

        Returns:
            Shape of ``y``.
        """
        return _gradient(self.lower, x, y, 1)

    def constraint_product_x(self, x: Tensor, y: Tensor, multiplier: Tensor) -> Tensor:
        r"""Return :math:`J_xg(x,y)^\top\lambda`.

        Args:
            x: shape ``(..., n)``.
            y: shape ``(..., m)``.
            multiplier: shape ``(..., q)``.

        Returns:
            Shape of ``x``.
        """
        return _gradient(self._weighted(multiplier), x, y, 0)

    def constraint_product_y(self, x: Tensor, y: Tensor, multiplier: Tensor) -> Tensor:
        r"""Return :math:`J_yg(x,y)^\top\lambda`.

        Args:
            x: shape ``(..., n)``.
            y: shape ``(..., m)``.
            multiplier: shape ``(..., q)``.

        Returns:
            Shape of ``y``.
        """
        return _gradient(self._weighted(multiplier), x, y, 1)

    def _weighted(self, multiplier: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, y: (self.constraint(x, y) * multiplier).sum(-1)


def _gradient(
    function: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, index: int
) -> Tensor:
    with torch.enable_grad():
        pair = [x.detach(), y.detach()]
        pair[index] = leaf = pair[index].clone().requires_grad_(True)
        value = function(*pair).sum()
        if not value.requires_grad:
            return torch.zeros_like(leaf)
        (gradient,) = torch.autograd.grad(value, leaf, allow_unused=True)
    return torch.zeros_like(leaf) if gradient is None else gradient
