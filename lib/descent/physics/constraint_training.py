r"""Training a network through a hard constraint, or with the constraint as a penalty; no solution data are used.

The loss of one initial condition is

.. math:: c\,\|F(u)\|+\|u(\cdot,0)-u_0\|/\|u_0\|+\|u(0,\cdot)-1\|+\|u(1,\cdot)+D\,u_x(1,\cdot)\|,

norms, not squares, of the assembled solution on the whole grid. Stencils reach across the borders of experts: nothing
else ties the experts together.

Source: Chalapathi, Du and Krishnapriyan (ICLR 2024), Sections 3 and 4.1, and the official code (Adam, gradients clipped
at norm 1). The factor c = 30 is ours; on this coarse grid the equation's rows would otherwise drown in the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from descent.adam import AdamDirection
from descent.physics.basis_networks import BasisNetwork, Parameters
from descent.physics.constraint_study import border_kink
from descent.physics.diffusion_sorption import DiffusionSorption
from descent.physics.domain_router import DomainRouter
from descent.physics.hard_constraint import Constrained, HardConstraint, PointwiseEquation

__all__ = [
    "Evaluation",
    "HeldOut",
    "Model",
    "TrainableEquation",
    "TrainingRun",
    "loss_gradients",
    "physics_loss",
    "relative_error",
    "train",
    "uniform_initial",
]


HORIZON = 500.0


class TrainableEquation(PointwiseEquation, Protocol):
    """An equation that can also say what a candidate solution leaves unsatisfied."""

    end: float

    def violations(self, u: Tensor, initial: Tensor) -> dict[str, Tensor]:
        """Norms ``equation``, ``initial`` and ``boundary`` of a solution ``(..., *shape)``."""
        ...


def physics_loss(
    equation: TrainableEquation, u: Tensor, initial: Tensor, weight: float = 30.0
) -> Tensor:
    """The training loss of each initial condition.

    Args:
        equation: on the grid of ``u``.
        u: float64, shape ``(..., times, points)``.
        initial: shape ``(...)``.
        weight: factor of the equation's norm.

    Returns:
        Shape ``(...)``.
    """
    parts = equation.violations(u, initial)
    return weight * parts["equation"] + parts["initial"] + parts["boundary"]


def relative_error(u: Tensor, reference: Tensor, since: int = 0) -> Tensor:
    """Euclidean norm of the error over that of the reference.

    Args:
        u: shape ``(..., times, points)``.
        reference: of the same shape, or one that broadcasts to it.
        since: first instant that counts.

    Returns:
        Shape ``(...)``.
    """
    off, scale = (u - reference)[..., since:, :], reference[..., since:, :]
    return off.flatten(-2).norm(dim=-1) / scale.flatten(-2).norm(dim=-1)


@dataclass(frozen=True)
class Model:
    """A network with what turns its output into a solution.

    Attributes:
        network: the bases; without a layer their sum is the solution.
        layer: the constraint of training, or None for the soft penalty.
        points: points of each expert in a training step.
    """

    network: BasisNetwork
    layer: HardConstraint | None = None
    points: int = 150

    def solution(
        self,
        parameters: Parameters,
        equation: TrainableEquation,
        initial: Tensor,
        points: Tensor | None = None,
        layer: HardConstraint | None = None,
    ) -> Tensor:
        """The solution that the model gives.

        Args:
            parameters: of the network.
            equation: on the grid to be filled.
            initial: shape ``(S, B)``, or ``(S, B, ...)`` for initial fields.
            points: places of the constraint, all if left out.
            layer: in place of the one of training, for instance on another grid.

        Returns:
            float64, shape ``(S, B, times, points)``.
        """
        layer = layer or self.layer
        basis = self.network(parameters, initial, equation.shape, equation.end / HORIZON)
        if layer is None:
            return basis.double().sum(-1)
        return layer(basis, initial, points).solution


@dataclass(frozen=True)
class Evaluation:
    """Held-out initial conditions at one moment of training; shapes ``(S, B)`` but for the first.

    Attributes:
        step: gradient steps taken.
        error: relative to the reference.
        residual: mean magnitude of the equation's residual.
        violations: norms of equation, initial condition and boundary, by name.
        kink: at the borders of four strips, see :func:`descent.physics.constraint_study.border_kink`.
    """

    step: int
    error: Tensor
    residual: Tensor
    violations: dict[str, Tensor]
    kink: Tensor


@dataclass
class TrainingRun:
    """Parameters at the end and evaluations on the way."""

    model: Model
    parameters: Parameters
    evaluations: list[Any] = field(default_factory=list)


class HeldOut:
    """Initial conditions that no training step sees, with their reference solutions.

    Args:
        equation: on the grid of evaluation; its number of points is a multiple of four.
        initial: shape ``(B,)``.
        generator: of the places at which the constraint is imposed; one set for all evaluations.
        max_iter: iterations of the solver.
        device: of the evaluation.
    """

    def __init__(
        self,
        equation: DiffusionSorption,
        initial: Tensor,
        generator: torch.Generator,
        max_iter: int = 50,
        device: torch.device | str = "cpu",
    ) -> None:
        self.equation, self.max_iter = equation, max_iter
        self.initial = initial.to(device)
        self.reference = equation.reference(self.initial)
        self.strips = DomainRouter.blocks(equation.shape, (1, 4), device)
        self.key = int(torch.randint(2**62, (1,), generator=generator))

    def layer(self, trained: HardConstraint) -> HardConstraint:
        """The layer of training on this grid and with more iterations.

        Args:
            trained: the layer of training.

        Returns:
            A new layer.
        """
        return trained.on(self.equation, self.max_iter)

    def solution(
        self, model: Model, parameters: Parameters, points: int | None = None
    ) -> Constrained:
        """Solve the constraint for every replicate and initial condition.

        Args:
            model: with a layer.
            parameters: of the network.
            points: of each expert; as in training if left out.

        Returns:
            What the layer returns.

        Raises:
            ValueError: for a model without a layer.
        """
        if model.layer is None:
            raise ValueError("a model without a layer has no constraint to solve")
        layer = self.layer(model.layer)
        places = layer.sample_points(points or model.points, self.generator())
        return layer(self.basis(model, parameters), self.expanded(parameters), places)

    def generator(self) -> torch.Generator:
        """A fresh stream of the places, the same each time."""
        return torch.Generator().manual_seed(self.key)

    def expanded(self, parameters: Parameters) -> Tensor:
        """The initial conditions for every replicate, shape ``(S, B)``."""
        return self.initial.expand(len(next(iter(parameters.values()))), -1)

    def basis(self, model: Model, parameters: Parameters) -> Tensor:
        """The bases, float64, shape ``(S, B, times, points, N)``."""
        horizon = self.equation.end / HORIZON
        return model.network(
            parameters, self.expanded(parameters), self.equation.shape, horizon
        ).double()

    def measure(self, u: Tensor, step: int = 0) -> Evaluation:
        """Error, residual and violations of a solution.

        Args:
            u: shape ``(S, B, times, points)``.
            step: kept with the result.

        Returns:
            The evaluation.
        """
        z = self.equation.operators(u[..., None])[..., 0].flatten(-2)
        return Evaluation(
            step,
            relative_error(u, self.reference),
            self.equation.value(z).abs().mean(-1),
            self.equation.violations(u, self.initial.expand(u.shape[:-2])),
            border_kink(u, self.strips),
        )

    def __call__(self, model: Model, parameters: Parameters, step: int) -> Evaluation:
        """Evaluate a model in the course of training."""
        if model.layer is None:
            u = self.basis(model, parameters).sum(-1)
        else:
            u = self.solution(model, parameters).solution
        return self.measure(u, step)


def loss_gradients(
    model: Model,
    parameters: Parameters,
    equation: TrainableEquation,
    initial: Tensor,
    points: Tensor | None,
    weight: float = 30.0,
) -> Parameters:
    """The gradient of the mean loss of each replicate.

    Args:
        model: the network with its constraint.
        parameters: leaves that require gradients.
        equation: on the training grid.
        initial: shape ``(S, B)``.
        points: places of the constraint, shape ``(S, m)``.
        weight: factor of the equation in the loss.

    Returns:
        Gradients by name.
    """
    u = model.solution(parameters, equation, initial, points)
    loss = physics_loss(equation, u, initial, weight).mean(1).sum()
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    return dict(zip(parameters, gradients, strict=True))


def uniform_initial(replicates: int, batch: int, generator: torch.Generator) -> Tensor:
    """Draw initial values of diffusion-sorption uniformly in (0.01, 0.2).

    Args:
        replicates: number S.
        batch: of each replicate.
        generator: on the CPU.

    Returns:
        float64, shape ``(S, batch)``.
    """
    return 0.01 + 0.19 * torch.rand(replicates, batch, generator=generator, dtype=torch.float64)


def train(
    model: Model,
    equation: TrainableEquation,
    replicates: int,
    steps: int,
    generators: tuple[torch.Generator, torch.Generator],
    learning_rate: float = 3e-3,
    batch: int = 4,
    weight: float = 30.0,
    draw: Callable[[int, int, torch.Generator], Tensor] = uniform_initial,
    evaluate: Callable[[Model, Parameters, int], Any] | None = None,
    at_steps: Sequence[int] = (),
    device: torch.device | str = "cpu",
) -> TrainingRun:
    """Train replicates of a model side by side; each has its own initial conditions, points and clipping.

    Args:
        model: the network with its constraint.
        equation: on the training grid.
        replicates: number S.
        steps: gradient steps.
        generators: of parameters, and of initial conditions and points. Methods that take equal streams are paired.
        learning_rate: of Adam.
        batch: initial conditions of a step.
        weight: factor of the equation in the loss; the layer has its own.
        draw: initial conditions, from the numbers of replicates and of conditions and a stream.
        evaluate: called at the steps named.
        at_steps: when to evaluate; 0 is before the first step.
        device: to train on.

    Returns:
        The run.
    """
    begin, stream = generators
    parameters = {
        k: v.to(device).requires_grad_()
        for k, v in model.network.initialise(replicates, begin).items()
    }
    run, direction = TrainingRun(model, parameters), AdamDirection()
    for step in range(steps + 1):
        if evaluate is not None and step in at_steps:
            with torch.no_grad():
                run.evaluations.append(evaluate(model, parameters, step))
        if step == steps:
            break
        initial = draw(replicates, batch, stream).to(device)
        # every method draws the same random numbers in a step, whether it samples points or not
        key = torch.randint(2**62, (replicates,), generator=stream)
        points = None
        if model.layer is not None:
            points = torch.stack(
                [
                    model.layer.sample_points(model.points, torch.Generator().manual_seed(int(k)))
                    for k in key
                ]
            )
        gradient = loss_gradients(model, parameters, equation, initial, points, weight)
        with torch.no_grad():
            squares = [g.flatten(1).square().sum(1) for g in gradient.values()]
            norm = torch.stack(squares).sum(0).sqrt().clamp(min=1)
            clipped = {k: g / norm.reshape(-1, *(1,) * (g.ndim - 1)) for k, g in gradient.items()}
            for name, move in direction(clipped).items():
                parameters[name] -= learning_rate * move
    return run
