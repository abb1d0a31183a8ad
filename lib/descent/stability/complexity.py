r"""Empirical Rademacher complexity of the two stable classes of diagonal linear networks.

A minimum at which SGD of step :math:`\eta` is stable has :math:`\|\beta\|_1\le1/\eta`; one at which
gradient descent is stable has only :math:`\|\beta\|_\infty\le1/\eta`. By duality of norms

.. math:: \hat{\mathcal R}(\{\|\beta\|_1\le C\})=C\,\mathbb E_\sigma\|X^\top\sigma/n\|_\infty,\qquad
          \hat{\mathcal R}(\{\|\beta\|_\infty\le C\})=C\,\mathbb E_\sigma\|X^\top\sigma/n\|_1 .

Source: Wu and Su (ICML 2023), abstract ("provably generalize well"); constants derived in the
chapter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["massart_bound", "rademacher_complexities"]


def rademacher_complexities(
    inputs: Tensor, radius: float, draws: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    r"""Estimate both complexities with the same random signs.

    Args:
        inputs: :math:`X`, shape ``(n, d)``.
        radius: :math:`C`, the radius of both balls.
        draws: number of sign vectors :math:`\sigma\in\{-1,1\}^n`.
        generator: source of the signs, on the CPU.

    Returns:
        Complexity of the :math:`\ell_1` ball and of the :math:`\ell_\infty` ball, two scalars.

    Raises:
        ValueError: if ``inputs`` is not a matrix or ``draws`` is less than 1.
    """
    if inputs.ndim != 2:
        raise ValueError(f"inputs must have shape (n, d), got {tuple(inputs.shape)}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    n = inputs.shape[0]
    signs = 2.0 * torch.randint(2, (draws, n), generator=generator).to(inputs) - 1.0
    correlations = (signs @ inputs / n).abs()
    return radius * correlations.amax(-1).mean(), radius * correlations.sum(-1).mean()


def massart_bound(inputs: Tensor, radius: float) -> Tensor:
    r"""Return :math:`C\max_j\mathrm{rms}(X_{\cdot j})\sqrt{2\log(2d)/n}`, Massart's bound for the
    :math:`\ell_1` ball.

    Args:
        inputs: :math:`X`, shape ``(n, d)``.
        radius: :math:`C`.

    Returns:
        A scalar, never below the :math:`\ell_1` complexity (exact expectation over signs).

    Raises:
        ValueError: if ``inputs`` is not a matrix.
    """
    if inputs.ndim != 2:
        raise ValueError(f"inputs must have shape (n, d), got {tuple(inputs.shape)}")
    n, d = inputs.shape
    return radius * inputs.square().mean(0).sqrt().max() * math.sqrt(2.0 * math.log(2 * d) / n)
