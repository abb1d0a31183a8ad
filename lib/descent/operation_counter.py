r"""Counting what an algorithm does: multiply-adds, numbers read, and bytes alive at once.

Counts are exact, the same on every machine, and work on the ``meta`` device, where sizes are
followed and nothing is computed. What is seen is what torch dispatches: matrix and vector products,
and the tensors that operations return. Element-wise work and workspace inside a kernel are not.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["OperationCounter"]

aten = torch.ops.aten


def _of_product(first: int) -> Callable[..., int]:
    """Multiply-adds of a product whose left factor is argument number ``first``."""

    def count(*arguments: Any) -> int:
        left, right = arguments[first], arguments[first + 1]
        columns = right.shape[-1] if right.ndim == left.ndim and left.ndim > 1 else 1
        return math.prod(left.shape) * columns

    return count


COSTS: dict[Any, Callable[..., int]] = {
    aten.mm: _of_product(0),
    aten.bmm: _of_product(0),
    aten.mv: _of_product(0),
    aten.dot: _of_product(0),
    aten.addmm: _of_product(1),
    aten.addmm_: _of_product(1),
    aten.addmv: _of_product(1),
    aten.baddbmm: _of_product(1),
    aten.baddbmm_: _of_product(1),
    aten.linalg_cholesky_ex: lambda a, *_: a.shape[-1] ** 3 // 6,
    aten.cholesky_solve: lambda b, *_: b.shape[-2] ** 2 * b.shape[-1],
    aten.cholesky_inverse: lambda a, *_: a.shape[-1] ** 3 // 3,
}


def _leaves(arguments: Any, options: Any) -> list[Any]:
    """The leaves of a call's arguments; flat calls, by far the most, take the short way."""
    if not options and not any(isinstance(a, list | tuple | dict) for a in arguments):
        return list(arguments)
    return tree_leaves((arguments, options))


class OperationCounter(TorchDispatchMode):
    """Context manager that counts what runs inside it.

    Attributes:
        multiply_adds: in matrix and vector products; factorisations by their textbook count.
        numbers_read: elements read from tensors that existed before the context was entered.
        bytes_alive: bytes in the tensors made inside that are still alive.
        peak_bytes: the most that were alive at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.multiply_adds = self.numbers_read = self.bytes_alive = self.peak_bytes = 0
        self._made: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = [t for t in _leaves(args, kwargs) if isinstance(t, Tensor)]
        known = [id(t.untyped_storage()) for t in inputs]
        outside = [t for t, key in zip(inputs, known, strict=True) if key not in self._made]
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.numbers_read += sum(t.numel() for t in outside)
        if (cost := COSTS.get(func.overloadpacket)) is not None:
            self.multiply_adds += int(cost(*args))
        for tensor in (result,) if isinstance(result, Tensor) else tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._follow(tensor.untyped_storage(), known)
        return result

    def _follow(self, storage: Any, known: list[int]) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._made or key in known:
            return

        def free(_: Any) -> None:
            self._made.pop(key, None)
            self.bytes_alive -= size

        self._made[key] = weakref.ref(storage, free)
        self.bytes_alive += size
        self.peak_bytes = max(self.peak_bytes, self.bytes_alive)
