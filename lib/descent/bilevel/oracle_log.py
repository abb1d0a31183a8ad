r"""What a bilevel method asks of its problem: gradients, Jacobian products, projections, second derivatives.

Source: not in the paper.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from descent.bilevel.problem import BilevelProblem

__all__ = ["FactorisationCounter", "OracleLog"]


class _SecondProbe(torch.autograd.Function):
    """Identity on a gradient; being differentiated is what it counts."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, counts: Counter[str]) -> Tensor:
        ctx.counts = counts
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        ctx.counts["second_derivatives"] += 1
        return gradients[0], None


class _FirstProbe(_SecondProbe):
    """Identity on a variable whose gradient passes through :class:`_SecondProbe`."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _SecondProbe.apply(gradients[0], ctx.counts), None


class OracleLog(BilevelProblem):
    """A problem that counts calls; all its derivatives come from autograd through ``problem``'s functions.

    Attributes:
        counts: calls by name: ``upper_gradient``, ``lower_gradient_x``, ``lower_gradient_y``, ``constraint``,
            ``constraint_product_x``, ``constraint_product_y``, ``project_lower``, ``project_joint``,
            ``project_multiplier``, and ``second_derivatives`` (backward passes through a gradient).

    Args:
        problem: the problem to wrap.
    """

    def __init__(self, problem: BilevelProblem) -> None:
        self.problem, self.equality = problem, problem.equality
        self.counts: Counter[str] = Counter()
        self._inside = False

    def upper(self, x: Tensor, y: Tensor) -> Tensor:
        return self.problem.upper(x, y)

    def lower(self, x: Tensor, y: Tensor) -> Tensor:
        probes = (_FirstProbe.apply(t, self.counts) if t.requires_grad else t for t in (x, y))
        return self.problem.lower(*probes)

    def constraint(self, x: Tensor, y: Tensor) -> Tensor:
        self.counts["constraint"] += not self._inside
        return self.problem.constraint(x, y)

    def project_joint(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self.counts["project_joint"] += 1
        return self.problem.project_joint(x, y)

    def project_lower(self, y: Tensor) -> Tensor:
        self.counts["project_lower"] += 1
        return self.problem.project_lower(y)

    def project_multiplier(self, z: Tensor, r: Tensor | float) -> Tensor:
        self.counts["project_multiplier"] += 1
        return self.problem.project_multiplier(z, r)

    def upper_gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self.counts["upper_gradient"] += 1
        return super().upper_gradient(x, y)

    def lower_gradient_x(self, x: Tensor, y: Tensor) -> Tensor:
        self.counts["lower_gradient_x"] += 1
        return super().lower_gradient_x(x, y)

    def lower_gradient_y(self, x: Tensor, y: Tensor) -> Tensor:
        self.counts["lower_gradient_y"] += 1
        return super().lower_gradient_y(x, y)

    def constraint_product_x(self, x: Tensor, y: Tensor, multiplier: Tensor) -> Tensor:
        return self._product("constraint_product_x", x, y, multiplier)

    def constraint_product_y(self, x: Tensor, y: Tensor, multiplier: Tensor) -> Tensor:
        return self._product("constraint_product_y", x, y, multiplier)

    def _product(self, name: str, x: Tensor, y: Tensor, multiplier: Tensor) -> Tensor:
        self.counts[name] += 1
        self._inside = True
        try:
            result: Tensor = getattr(super(), name)(x, y, multiplier)
        finally:
            self._inside = False
        return result


class FactorisationCounter(TorchDispatchMode):
    """Context manager that counts factorisations, inverses and linear solves that torch dispatches.

    Attributes:
        count: how many ran inside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.count += any(
            k in name for k in ("linalg_", "cholesky", "inverse", "pinverse", "svd", "lu_")
        )
        return func(*args, **(kwargs or {}))
