r"""Entropic optimal transport and its concave dual potential.

With cost :math:`C\in\mathbb R^{n\times m}`, marginals :math:`r\in\mathbb R^n_{>0}`, :math:`c\in\mathbb R^m_{>0}` of equal
total and :math:`\eta>0` the problem is

.. math:: \min_{P\mathbf 1=r,\;P^\top\mathbf 1=c}\ \langle C,P\rangle+\frac1\eta\sum_{ij}P_{ij}\log P_{ij} .

Its dual is the unconstrained maximisation over :math:`x\in\mathbb R^n`, :math:`y\in\mathbb R^m` of

.. math:: f(x,y)=-\frac1\eta\sum_{ij}P_{ij}(x,y)+\langle r,x\rangle+\langle c,y\rangle,\qquad
          P_{ij}(x,y)=e^{\eta(x_i+y_j-C_{ij})-1} .

Source: Tang et al. (ICLR 2024), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LEAST_EXPONENT", "EntropicOT"]

# exp(-650) is 5e-283: no sum notices it, and it keeps products clear of the subnormal numbers, with which a CPU
# computes ten times slower.
LEAST_EXPONENT = -650.0


@dataclass(frozen=True)
class EntropicOT:
    r"""One entropic transport problem; everything the solvers need of it is a method.

    Args:
        cost: :math:`C`, shape ``(n, m)``, ``float64``.
        source: :math:`r`, shape ``(n,)``, positive.
        target: :math:`c`, shape ``(m,)``, positive, same total as ``source``.
        eta: :math:`\eta>0`, the inverse of the regularisation strength, in units of one over cost.

    Raises:
        TypeError: if a tensor is not ``float64``. At the accuracies of this method (marginal errors of 1e-13) single
            precision has no digits left.
        ValueError: for shapes that disagree, non-finite costs, marginals that are not positive or whose totals
            differ by more than 1e-12 (relative), or ``eta`` that is not positive and finite.
    """

    cost: Tensor
    source: Tensor
    target: Tensor
    eta: float

    def __post_init__(self) -> None:
        for name in ("cost", "source", "target"):
            dtype = getattr(self, name).dtype
            if dtype != torch.float64:
                raise TypeError(
                    f"{name} is {dtype}, but must be torch.float64; convert with .double()"
                )
        if self.cost.ndim != 2 or 0 in self.cost.shape:
            raise ValueError(f"cost must have shape (n, m), got {tuple(self.cost.shape)}")
        expected = ((self.cost.shape[0],), (self.cost.shape[1],))
        if (self.source.shape, self.target.shape) != expected:
            raise ValueError(
                f"a cost of shape {tuple(self.cost.shape)} needs marginals of shapes {expected[0]} and "
                f"{expected[1]}, got {tuple(self.source.shape)} and {tuple(self.target.shape)}"
            )
        if not bool(self.cost.isfinite().all()):
            raise ValueError("cost has entries that are not finite")
        for name in ("source", "target"):
            marginal = getattr(self, name)
            if not bool((marginal > 0).all() & marginal.isfinite().all()):
                index = int((~((marginal > 0) & marginal.isfinite())).nonzero()[0])
                raise ValueError(
                    f"{name}[{index}] = {float(marginal[index]):g}, but every marginal must be positive and finite "
                    "(its logarithm is taken); drop empty points or mix in a small uniform background"
                )
        totals = float(self.source.sum()), float(self.target.sum())
        if abs(totals[0] - totals[1]) > 1e-12 * totals[0]:
            raise ValueError(
                f"source and target must have the same total, got {totals[0]!r} and {totals[1]!r}"
            )
        if not 0.0 < self.eta < float("inf"):
            raise ValueError(f"eta must be positive and finite, got {self.eta}")

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, m)``."""
        return self.cost.shape[0], self.cost.shape[1]

    def start(self) -> tuple[Tensor, Tensor]:
        """Return the potentials ``x = 0`` and ``y = 0``."""
        return torch.zeros_like(self.source), torch.zeros_like(self.target)

    def exponent(self, x: Tensor, y: Tensor) -> Tensor:
        r"""Return :math:`\log P=\eta(x_i+y_j-C_{ij})-1`.

        Args:
            x: row potential, shape ``(n,)``, units of cost.
            y: column potential, shape ``(m,)``, units of cost.

        Returns:
            Shape ``(n, m)``.
        """
        return torch.add(x.unsqueeze(1), y).sub_(self.cost).mul_(self.eta).sub_(1.0)

    def plan(self, x: Tensor, y: Tensor) -> Tensor:
        r"""Return :math:`P(x,y)=e^{\eta(x_i+y_j-C_{ij})-1}`.

        Args:
            x: row potential, shape ``(n,)``.
            y: column potential, shape ``(m,)``.

        Returns:
            The plan, shape ``(n, m)``. Entries below ``exp(-650)`` are set to that; too large ones become ``inf``.
        """
        return self.exponent(x, y).clamp_min_(LEAST_EXPONENT).exp_()

    def potential(self, x: Tensor, y: Tensor, plan: Tensor | None = None) -> Tensor:
        r"""Return the dual objective :math:`f(x,y)`, a scalar to be maximised.

        Args:
            x: row potential, shape ``(n,)``.
            y: column potential, shape ``(m,)``.
            plan: :math:`P(x,y)` where it is at hand, to save its evaluation.

        Returns:
            A scalar, in units of cost; ``-inf`` where the plan overflows.
        """
        plan = self.plan(x, y) if plan is None else plan
        return self.source @ x + self.target @ y - plan.sum() / self.eta

    def gradient(self, x: Tensor, y: Tensor, plan: Tensor | None = None) -> Tensor:
        r"""Return :math:`\nabla f=(r-P\mathbf 1,\;c-P^\top\mathbf 1)`.

        Args:
            x: row potential, shape ``(n,)``.
            y: column potential, shape ``(m,)``.
            plan: :math:`P(x,y)` where it is at hand.

        Returns:
            Shape ``(n + m,)``.
        """
        plan = self.plan(x, y) if plan is None else plan
        return torch.cat([self.source - plan.sum(1), self.target - plan.sum(0)])

    def hessian(self, x: Tensor, y: Tensor, plan: Tensor | None = None) -> Tensor:
        r"""Return the dense :math:`\nabla^2f=-\eta\begin{pmatrix}\mathrm{diag}(P\mathbf 1)&P\\P^\top&\mathrm{diag}(P^\top\mathbf 1)\end{pmatrix}`.

        Args:
            x: row potential, shape ``(n,)``.
            y: column potential, shape ``(m,)``.
            plan: :math:`P(x,y)` where it is at hand.

        Returns:
            Shape ``(n + m, n + m)``, negative semi-definite, singular along :math:`(\mathbf 1,-\mathbf 1)`.
        """
        plan = self.plan(x, y) if plan is None else plan
        n = plan.shape[0]
        blocks = torch.diag(torch.cat([plan.sum(1), plan.sum(0)]))
        blocks[:n, n:] = plan
        blocks[n:, :n] = plan.T
        return -self.eta * blocks

    def marginal_error(self, plan: Tensor) -> float:
        r"""Return :math:`e=\|P\mathbf 1-r\|_1+\|P^\top\mathbf 1-c\|_1`.

        Args:
            plan: :math:`P`, shape ``(n, m)``.

        Returns:
            The error, in units of mass.
        """
        rows = (plan.sum(1) - self.source).abs().sum()
        return float(rows + (plan.sum(0) - self.target).abs().sum())

    def transport_cost(self, plan: Tensor) -> float:
        r"""Return :math:`\langle C,P\rangle`.

        Args:
            plan: :math:`P`, shape ``(n, m)``.

        Returns:
            The cost of the plan, without the entropy.
        """
        return float((self.cost * plan).sum())
