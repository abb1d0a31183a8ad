r"""The proximal Lagrangian value function, its saddle point and its gradient.

.. math::
    v_{\gamma,r}(x,y,z)=\min_{\theta\in Y}\max_{\lambda\in Z}\;f(x,\theta)+\lambda^\top g(x,\theta)
    +\frac{\|\theta-y\|^2}{2\gamma_1}-\frac{\|\lambda-z\|^2}{2\gamma_2},\qquad
    \nabla v_{\gamma,r}=\Bigl(\nabla_xf(x,\theta^*)+J_xg(x,\theta^*)^\top\lambda^*,\;
    \frac{y-\theta^*}{\gamma_1},\;\frac{\lambda^*-z}{\gamma_2}\Bigr).

Source: Yao, Yu, Zeng and Zhang (ICLR 2024): definition read in the authors' code and the abstract; the
gradient is derived (envelope theorem), not read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from descent.bilevel.problem import BilevelProblem

__all__ = ["ProximalLagrangian", "envelope_gradient", "saddle_field"]


def saddle_field(
    problem: BilevelProblem,
    x: Tensor,
    y: Tensor,
    z: Tensor,
    theta: Tensor,
    lam: Tensor,
    gamma1: float | Tensor,
    gamma2: float | Tensor,
) -> tuple[Tensor, Tensor]:
    r"""Return the directions of descent in :math:`\theta` and of ascent in :math:`\lambda`, both negated.

    Args:
        problem: gives :math:`f` and :math:`g`.
        x: shape ``(..., n)``.
        y: shape ``(..., m)``.
        z: shape ``(..., q)``.
        theta: shape ``(..., m)``.
        lam: shape ``(..., q)``.
        gamma1: positive, a number or broadcastable to ``theta``.
        gamma2: positive, a number or broadcastable to ``lam``.

    Returns:
        Gradient in :math:`\theta`, and minus the gradient in :math:`\lambda`.
    """
    d_theta = (
        problem.lower_gradient_y(x, theta)
        + problem.constraint_product_y(x, theta, lam)
        + (theta - y) / gamma1
    )
    return d_theta, -problem.constraint(x, theta) + (lam - z) / gamma2


def envelope_gradient(
    problem: BilevelProblem,
    x: Tensor,
    y: Tensor,
    z: Tensor,
    theta: Tensor,
    lam: Tensor,
    gamma1: float,
    gamma2: float,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return the gradient of the regularised Lagrangian in :math:`(x,y,z)`, with :math:`(\theta,\lambda)` fixed.

    At the saddle point it is the gradient of the value function.

    Args:
        problem: gives :math:`f` and :math:`g`.
        x: shape ``(..., n)``.
        y: shape ``(..., m)``.
        z: shape ``(..., q)``.
        theta: shape ``(..., m)``.
        lam: shape ``(..., q)``.
        gamma1: positive.
        gamma2: positive.

    Returns:
        Shapes of ``x``, ``y`` and ``z``.
    """
    in_x = problem.lower_gradient_x(x, theta) + problem.constraint_product_x(x, theta, lam)
    return in_x, (y - theta) / gamma1, (lam - z) / gamma2


