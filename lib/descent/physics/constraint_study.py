"""Measurements on a constraint layer: conditioning, work, memory, borders, and what it is compared with.

Source: the questions of Chalapathi, Du and Krishnapriyan (ICLR 2024), Sections 4.1 and 4.3, Appendices D and E, and of
its reviewers; the measures are ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.interpolate import CloughTocher2DInterpolator, NearestNDInterpolator
from torch import Tensor

from descent.physics.domain_router import DomainRouter
from descent.physics.hard_constraint import ConstraintProblem, HardConstraint

__all__ = [
    "SolveCost",
    "border_kink",
    "expert_of",
    "interpolate_samples",
    "pod_bases",
    "projection_error",
    "saved_elements",
    "scaled_condition",
    "solve_cost",
    "tied_experts",
]


def scaled_condition(problem: ConstraintProblem, weights: Tensor) -> Tensor:
    r"""Condition number of :math:`J^\top J` with the columns of J scaled to unit norm.

    Args:
        problem: a batch.
        weights: where, shape ``(..., N)``.

    Returns:
        Shape ``(...)``.
    """
    gram = problem.normal_equations(weights)[0]
    scale = gram.diagonal(dim1=-2, dim2=-1).rsqrt()
    values = torch.linalg.eigvalsh(scale[..., None] * gram * scale[..., None, :])
    return values[..., -1] / values[..., 0].clamp(min=torch.finfo(gram.dtype).tiny)


def border_kink(u: Tensor, router: DomainRouter) -> Tensor:
    r"""How much a difference of neighbours across a border of strips departs from the two beside it.

    .. math:: \bigl|d_j-\tfrac12(d_{j-1}+d_{j+1})\bigr|,\qquad d_j=u_{j+1}-u_j,

    averaged over instants after the first and the borders j. A smooth solution gives a value of third order in the
    spacing, a jump of height h gives h.

    Args:
        u: shape ``(..., times, points)``.
        router: strips in space.

    Returns:
        Shape ``(...)``.

    Raises:
        ValueError: for a router that does not cut space into at least two strips.
    """
    if router.splits is None or len(router.splits) != 2 or router.splits[1] < 2:
        raise ValueError(f"strips in space are needed, not {router.splits}")
    strips = router.splits[1]
    width = u.shape[-1] // strips
    d = u.diff(dim=-1)[..., 1:, :]
    at = torch.arange(1, strips, device=u.device) * width - 1
    return (d[..., at] - (d[..., at - 1] + d[..., at + 1]) / 2).abs().mean((-2, -1))


def interpolate_samples(chosen: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Fill a grid by SciPy's cubic Clough-Tocher interpolant of scattered samples.

    Outside of the convex hull of the samples the nearest sample is taken.

    Args:
        chosen: flat indices of the samples, shape ``(M,)``.
        values: at the samples, shape ``(C, M)``.
        shape: instants and points of the grid; each axis is scaled to [0, 1].

    Returns:
        float64, shape ``(C, *shape)``.
    """
    axes = (np.linspace(0, 1, n) for n in shape)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    places, samples = grid[chosen.cpu().numpy()], values.detach().cpu().numpy().T
    filled = CloughTocher2DInterpolator(places, samples)(grid)
    outside = np.isnan(filled[:, 0])
    filled[outside] = NearestNDInterpolator(places, samples)(grid[outside])
    return torch.from_numpy(filled.T.reshape(-1, *shape)).to(values.device)


def saved_elements(function: Callable[[], Tensor]) -> int:
    """Count the elements that automatic differentiation keeps for the backward pass, each storage once.

    Args:
        function: runs a forward pass and returns its loss.

    Returns:
        The number of elements.
    """
    kept: dict[int, int] = {}
    alive = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
        alive.append(tensor)  # so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = function()
    del loss
    return sum(kept.values())


@dataclass(frozen=True)
class SolveCost:
    """Cost of the solves of each expert, one after the other.

    Attributes:
        seconds: of processor time, shape ``(K,)``.
        iterations: largest over the batch, shape ``(K,)``.
        rows: of the least-squares problem of one expert, ridge left out.
    """

    seconds: Tensor
    iterations: Tensor
    rows: int

    @property
    def work(self) -> float:
        """Rows times iterations of the slowest expert."""
        return float(self.rows * self.iterations.max())


