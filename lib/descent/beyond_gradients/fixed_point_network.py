r"""Recurrent networks that compute by settling: one masked matrix, any wiring, any batch of copies.

A state :math:`u\in\mathbb R^n` (membranes) has the activity :math:`r=\varphi(u)` and relaxes by substitution,

.. math:: u\leftarrow H(r)=Wr+W_{\mathrm{in}}x+b,\qquad F(u)=H(\varphi(u))-u,

to a fixed point :math:`F(u^*)=0`. Layers are blocks of the one matrix :math:`W`; connections that do not exist
are zeros of its mask. Every tensor may carry leading dimensions, such as seeds.

Source: Laborieux and Zenke (ICLR 2024) and the authors' code (shifted sigmoid, substitution dynamics, wirings,
initialisation).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from descent.beyond_gradients.activations import ACTIVATIONS, Activation

__all__ = [
    "FixedPointNetwork",
    "Wiring",
    "chain",
    "cross_entropy_gradient",
    "draw_network",
    "feed_forward",
    "loop",
    "quadratic_gradient",
]

LossGradient = Callable[[Tensor], Tensor]
"""Maps activities ``(..., batch, n)`` to the gradient of the loss with respect to them, same shape."""


@dataclass(frozen=True)
class Wiring:
    """Which layer drives which.

    Args:
        sizes: units per layer; the first layer receives the input, the last is the output.
        connections: pairs (source, target) of layer indices.

    Raises:
        ValueError: for an empty layer, or a connection to a layer that does not exist.
    """

    sizes: tuple[int, ...]
    connections: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"every layer needs at least one unit, got sizes {self.sizes}")
        for source, target in self.connections:
            if not (0 <= source < len(self.sizes) and 0 <= target < len(self.sizes)):
                raise ValueError(
                    f"connection ({source}, {target}) names a layer outside 0 to {len(self.sizes) - 1}"
                )

    @property
    def units(self) -> int:
        """The number of units, ``n``."""
        return sum(self.sizes)

    def layer(self, index: int) -> slice:
        """The units of one layer; negative indices count from the output."""
        index %= len(self.sizes)
        start = sum(self.sizes[:index])
        return slice(start, start + self.sizes[index])

    def mask(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Ones where a connection exists, shape ``(n, n)``; rows are targets."""
        mask = torch.zeros(self.units, self.units, dtype=dtype)
        for source, target in self.connections:
            mask[self.layer(target), self.layer(source)] = 1
        return mask


def chain(sizes: Sequence[int]) -> Wiring:
    """Neighbouring layers connected both ways, as in an energy-based network."""
    last = len(sizes) - 1
    pairs = [(k, k + 1) for k in range(last)] + [(k + 1, k) for k in range(last)]
    return Wiring(tuple(sizes), tuple(pairs))


def loop(sizes: Sequence[int]) -> Wiring:
    """Forward connections, and the output back to the first layer: no reciprocal pair."""
    last = len(sizes) - 1
    return Wiring(tuple(sizes), (*((k, k + 1) for k in range(last)), (last, 0)))


def feed_forward(sizes: Sequence[int]) -> Wiring:
    """Forward connections only."""
    return Wiring(tuple(sizes), tuple((k, k + 1) for k in range(len(sizes) - 1)))


