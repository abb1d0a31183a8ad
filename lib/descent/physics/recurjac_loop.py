r"""RecurJac as one would write it down: entry by entry, neuron by neuron, with intervals where signs are unknown.

Source: RecurJac as re-implemented in the code of Shi et al. (NeurIPS 2022), which also puts the interval in
for active neurons; written independently of :mod:`descent.physics.jacobian_bounds` to be compared with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from descent.physics.clarke_relaxations import ACTIVE, INACTIVE

__all__ = ["recurjac_bounds"]


def recurjac_bounds(
    weights: Sequence[np.ndarray], states: Sequence[np.ndarray], output_weights: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    r"""Bound the gradients :math:`J_1,\dots,J_n` of one combination of outputs by RecurJac.

    Args:
        weights: :math:`W_1,\dots,W_n`, shapes ``(n_i, n_{i-1})``.
        states: of the hidden layers, shapes ``(n_i,)``: 0 inactive, 1 active, 2 undecided.
        output_weights: :math:`g_0`, shape ``(n_n,)``.

    Returns:
        Lower and upper bounds of :math:`J_1,\dots,J_n`, shapes ``(n_{i-1},)``.
    """
    last = weights[-1].T @ output_weights
    found = [(last, last)]
    for i in range(len(weights) - 2, -1, -1):
        # found[j] now bounds the gradient that enters hidden layer i + j from behind
        entries = range(weights[i].shape[1])
        upper = [_walk(weights, states, found, i, weights[i][:, e], last) for e in entries]
        lower = [-_walk(weights, states, found, i, -weights[i][:, e], last) for e in entries]
        found.insert(0, (np.array(lower), np.array(upper)))
    return found


def _walk(
    weights: Sequence[np.ndarray],
    states: Sequence[np.ndarray],
    found: Sequence[tuple[np.ndarray, np.ndarray]],
    start: int,
    row: np.ndarray,
    last: np.ndarray,
) -> float:
    """Upper bound of one entry: keep a product where its sign is known, else take its worst end."""
    total = 0.0
    for k in range(start, len(states)):
        low, high = found[k - start]
        kept = np.zeros_like(row)
        for r, a in enumerate(row):
            state = states[k][r]
            if state == INACTIVE or a == 0:
                continue
            if low[r] < 0 < high[r]:
                total += a * (high[r] if a > 0 else low[r])
            # active: the gradient itself; undecided with known sign: the worst of 0 and the gradient
            elif state == ACTIVE or (a > 0) == (low[r] >= 0):
                kept[r] = a
        if k == len(states) - 1:
            return total + float(kept @ last)
        row = weights[k + 1] @ kept
    return total + float(row @ last)