class ProximalLagrangian:
    r"""The value function of one problem.

    Args:
        problem: gives :math:`f`, :math:`g`, :math:`Y` and :math:`Z`; a method ``exact_saddle`` of it is
            preferred to the iterative solution.
        gamma1: proximal parameter of the lower variable, positive.
        gamma2: proximal parameter of the multiplier, positive.
        r: bound of the multipliers, positive (or ``inf``).

    Raises:
        ValueError: for a parameter that is not positive.
    """

    def __init__(
        self, problem: BilevelProblem, gamma1: float, gamma2: float, r: float = float("inf")
    ) -> None:
        for name, value in (("gamma1", gamma1), ("gamma2", gamma2), ("r", r)):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        self.problem, self.gamma1, self.gamma2, self.r = problem, gamma1, gamma2, r

    def lagrangian(self, x: Tensor, y: Tensor, z: Tensor, theta: Tensor, lam: Tensor) -> Tensor:
        """Return the doubly regularised Lagrangian.

        Args:
            x: shape ``(..., n)``.
            y: shape ``(..., m)``.
            z: shape ``(..., q)``.
            theta: shape ``(..., m)``.
            lam: shape ``(..., q)``.

        Returns:
            Shape ``(...)``.
        """
        return (
            self.problem.lower(x, theta)
            + (lam * self.problem.constraint(x, theta)).sum(-1)
            + (theta - y).square().sum(-1) / (2 * self.gamma1)
            - (lam - z).square().sum(-1) / (2 * self.gamma2)
        )

    def saddle(
        self, x: Tensor, y: Tensor, z: Tensor, tol: float = 1e-12, max_steps: int = 20_000
    ) -> tuple[Tensor, Tensor]:
        r"""Return the saddle point :math:`(\theta^*,\lambda^*)`.

        Without a closed form it is found by extragradient steps whose length each member of the batch
        halves until one step changes the field by less than 0.7 of its length.

        Args:
            x: shape ``(..., n)``.
            y: shape ``(..., m)``.
            z: shape ``(..., q)``.
            tol: largest change of an entry in a step of length one at which the iteration stops.
            max_steps: most extragradient steps.

        Returns:
            Shapes of ``y`` and ``z``.

        Raises:
            RuntimeError: if ``max_steps`` do not reach ``tol``.
        """
        if hasattr(self.problem, "exact_saddle"):
            theta, lam = self.problem.exact_saddle(x, y, z, self.gamma1, self.gamma2, self.r)
            return theta, lam

        def field(theta: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
            return saddle_field(self.problem, x, y, z, theta, lam, self.gamma1, self.gamma2)

        theta, lam = self.problem.project_lower(y), self.problem.project_multiplier(z, self.r)
        step = torch.ones_like(theta[..., :1])
        for _ in range(max_steps):
            d_theta, d_lam = field(theta, lam)
            theta_mid, lam_mid = self._move(theta, lam, d_theta, d_lam, step)
            e_theta, e_lam = field(theta_mid, lam_mid)
            change = _norm(e_theta - d_theta, e_lam - d_lam)
            length = _norm(theta_mid - theta, lam_mid - lam)
            good = step * change <= 0.7 * length
            theta_new, lam_new = self._move(theta, lam, e_theta, e_lam, step)
            if bool(
                (_norm(theta_new - theta, lam_new - lam) <= tol * step).logical_and(good).all()
            ):
                return theta_new, lam_new
            theta = torch.where(good, theta_new, theta)
            lam = torch.where(good, lam_new, lam)
            step = torch.where(good, step * 1.02, step * 0.5)
        raise RuntimeError(f"the saddle point is not accurate to {tol} after {max_steps} steps")

    def value(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        r"""Return :math:`v_{\gamma,r}(x,y,z)`, shape ``(...)``.

        Args:
            x: shape ``(..., n)``.
            y: shape ``(..., m)``.
            z: shape ``(..., q)``.

        Returns:
            Shape ``(...)``.
        """
        return self.lagrangian(x, y, z, *self.saddle(x, y, z))

    def gap(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        r"""Return :math:`f(x,y)-v_{\gamma,r}(x,y,z)`, non-negative where :math:`g(x,y)\le0`.

        Args:
            x: shape ``(..., n)``.
            y: shape ``(..., m)``.
            z: shape ``(..., q)``.

        Returns:
            Shape ``(...)``; use float64, since it is a small difference.
        """
        return self.problem.lower(x, y) - self.value(x, y, z)

    def gradient(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""Return the gradient of :math:`v_{\gamma,r}` from first derivatives alone.

        Args:
            x: shape ``(..., n)``.
            y: shape ``(..., m)``.
            z: shape ``(..., q)``.

        Returns:
            Shapes of ``x``, ``y`` and ``z``.
        """
        saddle = self.saddle(x, y, z)
        return envelope_gradient(self.problem, x, y, z, *saddle, self.gamma1, self.gamma2)

    def _move(
        self, theta: Tensor, lam: Tensor, d_theta: Tensor, d_lam: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor]:
        return (
            self.problem.project_lower(theta - step * d_theta),
            self.problem.project_multiplier(lam - step * d_lam, self.r),
        )


def _norm(first: Tensor, second: Tensor) -> Tensor:
    return (first.square().sum(-1, keepdim=True) + second.square().sum(-1, keepdim=True)).sqrt()
