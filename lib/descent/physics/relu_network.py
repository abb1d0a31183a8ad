r"""ReLU networks as lists of affine maps, dense or convolutional, and their Jacobian at given neuron states.

.. math:: z_1=W_1x+b_1,\qquad z_{i+1}=W_{i+1}\max(z_i,0)+b_{i+1},\qquad f(x)=z_n .

All vectors are flat (an image is flattened by channel, row, column), so that dense and convolutional
layers are used alike: bound propagation needs only :math:`W v`, :math:`W^\top v`, rows of
:math:`W` and rows of :math:`W^\top`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d

__all__ = ["AffineLayer", "Convolution", "Dense", "ReluNetwork"]


class AffineLayer(ABC):
    """An affine map between flat vectors. ``bias`` has one entry per output."""

    bias: Tensor
    in_size: int
    out_size: int

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """Return :math:`Wx` without the bias, from shape ``(..., in_size)`` to ``(..., out_size)``."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        r"""Return :math:`W^\top y`, from shape ``(..., out_size)`` to ``(..., in_size)``."""

    @abstractmethod
    def magnitude(self) -> AffineLayer:
        r"""Return the layer with the weights :math:`|W|` and no bias."""

    @abstractmethod
    def to(self, like: Tensor) -> AffineLayer:
        """Return the layer in the dtype and on the device of ``like``."""

    def rows(self, index: Tensor) -> Tensor:
        """Return rows of :math:`W`, shape ``(len(index), in_size)``."""
        return self.adjoint(_unit_vectors(index, self.out_size, self.bias))

    def adjoint_rows(self, index: Tensor) -> Tensor:
        r"""Return rows of :math:`W^\top`, shape ``(len(index), out_size)``."""
        return self.apply(_unit_vectors(index, self.in_size, self.bias))

    def row_norms(self) -> Tensor:
        r"""Return :math:`\sum_j|W_{ij}|`, shape ``(out_size,)``."""
        return self.magnitude().apply(self.bias.new_ones(self.in_size))


def _unit_vectors(index: Tensor, size: int, like: Tensor) -> Tensor:
    units = like.new_zeros(len(index), size)
    units[torch.arange(len(index), device=like.device), index] = 1
    return units


@dataclass(frozen=True)
class Dense(AffineLayer):
    """A dense layer: ``weight`` of shape ``(out, in)``, ``bias`` of shape ``(out,)``."""

    weight: Tensor
    bias: Tensor

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[:1]:
            raise ValueError(
                f"a dense layer needs weight (out, in) and bias (out,), got "
                f"{tuple(self.weight.shape)} and {tuple(self.bias.shape)}"
            )

    @property
    def in_size(self) -> int:  # type: ignore[override]
        return self.weight.shape[1]

    @property
    def out_size(self) -> int:  # type: ignore[override]
        return self.weight.shape[0]

    def apply(self, x: Tensor) -> Tensor:
        return x @ self.weight.T

    def adjoint(self, y: Tensor) -> Tensor:
        return y @ self.weight

    def rows(self, index: Tensor) -> Tensor:
        return self.weight[index]

    def adjoint_rows(self, index: Tensor) -> Tensor:
        return self.weight.T[index]

    def magnitude(self) -> Dense:
        return Dense(self.weight.abs(), torch.zeros_like(self.bias))

    def to(self, like: Tensor) -> Dense:
        return Dense(self.weight.to(like), self.bias.to(like))


@dataclass(frozen=True)
class Convolution(AffineLayer):
    """A two-dimensional convolution with square stride and zero padding.

    Args:
        weight: shape ``(out_channels, in_channels, height, width)``.
        bias: one entry per output, shape ``(out_size,)``.
        in_shape: ``(channels, height, width)`` of the input image.
        stride: positive.
        padding: zeros added on each side.
    """

    weight: Tensor
    bias: Tensor
    in_shape: tuple[int, int, int]
    stride: int = 1
    padding: int = 0

    def __post_init__(self) -> None:
        if self.weight.ndim != 4 or self.weight.shape[1] != self.in_shape[0]:
            raise ValueError(
                f"a convolution over {self.in_shape[0]} channels needs weight (out, "
                f"{self.in_shape[0]}, height, width), got {tuple(self.weight.shape)}"
            )
        if self.bias.shape != (self.out_size,):
            raise ValueError(f"bias must have shape ({self.out_size},), one entry per output")

    @classmethod
    def of_channels(
        cls,
        weight: Tensor,
        channel_bias: Tensor,
        in_shape: tuple[int, int, int],
        stride: int = 1,
        padding: int = 0,
    ) -> Convolution:
        """A convolution whose bias is given per output channel, shape ``(out_channels,)``."""
        _, height, width = _out_shape(weight, in_shape, stride, padding)
        return cls(
            weight, channel_bias.repeat_interleave(height * width), in_shape, stride, padding
        )

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)`` of the output image."""
        return _out_shape(self.weight, self.in_shape, self.stride, self.padding)

    @property
    def in_size(self) -> int:  # type: ignore[override]
        channels, height, width = self.in_shape
        return channels * height * width

    @property
    def out_size(self) -> int:  # type: ignore[override]
        channels, height, width = self.out_shape
        return channels * height * width

    def apply(self, x: Tensor) -> Tensor:
        images = x.reshape(-1, *self.in_shape)
        out = conv2d(images, self.weight, stride=self.stride, padding=self.padding)
        return out.reshape(*x.shape[:-1], self.out_size)

    def adjoint(self, y: Tensor) -> Tensor:
        images = y.reshape(-1, *self.out_shape)
        # Input rows and columns that no window reaches, at the far end, when the stride exceeds 1.
        missing = [
            size - ((out - 1) * self.stride - 2 * self.padding + kernel)
            for size, out, kernel in zip(
                self.in_shape[1:], self.out_shape[1:], self.weight.shape[2:], strict=True
            )
        ]
        out = conv_transpose2d(
            images,
            self.weight,
            stride=self.stride,
            padding=self.padding,
            output_padding=(missing[0], missing[1]),
        )
        return out.reshape(*y.shape[:-1], self.in_size)

    def magnitude(self) -> Convolution:
        return replace(self, weight=self.weight.abs(), bias=torch.zeros_like(self.bias))

    def to(self, like: Tensor) -> Convolution:
        return replace(self, weight=self.weight.to(like), bias=self.bias.to(like))


