r"""A layer whose output satisfies a differential equation as well as a set of basis functions allows.

A network gives bases :math:`b` on a grid. For every expert the layer finds the weights

.. math:: w^*=\arg\min_w\tfrac12\|r(w,b)\|^2,\qquad r=(\text{equation at sampled points, initial and boundary rows, ridge}),

and returns :math:`u=b\cdot w^*` on the points of that expert. It differentiates through the solver by the implicit
function theorem, applied to the condition of stationarity :math:`g(w,b)=J^\top r=0`:

.. math:: \frac{dw^*}{db}=-H^{-1}\frac{\partial g}{\partial b},\qquad H=J^\top J+\sum_ir_i\nabla^2r_i .

Source: Chalapathi, Du and Krishnapriyan (ICLR 2024), Section 3, Appendix A. Its Equation 5 differentiates
:math:`r=0` instead, which is exact only where the residual vanishes; the stationarity form is what the solver library
of the official code uses. Both are here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from descent.physics.domain_router import DomainRouter
from descent.physics.levenberg_marquardt import LMResult, levenberg_marquardt

__all__ = [
    "MODES",
    "Constrained",
    "ConstraintProblem",
    "HardConstraint",
    "PointwiseEquation",
    "implicit_weights",
]

MODES = ("stationarity", "gauss_newton", "detached")


class PointwiseEquation(Protocol):
    """An equation whose residual at a point is a function of a few numbers linear in the solution."""

    @property
    def channels(self) -> int:
        """How many numbers."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the grid, time first."""
        ...

    def operators(self, field: Tensor) -> Tensor:
        """Apply the linear operators to bases ``(..., *shape, N)``; shape ``(..., channels, *shape, N)``."""
        ...

    def value(self, z: Tensor) -> Tensor:
        """The residual, ``(..., m)``, of the numbers ``(..., channels, m)``."""
        ...

    def derivatives(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The residual and its gradient in the numbers."""
        ...

    def curvature(self, z: Tensor) -> dict[tuple[int, int], Tensor]:
        """The non-zero second derivatives in the numbers."""
        ...

    def linear_rows(self, field: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
        """Matrix and target of initial and boundary conditions."""
        ...


@dataclass(frozen=True)
class ConstraintProblem:
    """A batch of least-squares problems in the weights.

    Attributes:
        equation: the residual.
        operators: operators applied to the bases at the sampled points, ``(..., channels, m, N)``.
        matrix: rows that are linear in the weights, ``(..., R, N)``.
        target: their right-hand side, ``(..., R)``.
        weight: factor of the rows of the equation.
        ridge: factor of the rows ``ridge * w``.
    """

    equation: PointwiseEquation
    operators: Tensor
    matrix: Tensor
    target: Tensor
    weight: float = 1.0
    ridge: float = 1e-4

    def select(self, index: Tensor) -> ConstraintProblem:
        """Some of the problems, as a batch of one axis.

        Args:
            index: into the flattened batch, shape ``(B,)``.

        Returns:
            The smaller batch.
        """
        lead = self.operators.shape[:-3]
        operators = self.operators.reshape(-1, *self.operators.shape[-3:])
        matrix = self.matrix.expand(*lead, -1, -1).reshape(-1, *self.matrix.shape[-2:])
        target = self.target.expand(*lead, -1).reshape(-1, self.target.shape[-1])
        if len(index) < len(operators):
            operators, matrix, target = operators[index], matrix[index], target[index]
        return replace(self, operators=operators, matrix=matrix, target=target)

    @cached_property
    def _linear_gram(self) -> Tensor:
        """Gram matrix of the linear rows: the same for all weights, and for all experts."""
        return self.matrix.mT @ self.matrix

    def numbers(self, weights: Tensor) -> Tensor:
        """What the equation depends on, shape ``(..., channels, m)``."""
        flat = self.operators.flatten(-3, -2) @ weights[..., None]
        return flat.reshape(*flat.shape[:-2], *self.operators.shape[-3:-1])

    def residual(self, weights: Tensor) -> Tensor:
        """All rows, those of the equation first.

        Args:
            weights: shape ``(..., N)``.

        Returns:
            Shape ``(..., m + R + N)``.
        """
        pde = self.weight * self.equation.value(self.numbers(weights))
        linear = self._linear_residual(weights).expand(*pde.shape[:-1], -1)
        return torch.cat((pde, linear, self.ridge * weights), -1)

    def jacobian(self, weights: Tensor) -> Tensor:
        """Derivative of :meth:`residual`.

        Args:
            weights: shape ``(..., N)``.

        Returns:
            Shape ``(..., m + R + N, N)``.
        """
        pde = self._equation_rows(weights)[1]
        eye = self.ridge * torch.eye(weights.shape[-1], dtype=pde.dtype, device=pde.device)
        lead = pde.shape[:-2]
        return torch.cat(
            (pde, self.matrix.expand(*lead, -1, -1), eye.expand(*lead, -1, -1)), dim=-2
        )

    def _equation_rows(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = self.equation.derivatives(self.numbers(weights))
        rows = (self.weight * slope[..., None] * self.operators).sum(-3)
        return self.weight * value, rows

    def normal_equations(self, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""Return :math:`J^\top J`, :math:`g=J^\top r` and :math:`\|r\|^2`.

        Args:
            weights: shape ``(..., N)``.

        Returns:
            Shapes ``(..., N, N)``, ``(..., N)`` and ``(...)``. Differentiable in the bases.
        """
        value, rows = self._equation_rows(weights)
        linear = self._linear_residual(weights)
        gram = rows.mT @ rows + self._linear_gram
        gram.diagonal(dim1=-2, dim2=-1).add_(self.ridge**2)
        cost = value.square().sum(-1) + linear.square().sum(-1)
        return (
            gram,
            self._pull_back(value, rows, linear, weights),
            cost + self.ridge**2 * weights.square().sum(-1),
        )

    def _linear_residual(self, weights: Tensor) -> Tensor:
        return (self.matrix @ weights[..., None])[..., 0] - self.target

    def _pull_back(self, value: Tensor, rows: Tensor, linear: Tensor, weights: Tensor) -> Tensor:
        r""":math:`J^\top r` from the residuals of the equation and of the linear rows."""
        product = value[..., None, :] @ rows + linear[..., None, :] @ self.matrix
        return product[..., 0, :] + self.ridge**2 * weights

    def gradient(self, weights: Tensor) -> Tensor:
        r"""The gradient :math:`g=J^\top r` of half the cost, differentiable in the bases.

        Args:
            weights: shape ``(..., N)``.

        Returns:
            Shape ``(..., N)``.
        """
        value, rows = self._equation_rows(weights)
        return self._pull_back(value, rows, self._linear_residual(weights), weights)

    def second_order_term(self, weights: Tensor) -> Tensor:
        r"""The part :math:`\sum_ir_i\nabla^2r_i` of the Hessian that Gauss-Newton leaves out.

        Args:
            weights: shape ``(..., N)``.

        Returns:
            Shape ``(..., N, N)``.
        """
        z = self.numbers(weights)
        value = self.weight**2 * self.equation.value(z)
        total = torch.zeros_like(self.operators[..., 0, :1, :].mT @ self.operators[..., 0, :1, :])
        for (i, j), second in self.equation.curvature(z).items():
            left = self.operators[..., i, :, :] * (value * second)[..., None]
            product = left.mT @ self.operators[..., j, :, :]
            total = total + (product if i == j else product + product.mT)
        return total


def implicit_weights(
    problem: ConstraintProblem,
    weights: Tensor,
    mode: str = "stationarity",
    shift: float = 1e-8,
) -> Tensor:
    r"""Attach the derivative in the bases to weights that a solver has found.

    .. math:: w=w^*-H^{-1}\bigl(g(w^*,b)-g(w^*,b)|_{\text{no gradient}}\bigr)

    has the value :math:`w^*` and the derivative :math:`-H^{-1}\partial g/\partial b`.

    Args:
        problem: with bases that require gradients.
        weights: the solution :math:`w^*`, shape ``(..., N)``.
        mode: ``stationarity``, ``gauss_newton`` (the paper's Equation 5: the Jacobian's pseudo-inverse applied to
            the change of the residual, exact where the residual vanishes) or ``detached`` (no gradient).
        shift: added to the diagonal of H.

    Returns:
        Weights of the same value that carry the gradient.

    Raises:
        ValueError: for an unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}; choose {', '.join(MODES)}")
    weights = weights.detach()
    if mode == "detached":
        return weights
    with torch.no_grad():
        matrix = problem.normal_equations(weights)[0]
        if mode == "stationarity":
            matrix = matrix + problem.second_order_term(weights)
        matrix.diagonal(dim1=-2, dim2=-1).add_(shift)
    if mode == "stationarity":
        condition = problem.gradient(weights)
    else:
        frozen = problem.jacobian(weights).detach()
        condition = (problem.residual(weights)[..., None, :] @ frozen)[..., 0, :]
    change = condition - condition.detach()
    return weights - torch.linalg.solve(matrix, change[..., None])[..., 0]


@dataclass(frozen=True)
class Constrained:
    """What the layer returns.

    Attributes:
        solution: assembled over the experts, shape ``(..., *shape)``.
        weights: of each expert, shape ``(..., K, N)``.
        solver: diagnostics of the solver for each expert.
    """

    solution: Tensor
    weights: Tensor
    solver: LMResult


class HardConstraint:
    """The constraint layer; one expert is the hard constraint, more are the mixture.

    It takes bases only and knows no network. The rows of the initial and boundary conditions are global: every
    expert receives all of them.

    Args:
        equation: the differential equation on its grid.
        router: the experts; ``DomainRouter.blocks(shape, (1, 1))`` for a single one.
        weight: factor of the rows of the equation.
        ridge: factor of the ridge rows.
        start: first value of all weights.
        mode: how to differentiate, see :func:`implicit_weights`.
        max_iter: most iterations of the solver.
        tol: its tolerance.

    Raises:
        ValueError: for a router of another grid, or an unknown mode.
    """

    def __init__(
        self,
        equation: PointwiseEquation,
        router: DomainRouter,
        weight: float = 30.0,
        ridge: float = 1e-4,
        start: float = 1.0,
        mode: str = "stationarity",
        max_iter: int = 15,
        tol: float = 1e-4,
    ) -> None:
        if router.shape != tuple(equation.shape):
            raise ValueError(
                f"the router cuts a grid {router.shape}, the equation has {equation.shape}"
            )
        if mode not in MODES:
            raise ValueError(f"unknown mode {mode!r}; choose {', '.join(MODES)}")
        self.equation, self.router = equation, router
        self.weight, self.ridge, self.start, self.mode = weight, ridge, start, mode
        self.max_iter, self.tol = max_iter, tol

    def on(self, equation: PointwiseEquation, max_iter: int) -> HardConstraint:
        """The same layer on another grid; experts that are blocks stay the same blocks.

        Args:
            equation: on the new grid.
            max_iter: iterations of the solver.

        Returns:
            A new layer.
        """
        router = self.router.on(tuple(equation.shape))
        return HardConstraint(
            equation, router, self.weight, self.ridge, self.start, self.mode, max_iter, self.tol
        )

    @property
    def candidates(self) -> range:
        """Places within a group, after the first instant, at which the equation may be sampled."""
        per_group = self.router.groups.shape[1]
        return range(per_group // self.router.shape[0], per_group)

    def sample_points(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw places within a group, without replacement and after the first instant.

        Args:
            count: number of points of each expert.
            generator: on the CPU.

        Returns:
            Sorted places, shape ``(count,)``; every expert takes the same ones.

        Raises:
            ValueError: for more points than there are.
        """
        first, available = self.candidates.start, len(self.candidates)
        if not 1 <= count <= available:
            raise ValueError(f"an expert has 1 to {available} points, not {count}")
        return first + torch.randperm(available, generator=generator)[:count].sort().values

    def problem(
        self, basis: Tensor, initial: Tensor, points: Tensor | None = None
    ) -> ConstraintProblem:
        """State the least-squares problem of every expert.

        Args:
            basis: float64, shape ``(..., *shape, N)``.
            initial: initial condition, in the shape that the equation takes.
            points: places within a group, shape ``(m,)``, or ``(S, m)`` for bases of leading dimension S; all
                after the first instant if left out.

        Returns:
            The batch of problems, shape ``(..., K)``.
        """
        device, grid_axes, wide = basis.device, len(self.equation.shape), basis.shape[-1]
        if points is None:
            points = torch.tensor(self.candidates)
        chosen = self.router.groups[:, points.to(device)]
        chosen = chosen if points.ndim == 1 else chosen.transpose(0, 1)
        operators = self.equation.operators(basis)
        lead = operators.shape[: -grid_axes - 1]
        flat = operators.reshape(*lead, -1, wide)
        experts, count = chosen.shape[-2:]
        if points.ndim == 1:
            picked = flat.index_select(-2, chosen.flatten())
        else:
            index = chosen.reshape(len(points), *(1,) * (len(lead) - 1), -1, 1)
            picked = flat.gather(-2, index.expand(*lead, -1, wide))
        picked = picked.reshape(*lead, experts, count, wide).transpose(-4, -3)
        matrix, target = self.equation.linear_rows(basis, initial)
        return ConstraintProblem(
            self.equation,
            picked,
            matrix.unsqueeze(-3),
            target.unsqueeze(-2),
            self.weight,
            self.ridge,
        )

    def solve(self, problem: ConstraintProblem, start: Tensor | None = None) -> LMResult:
        """Run the solver, without gradients.

        Args:
            problem: the batch.
            start: first weights, shape ``(..., K, N)``; all ``self.start`` if left out.

        Returns:
            Weights and diagnostics.
        """
        operators = problem.operators.detach()
        detached = replace(
            problem,
            operators=operators,
            matrix=problem.matrix.detach(),
            target=problem.target.detach(),
        )
        if start is None:
            shape = (*operators.shape[:-3], operators.shape[-1])
            start = torch.full(shape, self.start, dtype=operators.dtype, device=operators.device)
        return levenberg_marquardt(detached, start, self.max_iter, self.tol)

    def __call__(
        self,
        basis: Tensor,
        initial: Tensor,
        points: Tensor | None = None,
        start: Tensor | None = None,
    ) -> Constrained:
        """Solve for the weights and assemble the solution.

        Args:
            basis: any floating dtype, shape ``(..., *shape, N)``; cast to float64.
            initial: initial condition.
            points: see :meth:`problem`.
            start: see :meth:`solve`.

        Returns:
            Solution, weights and diagnostics; differentiable in the bases.
        """
        basis, initial = basis.double(), initial.double()
        problem = self.problem(basis, initial, points)
        solver = self.solve(problem, start)
        weights = solver.weights
        if basis.requires_grad:
            weights = implicit_weights(problem, weights, self.mode)
        return Constrained(self.assemble(basis, weights), weights, solver)

    def assemble(self, basis: Tensor, weights: Tensor) -> Tensor:
        """Concatenate the experts' solutions.

        Args:
            basis: shape ``(..., *shape, N)``.
            weights: shape ``(..., K, N)``.

        Returns:
            Shape ``(..., *shape)``.
        """
        return self.router.unpartition((self.router.partition(basis) @ weights[..., None])[..., 0])
