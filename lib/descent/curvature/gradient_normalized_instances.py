r"""Problem instances of the chapter on gradient-normalized smoothness.

Random instances are drawn by NumPy's legacy generator from one integer, as in the authors' notebook, so
that their seed 3124 gives their data.

Source: Semenov, Jaggi and Doikov (ICLR 2026) and their notebook, for sizes, starting points and metrics;
the flat tail is added here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from descent.curvature.approximate_hessians import (
    ChebyshevResidual,
    LinearResidual,
    Logistic,
    LogSumExp,
    PowerOfResidual,
    RosenbrockResidual,
)
from descent.curvature.dual_metric import Metric

__all__ = [
    "PAPER_SEED",
    "FlatTail",
    "Instance",
    "chebyshev_instance",
    "linear_power_instance",
    "log_sum_exp_instance",
    "margin_logistic_instance",
    "rosenbrock_instance",
    "whitened",
]

PAPER_SEED = 3124


@dataclass(frozen=True)
class Instance:
    """A problem with its start, metric and optimal value."""

    problem: Any
    x0: Tensor
    metric: Metric
    f_star: float


def _tensor(array: np.ndarray, device: torch.device | str) -> Tensor:
    return torch.tensor(np.ascontiguousarray(array), dtype=torch.float64, device=device)


def log_sum_exp_instance(n: int, seed: int, device: torch.device | str = "cpu") -> Instance:
    r"""Random log-sum-exp in ``n`` dimensions with ``n`` terms, shifted so that 0 is the minimiser.

    Args:
        n: dimension and number of terms; entries uniform in [-1, 1].
        seed: of the data; ``PAPER_SEED`` is that of the authors' notebook.
        device: of the tensors.

    Returns:
        Start :math:`(1,\dots,1)`, metric :math:`AA^\top` of the unshifted columns, :math:`\mu=1`.
    """
    random = np.random.RandomState(seed)
    columns, offsets = random.rand(n, n) * 2 - 1, random.rand(n) * 2 - 1
    rows, b = _tensor(columns.T, device), _tensor(offsets, device)
    origin = torch.zeros(n, dtype=torch.float64, device=device)
    shifted = LogSumExp(rows - LogSumExp(rows, b).gradient(origin), b)
    return Instance(shifted, torch.ones_like(origin), Metric(rows.mT @ rows), shifted.value(origin))


def linear_power_instance(
    m: int, n: int, power: float, seed: int, device: torch.device | str = "cpu", ridge: float = 1e-8
) -> Instance:
    r"""The power of a linear residual, :math:`\frac1p\|Ax-b\|^p`, entries uniform in [-1, 1].

    Args:
        m: equations.
        n: unknowns; with ``m <= n`` the optimal value is 0.
        power: :math:`p`.
        seed: of the data.
        device: of the tensors.
        ridge: added to the diagonal of the metric :math:`A^\top A`, which is singular for ``m < n``.

    Returns:
        Start :math:`(1,\dots,1)`; ``f_star`` is 0, to be used with ``m <= n`` only.
    """
    random = np.random.RandomState(seed)
    matrix, target = (_tensor(random.rand(*shape) * 2 - 1, device) for shape in ((m, n), (m,)))
    identity = torch.eye(n, dtype=torch.float64, device=device)
    metric = Metric(matrix.mT @ matrix + ridge * identity)
    problem = PowerOfResidual(LinearResidual(matrix, target), power)
    return Instance(problem, torch.ones_like(identity[0]), metric, 0.0)


def chebyshev_instance(
    n: int, seed: int, device: torch.device | str = "cpu", power: float = 4
) -> Instance:
    """The Chebyshev chain from a start uniform in [0, 1], Euclidean metric."""
    x0 = _tensor(np.random.RandomState(seed).rand(n), device)
    return Instance(PowerOfResidual(ChebyshevResidual(), power), x0, Metric(), 0.0)


def rosenbrock_instance(power: float, device: torch.device | str = "cpu") -> Instance:
    """The power of Rosenbrock's residual from (-2, 2), Euclidean metric."""
    x0 = torch.tensor([-2.0, 2.0], dtype=torch.float64, device=device)
    return Instance(PowerOfResidual(RosenbrockResidual(), power), x0, Metric(), 0.0)


