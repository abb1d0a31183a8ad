r"""Lower bounds of a local Lipschitz constant: sampled points, and ascent on a smoothed gradient norm."""

from __future__ import annotations

import torch
from torch import Tensor

from descent.physics.relu_network import ReluNetwork

__all__ = ["ascended_lipschitz", "gradient_norms", "sample_box", "sampled_lipschitz"]


def sample_box(lower: Tensor, upper: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw points of a box, every second one a corner.

    Args:
        lower: lower corner, shape ``(d,)``.
        upper: upper corner, same shape.
        count: number of points.
        generator: a CPU generator.

    Returns:
        Shape ``(count, d)``.
    """
    share = torch.rand(count, len(lower), generator=generator, dtype=torch.float64)
    share[::2] = share[::2].round()
    return lower + (upper - lower) * share.to(lower)


def gradient_norms(
    network: ReluNetwork,
    points: Tensor,
    output_weights: Tensor | None = None,
    limit: int = 2**22,
) -> Tensor:
    r"""Return :math:`\sum_j|\partial_jf_k|` at points, shape ``(S, K)``.

    Args:
        network: the network.
        points: shape ``(S, d)``.
        output_weights: combinations of outputs as rows, shape ``(K, out_size)``; the outputs if left out.
        limit: numbers held at once in the widest layer, which limits memory.
    """
    rows = network.out_size if output_weights is None else len(output_weights)
    width = max([network.in_size, *network.hidden_sizes])
    parts = points.split(max(1, limit // (rows * width)))
    return torch.cat([network.jacobian(p, output_weights).abs().sum(-1) for p in parts])


def sampled_lipschitz(
    network: ReluNetwork,
    lower: Tensor,
    upper: Tensor,
    count: int,
    generator: torch.Generator,
    output_weights: Tensor | None = None,
) -> Tensor:
    """Return the largest gradient norm at sampled points (half of them corners) per output.

    Args:
        network: the network.
        lower: lower corner, shape ``(d,)``.
        upper: upper corner, same shape.
        count: number of points.
        generator: a CPU generator.
        output_weights: combinations of outputs as rows; the outputs if left out.

    Returns:
        Shape ``(K,)``.
    """
    points = sample_box(lower, upper, count, generator)
    return gradient_norms(network, points, output_weights).amax(0)


def ascended_lipschitz(
    network: ReluNetwork,
    lower: Tensor,
    upper: Tensor,
    output_weights: Tensor,
    generator: torch.Generator,
    restarts: int = 64,
    steps: int = 40,
    temperature: float = 0.1,
) -> float:
    r"""Climb the gradient norm of one output and return the largest true value on the way.

    The norm is piecewise constant, so that its own gradient tells nothing. Ascent uses the states
    :math:`D_i=\sigma(z_i/\tau)` in place of steps, signs of the gradient scaled by a step that shrinks from a
    fifth of the box, and projection; values are those of the network itself.

    Args:
        network: the network.
        lower: lower corner, shape ``(d,)``.
        upper: upper corner, same shape.
        output_weights: :math:`g_0`, shape ``(out_size,)``.
        generator: a CPU generator, for the starts.
        restarts: number of starts.
        steps: steps of each.
        temperature: :math:`\tau` relative to the standard deviation of the pre-activations over the starts.

    Returns:
        A lower bound of the local Lipschitz constant.
    """
    x = sample_box(lower, upper, restarts, generator)
    weights = output_weights[None]
    scales = [z.std() * temperature + 1e-12 for z in network.preactivations(x)[:-1]]
    best = float(gradient_norms(network, x, weights).max())
    for step in range(steps):
        x = x.detach().requires_grad_()
        soft = [
            torch.sigmoid(z / scale)
            for z, scale in zip(network.preactivations(x)[:-1], scales, strict=True)
        ]
        network.gradients(soft, weights)[0].abs().sum().backward()
        assert x.grad is not None
        size = 0.2 * (1 - step / steps) * (upper - lower)
        x = torch.minimum(torch.maximum(x.detach() + size * x.grad.sign(), lower), upper)
        best = max(best, float(gradient_norms(network, x, weights).max()))
    return best
