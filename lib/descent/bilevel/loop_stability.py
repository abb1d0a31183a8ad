r"""Stability of the whole loop, where one iteration is an affine map.

With quadratic :math:`F,f`, affine equality constraints and no multiplier at its bound, one iteration of LV-HBA
at a fixed weight :math:`c_k` maps :math:`u=(x,y,z,\theta,\lambda)` to :math:`Tu+t`. Its spectral radius says
whether the loop settles, with the feedback of the slow variables that a bound for frozen ones leaves out.

Source: derived, not read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from descent.bilevel.lv_hba import LVHBA, LVHBAState

__all__ = ["loop_matrix", "loop_spectral_radius"]


def loop_matrix(solver: LVHBA, state: LVHBAState) -> Tensor:
    r"""Return :math:`T` by applying one iteration to unit vectors.

    Args:
        solver: with scalar options and an affine iteration.
        state: a single problem (no batch); its ``step`` sets :math:`c_k`.

    Returns:
        Shape ``(d, d)`` with ``d = n + 2 m + 2 q``.
    """
    parts = (state.x, state.y, state.z, state.theta, state.lam)
    sizes = [p.shape[-1] for p in parts]
    origin = torch.cat([p.reshape(-1) for p in parts])
    points = torch.cat([origin[None], origin + torch.eye(len(origin)).to(origin)])
    x, y, z, theta, lam = points.split(sizes, -1)
    after = solver.step(LVHBAState(x, y, z, theta, lam, state.step))
    images = torch.cat([after.x, after.y, after.z, after.theta, after.lam], -1)
    return (images[1:] - images[0]).T


def loop_spectral_radius(solver: LVHBA, state: LVHBAState) -> float:
    """Return the spectral radius of one iteration; above one the loop diverges.

    Args:
        solver: with scalar options and an affine iteration.
        state: a single problem (no batch).

    Returns:
        A non-negative number.
    """
    return float(torch.linalg.eigvals(loop_matrix(solver, state)).abs().max())
