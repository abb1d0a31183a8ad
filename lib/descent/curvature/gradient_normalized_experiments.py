r"""Instances and loops of the chapter on gradient-normalized smoothness.

Random instances are drawn by NumPy's legacy generator from one integer, as in the authors' notebook, so
that their seed 3124 gives their data.

Source: Semenov, Jaggi and Doikov (ICLR 2026) and their notebook, for sizes, starting points and metrics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from descent.curvature.approximate_hessians import (
    ChebyshevResidual,
    LinearResidual,
    Logistic,
    LogSumExp,
    PowerOfResidual,
)
from descent.curvature.dual_metric import Metric
from descent.curvature.gradient_normalized_newton import Trace
from descent.curvature.regularised_steps import RankOneSteps, RegularisedSteps

__all__ = [
    "PAPER_SEED",
    "FlatTail",
    "Instance",
    "NoisySteps",
    "PhaseRun",
    "ScrambledFisher",
    "chebyshev_instance",
    "decades",
    "linear_power_instance",
    "log_sum_exp_instance",
    "margin_logistic_instance",
    "phase_runs",
    "progress_ratios",
    "whitened",
]

PAPER_SEED = 3124


@dataclass(frozen=True)
class Instance:
    """A problem with its start, metric and optimal value."""

    problem: LogSumExp | Logistic | PowerOfResidual
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
    random = np.random.RandomState(seed)  # noqa: NPY002
    columns, offsets = random.rand(n, n) * 2 - 1, random.rand(n) * 2 - 1
    rows, b = _tensor(columns.T, device), _tensor(offsets, device)
    origin = torch.zeros(n, dtype=torch.float64, device=device)
    shifted = LogSumExp(rows - LogSumExp(rows, b).gradient(origin), b)
    return Instance(
        shifted, torch.ones_like(origin), Metric(rows.mT @ rows), shifted.value(origin)
    )


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
    random = np.random.RandomState(seed)  # noqa: NPY002
    matrix, target = (
        _tensor(random.rand(*shape) * 2 - 1, device) for shape in ((m, n), (m,))
    )
    identity = torch.eye(n, dtype=torch.float64, device=device)
    metric = Metric(matrix.mT @ matrix + ridge * identity)
    problem = PowerOfResidual(LinearResidual(matrix, target), power)
    return Instance(problem, torch.ones_like(identity[0]), metric, 0.0)


def chebyshev_instance(
    n: int, seed: int, device: torch.device | str = "cpu", power: float = 4
) -> Instance:
    """The Chebyshev chain from a start uniform in [0, 1], Euclidean metric."""
    x0 = _tensor(np.random.RandomState(seed).rand(n), device)  # noqa: NPY002
    return Instance(PowerOfResidual(ChebyshevResidual(), power), x0, Metric(), 0.0)


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


class ScrambledFisher:
    """A Fisher term whose vector is replaced by a random one of the same norm: a control."""

    def __init__(self, problem: PowerOfResidual, metric: Metric, generator: torch.Generator):
        self.problem, self.metric, self.generator = problem, metric, generator

    def __call__(self, x: Tensor) -> RegularisedSteps:
        weight, q = self.problem.fisher_term(x)
        noise = torch.randn(len(q), generator=self.generator, dtype=q.dtype).to(q.device)
        return RankOneSteps(weight, noise * (q.norm() / noise.norm()), self.metric)


class NoisySteps:
    r"""Solves with a random residual of a given relative size: the worst that a loose solve may be.

    Args:
        exact: solves the system exactly.
        metric: :math:`B`.
        size: :math:`\eta`, the residual's dual norm over that of the gradient.
        generator: of the directions; Gaussian covectors, scaled.
    """

    def __init__(
        self, exact: RegularisedSteps, metric: Metric, size: float, generator: torch.Generator
    ) -> None:
        self.exact, self.metric, self.size, self.generator = exact, metric, size, generator

    def step(self, lam: float, gradient: Tensor) -> Tensor | None:
        """Return the exact step for a gradient moved by the residual."""
        noise = torch.randn(len(gradient), generator=self.generator, dtype=gradient.dtype)
        noise = self.metric.to_dual(noise.to(gradient.device))
        scale = self.size * self.metric.dual_norm(gradient) / self.metric.dual_norm(noise)
        return self.exact.step(lam, gradient + scale * noise)


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


def progress_ratios(trace: Trace) -> np.ndarray:
    r"""Return the progress of each step over the progress lemma's, :math:`\frac{\gamma_k}8\|g_{k+1}\|_*^2/\|g_k\|_*`."""
    f, g, gamma = (np.array(v) for v in (trace.values, trace.gradient_norms, trace.gammas))
    return (f[:-1] - f[1:]) / (gamma / 8 * g[1:] ** 2 / g[:-1])


