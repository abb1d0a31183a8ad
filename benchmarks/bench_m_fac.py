"""M-FAC against Woodbury (torch.linalg) and a dense inverse: same Fisher matrix, same results, interleaved.

Three comparisons, one thread, float64: a product after a replacement in the window (dynamic form against a fresh
Cholesky factor), building plus the whole diagonal (static form against the diagonal that Woodbury gives through a
triangular solve), and both against forming and inverting the dense matrix. Then the cost laws, fitted as slopes of
the median seconds over d and m, next to the slopes of the counted multiply-adds. With --peer a product is also timed
against conjugate gradients on curvlinops' empirical Fisher matrix of a small network, which stores no gradients and
differentiates anew in every step: less memory, much more work.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.interleaved import interleaved, ratio
from descent.curvature.inverse_fisher import dense_inverse, woodbury_solve
from descent.curvature.sliding_inverse_fisher import SlidingInverseFisher
from descent.curvature.static_inverse_fisher import StaticInverseFisher
from descent.operation_counter import OperationCounter

DAMP = 1e-2


def rows_of(m: int, d: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(m, d, generator=generator, dtype=torch.float64)


class WoodburyWindow:
    """The ring buffer with a Cholesky factor in place of M-FAC's elimination."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows, self.gram, self.slot = rows.clone(), rows @ rows.T, 0

    def push_mul(self, gradient: torch.Tensor) -> torch.Tensor:
        self.rows[self.slot] = gradient
        products = self.rows @ gradient
        self.gram[self.slot], self.gram[:, self.slot] = products, products
        m = len(products)
        matrix = self.gram.clone()
        matrix.diagonal().add_(DAMP * m)
        factor = torch.linalg.cholesky(matrix)
        weights = torch.cholesky_solve(products[:, None], factor)[:, 0]
        self.slot = (self.slot + 1) % m
        return (gradient - self.rows.T @ weights) / DAMP


def woodbury_diagonal(rows: torch.Tensor) -> torch.Tensor:
    matrix = rows @ rows.T
    matrix.diagonal().add_(DAMP * len(rows))
    half = torch.linalg.solve_triangular(torch.linalg.cholesky(matrix), rows, upper=False)
    return (1 - half.square().sum(0)) / DAMP


def compare(m: int, d: int, repeats: int, dense: bool) -> None:
    rows, new = rows_of(m, d), rows_of(1, d, 1)[0]
    window, woodbury = SlidingInverseFisher(m, d, DAMP, torch.float64), WoodburyWindow(rows)
    for row in rows:
        window.push(row)
    gap = (window.push_mul(new) - woodbury.push_mul(new)).norm() / woodbury_solve(
        window.gradients, DAMP, new
    ).norm()
    off = (StaticInverseFisher(rows, DAMP).diag() - woodbury_diagonal(rows)).abs().max() * DAMP
    print(f"m = {m}, d = {d}: products differ by {gap:.1e}, diagonals by {off:.1e} (relative)")
    replacement: dict[str, Callable[[], object]] = {
        "M-FAC dynamic": lambda: window.push_mul(new),
        "Woodbury": lambda: woodbury.push_mul(new),
    }
    diagonal: dict[str, Callable[[], object]] = {
        "M-FAC static": lambda: StaticInverseFisher(rows, DAMP).diag(),
        "Woodbury diagonal": lambda: woodbury_diagonal(rows),
    }
    if dense:
        replacement["dense inverse"] = diagonal["dense inverse"] = lambda: dense_inverse(rows, DAMP)
    for title, contestants in (
        ("replacement and product", replacement),
        ("building and diagonal", diagonal),
    ):
        seconds = interleaved(contestants, repeats)
        ours, *others = contestants
        print(f"  {title}: {ours} {statistics.median(seconds[ours]) * 1e3:.2f} ms")
        for other in others:
            print("    " + ratio(seconds, ours, other))


def slope(x: list[int], y: list[float]) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def cost_law(repeats: int) -> None:
    def median_and_count(m: int, d: int) -> dict[str, tuple[float, int]]:
        rows = rows_of(m, d)
        static, x = StaticInverseFisher(rows, DAMP), rows[0].clone()
        calls = {"build": lambda: StaticInverseFisher(rows, DAMP), "product": lambda: static.mul(x)}
        seconds = interleaved(calls, repeats)
        found = {}
        for name, call in calls.items():
            with OperationCounter() as counter:
                call()
            found[name] = (statistics.median(seconds[name]), counter.multiply_adds)
        return found

    for axis, sizes, points in (
        ("d", [10_000, 30_000, 100_000], [(64, d) for d in (10_000, 30_000, 100_000)]),
        ("m", [32, 64, 128, 256], [(m, 20_000) for m in (32, 64, 128, 256)]),
    ):
        measured = [median_and_count(m, d) for m, d in points]
        for name in ("build", "product"):
            timed = slope(sizes, [row[name][0] for row in measured])
            counted = slope(sizes, [row[name][1] for row in measured])
            print(f"  slope of {name} in {axis}: {timed:.2f} timed, {counted:.2f} counted")


def against_curvlinops(repeats: int) -> None:
    from curvlinops import CGInverseLinearOperator, EFLinearOperator
    from curvlinops.examples import IdentityLinearOperator
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10)).double()
    inputs, targets = torch.randn(64, 20, dtype=torch.float64), torch.randint(10, (64,))
    parameters, loss = list(model.parameters()), nn.CrossEntropyLoss()
    rows = torch.stack(
        [
            torch.cat(
                [
                    g.flatten()
                    for g in torch.autograd.grad(loss(model(x[None]), t[None]), parameters)
                ]
            )
            for x, t in zip(inputs, targets, strict=True)
        ]
    )
    operator = EFLinearOperator(
        model, loss, parameters, [(inputs, targets)], check_deterministic=False
    )
    shapes = [tuple(p.shape) for p in parameters]
    damped = operator + DAMP * IdentityLinearOperator(shapes, rows.device, rows.dtype)
    inverse = CGInverseLinearOperator(damped, eps=0, tolerance=1e-8, max_iter=500)
    fisher, x = StaticInverseFisher(rows, DAMP), rows[0].clone()
    gap = (fisher.mul(x) - inverse @ x).norm() / fisher.mul(x).norm()
    seconds = interleaved(
        {"curvlinops CG": lambda: inverse @ x, "M-FAC product": lambda: fisher.mul(x)}, repeats
    )
    print(f"curvlinops, d = {rows.shape[1]}, m = 64: results differ by {gap:.1e}")
    print("  " + ratio(seconds, "curvlinops CG", "M-FAC product"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peer", action="store_true", help="also curvlinops")
    options = parser.parse_args()
    torch.set_num_threads(1)
    compare(64, 2_000, options.repeats, dense=True)
    compare(64, 50_000, options.repeats, dense=False)
    print("cost laws (M-FAC static)")
    cost_law(options.repeats)
    if options.peer:
        against_curvlinops(options.repeats)


if __name__ == "__main__":
    main()
