r"""Train two-layer ReLU networks at many learning rates and seeds at once, with hand-written
gradients.

Loss :math:`\frac12(f(x)-y)^2` of one sample (SGD) or its mean over samples (GD), both layers
trained. Optionally the joint gradient of all parameters is clipped to norm one and the learning
rate follows half a cosine down to zero.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from descent.stability.learning_rate_sweep import History, Sweep
from descent.stability.two_layer_relu import relu_predict, squared_gradient_norms

__all__ = ["cosine_factor", "sweep_relu_gd", "sweep_relu_sgd"]


def cosine_factor(step: int, steps: int, cosine: bool) -> float:
    r"""Return :math:`\frac12(1+\cos(\pi t/T))`, or 1 if ``cosine`` is false.

    Args:
        step: :math:`t`, counted from 0.
        steps: :math:`T`.
        cosine: whether the learning rate decays.

    Returns:
        The factor of the peak learning rate.
    """
    return 0.5 * (1.0 + math.cos(math.pi * step / steps)) if cosine else 1.0


def _check(inputs: Tensor, targets: Tensor, a: Tensor, weights: Tensor, rates: Tensor) -> None:
    if inputs.ndim != 3 or targets.shape != inputs.shape[:2]:
        raise ValueError(
            "need inputs (S, n, d) and targets (S, n), "
            f"got {tuple(inputs.shape)} and {tuple(targets.shape)}"
        )
    if a.ndim != 2 or weights.shape != (*a.shape, inputs.shape[2]) or a.shape[0] != inputs.shape[0]:
        raise ValueError(
            f"need a (S, m) and weights (S, m, d), got {tuple(a.shape)} and {tuple(weights.shape)}"
        )
    if rates.ndim != 1:
        raise ValueError(f"learning rates must have shape (L,), got {tuple(rates.shape)}")


def _record(
    history: History, step: int, a: Tensor, weights: Tensor, inputs: Tensor, targets: Tensor
) -> None:
    features = inputs.unsqueeze(1)
    loss = 0.5 * (relu_predict(a, weights, features) - targets.unsqueeze(1)).square().mean(-1)
    history.add(step, loss, squared_gradient_norms(a, weights, features).mean(-1))


def sweep_relu_sgd(
    inputs: Tensor,
    targets: Tensor,
    a: Tensor,
    weights: Tensor,
    learning_rates: Tensor,
    order: Tensor,
    record_every: int,
    *,
    clip: bool = False,
    cosine: bool = False,
    block: int = 32,
) -> Sweep:
    r"""Run single-sample SGD for every seed and learning rate.

    Step :math:`t` changes the input weights by the rank-one matrix :math:`u_tx_t^\top`. These are
    applied ``block`` at a time: within a block the pre-activations are corrected through the inner
    products of the visited samples,

    .. math:: W_tx_t=W_0x_t-\sum_{s<t}u_s\,(x_s\cdot x_t),

    which is exact algebra (only the order of summation differs) and replaces two passes over
    :math:`W` per step by two matrix products per block.

    Args:
        inputs: shape ``(S, n, d)``.
        targets: shape ``(S, n)``.
        a: output weights at the start, shape ``(S, m)``, common to all learning rates.
        weights: input weights at the start, shape ``(S, m, d)``.
        learning_rates: peak learning rates, shape ``(L,)``.
        order: sample of each step, shape ``(steps, S)``.
        record_every: steps between two evaluations of the full loss; a multiple of ``block``.
        clip: clip the joint gradient of both layers to norm at most one, before the learning rate.
        cosine: let the learning rate decay to zero over the run.
        block: rank-one updates gathered before they are applied.

    Returns:
        The trained ``a`` (S, L, m) and ``weights`` (S, L, m, d), and the loss history.

    Raises:
        ValueError: if shapes disagree or ``record_every`` is not a multiple of ``block``.
    """
    _check(inputs, targets, a, weights, learning_rates)
    if order.ndim != 2 or order.shape[1] != inputs.shape[0]:
        raise ValueError(
            f"order must have shape (steps, {inputs.shape[0]}), got {tuple(order.shape)}"
        )
    steps = order.shape[0]
    if record_every % block or steps % block:
        raise ValueError(
            f"record_every ({record_every}) and steps ({steps}) "
            f"must be multiples of block ({block})"
        )
    seeds, rates = inputs.shape[0], learning_rates.to(inputs)
    lanes, hidden, dimension = rates.numel(), a.shape[1], inputs.shape[2]
    outer = a.unsqueeze(1).repeat(1, lanes, 1)
    inner = weights.unsqueeze(1).repeat(1, lanes, 1, 1).reshape(seeds, lanes * hidden, dimension)
    every_seed = torch.arange(seeds, device=inputs.device)[:, None]
    # Buffers and the views of one block are made once: the loop below is bound by the number of
    # torch calls.
    before = inputs.new_empty(seeds, block, lanes * hidden)
    updates = torch.zeros_like(before)
    inner_products = inputs.new_empty(seeds, block, block)
    before_rows = [before[:, t : t + 1] for t in range(block)]
    before_lanes = [row.view(seeds, lanes, hidden) for row in before_rows]
    update_lanes = [updates[:, t].view(seeds, lanes, hidden) for t in range(block)]
    earlier_updates = [updates[:, :t] for t in range(block)]
    earlier_products = [inner_products[:, t : t + 1, :t] for t in range(block)]
    active, slope, scratch = (torch.empty_like(outer) for _ in range(3))
    output = inputs.new_empty(seeds, lanes, 1)
    reach, opposite = torch.empty_like(output), torch.empty_like(output)

    def state() -> Tensor:
        return inner.view(seeds, lanes, hidden, dimension)

    history = History()
    _record(history, 0, outer, state(), inputs, targets)
    for start in range(0, steps, block):
        index = order[start : start + block].T.to(inputs.device)
        samples = inputs[every_seed, index]
        labels = targets[every_seed, index].T[:, :, None, None].unbind(0)
        lengths = samples.square().sum(-1).T[:, :, None, None].unbind(0)
        factors = [cosine_factor(start + t, steps, cosine) for t in range(block)]
        decay = torch.tensor(factors, dtype=rates.dtype, device=rates.device)
        scheduled = (rates[:, None] * decay[:, None, None, None]).unbind(0)
        torch.bmm(samples, inner.mT, out=before)
        torch.bmm(samples, samples.mT, out=inner_products)
        for t in range(block):
            if t:
                before_rows[t].baddbmm_(earlier_products[t], earlier_updates[t], alpha=-1.0)
            torch.clamp_min(before_lanes[t], 0.0, out=active)
            torch.mul(outer, active.sign(), out=slope)
            torch.mul(outer, active, out=scratch)
            torch.sum(scratch, -1, keepdim=True, out=output)
            output.sub_(labels[t])
            if clip:
                # r min(1, 1/|r||grad f|) = clamp(r, -1/|grad f|, 1/|grad f|)
                torch.mul(slope, slope, out=scratch)
                scratch.mul_(lengths[t]).addcmul_(active, active)
                torch.sum(scratch, -1, keepdim=True, out=reach)
                torch.neg(reach.rsqrt_(), out=opposite)
                torch.clamp(output, opposite, reach, out=output)
            output.mul_(scheduled[t])
            torch.mul(output, slope, out=update_lanes[t])
            outer.addcmul_(output, active, value=-1.0)
        inner.baddbmm_(updates.mT, samples, alpha=-1.0)
        if (start + block) % record_every == 0:
            _record(history, start + block, outer, state(), inputs, targets)
    return history.sweep(outer, state())


def sweep_relu_gd(
    inputs: Tensor,
    targets: Tensor,
    a: Tensor,
    weights: Tensor,
    learning_rates: Tensor,
    steps: int,
    record_every: int,
    *,
    clip: bool = False,
    cosine: bool = False,
) -> Sweep:
    r"""Run full-batch gradient descent for every seed and learning rate.

    Args:
        inputs: shape ``(S, n, d)``.
        targets: shape ``(S, n)``.
        a: output weights at the start, shape ``(S, m)``.
        weights: input weights at the start, shape ``(S, m, d)``.
        learning_rates: peak learning rates, shape ``(L,)``.
        steps: number of steps.
        record_every: steps between two evaluations of the loss.
        clip: clip the joint gradient of both layers to norm at most one, before the learning rate.
        cosine: let the learning rate decay to zero over the run.

    Returns:
        The trained ``a`` (S, L, m) and ``weights`` (S, L, m, d), and the loss history.

    Raises:
        ValueError: if shapes disagree or ``steps`` is less than 1.
    """
    _check(inputs, targets, a, weights, learning_rates)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    lanes, n = learning_rates.numel(), inputs.shape[1]
    rates = learning_rates.to(inputs).view(1, lanes, 1)
    outer = a.unsqueeze(1).repeat(1, lanes, 1)
    inner = weights.unsqueeze(1).repeat(1, lanes, 1, 1)
    features, labels = inputs.unsqueeze(1), targets.unsqueeze(1)
    history = History()
    _record(history, 0, outer, inner, inputs, targets)
    for step in range(steps):
        active = inner @ features.mT
        active.clamp_min_(0.0)
        residual = (outer.unsqueeze(-2) @ active).squeeze(-2).sub_(labels).div_(n)
        outer_gradient = (active @ residual.unsqueeze(-1)).squeeze(-1)
        signal = active.sign_().mul_(outer.unsqueeze(-1)).mul_(residual.unsqueeze(-2))
        inner_gradient = signal @ features
        scale = rates * cosine_factor(step, steps, cosine)
        if clip:
            squared = outer_gradient.square().sum(-1) + inner_gradient.square().sum((-2, -1))
            scale = scale * squared.rsqrt().clamp_max(1.0).unsqueeze(-1)
        outer.addcmul_(scale, outer_gradient, value=-1.0)
        inner.addcmul_(scale.unsqueeze(-1), inner_gradient, value=-1.0)
        if (step + 1) % record_every == 0:
            _record(history, step + 1, outer, inner, inputs, targets)
    return history.sweep(outer, inner)
