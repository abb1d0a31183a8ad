r"""Random quadratic bilevel problems with polyhedral coupling, and their solution by enumeration.

.. math:: F=\tfrac12\|x-a\|^2+\tfrac12\|y-b\|^2,\quad f=\tfrac12\|y-Mx\|^2,\quad g=Ax+By-s\le0 .

For a given active set :math:`S` the optimality conditions of the lower level are linear in :math:`(x,y)`, and
:math:`F` has a unique minimiser under them. The best of the :math:`2^q` minimisers solves the problem.

Source: derived, not read.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from descent.bilevel.problem import BilevelProblem
from descent.bilevel.projections import SmallPolyhedron, least_distance

__all__ = ["PolyhedralQuadratic", "random_polyhedral"]


class PolyhedralQuadratic(BilevelProblem):
    """The problem with given data.

    Args:
        a: shape ``(n,)``.
        b: shape ``(m,)``.
        response: :math:`M`, shape ``(m, n)``.
        upper_rows: :math:`A`, shape ``(q, n)``.
        lower_rows: :math:`B`, shape ``(q, m)``.
        right_side: :math:`s`, shape ``(q,)``.
    """

    def __init__(
        self,
        a: Tensor,
        b: Tensor,
        response: Tensor,
        upper_rows: Tensor,
        lower_rows: Tensor,
        right_side: Tensor,
    ) -> None:
        self.a, self.b, self.response = a, b, response
        self.rows_x, self.rows_y, self.right_side = upper_rows, lower_rows, right_side
        self.set = SmallPolyhedron(torch.cat([upper_rows, lower_rows], 1), right_side)

    def upper(self, x: Tensor, y: Tensor) -> Tensor:
        return ((x - self.a) ** 2).sum(-1) / 2 + ((y - self.b) ** 2).sum(-1) / 2

    def lower(self, x: Tensor, y: Tensor) -> Tensor:
        return ((y - x @ self.response.T) ** 2).sum(-1) / 2

    def constraint(self, x: Tensor, y: Tensor) -> Tensor:
        return x @ self.rows_x.T + y @ self.rows_y.T - self.right_side

    def upper_gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x - self.a, y - self.b

    def lower_gradient_x(self, x: Tensor, y: Tensor) -> Tensor:
        return (x @ self.response.T - y) @ self.response

    def lower_gradient_y(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x @ self.response.T

    def constraint_product_x(self, x: Tensor, y: Tensor, multiplier: Tensor) -> Tensor:
        return multiplier @ self.rows_x

    def constraint_product_y(self, x: Tensor, y: Tensor, multiplier: Tensor) -> Tensor:
        return multiplier @ self.rows_y

    def project_joint(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        both = self.set.project(torch.cat([x, y], -1))
        return both[..., : x.shape[-1]], both[..., x.shape[-1] :]

    def lower_response(self, x: Tensor) -> Tensor:
        r"""Return the exact lower solution, the projection of :math:`Mx` on :math:`\{By\le s-Ax\}`.

        Args:
            x: shape ``(k, n)``.

        Returns:
            Shape ``(k, m)``.
        """
        rows = self.rows_y.cpu().double().numpy()
        targets = (x @ self.response.T).cpu().double().numpy()
        bounds = (self.right_side - x @ self.rows_x.T).cpu().double().numpy()
        found = [least_distance(t, rows, b) for t, b in zip(targets, bounds, strict=True)]
        return torch.as_tensor(np.array(found)).to(x)

    def solve_by_enumeration(self) -> list[tuple[float, np.ndarray, np.ndarray]]:
        r"""Return the minimiser of :math:`F` on every piece of the solution map.

        Returns:
            Triples :math:`(F,x,y)`, the best first: the first is the global optimum.
        """
        rows_x, rows_y, s, m, a, b = (
            t.cpu().double().numpy()
            for t in (self.rows_x, self.rows_y, self.right_side, self.response, self.a, self.b)
        )
        both, goal, found = np.hstack([rows_x, rows_y]), np.concatenate([a, b]), []
        residual = np.hstack([-m, np.eye(len(b))])  # y - M x
        for size in range(len(s) + 1):
            for active in itertools.combinations(range(len(s)), size):
                rows = rows_y[list(active)]
                pseudo = np.linalg.pinv(rows) if size else np.zeros((len(b), 0))
                # y - M x = -B_S' lam with lam >= 0, and the active rows hold with equality
                equal = np.vstack([(np.eye(len(b)) - pseudo @ rows) @ residual, both[list(active)]])
                level = np.concatenate([np.zeros(len(b)), s[list(active)]])
                upper = np.vstack([both, pseudo.T @ residual])
                bound = np.concatenate([s, np.zeros(size)])
                point = least_distance(goal, upper, bound, equal, level)
                if point is not None:
                    value = float(((point - goal) ** 2).sum() / 2)
                    found.append((value, point[: len(a)], point[len(a) :]))
        return sorted(found, key=lambda entry: entry[0])


def random_polyhedral(
    n: int, m: int, q: int, generator: torch.Generator, device: torch.device | str = "cpu"
) -> PolyhedralQuadratic:
    """Draw a problem with Gaussian data whose constraints cut off the response at the upper goal.

    Args:
        n: length of ``x``.
        m: length of ``y``, at least ``q``.
        q: number of constraints, at most 10.
        generator: source of randomness, on the CPU.
        device: where the data go.

    Returns:
        The problem, in float64.
    """

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    a, b, response = draw(n), draw(m), draw(m, n) / n**0.5
    rows_x, rows_y = draw(q, n) / n**0.5, draw(q, m) / m**0.5
    level = rows_x @ a + rows_y @ (response @ a)
    right_side = level - 0.5 * torch.rand(q, generator=generator, dtype=torch.float64)
    return PolyhedralQuadratic(
        *(t.to(device) for t in (a, b, response, rows_x, rows_y, right_side))
    )
