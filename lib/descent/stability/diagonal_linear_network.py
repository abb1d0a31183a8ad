r"""Two-factor diagonal linear network :math:`f(x)=\sum_ja_jb_jx_j`, its gradients and its
sharpness.

The predictor is linear with coefficients :math:`\beta=a\odot b`, the training dynamics are not. For
inputs of identity covariance :math:`G` is block-diagonal with rank-one blocks
:math:`(b_j,a_j)(b_j,a_j)^\top`, hence

.. math:: \mathrm{Tr}\,G=\|a\|^2+\|b\|^2\ge2\|\beta\|_1,\qquad\|G\|_F\ge2\|\beta\|_2,\qquad
          \lambda_{\max}(G)\ge2\|\beta\|_\infty ,

with equality if and only if :math:`|a_j|=|b_j|` (for :math:`\lambda_{\max}`: on the largest
coefficient).

Source: Wu and Su (ICML 2023), abstract (equivalence for diagonal linear networks); derived in the
chapter.
"""

from __future__ import annotations

import torch
from torch import Tensor

from descent.stability.sharpness import Sharpness

__all__ = [
    "balanced_factors",
    "diagonal_gram",
    "diagonal_jacobian",
    "diagonal_predict",
    "least_sharpness",
    "population_loss",
    "population_sharpness",
]


def diagonal_predict(a: Tensor, b: Tensor, inputs: Tensor) -> Tensor:
    r"""Return :math:`X(a\odot b)`.

    Args:
        a: first factor, shape ``(..., d)``.
        b: second factor, shape ``(..., d)``.
        inputs: :math:`X`, shape ``(..., n, d)``.

    Returns:
        Outputs, shape ``(..., n)``.

    Raises:
        ValueError: if the factors differ in shape.
    """
    if a.shape != b.shape:
        raise ValueError(f"factors must share a shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    return (inputs @ (a * b).unsqueeze(-1)).squeeze(-1)


def diagonal_jacobian(a: Tensor, b: Tensor, inputs: Tensor) -> Tensor:
    r"""Return the per-sample gradients :math:`[x_i\odot b,\;x_i\odot a]`.

    Args:
        a: first factor, shape ``(..., d)``.
        b: second factor, shape ``(..., d)``.
        inputs: shape ``(..., n, d)``.

    Returns:
        Shape ``(..., n, 2d)``; the first ``d`` columns belong to ``a``.
    """
    return torch.cat([inputs * b.unsqueeze(-2), inputs * a.unsqueeze(-2)], dim=-1)


def diagonal_gram(a: Tensor, b: Tensor, inputs: Tensor) -> Tensor:
    r"""Return :math:`K=\frac1nX\,\mathrm{diag}(a^2+b^2)\,X^\top` without forming the Jacobian.

    Args:
        a: first factor, shape ``(..., d)``.
        b: second factor, shape ``(..., d)``.
        inputs: shape ``(..., n, d)``.

    Returns:
        Shape ``(..., n, n)``.
    """
    weights = a.square() + b.square()
    return (inputs * weights.unsqueeze(-2)) @ inputs.mT / inputs.shape[-2]


def population_loss(factors: Tensor, target: Tensor) -> Tensor:
    r"""Return :math:`\frac12\|a\odot b-\beta^*\|^2`, the expected loss for inputs of identity
    covariance.

    Args:
        factors: ``a`` followed by ``b``, shape ``(2d,)``.
        target: :math:`\beta^*`, shape ``(d,)``.

    Returns:
        A scalar.

    Raises:
        ValueError: if ``factors`` is not twice as long as ``target``.
    """
    if factors.shape[-1] != 2 * target.shape[-1]:
        raise ValueError(
            f"need 2d factors for d coefficients, got {factors.shape[-1]} and {target.shape[-1]}"
        )
    a, b = factors.chunk(2, dim=-1)
    return 0.5 * (a * b - target).square().sum(-1)


def population_sharpness(a: Tensor, b: Tensor) -> Sharpness:
    r"""Return the three sharpness measures for inputs of identity covariance.

    Args:
        a: first factor, shape ``(..., d)``.
        b: second factor, shape ``(..., d)``.

    Returns:
        :math:`\sum_jq_j`, :math:`\|q\|_2` and :math:`\max_jq_j` of the block eigenvalues
        :math:`q_j=a_j^2+b_j^2`, each of shape ``(...)``.
    """
    blocks = a.square() + b.square()
    return Sharpness(blocks.sum(-1), torch.linalg.vector_norm(blocks, dim=-1), blocks.amax(-1))


def balanced_factors(coefficients: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the flattest factorisation, :math:`a=\sqrt{|\beta|}`,
    :math:`b=\mathrm{sign}(\beta)\,a`.

    Args:
        coefficients: :math:`\beta`, shape ``(..., d)``.

    Returns:
        ``a`` and ``b``, each of shape ``(..., d)``.
    """
    a = coefficients.abs().sqrt()
    return a, coefficients.sign() * a


def least_sharpness(
    coefficients: Tensor, measure: str, generator: torch.Generator, iterations: int = 200
) -> tuple[Tensor, Tensor]:
    r"""Minimise one sharpness measure over all factorisations :math:`a\odot b=\beta`, numerically.

    With :math:`a_j=s_j\sqrt{|\beta_j|}`, :math:`b_j=\beta_j/a_j` and :math:`u=\log s` started at
    random, L-BFGS minimises the measure over :math:`u`. The maximum behind :math:`\lambda_{\max}`
    is smoothed by a log-sum-exp whose temperature falls in stages; the value returned is the exact
    measure.

    Args:
        coefficients: :math:`\beta`, shape ``(d,)``, no zero entry.
        measure: ``"trace"``, ``"frobenius"`` or ``"largest"``.
        generator: source of the random start, on the CPU.
        iterations: L-BFGS iterations per stage.

    Returns:
        The least value found (a scalar) and the value at the random start.

    Raises:
        ValueError: for an unknown measure or a zero coefficient.
    """
    if measure not in Sharpness._fields:
        raise ValueError(f"measure must be one of {Sharpness._fields}, got {measure!r}")
    if bool((coefficients == 0).any()):
        raise ValueError("a zero coefficient has no factorisation with finite s; drop it first")
    root = coefficients.abs().sqrt()
    start = torch.randn(coefficients.shape, generator=generator, dtype=coefficients.dtype)
    log_scale = start.to(coefficients.device).requires_grad_()

    def blocks() -> Tensor:
        a = log_scale.exp() * root
        return a.square() + (coefficients / a).square()

    def exact() -> Tensor:
        a = (log_scale.exp() * root).detach()
        return getattr(population_sharpness(a, coefficients / a), measure)

    def objective(temperature: float) -> Tensor:
        if measure == "trace":
            return blocks().sum()
        if measure == "frobenius":
            return blocks().square().sum()
        return temperature * torch.logsumexp(blocks() / temperature, dim=-1)

    initial = exact()
    for temperature in (1.0, 0.1, 0.01) if measure == "largest" else (1.0,):
        optimiser = torch.optim.LBFGS(
            [log_scale],
            max_iter=iterations,
            tolerance_grad=1e-12,
            tolerance_change=1e-16,
            line_search_fn="strong_wolfe",
        )

        def closure(
            temperature: float = temperature, optimiser: torch.optim.LBFGS = optimiser
        ) -> Tensor:
            optimiser.zero_grad()
            value = objective(temperature)
            value.backward()
            return value

        optimiser.step(closure)
    return exact(), initial
