r"""Mean-square stability of linearised SGD: the second-moment operator and its threshold.

At a global minimum that interpolates the data, SGD on the squared loss
:math:`R(\theta)=\frac1{2n}\sum_i (f(x_i;\theta)-y_i)^2` linearises to
:math:`\delta_{t+1}=\delta_t-\frac{\eta}{B}\sum_{i\in I_t} g_i g_i^\top\delta_t`, where
:math:`g_i=\nabla f(x_i;\theta^*)` is the gradient of the *model output*. With
:math:`G=\frac1n\sum_i g_ig_i^\top` the second moment :math:`S_t=\mathbb E\,\delta_t\delta_t^\top`
obeys

.. math::

    \mathcal T(S) = S-\eta(GS+SG)+\eta^2\Big[\frac{\kappa}{n}\sum_i (g_i^\top S g_i)\,g_ig_i^\top
                    +(1-\kappa)\,GSG\Big],

with :math:`\kappa=1/B` for batches drawn with replacement and :math:`\kappa=\frac{n-B}{B(n-1)}`
without.

Source: Wu and Su (ICML 2023), setting of the abstract; operator and proofs derived in the chapter.
The closed form of the threshold is in the spirit of Mulayoff and Michaeli (2024).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = [
    "asymptotic_loss_growth",
    "batch_factor",
    "gd_stability_threshold",
    "gradient_moments",
    "mean_square_stability_threshold",
    "mean_square_stability_threshold_closed_form",
    "second_moment_map",
    "trace_bound_threshold",
]

_RANK_TOLERANCE = 1e-10


def batch_factor(batch: int, n: int, replacement: bool = True) -> float:
    r"""Return :math:`\kappa`, the share of single-sample noise that is left in a batch of size B.

    Args:
        batch: batch size :math:`B\ge1`; at most ``n`` without replacement.
        n: number of samples.
        replacement: whether the samples of a batch are drawn independently.

    Returns:
        :math:`1/B` with replacement, :math:`(n-B)/(B(n-1))` without (0 for the full batch).

    Raises:
        ValueError: if the batch size is out of range.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    if replacement:
        return 1.0 / batch
    if batch > n:
        raise ValueError(f"a batch of {batch} cannot be drawn without replacement from {n} samples")
    return 0.0 if batch == n else (n - batch) / (batch * (n - 1))


def _check_gradients(jacobian: Tensor) -> None:
    if jacobian.ndim != 2:
        raise ValueError(f"jacobian must have shape (n, p), got {tuple(jacobian.shape)}")
    if not jacobian.is_floating_point():
        raise TypeError(f"jacobian must be a floating-point tensor, got {jacobian.dtype}")
    if not bool(jacobian.abs().max() > 0):
        raise ValueError("all per-sample gradients are zero: every step size is stable")


def gradient_moments(jacobian: Tensor) -> dict[str, float]:
    r"""Return the moments of the per-sample gradients that enter the trace bound.

    Args:
        jacobian: per-sample gradients of the model output, shape ``(n, p)``.

    Returns:
        ``trace`` :math:`=\mathrm{Tr}\,G`, ``frobenius`` :math:`=\|G\|_F`, ``largest``
        :math:`=\lambda_{\max}(G)` and ``fourth`` :math:`=\frac1n\sum_i\|g_i\|^4`.

    Raises:
        ValueError: if ``jacobian`` is not a matrix or vanishes.
    """
    _check_gradients(jacobian)
    n, p = jacobian.shape
    small = jacobian.T @ jacobian / n if p <= n else jacobian @ jacobian.T / n
    return {
        "trace": float(small.trace()),
        "frobenius": float(torch.linalg.matrix_norm(small)),
        "largest": float(torch.linalg.eigvalsh(small)[-1]),
        "fourth": float(jacobian.square().sum(-1).square().mean()),
    }


