r"""Which points of a grid belong to which expert.

A router is a bijection between the points of the grid and :math:`K` groups of equal size. The mixture of experts of
Chalapathi, Du and Krishnapriyan (ICLR 2024), Section 3, has one least-squares problem for each group, and the solution is
the *concatenation* of the groups, not a sum over experts.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["DomainRouter"]


class DomainRouter:
    """Groups of grid points; within a group those of the first instant come first.

    Args:
        groups: flat indices into the grid, shape ``(K, P)``; each index of the grid occurs once.
        shape: of the grid, time first.
        splits: parts of each axis if the groups are blocks.

    Raises:
        ValueError: if the groups are not a partition of the grid.
    """

    def __init__(
        self,
        groups: Tensor,
        shape: tuple[int, ...],
        splits: tuple[int, ...] | None = None,
    ) -> None:
        size = torch.Size(shape).numel()
        flat = groups.flatten()
        if len(flat) != size or len(flat.unique()) != size or flat.min() != 0:
            raise ValueError(f"the groups must hold each of the {size} points of the grid once")
        self.groups, self.shape, self.splits = groups, tuple(shape), splits
        self.inverse = flat.argsort()

    @property
    def experts(self) -> int:
        """Number of groups."""
        return len(self.groups)

    @classmethod
    def blocks(
        cls,
        shape: tuple[int, ...],
        splits: tuple[int, ...],
        device: torch.device | str | None = None,
    ) -> DomainRouter:
        """Cut every axis into equal parts; ``splits=(1, 4)`` are four strips in space.

        Args:
            shape: of the grid, time first.
            splits: parts of each axis.
            device: where the indices live.

        Returns:
            The router.

        Raises:
            ValueError: for an axis that its number of parts does not divide.
        """
        if len(shape) != len(splits) or any(n % k for n, k in zip(shape, splits, strict=True)):
            raise ValueError(f"a grid of {shape} cannot be cut into {splits} equal parts")
        index = torch.arange(torch.Size(shape).numel(), device=device).reshape(shape)
        pieces = [index]
        for axis, parts in enumerate(splits):
            pieces = [c for piece in pieces for c in piece.chunk(parts, axis)]
        return cls(torch.stack([p.flatten() for p in pieces]), shape, splits)

    @classmethod
    def scattered(
        cls,
        shape: tuple[int, ...],
        experts: int,
        generator: torch.Generator,
        device: torch.device | str | None = None,
    ) -> DomainRouter:
        """Deal the points to experts at random, those of the first instant separately.

        Args:
            shape: of the grid, time first.
            experts: number of groups, a divisor of the number of points of one instant.
            generator: of the deal.
            device: where the indices live.

        Returns:
            The router.

        Raises:
            ValueError: if the points cannot be dealt evenly.
        """
        size = torch.Size(shape).numel()
        first = size // shape[0]
        if first % experts:
            raise ValueError(f"{first} points of an instant cannot be dealt to {experts} experts")
        begin = torch.randperm(first, generator=generator).reshape(experts, -1)
        rest = first + torch.randperm(size - first, generator=generator).reshape(experts, -1)
        return cls(torch.cat((begin, rest), 1).to(device), shape)

    def on(self, shape: tuple[int, ...]) -> DomainRouter:
        """The same blocks of another grid.

        Args:
            shape: of the other grid.

        Returns:
            The router; itself if the grid is the same.

        Raises:
            ValueError: for groups that are not blocks.
        """
        if tuple(shape) == self.shape:
            return self
        if self.splits is None:
            raise ValueError("scattered points have no counterpart on another grid")
        return DomainRouter.blocks(shape, self.splits, self.groups.device)

    def partition(self, field: Tensor) -> Tensor:
        """Sort the points into groups.

        Args:
            field: shape ``(..., *shape, N)``.

        Returns:
            Shape ``(..., K, P, N)``.
        """
        lead = field.shape[: -len(self.shape) - 1]
        flat = field.reshape(*lead, -1, field.shape[-1])
        if self.experts == 1 and bool((self.inverse[1:] > self.inverse[:-1]).all()):
            return flat.unsqueeze(-3)
        picked = flat.index_select(-2, self.groups.flatten())
        return picked.reshape(*lead, *self.groups.shape, field.shape[-1])

    def unpartition(self, values: Tensor) -> Tensor:
        """Put the groups back in their places.

        Args:
            values: shape ``(..., K, P)``.

        Returns:
            Shape ``(..., *shape)``.
        """
        flat = values.flatten(-2).index_select(-1, self.inverse)
        return flat.reshape(*values.shape[:-2], *self.shape)
