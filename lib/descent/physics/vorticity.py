r"""Two-dimensional Navier-Stokes in vorticity form on the periodic unit square, for a constraint layer.

.. math:: \omega_t+u\,\omega_x+v\,\omega_y=\nu\,\Delta\omega,\qquad
          (u,v)=(\psi_y,-\psi_x),\quad-\Delta\psi=\omega .

Spatial derivatives are spectral, those in time are differences. The residual at a point is a polynomial in six numbers that are
linear in the vorticity.

Source: Chalapathi, Du and Krishnapriyan (ICLR 2024), Section 4.2, at Reynolds number 1e4 on 64 points a side in training. What is
here is a smaller and smoother problem.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from descent.physics.finite_differences import first_difference

__all__ = ["Vorticity"]


class Vorticity:
    r"""The equation on a grid of instants and periodic points.

    Args:
        times: number of instants from 0 to ``end`` inclusive.
        points: along each side of the unit square, even.
        end: last instant.
        viscosity: :math:`\nu>0`.

    Raises:
        ValueError: for an odd or small grid, or a viscosity that is not positive.
    """

    channels = 6

    def __init__(
        self, times: int = 13, points: int = 24, end: float = 1.0, viscosity: float = 1e-3
    ) -> None:
        if times < 3 or points < 8 or points % 2 or viscosity <= 0:
            raise ValueError(
                "three instants, an even number of at least 8 points and a positive viscosity needed, "
                f"got {times}, {points}, {viscosity}"
            )
        self.shape = (times, points, points)
        self.end, self.viscosity, self.dt = end, viscosity, end / (times - 1)

    def _wave_numbers(self, like: Tensor, points: int) -> tuple[Tensor, Tensor]:
        """Wave numbers along x and y of a real transform over the last two axes; no derivative at Nyquist."""
        device = like.device
        kx = 2 * math.pi * torch.fft.fftfreq(points, 1 / points, device=device, dtype=like.dtype)
        ky = 2 * math.pi * torch.fft.rfftfreq(points, 1 / points, device=device, dtype=like.dtype)
        kx[points // 2], ky[-1] = 0, 0
        return kx[:, None], ky[None]

    def _space(self, field: Tensor) -> tuple[Tensor, ...]:
        """Velocity, gradient and Laplacian of a vorticity; points on the last two axes."""
        n = field.shape[-1]
        kx, ky = self._wave_numbers(field, n)
        square = kx**2 + ky**2
        inverse = torch.where(square > 0, 1 / square.clamp(min=1.0), 0)
        spectrum = torch.fft.rfft2(field)
        stack = torch.stack(
            (
                1j * ky * inverse * spectrum,
                -1j * kx * inverse * spectrum,
                1j * kx * spectrum,
                1j * ky * spectrum,
                -square * spectrum,
            )
        )
        return torch.fft.irfft2(stack, s=(n, n)).unbind(0)

    def operators(self, field: Tensor) -> Tensor:
        r"""Apply :math:`\omega_t,u,v,\omega_x,\omega_y,\Delta\omega`.

        Args:
            field: vorticity or bases, shape ``(..., times, points, points, N)``.

        Returns:
            Shape ``(..., 6, times, points, points, N)``.
        """
        space = (g.movedim(-3, -1) for g in self._space(field.movedim(-1, -3)))
        return torch.stack((first_difference(field, self.dt, -4), *space), -5)

    def value(self, z: Tensor) -> Tensor:
        """The residual.

        Args:
            z: shape ``(..., 6, m)``.

        Returns:
            Shape ``(..., m)``.
        """
        wt, u, v, wx, wy, lap = z.unbind(-2)
        return wt + u * wx + v * wy - self.viscosity * lap

    def derivatives(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The residual and its gradient in the six numbers.

        Args:
            z: shape ``(..., 6, m)``.

        Returns:
            Shapes ``(..., m)`` and ``(..., 6, m)``.
        """
        _, u, v, wx, wy, _ = z.unbind(-2)
        one = torch.ones_like(u)
        return self.value(z), torch.stack((one, wx, wy, u, v, -self.viscosity * one), -2)

    def curvature(self, z: Tensor) -> dict[tuple[int, int], Tensor]:
        """The non-zero second derivatives: velocity times gradient.

        Args:
            z: shape ``(..., 6, m)``.

        Returns:
            Ones for the pairs (u, w_x) and (v, w_y).
        """
        one = torch.ones_like(z[..., 0, :])
        return {(1, 3): one, (2, 4): one}

    def linear_rows(self, field: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of the initial condition, relative to its root mean square, at every second point of both axes.

        Args:
            field: bases, shape ``(..., times, points, points, N)``.
            initial: vorticity at time 0, shape ``(..., points, points)``.

        Returns:
            Matrix ``(..., points**2 / 4, N)`` and target.
        """
        scale = initial.square().mean((-2, -1), keepdim=True).sqrt()
        begin = field[..., 0, ::2, ::2, :] / scale[..., None]
        return begin.flatten(-3, -2), (initial / scale)[..., ::2, ::2].flatten(-2)

    def violations(self, u: Tensor, initial: Tensor) -> dict[str, Tensor]:
        """Norms of what a vorticity leaves unsatisfied.

        Args:
            u: shape ``(..., times, points, points)``.
            initial: shape ``(..., points, points)``.

        Returns:
            ``equation`` (Euclidean norm over the grid), ``initial`` (relative) and ``boundary`` (0: periodic).
        """
        off = (u[..., 0, :, :] - initial).flatten(-2).norm(dim=-1)
        equation = self.value(self.operators(u[..., None])[..., 0].flatten(-3)).norm(dim=-1)
        return {
            "equation": equation,
            "initial": off / initial.flatten(-2).norm(dim=-1),
            "boundary": torch.zeros_like(off),
        }

    def random_initial(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        r"""Draw smooth random vorticities of root mean square 1: Gaussian, amplitude :math:`\exp(-(k/4)^2)`.

        Args:
            shape: leading axes.
            generator: on the CPU.

        Returns:
            float64, shape ``(*shape, points, points)``, mean 0.
        """
        n = self.shape[1]
        noise = torch.randn(*shape, n, n, generator=generator, dtype=torch.float64)
        kx, ky = self._wave_numbers(noise, n)
        k = (kx**2 + ky**2).sqrt() / (2 * math.pi)
        window = torch.where(k > 0, torch.exp(-((k / 4) ** 2)), 0)
        window[n // 2], window[:, -1] = 0, 0
        field = torch.fft.irfft2(window * torch.fft.rfft2(noise), s=(n, n))
        return field / field.square().mean((-2, -1), keepdim=True).sqrt()

    def reference(self, initial: Tensor, refine: int = 2, substeps: int = 16) -> Tensor:
        """Solve by the spectral method on a finer grid, without aliasing, fourth-order Runge-Kutta in time.

        Args:
            initial: shape ``(B, points, points)``.
            refine: how much finer.
            substeps: steps between instants.

        Returns:
            Shape ``(B, times, points, points)``.
        """
        n = self.shape[1]
        fine, h = n * refine, self.dt / substeps
        w = _resample(initial.double(), fine)
        kx, ky = self._wave_numbers(w, fine)
        cut = 2 * math.pi * fine / 3
        mask = (kx.abs() < cut) & (ky.abs() < cut)

        def rate(field: Tensor) -> Tensor:
            u, v, wx, wy, lap = self._space(field)
            advected = torch.fft.irfft2(mask * torch.fft.rfft2(u * wx + v * wy), s=(fine, fine))
            return self.viscosity * lap - advected

        states = [w]
        for _ in range(self.shape[0] - 1):
            for _ in range(substeps):
                a = rate(w)
                b = rate(w + h / 2 * a)
                c = rate(w + h / 2 * b)
                w = w + h / 6 * (a + 2 * b + 2 * c + rate(w + h * c))
            states.append(w)
        return _resample(torch.stack(states, 1), n)


def _resample(field: Tensor, points: int) -> Tensor:
    """Change the number of periodic points by padding or cutting the spectrum."""
    n, low = field.shape[-1], min(field.shape[-1], points) // 2
    spectrum = torch.fft.rfft2(field)
    result = spectrum.new_zeros(*spectrum.shape[:-2], points, points // 2 + 1)
    result[..., :low, :low] = spectrum[..., :low, :low]
    result[..., -low + 1 :, :low] = spectrum[..., -low + 1 :, :low]
    return torch.fft.irfft2(result, s=(points, points)) * (points / n) ** 2
