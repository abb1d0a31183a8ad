r"""The exact flow between two events of DADAO, by a closed form.

Between events the six vectors :math:`u=(x,\tilde x,y,\tilde y,z,\tilde z)` of a node obey the linear
equation

.. math:: \dot x=\eta(\tilde x-x),\quad \dot{\tilde x}=\tilde\eta(x-\tilde x),\quad
          \dot y=\alpha(\tilde y-y),\quad \dot{\tilde y}=-\theta(y+z+\nu\tilde x),\quad
          \dot z=\alpha(\tilde z-z),\quad \dot{\tilde z}=\tilde\alpha(z-\tilde z) .

The pairs of :math:`x` and :math:`z` are averages that close at the rates
:math:`r_x=\eta+\tilde\eta` and :math:`r_z=\alpha+\tilde\alpha`; the pair of :math:`y` is a damped
oscillator that they drive. Hence :math:`e^{Ot}=P_0+e^{-r_xt}P_x+e^{-r_zt}P_z+
e^{-\alpha t/2}(\cos\omega t\,P_c+\sin\omega t\,P_s)` with five fixed matrices. The eigenvalue 0 of
:math:`O` is double, so that a numerical eigenvector matrix may be singular: the closed form is not a
luxury.

Source: Nabli and Oyallon (ICML 2023), equation as in the authors' code; closed form derived here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ContinuizedFlow", "DADAOConstants"]


@dataclass(frozen=True)
class DADAOConstants:
    r"""The constants of DADAO: rates of the flow, then factors of the jumps.

    Attributes:
        nu: :math:`\nu`, the part of the quadratic that is split off.
        eta, eta_tilde: exchange of :math:`x` and :math:`\tilde x`.
        alpha, alpha_tilde: exchange of :math:`y`, and of :math:`z` and :math:`\tilde z`.
        theta: the restoring force on :math:`\tilde y`.
        gamma, gamma_tilde: gradient steps of :math:`x` and :math:`\tilde x`.
        delta, delta_tilde: gradient steps of :math:`\tilde y`, which add up.
        beta, beta_tilde: gossip steps of :math:`z` and :math:`\tilde z`.
    """

    nu: float
    eta: float
    eta_tilde: float
    alpha: float
    alpha_tilde: float
    theta: float
    gamma: float
    gamma_tilde: float
    delta: float
    delta_tilde: float
    beta: float
    beta_tilde: float

    @classmethod
    def of(
        cls, mu: float, smoothness: float, chi_1: float, scale: float | None = None
    ) -> DADAOConstants:
        r"""The constants of the paper's method.

        With :math:`\nu=\mu/2` and :math:`s=\sqrt{\nu/L}`: :math:`\eta=\tilde\eta=\tilde\alpha=s/8`,
        :math:`\alpha=\delta=s/4`, :math:`\theta=1/(2s)`, :math:`\gamma=1/(4L)`,
        :math:`\tilde\gamma=1/(4\sqrt{\nu L})`, :math:`\tilde\delta=1`, :math:`\beta=\frac12` and
        :math:`\tilde\beta=2\chi_1/s`.

        Args:
            mu: strong convexity :math:`\mu>0` of every :math:`f_i`.
            smoothness: :math:`L\ge\mu` of every :math:`f_i`.
            chi_1: :math:`\chi_1[\Lambda]` of the *actual* gossip rates, not of rates with sum 1.
            scale: another :math:`s`, for ablations; :math:`\tilde\gamma` does not depend on it.

        Raises:
            ValueError: for numbers outside these ranges.
        """
        if not 0 < mu <= smoothness:
            raise ValueError(f"0 < mu <= smoothness is needed, got mu={mu}, L={smoothness}")
        if not chi_1 > 0:
            raise ValueError(f"chi_1 must be positive, got {chi_1}")
        nu = mu / 2
        s = math.sqrt(nu / smoothness) if scale is None else scale
        return cls(
            nu=nu,
            eta=s / 8,
            eta_tilde=s / 8,
            alpha=s / 4,
            alpha_tilde=s / 8,
            theta=1 / (2 * s),
            gamma=1 / (4 * smoothness),
            gamma_tilde=1 / (4 * math.sqrt(nu * smoothness)),
            delta=s / 4,
            delta_tilde=1.0,
            beta=0.5,
            beta_tilde=2 * chi_1 / s,
        )

    def drift(self) -> Tensor:
        r"""The matrix :math:`O` of :math:`\dot u=Ou`, shape ``(6, 6)``, float64."""
        restore, pull = -self.theta, -self.theta * self.nu
        rows = [
            [-self.eta, self.eta, 0, 0, 0, 0],
            [self.eta_tilde, -self.eta_tilde, 0, 0, 0, 0],
            [0, 0, -self.alpha, self.alpha, 0, 0],
            [0, pull, restore, 0, restore, 0],
            [0, 0, 0, 0, -self.alpha, self.alpha],
            [0, 0, 0, 0, self.alpha_tilde, -self.alpha_tilde],
        ]
        return torch.tensor(rows, dtype=torch.float64)

    def gradient_gain(self) -> Tensor:
        r"""What :math:`u` loses per unit of :math:`r=\nabla f_i(x_i)-\nu x_i-\tilde y_i`, shape ``(6,)``."""
        steps = [self.gamma, self.gamma_tilde, 0.0, -(self.delta + self.delta_tilde), 0.0, 0.0]
        return torch.tensor(steps, dtype=torch.float64)

    def gossip_gain(self) -> Tensor:
        r"""What :math:`u` loses per unit of the difference of :math:`y+z`, shape ``(6,)``."""
        steps = [0.0, 0.0, 0.0, 0.0, self.beta, self.beta_tilde]
        return torch.tensor(steps, dtype=torch.float64)


def _pair(forward: float, backward: float) -> tuple[Tensor, Tensor]:
    """exp(t [[-f, f], [b, -b]]) = mean + exp(-(f + b) t) gap, as two 2 x 2 matrices."""
    total = forward + backward
    if total == 0:
        return torch.eye(2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    weights = torch.tensor([backward, forward], dtype=torch.float64) / total
    mean = weights.expand(2, 2)
    return mean, torch.eye(2, dtype=torch.float64) - mean


class ContinuizedFlow:
    r""":math:`e^{Ot}` for many nodes and elapsed times at once.

    Args:
        constants: one for each node (or a single one for all).
        device: where the matrices live.

    Raises:
        ValueError: if the oscillator is over-damped, :math:`\alpha\ge4\theta`.
    """

    def __init__(self, constants: list[DADAOConstants], device: torch.device | str = "cpu") -> None:
        self.constants = constants
        kinds: dict[DADAOConstants, int] = {}
        for entry in constants:
            kinds.setdefault(entry, len(kinds))
        parts = [_five_matrices(entry) for entry in kinds]
        self.kind = torch.tensor([kinds[entry] for entry in constants], device=device)
        self.matrices = torch.stack([matrices.reshape(5, 36) for matrices, _ in parts]).to(device)
        self.rates = torch.stack([rates for _, rates in parts]).to(device)

    def exponential(self, nodes: Tensor, elapsed: Tensor) -> Tensor:
        r"""Return :math:`e^{Ot}` of the given nodes.

        Args:
            nodes: shape ``(k,)``, integers.
            elapsed: :math:`t\ge0`, shape ``(k,)``.

        Returns:
            Shape ``(k, 6, 6)``.
        """
        kind = self.kind[nodes]
        x_rate, z_rate, damping, frequency = self.rates[kind].unbind(1)
        ring = torch.exp(-damping * elapsed)
        phase = frequency * elapsed
        modes = torch.stack(
            [
                torch.ones_like(elapsed),
                torch.exp(-x_rate * elapsed),
                torch.exp(-z_rate * elapsed),
                ring * torch.cos(phase),
                ring * torch.sin(phase),
            ],
            1,
        )
        if len(self.matrices) == 1:
            return (modes @ self.matrices[0]).view(-1, 6, 6)
        return torch.bmm(modes[:, None], self.matrices[kind]).view(-1, 6, 6)

    def advance(self, state: Tensor, elapsed: Tensor) -> Tensor:
        r"""Return :math:`e^{Ot}u` for the states of all nodes.

        Args:
            state: shape ``(nodes, 6, d)``.
            elapsed: shape ``(nodes,)``.
        """
        nodes = torch.arange(len(state), device=state.device)
        return torch.bmm(self.exponential(nodes, elapsed), state)


def _five_matrices(c: DADAOConstants) -> tuple[Tensor, Tensor]:
    """The matrices P_0, P_x, P_z, P_c, P_s and the rates r_x, r_z, alpha / 2, omega."""
    damping, square = c.alpha / 2, c.alpha * c.theta - c.alpha**2 / 4
    if not square > 0:
        raise ValueError(
            f"the oscillator of y is over-damped: alpha={c.alpha} is not below 4 theta={4 * c.theta}"
        )
    omega = math.sqrt(square)
    oscillator = torch.tensor([[-c.alpha, c.alpha], [-c.theta, 0.0]], dtype=torch.float64)
    turned = (oscillator + damping * torch.eye(2, dtype=torch.float64)) / omega
    matrices = torch.zeros(5, 6, 6, dtype=torch.float64)
    matrices[3, 2:4, 2:4] = torch.eye(2, dtype=torch.float64)
    matrices[4, 2:4, 2:4] = turned
    # (slice of the driving pair, its two rates, its modes, the row of force on the oscillator)
    pairs = (
        (slice(0, 2), c.eta, c.eta_tilde, 1, c.nu, 1),
        (slice(4, 6), c.alpha, c.alpha_tilde, 2, 1.0, 0),
    )
    for place, forward, backward, mode, weight, driver in pairs:
        for index, projector in zip((0, mode), _pair(forward, backward), strict=True):
            rate = 0.0 if index == 0 else forward + backward
            # A force -theta w e^{-rt} on the second coordinate leaves the particular solution
            # -(oscillator + r)^{-1} (0, -theta w) e^{-rt}.
            determinant = rate * (rate - c.alpha) + c.alpha * c.theta
            response = -c.theta * weight / determinant
            shape = torch.tensor([c.alpha, c.alpha - rate], dtype=torch.float64) * response
            matrices[index, place, place] = projector
            matrices[index, 2:4, place] = shape[:, None] * projector[driver]
    # What the particular solutions put there at t = 0 the oscillator takes away again.
    for place in (slice(0, 2), slice(4, 6)):
        start = -matrices[:3, 2:4, place].sum(0)
        matrices[3, 2:4, place] = start
        matrices[4, 2:4, place] = turned @ start
    rates = [c.eta + c.eta_tilde, c.alpha + c.alpha_tilde, damping, omega]
    return matrices, torch.tensor(rates, dtype=torch.float64)