def expert_of(problem: ConstraintProblem, k: int) -> ConstraintProblem:
    """The problems of one expert out of a batch with experts on its last axis.

    Args:
        problem: a batch of shape ``(..., K)``.
        k: which expert.

    Returns:
        A batch of shape ``(..., 1)``.
    """
    return replace(problem, operators=problem.operators[..., k : k + 1, :, :, :].contiguous())


def solve_cost(layer: HardConstraint, problem: ConstraintProblem, repeats: int = 1) -> SolveCost:
    """Time the solver separately for every expert.

    Args:
        layer: whose solver is run.
        problem: of all experts.
        repeats: the median of so many.

    Returns:
        Seconds, iterations and rows.
    """
    seconds, iterations = [], []
    for k in range(problem.operators.shape[-4]):
        alone, taken = expert_of(problem, k), []
        for _ in range(repeats):
            start = time.thread_time()
            found = layer.solve(alone)
            taken.append(time.thread_time() - start)
        seconds.append(float(np.median(taken)))
        iterations.append(int(found.iterations.max()))
    rows = problem.operators.shape[-2] + problem.matrix.shape[-2]
    return SolveCost(torch.tensor(seconds), torch.tensor(iterations), rows)


def tied_experts(
    layer: HardConstraint, basis: Tensor, initial: Tensor, weight: float
) -> ConstraintProblem:
    r"""One problem for all experts together, with rows that ask neighbouring strips to agree.

    At the two columns of points beside each border, and at every instant, the row is
    :math:`c\,b\cdot(w_k-w_{k+1})`. With weight 0 the problem falls apart into those of the layer.

    Args:
        layer: with a router of strips in space.
        basis: float64, shape ``(..., times, points, N)``.
        initial: initial condition.
        weight: factor c of the rows.

    Returns:
        A batch with ``K N`` unknowns, shape ``(..., 1)``.

    Raises:
        ValueError: for a router that does not cut space only.
    """
    strips = layer.router.experts
    if layer.router.splits != (1, strips):
        raise ValueError(f"strips in space are needed, not {layer.router.splits}")
    apart = layer.problem(basis, initial)
    eye = torch.eye(strips, dtype=basis.dtype, device=basis.device)
    # (..., K, channels, m, N) -> (..., 1, channels, K m, K N), zero off the own block
    blocks = apart.operators.movedim(-4, -3)[..., None, :] * eye[:, None, :, None]
    operators = blocks.flatten(-4, -3).flatten(-2).unsqueeze(-4)
    rows = apart.matrix.unsqueeze(-2) * eye[:, None, :, None]
    matrix = rows.flatten(-4, -3).flatten(-2)
    target = apart.target.expand(*apart.target.shape[:-2], strips, -1).flatten(-2)
    width = basis.shape[-2] // strips
    ties = []
    for k in range(strips - 1):
        sign = (eye[k] - eye[k + 1])[:, None]
        for at in ((k + 1) * width - 1, (k + 1) * width):
            ties.append(weight * (basis[..., at, :][..., None, :] * sign).flatten(-2))
    if ties:
        tie = torch.cat(ties, -2)
        matrix = torch.cat((matrix, tie), -2)
        target = torch.cat((target, target.new_zeros(*target.shape[:-1], tie.shape[-2])), -1)
    return replace(
        apart, operators=operators, matrix=matrix.unsqueeze(-3), target=target.unsqueeze(-2)
    )


def pod_bases(solutions: Tensor, count: int) -> Tensor:
    """The leading modes of a set of solutions, scaled so that each has the root mean square 1.

    Args:
        solutions: shape ``(C, times, points)``.
        count: number N of modes.

    Returns:
        Shape ``(times, points, N)``.
    """
    flat = solutions.flatten(1)
    modes = torch.linalg.svd(flat, full_matrices=False).Vh[:count]
    return (modes * flat.shape[1] ** 0.5).T.reshape(*solutions.shape[1:], count)


def projection_error(basis: Tensor, solutions: Tensor) -> Tensor:
    """Relative distance of solutions from the span of the bases: what no choice of weights can beat.

    Args:
        basis: shape ``(times, points, N)``.
        solutions: shape ``(C, times, points)``.

    Returns:
        Shape ``(C,)``.
    """
    q = torch.linalg.qr(basis.flatten(0, 1)).Q
    flat = solutions.flatten(1)
    return (flat - flat @ q @ q.T).norm(dim=1) / flat.norm(dim=1)
