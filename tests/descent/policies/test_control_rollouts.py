"""Batched control tasks against gymnasium's own single environments."""

import gymnasium
import numpy as np
import pytest
import torch

from descent.policies.control_rollouts import CartPole, PendulumBalance


def test_a_batch_of_pendulums_is_many_pendulums():
    task = PendulumBalance(horizon=40, start=0.3)
    theta = torch.tensor([[-2.0, -2.0, 0.0], [0.5, 0.1, 0.2], [0.0, 0.0, -1.0]]).double()
    episodes = task.rollout(theta, torch.Generator().manual_seed(0))
    initial = torch.rand((2, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for row in range(3):
        single = gymnasium.make("Pendulum-v1").unwrapped
        single.reset(seed=0)
        single.state = ((2 * initial - 1) * 0.3).numpy()[:, row]
        for step in range(40):
            angle, velocity = single.state
            seen = episodes.features[row, step].numpy()
            np.testing.assert_allclose(seen, [4 * np.sin(angle), velocity, 1], atol=1e-12)
            _, reward, _, _, _ = single.step(np.array([float(episodes.actions[row, step])]))
            assert float(episodes.rewards[row, step]) == pytest.approx(0.1 * reward, abs=1e-12)


def test_a_batch_of_carts_moves_like_a_single_cart():
    theta = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, -2.0, 0.0]], dtype=torch.float64)
    episodes = CartPole(60).rollout(theta, torch.Generator().manual_seed(1))
    scale = np.array([2.4, 2.0, 0.2, 2.0])
    for row in range(2):
        single = gymnasium.make("CartPole-v1").unwrapped
        single.reset(seed=0)
        length = int(episodes.mask[row].sum())
        single.state = tuple(episodes.features[row, 0].numpy() * scale)
        for step in range(length - 1):
            single.step(int(episodes.actions[row, step]))
            seen = episodes.features[row, step + 1].numpy() * scale
            np.testing.assert_allclose(seen, single.state, atol=2e-5)
        assert float(episodes.returns[row]) == length


@pytest.mark.parametrize("task", [CartPole(30), PendulumBalance(10)])
def test_the_score_of_the_actions_drawn_averages_to_zero(task):
    theta = torch.full((4000, task.dimension), 0.3, dtype=torch.float64, requires_grad=True)
    episodes = task.rollout(theta.detach(), torch.Generator().manual_seed(2))
    (task.log_probability(episodes, theta) * episodes.mask).sum().backward()
    mean, error = theta.grad.mean(0), theta.grad.std(0) / 4000**0.5
    assert bool((mean.abs() < 4 * error).all())


def test_good_controllers_score_well():
    upright = torch.tensor([[0.0, 1.0, 10.0, 10.0]], dtype=torch.float64).expand(20, 4)
    assert CartPole().rollout(upright, torch.Generator().manual_seed(3)).returns.mean() > 190
    balance = torch.tensor([[-3.0, -3.0, 0.0]], dtype=torch.float64).expand(20, 3)
    generator = torch.Generator().manual_seed(4)
    assert PendulumBalance().rollout(balance, generator).returns.mean() > -1


def test_wrong_parameters_are_refused():
    with pytest.raises(ValueError, match=r"theta must be \(n, 4\)"):
        CartPole().rollout(torch.zeros(4), torch.Generator())
    with pytest.raises(ValueError, match=r"theta must be \(n, 3\)"):
        PendulumBalance().rollout(torch.zeros(2, 4), torch.Generator())
    with pytest.raises(ValueError, match="policy_std"):
        PendulumBalance(policy_std=0.0)
