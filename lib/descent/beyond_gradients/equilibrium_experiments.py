r"""Small settled networks on which every error of equilibrium propagation can be compared with the exact one.

Networks are batched along the leading dimension; each has one input. The recurrent matrix is split into its
symmetric and antisymmetric part, and the latter can be scaled without changing anything else.

Source: protocols of the chapter; the networks are a stand-in for those of Laborieux and Zenke (ICLR 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from descent.beyond_gradients.activations import ACTIVATIONS, Activation
from descent.beyond_gradients.cauchy_derivative import cauchy_derivative, circle
from descent.beyond_gradients.equilibrium_errors import (
    adjoint_error,
    finite_nudge_response,
    online_response,
    response,
    settle,
)
from descent.beyond_gradients.fixed_point_network import (
    FixedPointNetwork,
    LossGradient,
    Wiring,
    cross_entropy_gradient,
)
from descent.beyond_gradients.jacobian_homeostasis import antisymmetric, symmetric

__all__ = [
    "LinearProblem",
    "SettledProblem",
    "geometric_mean",
    "linear_problems",
    "near_kink",
    "relative_error",
    "small_problems",
]

RELAXATION = 80


@dataclass(frozen=True)
class SettledProblem:
    """Networks at their free fixed points, with the exact errors.

    Attributes:
        network: real, stacked along the first dimension.
        drive: shape ``(nets, 1, n)``.
        targets: one-hot, shape ``(nets, 1, classes)``.
        state: free fixed points, shape of ``drive``.
        exact: the exact response, shape of ``drive``.
        true: the true error, shape of ``drive``.
    """

    network: FixedPointNetwork
    drive: Tensor
    targets: Tensor
    state: Tensor
    exact: Tensor
    true: Tensor

    @classmethod
    def settle(
        cls, network: FixedPointNetwork, drive: Tensor, targets: Tensor, steps: int = RELAXATION
    ) -> SettledProblem:
        """Relax freely from zero and compute both errors at the fixed points."""
        state = network.relax(drive, steps)
        loss = cross_entropy_gradient(network, targets)(network.activation.function(state))
        exact, true = response(network, state, loss), adjoint_error(network, state, loss)
        return cls(network, drive, targets, state, exact, true)

    def _complex(self) -> tuple[FixedPointNetwork, Tensor, Tensor, LossGradient]:
        network = self.network.to(torch.complex128)
        gradient = cross_entropy_gradient(network, self.targets)
        return network, self.drive.to(torch.complex128), self.state.to(torch.complex128), gradient

    def estimate(self, radius: float, points: int, steps: int = RELAXATION) -> Tensor:
        """The response from ``points`` nudges of size ``radius``; as ``finite_nudge_response``."""
        network, drive, state, gradient = self._complex()
        return finite_nudge_response(network, drive, state, gradient, radius, points, steps)

    def real_nudges_estimate(self, radius: float, points: int) -> Tensor:
        """The same Fourier sum when every nudge is replaced by its real part: a control."""
        network, drive, state, gradient = self._complex()
        return cauchy_derivative(
            lambda z: settle(network, drive, RELAXATION, state, z.real, gradient), radius, points
        )

    def online(self, radius: float, points: int, steps: int, turns: int) -> Tensor:
        """The response from one run with a rotating nudge; as ``online_response``."""
        network, drive, state, gradient = self._complex()
        return online_response(network, drive, state, gradient, radius, points, steps, turns)[0]

    def orbit(self, net: int, radius: float, points: int) -> Tensor:
        """Settled activities of one network along the nudge circle, complex, shape ``(points, n)``."""
        network, drive, state, gradient = self._complex()
        network = network.select(slice(net, net + 1))
        gradient = cross_entropy_gradient(network, self.targets[net : net + 1])
        nudges = torch.tensor(circle(radius, points), dtype=torch.complex128, device=drive.device)
        start = state[net : net + 1].expand(points, -1, -1)
        drive = drive[net : net + 1].expand(points, -1, -1)
        state = network.relax(drive, RELAXATION, start, nudges[:, None, None], gradient)
        return network.activation.function(state)[:, 0]


def relative_error(estimate: Tensor, reference: Tensor) -> Tensor:
    """Norm of the difference over the norm of the reference, per network; last two dimensions reduced."""
    return (estimate - reference).flatten(-2).norm(dim=-1) / reference.flatten(-2).norm(dim=-1)


def small_problems(
    generators: Sequence[torch.Generator],
    asymmetry: float = 1.0,
    gain: float = 0.45,
    units: int = 12,
    classes: int = 3,
    activation: Activation = ACTIVATIONS["shifted sigmoid"],
    device: torch.device | str = "cpu",
) -> SettledProblem:
    r"""Draw one network per generator, :math:`W=W_{\mathrm{sym}}+a\,W_{\mathrm{anti}}`, and settle it.

    Entries of the raw matrix are :math:`N(0,g^2/n)` without diagonal, inputs :math:`N(0.4,0.25)`; the readout is
    :math:`N(0,0.36/\text{classes})`; the label is class 0.

    Args:
        generators: one per network; the same generators give the same raw matrices for every ``asymmetry``.
        asymmetry: :math:`a`; 0 for an energy-based network, 1 for independent entries.
        gain: :math:`g`; below 1/2 the relaxation contracts fast.
        units: :math:`n`.
        classes: output units and logits.
        activation: of all units.
        device: of the tensors.

    Returns:
        The settled networks, float64.
    """
    recurrent, drives, readouts = [], [], []
    for generator in generators:

        def normal(*shape: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        raw = (gain / units**0.5 * normal(units, units)).fill_diagonal_(0)
        recurrent.append(symmetric(raw) + asymmetry * antisymmetric(raw))
        drives.append(0.4 + 0.5 * normal(1, units))
        readouts.append(0.6 / classes**0.5 * normal(classes, classes))
    wiring = Wiring((units - classes, classes), ((0, 0), (0, 1), (1, 0), (1, 1)))
    nets, drive = len(recurrent), torch.stack(drives).to(device)
    network = FixedPointNetwork(
        wiring,
        torch.stack(recurrent).to(device),
        drive.new_zeros(nets, units - classes, 1),
        drive.new_zeros(nets, units),
        torch.stack(readouts).to(device),
        drive.new_zeros(nets, classes),
        activation,
    )
    targets = drive.new_zeros(nets, 1, classes)
    targets[..., 0] = 1
    return SettledProblem.settle(network, drive, targets)


def near_kink(problem: SettledProblem, distance: float = 0.001) -> SettledProblem:
    """Shift the drive of the first output unit until it rests ``distance`` above zero.

    Args:
        problem: networks whose activation has a kink at zero.
        distance: positive.

    Returns:
        The problems settled anew.
    """
    unit = problem.network.wiring.layer(-1).start
    drive = problem.drive.clone()
    for _ in range(50):
        state = problem.network.relax(drive, RELAXATION)
        drive[..., unit] += distance - state[..., unit]
    return SettledProblem.settle(problem.network, drive, problem.targets)


@dataclass(frozen=True)
class LinearProblem:
    r"""The linear system :math:`Ju+x+\beta H(u-y)=0` with a quadratic loss, solved and not relaxed.

    Attributes:
        jacobian: :math:`J`, shape ``(nets, n, n)``.
        drive: :math:`x`, shape ``(nets, n)``.
        hessian: :math:`H`, diagonal and positive, shape ``(nets, n)``.
        target: :math:`y`, shape ``(nets, n)``.
    """

    jacobian: Tensor
    drive: Tensor
    hessian: Tensor
    target: Tensor

    def solve(self, nudge: complex) -> Tensor:
        r"""Return :math:`u^*_\beta`, complex, shape ``(nets, n)``."""
        matrix = self.jacobian + nudge * torch.diag_embed(self.hessian).to(torch.complex128)
        right = nudge * (self.hessian * self.target) - self.drive
        return torch.linalg.solve(matrix, right[..., None])[..., 0]

    def exact(self) -> Tensor:
        r"""Return :math:`-J^{-1}H(u^*_0-y)`, shape ``(nets, n)``."""
        free = torch.linalg.solve(self.jacobian, -self.drive[..., None])[..., 0]
        loss = self.hessian * (free - self.target)
        return torch.linalg.solve(self.jacobian, -loss[..., None])[..., 0]

    def radius(self) -> Tensor:
        r"""Return the distance from 0 to the nearest singular nudge, :math:`\min|\lambda(H^{-1}J)|`."""
        return torch.linalg.eigvals(self.jacobian / self.hessian[..., None]).abs().amin(-1)

    def relative_error(self, fraction: float, points: int) -> Tensor:
        """Error of the estimate at ``fraction`` of each system's radius, shape ``(nets,)``."""
        radii = self.radius().tolist()
        errors = []
        for k, radius in enumerate(radii):
            only = slice(k, k + 1)
            one = LinearProblem(
                self.jacobian[only], self.drive[only], self.hessian[only], self.target[only]
            )
            estimate = cauchy_derivative(one.solve, fraction * radius, points)
            errors.append(relative_error(estimate[:, None], one.exact()[:, None])[0])
        return torch.stack(errors)


