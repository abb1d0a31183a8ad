r"""Thinning a transport plan to its largest entries, and the mass lost by it.

A plan of entropic transport is positive everywhere but nearly concentrated on the support of an optimal vertex, at most
:math:`n+m-1` entries. :func:`sparsify_top` keeps the largest entries of the *whole* matrix (not of each row); the
mass of the others is the :math:`\varepsilon` of "(λ, ε)-sparse".

Source: Tang et al. (ICLR 2024), the definition of approximate sparsity and the sparsification step of their algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ThinnedPlan", "approximate_sparsity", "budget_for_mass", "sparsify_top"]


@dataclass(frozen=True)
class ThinnedPlan:
    """The largest entries of a plan, in row-major order.

    Args:
        rows: row of each entry, shape ``(kept,)``, ``int64``.
        columns: column of each entry, shape ``(kept,)``, ``int64``.
        values: the entries, shape ``(kept,)``.
        shape: ``(n, m)`` of the plan.
        dropped_mass: sum of the entries left out.
    """

    rows: Tensor
    columns: Tensor
    values: Tensor
    shape: tuple[int, int]
    dropped_mass: float

    @property
    def kept(self) -> int:
        """The number of entries kept."""
        return self.values.numel()

    def dense(self) -> Tensor:
        """Return the thinned plan as a matrix, shape ``(n, m)``, zero where an entry was dropped."""
        matrix = self.values.new_zeros(self.shape)
        matrix[self.rows, self.columns] = self.values
        return matrix


def sparsify_top(plan: Tensor, keep: int) -> ThinnedPlan:
    r"""Keep the entries :math:`\ge\rho`, where :math:`\rho` is the ``keep``-largest of the whole plan.

    Args:
        plan: :math:`P\ge0`, shape ``(n, m)``.
        keep: entries to keep, from 1 to ``n m``. Entries equal to :math:`\rho` are all kept, so ties can add to it;
            entries that are exactly zero are never kept.

    Returns:
        The kept entries and the mass of the others.

    Raises:
        ValueError: if ``plan`` is no matrix or ``keep`` is out of range.
    """
    if plan.ndim != 2:
        raise ValueError(f"plan must have shape (n, m), got {tuple(plan.shape)}")
    if not 1 <= keep <= plan.numel():
        raise ValueError(f"keep must be between 1 and {plan.numel()}, got {keep}")
    threshold = torch.topk(plan.flatten(), keep, sorted=False).values.min()
    kept = (plan >= threshold) & (plan > 0)
    rows, columns = kept.nonzero(as_tuple=True)
    dropped = float(plan.masked_fill(kept, 0.0).sum())
    return ThinnedPlan(rows, columns, plan[rows, columns], (plan.shape[0], plan.shape[1]), dropped)


def approximate_sparsity(plan: Tensor, keep: int) -> float:
    r"""Return the mass outside the ``keep`` largest entries: the least :math:`\varepsilon` for that number of them.

    Args:
        plan: :math:`P\ge0`, shape ``(n, m)``.
        keep: entries to keep, from 0 to ``n m``; ties are not kept on top.

    Returns:
        The dropped mass, in the units of the plan.

    Raises:
        ValueError: if ``keep`` is out of range.
    """
    if not 0 <= keep <= plan.numel():
        raise ValueError(f"keep must be between 0 and {plan.numel()}, got {keep}")
    return float(torch.topk(plan.flatten(), plan.numel() - keep, largest=False).values.sum())


def budget_for_mass(plan: Tensor, mass: float) -> int:
    r"""Return the least number of entries to keep so that the dropped mass is at most ``mass``.

    Args:
        plan: :math:`P\ge0`, shape ``(n, m)``.
        mass: the mass that may be dropped, at least 0.

    Returns:
        A number from 1 to ``n m``.

    Raises:
        ValueError: if ``mass`` is negative or not a number.
    """
    if not mass >= 0:
        raise ValueError(f"mass must be at least 0, got {mass}")
    ascending = plan.flatten().sort().values
    droppable = int((ascending.cumsum(0) <= mass).sum())
    return max(1, plan.numel() - droppable)
