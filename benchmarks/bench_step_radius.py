"""The step radius against its peers: same slopes, same zeros, interleaved.

Slopes of all logits: one forward-mode pass against torch.func.jvp, central differences and one backward pass per
class, beside a forward pass and a training gradient. Zeros: the argument principle with Newton's method, batched,
against mpmath.findroot started at the answer (it does not search, and certifies nothing) and, for integer slopes,
mpmath.polyroots. Steps: the radius clip against clip_grad_norm_, a cap on the step norm and backtracking, each
as a whole step of Adam. Then the cost law: seconds and counted multiply-adds of a radius against the number of samples.
"""

from __future__ import annotations

import argparse
import statistics

import mpmath
import numpy as np
import torch
from torch import nn
from torch.func import functional_call, jvp
from torch.nn.functional import cross_entropy

from benchmarks.interleaved import interleaved, ratio
from descent.stability.digit_classifiers import build
from descent.stability.partition_zeros import nearest_zero
from descent.stability.radius_clip import RadiusClip
from descent.stability.radius_cost import central_difference_slopes, count_work, reverse_mode_slopes
from descent.stability.step_radius import logit_jvp


def problem(samples: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    model = build("MLP", generator)
    x = torch.rand(samples, 64, generator=generator)
    y = torch.randint(10, (samples,), generator=generator)
    v = {n: torch.randn(p.shape, generator=generator) for n, p in model.named_parameters()}
    norm = torch.stack([part.norm() for part in v.values()]).norm()
    return model, x, y, {n: part / norm for n, part in v.items()}


def slopes(repeats: int) -> None:
    model, x, y, v = problem(1437)
    parameters = {n: p.detach() for n, p in model.named_parameters()}

    def gradient() -> None:
        model.zero_grad()
        cross_entropy(model(x), y).backward()

    calls = {
        "radius (dual numbers)": lambda: logit_jvp(model, x, v)[1],
        "torch.func.jvp": lambda: jvp(
            lambda p: functional_call(model, p, (x,)), (parameters,), (v,)
        )[1],
        "central differences": lambda: central_difference_slopes(model, x, v),
        "a backward pass per class": lambda: reverse_mode_slopes(model, x, v),
    }
    base = calls["radius (dual numbers)"]()
    for name, call in calls.items():
        print(f"  {name}: differs by {float((call() - base).norm() / base.norm()):.1e}")
    seconds = interleaved(calls | {"forward pass": lambda: model(x), "gradient": gradient}, repeats)
    ours = "radius (dual numbers)"
    print(f"  {ours}: {statistics.median(seconds[ours]) * 1e3:.2f} ms at 1437 samples")
    for other in seconds:
        if other != ours:
            print("    " + ratio(seconds, other, ours))


def zeros(repeats: int) -> None:
    generator = torch.Generator().manual_seed(0)
    z = 2 * torch.randn(20, 6, generator=generator, dtype=torch.float64)
    a = torch.randn(20, 6, generator=generator, dtype=torch.float64)
    found = nearest_zero(z, a)

    def by_mpmath() -> list[complex]:
        roots = []
        for logits, rates, start in zip(z.tolist(), a.tolist(), found.tolist(), strict=True):
            weights = [mpmath.exp(value) for value in logits]

            def partition(t: object, w: list = weights, s: list = rates) -> object:
                return mpmath.fsum(x * mpmath.exp(k * t) for x, k in zip(w, s, strict=True))

            roots.append(complex(mpmath.findroot(partition, start + 1e-3)))
        return roots

    gap = max(abs(p - q) for p, q in zip(by_mpmath(), found.tolist(), strict=True))
    print(f"  20 instances of 6 classes: zeros differ from mpmath by {gap:.1e}")
    calls = {"search and certificate": lambda: nearest_zero(z, a), "mpmath.findroot": by_mpmath}
    integer = torch.arange(6, dtype=torch.float64)

    def by_polynomial() -> float:
        coefficients = [mpmath.exp(value) for value in z[0].tolist()][::-1]
        roots = mpmath.polyroots(coefficients, maxsteps=200, extraprec=100)
        return min(abs(complex(mpmath.log(root))) for root in roots)

    print(
        f"  integer slopes: radius differs from mpmath.polyroots by {abs(by_polynomial() - float(nearest_zero(z[0], integer).abs())):.1e}"
    )
    print("    " + ratio(interleaved(calls, repeats), "mpmath.findroot", "search and certificate"))


def steps(repeats: int) -> None:
    calls = {}
    for name in (
        "plain Adam",
        "clip_grad_norm_",
        "step-norm cap",
        "backtracking",
        "radius clip, batch",
        "radius clip, 1437",
    ):
        model, x, y, _ = problem(1437)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        clip = RadiusClip(optimizer, model)
        batch, labels = x[:64], y[:64]

        def step(
            name=name, model=model, x=x, optimizer=optimizer, clip=clip, batch=batch, labels=labels
        ) -> None:  # type: ignore[no-untyped-def]
            optimizer.zero_grad()
            loss = cross_entropy(model(batch), labels)
            loss.backward()
            if name.startswith("radius"):
                clip.step(batch if name.endswith("batch") else x)
                return
            if name == "clip_grad_norm_":
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            before = [p.detach().clone() for p in model.parameters()]
            optimizer.step()
            if name in ("plain Adam", "clip_grad_norm_"):
                return
            with torch.no_grad():
                moves = [p - b for p, b in zip(model.parameters(), before, strict=True)]
                norm = torch.stack([m.norm() for m in moves]).norm()
                factor = min(1.0, 0.1 / float(norm)) if name == "step-norm cap" else 1.0
                for _ in range(10):
                    for p, b, m in zip(model.parameters(), before, moves, strict=True):
                        p.copy_(b + factor * m)
                    if name == "step-norm cap" or cross_entropy(model(batch), labels) <= loss:
                        break
                    factor /= 4

        calls[name] = step
    seconds = interleaved(calls, 5 * repeats)
    print(f"  plain Adam, batch 64: {statistics.median(seconds['plain Adam']) * 1e3:.2f} ms")
    for name in calls:
        if name != "plain Adam":
            print("    " + ratio(seconds, name, "plain Adam"))


def cost_law(repeats: int) -> None:
    sizes = [1_000, 3_000, 10_000, 30_000]
    timed, counted = [], []
    for samples in sizes:
        model, x, _, v = problem(samples)
        call = {"radius": lambda model=model, x=x, v=v: logit_jvp(model, x, v)}
        timed.append(statistics.median(interleaved(call, repeats)["radius"]))
        counted.append(count_work(model, call["radius"]).multiply_adds)

    def slope(values: list[float]) -> float:
        return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])

    print(
        f"  slope in the samples: {slope(timed):.2f} timed, {slope(counted):.2f} counted, 1 in theory"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for title, part in (
        ("slopes", slopes),
        ("zeros", zeros),
        ("one training step", steps),
        ("cost law", cost_law),
    ):
        print(title)
        part(options.repeats)


if __name__ == "__main__":
    main()
