r"""Networks that give basis functions on a space-time grid, several replicates as one batch.

A replicate is a network with its own parameters; all carry a leading dimension :math:`S`. The last activation is GELU
for bases of a constraint and none for a network that outputs the solution itself.

Source: Chalapathi, Du and Krishnapriyan (ICLR 2024), Section 4.1 and the official code (Fourier layers, GELU behind
the last layer of constrained models). The perceptron and its features are the small stand-in of this book.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import gelu

from descent.physics.fourier_layer import Parameters, spectral_convolution, uniform_parameters

__all__ = ["BasisNetwork", "FourierBasis", "PerceptronBasis"]


class BasisNetwork(Protocol):
    """A function from parameters and initial conditions to bases on a grid."""

    def initialise(self, replicates: int, generator: torch.Generator) -> Parameters:
        """Draw parameters with a leading dimension of replicates."""
        ...

    def __call__(
        self, parameters: Parameters, initial: Tensor, shape: Any, horizon: float = 1.0
    ) -> Tensor:
        """Bases of shape ``(S, B, *shape, N)`` for initial values ``(S, B)`` or fields."""
        ...


def _grid(shape: tuple[int, int], horizon: float, device: torch.device) -> tuple[Tensor, Tensor]:
    t = torch.linspace(0, horizon, shape[0], device=device)[:, None].expand(shape)
    x = torch.linspace(0, 1, shape[1], device=device)[None, :].expand(shape)
    return t, x


class PerceptronBasis:
    r"""A perceptron with tanh units on the features :math:`5u_0,\ t',\ x,\ \sqrt{t'+.02},\ x/\sqrt{t'+.02}`.

    Args:
        outputs: number N of bases.
        width: of the three hidden layers.
        activate: whether GELU follows the last layer.
    """

    def __init__(self, outputs: int, width: int = 64, activate: bool = True) -> None:
        self.sizes = (5, width, width, width, outputs)
        self.activate = activate

    def initialise(self, replicates: int, generator: torch.Generator) -> Parameters:
        """Draw weights and biases uniformly in ±1/√(fan-in).

        Args:
            replicates: number S of networks.
            generator: on the CPU.

        Returns:
            Parameters by name, float32, leading dimension S.
        """
        parameters = {}
        for k, (a, b) in enumerate(zip(self.sizes[:-1], self.sizes[1:], strict=True)):
            parameters[f"weight{k}"] = uniform_parameters((replicates, a, b), a, generator)
            parameters[f"bias{k}"] = uniform_parameters((replicates, 1, b), a, generator)
        return parameters

    def __call__(
        self, parameters: Parameters, initial: Tensor, shape: tuple[int, int], horizon: float = 1.0
    ) -> Tensor:
        """Evaluate the bases.

        Args:
            parameters: of :meth:`initialise`.
            initial: shape ``(S, B)``.
            shape: instants and points of the grid.
            horizon: last instant over that of the equation.

        Returns:
            Shape ``(S, B, *shape, N)``.
        """
        weight = parameters["weight0"]
        t, x = _grid(shape, horizon, weight.device)
        root = (t + 0.02).sqrt()
        common = torch.stack((t, x, root, x / root), -1).to(weight.dtype)
        # the first layer is a sum of a part for the point and a part for the initial condition
        at_point = common.flatten(0, 1) @ weight[:, 1:] + parameters["bias0"]
        of_initial = 5 * initial.to(weight.dtype)[..., None] * weight[:, :1]
        h = torch.tanh(at_point[:, None] + of_initial[:, :, None]).flatten(1, 2)
        last = len(self.sizes) - 2
        for k in range(1, last):
            h = torch.tanh(torch.baddbmm(parameters[f"bias{k}"], h, parameters[f"weight{k}"]))
        h = torch.baddbmm(parameters[f"bias{last}"], h, parameters[f"weight{last}"])
        h = gelu(h) if self.activate else h
        return h.reshape(*initial.shape, *shape, -1)


class FourierBasis:
    r"""A small Fourier neural operator on the inputs :math:`(t',x,u_0)`.

    .. math:: h\leftarrow\operatorname{gelu}\bigl(\mathcal F^{-1}(R\cdot\mathcal F h)+Wh\bigr)

    with R on the lowest modes of both axes, between a lift and two pointwise layers.

    Args:
        outputs: number N of bases.
        width: channels.
        modes: kept along each axis.
        layers: number of Fourier layers.
        activate: whether GELU follows the last layer.
    """

    def __init__(
        self,
        outputs: int,
        width: int = 16,
        modes: int = 6,
        layers: int = 3,
        activate: bool = True,
    ) -> None:
        self.outputs, self.width, self.modes, self.layers = outputs, width, modes, layers
        self.activate = activate

    def initialise(self, replicates: int, generator: torch.Generator) -> Parameters:
        """Draw parameters; spectral ones uniformly in [0, 1/width²), as in the usual implementation.

        Args:
            replicates: number S of networks.
            generator: on the CPU.

        Returns:
            Parameters by name, float32, leading dimension S; spectral ones end in real and imaginary part.
        """
        s, c, m = replicates, self.width, self.modes
        parameters = {
            "lift": uniform_parameters((s, 3, c), 3, generator),
            "lift_bias": uniform_parameters((s, 1, c), 3, generator),
            "first": uniform_parameters((s, c, 64), c, generator),
            "first_bias": uniform_parameters((s, 1, 64), c, generator),
            "last": uniform_parameters((s, 64, self.outputs), 64, generator),
            "last_bias": uniform_parameters((s, 1, self.outputs), 64, generator),
        }
        for k in range(self.layers):
            parameters[f"spectrum{k}"] = (
                torch.rand((s, 2 * m, m, c, c, 2), generator=generator) / c**2
            )
            parameters[f"skip{k}"] = uniform_parameters((s, c, c), c, generator)
            parameters[f"skip{k}_bias"] = uniform_parameters((s, 1, c), c, generator)
        return parameters

    def __call__(
        self, parameters: Parameters, initial: Tensor, shape: tuple[int, int], horizon: float = 1.0
    ) -> Tensor:
        """Evaluate the bases.

        Args:
            parameters: of :meth:`initialise`.
            initial: shape ``(S, B)``.
            shape: instants and points of the grid, each at least twice the modes.
            horizon: last instant over that of the equation.

        Returns:
            Shape ``(S, B, *shape, N)``.
        """
        p, (s, b), (nt, nx) = parameters, initial.shape, shape
        t, x = _grid(shape, horizon, p["lift"].device)
        value = initial.to(p["lift"].dtype)[..., None, None].expand(s, b, nt, nx)
        inputs = torch.stack((t.expand_as(value), x.expand_as(value), value), -1)
        h = torch.baddbmm(p["lift_bias"], inputs.reshape(s, -1, 3), p["lift"])
        for k in range(self.layers):
            kernel = torch.view_as_complex(p[f"spectrum{k}"])
            smooth = spectral_convolution(h.reshape(s, b, nt, nx, -1), kernel)
            skip = torch.baddbmm(p[f"skip{k}_bias"], h, p[f"skip{k}"])
            h = gelu(smooth.reshape(s, -1, self.width) + skip)
        h = gelu(torch.baddbmm(p["first_bias"], h, p["first"]))
        h = torch.baddbmm(p["last_bias"], h, p["last"])
        h = gelu(h) if self.activate else h
        return h.reshape(s, b, nt, nx, self.outputs)
