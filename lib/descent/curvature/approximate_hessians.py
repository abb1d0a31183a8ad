r"""Objectives with an exact Hessian and the approximations of it that the paper names.

Each has ``value``, ``gradient`` and ``hessian(x, kind)``. Kinds: ``"exact"``; ``"gauss_newton"``, which
drops the term with second derivatives of what is inside; ``"fisher"``, outer products of gradients.

Source: Semenov, Jaggi and Doikov (ICLR 2026), examples and the oracles of the authors' code; the
Jacobian-weighted curvature of residuals is derived here (their general oracle scales it wrongly, their
Chebyshev and Rosenbrock oracles are right).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import softplus

from descent.curvature.dual_metric import Metric
from descent.curvature.regularised_steps import (
    CholeskySteps,
    EigenSteps,
    RankOneSteps,
    RegularisedSteps,
)

__all__ = [
    "ChebyshevResidual",
    "DifferenceChain",
    "LinearResidual",
    "LogSumExp",
    "Logistic",
    "PowerOfResidual",
    "RosenbrockResidual",
    "dense_curvature",
    "hessian_error",
    "no_curvature",
    "rank_one_curvature",
]


def _unknown(kind: str, known: tuple[str, ...]) -> ValueError:
    return ValueError(f"unknown Hessian {kind!r}; choose {', '.join(known)}")


class LogSumExp:
    r"""The soft maximum :math:`f(x)=\mu\log\sum_i\exp((\langle a_i,x\rangle-b_i)/\mu)`.

    With softmax weights :math:`\pi`: gradient :math:`A^\top\pi`, weighted Gauss-Newton matrix
    :math:`A^\top\mathrm{diag}(\pi)A/\mu`, Hessian the same minus :math:`gg^\top/\mu`.

    Args:
        rows: :math:`A`, shape ``(m, n)``.
        offsets: :math:`b`, shape ``(m,)``.
        smoothing: :math:`\mu>0`.
    """

    def __init__(self, rows: Tensor, offsets: Tensor, smoothing: float = 1.0) -> None:
        self.rows, self.offsets, self.smoothing = rows, offsets, smoothing

    def logits(self, x: Tensor) -> Tensor:
        """Return what is inside the exponentials, shape ``(m,)``."""
        return (self.rows @ x - self.offsets) / self.smoothing

    def value(self, x: Tensor) -> float:
        """Return the objective."""
        return self.smoothing * float(torch.logsumexp(self.logits(x), 0))

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """Return both, for the price of one."""
        logits = self.logits(x)
        level = torch.logsumexp(logits, 0)
        return self.smoothing * float(level), self.rows.mT @ (logits - level).exp()

    def gradient(self, x: Tensor) -> Tensor:
        """Return the gradient, shape ``(n,)``; rows of points, shape ``(k, n)``, give rows."""
        logits = (x @ self.rows.mT - self.offsets) / self.smoothing
        return torch.softmax(logits, -1) @ self.rows

    def hessian(self, x: Tensor, kind: str = "exact") -> Tensor:
        """Return the matrix of a kind: exact, gauss_newton. Shape ``(n, n)``.

        Raises:
            ValueError: for another kind.
        """
        if kind not in ("exact", "gauss_newton"):
            raise _unknown(kind, ("exact", "gauss_newton"))
        weights = torch.softmax(self.logits(x), 0)
        matrix = self.rows.mT @ (weights[:, None] * self.rows) / self.smoothing
        if kind == "exact":
            g = self.rows.mT @ weights
            matrix -= torch.outer(g, g) / self.smoothing
        return matrix


class Logistic:
    r"""Logistic loss :math:`f(x)=\frac1n\sum_i\log(1+e^{-m_i})`, :math:`m_i=y_i\langle a_i,x\rangle`.

    With :math:`s_i=\sigma(-m_i)` the Hessian weighs :math:`a_ia_i^\top` by :math:`s_i(1-s_i)`, the Fisher
    matrix (mean outer product of the gradients of single samples) by :math:`s_i^2`.

    Args:
        features: :math:`a_i` as rows, shape ``(samples, n)``.
        signs: :math:`y_i\in\{-1,1\}`, shape ``(samples,)``.
    """

    def __init__(self, features: Tensor, signs: Tensor) -> None:
        self.signed = features * signs[:, None]

    def misfit(self, x: Tensor) -> Tensor:
        r"""Return :math:`s_i=\sigma(-m_i)`, shape ``(samples,)``."""
        return torch.sigmoid(-(self.signed @ x))

    def value(self, x: Tensor) -> float:
        """Return the objective."""
        return float(softplus(-(self.signed @ x)).mean())

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """Return both, with one pass over the margins."""
        margins = self.signed @ x
        pull = torch.sigmoid(-margins) @ self.signed
        return float(softplus(-margins).mean()), pull / -len(self.signed)

    def gradient(self, x: Tensor) -> Tensor:
        """Return the gradient, shape ``(n,)``."""
        return self.value_and_gradient(x)[1]

    def hessian(self, x: Tensor, kind: str = "exact") -> Tensor:
        """Return the matrix of a kind: exact, fisher. Shape ``(n, n)``.

        Raises:
            ValueError: for another kind.
        """
        s = self.misfit(x)
        if kind not in ("exact", "fisher"):
            raise _unknown(kind, ("exact", "fisher"))
        weights = s.square() if kind == "fisher" else s * (1 - s)
        return self.signed.mT @ (weights[:, None] * self.signed) / len(self.signed)


class DifferenceChain:
    r"""The third-order chain :math:`f(x)=\frac13\sum_{i=1}^n|x_i-x_{i-1}|^3-x_n`, :math:`x_0=0`.

    Convex with a Lipschitz Hessian; minimum :math:`-2n/3` at :math:`x_i=i`.
    """

    def value(self, x: Tensor) -> float:
        """Return the objective."""
        return self.value_and_gradient(x)[0]

    def gradient(self, x: Tensor) -> Tensor:
        """Return the gradient, shape ``(n,)``."""
        return self.value_and_gradient(x)[1]

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """Return both."""
        d = self._differences(x)
        flow = d * d.abs()
        g = flow.clone()
        g[:-1] -= flow[1:]
        g[-1] -= 1
        return float(flow.abs() @ d.abs()) / 3 - float(x[-1]), g

    def hessian(self, x: Tensor, kind: str = "exact") -> Tensor:
        """Return the tridiagonal Hessian, shape ``(n, n)``.

        Raises:
            ValueError: for another kind than exact.
        """
        if kind != "exact":
            raise _unknown(kind, ("exact",))
        w = 2 * self._differences(x).abs()
        diagonal = w.clone()
        diagonal[:-1] += w[1:]
        return torch.diag(diagonal) - torch.diag(w[1:], 1) - torch.diag(w[1:], -1)

    @staticmethod
    def _differences(x: Tensor) -> Tensor:
        return torch.diff(x, prepend=x.new_zeros(1))


class Residual(Protocol):
    """A system of equations :math:`u(x)=0`."""

    def value(self, x: Tensor) -> Tensor:
        """Return :math:`u(x)`, shape ``(m,)``."""
        ...

    def pull_back(self, x: Tensor, v: Tensor) -> Tensor:
        r"""Return :math:`J(x)^\top v`, shape ``(n,)``."""
        ...

    def jacobian(self, x: Tensor) -> Tensor:
        """Return :math:`J(x)`, shape ``(m, n)``."""
        ...

    def weighted_curvature(self, x: Tensor, v: Tensor) -> Tensor | None:
        r"""Return the diagonal of :math:`\sum_iv_i\nabla^2u_i(x)`, diagonal here; ``None`` for zero."""
        ...


class LinearResidual:
    """:math:`u(x)=Ax-b`, with ``matrix`` of shape ``(m, n)`` and ``target`` of shape ``(m,)``."""

    def __init__(self, matrix: Tensor, target: Tensor) -> None:
        self.matrix, self.target = matrix, target

    def value(self, x: Tensor) -> Tensor:
        return self.matrix @ x - self.target

    def pull_back(self, x: Tensor, v: Tensor) -> Tensor:
        return self.matrix.mT @ v

    def jacobian(self, x: Tensor) -> Tensor:
        return self.matrix

    def weighted_curvature(self, x: Tensor, v: Tensor) -> Tensor | None:
        return None


class RosenbrockResidual:
    """:math:`u(x)=(1-x_1,\\,10(x_2-x_1^2))`: half its square is half of Rosenbrock's function."""

    def value(self, x: Tensor) -> Tensor:
        a, b = x.tolist()  # two numbers: plain arithmetic beats tensor calls by far
        return x.new_tensor([1 - a, 10 * (b - a * a)])

    def pull_back(self, x: Tensor, v: Tensor) -> Tensor:
        (a, _), (first, second) = x.tolist(), v.tolist()
        return x.new_tensor([-first - 20 * a * second, 10 * second])

    def jacobian(self, x: Tensor) -> Tensor:
        return x.new_tensor([[-1.0, 0.0], [-20 * float(x[0]), 10.0]])

    def weighted_curvature(self, x: Tensor, v: Tensor) -> Tensor | None:
        return torch.stack([-20 * v[1], torch.zeros_like(v[1])])


