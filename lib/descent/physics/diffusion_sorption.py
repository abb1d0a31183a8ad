r"""Diffusion with sorption in one space dimension: the equation, its rows in a constraint, and a reference solution.

.. math:: u_t=\frac{D}{R(u)}u_{xx},\quad R(u)=1+\frac{1-\phi}{\phi}\rho_sk\,n_f\,(u+10^{-6})^{n_f-1},
          \quad u(0,t)=1,\quad u(1,t)+D\,u_x(1,t)=0,\quad u(x,0)=u_0 .

Space is :math:`[0,1]`, time runs to 500 seconds. For :math:`u\le0` the retardation takes its value at 0.

Source: PDEBench (Takamoto et al. 2022) for the equation and its constants; Chalapathi, Du and Krishnapriyan (ICLR
2024), Section 4.1. The paper writes :math:`u=+D\,u_x` at the right end while PDEBench's simulator, which made its
data, has a minus sign; we take the simulator's sign everywhere.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from descent.physics.finite_differences import first_difference

__all__ = ["DiffusionSorption"]

DIFFUSION = 5e-4
EXPONENT = 0.874
SORPTION = (1 - 0.29) / 0.29 * 2880 * 3.5e-4 * EXPONENT
SHIFT = 1e-6


class DiffusionSorption:
    r"""The equation on a vertex-centred grid.

    Its residual at a grid point is a function :math:`F(u,u_t,u_{xx})` of three numbers that are *linear* in the
    solution, which is all that a constraint layer needs to know.

    Args:
        times: number of instants, from 0 to ``end`` inclusive.
        points: number of points from 0 to 1 inclusive.
        end: last instant in seconds.

    Raises:
        ValueError: for fewer than three instants or points.
    """

    channels = 3

    def __init__(self, times: int = 26, points: int = 32, end: float = 500.0) -> None:
        if times < 3 or points < 3 or end <= 0:
            raise ValueError(
                f"three instants and points and a positive end needed, got {times}, {points}, {end}"
            )
        self.shape = (times, points)
        self.end = end
        self.dt, self.dx = end / (times - 1), 1 / (points - 1)

    def operators(self, field: Tensor) -> Tensor:
        r"""Apply the linear operators :math:`u`, :math:`u_t` and :math:`u_{xx}`.

        Args:
            field: a solution or bases, shape ``(..., times, points, N)``.

        Returns:
            Shape ``(..., 3, times, points, N)``.
        """
        slope = first_difference(field, self.dx, -2)
        return torch.stack(
            (field, first_difference(field, self.dt, -3), first_difference(slope, self.dx, -2)), -4
        )

    @staticmethod
    def _retardation(u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """1/R with its first and second derivative in u."""
        positive = u > 0
        base = u.clamp(min=0) + SHIFT
        r = 1 + SORPTION * base ** (EXPONENT - 1)
        r1 = torch.where(positive, (EXPONENT - 1) * (r - 1) / base, 0)
        r2 = torch.where(positive, (EXPONENT - 2) * r1 / base, 0)
        return 1 / r, -r1 / r**2, -r2 / r**2 + 2 * r1**2 / r**3

    def value(self, z: Tensor) -> Tensor:
        r"""The residual :math:`u_t-D\,u_{xx}/R(u)`.

        Args:
            z: the three numbers at each point, shape ``(..., 3, m)``.

        Returns:
            Shape ``(..., m)``, per second.
        """
        u, ut, uxx = z.unbind(-2)
        r = 1 + SORPTION * (u.clamp(min=0) + SHIFT) ** (EXPONENT - 1)
        return ut - DIFFUSION * uxx / r

    def derivatives(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The residual and its derivatives in the three numbers.

        Args:
            z: shape ``(..., 3, m)``.

        Returns:
            The residual, shape ``(..., m)``, and its gradient, shape ``(..., 3, m)``.
        """
        u, ut, uxx = z.unbind(-2)
        g, g1, _ = self._retardation(u)
        return ut - DIFFUSION * g * uxx, torch.stack(
            (-DIFFUSION * g1 * uxx, torch.ones_like(u), -DIFFUSION * g), -2
        )

    def curvature(self, z: Tensor) -> dict[tuple[int, int], Tensor]:
        """The non-zero second derivatives of the residual in the three numbers.

        Args:
            z: shape ``(..., 3, m)``.

        Returns:
            For each pair of indices, the smaller first, a tensor of shape ``(..., m)``.
        """
        u, _, uxx = z.unbind(-2)
        _, g1, g2 = self._retardation(u)
        return {(0, 0): -DIFFUSION * g2 * uxx, (0, 2): -DIFFUSION * g1}

    def linear_rows(self, field: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
        r"""The rows of the initial condition (relative) and of both boundaries (for t > 0).

        Args:
            field: bases, shape ``(..., times, points, N)``.
            initial: :math:`u_0>0`, shape ``(...)``.

        Returns:
            Matrix, shape ``(..., points + 2 (times - 1), N)``, and target, without the last axis.
        """
        begin = field[..., 0, :, :] / initial[..., None, None]
        left = field[..., 1:, 0, :]
        right = field[..., 1:, -1, :]
        right = right + DIFFUSION / self.dx * (right - field[..., 1:, -2, :])
        matrix = torch.cat((begin, left, right), -2)
        target = torch.ones(matrix.shape[:-1], dtype=field.dtype, device=field.device)
        target[..., begin.shape[-2] + left.shape[-2] :] = 0
        return matrix, target

    def violations(self, u: Tensor, initial: Tensor) -> dict[str, Tensor]:
        """Norms of what the solution leaves unsatisfied: equation, initial condition, boundaries.

        Args:
            u: shape ``(..., times, points)``.
            initial: shape ``(...)``.

        Returns:
            ``equation`` (Euclidean norm over the grid), ``initial`` (relative) and ``boundary`` (norm of
            the left one plus norm of the right one), each of shape ``(...)``.
        """
        z = self.operators(u[..., None])[..., 0].flatten(-2)
        matrix, target = self.linear_rows(u[..., None], initial)
        off = matrix[..., 0] - target
        n, t = self.shape[1], self.shape[0] - 1
        begin, left, right = off.split((n, t, t), -1)
        return {
            "equation": self.value(z).norm(dim=-1),
            "initial": begin.norm(dim=-1) / n**0.5,
            "boundary": (left.norm(dim=-1) + right.norm(dim=-1)) / t**0.5,
        }

    def reference(self, initial: Tensor, refine: int = 2, rtol: float = 1e-6) -> Tensor:
        """Solve the equation by lines: three-point Laplacian on a finer grid, Runge-Kutta 4(5) of SciPy in time.

        Args:
            initial: values of u_0, shape ``(B,)``.
            refine: how many finer intervals make one of the grid.
            rtol: relative tolerance in time.

        Returns:
            Solutions on the grid, float64, shape ``(B, times, points)``, on the device of ``initial``.

        Raises:
            RuntimeError: if the integration fails.
        """
        n = (self.shape[1] - 1) * refine
        h, start = 1 / n, initial.detach().cpu().double().numpy()
        share = DIFFUSION / h / (1 + DIFFUSION / h)

        def whole(inner: np.ndarray) -> np.ndarray:
            u = np.empty((len(start), n + 1))
            u[:, 0], u[:, 1:-1] = 1, inner
            u[:, -1] = share * u[:, -2]
            return u

        def rate(_: float, flat: np.ndarray) -> np.ndarray:
            u = whole(flat.reshape(len(start), n - 1))
            r = 1 + SORPTION * (np.maximum(u[:, 1:-1], 0) + SHIFT) ** (EXPONENT - 1)
            return (DIFFUSION / h**2 * (u[:, 2:] - 2 * u[:, 1:-1] + u[:, :-2]) / r).ravel()

        instants = np.linspace(0, self.end, self.shape[0])
        run = solve_ivp(
            rate, (0, self.end), np.repeat(start, n - 1), t_eval=instants, rtol=rtol, atol=1e-8
        )
        if not run.success:
            raise RuntimeError(f"the reference solution failed: {run.message}")
        states = run.y.T.reshape(len(instants), len(start), n - 1)
        solution = np.stack([whole(s) for s in states], 1)
        solution[:, 0] = start[:, None]
        return torch.from_numpy(solution[:, :, ::refine].copy()).to(initial.device)