def decades(trace: Trace, f_star: float, exponents: range) -> list[int | None]:
    r"""Return the iterations to :math:`f-f^*<10^{-e}` for each exponent."""
    return [trace.first_below(10.0**-e, f_star) for e in exponents]


@dataclass(frozen=True)
class PhaseRun:
    """Runs on :math:`f=|x|^p/p` with an inexact second derivative, one per cell.

    Args:
        iterations: accepted steps until the tolerance, or the limit.
        converged: whether the tolerance was reached.
        tail: geometric mean of the last ten ratios of successive values.
    """

    iterations: Tensor
    converged: Tensor
    tail: Tensor


def phase_runs(
    power: Tensor,
    error: Tensor,
    exponent: Tensor,
    x0: Tensor,
    *,
    offset: Tensor | float = 0.0,
    tol: float = 1e-12,
    limit: int = 5000,
) -> PhaseRun:
    r"""Run the adaptive method in one dimension on many functions at once.

    The function is :math:`f(x)=|x|^p/p`, for which :math:`\gamma(x)\propto\|g\|^\alpha` with
    :math:`\alpha=1/(p-1)`, and the second derivative is replaced by
    :math:`H=(p-1)|x|^{p-2}+C_1+C_2|g|^{1-\beta}`. Each round is one probe of every cell; cells accept
    and reject on their own.

    Args:
        power: :math:`p\ge2`, shape ``(cells,)``, float64.
        error: :math:`C_2\ge0`, shape ``(cells,)``.
        exponent: :math:`\beta` in [0, 1], shape ``(cells,)``.
        x0: starts, shape ``(cells,)``.
        offset: :math:`C_1\ge0`, a number or shape ``(cells,)``.
        tol: a cell ends at :math:`f<` ``tol``.
        limit: most accepted steps.

    Returns:
        The outcome of every cell.
    """
    window = 10
    x, gamma = x0.clone(), torch.ones_like(x0)
    value = x.abs() ** power / power
    steps = torch.zeros_like(x)
    recent = value.repeat(window, 1)
    while True:
        active = (value >= tol) & (steps < limit)
        if not bool(active.any()):
            break
        g = x.sign() * x.abs() ** (power - 1)
        lam = g.abs() / gamma
        curvature = (power - 1) * x.abs() ** (power - 2) + offset + error * g.abs() ** (1 - exponent)
        trial = x - g / (curvature + lam)
        next_value = trial.abs() ** power / power
        accept = active & (value - next_value >= trial.abs() ** (2 * power - 2) / (8 * lam))
        reject = active & ~accept
        slot = (steps.long() % window)[None]
        recent.scatter_(0, slot, torch.where(accept, value, recent.gather(0, slot)[0])[None])
        x, value = torch.where(accept, trial, x), torch.where(accept, next_value, value)
        gamma = torch.where(accept, 2 * gamma, torch.where(reject, gamma / 2, gamma))
        steps = steps + accept
    oldest = recent.gather(0, (steps.long() % window)[None])[0]
    count = steps.clamp(min=1, max=window)
    tail = (value.clamp(min=math.ulp(0.0)) / oldest) ** (1 / count)
    return PhaseRun(steps, value < tol, tail)
