"""The image task: the network against nn.Conv2d, batches, crossings, training, measured smoothness."""

import pytest
import torch
from torch import nn

from descent.first_order.convolution_experiments import (
    ConvolutionNet,
    SkipOnlyDropMuon,
    balanced_subset,
    epoch_batches,
    first_crossing,
    layer_smoothness,
    pooled,
    train,
    train_from,
)
from descent.first_order.cutoff_sampling import FixedCutoff, UniformCutoff
from descent.first_order.drop_muon import DropMuon, Muon
from descent.first_order.training_cost import step_cost


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def task(count=60):
    labels = torch.arange(count) % 10
    images = torch.rand(1, 8, 8, count, generator=source(1)) + (labels / 10).view(1, 1, 1, -1)
    return images, labels


def test_network_is_that_of_torch_modules():
    net = ConvolutionNet((3, 4, 5), (1, 2, 2), 8, source())
    modules = [
        nn.Conv2d(i, o, 3, s, 1, bias=False) for i, o, s in ((1, 3, 1), (3, 4, 2), (4, 5, 2))
    ]
    last = nn.Linear(20, 10, bias=False)
    for module, weight in zip([*modules, last], net.weights, strict=True):
        module.weight.data = weight.data.view_as(module.weight)
    images, _ = task(7)
    hidden = images.permute(3, 0, 1, 2)
    for module in modules:
        hidden = module(hidden).relu()
    assert torch.allclose(net(images), last(hidden.flatten(1)), atol=1e-5)
    assert net.shapes == [(3, 9), (4, 27), (5, 36), (10, 20)]
    assert net.macs == [64 * 27, 16 * 108, 4 * 180, 200]


def test_subsets_batches_and_pooling():
    labels = torch.arange(50) % 5
    chosen = balanced_subset(labels, 4, source())
    assert torch.bincount(labels[chosen]).tolist() == [4] * 5
    assert len(set(chosen.tolist())) == 20
    with pytest.raises(ValueError, match="has 10 images, asked for 11"):
        balanced_subset(labels, 11, source())
    batches = epoch_batches(20, 6, 2, source())
    assert batches.shape == (6, 6)
    assert len(set(batches[:3].flatten().tolist())) == 18
    small = pooled(torch.full((3, 24, 24), 255, dtype=torch.uint8), 8)
    assert small.shape == (1, 8, 8, 3)
    assert bool((small == 1).all())
    with pytest.raises(ValueError, match="5 does not divide 24"):
        pooled(torch.zeros(1, 24, 24), 5)


def test_crossings_are_interpolated():
    assert first_crossing([7, 14, 21], [0.5, 0.9, 0.95], 0.8) == pytest.approx(7 + 7 * 0.75)
    assert first_crossing([7, 14], [0.85, 0.9], 0.8) == 7
    assert first_crossing([7, 14], [0.5, 0.6], 0.8) is None


@pytest.mark.parametrize("kind", ["muon", "drop"])
def test_training_counts_its_cost_and_learns(kind):
    images, labels = task()
    net = ConvolutionNet((4, 6, 8), (1, 2, 2), 8, source())
    optimiser = {
        "muon": lambda: Muon(net.parameters(), lr=0.05),
        "drop": lambda: DropMuon(list(net.weights), UniformCutoff(4), source(2), lr=0.05),
    }[kind]()
    run = train(
        net, optimiser, images, labels, epoch_batches(60, 20, 20, source(3)), range(3, 61, 3)
    )
    assert run.steps == list(range(3, 61, 3))
    assert run.accuracies[-1] > run.accuracies[0]
    assert run.at_step(6) == run.accuracies[1]
    full = step_cost(net.macs, net.shapes, 20)
    products = [step_cost(net.macs, net.shapes, 0, s) for s in range(4)]
    assert len(run.cutoffs) == 60
    assert run.costs[-1] == sum(step_cost(net.macs, net.shapes, 20, s) for s in run.cutoffs)
    assert run.full_backward_costs[-1] == sum(full - products[0] + products[s] for s in run.cutoffs)
    assert (run.costs == run.full_backward_costs) == (kind == "muon")


def test_skipping_only_the_update_gives_the_same_weights_and_all_gradients():
    images, labels = task()
    nets = [ConvolutionNet((4, 6, 8), (1, 2, 2), 8, source()) for _ in range(2)]
    for net, kind in zip(nets, (DropMuon, SkipOnlyDropMuon), strict=True):
        optimiser = kind(list(net.weights), UniformCutoff(4), source(2), lr=0.05)
        train(net, optimiser, images, labels, epoch_batches(60, 20, 3, source(3)), ())
    for a, b in zip(nets[0].weights, nets[1].weights, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    optimiser.sampler = FixedCutoff(4, 3)
    optimiser.sample_cutoff()
    nets[1](images).sum().backward()
    assert all(w.grad is not None for w in nets[1].weights)


def test_training_stops_at_its_goal_but_not_before_the_least_step():
    images, labels = task()
    net = ConvolutionNet((4, 6, 8), (1, 2, 2), 8, source())
    batches = epoch_batches(60, 20, 20, source(3))
    run = train(net, Muon(net.parameters()), images, labels, batches, range(3, 61, 3), 0.0, 9)
    assert run.steps == [3, 6, 9]


def test_a_fresh_run_is_determined_by_its_streams():
    images, labels = task()
    runs = [
        train_from(
            images, labels, 0.05, sampler, lambda name: source(len(name)), 4, 20, evaluated=(2, 4)
        )
        for sampler in (None, FixedCutoff(4), UniformCutoff(4))
    ]
    assert runs[0] == runs[1]
    assert runs[2].steps == [6, 12]
    assert set(runs[2].cutoffs) != {0}
    short = train_from(
        images, labels, 0.05, None, lambda name: source(len(name)), 4, 20, 0.0, least_epochs=2
    )
    assert short.steps == [3, 6]


def test_smoothness_of_a_quadratic_layer_is_recovered():
    net = ConvolutionNet((4, 6, 8), (1, 2, 2), 8, source()).double()
    before = [w.detach().clone() for w in net.weights]
    curvatures = (1.0, 2.0, 3.0, 4.0)

    def loss(model):
        return sum(c / 2 * w.square().sum() for c, w in zip(curvatures, model.weights, strict=True))

    found = layer_smoothness(net, loss, 1e-2)
    expected = [c * min(shape) for c, shape in zip(curvatures, net.shapes, strict=True)]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(before, net.weights, strict=True))
