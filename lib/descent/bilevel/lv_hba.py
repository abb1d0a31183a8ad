r"""LV-HBA: bilevel optimisation with coupled constraints in one loop, from first derivatives alone.

It descends :math:`\psi_k=F/c_k+f-v_{\gamma,r}` with :math:`c_k=c(k+1)^p`, tracking the saddle point behind
:math:`v_{\gamma,r}` by one descent-ascent step per iteration.

Source: Yao, Yu, Zeng and Zhang (ICLR 2024), Algorithm 1, reconstructed from the abstract and the authors' code.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from descent.bilevel.problem import BilevelProblem
from descent.bilevel.proximal_lagrangian import saddle_field
from descent.bilevel.saddle_step import lagrangian_curvature, saddle_step_limit

__all__ = ["LVHBA", "LVHBAState"]

LARGEST_CHECK = 600


@dataclass(frozen=True)
class LVHBAState:
    """Iterates after ``step`` iterations.

    Attributes:
        x: upper variable, shape ``(..., n)``.
        y: lower variable, shape ``(..., m)``.
        z: auxiliary multiplier, shape ``(..., q)``.
        theta: primal copy, shape ``(..., m)``.
        lam: dual copy, shape ``(..., q)``.
        step: iterations done.
    """

    x: Tensor
    y: Tensor
    z: Tensor
    theta: Tensor
    lam: Tensor
    step: int = 0


class LVHBA:
    r"""The single-loop algorithm; every option may also be a tensor that broadcasts over the batch.

    Args:
        problem: gives gradients, Jacobian products and projections.
        alpha: step of :math:`(x,y)`, positive.
        beta: step of :math:`z`, positive.
        eta: step of :math:`(\theta,\lambda)`, non-negative; see :meth:`step_limit`.
        gamma1: proximal parameter of :math:`\theta`, positive.
        gamma2: proximal parameter of :math:`\lambda`, positive.
        c: first penalty weight, positive.
        p: growth of the weight, non-negative; the theory wants :math:`p<1/2`.
        r: bound of the multipliers, positive.

    Raises:
        ValueError: for an option outside its range.
    """

    def __init__(
        self,
        problem: BilevelProblem,
        *,
        alpha: float | Tensor,
        beta: float | Tensor,
        eta: float | Tensor,
        gamma1: float | Tensor = 1.0,
        gamma2: float | Tensor = 1.0,
        c: float | Tensor = 1.0,
        p: float | Tensor = 0.3,
        r: float | Tensor = float("inf"),
    ) -> None:
        positive = {
            "alpha": alpha,
            "beta": beta,
            "gamma1": gamma1,
            "gamma2": gamma2,
            "c": c,
            "r": r,
        }
        for name, value in positive.items():
            if not _all(value, lambda v: v > 0):
                raise ValueError(f"{name} must be positive, got {value}")
        for name, value in (("eta", eta), ("p", p)):
            if not _all(value, lambda v: v >= 0):
                raise ValueError(f"{name} must not be negative, got {value}")
        if not _all(p, lambda v: v < 0.5):
            warnings.warn(f"p = {p}: the convergence theory asks for p < 1/2", stacklevel=2)
        self.problem = problem
        self.alpha, self.beta, self.eta = alpha, beta, eta
        self.gamma1, self.gamma2, self.c, self.p, self.r = gamma1, gamma2, c, p, r

    def penalty(self, step: int) -> float | Tensor:
        """Return the weight :math:`c_k=c(k+1)^p`.

        Args:
            step: :math:`k`, from 0.

        Returns:
            A number, or a tensor if ``c`` or ``p`` is one.
        """
        return self.c * (step + 1) ** self.p

    def fast_step(self, state: LVHBAState) -> tuple[Tensor, Tensor]:
        r"""One simultaneous descent-ascent step on :math:`(\theta,\lambda)`, both gradients at the old pair.

        Args:
            state: current iterates.

        Returns:
            The new pair.
        """
        x, y, z, theta, lam = state.x, state.y, state.z, state.theta, state.lam
        d_theta, d_lam = saddle_field(self.problem, x, y, z, theta, lam, self.gamma1, self.gamma2)
        return (
            self.problem.project_lower(theta - self.eta * d_theta),
            self.problem.project_multiplier(lam - self.eta * d_lam, self.r),
        )

    def directions(
        self, state: LVHBAState, theta: Tensor, lam: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""Gradient of :math:`\psi_k` with the tracked pair in place of the saddle point.

        Args:
            state: current iterates.
            theta: new primal copy.
            lam: new dual copy.

        Returns:
            Directions for ``x``, ``y`` and ``z``.
        """
        x, y, weight = state.x, state.y, self.penalty(state.step)
        upper_x, upper_y = self.problem.upper_gradient(x, y)
        d_x = (
            upper_x / weight
            + self.problem.lower_gradient_x(x, y)
            - self.problem.lower_gradient_x(x, theta)
            - self.problem.constraint_product_x(x, theta, lam)
        )
        d_y = upper_y / weight + self.problem.lower_gradient_y(x, y) - (y - theta) / self.gamma1
        return d_x, d_y, -(lam - state.z) / self.gamma2

    def step(self, state: LVHBAState) -> LVHBAState:
        """One iteration.

        Args:
            state: current iterates.

        Returns:
            The next iterates.
        """
        theta, lam = self.fast_step(state)
        d_x, d_y, d_z = self.directions(state, theta, lam)
        x, y = self.problem.project_joint(state.x - self.alpha * d_x, state.y - self.alpha * d_y)
        z = self.problem.project_multiplier(state.z - self.beta * d_z, self.r)
        return LVHBAState(x, y, z, theta, lam, state.step + 1)

    def start(self, x: Tensor, y: Tensor, z: Tensor) -> LVHBAState:
        r"""Start at the joint projection of :math:`(x,y)`, with :math:`\theta=y` and :math:`\lambda=z`.

        Args:
            x: shape ``(..., n)``.
            y: shape ``(..., m)``.
            z: shape ``(..., q)``.

        Returns:
            The initial iterates.

        Raises:
            ValueError: if the three differ in dtype or device.
        """
        if len({(t.dtype, t.device) for t in (x, y, z)}) > 1:
            raise ValueError("x, y and z must share one dtype and device")
        x, y = self.problem.project_joint(x, y)
        z = self.problem.project_multiplier(z, self.r)
        return LVHBAState(x, y, z, y, z)

    def run(
        self,
        state: LVHBAState,
        steps: int,
        observe: Callable[[LVHBAState], None] | None = None,
        check: bool = True,
    ) -> LVHBAState:
        r"""Iterate; warn beforehand if :math:`\eta` exceeds its limit.

        Args:
            state: from :meth:`start`, or a later one.
            steps: number of iterations.
            observe: called with the state after each.
            check: compute the limit first, if ``m + q`` is at most 600.

        Returns:
            The last iterates.
        """
        if check and state.y.shape[-1] + state.z.shape[-1] <= LARGEST_CHECK:
            self.warn_of_long_step(state)
        for _ in range(steps):
            state = self.step(state)
            if observe is not None:
                observe(state)
        return state

    def step_limit(self, state: LVHBAState) -> float:
        r"""Return the limit of :math:`\eta` at the first member of the batch.

        Args:
            state: where the curvature is taken.

        Returns:
            The :math:`\eta` below which the step on :math:`(\theta,\lambda)` contracts.
        """
        curvature, jacobian = lagrangian_curvature(self.problem, state.x, state.theta, state.lam)
        return saddle_step_limit(curvature, jacobian, _first(self.gamma1), _first(self.gamma2))

    def warn_of_long_step(self, state: LVHBAState) -> None:
        r"""Warn if :math:`\eta` is not below :meth:`step_limit`.

        Args:
            state: where the curvature is taken.
        """
        eta, limit = _first(self.eta), self.step_limit(state)
        if eta >= limit:
            warnings.warn(
                f"eta = {eta:.3g} is not below {limit:.3g}, where the descent-ascent step stops to contract: "
                "reduce eta, or gamma2",
                stacklevel=3,
            )


def _all(value: float | Tensor, condition: Callable[[float | Tensor], bool | Tensor]) -> bool:
    result = condition(value)
    return bool(result.all()) if isinstance(result, Tensor) else bool(result)


def _first(value: float | Tensor) -> float:
    return float(value.flatten()[0]) if isinstance(value, Tensor) else float(value)