def _out_shape(
    weight: Tensor, in_shape: tuple[int, int, int], stride: int, padding: int
) -> tuple[int, int, int]:
    height, width = (
        (size + 2 * padding - kernel) // stride + 1
        for size, kernel in zip(in_shape[1:], weight.shape[2:], strict=True)
    )
    return weight.shape[0], height, width


@dataclass(frozen=True)
class ReluNetwork:
    """Affine layers with a ReLU between each two.

    Args:
        layers: :math:`W_1,\\dots,W_n`, each as wide as the next expects.

    Raises:
        ValueError: for no layer or sizes that do not fit.
    """

    layers: tuple[AffineLayer, ...]

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("a network needs at least one layer")
        for first, second in zip(self.layers, self.layers[1:], strict=False):
            if first.out_size != second.in_size:
                raise ValueError(
                    f"a layer with {first.out_size} outputs is followed by one with "
                    f"{second.in_size} inputs"
                )

    @classmethod
    def of_weights(cls, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> ReluNetwork:
        """A dense network from its weights, shapes ``(out, in)``, and biases, shapes ``(out,)``."""
        return cls(tuple(Dense(w, b) for w, b in zip(weights, biases, strict=True)))

    @classmethod
    def of_sequential(
        cls, model: nn.Sequential, in_shape: tuple[int, int, int] | None = None
    ) -> ReluNetwork:
        """Copy a ``Sequential`` of ``Linear``, ``Conv2d``, ``ReLU`` and ``Flatten`` in that alternation.

        Args:
            model: the network; its weights are detached and copied.
            in_shape: ``(channels, height, width)`` of the input, needed for convolutions.

        Raises:
            ValueError: for another module, or a ReLU missing between two affine layers.
        """
        layers: list[AffineLayer] = []
        after_relu = True
        for module in model:
            if isinstance(module, nn.Flatten):
                continue
            if isinstance(module, nn.ReLU):
                after_relu = True
                continue
            if not after_relu:
                raise ValueError("two affine layers follow each other without a ReLU between them")
            layers.append(_layer_of(module, in_shape))
            in_shape = getattr(layers[-1], "out_shape", None)
            after_relu = False
        return cls(tuple(layers))

    @property
    def in_size(self) -> int:
        """The number of inputs, :math:`d`."""
        return self.layers[0].in_size

    @property
    def out_size(self) -> int:
        """The number of outputs, :math:`K`."""
        return self.layers[-1].out_size

    @property
    def hidden_sizes(self) -> list[int]:
        """The number of neurons of each hidden layer."""
        return [layer.out_size for layer in self.layers[:-1]]

    def to(self, like: Tensor) -> ReluNetwork:
        """Return the network in the dtype and on the device of ``like``."""
        return ReluNetwork(tuple(layer.to(like) for layer in self.layers))

    def preactivations(self, x: Tensor) -> list[Tensor]:
        """Return :math:`z_1,\\dots,z_n` at ``x``, shapes ``(..., n_i)``; the last is the output."""
        values: list[Tensor] = []
        for layer in self.layers:
            values.append(layer.apply(values[-1].relu() if values else x) + layer.bias)
        return values

    def __call__(self, x: Tensor) -> Tensor:
        return self.preactivations(x)[-1]

    def gradients(self, states: Sequence[Tensor], output_weights: Tensor) -> list[Tensor]:
        r"""Walk backwards through the network with given neuron states.

        .. math:: J_n=W_n^\top g_0,\qquad J_i=W_i^\top(D_i\circ J_{i+1}) .

        Args:
            states: the diagonals :math:`D_1,\dots,D_{n-1}`, entries in [0, 1], shapes ``(S, n_i)``.
            output_weights: :math:`g_0`, one per row, shape ``(K, out_size)``.

        Returns:
            :math:`J_1,\dots,J_n`, shapes ``(S, K, n_{i-1})``; the first is the Jacobian.
        """
        found = [self.layers[-1].adjoint(output_weights)[None]]
        for layer, state in zip(self.layers[-2::-1], list(states)[::-1], strict=True):
            found.append(layer.adjoint(state[:, None, :].to(found[-1]) * found[-1]))
        return found[::-1]

    def jacobian(self, x: Tensor, output_weights: Tensor | None = None) -> Tensor:
        """Return the Jacobian where the network is differentiable; an inactive slope of 0 at a kink.

        Args:
            x: points, shape ``(S, d)``.
            output_weights: rows that combine outputs, shape ``(K, out_size)``; the identity if left out.

        Returns:
            Shape ``(S, K, d)``.
        """
        if output_weights is None:
            output_weights = torch.eye(self.out_size, dtype=x.dtype, device=x.device)
        states = [z > 0 for z in self.preactivations(x)[:-1]]
        return self.gradients(states, output_weights)[0].expand(len(x), -1, -1)


def _layer_of(module: nn.Module, in_shape: tuple[int, int, int] | None) -> AffineLayer:
    if isinstance(module, nn.Linear):
        weight = module.weight.detach().clone()
        bias = weight.new_zeros(len(weight)) if module.bias is None else module.bias.detach()
        return Dense(weight, bias.clone())
    if isinstance(module, nn.Conv2d):
        plain = (
            module.groups == 1
            and module.dilation == (1, 1)
            and module.stride[0] == module.stride[1]
            and isinstance(module.padding, tuple)
            and module.padding[0] == module.padding[1]
        )
        if in_shape is None or not plain:
            raise ValueError(
                "a Conv2d needs in_shape, one group, no dilation, and the same stride and padding "
                "along both axes"
            )
        weight = module.weight.detach().clone()
        bias = weight.new_zeros(len(weight)) if module.bias is None else module.bias.detach()
        return Convolution.of_channels(
            weight, bias, in_shape, int(module.stride[0]), int(module.padding[0])
        )
    raise ValueError(
        f"only Linear, Conv2d, ReLU and Flatten are understood, got {type(module).__name__}"
    )