class ChebyshevResidual:
    r""":math:`u_1=\frac12(1-x_1)`, :math:`u_i=x_i-2x_{i-1}^2+1`: only :math:`x=(1,\dots,1)` solves it."""

    def value(self, x: Tensor) -> Tensor:
        u = x + 1
        u[1:].addcmul_(x[:-1], x[:-1], value=-2)
        u[0] = 0.5 - 0.5 * x[0]
        return u

    def pull_back(self, x: Tensor, v: Tensor) -> Tensor:
        out = v.clone()
        out[0] *= -0.5
        out[:-1].addcmul_(x[:-1], v[1:], value=-4)
        return out

    def jacobian(self, x: Tensor) -> Tensor:
        diagonal = torch.cat([x.new_tensor([-0.5]), torch.ones_like(x[1:])])
        return torch.diag(diagonal) - torch.diag(4 * x[:-1], -1)

    def weighted_curvature(self, x: Tensor, v: Tensor) -> Tensor | None:
        return torch.cat([-4 * v[1:], v.new_zeros(1)])


class PowerOfResidual:
    r"""The power :math:`f(x)=\frac1p\|u(x)\|^p` of the norm of a residual, :math:`p\ge2`.

    With :math:`r=\|u\|` and :math:`q=J^\top u` the gradient is :math:`r^{p-2}q` and

    .. math:: \nabla^2f=\underbrace{r^{p-2}J^\top J+\overbrace{(p-2)r^{p-4}qq^\top}^{\text{fisher}}
              }_{\text{gauss\_newton}}+r^{p-2}\sum_iu_i\nabla^2u_i .

    Args:
        residual: :math:`u`.
        power: :math:`p`.

    Raises:
        ValueError: for a power below 2.
    """

    def __init__(self, residual: Residual, power: float) -> None:
        if power < 2:
            raise ValueError(f"the power must be at least 2, got {power}")
        self.residual, self.power = residual, power

    def value(self, x: Tensor) -> float:
        """Return the objective."""
        return float(self.residual.value(x).norm()) ** self.power / self.power

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """Return both, with one residual."""
        u = self.residual.value(x)
        r = float(u.norm())
        scale = r ** (self.power - 2)
        return scale * r * r / self.power, scale * self.residual.pull_back(x, u)

    def gradient(self, x: Tensor) -> Tensor:
        """Return the gradient, shape ``(n,)``."""
        return self.value_and_gradient(x)[1]

    def fisher_term(self, x: Tensor) -> tuple[float, Tensor]:
        r"""Return :math:`(p-2)r^{p-4}` and :math:`q`; a weight of 0 where :math:`u=0`."""
        u = self.residual.value(x)
        r, q = float(u.norm()), self.residual.pull_back(x, u)
        if r == 0 or self.power == 2:
            return 0.0, q
        return (self.power - 2) * r ** (self.power - 4), q

    def hessian(self, x: Tensor, kind: str = "exact") -> Tensor:
        """Return the matrix of a kind: exact, gauss_newton, fisher. Shape ``(n, n)``.

        Raises:
            ValueError: for another kind.
        """
        if kind not in ("exact", "gauss_newton", "fisher"):
            raise _unknown(kind, ("exact", "gauss_newton", "fisher"))
        weight, q = self.fisher_term(x)
        matrix = weight * torch.outer(q, q)
        if kind == "fisher":
            return matrix
        u, jacobian = self.residual.value(x), self.residual.jacobian(x)
        scale = float(u.norm()) ** (self.power - 2)
        matrix += scale * (jacobian.mT @ jacobian)
        if kind == "exact":
            curvature = self.residual.weighted_curvature(x, u)
            if curvature is not None:
                matrix.diagonal().add_(curvature, alpha=scale)
        return matrix