def margin_logistic_instance(
    seed: int,
    device: torch.device | str = "cpu",
    *,
    samples: int = 200,
    n: int = 5,
    margin: float = 0.3,
    flipped: float = 0.0,
) -> Instance:
    r"""Gaussian features labelled by a random direction and pushed apart along it.

    Args:
        seed: of the data.
        device: of the tensors.
        samples: how many.
        n: features.
        margin: distance by which each class is moved along the true direction.
        flipped: share of labels that are then turned over; 0 keeps the data separable, :math:`f^*=0`.

    Returns:
        Start 0, metric :math:`X^\top X/n_{\text{samples}}`; ``f_star`` is 0, wrong if labels are flipped.
    """
    random = np.random.default_rng(seed)
    truth = random.standard_normal(n)
    truth /= np.linalg.norm(truth)
    features = random.standard_normal((samples, n))
    signs = np.sign(features @ truth)
    features = features + margin * signs[:, None] * truth
    signs = np.where(random.random(samples) < flipped, -signs, signs)
    x = _tensor(features, device)
    problem = Logistic(x, _tensor(signs, device))
    return Instance(problem, torch.zeros_like(x[0]), Metric(x.mT @ x / samples), 0.0)


def whitened(instance: Instance) -> Instance:
    r"""Change variables to :math:`y=L^\top x`, :math:`B=LL^\top`, in which the metric is the identity.

    Args:
        instance: of log-sum-exp or logistic type.

    Returns:
        The same problem for methods that know no metric.

    Raises:
        TypeError: for another problem.
    """
    problem, factor = instance.problem, instance.metric.factor
    if factor is None or isinstance(problem, PowerOfResidual):
        raise TypeError("whitening needs a log-sum-exp or logistic problem with a metric")
    rows = problem.rows if isinstance(problem, LogSumExp) else problem.signed
    rows = torch.linalg.solve_triangular(factor, rows.mT, upper=False).mT
    same: LogSumExp | Logistic
    if isinstance(problem, LogSumExp):
        same = LogSumExp(rows, problem.offsets, problem.smoothing)
    else:
        same = Logistic(rows, torch.ones_like(rows[:, 0]))
    return Instance(same, factor.mT @ instance.x0, Metric(), instance.f_star)


class FlatTail:
    r"""The function :math:`f(x)=10x^{-1/10}` for :math:`x>0`, on which gradient descent is slow.

    Gradient descent with the step :math:`1/L`, :math:`L=1.1` from :math:`x=1` on, follows
    :math:`x^{2.1}\approx2.1k/1.1`, so that :math:`|f'|=x^{-1.1}` reaches :math:`\varepsilon` after
    about :math:`\varepsilon^{-1.91}` steps, close to the worst case :math:`\varepsilon^{-2}`.
    """

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """Return both; infinite left of 0."""
        if float(x) <= 0:
            return math.inf, torch.full_like(x, math.inf)
        return 10 * float(x) ** -0.1, -(x**-1.1)

    def value(self, x: Tensor) -> float:
        """Return the objective."""
        return self.value_and_gradient(x)[0]

    def gradient(self, x: Tensor) -> Tensor:
        """Return the gradient, shape ``(1,)``."""
        return self.value_and_gradient(x)[1]

    def hessian(self, x: Tensor, kind: str = "exact") -> Tensor:
        """Return the second derivative, shape ``(1, 1)``."""
        return (1.1 * x**-2.1)[:, None]

    @staticmethod
    def fixed_step_descent(levels: list[float]) -> list[int]:
        r"""Return the steps of gradient descent with step :math:`1/L` from 1 to :math:`|f'|\le` each level."""
        x, k, found = 1.0, 0, []
        for level in sorted(levels, reverse=True):
            while x**-1.1 > level:
                x, k = x + x**-1.1 / 1.1, k + 1
            found.append(k)
        return found
