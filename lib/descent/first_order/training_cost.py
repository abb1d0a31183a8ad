r"""The cost of a training step that backpropagates only to a cutoff, in multiply-adds.

A layer with :math:`m_i` multiply-adds per sample costs :math:`m_i` in the forward pass, :math:`m_i` for the
gradient of its weights and :math:`m_i` for that of its input. With cutoff :math:`s` and batch :math:`n`,

.. math:: \mathrm{cost}(s)=n\Bigl(\sum_im_i+\sum_{i\ge s}m_i+\sum_{i>s}m_i\Bigr)+\sum_{i\ge s}\mathrm{NS}_i,

where :math:`\mathrm{NS}_i` is the orthogonalisation of the layer's weights. The forward pass is always paid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from descent.first_order.polar import newton_schulz_cost

__all__ = ["counted_multiply_adds", "layer_costs", "step_cost"]


def step_cost(
    macs: Sequence[int], shapes: Sequence[tuple[int, int]], batch: int, cutoff: int = 0
) -> int:
    """Return the multiply-adds of one step with the given cutoff.

    Args:
        macs: multiply-adds per sample of the forward pass of each layer, from the input on.
        shapes: rows and columns of each layer's weight matrix.
        batch: number of samples.
        cutoff: the first layer that moves, from 0.

    Returns:
        Products only, element-wise work not counted.

    Raises:
        ValueError: if the lengths differ or the cutoff is not a layer.
    """
    if len(macs) != len(shapes):
        raise ValueError(f"{len(macs)} layers have multiply-adds, {len(shapes)} have shapes")
    if not 0 <= cutoff < len(macs):
        raise ValueError(f"the cutoff must be from 0 to {len(macs) - 1}, got {cutoff}")
    passes = sum(macs) + sum(macs[cutoff:]) + sum(macs[cutoff + 1 :])
    return batch * passes + sum(newton_schulz_cost(*shape) for shape in shapes[cutoff:])


def layer_costs(
    macs: Sequence[int], shapes: Sequence[tuple[int, int]], batch: int
) -> tuple[int, list[int]]:
    """Split the expected cost of a step into a fixed part and one part per layer that moves.

    Args:
        macs: as for :func:`step_cost`.
        shapes: as for :func:`step_cost`.
        batch: as for :func:`step_cost`.

    Returns:
        ``c_f`` and ``c`` such that a step with cutoff ``s`` costs ``c_f + sum(c[s:])``.
    """
    costs = [step_cost(macs, shapes, batch, s) for s in range(len(macs))]
    fixed = batch * sum(macs)
    return fixed, [a - b for a, b in zip(costs, [*costs[1:], fixed], strict=True)]


def counted_multiply_adds(call: Callable[[], Any]) -> int:
    """Return the multiply-adds of the matrix products and convolutions that a call really runs.

    Args:
        call: anything that runs on torch tensors, a backward pass included.

    Returns:
        Half the floating-point operations that torch's own counter reports.
    """
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        call()
    return counter.get_total_flops() // 2