Curvature = Callable[[Tensor], RegularisedSteps]


class _HasHessian(Protocol):
    def hessian(self, x: Tensor, kind: str = ...) -> Tensor: ...


def dense_curvature(
    problem: _HasHessian,
    kind: str,
    metric: Metric,
    *,
    shift: float = 0.0,
    reuse: bool = False,
) -> Curvature:
    r"""Return a curvature for the Newton method: a dense :math:`H` of a kind, plus ``shift`` times :math:`B`.

    Args:
        problem: has ``hessian(x, kind)``.
        kind: of the approximation.
        metric: :math:`B`.
        shift: a constant error :math:`C_1` on purpose.
        reuse: one eigendecomposition per iterate instead of a factorisation per probe.
    """
    steps = EigenSteps if reuse else CholeskySteps

    def curvature(x: Tensor) -> RegularisedSteps:
        matrix = problem.hessian(x, kind)
        return steps(metric.add_to(matrix, shift) if shift else matrix, metric)

    return curvature


def rank_one_curvature(problem: PowerOfResidual, metric: Metric) -> Curvature:
    """Return a curvature for the Newton method: the Fisher term, solved by Sherman-Morrison."""

    def curvature(x: Tensor) -> RegularisedSteps:
        return RankOneSteps(*problem.fisher_term(x), metric)

    return curvature


def no_curvature(metric: Metric) -> Curvature:
    """Return a curvature for the Newton method: :math:`H=0`, which makes it a gradient method."""

    def curvature(x: Tensor) -> RegularisedSteps:
        return RankOneSteps(0.0, x, metric)

    return curvature


def hessian_error(problem: _HasHessian, kind: str, x: Tensor, metric: Metric) -> float:
    r"""Return :math:`\|\nabla^2f(x)-H(x)\|_*` for a kind of approximation."""
    return metric.operator_norm(problem.hessian(x, "exact") - problem.hessian(x, kind))
