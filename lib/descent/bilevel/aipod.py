r"""A reconstruction of alternating implicit projected descent for equality-constrained lower levels.

For :math:`y^*(x)=\arg\min\{f(x,y):Ay+Bx=e\}` with :math:`P=I-A^+A` and :math:`H=\nabla^2_{yy}f`,

.. math::
    \nabla F(x,y^*(x))=\nabla_xF-B^\top A^{+\top}\nabla_yF-(\nabla^2_{xy}f-B^\top A^{+\top}H)\,v,\qquad
    v=(PHP)^+P\nabla_yF .

An outer iteration takes some projected gradient steps in ``y``, forms :math:`v` by a Neumann series of
Hessian-vector products or by a pseudo-inverse, and takes a step in ``x``.

Source: reconstructed from the abstract of Xiao, Shen, Yin and Chen (AISTATS 2023) and the implicit function
theorem; derived, not read. The variants with lazy projections are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from descent.bilevel.problem import BilevelProblem

__all__ = ["AiPOD"]


class AiPOD:
    r"""Alternating implicit projected descent.

    Args:
        problem: gives ``upper`` and ``lower`` as functions that autograd can differentiate twice.
        lower_rows: :math:`A`, shape ``(q, m)``.
        upper_rows: :math:`B`, shape ``(q, n)``.
        upper_rate: step of ``x``, a number or shape ``(batch, 1)``.
        lower_rate: step of ``y``, likewise.
        inner_steps: projected steps in ``y`` for each step in ``x``.
        neumann_terms: terms of the series, or ``None`` for the pseudo-inverse of :math:`PHP` (then without batch).
        neumann_rate: :math:`\eta` of the series :math:`\eta\sum_i(I-\eta PHP)^i`, at most one over the largest
            eigenvalue of :math:`H`.
        right_side: :math:`e`, shape ``(q,)``; zero unless given.

    Raises:
        ValueError: for counts below one.
    """

    def __init__(
        self,
        problem: BilevelProblem,
        lower_rows: Tensor,
        upper_rows: Tensor,
        *,
        upper_rate: Tensor | float,
        lower_rate: Tensor | float,
        inner_steps: int = 5,
        neumann_terms: int | None = 10,
        neumann_rate: float = 1.0,
        right_side: Tensor | None = None,
    ) -> None:
        if inner_steps < 1 or (neumann_terms is not None and neumann_terms < 1):
            raise ValueError(
                f"inner_steps and neumann_terms must be at least 1, got {inner_steps} and {neumann_terms}"
            )
        self.problem, self.lower_rows, self.upper_rows = problem, lower_rows, upper_rows
        self.upper_rate, self.lower_rate = upper_rate, lower_rate
        self.inner_steps, self.neumann_terms = inner_steps, neumann_terms
        self.neumann_rate = neumann_rate
        self.pseudo = torch.linalg.pinv(lower_rows)
        self.right_side = (
            lower_rows.new_zeros(len(lower_rows)) if right_side is None else right_side
        )

    def feasible(self, x: Tensor, y: Tensor) -> Tensor:
        r"""Return the projection of ``y`` on :math:`\{Ay=e-Bx\}`.

        Args:
            x: shape ``(..., n)``.
            y: shape ``(..., m)``.

        Returns:
            Shape ``(..., m)``.
        """
        excess = y @ self.lower_rows.T + x @ self.upper_rows.T - self.right_side
        return y - excess @ self.pseudo.T

    def tangent(self, vector: Tensor) -> Tensor:
        """Return :math:`Pv`.

        Args:
            vector: shape ``(..., m)``.

        Returns:
            Shape ``(..., m)``.
        """
        return vector - (vector @ self.lower_rows.T) @ self.pseudo.T

    def hypergradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the implicit gradient at ``y`` in place of the lower solution.

        Args:
            x: shape ``(..., n)``.
            y: shape ``(..., m)``.

        Returns:
            Shape ``(..., n)``.
        """
        upper_x, upper_y = self.problem.upper_gradient(x, y)
        with torch.enable_grad():
            x_leaf, y_leaf = x.detach().requires_grad_(True), y.detach().requires_grad_(True)
            value = self.problem.lower(x_leaf, y_leaf).sum()
            (slope,) = torch.autograd.grad(value, y_leaf, create_graph=True)

        def product(vector: Tensor, leaves: list[Tensor]) -> tuple[Tensor, ...]:
            return torch.autograd.grad(
                slope, leaves, vector, retain_graph=True, materialize_grads=True
            )

        vector = self._solve(lambda v: product(v, [y_leaf])[0], self.tangent(upper_y))
        in_x, in_y = product(vector, [x_leaf, y_leaf])
        return upper_x - in_x - ((upper_y - in_y) @ self.pseudo) @ self.upper_rows

    def _solve(self, product, right: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        if self.neumann_terms is None:
            unit = torch.eye(right.shape[-1]).to(right)
            columns = [self.tangent(product(self.tangent(u).expand_as(right))) for u in unit]
            reduced = torch.stack([c.reshape(-1) for c in columns], -1)
            return (torch.linalg.pinv(reduced) @ right.reshape(-1)).reshape(right.shape)
        term = total = right
        for _ in range(self.neumann_terms - 1):
            term = term - self.neumann_rate * self.tangent(product(term))
            total = total + term
        return self.neumann_rate * total

    def step(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """One outer iteration.

        Args:
            x: shape ``(..., n)``.
            y: shape ``(..., m)``.

        Returns:
            The new pair.
        """
        for _ in range(self.inner_steps):
            y = self.feasible(x, y - self.lower_rate * self.problem.lower_gradient_y(x, y))
        x = x - self.upper_rate * self.hypergradient(x, y)
        return x, y
