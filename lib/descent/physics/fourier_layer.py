r"""The spectral part of a Fourier layer, for any number of axes and several replicates as one batch.

.. math:: h\mapsto\mathcal F^{-1}(R\cdot\mathcal F h)

with a matrix :math:`R` for each of the lowest modes of every axis and zero for all others.

Source: the Fourier neural operator of Li et al. (2021), as used by Chalapathi, Du and Krishnapriyan (ICLR 2024).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Parameters", "spectral_convolution", "uniform_parameters"]

Parameters = dict[str, Tensor]


def uniform_parameters(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
    r"""Draw parameters uniformly in :math:`\pm1/\sqrt{\text{fan-in}}`.

    Args:
        shape: of the parameters.
        fan_in: number of inputs of a unit.
        generator: on the CPU.

    Returns:
        float32.
    """
    return (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(fan_in)


def spectral_convolution(field: Tensor, kernel: Tensor, norm: str = "backward") -> Tensor:
    """Multiply the lowest modes of a field by matrices.

    Args:
        field: shape ``(S, B, n_1, ..., n_k, C)``, each axis at least twice its modes.
        kernel: complex, shape ``(S, 2 m_1, ..., 2 m_{k-1}, m_k, C, C)``: of all axes but the last the modes of both
            signs, of the last the non-negative ones, as a real transform gives them.
        norm: of the transform, as in ``torch.fft``.

    Returns:
        The shape of ``field``.
    """
    axes, shape = tuple(range(2, field.ndim - 1)), field.shape[2:-1]
    modes = [n // 2 for n in kernel.shape[1:-3]]
    low = torch.fft.rfftn(field, dim=axes, norm=norm).narrow(axes[-1], 0, kernel.shape[-3])
    for axis, m in zip(axes, modes, strict=False):
        low = torch.cat((low.narrow(axis, 0, m), low.narrow(axis, -m, m)), axis)
    # one matrix product for each replicate and mode
    mixed = (low.movedim(1, -2) @ kernel).movedim(-2, 1)
    for axis, m in reversed(list(zip(axes, modes, strict=False))):
        gap = list(mixed.shape)
        gap[axis] = shape[axis - 2] - 2 * m
        parts = (mixed.narrow(axis, 0, m), mixed.new_zeros(gap), mixed.narrow(axis, -m, m))
        mixed = torch.cat(parts, axis)
    missing = shape[-1] // 2 + 1 - kernel.shape[-3]
    padded = torch.nn.functional.pad(mixed, (0, 0, 0, missing))
    return torch.fft.irfftn(padded, s=shape, dim=axes, norm=norm)
