"""Optimal Brain Surgeon: optimality in the quadratic model, the schedule, gradients by autograd."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from descent.curvature.inverse_fisher import dense_fisher
from descent.curvature.obs_pruning import (
    PruningStep,
    collect_gradients,
    joint_obs_correction,
    magnitude_saliency,
    no_correction,
    obs_correction,
    obs_prune,
    obs_saliency,
    target_counts,
)
from descent.curvature.static_inverse_fisher import StaticInverseFisher


@pytest.fixture
def step():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(15, 12, generator=generator, dtype=torch.float64)
    inverse = StaticInverseFisher(rows, 0.05)
    weights = torch.randn(12, generator=generator, dtype=torch.float64)
    return PruningStep(weights, rows, 0.05, inverse, inverse.diag())


def rise(step, change):
    return float(change @ dense_fisher(step.gradients, step.damp) @ change / 2)


def test_a_single_removal_costs_its_saliency_and_no_other_change_costs_less(step):
    generator = torch.Generator().manual_seed(1)
    for i in range(12):
        drop = torch.arange(12) == i
        change = obs_correction(step, drop)
        assert float(change[i]) == pytest.approx(-float(step.weights[i]), rel=1e-9)
        assert rise(step, change) == pytest.approx(float(obs_saliency(step)[i]), rel=1e-9)
        for scale in (1e-3, 1e-1, 1.0):
            other = (
                change + scale * torch.randn(12, generator=generator, dtype=torch.float64) * ~drop
            )
            assert rise(step, other) > rise(step, change)


def test_the_joint_correction_is_optimal_and_the_sum_is_not(step):
    drop = torch.arange(12) % 3 == 0
    joint = joint_obs_correction(step, drop)
    torch.testing.assert_close(joint[drop], -step.weights[drop])
    fisher = dense_fisher(step.gradients, step.damp)
    torch.testing.assert_close((fisher @ joint)[~drop], torch.zeros(8, dtype=torch.float64))
    summed = torch.where(drop, -step.weights, obs_correction(step, drop))
    assert rise(step, summed) > rise(step, joint)
    assert rise(step, joint) > float(obs_saliency(step)[drop].min())


def test_for_one_weight_joint_and_sum_coincide(step):
    drop = torch.arange(12) == 4
    torch.testing.assert_close(joint_obs_correction(step, drop), obs_correction(step, drop))


def test_the_schedule_is_geometric_and_ends_at_the_target():
    counts = target_counts(1000, 1000, 0.9, 4)
    assert counts[-1] == 100
    ratios = [b / a for a, b in zip([1000, *counts], counts, strict=False)]
    assert max(ratios) - min(ratios) < 0.01
    assert target_counts(1000, 500, 0.75, 1) == [250]
    assert target_counts(1000, 1000, 0.9, 4) == sorted(counts, reverse=True)


def test_pruning_is_exact_keeps_earlier_zeros_and_leaves_its_input():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(40, generator=generator, dtype=torch.float64)
    before, mask = weights.clone(), torch.arange(40) < 30
    seen = []

    def gradients(now):
        seen.append(int((now != 0).sum()))
        return torch.randn(6, 40, generator=generator, dtype=torch.float64)

    pruned = obs_prune(weights, gradients, 0.8, recomputations=3, mask=mask, damp=0.1, block_size=7)
    assert seen == [30, *target_counts(40, 30, 0.8, 3)[:2]]
    assert int(pruned.mask.sum()) == 8
    assert not bool((pruned.mask & ~mask).any())
    assert torch.equal(pruned.weights != 0, pruned.mask)
    assert torch.equal(weights, before)


def test_magnitude_without_correction_is_plain_magnitude_pruning():
    weights = torch.tensor([3.0, -1.0, 0.5, -4.0])
    pruned = obs_prune(
        weights, lambda w: torch.ones(1, 4), 0.5, recomputations=1,
        saliency=magnitude_saliency, correction=no_correction,
    )  # fmt: skip
    assert torch.equal(pruned.weights, torch.tensor([3.0, 0.0, 0.0, -4.0]))


def test_gradients_are_those_of_one_backward_pass_per_batch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 2)).double()
    inputs, targets = torch.randn(9, 4, dtype=torch.float64), torch.arange(9) % 2
    batches = torch.randint(9, (5, 3))
    rows = collect_gradients(model, ("2.weight",), cross_entropy, inputs, targets, batches)
    assert model.training
    model.eval()
    for row, index in zip(rows, batches, strict=True):
        loss = cross_entropy(model(inputs[index]), targets[index])
        (expected,) = torch.autograd.grad(loss, [model[2].weight])
        torch.testing.assert_close(row, expected.flatten())
    with pytest.raises(KeyError, match="9.weight"):
        collect_gradients(model, ("9.weight",), cross_entropy, inputs, targets, batches)


def test_wrong_arguments_are_told():
    weights, ones = torch.ones(4), lambda w: torch.ones(1, 4)
    with pytest.raises(ValueError, match="sparsity must be from the present 0.5"):
        obs_prune(weights, ones, 0.25, mask=torch.tensor([True, True, False, False]))
    with pytest.raises(ValueError, match="recomputations"):
        obs_prune(weights, ones, 0.5, recomputations=0)
    with pytest.raises(ValueError, match="shape \\(m, 4\\), got \\(1, 3\\)"):
        obs_prune(weights, lambda w: torch.ones(1, 3), 0.5)
    with pytest.raises(ValueError, match="same shape"):
        obs_prune(weights, ones, 0.5, mask=torch.ones(3, dtype=torch.bool))
