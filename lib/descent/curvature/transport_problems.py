r"""Instances of entropic transport: random assignment, images on a grid, point clouds.

Costs of images and point clouds are scaled to a maximum of 1, so that :math:`\eta` has one meaning throughout; random
assignment costs are uniform on :math:`[0,1]` as drawn.

Source: Tang et al. (ICLR 2024), the cases of Table 1 and "empirical distributions" of the abstract.
"""

from __future__ import annotations

import torch
from torch import Tensor

from descent.curvature.entropic_transport import EntropicOT

__all__ = [
    "blob_image",
    "grid_cost",
    "image_transport",
    "permute_rows",
    "point_clouds",
    "random_assignment",
]

NARROWEST_BLOB, WIDEST_BLOB = 0.08, 0.2


def random_assignment(
    size: int,
    eta: float,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> EntropicOT:
    r"""Draw a cost with independent entries, uniform on :math:`[0,1]`, between uniform marginals.

    Args:
        size: :math:`n\ge1`, rows and columns.
        eta: :math:`\eta>0`. Nearest costs shrink like :math:`1/n`, so that ``eta`` proportional to ``size`` keeps the difficulty.
        generator: source of the costs, on the CPU.
        device: where the problem lives.

    Returns:
        The problem, with marginals :math:`1/n`.

    Raises:
        ValueError: if ``size`` is less than 1.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    cost = torch.rand(size, size, generator=generator, dtype=torch.float64).to(device)
    uniform = torch.full((size,), 1.0 / size, dtype=torch.float64, device=device)
    return EntropicOT(cost, uniform, uniform, eta)


def grid_cost(side: int, metric: str) -> Tensor:
    r"""Return the cost between the pixels of a square grid, scaled to a maximum of 1.

    Args:
        side: pixels per edge, at least 2.
        metric: ``"squared_euclidean"`` (:math:`\Delta_1^2+\Delta_2^2`) or ``"manhattan"``
            (:math:`|\Delta_1|+|\Delta_2|`).

    Returns:
        Shape ``(side**2, side**2)``, pixels in row-major order.

    Raises:
        ValueError: for another metric or a grid of fewer than two pixels per edge.
    """
    if side < 2:
        raise ValueError(f"side must be at least 2, got {side}")
    axis = torch.arange(side, dtype=torch.float64)
    pixels = torch.cartesian_prod(axis, axis)
    differences = (pixels.unsqueeze(1) - pixels).abs()
    if metric == "squared_euclidean":
        cost = differences.square().sum(-1)
    elif metric == "manhattan":
        cost = differences.sum(-1)
    else:
        raise ValueError(f"metric must be 'squared_euclidean' or 'manhattan', got {metric!r}")
    return cost / cost.max()


def blob_image(
    side: int, generator: torch.Generator, blobs: int = 4, background: float = 0.01
) -> Tensor:
    r"""Draw a sum of Gaussian blobs of equal height on the unit square over a uniform background.

    Centres are uniform on the square, standard deviations uniform on :math:`[0.08,0.2]`.

    Args:
        side: pixels per edge.
        generator: source of the blobs, on the CPU.
        blobs: number of blobs, at least 1.
        background: share of the mass spread uniformly, from 0 to 1; at 0 far pixels can be exactly zero.

    Returns:
        Shape ``(side, side)``, total mass 1.

    Raises:
        ValueError: if ``background`` is not a share or ``blobs`` is less than 1.
    """
    if not 0 <= background <= 1:
        raise ValueError(f"background must be between 0 and 1, got {background}")
    if blobs < 1:
        raise ValueError(f"blobs must be at least 1, got {blobs}")
    draws = torch.rand(blobs, 3, generator=generator, dtype=torch.float64)
    widths = NARROWEST_BLOB + (WIDEST_BLOB - NARROWEST_BLOB) * draws[:, 2]
    axis = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    distances = (axis[:, None] - draws[:, 0]).square()[:, None] + (
        axis[:, None] - draws[:, 1]
    ).square()
    image = torch.exp(-distances / (2 * widths.square())).sum(-1)
    return (1 - background) * image / image.sum() + background / side**2


def image_transport(source: Tensor, target: Tensor, metric: str, eta: float) -> EntropicOT:
    r"""Return the transport between two images of equal size, each normalised to mass 1.

    Args:
        source: non-negative intensities, shape ``(side, side)``, ``float64``.
        target: the same.
        metric: cost between pixels, as in :func:`grid_cost`.
        eta: :math:`\eta>0`.

    Returns:
        The problem, pixels in row-major order.

    Raises:
        ValueError: if the images are not square and of one size, or a pixel has no mass.
    """
    if source.ndim != 2 or source.shape[0] != source.shape[1] or source.shape != target.shape:
        raise ValueError(
            f"need two square images of one size, got {tuple(source.shape)} and {tuple(target.shape)}"
        )
    cost = grid_cost(source.shape[0], metric).to(source.device)
    flat = [image.flatten() / image.sum() for image in (source, target)]
    return EntropicOT(cost, flat[0], flat[1], eta)


def point_clouds(
    size: int, eta: float, generator: torch.Generator, device: torch.device | str = "cpu"
) -> EntropicOT:
    r"""Draw two clouds uniform on the unit square; the cost is the squared distance scaled to a maximum of 1.

    Args:
        size: points per cloud, at least 1.
        eta: :math:`\eta>0`.
        generator: source of the points, sources first, on the CPU.
        device: where the problem lives.

    Returns:
        The problem, with marginals :math:`1/n`.

    Raises:
        ValueError: if ``size`` is less than 1.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    clouds = torch.rand(2, size, 2, generator=generator, dtype=torch.float64).to(device)
    cost = (clouds[0].unsqueeze(1) - clouds[1]).square().sum(-1)
    uniform = torch.full((size,), 1.0 / size, dtype=torch.float64, device=device)
    return EntropicOT(cost / cost.max(), uniform, uniform, eta)


def permute_rows(problem: EntropicOT, generator: torch.Generator) -> EntropicOT:
    """Return the problem with the rows of its cost in random order and everything else unchanged.

    Args:
        problem: a transport problem.
        generator: source of the permutation, on the CPU.

    Returns:
        A problem of the same size whose cost has the same entries in other rows.
    """
    order = torch.randperm(problem.shape[0], generator=generator).to(problem.cost.device)
    return EntropicOT(problem.cost[order], problem.source, problem.target, problem.eta)
