"""The digits task: shapes, determinism, and the arms of the experiments."""

import pytest
import torch

from descent.curvature.digits_experiments import (
    GaussianRowsMFAC,
    RepeatedRowsMFAC,
    accuracy,
    digits_network,
    first_step_below,
    gradient_source,
    prune_network,
    shuffle_rows_per_coordinate,
    split_digits,
    train,
)
from descent.curvature.mfac import MFAC
from descent.curvature.obs_pruning import obs_correction


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def split():
    """Ten noisy prototypes in place of digits."""
    labels = torch.arange(400) % 10
    prototypes = torch.rand(10, 64, generator=stream()) * 16
    noise = 2 * torch.randn(400, 64, generator=stream(1))
    return split_digits((prototypes[labels] + noise).clamp(0, 16), labels, stream(2), 300)


def test_split_is_a_permutation_on_the_stated_scale(split):
    assert split.train_images.shape == (300, 64)
    assert split.test_labels.shape == (100,)
    assert float(split.train_images.min()) >= -0.3
    assert float(split.train_images.max()) <= 0.7
    with pytest.raises(ValueError, match="train_size"):
        split_digits(split.test_images, split.test_labels, stream(), 100)


def test_network_has_the_stated_size_and_training_is_deterministic(split):
    ends = []
    for _ in range(2):
        model = digits_network(stream())
        assert sum(p.numel() for p in model.parameters()) == 3630
        losses = train(model, torch.optim.SGD(model.parameters(), lr=0.2), split, 60, stream(3))
        ends.append(losses)
    assert torch.equal(*ends)
    assert accuracy(model, split.test_images, split.test_labels) > 0.9


def test_pruning_leaves_the_network_and_its_accuracy_mostly_intact(split):
    model = digits_network(stream())
    train(model, torch.optim.SGD(model.parameters(), lr=0.2), split, 60, stream(3))
    before = [p.detach().clone() for p in model.parameters()]
    source = gradient_source(model, split, 16, stream(4))
    good, pruned = prune_network(model, split, 0.7, source, damp=1e-4)
    bad, _ = prune_network(
        model, split, 0.7, source, damp=1e-4, correction=lambda s, drop: -obs_correction(s, drop)
    )
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert int(pruned.mask.sum()) == round(0.3 * 3560)
    assert good > bad


def test_first_step_below_waits_for_a_full_window():
    losses = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0])
    assert first_step_below(losses, 0.5, 2) == 3
    assert first_step_below(losses, 0.01, 4) is None


def test_shuffling_keeps_every_column_and_loses_the_rows():
    rows = torch.randn(20, 30, generator=stream())
    shuffled = shuffle_rows_per_coordinate(rows, stream(1))
    assert torch.equal(rows.sort(0).values, shuffled.sort(0).values)
    assert not torch.equal(rows @ rows.T, shuffled @ shuffled.T)


def test_a_window_of_repeated_gradients_is_a_shorter_window(split):
    ends = []
    for make in (
        lambda p: MFAC(p, lr=0.03, damp=0.01, window=4),
        lambda p: RepeatedRowsMFAC(p, 3, lr=0.03, damp=0.01, window=12),
        lambda p: GaussianRowsMFAC(p, stream(9), lr=0.03, damp=0.01, window=4),
    ):
        model = digits_network(stream())
        train(model, make(model.parameters()), split, 10, stream(3))
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert float((ends[0] - ends[1]).abs().max()) < 1e-9
    assert float((ends[0] - ends[2]).abs().max()) > 1e-3
