r"""The radius bound of a training step: one Jacobian-vector product, a spread, and pi.

With logits :math:`z(\theta;x)` and a unit direction :math:`v` in parameter space let
:math:`a(x)=J_z(x)v`. The linearised cross-entropy of every sample of a set :math:`S` is analytic in
the disc of radius

.. math:: \rho_a(v)=\frac{\pi}{\max_{x\in S}\Delta_a(x)},\qquad\Delta_a=\max_ka_k-\min_ka_k,

so that :math:`r=\|p\|/\rho_a(p/\|p\|)` is the dimensionless length of an update :math:`p`.

Source: Sao (arXiv 2603.13552), Section 4, equation (12), and Proposition 5.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call

__all__ = [
    "logit_jvp",
    "logit_spread",
    "normalized_step",
    "radius_bound",
    "spread_of_update",
    "top_two_radius",
    "update_norm",
]


def logit_spread(slopes: Tensor) -> Tensor:
    r"""Return :math:`\Delta_a=\max_ka_k-\min_ka_k`.

    Args:
        slopes: shape ``(..., n)``, the derivatives of the logits along a direction.

    Returns:
        Shape ``(...)``, not negative.
    """
    return slopes.amax(-1) - slopes.amin(-1)


def radius_bound(slopes: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Return :math:`\rho_a=\pi T/\max_x\Delta_a(x)` of a set of samples.

    Args:
        slopes: :math:`a`, shape ``(..., samples, n)``, per unit length of the direction.
        temperature: :math:`T>0`, if the loss takes :math:`z/T` and the slopes are those of :math:`z`.

    Returns:
        Shape ``(...)``; infinite where no logit differs from another to first order.

    Raises:
        ValueError: if ``temperature`` is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    return math.pi * temperature / logit_spread(slopes).amax(-1)


def top_two_radius(logits: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return the radius of each sample if only its two leading classes existed, with its parts.

    :math:`\rho=\sqrt{\delta^2+\pi^2}/|a_y-a_c|` for the leading class :math:`y` and the runner-up
    :math:`c`. A score for fragility; no bound if there are more than two classes.

    Args:
        logits: shape ``(samples, n)``.
        slopes: shape ``(samples, n)``.

    Returns:
        Radius, margin :math:`\delta` and sensitivity :math:`|a_y-a_c|`, each of shape ``(samples,)``.
    """
    top, index = logits.topk(2, dim=-1)
    margin = top[..., 0] - top[..., 1]
    pair = slopes.gather(-1, index)
    sensitivity = (pair[..., 0] - pair[..., 1]).abs()
    return (margin.square() + math.pi**2).sqrt() / sensitivity, margin, sensitivity


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, the mode of every submodule restored after: no statistics are touched."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def logit_jvp(
    model: nn.Module, inputs: Tensor, direction: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the logits and their derivative along a direction of all parameters.

    One forward-mode pass in eval mode: dropout is off, batch normalisation uses its running statistics
    and leaves them alone, and the mode of every submodule is restored.

    Args:
        model: maps inputs to logits ``(samples, n)``.
        inputs: shape ``(samples, ...)``.
        direction: a tensor for every entry of ``model.named_parameters()``.

    Returns:
        Logits and slopes, both ``(samples, n)``.

    Raises:
        ValueError: if the direction misses a parameter, or has one more.
    """
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    if wrong := sorted(set(parameters) ^ set(direction)):
        raise ValueError(f"direction and parameters of the model differ in {wrong[0]!r}")
    with _evaluating(model), torch.no_grad(), forward_ad.dual_level():
        duals = {n: forward_ad.make_dual(p, direction[n]) for n, p in parameters.items()}
        logits, slopes = forward_ad.unpack_dual(functional_call(model, duals, (inputs,)))
    if slopes is None:  # no parameter reaches the logits
        slopes = torch.zeros_like(logits)
    return logits, slopes


def update_norm(update: Mapping[str, Tensor]) -> Tensor:
    """Return the Euclidean norm of an update over all its tensors together.

    Args:
        update: tensors by parameter name: weights, biases and gains alike.

    Returns:
        A scalar.
    """
    return torch.stack([part.norm() for part in update.values()]).norm()


def spread_of_update(model: nn.Module, inputs: Tensor, update: Mapping[str, Tensor]) -> Tensor:
    r"""Return :math:`\max_x\Delta_a(x)` for the whole update: ``pi`` times its normalised length.

    Since :math:`a` is linear in the direction, :math:`r=\|p\|/\rho_a=\max_x\Delta_{J_zp}(x)/\pi`
    needs no norm at all.

    Args:
        model: maps inputs to logits.
        inputs: the set :math:`S`.
        update: :math:`p` by parameter name.

    Returns:
        A scalar, in units of logits.
    """
    return logit_spread(logit_jvp(model, inputs, update)[1]).amax(-1)


def normalized_step(model: nn.Module, inputs: Tensor, update: Mapping[str, Tensor]) -> Tensor:
    r"""Return :math:`r=\|p\|/\rho_a(p/\|p\|)` of an update :math:`p`.

    Args:
        model: maps inputs to logits.
        inputs: the set of samples over which the radius is taken.
        update: :math:`p` by parameter name.

    Returns:
        A scalar; 0 for an update of 0.
    """
    norm = update_norm(update)
    if norm == 0:
        return norm
    slopes = logit_jvp(model, inputs, {k: p / norm for k, p in update.items()})[1]
    return norm / radius_bound(slopes)