@dataclass(frozen=True)
class FixedPointNetwork:
    r"""A recurrent network, or a batch of them in the leading dimensions.

    Attributes:
        wiring: layers and connections.
        recurrent: :math:`W`, shape ``(..., n, n)``, row = target; zero where nothing is connected.
        input_weights: :math:`W_{\mathrm{in}}`, shape ``(..., n_1, d)``; drives the first layer.
        bias: :math:`b`, shape ``(..., n)``.
        readout: :math:`R`, shape ``(..., classes, n_L)``; logits are :math:`Rr_L+c`.
        readout_bias: :math:`c`, shape ``(..., classes)``.
        activation: :math:`\varphi`.
    """

    wiring: Wiring
    recurrent: Tensor
    input_weights: Tensor
    bias: Tensor
    readout: Tensor
    readout_bias: Tensor
    activation: Activation = ACTIVATIONS["shifted sigmoid"]

    def parameters(self) -> dict[str, Tensor]:
        """The tensors that learn, by name."""
        names = ("recurrent", "input_weights", "bias", "readout", "readout_bias")
        return {name: getattr(self, name) for name in names}

    def with_parameters(self, parameters: Mapping[str, Tensor]) -> FixedPointNetwork:
        """The same wiring and activation with other tensors, named as by :meth:`parameters`."""
        return FixedPointNetwork(
            self.wiring,
            parameters["recurrent"],
            parameters["input_weights"],
            parameters["bias"],
            parameters["readout"],
            parameters["readout_bias"],
            self.activation,
        )

    def select(self, networks: slice) -> FixedPointNetwork:
        """Some networks of a batch, along its first dimension; views."""
        return self.with_parameters({k: v[networks] for k, v in self.parameters().items()})

    def to(self, kind: torch.dtype | torch.device) -> FixedPointNetwork:
        """The same network on another device or in another dtype, such as ``torch.complex128``."""
        return self.with_parameters({k: v.to(kind) for k, v in self.parameters().items()})

    def drive(self, inputs: Tensor) -> Tensor:
        r"""Return :math:`W_{\mathrm{in}}x+b`, constant during relaxation.

        Args:
            inputs: shape ``(..., batch, d)``.

        Returns:
            Shape ``(..., batch, n)``.
        """
        first = inputs @ self.input_weights.mT
        out = self.bias[..., None, :].expand(*first.shape[:-1], self.wiring.units).clone()
        out[..., self.wiring.layer(0)] += first
        return out

    def field(self, activity: Tensor, drive: Tensor) -> Tensor:
        """Return :math:`H(r)`, shape ``(..., batch, n)``: one product for all layers."""
        if activity.shape == drive.shape and activity.shape[:-2] == self.recurrent.shape[:1]:
            return torch.baddbmm(drive, activity, self.recurrent.mT)
        return activity @ self.recurrent.mT + drive

    def force(self, state: Tensor, drive: Tensor) -> Tensor:
        """Return :math:`F(u)=H(\\varphi(u))-u`, zero at a fixed point."""
        return self.field(self.activation.function(state), drive) - state

    def relax(
        self,
        drive: Tensor,
        steps: int,
        start: Tensor | None = None,
        nudge: complex | Tensor = 0.0,
        loss_gradient: LossGradient | None = None,
        step_size: float = 1.0,
    ) -> Tensor:
        r"""Iterate :math:`u\leftarrow u+s\,(F(u)+\beta\,\partial L/\partial r)` and return the last state.

        A positive real nudge pushes the loss *up*, so that responses are gradients without a sign.

        Args:
            drive: from :meth:`drive`, shape ``(..., batch, n)``.
            steps: number of iterations.
            start: initial state; zero unless given.
            nudge: :math:`\beta`, or a tensor of nudges that broadcasts with the state; complex values need a
                complex network and drive.
            loss_gradient: re-evaluated at every step with the nudged activity; needed for a nudge.
            step_size: :math:`s` in (0, 1]; 1 is the paper's plain substitution. The fixed points do not depend
                on it.

        Returns:
            The state, shape of ``drive``.

        Raises:
            ValueError: for a step size outside (0, 1], or a nudge without a loss gradient.
        """
        if not 0 < step_size <= 1:
            raise ValueError(f"step_size must be in (0, 1], got {step_size}")
        if loss_gradient is None and bool(torch.as_tensor(nudge).any()):
            raise ValueError(f"the nudge {nudge} needs a loss_gradient")
        state = torch.zeros_like(drive) if start is None else start
        for _ in range(steps):
            activity = self.activation.function(state)
            target = self.field(activity, drive)
            if loss_gradient is not None:
                target = target + nudge * loss_gradient(activity)
            state = target if step_size == 1 else torch.lerp(state, target, step_size)
        return state

    def logits(self, activity: Tensor) -> Tensor:
        """Return :math:`Rr_L+c`, shape ``(..., batch, classes)``."""
        out = activity[..., self.wiring.layer(-1)] @ self.readout.mT
        return out + self.readout_bias[..., None, :]


