r"""Two-layer ReLU network :math:`f(x)=\sum_{j\le m}a_j\,\mathrm{relu}(w_j\cdot x)`: gradients,
sharpness, path norm.

For inputs uniform on the sphere of radius :math:`\sqrt d` (or standard normal) the expected squared
gradient norm is

.. math:: \mathrm{Tr}\,G=\tfrac12\big(\|W\|_F^2+d\,\|a\|^2\big)\ge\sqrt
          d\,\sum_j|a_j|\,\|w_j\|=\sqrt d\,\|\theta\|_P ,

with equality if and only if :math:`\|w_j\|=\sqrt d\,|a_j|` for every neuron.

Source: Wu and Su (ICML 2023), abstract (equivalence for two-layer ReLU networks); derived in the
chapter.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "balanced_rescaling",
    "path_norm",
    "population_trace",
    "relu_gram",
    "relu_jacobian",
    "relu_predict",
    "squared_gradient_norms",
]


def _check_shapes(a: Tensor, weights: Tensor) -> None:
    if weights.ndim != a.ndim + 1 or weights.shape[:-1] != a.shape:
        raise ValueError(
            "need a of shape (..., m) and weights of shape (..., m, d), "
            f"got {tuple(a.shape)} and {tuple(weights.shape)}"
        )


def relu_predict(a: Tensor, weights: Tensor, inputs: Tensor) -> Tensor:
    r"""Return the network outputs.

    Args:
        a: output weights, shape ``(..., m)``.
        weights: input weights :math:`w_j`, shape ``(..., m, d)``.
        inputs: shape ``(..., n, d)``.

    Returns:
        Shape ``(..., n)``.

    Raises:
        ValueError: if the weights do not fit together.
    """
    _check_shapes(a, weights)
    hidden = (inputs @ weights.mT).clamp_min(0)
    return (hidden @ a.unsqueeze(-1)).squeeze(-1)


def relu_jacobian(a: Tensor, weights: Tensor, inputs: Tensor) -> Tensor:
    r"""Return the per-sample gradients :math:`[\mathrm{relu}(w_j\cdot x_i),\;a_j\mathbf 1_{w_j\cdot
    x_i>0}\,x_i]`.

    Args:
        a: output weights, shape ``(m,)``.
        weights: input weights, shape ``(m, d)``.
        inputs: shape ``(n, d)``.

    Returns:
        Shape ``(n, m + m d)``; the first ``m`` columns belong to ``a``.

    Raises:
        ValueError: if the weights do not fit together.
    """
    _check_shapes(a, weights)
    hidden = inputs @ weights.T
    slope = a * (hidden > 0).to(a.dtype)
    inner = slope[:, :, None] * inputs[:, None, :]
    return torch.cat([hidden.clamp_min(0), inner.flatten(1)], dim=1)


def relu_gram(a: Tensor, weights: Tensor, inputs: Tensor) -> Tensor:
    r"""Return :math:`K=\frac1n\big[AA^\top+(DD^\top)\odot(XX^\top)\big]` without forming the
    Jacobian.

    :math:`A_{ij}=\mathrm{relu}(w_j\cdot x_i)` and :math:`D_{ij}=a_j\mathbf 1_{w_j\cdot x_i>0}`.

    Args:
        a: output weights, shape ``(..., m)``.
        weights: input weights, shape ``(..., m, d)``.
        inputs: shape ``(..., n, d)``.

    Returns:
        Shape ``(..., n, n)``.

    Raises:
        ValueError: if the weights do not fit together.
    """
    _check_shapes(a, weights)
    hidden = inputs @ weights.mT
    slope = a.unsqueeze(-2) * (hidden > 0).to(a.dtype)
    hidden = hidden.clamp_min(0)
    return (hidden @ hidden.mT + (slope @ slope.mT) * (inputs @ inputs.mT)) / inputs.shape[-2]


def squared_gradient_norms(
    a: Tensor, weights: Tensor, inputs: Tensor, activation: str = "relu"
) -> Tensor:
    r"""Return :math:`\|\nabla_\theta f(x_i)\|^2`; their mean over samples is
    :math:`\mathrm{Tr}\,G`.

    Args:
        a: output weights, shape ``(..., m)``.
        weights: input weights, shape ``(..., m, d)``.
        inputs: shape ``(..., n, d)``.
        activation: ``"relu"``, or ``"tanh"`` for the comparison in which the equivalence fails.

    Returns:
        Shape ``(..., n)``.

    Raises:
        ValueError: for another activation or weights that do not fit together.
    """
    _check_shapes(a, weights)
    hidden = inputs @ weights.mT
    if activation == "relu":
        value, slope = hidden.clamp_min(0), (hidden > 0).to(a.dtype)
    elif activation == "tanh":
        value = hidden.tanh()
        slope = 1.0 - value.square()
    else:
        raise ValueError(f"activation must be 'relu' or 'tanh', got {activation!r}")
    inner = (slope.square() @ a.square().unsqueeze(-1)).squeeze(-1)
    return value.square().sum(-1) + inner * inputs.square().sum(-1)


def population_trace(a: Tensor, weights: Tensor) -> Tensor:
    r"""Return :math:`\frac12(\|W\|_F^2+d\,\|a\|^2)`, the trace for inputs on the sphere of radius
    :math:`\sqrt d`.

    Args:
        a: output weights, shape ``(..., m)``.
        weights: input weights, shape ``(..., m, d)``.

    Returns:
        Shape ``(...)``.

    Raises:
        ValueError: if the weights do not fit together.
    """
    _check_shapes(a, weights)
    dimension = weights.shape[-1]
    return 0.5 * (weights.square().sum((-2, -1)) + dimension * a.square().sum(-1))


def path_norm(a: Tensor, weights: Tensor) -> Tensor:
    r"""Return :math:`\|\theta\|_P=\sum_j|a_j|\,\|w_j\|_2`, unchanged when a neuron is rescaled.

    Args:
        a: output weights, shape ``(..., m)``.
        weights: input weights, shape ``(..., m, d)``.

    Returns:
        Shape ``(...)``.

    Raises:
        ValueError: if the weights do not fit together.
    """
    _check_shapes(a, weights)
    return (a.abs() * torch.linalg.vector_norm(weights, dim=-1)).sum(-1)


def balanced_rescaling(a: Tensor, weights: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    r"""Rescale every neuron, :math:`w_j\leftarrow c_jw_j`, :math:`a_j\leftarrow a_j/c_j`, to a
    given balance.

    Args:
        a: output weights, shape ``(..., m)``, no zero entry.
        weights: input weights, shape ``(..., m, d)``, no zero row.
        ratio: wanted :math:`\|w_j\|/|a_j|>0`; :math:`\sqrt d` makes the trace least.

    Returns:
        New ``a`` and ``weights`` that compute the same function.

    Raises:
        ValueError: if a neuron is dead (no rescaling balances it) or the ratio is not positive.
    """
    _check_shapes(a, weights)
    if ratio <= 0:
        raise ValueError(f"ratio must be positive, got {ratio}")
    norms = torch.linalg.vector_norm(weights, dim=-1)
    if bool(((a == 0) | (norms == 0)).any()):
        raise ValueError("a neuron with a zero weight cannot be balanced; remove it first")
    scale = (ratio * a.abs() / norms).sqrt()
    return a / scale, weights * scale.unsqueeze(-1)
