r"""One cost per training example, chosen by a validation set: support vector machines as a bilevel problem.

.. math::
    \min_{c\in X}\;\sum_{\mathrm{val}}\ell\Bigl(2\sigma\bigl(-5\,t\,\tfrac{w^\top v+b}{\|w\|}\bigr)-1\Bigr)
    \quad\text{s.t.}\quad(w,b,\xi)\in\arg\min\tfrac12\|w\|^2+\tfrac12\sum_ie^{c_i}\xi_i^2:\;
    1-\xi_i-t_i(w^\top v_i+b)\le0,

with :math:`\ell` a leaky ReLU of slope 0.01. In :math:`(w,b)` alone the lower level is a weighted squared hinge.

Source: Yao, Yu, Zeng and Zhang (ICLR 2024), read in the authors' code; the exact solutions are derived.
"""

from __future__ import annotations

import torch
from torch import Tensor

from descent.bilevel.problem import BilevelProblem

__all__ = ["SVMTuning", "squared_hinge"]


def squared_hinge(
    rows: Tensor,
    target: Tensor,
    weights: Tensor,
    centre: Tensor,
    ridge: Tensor,
    start: Tensor | None = None,
    tol: float = 1e-10,
) -> Tensor:
    r"""Minimise :math:`\frac12\sum_j\rho_j(u_j-\bar u_j)^2+\frac12\sum_i\omega_i\max(0,\tau_i-a_i^\top u)^2`.

    The function is piecewise quadratic; Newton steps with halving end at the exact minimiser.

    Args:
        rows: :math:`a_i`, shape ``(..., N, d)``.
        target: :math:`\tau`, shape ``(..., N)``.
        weights: :math:`\omega\ge0`, shape ``(..., N)``.
        centre: :math:`\bar u`, shape ``(..., d)``.
        ridge: :math:`\rho\ge0`, shape ``(d,)``.
        start: shape ``(..., d)``; ``centre`` unless given.
        tol: largest entry of the gradient at the end, relative to one plus that at the start.

    Returns:
        Shape ``(..., d)``.

    Raises:
        RuntimeError: if 100 steps do not suffice.
    """
    point = centre if start is None else start

    def parts(u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        slack = (target - (rows @ u.unsqueeze(-1)).squeeze(-1)).clamp(min=0)
        value = (ridge * (u - centre) ** 2).sum(-1) / 2 + (weights * slack**2).sum(-1) / 2
        gradient = ridge * (u - centre) - (rows.mT @ (weights * slack).unsqueeze(-1)).squeeze(-1)
        return value, gradient, slack

    value, gradient, slack = parts(point)
    goal = tol * (1 + gradient.abs().amax(-1))
    floor = 1e-12 * torch.eye(rows.shape[-1]).to(rows)
    for _ in range(100):
        if bool((gradient.abs().amax(-1) <= goal).all()):
            return point
        active = weights * (slack > 0)
        hessian = torch.diag_embed(ridge) + (rows.mT * active.unsqueeze(-2)) @ rows
        step = torch.linalg.solve(hessian + floor, gradient)
        length = torch.ones_like(value)
        for _ in range(40):
            new = point - length.unsqueeze(-1) * step
            new_value, new_gradient, new_slack = parts(new)
            bad = (
                new_value > value - 1e-4 * length * (step * gradient).sum(-1) + 1e-13 * value.abs()
            )
            if not bool(bad.any()):
                break
            length = torch.where(bad, length / 2, length)
        point, value, gradient, slack = new, new_value, new_gradient, new_slack
    raise RuntimeError("the squared hinge was not minimised in 100 Newton steps")


class SVMTuning(BilevelProblem):
    r"""The bilevel problem for a batch of data splits.

    ``x`` is :math:`c/\text{scale}`, shape ``(..., N)``: a larger scale lets the costs take longer steps than the
    weights, which the constraint does not couple to them. ``y`` is :math:`(w,b,\xi)`, shape ``(..., d+1+N)``.

    Args:
        features: training features, shape ``(..., N, d)``.
        labels: training labels, :math:`\pm1`, shape ``(..., N)``.
        validation: validation features, shape ``(..., V, d)``.
        validation_labels: shape ``(..., V)``.
        low: least :math:`c_i`.
        high: largest :math:`c_i`.
        scale: positive.

    Raises:
        ValueError: for labels other than -1 and 1, or ``low >= high``.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        validation: Tensor,
        validation_labels: Tensor,
        low: float = -6.0,
        high: float = 2.0,
        scale: float = 1.0,
    ) -> None:
        for name, values in (("labels", labels), ("validation_labels", validation_labels)):
            if not bool((values.abs() == 1).all()):
                raise ValueError(f"{name} must be -1 or 1")
        if low >= high:
            raise ValueError(f"low must be below high, got {low} and {high}")
        self.rows = labels.unsqueeze(-1) * _with_one(features)
        self.validation_rows = validation_labels.unsqueeze(-1) * _with_one(validation)
        self.size, self.width = features.shape[-2], features.shape[-1] + 1
        self.low, self.high, self.scale = low, high, scale
        self._warm: Tensor | None = None

    def split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return :math:`(w,b)` and :math:`\xi`.

        Args:
            y: shape ``(..., d+1+N)``.

        Returns:
            Shapes ``(..., d+1)`` and ``(..., N)``.
        """
        return y[..., : self.width], y[..., self.width :]

    def validation_loss(self, u: Tensor) -> Tensor:
        """Return the upper objective of a classifier.

        Args:
            u: weights and offset, shape ``(..., d+1)``.

        Returns:
            Shape ``(...)``.
        """
        margin, _ = self._validation_margin(u)
        return torch.nn.functional.leaky_relu(2 * torch.sigmoid(-5 * margin) - 1, 0.01).sum(-1)

    def upper(self, x: Tensor, y: Tensor) -> Tensor:
        return self.validation_loss(self.split(y)[0])

    def upper_gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        u, slack = self.split(y)
        return torch.zeros_like(x), torch.cat([self._loss_gradient(u), torch.zeros_like(slack)], -1)

    def _validation_margin(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distances of the validation examples from the border, and the norm of the weights."""
        norm = u[..., :-1].norm(dim=-1, keepdim=True)
        return (self.validation_rows @ u.unsqueeze(-1)).squeeze(-1) / norm, norm

    def _loss_gradient(self, u: Tensor) -> Tensor:
        margin, norm = self._validation_margin(u)
        s = torch.sigmoid(-5 * margin)
        weight = torch.where(s > 0.5, 1.0, 0.01) * (-10) * s * (1 - s)
        gradient = (self.validation_rows.mT @ weight.unsqueeze(-1)).squeeze(-1) / norm
        along = (weight * margin).sum(-1, keepdim=True) / norm**2
        return gradient - along * torch.nn.functional.pad(u[..., :-1], (0, 1))

    def costs(self, x: Tensor) -> Tensor:
        r"""Return :math:`c`.

        Args:
            x: shape ``(..., N)``.

        Returns:
            Shape ``(..., N)``.
        """
        return self.scale * x

    def lower(self, x: Tensor, y: Tensor) -> Tensor:
        u, slack = self.split(y)
        return ((u[..., :-1] ** 2).sum(-1) + (self.costs(x).exp() * slack**2).sum(-1)) / 2

    def lower_gradient_x(self, x: Tensor, y: Tensor) -> Tensor:
        return self.scale * self.costs(x).exp() * self.split(y)[1] ** 2 / 2

    def lower_gradient_y(self, x: Tensor, y: Tensor) -> Tensor:
        u, slack = self.split(y)
        zero = torch.zeros_like(u[..., -1:])
        return torch.cat([u[..., :-1], zero, self.costs(x).exp() * slack], -1)

    def constraint(self, x: Tensor, y: Tensor) -> Tensor:
        u, slack = self.split(y)
        return 1 - slack - (self.rows @ u.unsqueeze(-1)).squeeze(-1)

    def constraint_product_x(self, x: Tensor, y: Tensor, multiplier: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def constraint_product_y(self, x: Tensor, y: Tensor, multiplier: Tensor) -> Tensor:
        in_u = -(self.rows.mT @ multiplier.unsqueeze(-1)).squeeze(-1)
        return torch.cat([in_u, -multiplier], -1)

    def project_joint(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Clip ``x`` to its box and project ``y`` exactly on the margins.

        Eliminating the slacks leaves a squared hinge in ``d + 1`` variables.

        Args:
            x: shape ``(..., N)``.
            y: shape ``(..., d+1+N)``.

        Returns:
            The projected pair.
        """
        u, slack = self.split(y)
        ones = torch.ones_like(slack)
        start = self._warm if self._warm is not None and self._warm.shape == u.shape else None
        u = squared_hinge(self.rows, 1 - slack, ones, u, u.new_ones(self.width), start)
        self._warm = u
        slack = torch.maximum(slack, 1 - (self.rows @ u.unsqueeze(-1)).squeeze(-1))
        return x.clamp(self.low / self.scale, self.high / self.scale), torch.cat([u, slack], -1)

    def solve_lower(self, costs: Tensor) -> Tensor:
        r"""Return the exact :math:`(w,b)` for given costs.

        Args:
            costs: :math:`c`, shape ``(..., N)``.

        Returns:
            Shape ``(..., d+1)``.
        """
        ridge = torch.ones(self.width).to(costs)
        ridge[-1] = 0
        centre = torch.zeros(*costs.shape[:-1], self.width).to(costs)
        return squared_hinge(self.rows, torch.ones_like(costs), costs.exp(), centre, ridge)

    def lower_solution(self, costs: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return the exact lower variable :math:`(w,b,\xi)` and its multipliers :math:`e^{c_i}\xi_i`.

        Args:
            costs: :math:`c`, shape ``(..., N)``.

        Returns:
            Shapes ``(..., d+1+N)`` and ``(..., N)``.
        """
        u = self.solve_lower(costs)
        slack = (1 - (self.rows @ u.unsqueeze(-1)).squeeze(-1)).clamp(min=0)
        return torch.cat([u, slack], -1), costs.exp() * slack

    def implicit_gradient(self, costs: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return the gradient of the validation loss at the exact lower solution, and that solution.

        .. math:: \frac{dF}{dc_i}=e^{c_i}\max(0,1-a_i^\top u)\;a_i^\top H^{-1}\nabla F(u)

        with the Hessian :math:`H` of the squared hinge: second derivatives and a linear solve, which LV-HBA avoids.

        Args:
            costs: shape ``(..., N)``.

        Returns:
            Shapes ``(..., N)`` and ``(..., d+1)``.
        """
        u, slack = self.split(self.lower_solution(costs)[0])
        weights = costs.exp()
        ridge = torch.ones(self.width).to(costs)
        ridge[-1] = 1e-12
        hessian = (
            torch.diag_embed(ridge)
            + (self.rows.mT * (weights * (slack > 0)).unsqueeze(-2)) @ self.rows
        )
        adjoint = torch.linalg.solve(hessian, self._loss_gradient(u))
        return weights * slack * (self.rows @ adjoint.unsqueeze(-1)).squeeze(-1), u


def _with_one(features: Tensor) -> Tensor:
    return torch.nn.functional.pad(features, (0, 1), value=1.0)
