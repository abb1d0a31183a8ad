r"""What asymmetry of the Jacobian does to the error of equilibrium propagation, and the penalty against it.

With :math:`J=S+A` split into symmetric and antisymmetric part, the error :math:`\varepsilon=-J^{-1}\ell` is the
true error :math:`\delta=-J^{-\top}\ell` seen through :math:`J^{-1}J^\top`,

.. math:: \varepsilon=J^{-1}J^\top\delta=\delta-2S^{-1}A\,\delta+O(\|S^{-1}A\|^2),

and the homeostatic loss measures :math:`A` with probes that are only sent forward,

.. math:: \mathcal L_{\mathrm{homeo}}=\mathbb E\bigl[\|Je\|^2-e^\top J(Je)\bigr]=\|J\|_F^2-\mathrm{tr}\,J^2
          =2\|A\|_F^2,\qquad e\sim N(0,I).

Source: Laborieux and Zenke (ICLR 2024), equation 12 and the theorem on the two biases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = [
    "antisymmetric",
    "error_alignment",
    "first_order_error",
    "homeostatic_gradient",
    "homeostatic_loss",
    "probe_moment",
    "symmetric",
    "symmetry_index",
    "transformed_error",
]


def symmetric(matrix: Tensor) -> Tensor:
    r"""Return :math:`S=(J+J^\top)/2`, shape ``(..., n, n)``."""
    return (matrix + matrix.mT) / 2


def antisymmetric(matrix: Tensor) -> Tensor:
    r"""Return :math:`A=(J-J^\top)/2`, shape ``(..., n, n)``."""
    return (matrix - matrix.mT) / 2


def symmetry_index(jacobian: Tensor) -> Tensor:
    r"""Return :math:`\|S\|_F/(\|S\|_F+\|A\|_F)`: 1 for a symmetric matrix, 1/2 for independent entries.

    Args:
        jacobian: shape ``(..., n, n)``, not zero.

    Returns:
        Shape ``(...)``.
    """
    s, a = (torch.linalg.matrix_norm(part(jacobian)) for part in (symmetric, antisymmetric))
    return s / (s + a)


def transformed_error(jacobian: Tensor, error: Tensor) -> Tensor:
    r"""The error of equilibrium propagation from the true one, :math:`J^{-1}J^\top\delta`.

    Args:
        jacobian: shape ``(..., n, n)``, invertible.
        error: :math:`\delta`, shape ``(..., n)``.

    Returns:
        :math:`\varepsilon`, shape of ``error``.
    """
    return torch.linalg.solve(jacobian, (jacobian.mT @ error[..., None]))[..., 0]


def first_order_error(jacobian: Tensor, error: Tensor) -> Tensor:
    r"""Its first-order expansion :math:`\delta-2S^{-1}A\,\delta`.

    Args:
        jacobian: shape ``(..., n, n)``, with an invertible symmetric part.
        error: :math:`\delta`, shape ``(..., n)``.

    Returns:
        Shape of ``error``.
    """
    turned = antisymmetric(jacobian) @ error[..., None]
    return error - 2 * torch.linalg.solve(symmetric(jacobian), turned)[..., 0]


def homeostatic_loss(
    jvp: Callable[[Tensor], Tensor],
    size: int,
    draws: int,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    r"""Estimate :math:`2\|A\|_F^2` of a square Jacobian that is known through its products only.

    Args:
        jvp: maps rows ``(draws, n)`` of probes to rows of products :math:`Je`; called twice.
        size: ``n``.
        draws: number of Gaussian probes.
        generator: for the probes.
        dtype: of the probes.

    Returns:
        A scalar, unbiased. The authors' code divides it by ``n``.

    Raises:
        ValueError: for no draws.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    probes = torch.randn(draws, size, generator=generator, dtype=dtype)
    once = jvp(probes)
    twice = jvp(once)
    return (once.square().sum(-1) - (probes * twice).sum(-1)).mean()


def probe_moment(
    count: int, size: int, generators: Sequence[torch.Generator], dtype: torch.dtype = torch.float32
) -> Tensor:
    r"""Second moments :math:`C=\frac1m\sum ee^\top` of ``count`` Gaussian probes, one per generator.

    Args:
        count: :math:`m`.
        size: ``n``.
        generators: one per network.
        dtype: of the result.

    Returns:
        Shape ``(len(generators), n, n)``.
    """
    probes = torch.stack([torch.randn(count, size, generator=g, dtype=dtype) for g in generators])
    return probes.mT @ probes / count


def homeostatic_gradient(jacobian: Tensor, moment: Tensor | None = None) -> Tensor:
    r"""The gradient of :math:`\mathcal L_{\mathrm{homeo}}/n` by the entries of :math:`J`.

    With probes of second moment :math:`C` it is :math:`(2JC-J^\top C-CJ^\top)/n`; its mean over probes,
    :math:`C=I`, is :math:`4A/n`. Mask it to the connections that exist.

    Args:
        jacobian: shape ``(..., n, n)``.
        moment: :math:`C`, same shape; the identity unless given.

    Returns:
        Shape of ``jacobian``.
    """
    size = jacobian.shape[-1]
    if moment is None:
        return 4 * antisymmetric(jacobian) / size
    back = jacobian.mT @ moment
    return (2 * jacobian @ moment - back - moment @ jacobian.mT) / size


def error_alignment(error: Tensor, reference: Tensor) -> Tensor:
    """Cosine of two error signals, averaged over examples.

    Args:
        error: shape ``(..., batch, n)``.
        reference: same shape.

    Returns:
        Shape ``(...)``; an error that is exactly zero counts as cosine 0.
    """
    return torch.nn.functional.cosine_similarity(error, reference, dim=-1, eps=1e-30).mean(-1)
