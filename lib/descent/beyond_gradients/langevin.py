r"""Annealed Langevin dynamics, and gradient descent as its noiseless case, with numerical gradients.

.. math:: x\leftarrow x-\eta\,\Delta t\,\nabla E(x)
          +\frac{\sigma}{\log(k+1)}\sqrt{\Delta t}\,B_k,\qquad B_k\sim\mathcal N(0,I_d),\quad k=1,2,\dots

Source: the authors' code of arXiv 2306.09778 (``GDLangevin``); its first noise factor is
:math:`1/\log2`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["central_difference", "langevin"]


def central_difference(
    objective: Callable[[Tensor], Tensor], points: Tensor, width: float = 1e-5
) -> Tensor:
    r"""Return :math:`(E(x+he_j)-E(x-he_j))/(2h)` for all points and coordinates in one batch.

    Args:
        objective: maps ``(..., d)`` to ``(...)``.
        points: shape ``(..., d)``.
        width: :math:`h>0`, in units of the points.

    Returns:
        Shape ``(..., d)``; ``2d`` evaluations per point.

    Raises:
        ValueError: for a width that is not positive.
    """
    if width <= 0:
        raise ValueError(f"width must be positive, got {width}")
    d = points.shape[-1]
    shift = torch.zeros(2 * d, d, dtype=points.dtype, device=points.device)
    shift[:d].fill_diagonal_(width)
    shift[d:].fill_diagonal_(-width)
    values = objective(points.unsqueeze(-2) + shift)
    return (values[..., :d] - values[..., d:]).div_(2 * width)


def langevin(
    start: Tensor,
    gradient: Callable[[Tensor], Tensor],
    *,
    steps: int,
    learning_rate: float,
    dt: float,
    sigma: float | Tensor,
    generator: torch.Generator | None = None,
    keep_every: int = 1,
) -> Tensor:
    """Run annealed Langevin dynamics; ``sigma = 0`` is gradient descent.

    Args:
        start: shape ``(..., d)``.
        gradient: maps ``(..., d)`` to ``(..., d)``.
        steps: number of steps, at least 1.
        learning_rate: factor of the gradient.
        dt: time step, positive; the step size is ``learning_rate * dt``.
        sigma: noise before annealing; a tensor broadcast against ``start`` gives each walker its own.
        generator: random stream on the CPU.
        keep_every: keep each such step.

    Returns:
        Positions after steps ``keep_every, 2 keep_every, ...`` and after the last step, first
        dimension time.

    Raises:
        ValueError: for fewer than one step or a time step that is not positive.
    """
    if steps < 1 or dt <= 0:
        raise ValueError(f"need steps >= 1 and dt > 0; got {steps}, {dt}")
    noisy = bool((torch.as_tensor(sigma) != 0).any())
    position, path = start, []
    for k in range(1, steps + 1):
        position = position - learning_rate * dt * gradient(position)
        if noisy:
            normals = torch.randn(start.shape, generator=generator, dtype=start.dtype)
            scale = dt**0.5 / math.log(k + 1)
            position = position + sigma * (scale * normals.to(start.device))
        if k % keep_every == 0 or k == steps:
            path.append(position)
    return torch.stack(path)