def second_moment_map(
    jacobian: Tensor, learning_rate: float, batch: int = 1, replacement: bool = True
) -> Callable[[Tensor], Tensor]:
    r"""Return :math:`S\mapsto\mathcal T(S)`, one SGD step of the second moment.

    Args:
        jacobian: per-sample gradients :math:`g_i` of the model output, shape ``(n, p)``.
        learning_rate: step size :math:`\eta>0`.
        batch: batch size :math:`B`.
        replacement: whether a batch is drawn with replacement.

    Returns:
        A function of symmetric matrices, shape ``(..., p, p)``; its cost is :math:`O(np^2+p^3)`.

    Raises:
        ValueError: if shapes or sizes are out of range.
    """
    _check_gradients(jacobian)
    n = jacobian.shape[0]
    kappa = batch_factor(batch, n, replacement)
    gram = jacobian.T @ jacobian / n

    def step(second_moment: Tensor) -> Tensor:
        projected = gram @ second_moment
        weights = (jacobian @ second_moment * jacobian).sum(-1)
        noise = jacobian.T @ (weights[..., None] * jacobian) / n
        moved = (
            second_moment
            - learning_rate * (projected + projected.mT)
            + learning_rate**2 * (kappa * noise + (1.0 - kappa) * projected @ gram)
        )
        # Rounding breaks the symmetry, and the antisymmetric part can grow where the operator
        # itself contracts.
        return 0.5 * (moved + moved.mT)

    return step


def _features_in_eigenbasis(jacobian: Tensor) -> tuple[Tensor, Tensor]:
    """Return the non-zero eigenvalues of G and the gradients in that eigenbasis, shape (n,
    rank)."""
    _check_gradients(jacobian)
    jacobian = jacobian.double()
    _, singular, right = torch.linalg.svd(jacobian, full_matrices=False)
    eigenvalues = singular.square() / jacobian.shape[0]
    keep = eigenvalues > _RANK_TOLERANCE * eigenvalues[0]
    return eigenvalues[keep], jacobian @ right[keep].T


def asymptotic_loss_growth(
    jacobian: Tensor, learning_rate: float, batch: int = 1, steps: int = 600
) -> float:
    r"""Return the last one-step ratio :math:`\mathrm{Tr}(GS_T)/\mathrm{Tr}(GS_{T-1})` of the
    expected loss.

    The second moment starts at the identity on the span of the gradients and is renormalised after
    every step, so that neither growth nor decay can leave the range of floating-point numbers.

    Args:
        jacobian: per-sample gradients of the model output, shape ``(n, p)``.
        learning_rate: step size :math:`\eta>0`.
        batch: batch size :math:`B`, drawn with replacement.
        steps: number of steps :math:`T\ge1`.

    Returns:
        A number below one if the expected loss ends up falling, above one if it grows.

    Raises:
        ValueError: if shapes or sizes are out of range.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    # The null space of G never moves: left in, it would drown the decay that is asked for.
    eigenvalues, features = _features_in_eigenbasis(jacobian)
    step = second_moment_map(features, learning_rate, batch)
    gram = torch.diag(eigenvalues).flatten()
    basis = torch.diag(torch.ones_like(gram)).view(-1, *features.shape[1:], *features.shape[1:])
    # The map as a matrix, so that a step is one product; the basis matrices enter through their
    # symmetric part.
    operator = step(0.5 * (basis + basis.mT)).flatten(1)
    state = torch.diag(torch.ones_like(eigenvalues)).flatten()
    for _ in range(steps - 1):
        state = state @ operator
        state = state / torch.linalg.vector_norm(state)
    return float(gram @ (state @ operator) / (gram @ state))


def _symmetric_blocks(jacobian: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Write the three parts of the operator on symmetric matrices over span{g_i}.

    In the eigenbasis of :math:`G` (null space removed: there :math:`\rho=1` for every step size)
    the maps :math:`S\mapsto GS+SG` and :math:`S\mapsto GSG` are diagonal. An orthonormal basis of
    the symmetric matrices is enough because the operator is completely positive, so that its
    leading eigenvector is positive semi-definite, hence symmetric.
    """
    eigenvalues, features = _features_in_eigenbasis(jacobian)
    n, rank = features.shape
    row, column = torch.triu_indices(rank, rank, device=jacobian.device)
    off_diagonal = torch.where(row == column, 1.0, 2.0**0.5).to(features)
    products = features[:, row] * features[:, column] * off_diagonal
    drift = eigenvalues[row] + eigenvalues[column]
    square = eigenvalues[row] * eigenvalues[column]
    return drift, square, products.T @ products / n


