r"""Problems of the dynamical-stability experiments: gradient sets, sparse regression, teachers and
students.

All draws come from generators on the CPU and are moved by the caller, so that one seed names one
problem on every device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from descent.stability.diagonal_linear_network import balanced_factors

__all__ = [
    "constructed_interpolator",
    "equal_norm_gradients",
    "heavy_tailed_gradients",
    "relu_student",
    "relu_teacher_data",
    "sparse_regression",
    "sphere_inputs",
]


def heavy_tailed_gradients(count: int, generator: torch.Generator) -> list[Tensor]:
    r"""Draw gradient sets of random size whose rows are Gaussian times a Pareto scale.

    Args:
        count: number of sets.
        generator: source of randomness, on the CPU.

    Returns:
        ``count`` float64 tensors of shape ``(n, p)`` with ``n`` and ``p`` uniform in 3..7 and row
        scales :math:`U^{-1/3}` (Pareto of index 3), :math:`U` uniform on (0, 1].
    """
    sets = []
    for _ in range(count):
        n, p = torch.randint(3, 8, (2,), generator=generator).tolist()
        uniform = 1.0 - torch.rand(n, 1, generator=generator, dtype=torch.float64)
        sets.append(
            torch.randn(n, p, generator=generator, dtype=torch.float64) * uniform.pow(-1.0 / 3.0)
        )
    return sets


def equal_norm_gradients(jacobian: Tensor) -> Tensor:
    """Rescale every row to norm one: the case in which the trace bound is an equality.

    Args:
        jacobian: shape ``(n, p)``, no zero row.

    Returns:
        Shape ``(n, p)``, rows of norm one.
    """
    return jacobian / torch.linalg.vector_norm(jacobian, dim=-1, keepdim=True)


def sparse_regression(
    n: int, d: int, nonzeros: int, generators: list[torch.Generator]
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Draw noiseless sparse regression, :math:`X\sim\mathcal N(0,1)`, :math:`y=X\beta^*`.

    Args:
        n: samples, fewer than ``d`` for many interpolators.
        d: coefficients.
        nonzeros: number of leading ones in :math:`\beta^*`.
        generators: one per seed, on the CPU.

    Returns:
        Inputs ``(S, n, d)``, targets ``(S, n)`` and :math:`\beta^*` of shape ``(d,)``, float64.

    Raises:
        ValueError: if ``nonzeros`` exceeds ``d``.
    """
    if nonzeros > d:
        raise ValueError(f"cannot place {nonzeros} ones in {d} coefficients")
    inputs = torch.stack([torch.randn(n, d, generator=g, dtype=torch.float64) for g in generators])
    truth = torch.zeros(d, dtype=torch.float64)
    truth[:nonzeros] = 1.0
    return inputs, inputs @ truth, truth


def constructed_interpolator(
    inputs: Tensor, truth: Tensor, generator: torch.Generator, l1_norm: float | None = None
) -> tuple[Tensor, Tensor]:
    r"""Build a flat-looking, badly generalising interpolator :math:`\beta=\beta^*+z`, :math:`Xz=0`.

    :math:`z` projects a random sign vector on the null space of :math:`X`: every coefficient is of
    order one, so :math:`\lambda_{\max}` stays bounded while :math:`\|z\|^2` grows with the
    dimension.

    Args:
        inputs: :math:`X`, shape ``(n, d)``, ``n < d``.
        truth: :math:`\beta^*`, shape ``(d,)``.
        generator: source of the signs, on the CPU.
        l1_norm: if given, rescale :math:`z` to this :math:`\ell_1` norm (the class that SGD may
            keep).

    Returns:
        Balanced factors ``a`` and ``b`` with :math:`a\odot b=\beta`.

    Raises:
        ValueError: if :math:`X` has no null space.
    """
    n, d = inputs.shape
    if n >= d:
        raise ValueError(
            f"inputs of shape ({n}, {d}) leave no null space; need fewer samples than columns"
        )
    signs = (2.0 * torch.randint(2, (d,), generator=generator) - 1.0).to(inputs)
    shift = signs - torch.linalg.lstsq(inputs, (inputs @ signs).unsqueeze(-1)).solution.squeeze(-1)
    if l1_norm is not None:
        shift = shift * (l1_norm / shift.abs().sum())
    return balanced_factors(truth + shift)


def sphere_inputs(n: int, d: int, generator: torch.Generator) -> Tensor:
    r"""Draw ``n`` float64 points uniformly on the sphere of radius :math:`\sqrt d`, shape ``(n,
    d)``."""
    points = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return points * (math.sqrt(d) / torch.linalg.vector_norm(points, dim=-1, keepdim=True))


def relu_teacher_data(
    n: int, d: int, neurons: int, fresh: int, generators: list[torch.Generator], unit: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Draw sphere inputs labelled by a ReLU teacher :math:`f^*(x)=\sum_i\mathrm{relu}(v_i\cdot
    x)`.

    Args:
        n: training samples.
        d: input dimension.
        neurons: number of teacher neurons.
        fresh: test samples.
        generators: one per seed, on the CPU.
        unit: draw :math:`v_i` uniformly on the unit sphere, else from :math:`\mathcal N(0,I/d)`.

    Returns:
        Training inputs ``(S, n, d)``, targets ``(S, n)``, test inputs ``(S, fresh, d)``, targets
        ``(S, fresh)``, float64.
    """
    train_x: list[Tensor] = []
    train_y: list[Tensor] = []
    test_x: list[Tensor] = []
    test_y: list[Tensor] = []
    for generator in generators:
        teacher = torch.randn(neurons, d, generator=generator, dtype=torch.float64) / math.sqrt(d)
        if unit:
            teacher = equal_norm_gradients(teacher)
        for size, xs, ys in ((n, train_x, train_y), (fresh, test_x, test_y)):
            xs.append(sphere_inputs(size, d, generator))
            ys.append((xs[-1] @ teacher.T).clamp_min(0).sum(-1))
    return torch.stack(train_x), torch.stack(train_y), torch.stack(test_x), torch.stack(test_y)


def relu_student(
    m: int, d: int, outer_scale: float, inner_scale: float, generators: list[torch.Generator]
) -> tuple[Tensor, Tensor]:
    r"""Draw Gaussian initial weights.

    Args:
        m: width.
        d: input dimension.
        outer_scale: standard deviation of the output weights.
        inner_scale: standard deviation of every input weight.
        generators: one per seed, on the CPU.

    Returns:
        Output weights ``(S, m)`` and input weights ``(S, m, d)``, float64.
    """
    outer = [outer_scale * torch.randn(m, generator=g, dtype=torch.float64) for g in generators]
    inner = [inner_scale * torch.randn(m, d, generator=g, dtype=torch.float64) for g in generators]
    return torch.stack(outer), torch.stack(inner)
