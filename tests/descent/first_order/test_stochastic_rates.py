"""The batched runs: against the optimiser without noise, padding, shapes, refusals."""

import pytest
import torch
from torch import nn

from descent.first_order.cutoff_sampling import FixedCutoff, UniformCutoff
from descent.first_order.drop_muon import DropMuon
from descent.first_order.linear_minimisation import dual_norm
from descent.first_order.stochastic_rates import Arm, average_dual_norms, stack_padded


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_without_noise_a_run_is_the_optimiser():
    targets, length = [draw(1, 3, 3), draw(2, 3, 3)], 16
    stacked = torch.stack(targets)
    found = average_dual_norms(
        lambda x: x - stacked,
        torch.zeros_like(stacked),
        torch.ones_like(stacked),
        [Arm(FixedCutoff(2, 1), 0.8)],
        [length],
        1,
        torch.Generator(),
        noise=0.0,
        every=1,
    )
    weights = [nn.Parameter(torch.zeros(3, 3, dtype=torch.float64)) for _ in targets]
    optimiser = DropMuon(
        weights, FixedCutoff(2, 1), lr=0.8 * length**-0.75, beta=length**-0.5, orthogonaliser="svd"
    )
    total = 0.0
    for _ in range(length):
        total += sum(float(dual_norm(w.data - a)) for w, a in zip(weights, targets, strict=True))
        optimiser.sample_cutoff()
        sum((w - a).square().sum() / 2 for w, a in zip(weights, targets, strict=True)).backward()
        optimiser.step()
    assert float(found) == pytest.approx(total / length, rel=1e-10)


def test_padding_changes_nothing():
    small = [draw(1, 2, 3), draw(2, 3, 2)]
    padded = stack_padded(small)
    assert padded.shape == (2, 3, 3)
    assert torch.allclose(dual_norm(padded), torch.stack([dual_norm(m) for m in small]))


def test_shapes_and_lengths():
    arms = [Arm(FixedCutoff(2), 0.5), Arm(UniformCutoff(2), 0.5), Arm(UniformCutoff(2), 0.3, 0.0)]
    target = draw(3, 2, 3, 3)
    result = average_dual_norms(
        lambda x: x - target,
        torch.zeros_like(target),
        torch.ones_like(target),
        arms,
        [50, 130],
        4,
        torch.Generator().manual_seed(0),
    )
    assert result.shape == (3, 4, 2)
    assert bool((result[:2, :, 1] < result[:2, :, 0]).all())
    with pytest.raises(ValueError, match=r"increasing, got \[3, 2\]"):
        average_dual_norms(lambda x: x, target, target, arms, [3, 2], 1, torch.Generator())