def mean_square_stability_threshold(
    jacobian: Tensor, batch: int = 1, replacement: bool = True, bisections: int = 48
) -> float:
    r"""Return the largest step size at which linearised SGD is stable in mean square.

    Bisection, on :math:`(0, 50B/\mathrm{Tr}\,G)`, of the spectral radius of the second-moment
    operator restricted to the span of the gradients. The set of stable step sizes is an interval,
    since :math:`\mathcal T\preceq I` reads :math:`\eta D\preceq C` with positive semi-definite
    :math:`C, D` that do not depend on :math:`\eta`.

    Args:
        jacobian: per-sample gradients of the model output, shape ``(n, p)``; rank up to about 12.
        batch: batch size :math:`B`.
        replacement: whether a batch is drawn with replacement.
        bisections: number of halvings; 48 leave a relative error near 1e-13.

    Returns:
        :math:`\eta_c`, in units of one over :math:`\mathrm{Tr}\,G`.

    Raises:
        ValueError: if shapes or sizes are out of range.
    """
    drift, square, fourth = _symmetric_blocks(jacobian)
    n = jacobian.shape[0]
    kappa = batch_factor(batch, n, replacement)
    second_order = kappa * fourth + (1.0 - kappa) * torch.diag(square)
    identity = torch.eye(drift.numel(), dtype=drift.dtype, device=drift.device)
    first_order = torch.diag(drift)
    low, high = 0.0, 50.0 * batch / float(jacobian.double().square().sum() / n)
    for _ in range(bisections):
        middle = 0.5 * (low + high)
        operator = identity - middle * first_order + middle**2 * second_order
        radius = torch.linalg.eigvalsh(operator).abs().max()
        if radius < 1.0 - 1e-12:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def mean_square_stability_threshold_closed_form(
    jacobian: Tensor, batch: int = 1, replacement: bool = True
) -> float:
    r"""Return the same threshold as one eigenvalue, :math:`1/\lambda_{\max}(C^{-1/2}DC^{-1/2})`.

    Here :math:`C:S\mapsto GS+SG` and :math:`D:S\mapsto\frac\kappa n\sum_i(g_i^\top
    Sg_i)g_ig_i^\top+(1-\kappa)GSG`. Both are symmetric for the Frobenius inner product, and
    :math:`C` is diagonal in the eigenbasis of :math:`G`.

    Args:
        jacobian: per-sample gradients of the model output, shape ``(n, p)``; rank up to about 60.
        batch: batch size :math:`B`.
        replacement: whether a batch is drawn with replacement.

    Returns:
        :math:`\eta_c`.

    Raises:
        ValueError: if shapes or sizes are out of range.
    """
    drift, square, fourth = _symmetric_blocks(jacobian)
    kappa = batch_factor(batch, jacobian.shape[0], replacement)
    scale = drift.rsqrt()
    second_order = kappa * fourth + (1.0 - kappa) * torch.diag(square)
    return 1.0 / float(torch.linalg.eigvalsh(scale[:, None] * second_order * scale)[-1])


def gd_stability_threshold(jacobian: Tensor) -> float:
    r"""Return :math:`2/\lambda_{\max}(G)`, the largest stable step size of full-batch gradient
    descent.

    Args:
        jacobian: per-sample gradients of the model output, shape ``(n, p)``.

    Returns:
        The threshold for the loss with the factor one half; with torch's ``mse_loss`` (no half) the
        Hessian is :math:`2G` and the threshold halves.

    Raises:
        ValueError: if ``jacobian`` is not a matrix or vanishes.
    """
    return 2.0 / gradient_moments(jacobian)["largest"]


def trace_bound_threshold(jacobian: Tensor, batch: int = 1, replacement: bool = True) -> float:
    r"""Return the upper bound of the mean-square threshold given by the trace argument,

    .. math:: \eta_c\le\frac{2\,\mathrm{Tr}\,G}{\kappa\,\mathbb E\|g\|^4+(1-\kappa)\|G\|_F^2}
              \le\frac{2}{\kappa\,\mathrm{Tr}\,G}.

    Args:
        jacobian: per-sample gradients of the model output, shape ``(n, p)``.
        batch: batch size :math:`B`.
        replacement: whether a batch is drawn with replacement.

    Returns:
        The middle expression; equal to the threshold if all :math:`\|g_i\|` are equal and ``batch``
        is 1.

    Raises:
        ValueError: if shapes or sizes are out of range.
    """
    kappa = batch_factor(batch, jacobian.shape[0], replacement)
    moments = gradient_moments(jacobian)
    noise = kappa * moments["fourth"] + (1.0 - kappa) * moments["frobenius"] ** 2
    return 2.0 * moments["trace"] / noise
