r"""Sharpness of a network through the Gram matrix of its per-sample gradients.

At a minimum that interpolates the data the Hessian of :math:`\frac1{2n}\sum_i(f(x_i)-y_i)^2` is
:math:`G=\frac1nJ^\top J` with :math:`J\in\mathbb R^{n\times p}` the Jacobian of the model output.
Trace, Frobenius norm and largest eigenvalue of :math:`G` are those of :math:`K=\frac1nJJ^\top`, an
:math:`n\times n` matrix, so that the :math:`p\times p` matrix is never formed.

Source: Wu and Su (ICML 2023), sharpness measures of the abstract; Wu, Wang and Su (NeurIPS 2022)
for the alignment factor.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

__all__ = ["Sharpness", "alignment_factor", "gauss_newton_gram", "per_sample_jacobian", "sharpness"]


class Sharpness(NamedTuple):
    r"""Three measures of one matrix: :math:`\mathrm{Tr}\,G`, :math:`\|G\|_F` and
    :math:`\lambda_{\max}(G)`."""

    trace: Tensor
    frobenius: Tensor
    largest: Tensor


def per_sample_jacobian(model: nn.Module, inputs: Tensor, chunk_size: int | None = None) -> Tensor:
    r"""Return the gradients of the scalar model output, one row per sample.

    Args:
        model: maps ``(n, ...)`` to ``(n,)`` or ``(n, 1)``, samples treated independently (no batch
            statistics).
        inputs: shape ``(n, ...)``.
        chunk_size: samples per vectorised pass; limits memory to ``chunk_size`` times the
            parameters.

    Returns:
        Shape ``(n, p)``, parameters flattened in the order of ``model.named_parameters()``.

    Raises:
        ValueError: if the model does not return one scalar per sample.
    """
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    buffers = {name: value.detach() for name, value in model.named_buffers()}
    output = model(inputs[:1])
    if output.numel() != 1:
        raise ValueError(
            "the model must return one scalar per sample, "
            f"got shape {tuple(output.shape)} for one sample"
        )

    def scalar(values: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(model, (values, buffers), (sample.unsqueeze(0),)).squeeze()

    rows = vmap(grad(scalar), in_dims=(None, 0), chunk_size=chunk_size)(parameters, inputs)
    return torch.cat([rows[name].reshape(inputs.shape[0], -1) for name in parameters], dim=1)


def gauss_newton_gram(jacobian: Tensor) -> Tensor:
    r"""Return :math:`K=\frac1nJJ^\top`.

    Args:
        jacobian: shape ``(..., n, p)``.

    Returns:
        Shape ``(..., n, n)``; shares its non-zero spectrum with :math:`G=\frac1nJ^\top J`.

    Raises:
        ValueError: if ``jacobian`` has fewer than two axes.
    """
    if jacobian.ndim < 2:
        raise ValueError(f"jacobian must have shape (..., n, p), got {tuple(jacobian.shape)}")
    return jacobian @ jacobian.mT / jacobian.shape[-2]


def sharpness(gram: Tensor) -> Sharpness:
    r"""Return trace, Frobenius norm and largest eigenvalue of a symmetric matrix.

    Args:
        gram: shape ``(..., n, n)``, symmetric positive semi-definite, for instance from
            :func:`gauss_newton_gram`. Matrices with non-finite entries give ``nan``.

    Returns:
        Three tensors of shape ``(...)``.

    Raises:
        ValueError: if the last two axes differ.
    """
    if gram.ndim < 2 or gram.shape[-1] != gram.shape[-2]:
        raise ValueError(f"gram must have shape (..., n, n), got {tuple(gram.shape)}")
    # LAPACK refuses non-finite input: diverged networks are passed through as nan instead.
    finite = gram.isfinite().all(-1).all(-1)
    largest = torch.linalg.eigvalsh(
        torch.where(finite[..., None, None], gram, torch.zeros_like(gram))
    )[..., -1]
    nan = torch.full_like(largest, torch.nan)
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    frobenius = torch.linalg.matrix_norm(gram)
    return Sharpness(
        torch.where(finite, trace, nan),
        torch.where(finite, frobenius, nan),
        torch.where(finite, largest, nan),
    )


def alignment_factor(jacobian: Tensor, residual: Tensor) -> float:
    r"""Return how strongly the noise of single-sample SGD aligns with the curvature,

    .. math:: \mu=\frac{\mathrm{Tr}(\Sigma G)}{2R\,\|G\|_F^2},\qquad
              \Sigma=\frac1n\sum_i r_i^2g_ig_i^\top-\nabla R\,\nabla R^\top,\quad
              R=\frac1{2n}\sum_i r_i^2 .

    Args:
        jacobian: per-sample gradients :math:`g_i` of the model output, shape ``(n, p)``.
        residual: :math:`r_i=f(x_i)-y_i`, shape ``(n,)``, not all zero.

    Returns:
        :math:`\mu`, dimensionless. For batch size :math:`B` divide by :math:`B`.

    Raises:
        ValueError: if shapes disagree or every residual is zero.
    """
    if jacobian.ndim != 2 or residual.shape != jacobian.shape[:1]:
        raise ValueError(
            f"need shapes (n, p) and (n,), got {tuple(jacobian.shape)} and {tuple(residual.shape)}"
        )
    n = residual.numel()
    twice_loss = residual.square().mean()
    if not bool(twice_loss > 0):
        raise ValueError(
            "every residual is zero: the noise vanishes and the alignment is undefined"
        )
    gradient = jacobian.T @ residual / n
    if jacobian.shape[1] <= n:
        gram = jacobian.T @ jacobian / n
        curved = jacobian @ gram
        quadratic, mean_part = (jacobian * curved).sum(-1), gradient @ gram @ gradient
    else:
        gram = jacobian @ jacobian.T / n
        quadratic = n * gram.square().sum(-1)
        mean_part = (jacobian @ gradient).square().mean()
    aligned = (residual.square() * quadratic).mean() - mean_part
    return float(aligned / (twice_loss * torch.linalg.matrix_norm(gram).square()))
