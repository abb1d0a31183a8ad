r"""A small Fourier network that turns an initial field into bases over space and time, with the initial field as the first basis.

.. math:: b_0(t,x,y)=\omega_0(x,y),\qquad b_n(t,x,y)=\frac t{t_{\text{end}}}\,f_n(t,x,y;\omega_0)\quad(n\ge1),

so that at the first instant only the weight of the first basis matters. Without a constraint the sum of all bases is the
usual ansatz with the initial condition built in.

Source: Chalapathi, Du and Krishnapriyan (ICLR 2024), Section 4.2 and the official code, where the initial field is added behind
the constraint; as a basis of its own it needs no change of the layer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import gelu

from descent.physics.fourier_layer import Parameters, spectral_convolution, uniform_parameters

__all__ = ["FieldBasis"]


class FieldBasis:
    """Fourier layers over time and two periodic axes, replicates as one batch.

    Args:
        outputs: number of bases besides the initial field.
        width: channels.
        modes: kept along each of the three axes.
        layers: number of Fourier layers.
        activate: whether GELU follows the last layer.
    """

    def __init__(
        self,
        outputs: int,
        width: int = 12,
        modes: tuple[int, int, int] = (4, 5, 5),
        layers: int = 3,
        activate: bool = True,
    ) -> None:
        self.outputs, self.width, self.modes, self.layers = outputs, width, modes, layers
        self.activate = activate

    def initialise(self, replicates: int, generator: torch.Generator) -> Parameters:
        """Draw parameters.

        Args:
            replicates: number S of networks.
            generator: on the CPU.

        Returns:
            Parameters by name, float32, leading dimension S.
        """
        s, c, (mt, mx, my) = replicates, self.width, self.modes
        parameters = {
            "lift": uniform_parameters((s, 4, c), 4, generator),
            "last": uniform_parameters((s, c, self.outputs), c, generator),
        }
        for k in range(self.layers):
            shape = (s, 2 * mt, 2 * mx, my, c, c, 2)
            parameters[f"spectrum{k}"] = torch.randn(shape, generator=generator) / (2 * c) ** 0.5
            parameters[f"skip{k}"] = uniform_parameters((s, c, c), c, generator)
        return parameters

    def __call__(
        self,
        parameters: Parameters,
        initial: Tensor,
        shape: tuple[int, int, int],
        horizon: float = 1.0,
    ) -> Tensor:
        """Evaluate the bases.

        Args:
            parameters: of :meth:`initialise`.
            initial: fields, shape ``(S, B, points, points)``.
            shape: instants and points, each at least twice the modes.
            horizon: not used; the last instant is 1 in the network's time.

        Returns:
            Shape ``(S, B, *shape, 1 + outputs)``.
        """
        (s, b), (nt, nx, ny) = initial.shape[:2], shape
        dtype = parameters["lift"].dtype
        still = initial.to(dtype)[:, :, None].expand(s, b, nt, nx, ny)
        t = torch.linspace(0, 1, nt, dtype=dtype, device=still.device)[:, None, None]
        x = torch.arange(nx, dtype=dtype, device=still.device)[:, None] * (2 * math.pi / nx)
        y = torch.arange(ny, dtype=dtype, device=still.device) * (2 * math.pi / ny)
        channels = [t, torch.cos(x) + torch.sin(y), torch.sin(x) + torch.cos(y)]
        inputs = torch.stack([*(c.expand_as(still) for c in channels), still], -1)
        h = inputs.reshape(s, -1, 4) @ parameters["lift"]
        for k in range(self.layers):
            kernel = torch.view_as_complex(parameters[f"spectrum{k}"])
            smooth = spectral_convolution(h.reshape(s, b, nt, nx, ny, -1), kernel, norm="forward")
            h = gelu(smooth.reshape(s, -1, self.width) + h @ parameters[f"skip{k}"])
        h = h @ parameters["last"]
        h = (gelu(h) if self.activate else h).reshape(s, b, nt, nx, ny, -1)
        h = h - h.mean((3, 4), keepdim=True)
        return torch.cat((still[..., None], t[..., None] * h), -1)
