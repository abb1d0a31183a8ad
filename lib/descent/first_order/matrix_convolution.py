r"""A convolution of small images as one matrix product.

A kernel of :math:`o` output and :math:`c` input channels *is* the matrix :math:`W\in\mathbb R^{o\times9c}` that
Muon orthogonalises. With images kept batch-last, ``(c, h, w, n)``, all patches are the columns of one matrix
:math:`P\in\mathbb R^{9c\times h'w'n}` and the convolution is the product :math:`WP`. Its two backward products,
:math:`GP^\top` for the weights and :math:`W^\top G` for the input, are run only if they are asked for. On one
CPU thread and images of 8 x 8 this is about twice as fast as the general routine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["convolve", "patches"]


class _Patches(torch.autograd.Function):
    """3 x 3 patches with zero padding 1; the backward pass adds them up again."""

    @staticmethod
    def forward(context: Any, images: Tensor, stride: int) -> Tensor:
        channels, height, width, count = images.shape
        rows, columns = (height - 1) // stride + 1, (width - 1) // stride + 1
        context.shape, context.stride = images.shape, stride
        result = images.new_empty(channels, 9, rows, columns, count)
        for k, inside, source in _offsets(height, width, stride):
            part = result[:, k]
            if part[:, *inside].shape != part.shape:  # the kernel hangs over the border
                part.zero_()
            part[:, *inside] = images[:, *source]
        return result.view(9 * channels, rows, columns, count)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Any:
        channels, height, width, _ = context.shape
        parts = gradient.reshape(channels, 9, *gradient.shape[1:])
        total = gradient.new_zeros(context.shape)
        for k, inside, source in _offsets(height, width, context.stride):
            total[:, *source] += parts[:, k, *inside]
        return total, None


def _offsets(height: int, width: int, stride: int) -> Iterator[tuple[int, Any, Any]]:
    """For each entry of the kernel: the patches in which it meets the image, and the pixels it meets."""
    for i in range(3):
        for j in range(3):
            inside, source = [], []
            for offset, size in ((i, height), (j, width)):
                first = 1 if offset == 0 else 0
                last = min((size - 1) // stride, (size - offset) // stride)
                inside.append(slice(first, last + 1))
                start = stride * first + offset - 1
                source.append(slice(start, stride * last + offset, stride))
            yield 3 * i + j, tuple(inside), tuple(source)


def patches(images: Tensor, stride: int = 1) -> Tensor:
    """Return all 3 x 3 patches of zero-padded images.

    Args:
        images: shape ``(c, h, w, n)``, batch last.
        stride: between patches.

    Returns:
        Shape ``(9 * c, h', w', n)``, rows in the order of a flattened kernel.

    Raises:
        ValueError: for another number of dimensions or a stride below 1.
    """
    if images.ndim != 4:
        raise ValueError(f"images must have shape (c, h, w, n), got {tuple(images.shape)}")
    if stride < 1:
        raise ValueError(f"the stride must be at least 1, got {stride}")
    result: Tensor = _Patches.apply(images, stride)
    return result


def convolve(images: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    """Return the 3 x 3 convolution with zero padding 1, as the product of the kernel and the patches.

    Args:
        images: shape ``(c, h, w, n)``, batch last.
        kernel: shape ``(o, 9 * c)``.
        stride: of the convolution.

    Returns:
        Shape ``(o, h', w', n)``.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if kernel.shape[-1] != 9 * images.shape[0]:
        raise ValueError(
            f"a kernel of {images.shape[0]} channels has {9 * images.shape[0]} columns, "
            f"got {kernel.shape[-1]}"
        )
    columns = patches(images, stride)
    return (kernel @ columns.flatten(1)).view(-1, *columns.shape[1:])
