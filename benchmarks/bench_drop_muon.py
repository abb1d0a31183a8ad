"""Seconds of Drop-Muon: real steps with and without the early stop, polar factors, and the cost law over the batch.

On one CPU thread, with interleaved rounds and ratios with their range:

1. a full step (forward, backward, update) of a convolutional network with the paper's channels 64, 128, 256 on
   8 x 8 images, with `torch.optim.Muon`, with Muon, with Drop-Muon at every cutoff and averaged over uniform cutoffs,
   and with layers skipped only after a full backward pass; beside the ratio of multiply-adds;
2. orthogonalising a momentum: Newton-Schulz here, torch's (bfloat16), and the exact singular value decomposition;
3. the cost law: seconds of a step against the batch, fitted over a decade, beside the counted multiply-adds.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.optim._muon import _zeropower_via_newtonschulz

from benchmarks.interleaved import interleaved, ratio
from descent.first_order.convolution_experiments import ConvolutionNet, SkipOnlyDropMuon
from descent.first_order.cutoff_sampling import FixedCutoff
from descent.first_order.drop_muon import DropMuon, Muon
from descent.first_order.polar import COEFFICIENTS, newton_schulz, polar
from descent.first_order.training_cost import step_cost


def stepper(
    net: ConvolutionNet, optimiser: torch.optim.Optimizer, batch: int
) -> Callable[[], None]:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(1, 8, 8, batch, generator=generator)
    labels = torch.randint(10, (batch,), generator=generator)

    def step() -> None:
        if isinstance(optimiser, DropMuon):
            optimiser.sample_cutoff()
        else:
            optimiser.zero_grad()
        cross_entropy(net(images), labels).backward()
        optimiser.step()

    return step


def network(channels: tuple[int, int, int]) -> ConvolutionNet:
    return ConvolutionNet(channels, (1, 2, 2), 8, torch.Generator().manual_seed(0))


def drop(net: ConvolutionNet, cutoff: int, kind: type[DropMuon] = DropMuon) -> DropMuon:
    return kind(list(net.weights), FixedCutoff(4, cutoff))


def steps(channels: tuple[int, int, int], batch: int, repeats: int) -> None:
    nets = [network(channels) for _ in range(7)]
    peer = torch.optim.Muon(nets[6].parameters(), momentum=0.9, nesterov=False, weight_decay=0.0)
    contestants: dict[str, Callable[[], object]] = {
        "torch.optim.Muon": stepper(nets[6], peer, batch),
        "Muon": stepper(nets[0], Muon(nets[0].parameters()), batch),
        **{f"cutoff {s + 1}": stepper(nets[s + 1], drop(nets[s + 1], s), batch) for s in range(4)},
        "skip only, 3": stepper(nets[5], drop(nets[5], 2, SkipOnlyDropMuon), batch),
    }
    seconds = interleaved(contestants, repeats)
    work = [step_cost(nets[0].macs, nets[0].shapes, batch, s) for s in range(4)]
    print(
        f"a step, channels {channels}, batch {batch}: Muon {statistics.median(seconds['Muon']) * 1e3:.1f} ms"
    )
    print("  " + ratio(seconds, "torch.optim.Muon", "Muon"))
    for s in range(4):
        print(
            f"  {ratio(seconds, 'Muon', f'cutoff {s + 1}')}; multiply-adds {work[0] / work[s]:.3g}"
        )
    seconds["uniform cutoffs"] = [
        sum(four) / 4 for four in zip(*(seconds[f"cutoff {s + 1}"] for s in range(4)), strict=True)
    ]
    print(
        f"  {ratio(seconds, 'Muon', 'uniform cutoffs')}; multiply-adds {4 * work[0] / sum(work):.3g}"
    )
    print("  " + ratio(seconds, "Muon", "skip only, 3"))


def polars(repeats: int) -> None:
    for shape in ((64, 288), (256, 1152)):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        contestants: dict[str, Callable[[], object]] = {
            "Newton-Schulz": lambda m=matrix: newton_schulz(m),
            "torch's": lambda m=matrix: _zeropower_via_newtonschulz(m, COEFFICIENTS, 5, 1e-7),
            "SVD": lambda m=matrix: polar(m),
        }
        seconds = interleaved(contestants, repeats)
        values = torch.linalg.svdvals(newton_schulz(matrix))
        print(
            f"polar factor, {shape}: {statistics.median(seconds['Newton-Schulz']) * 1e3:.2f} ms, "
            f"singular values {float(values.min()):.2f} to {float(values.max()):.2f}"
        )
        for other in ("torch's", "SVD"):
            print("  " + ratio(seconds, other, "Newton-Schulz"))


def cost_law(repeats: int) -> None:
    batches = (64, 128, 256, 640)
    for cutoff in (0, 2):
        net = network((16, 32, 64))
        calls = {str(n): stepper(net, drop(net, cutoff), n) for n in batches}
        seconds = interleaved(calls, repeats)
        timed = [statistics.median(seconds[str(n)]) for n in batches]
        counted = [step_cost(net.macs, net.shapes, n, cutoff) for n in batches]
        slopes = [np.polyfit(np.log(batches), np.log(y), 1)[0] for y in (timed, counted)]
        print(
            f"cost law, cutoff {cutoff + 1}: slope in the batch {slopes[0]:.2f} timed, {slopes[1]:.2f} counted"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch", type=int, default=1024, help="batch of the large network")
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps((64, 128, 256), options.batch, max(2, options.repeats // 2))
    steps((16, 32, 64), 256, options.repeats)
    polars(options.repeats)
    cost_law(options.repeats)


if __name__ == "__main__":
    main()
