r"""Small bilevel problems with coupled constraints whose solutions are known.

Source: the merely convex problem is read in the authors' code (their "LLC" toy); its optimum and the scalar
problem are derived, not read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from descent.bilevel.problem import BilevelProblem

__all__ = ["CoupledScalar", "MerelyConvex"]


class CoupledScalar(BilevelProblem):
    r"""One variable at each level, and one inequality between them.

    .. math:: F=(x-a)^2+(y-b)^2,\quad f=\tfrac12(y-x)^2,\quad g=x+y-s\le0,

    so that :math:`y^*(x)=\min(x,s-x)` with the multiplier :math:`\max(0,2x-s)`.

    Args:
        a: a number or shape ``(batch, 1)``.
        b: a number or shape ``(batch, 1)``.
        s: a number.
    """

    def __init__(self, a: float | Tensor, b: float | Tensor, s: float = 2.0) -> None:
        self.a, self.b, self.s = a, b, s

    def upper(self, x: Tensor, y: Tensor) -> Tensor:
        return ((x - self.a) ** 2 + (y - self.b) ** 2).squeeze(-1)

    def lower(self, x: Tensor, y: Tensor) -> Tensor:
        return ((y - x) ** 2 / 2).squeeze(-1)

    def constraint(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y - self.s

    def upper_gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * (x - self.a), 2 * (y - self.b)

    def lower_gradient_x(self, x: Tensor, y: Tensor) -> Tensor:
        return x - y

    def lower_gradient_y(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x

    def constraint_product_x(self, x: Tensor, y: Tensor, multiplier: Tensor) -> Tensor:
        return multiplier

    def constraint_product_y(self, x: Tensor, y: Tensor, multiplier: Tensor) -> Tensor:
        return multiplier

    def project_joint(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        excess = (x + y - self.s).clamp(min=0) / 2
        return x - excess, y - excess

    def exact_saddle(
        self, x: Tensor, y: Tensor, z: Tensor, gamma1: float, gamma2: float, r: float
    ) -> tuple[Tensor, Tensor]:
        """Return the saddle point of the proximal Lagrangian in closed form.

        Args:
            x: shape ``(..., 1)``.
            y: shape ``(..., 1)``.
            z: shape ``(..., 1)``.
            gamma1: positive.
            gamma2: positive.
            r: bound of the multiplier.

        Returns:
            Two tensors of that shape.
        """
        curvature, pull = 1 + 1 / gamma1, x + y / gamma1
        free = (x - self.s + pull / curvature + z / gamma2) / (1 / curvature + 1 / gamma2)
        lam = self.project_multiplier(free, r)
        return (pull - lam) / curvature, lam

    def response(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lower level's solution and multiplier.

        Args:
            x: any shape.

        Returns:
            Two tensors of that shape.
        """
        return torch.minimum(x, self.s - x), (2 * x - self.s).clamp(min=0)

    def local_optima(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        r"""Return the best point of each branch, :math:`x\le s/2` and :math:`x\ge s/2`.

        Returns:
            Two tuples :math:`(x,y,\lambda,F)`; the global optimum is that of smaller :math:`F`.
        """
        a, b = (
            torch.as_tensor(self.a, dtype=torch.float64),
            torch.as_tensor(self.b, dtype=torch.float64),
        )
        half = self.s / 2
        found = []
        for x in (((a + b) / 2).clamp(max=half), ((a + self.s - b) / 2).clamp(min=half)):
            y, lam = self.response(x)
            found.append((x, y, lam, (x - a) ** 2 + (y - b) ** 2))
        return found

    def optimum(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        r"""Return the global optimum :math:`(x,y,\lambda,F)`.

        Returns:
            Tensors of the shape of ``a``.
        """
        left, right = self.local_optima()
        better = left[3] <= right[3]
        x, y, lam, value = (torch.where(better, u, v) for u, v in zip(left, right, strict=True))
        return x, y, lam, value


class MerelyConvex(BilevelProblem):
    r"""A lower level that is convex but not strongly, with many solutions.

    .. math::
        F=\tfrac{w_1}2\|x-y_2\|^2+\tfrac{w_2}2\|y_1-\mathbf 1\|^2,\quad
        f=\tfrac12\|y_1\|^2-x^\top y_1+\mathbf 1^\top y_2,\quad
        g=\kappa\,\mathbf 1^\top(x+y_1+y_2)=0 .

    The lower level fixes :math:`y_1=x+\mathbf 1` and the sum of :math:`y_2`, nothing more. The optimum is
    :math:`x^*=-\frac{3w_1}{9w_1+w_2}\mathbf 1,\ y_1^*=x^*+\mathbf 1,\ y_2^*=-(2x^*+\mathbf 1)`, with multiplier
    :math:`-1/\kappa`.

    Args:
        n: length of ``x``; ``y`` has ``2 n`` entries.
        upper_weight: :math:`w_1>0`, a number or shape ``(batch, 1)``.
        lower_weight: :math:`w_2>0`, likewise.
        scale: :math:`\kappa>0`, likewise.
    """

    equality = True

    def __init__(
        self,
        n: int,
        upper_weight: float | Tensor = 1.0,
        lower_weight: float | Tensor = 1.0,
        scale: float | Tensor = 1.0,
    ) -> None:
        self.n = n
        self.w1, self.w2, self.scale = upper_weight, lower_weight, scale

    def upper(self, x: Tensor, y: Tensor) -> Tensor:
        first, second = y[..., : self.n], y[..., self.n :]
        residuals = self.w1 * (x - second) ** 2 + self.w2 * (first - 1) ** 2
        return residuals.sum(-1) / 2

    def lower(self, x: Tensor, y: Tensor) -> Tensor:
        first, second = y[..., : self.n], y[..., self.n :]
        return (first**2 / 2 - x * first + second).sum(-1)

    def constraint(self, x: Tensor, y: Tensor) -> Tensor:
        return self.scale * (x.sum(-1, keepdim=True) + y.sum(-1, keepdim=True))

    def upper_gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        pull = self.w1 * (x - y[..., self.n :])
        return pull, torch.cat([self.w2 * (y[..., : self.n] - 1), -pull], -1)

    def lower_gradient_x(self, x: Tensor, y: Tensor) -> Tensor:
        return -y[..., : self.n]

    def lower_gradient_y(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([y[..., : self.n] - x, torch.ones_like(x)], -1)

    def constraint_product_x(self, x: Tensor, y: Tensor, multiplier: Tensor) -> Tensor:
        return self.scale * multiplier

    def constraint_product_y(self, x: Tensor, y: Tensor, multiplier: Tensor) -> Tensor:
        return self.scale * multiplier

    def project_joint(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        mean = (x.sum(-1, keepdim=True) + y.sum(-1, keepdim=True)) / (3 * self.n)
        return x - mean, y - mean

    def exact_saddle(
        self, x: Tensor, y: Tensor, z: Tensor, gamma1: float, gamma2: float, r: float
    ) -> tuple[Tensor, Tensor]:
        """Return the saddle point of the proximal Lagrangian in closed form.

        Args:
            x: shape ``(..., n)``.
            y: shape ``(..., 2 n)``.
            z: shape ``(..., 1)``.
            gamma1: positive.
            gamma2: positive.
            r: bound of the multiplier.

        Returns:
            Shapes of ``y`` and ``z``.
        """
        first, second, stiff = y[..., : self.n], y[..., self.n :], 1 + 1 / gamma1
        total = (x + (x + first / gamma1) / stiff + second - gamma1).sum(-1, keepdim=True)
        slope = 1 / gamma2 + self.scale**2 * self.n * (1 / stiff + gamma1)
        lam = self.project_multiplier((self.scale * total + z / gamma2) / slope, r)
        pull = self.scale * lam
        theta = [(x + first / gamma1 - pull) / stiff, second - gamma1 * (1 + pull)]
        return torch.cat(theta, -1), lam

    def optimal_x(self) -> float | Tensor:
        r"""Return the common entry of :math:`x^*`.

        Returns:
            A number or shape ``(batch, 1)``.
        """
        return -3 * self.w1 / (9 * self.w1 + self.w2)

    def lower_gap(self, x: Tensor, y: Tensor) -> Tensor:
        r"""Return :math:`f(x,y)-\min_\theta\{f(x,\theta):g(x,\theta)=0\}` for a feasible pair.

        Args:
            x: shape ``(..., n)``.
            y: shape ``(..., 2 n)``.

        Returns:
            Shape ``(...)``.
        """
        return self.lower(x, y) + ((x + 1) ** 2 / 2 + x).sum(-1)
