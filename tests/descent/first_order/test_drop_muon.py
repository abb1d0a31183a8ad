"""Muon and Drop-Muon: torch's Muon, the special case, frozen layers, the optimiser contract."""

import copy

import pytest
import torch
from torch import nn

from descent.first_order.cutoff_sampling import FixedCutoff, UniformCutoff, WeightedCutoff
from descent.first_order.drop_muon import DropMuon, Muon
from descent.first_order.linear_minimisation import lmo
from descent.first_order.training_cost import counted_multiply_adds


def network(seed=0, bias=False):
    torch.manual_seed(seed)
    layers = [nn.Linear(6, 8, bias=bias), nn.Linear(8, 5, bias=bias), nn.Linear(5, 3, bias=bias)]
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


def groups(model):
    return [list(layer.parameters()) for layer in model if isinstance(layer, nn.Linear)]


def loss_of(model, k):
    inputs = torch.randn(20, 6, generator=torch.Generator().manual_seed(k))
    return (model(inputs) - inputs[:, :3]).square().mean()


def train(model, optimiser, steps=20):
    for k in range(steps):
        if isinstance(optimiser, DropMuon):
            optimiser.sample_cutoff(k / steps)
        else:
            optimiser.zero_grad()
        loss_of(model, k).backward()
        optimiser.step()
    return [p.detach().clone() for p in model.parameters()]


def test_one_exact_step_is_the_oracle_of_the_scaled_gradient():
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    loss_of(model, 0).backward()
    Muon(model.parameters(), lr=0.1, orthogonaliser="svd").step()
    for p, old in zip(model.parameters(), before, strict=True):
        radius = 0.1 * max(1, p.shape[0] / p.shape[1]) ** 0.5
        assert torch.allclose(p, old + lmo(p.grad, radius), atol=1e-6)


def test_same_trajectory_as_torch_up_to_its_bfloat16():
    ours, theirs = network(), network()
    train(ours, Muon(ours.parameters(), lr=0.02, beta=0.1), 10)
    peer = torch.optim.Muon(
        theirs.parameters(), lr=0.02, momentum=0.9, nesterov=False, weight_decay=0.0
    )
    start = [p.detach().clone() for p in network().parameters()]
    for a, b, c in zip(ours.parameters(), train(theirs, peer, 10), start, strict=True):
        assert float((a - b).norm()) < 0.05 * float((a - c).norm())


def test_cutoff_at_the_first_layer_is_muon_bit_by_bit():
    full, dropped = network(), network()
    a = train(full, Muon(full.parameters()))
    b = train(dropped, DropMuon(groups(dropped), FixedCutoff(3)))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_frozen_layers_have_no_gradient_and_keep_weights_and_momenta():
    model = network(bias=True)
    optimiser = DropMuon(groups(model), UniformCutoff(3), torch.Generator().manual_seed(1))
    train(model, optimiser, 3)
    seen = set()
    for k in range(12):
        old = copy.deepcopy([(p.data, optimiser.state[p]) for p in model.parameters()])
        cutoff = optimiser.sample_cutoff()
        seen.add(cutoff)
        loss_of(model, k).backward()
        grads = [p.grad for p in model.parameters()]
        optimiser.step()
        for j, (p, (data, state)) in enumerate(zip(model.parameters(), old, strict=True)):
            frozen = j // 2 < cutoff
            assert (grads[j] is None) == frozen
            assert torch.equal(p.data, data) == frozen
            if "momentum" in state:
                assert torch.equal(optimiser.state[p]["momentum"], state["momentum"]) == frozen
            assert p.requires_grad
    assert seen == {0, 1, 2}


def test_momentum_gives_beta_to_the_new_gradient():
    weight = nn.Parameter(torch.eye(2))
    optimiser = Muon([weight], beta=0.25)
    weight.grad = torch.full((2, 2), 4.0)
    optimiser.step()
    assert torch.allclose(optimiser.state[weight]["momentum"], torch.ones(2, 2))


def test_backward_work_falls_with_the_cutoff():
    counts = []
    for cutoff in range(3):
        model = network()
        optimiser = DropMuon(groups(model), FixedCutoff(3, cutoff))
        optimiser.sample_cutoff()
        counts.append(counted_multiply_adds(lambda m=model: loss_of(m, 0).backward()))
    sizes = [48, 40, 15]
    expected = [20 * (103 + sum(sizes[s:]) + sum(sizes[s + 1 :])) for s in range(3)]
    assert counts == expected


def test_norms_and_shapes_other_than_matrices():
    kernel, vector, scalar = (nn.Parameter(torch.ones(s)) for s in ((4, 2, 3, 3), (5,), ()))
    optimiser = Muon([{"params": [kernel, scalar]}, {"params": [vector], "norm": "linf"}], lr=0.5)
    for p in (kernel, vector, scalar):
        p.grad = -torch.ones_like(p)
    optimiser.step()
    assert torch.allclose(vector, torch.full((5,), 1.5))
    assert float(scalar) > 1.2
    assert bool((kernel > 1).all())


def test_closure_draws_its_own_cutoff_and_returns_the_loss():
    model = network()
    optimiser = DropMuon(groups(model), FixedCutoff(3, 2))
    before = [p.detach().clone() for p in model.parameters()]

    def closure():
        loss = loss_of(model, 0)
        loss.backward()
        return loss

    assert float(optimiser.step(closure)) == pytest.approx(float(loss_of(network(), 0)))
    assert [torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True)] == [
        True,
        True,
        False,
    ]


def test_state_dict_round_trip_continues_the_run():
    model, other = network(), network()
    source = torch.Generator().manual_seed(4)
    optimiser = DropMuon(groups(model), UniformCutoff(3), source, lr=0.05)
    train(model, optimiser, 5)
    other.load_state_dict(model.state_dict())
    resumed = DropMuon(groups(other), UniformCutoff(3), torch.Generator())
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    resumed.generator.set_state(source.get_state())
    for a, b in zip(train(model, optimiser, 5), train(other, resumed, 5), strict=True):
        assert torch.equal(a, b)


def test_refusals():
    model = network()
    for options, message in (
        ({"lr": 0.0}, "lr must be positive"),
        ({"beta": 0.0}, "beta must be in"),
        ({"norm": "nuclear"}, "unknown norm"),
        ({"orthogonaliser": "qr"}, "'newton-schulz' or 'svd', got 'qr'"),
    ):
        with pytest.raises(ValueError, match=message):
            Muon(model.parameters(), **options)
    with pytest.raises(ValueError, match="2 layers, the optimiser 3"):
        DropMuon(groups(model), WeightedCutoff([1.0, 1.0]))
    with pytest.raises(RuntimeError, match="before the forward pass"):
        DropMuon(groups(model), UniformCutoff(3)).step()
