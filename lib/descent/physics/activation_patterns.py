r"""The exact local Lipschitz constant of a tiny ReLU network, pattern by pattern.

On the inputs that share an activation pattern the network is affine, with one gradient. So the constant is
the largest gradient norm over the patterns that occur in the box, and whether one occurs is a linear program:

.. math:: \max_{x,t}\,t\quad\text{s.t. }\;\pm(m_j^\top x+c_j)\ge t\,\|m_j\|,\;x\in B,\;t\le1 .

With :math:`u` undecided neurons there are :math:`2^u` patterns. This stands for the exact methods
(mixed-integer programs among them) that the paper compares with.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from torch import Tensor

from descent.physics.clarke_relaxations import UNDECIDED
from descent.physics.relu_network import ReluNetwork

__all__ = ["ExactLipschitz", "exact_local_lipschitz"]

SLACK = 1e-8  # a pattern whose cell is thinner, in distance to its faces, counts as empty


@dataclass(frozen=True)
class ExactLipschitz:
    """The exact constant and the work it took.

    Attributes:
        per_output: the constants of the outputs, shape ``(K,)``.
        undecided: the number of undecided neurons.
        programs: linear programs solved.
        feasible: patterns that occur.
    """

    per_output: Tensor
    undecided: int
    programs: int
    feasible: int

    @property
    def value(self) -> float:
        """The constant in the maximum norm, the largest of all outputs."""
        return float(self.per_output.max())


def exact_local_lipschitz(
    network: ReluNetwork,
    lower: Tensor,
    upper: Tensor,
    states: Sequence[Tensor],
    output_weights: Tensor | None = None,
    prune: bool = True,
    limit: int = 2**16,
) -> ExactLipschitz:
    """Compute the local Lipschitz constant over a box by going through activation patterns.

    Args:
        network: a small network.
        lower: lower corner, shape ``(d,)``.
        upper: upper corner, same shape.
        states: sound states of the hidden neurons, shapes ``(n_i,)``; only undecided ones are enumerated.
        output_weights: combinations of outputs as rows; the outputs if left out.
        prune: test partial patterns too, layer by layer, and drop a branch as soon as it is empty; otherwise
            solve one program for each of the ``2**undecided`` patterns.
        limit: linear programs at most.

    Returns:
        The constant of each output, and the counts.

    Raises:
        RuntimeError: if more than ``limit`` programs would be needed, or no pattern occurs.
    """
    undecided = [[int(j) for j in (s == UNDECIDED).nonzero()[:, 0]] for s in states]
    count = sum(map(len, undecided))
    if not prune and 2**count > limit:
        raise RuntimeError(f"2**{count} patterns exceed the limit of {limit} linear programs")
    search = _Search(network, lower.cpu().numpy(), upper.cpu().numpy(), undecided, limit)
    fixed = [(s == 1).cpu().numpy().astype(float) for s in states]
    walk = search.prune(fixed) if prune else search.enumerate(fixed)
    patterns = list(walk)
    if not patterns:
        raise RuntimeError("no activation pattern occurs: the states do not fit the box")
    like = network.layers[-1].bias
    stacked = [torch.as_tensor(np.stack(layer)).to(like) for layer in zip(*patterns, strict=True)]
    if output_weights is None:
        output_weights = torch.eye(network.out_size, dtype=like.dtype, device=like.device)
    norms = network.gradients(stacked, output_weights)[0].abs().sum(-1)
    return ExactLipschitz(norms.amax(0), count, search.programs, len(patterns))


Pattern = list[np.ndarray]


class _Search:
    def __init__(
        self,
        network: ReluNetwork,
        lower: np.ndarray,
        upper: np.ndarray,
        undecided: list[list[int]],
        limit: int,
    ) -> None:
        self.matrices = [
            layer.rows(torch.arange(layer.out_size)).cpu().numpy() for layer in network.layers[:-1]
        ]
        self.biases = [layer.bias.cpu().numpy() for layer in network.layers[:-1]]
        self.lower, self.upper, self.undecided, self.limit = lower, upper, undecided, limit
        self.bounds = scipy.optimize.Bounds(np.append(lower, -np.inf), np.append(upper, 1.0))
        self.programs = 0

    def maps(self, pattern: Pattern) -> list[tuple[np.ndarray, np.ndarray]]:
        """The affine maps from the input to the pre-activations, of one layer more than the pattern."""
        found = [(self.matrices[0], self.biases[0])]
        for state, matrix, bias in zip(pattern, self.matrices[1:], self.biases[1:], strict=False):
            linear, constant = found[-1]
            found.append((matrix @ (state[:, None] * linear), matrix @ (state * constant) + bias))
        return found

    def witness(self, constraints: Sequence[tuple[np.ndarray, float]]) -> np.ndarray | None:
        """An input of the box with ``a @ x + c > 0`` for all (a, c), or ``None`` if there is none."""
        if not constraints:
            return (self.lower + self.upper) / 2
        self.programs += 1
        if self.programs > self.limit:
            raise RuntimeError(f"more than {self.limit} linear programs")
        rows = np.stack([a for a, _ in constraints])
        offsets = np.array([c for _, c in constraints])
        lengths = np.maximum(np.linalg.norm(rows, axis=1), 1e-300)
        # milp without integers is HiGHS with less preparation around it than linprog.
        result = scipy.optimize.milp(
            np.append(np.zeros(rows.shape[1]), -1.0),
            constraints=scipy.optimize.LinearConstraint(
                np.column_stack([-rows / lengths[:, None], np.ones(len(rows))]),
                ub=offsets / lengths,
            ),
            bounds=self.bounds,
            options={"presolve": False},
        )
        occurs = result.status == 0 and -result.fun > SLACK
        return result.x[:-1] if occurs else None

    def enumerate(self, fixed: Pattern) -> Iterator[Pattern]:
        """All combinations, one program each."""
        places = [(i, j) for i, neurons in enumerate(self.undecided) for j in neurons]
        for signs in itertools.product((0.0, 1.0), repeat=len(places)):
            pattern = [layer.copy() for layer in fixed]
            for (i, j), on in zip(places, signs, strict=True):
                pattern[i][j] = on
            maps = self.maps(pattern)
            constraints = [
                _constraint(maps[i], j, on) for (i, j), on in zip(places, signs, strict=True)
            ]
            if self.witness(constraints) is not None:
                yield pattern

    def prune(self, fixed: Pattern) -> Iterator[Pattern]:
        """Depth first, layer by layer; an empty branch is left at once."""
        places = [(i, j) for i, neurons in enumerate(self.undecided) for j in neurons]

        def visit(
            depth: int,
            pattern: Pattern,
            constraints: list[tuple[np.ndarray, float]],
            witness: np.ndarray,
        ) -> Iterator[Pattern]:
            if depth == len(places):
                yield pattern
                return
            i, j = places[depth]
            here = self.maps(pattern[:i])[i]
            for on in (0.0, 1.0):
                row, offset = _constraint(here, j, on)
                grown = [*constraints, (row, offset)]
                # The input that showed the parent to occur shows it for one of the two halves.
                met = row @ witness + offset > 2 * SLACK * np.linalg.norm(row)
                found = witness if met else self.witness(grown)
                if found is not None:
                    chosen = [layer.copy() for layer in pattern]
                    chosen[i][j] = on
                    yield from visit(depth + 1, chosen, grown, found)

        yield from visit(0, fixed, [], (self.lower + self.upper) / 2)


def _constraint(
    affine: tuple[np.ndarray, np.ndarray], neuron: int, on: float
) -> tuple[np.ndarray, float]:
    sign = 1.0 if on else -1.0
    return sign * affine[0][neuron], sign * float(affine[1][neuron])
