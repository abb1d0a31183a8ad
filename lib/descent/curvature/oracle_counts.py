r"""What an optimiser asks of a problem: a ledger of evaluations, and peers that are run against it.

An *evaluation* is one value with its gradient at one point; asking for both, or twice at the same
point, counts once. Hessians and Hessian-vector products are counted on their own.

Source: not in the paper. The peers are SciPy's (trust-region and quasi-Newton methods) and torch's L-BFGS.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

__all__ = ["SCIPY_METHODS", "Ledger", "run_scipy", "run_torch_lbfgs"]

SCIPY_METHODS = ("trust-exact", "trust-ncg", "Newton-CG", "L-BFGS-B")


class _Reached(Exception):
    """Ends a peer's loop at the tolerance or at the end of its budget."""


class Ledger:
    r"""A problem that counts what is asked of it and remembers the best value so far.

    Args:
        problem: has ``value_and_gradient`` and ``hessian(x, kind)``.
        f_star: optimal value.
        tol: with a limit, reaching :math:`f-f^*<` ``tol`` ends the run.
        limit: evaluations after which the run is ended; ``None`` leaves that to the caller.

    Attributes:
        evaluations: points at which value or gradient were asked for.
        hessians: dense Hessians formed.
        products: Hessian-vector products.
        best: after each evaluation, the least :math:`f-f^*` so far.
        reached: evaluations when ``tol`` was reached, or ``None``.
    """

    def __init__(
        self, problem: Any, f_star: float = 0.0, tol: float = 1e-8, limit: int | None = None
    ) -> None:
        self.problem, self.f_star, self.tol, self.limit = problem, f_star, tol, limit
        self.evaluations = self.hessians = self.products = 0
        self.best: list[float] = []
        self.reached: int | None = None
        self._at: Tensor | None = None
        self._known: tuple[float, Tensor] | None = None
        self._matrix: tuple[Tensor, Tensor] | None = None

    def _evaluate(self, x: Tensor) -> tuple[float, Tensor]:
        if self._known is None or self._at is None or not torch.equal(self._at, x):
            if self.limit is not None and (
                self.reached is not None or self.evaluations >= self.limit
            ):
                raise _Reached
            self._at = x.detach().clone()
            self._known = self.problem.value_and_gradient(self._at)
            self.evaluations += 1
            gap = self._known[0] - self.f_star
            self.best.append(min(gap, self.best[-1]) if self.best else gap)
            if gap < self.tol and self.reached is None:
                self.reached = self.evaluations
        return self._known

    def value(self, x: Tensor) -> float:
        """Return the objective, counted."""
        return self._evaluate(x)[0]

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """Return both, counted once."""
        return self._evaluate(x)

    def gradient(self, x: Tensor) -> Tensor:
        """Return the gradient, counted together with the value."""
        return self._evaluate(x)[1]

    def hessian(self, x: Tensor, kind: str = "exact") -> Tensor:
        """Return a matrix of the problem, counted."""
        self.hessians += 1
        return self.problem.hessian(x, kind)

    def product(self, x: Tensor, v: Tensor) -> Tensor:
        """Return the Hessian times a vector, counted as a product."""
        self.products += 1
        if self._matrix is None or not torch.equal(self._matrix[0], x):
            self._matrix = (x.clone(), self.problem.hessian(x, "exact"))
        return self._matrix[1] @ v


def run_scipy(
    problem: Any, x0: Tensor, method: str, *, f_star: float = 0.0, limit: int = 1000
) -> Ledger:
    """Run a method of ``scipy.optimize.minimize`` until the tolerance or the limit.

    Args:
        problem: has ``value_and_gradient`` and ``hessian``.
        x0: start, shape ``(n,)``.
        method: one of ``SCIPY_METHODS``; trust-exact gets Hessians, trust-ncg and Newton-CG get products.
        f_star: optimal value.
        limit: most evaluations.

    Returns:
        The ledger of the run.

    Raises:
        ValueError: for an unknown method.
    """
    if method not in SCIPY_METHODS:
        raise ValueError(f"unknown method {method!r}; choose {', '.join(SCIPY_METHODS)}")
    ledger = Ledger(problem, f_star, limit=limit)

    def tensor(point: np.ndarray) -> Tensor:
        return torch.as_tensor(np.array(point), dtype=x0.dtype, device=x0.device)

    def numpy(t: Tensor) -> np.ndarray:
        return t.detach().cpu().numpy()

    options: dict[str, dict[str, float]] = {
        "trust-exact": {"gtol": 1e-14, "maxiter": limit},
        "trust-ncg": {"gtol": 1e-14, "maxiter": limit},
        "Newton-CG": {"xtol": 1e-15, "maxiter": limit},
        "L-BFGS-B": {
            "ftol": 0,
            "gtol": 1e-14,
            "maxiter": limit,
            "maxfun": 10 * limit,
            "maxcor": 20,
        },
    }
    curvature: dict[str, Callable[..., np.ndarray]] = {}
    if method == "trust-exact":
        curvature["hess"] = lambda x: numpy(ledger.hessian(tensor(x)))
    elif method != "L-BFGS-B":
        curvature["hessp"] = lambda x, v: numpy(ledger.product(tensor(x), tensor(v)))
    with contextlib.suppress(_Reached):
        minimize(
            lambda x: ledger.value(tensor(x)),
            numpy(x0),
            jac=lambda x: numpy(ledger.gradient(tensor(x))),
            method=method,
            options=options[method],
            **curvature,
        )
    return ledger


def run_torch_lbfgs(
    problem: Any, x0: Tensor, *, f_star: float = 0.0, limit: int = 1000, memory: int = 20
) -> Ledger:
    """Run ``torch.optim.LBFGS`` with a strong Wolfe line search until the tolerance or the limit.

    Args:
        problem: has ``value_and_gradient``.
        x0: start, shape ``(n,)``.
        f_star: optimal value.
        limit: most evaluations.
        memory: pairs kept.

    Returns:
        The ledger of the run.
    """
    ledger = Ledger(problem, f_star, limit=limit)
    x = x0.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS(
        [x], max_iter=limit, max_eval=10 * limit, tolerance_grad=1e-15, tolerance_change=1e-16,
        history_size=memory, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> float:
        point = x.detach()
        value = ledger.value(point)
        x.grad = ledger.gradient(point).clone()
        return value

    with contextlib.suppress(_Reached):
        optimiser.step(closure)
    return ledger
