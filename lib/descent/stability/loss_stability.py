r"""Loss stability of online SGD on Gaussian linear features: exact, without any network.

Samples :math:`x\sim\mathcal N(0,\Lambda)`,
:math:`\Lambda=\mathrm{diag}(\lambda_1,\dots,\lambda_d)`, step
:math:`\delta\leftarrow\delta-\eta\,xx^\top\delta`. The diagonal :math:`s_i=\mathbb E\,\delta_i^2`
closes on itself,

.. math:: s_i\leftarrow
          s_i\,(1-2\eta\lambda_i+2\eta^2\lambda_i^2)+\eta^2\lambda_i\sum_j\lambda_js_j ,

and the expected loss is :math:`R=\frac12\sum_i\lambda_is_i`. It follows that
:math:`R_{t+1}\ge\eta^2\|G\|_F^2R_t`: the loss can only stay bounded if :math:`\|G\|_F\le1/\eta`.

Source: Wu and Su (ICML 2023), abstract, and Wu, Wang and Su (NeurIPS 2022); this instance derived
in the chapter.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "expected_loss_trajectory",
    "gaussian_feature_threshold",
    "moment_recursion_step",
    "online_replicas",
]


def _check_spectrum(spectrum: Tensor) -> None:
    if spectrum.ndim < 1 or not bool((spectrum > 0).all()):
        raise ValueError("spectrum must hold positive eigenvalues, shape (..., d)")


def moment_recursion_step(moments: Tensor, spectrum: Tensor, learning_rate: Tensor) -> Tensor:
    r"""Advance :math:`s_i=\mathbb E\,\delta_i^2` by one step of online SGD.

    Args:
        moments: :math:`s`, shape ``(..., d)``, non-negative.
        spectrum: :math:`\lambda`, shape ``(..., d)``, positive.
        learning_rate: :math:`\eta`, shape ``(..., 1)`` or scalar.

    Returns:
        The next :math:`s`, shape ``(..., d)``.

    Raises:
        ValueError: if an eigenvalue is not positive.
    """
    _check_spectrum(spectrum)
    scaled = learning_rate * spectrum
    drift = 1.0 - 2.0 * scaled + 2.0 * scaled.square()
    noise = learning_rate * scaled * (spectrum * moments).sum(-1, keepdim=True)
    return moments * drift + noise


def expected_loss_trajectory(
    spectrum: Tensor, learning_rate: Tensor, moments: Tensor, steps: int, noise: bool = True
) -> Tensor:
    r"""Return :math:`R_t=\frac12\sum_i\lambda_is_i` for ``steps`` steps of SGD, or of gradient
    descent.

    Args:
        spectrum: shape ``(..., d)``, positive.
        learning_rate: shape ``(..., 1)`` or scalar.
        moments: start :math:`s`, shape ``(..., d)``.
        steps: number of steps.
        noise: if false, the population-gradient recursion :math:`s_i\leftarrow
            s_i(1-\eta\lambda_i)^2`.

    Returns:
        Shape ``(steps + 1, ...)``.

    Raises:
        ValueError: if an eigenvalue is not positive.
    """
    _check_spectrum(spectrum)
    contraction = (1.0 - learning_rate * spectrum).square()
    moments = moments.broadcast_to(torch.broadcast_shapes(moments.shape, contraction.shape))
    losses = [0.5 * (spectrum * moments).sum(-1)]
    for _ in range(steps):
        moments = (
            moment_recursion_step(moments, spectrum, learning_rate)
            if noise
            else moments * contraction
        )
        losses.append(0.5 * (spectrum * moments).sum(-1))
    return torch.stack(losses)


def gaussian_feature_threshold(spectrum: Tensor, bisections: int = 60) -> Tensor:
    r"""Return :math:`\eta_c`, the root of :math:`\sum_i\frac{\eta\lambda_i}{2(1-\eta\lambda_i)}=1`.

    Args:
        spectrum: shape ``(..., d)``, positive.
        bisections: halvings of :math:`(0,1/\lambda_{\max})`.

    Returns:
        Shape ``(...)``; :math:`2/(d+2)` for a unit isotropic spectrum.

    Raises:
        ValueError: if an eigenvalue is not positive.
    """
    _check_spectrum(spectrum)
    high = 1.0 / spectrum.max(-1).values
    low = torch.zeros_like(high)
    for _ in range(bisections):
        middle = 0.5 * (low + high)
        scaled = middle[..., None] * spectrum
        stable = (0.5 * scaled / (1.0 - scaled)).sum(-1) <= 1.0
        low, high = torch.where(stable, middle, low), torch.where(stable, high, middle)
    return 0.5 * (low + high)


def online_replicas(
    displacement: Tensor,
    spectrum: Tensor,
    learning_rate: float,
    replicas: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    r"""Take one real step of online SGD in many replicas from a fixed displacement.

    Args:
        displacement: :math:`\delta`, shape ``(d,)``.
        spectrum: :math:`\lambda`, shape ``(d,)``, positive.
        learning_rate: :math:`\eta`.
        replicas: number of independent steps, at least 2.
        generator: source of randomness, on the CPU.

    Returns:
        Mean of :math:`\delta_i^2` after the step and its standard error, each of shape ``(d,)``.

    Raises:
        ValueError: if an eigenvalue is not positive or fewer than two replicas are asked for.
    """
    _check_spectrum(spectrum)
    if replicas < 2:
        raise ValueError(f"a standard error needs at least 2 replicas, got {replicas}")
    normal = torch.randn(replicas, spectrum.numel(), generator=generator, dtype=spectrum.dtype)
    features = normal.to(spectrum.device) * spectrum.sqrt()
    stepped = displacement - learning_rate * features * (features @ displacement)[:, None]
    squares = stepped.square()
    return squares.mean(0), squares.std(0) / replicas**0.5