def linear_problems(
    generators: Sequence[torch.Generator], units: int = 3, device: torch.device | str = "cpu"
) -> LinearProblem:
    r"""Draw :math:`J=-I-\frac{1}{2n}GG^\top+\frac12(G'-G'^\top)/\sqrt n`, so that :math:`S` is negative definite.

    Args:
        generators: one per system.
        units: :math:`n`.
        device: of the tensors.

    Returns:
        The systems, float64; the loss Hessian is uniform in [1/2, 3/2].
    """
    jacobians, drives, hessians, targets = [], [], [], []
    for g in generators:
        first, second = torch.randn(2, units, units, generator=g, dtype=torch.float64)
        identity = torch.eye(units, dtype=torch.float64)
        jacobians.append(
            -identity - first @ first.T / (2 * units) + antisymmetric(second) / units**0.5
        )
        x, y = torch.randn(2, units, generator=g, dtype=torch.float64)
        drives.append(x)
        targets.append(y)
        hessians.append(0.5 + torch.rand(units, generator=g, dtype=torch.float64))
    parts: list[Tensor] = [
        torch.stack(p).to(device) for p in (jacobians, drives, hessians, targets)
    ]
    return LinearProblem(*parts)


def geometric_mean(values: Tensor) -> Tensor:
    """Geometric mean over the last dimension."""
    return values.log().mean(-1).exp()
