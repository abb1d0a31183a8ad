r"""One-shot pruning by the Optimal Brain Surgeon rule with a matrix-free inverse Fisher matrix.

To second order, removing weight :math:`i` and correcting all others as well as possible costs

.. math:: s_i=\frac{w_i^2}{2[F^{-1}]_{ii}},\qquad \delta w=-\frac{w_i}{[F^{-1}]_{ii}}F^{-1}e_i .

The weights of smallest :math:`s_i` go. Many go at once, so the correction used is the *sum* of the
single ones, and the inverse is recomputed on the way.

Source: Frantar, Kurtic and Alistarh (NeurIPS 2021), pruning section, and the authors' code (joint
update, geometric schedule, restriction to the weights that are left).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from descent.curvature.inverse_fisher import woodbury_solve
from descent.curvature.static_inverse_fisher import StaticInverseFisher

__all__ = [
    "Pruned",
    "PruningStep",
    "collect_gradients",
    "joint_obs_correction",
    "magnitude_saliency",
    "no_correction",
    "obs_correction",
    "obs_prune",
    "obs_saliency",
    "target_counts",
]


class PruningStep(NamedTuple):
    """What a saliency and a correction may use; all restricted to the ``n`` weights that are left.

    ``weights`` and ``diagonal`` (of the inverse Fisher matrix) have shape ``(n,)``, ``gradients``
    ``(m, n)``; ``inverse`` is built from ``gradients`` with damping ``damp``.
    """

    weights: Tensor
    gradients: Tensor
    damp: float
    inverse: StaticInverseFisher
    diagonal: Tensor


class Pruned(NamedTuple):
    """Weights with the dropped ones exactly 0, and the mask of those kept; both of shape ``(d,)``."""

    weights: Tensor
    mask: Tensor


def obs_saliency(step: PruningStep) -> Tensor:
    r"""Return :math:`w_i^2/(2[F^{-1}]_{ii})`, the predicted rise of the loss.

    Args:
        step: the weights left and their inverse Fisher matrix.

    Returns:
        Shape ``(n,)``; the smallest are dropped.
    """
    return step.weights.square() / (2 * step.diagonal)


def magnitude_saliency(step: PruningStep) -> Tensor:
    r"""Return :math:`|w_i|`.

    Args:
        step: the weights left.

    Returns:
        Shape ``(n,)``; the smallest are dropped.
    """
    return step.weights.abs()


def obs_correction(step: PruningStep, drop: Tensor) -> Tensor:
    r"""Return the sum of the single-weight corrections,

    .. math:: \delta w=-F^{-1}\sum_{i\in\text{drop}}\frac{w_i}{[F^{-1}]_{ii}}\,e_i .

    One product with :math:`F^{-1}` however many weights go. It is not the best joint correction.

    Args:
        step: the weights left and their inverse Fisher matrix.
        drop: shape ``(n,)``, boolean.

    Returns:
        Shape ``(n,)``.
    """
    return -step.inverse.mul(torch.where(drop, step.weights / step.diagonal, 0.0))


def joint_obs_correction(step: PruningStep, drop: Tensor) -> Tensor:
    r"""Return the best correction for all dropped weights together.

    With kept weights :math:`k` and dropped weights :math:`p`, minimising
    :math:`\frac12\delta^\top F\delta` subject to :math:`\delta_p=-w_p` gives

    .. math:: \delta_k=F_{kk}^{-1}F_{kp}w_p=\tfrac1mF_{kk}^{-1}G_k^\top(G_pw_p) ,

    one more inverse-Fisher product, on the kept weights. Full block only. Not in the paper.

    Args:
        step: the weights left, their gradients and the damping.
        drop: shape ``(n,)``, boolean.

    Returns:
        Shape ``(n,)``.
    """
    change = -step.weights * drop
    keep = ~drop
    rows = step.gradients[:, keep]
    pull = rows.mT @ (step.gradients[:, drop] @ step.weights[drop]) / rows.shape[0]
    change[keep] = woodbury_solve(rows, step.damp, pull)
    return change


def no_correction(step: PruningStep, drop: Tensor) -> Tensor:
    """Return zeros: drop weights and leave the others as they are.

    Args:
        step: the weights left.
        drop: ignored.

    Returns:
        Shape ``(n,)``.
    """
    return torch.zeros_like(step.weights)


def target_counts(dim: int, alive: int, sparsity: float, recomputations: int) -> list[int]:
    r"""Return how many weights are left after each recomputation, on a geometric path.

    After :math:`j` of :math:`R` recomputations the fraction kept is
    :math:`(1-s_0)\bigl(\frac{1-s}{1-s_0}\bigr)^{j/R}` from sparsity :math:`s_0` to :math:`s`.

    Args:
        dim: number of weights, dropped ones included.
        alive: number left at the start.
        sparsity: final fraction dropped, in [0, 1), at least the present one.
        recomputations: :math:`R`, at least 1.

    Returns:
        ``recomputations`` non-increasing counts.

    Raises:
        ValueError: for a sparsity below the present one or outside [0, 1), or no recomputation.
    """
    if not 1 - alive / dim <= sparsity < 1:
        raise ValueError(
            f"sparsity must be from the present {1 - alive / dim:.4g} up to below 1, got {sparsity}"
        )
    if recomputations < 1:
        raise ValueError(f"recomputations must be at least 1, got {recomputations}")
    start = alive / dim
    ratio = (1 - sparsity) / start
    return [
        round(dim * start * ratio ** (j / recomputations)) for j in range(1, recomputations + 1)
    ]


def obs_prune(
    weights: Tensor,
    gradients: Callable[[Tensor], Tensor],
    sparsity: float,
    *,
    damp: float = 1e-5,
    block_size: int | None = None,
    recomputations: int = 8,
    saliency: Callable[[PruningStep], Tensor] = obs_saliency,
    correction: Callable[[PruningStep, Tensor], Tensor] = obs_correction,
    mask: Tensor | None = None,
) -> Pruned:
    """Drop weights in several recomputations, correcting those that stay.

    Args:
        weights: shape ``(d,)``.
        gradients: maps the present weights ``(d,)`` to fresh gradients ``(m, d)``; called once per
            recomputation.
        sparsity: final fraction dropped, in [0, 1).
        damp: damping of the Fisher matrix.
        block_size: size of its diagonal blocks, counted among the weights left; ``None`` for one.
        recomputations: see :func:`target_counts`.
        saliency: which weights matter; :func:`obs_saliency` or :func:`magnitude_saliency`.
        correction: :func:`obs_correction`, :func:`joint_obs_correction` or :func:`no_correction`.
        mask: shape ``(d,)``, boolean, the weights already left; all by default.

    Returns:
        New weights and mask; the inputs are not changed.

    Raises:
        ValueError: for shapes that disagree or a sparsity that cannot be reached.
    """
    if weights.ndim != 1 or (mask is not None and mask.shape != weights.shape):
        raise ValueError("weights must be a vector and mask of the same shape")
    alive = torch.ones_like(weights, dtype=torch.bool) if mask is None else mask.clone()
    weights = weights * alive
    for count in target_counts(weights.numel(), int(alive.sum()), sparsity, recomputations):
        index = alive.nonzero()[:, 0]
        rows = gradients(weights)
        if rows.ndim != 2 or rows.shape[1] != weights.numel():
            raise ValueError(
                f"gradients must return shape (m, {weights.numel()}), got {tuple(rows.shape)}"
            )
        rows = rows[:, index]
        size = None if block_size is None else min(block_size, len(index))
        inverse = StaticInverseFisher(rows, damp, size)
        step = PruningStep(weights[index], rows, damp, inverse, inverse.diag())
        drop = torch.zeros(len(index), dtype=torch.bool, device=weights.device)
        drop[saliency(step).argsort(stable=True)[: len(index) - count]] = True
        weights[index] = torch.where(drop, 0.0, step.weights + correction(step, drop))
        alive[index[drop]] = False
    return Pruned(weights, alive)


def collect_gradients(
    model: nn.Module,
    parameters: Sequence[str],
    loss: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    targets: Tensor,
    batches: Tensor,
) -> Tensor:
    """Return one gradient per mini-batch, in evaluation mode.

    A row is the gradient of the *mean* loss of its batch, so that the Fisher matrix built from rows
    of batch size ``b`` is that of single samples divided by ``b``, plus the outer product of the mean
    gradient (in expectation).

    Args:
        model: treats samples independently of one another.
        parameters: names of the parameters to differentiate, in the order of the columns.
        loss: maps outputs and targets of one batch to a scalar.
        inputs: shape ``(n, ...)``.
        targets: shape ``(n, ...)``.
        batches: indices into the samples, shape ``(m, b)``.

    Returns:
        Shape ``(m, d)``.

    Raises:
        KeyError: for a name that is not a parameter.
    """
    values = {name: p.detach() for name, p in model.named_parameters()}
    chosen = {name: values.pop(name) for name in parameters}
    training = model.training
    model.eval()

    def batch_loss(chosen: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return loss(functional_call(model, {**values, **chosen}, (x,)), y)

    rows = vmap(grad(batch_loss), in_dims=(None, 0, 0))(chosen, inputs[batches], targets[batches])
    model.train(training)
    return torch.cat([rows[name].flatten(1) for name in parameters], dim=1)
