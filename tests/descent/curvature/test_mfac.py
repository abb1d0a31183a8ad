"""The optimiser: one step by hand, the contract of torch.optim, state round trip, failures."""

import copy

import pytest
import torch

from descent.curvature.inverse_fisher import woodbury_solve
from descent.curvature.mfac import MFAC


def parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in ((3, 2), (4,))
    ]


def set_gradients(params, generator):
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64)


def flat(tensors):
    return torch.cat([t.detach().flatten() for t in tensors])


def test_steps_by_hand_with_momentum_and_weight_decay():
    params, generator = parameters(), torch.Generator().manual_seed(1)
    optimiser = MFAC(params, lr=0.1, damp=0.2, window=3, momentum=0.9, weight_decay=0.01)
    rows = torch.zeros(3, 10, dtype=torch.float64)
    weights, velocity = flat(params), torch.zeros(10, dtype=torch.float64)
    for step in range(5):
        set_gradients(params, generator)
        g = flat([p.grad for p in params]) + 0.01 * weights
        rows[step % 3] = g
        velocity = 0.9 * velocity + 0.1 * woodbury_solve(rows, 0.2, g)
        weights = weights - 0.1 * velocity
        optimiser.step()
        torch.testing.assert_close(flat(params), weights)


def test_on_a_fixed_gradient_the_step_is_sherman_morrison():
    params = [torch.zeros(5, dtype=torch.float64, requires_grad=True)]
    params[0].grad = torch.arange(5.0, dtype=torch.float64)
    MFAC(params, lr=1.0, damp=0.5, window=1).step()
    g = torch.arange(5.0, dtype=torch.float64)
    torch.testing.assert_close(params[0].detach(), -g / (0.5 + g.square().sum()))


def test_groups_have_their_own_learning_rate():
    params, generator = parameters(), torch.Generator().manual_seed(1)
    optimiser = MFAC(
        [{"params": [params[0]]}, {"params": [params[1]], "lr": 0.2}], lr=0.1, damp=0.3, window=2
    )
    before = [p.detach().clone() for p in params]
    set_gradients(params, generator)
    g = flat([p.grad for p in params])
    update = woodbury_solve(torch.stack([g, torch.zeros_like(g)]), 0.3, g)
    optimiser.step()
    torch.testing.assert_close(params[0].detach(), before[0] - 0.1 * update[:6].view(3, 2))
    torch.testing.assert_close(params[1].detach(), before[1] - 0.2 * update[6:])


@pytest.mark.parametrize("through_disk", [False, True])
def test_state_dict_round_trip_continues_the_same_trajectory(tmp_path, through_disk):
    params, generator = parameters(), torch.Generator().manual_seed(1)
    optimiser = MFAC(params, lr=0.1, damp=0.2, window=4, momentum=0.5)
    for _ in range(6):
        set_gradients(params, generator)
        optimiser.step()
    others = [p.detach().clone().requires_grad_() for p in params]
    state = copy.deepcopy(optimiser.state_dict())
    if through_disk:
        torch.save(state, tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = MFAC(others, lr=99.0, damp=99.0, window=4)
    resumed.load_state_dict(state)
    for _ in range(3):
        set_gradients(params, generator)
        for p, other in zip(params, others, strict=True):
            other.grad = p.grad.clone()
        optimiser.step()
        resumed.step()
        assert torch.equal(flat(params), flat(others))


def test_closure_returns_its_loss_and_missing_gradients_count_as_zero():
    params = parameters()
    optimiser = MFAC(params, lr=0.01, damp=1.0, window=2)

    def closure():
        optimiser.zero_grad()
        loss = params[0].square().sum()
        loss.backward()
        return loss

    before = params[1].detach().clone()
    first = float(optimiser.step(closure).detach())
    assert float(optimiser.step(closure).detach()) < first
    assert torch.equal(params[1].detach(), before)


def test_it_minimises_an_ill_conditioned_least_squares_problem_faster_than_sgd():
    generator = torch.Generator().manual_seed(0)
    design = torch.randn(50, 8, generator=generator, dtype=torch.float64)
    design *= torch.logspace(0, -1.5, 8, dtype=torch.float64)
    target = design @ torch.ones(8, dtype=torch.float64)

    def run(make):
        w = torch.zeros(8, dtype=torch.float64, requires_grad=True)
        optimiser, order = make([w]), torch.Generator().manual_seed(1)
        for _ in range(200):
            index = torch.randint(50, (8,), generator=order)
            optimiser.zero_grad()
            (design[index] @ w - target[index]).square().mean().backward()
            optimiser.step()
        return float((w.detach() - 1).norm())

    sgd = min(run(lambda p, lr=lr: torch.optim.SGD(p, lr=lr)) for lr in (0.1, 0.2, 0.4))
    assert run(lambda p: MFAC(p, lr=0.01, damp=1e-4, window=32)) < 0.8 * sgd


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "lr must be positive"),
        ({"damp": 0.0}, "damp must be positive"),
        ({"window": 0}, "window must be at least 1"),
        ({"momentum": 1.0}, "momentum must be in"),
        ({"weight_decay": -1.0}, "weight_decay"),
    ],
)
def test_options_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MFAC(parameters(), **options)


def test_mixed_dtypes_late_groups_and_sparse_gradients_are_refused():
    mixed = [torch.zeros(2, requires_grad=True), torch.zeros(2, dtype=torch.float64)]
    with pytest.raises(ValueError, match="one dtype and device"):
        MFAC(mixed)
    params = parameters()
    optimiser = MFAC(params, window=2)
    with pytest.raises(RuntimeError, match="every group at the start"):
        optimiser.add_param_group({"params": parameters(3)})
    params[1].grad = torch.zeros(4, dtype=torch.float64).to_sparse()
    with pytest.raises(RuntimeError, match="dense gradients"):
        optimiser.step()