def cross_entropy_gradient(network: FixedPointNetwork, targets: Tensor) -> LossGradient:
    r"""The gradient :math:`R^\top(\mathrm{softmax}(Rr_L+c)-y)` of each example's cross-entropy.

    No conjugate is taken anywhere: for complex activities this is the holomorphic continuation.

    Args:
        network: provides the readout.
        targets: one-hot rows, shape ``(..., batch, classes)``.
    """

    def gradient(activity: Tensor) -> Tensor:
        logits = network.logits(activity)
        powers = torch.exp(logits - logits.real.amax(-1, keepdim=True))
        residual = powers / powers.sum(-1, keepdim=True) - targets
        out = torch.zeros_like(activity)
        out[..., network.wiring.layer(-1)] = residual @ network.readout
        return out

    return gradient


def quadratic_gradient(wiring: Wiring, targets: Tensor) -> LossGradient:
    r"""The gradient :math:`r_L-y` of :math:`\frac12\|r_L-y\|^2`, on the output units.

    Args:
        wiring: tells the output units.
        targets: shape ``(..., batch, n_L)``.
    """

    def gradient(activity: Tensor) -> Tensor:
        out = torch.zeros_like(activity)
        out[..., wiring.layer(-1)] = activity[..., wiring.layer(-1)] - targets
        return out

    return gradient


def draw_network(
    wiring: Wiring,
    inputs: int,
    classes: int,
    angle: float,
    generators: Sequence[torch.Generator],
    dtype: torch.dtype = torch.float32,
) -> FixedPointNetwork:
    r"""Draw one network per generator, with a chosen angle between forward and backward weights.

    Each kernel is :math:`N(0,1/\text{fan-in})` with its *own* fan-in; then
    :math:`W_{\mathrm{back}}\leftarrow\sin\alpha\,W_{\mathrm{back}}+\cos\alpha\,W_{\mathrm{fwd}}^\top`. The same
    generators give the same draws at every angle.

    Args:
        wiring: layers and connections; a connection to an earlier layer is backward.
        inputs: dimension of the input.
        classes: number of logits.
        angle: :math:`\alpha` in degrees; 0 ties the backward weights, 90 makes them independent.
        generators: one per network, advanced.
        dtype: real floating dtype of the parameters.

    Returns:
        Networks stacked along a leading dimension of ``len(generators)``.
    """
    n, last = wiring.units, wiring.sizes[-1]
    drawn: dict[str, list[Tensor]] = {"recurrent": [], "input_weights": [], "readout": []}
    cosine, sine = (
        float(f(torch.deg2rad(torch.tensor(angle, dtype=torch.float64))))
        for f in (torch.cos, torch.sin)
    )
    for generator in generators:

        def kernel(rows: int, columns: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(rows, columns, generator=generator, dtype=dtype) / columns**0.5

        drawn["input_weights"].append(kernel(wiring.sizes[0], inputs))
        drawn["readout"].append(kernel(classes, last))
        matrix = torch.zeros(n, n, dtype=dtype)
        forward = [c for c in wiring.connections if c[0] < c[1]]
        for source, target in forward:
            block = kernel(wiring.sizes[target], wiring.sizes[source])
            matrix[wiring.layer(target), wiring.layer(source)] = block
        for source, target in (c for c in wiring.connections if c[0] >= c[1]):
            block = kernel(wiring.sizes[target], wiring.sizes[source])
            if (target, source) in forward:
                tied = matrix[wiring.layer(source), wiring.layer(target)].T
                block = sine * block + cosine * tied
            matrix[wiring.layer(target), wiring.layer(source)] = block
        drawn["recurrent"].append(matrix)
    count = len(generators)
    return FixedPointNetwork(
        wiring,
        torch.stack(drawn["recurrent"]),
        torch.stack(drawn["input_weights"]),
        torch.zeros(count, n, dtype=dtype),
        torch.stack(drawn["readout"]),
        torch.zeros(count, classes, dtype=dtype),
    )
