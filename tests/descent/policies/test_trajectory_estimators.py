"""Unbiasedness of gradient and Hessian estimates, exactly, over all trajectories of a small MDP."""

import numpy as np
import pytest
import torch

from descent.policies.trajectory_enumeration import EnumeratedTrajectories
from descent.policies.trajectory_estimators import (
    gpomdp_gradient,
    policy_hessian_vector,
    rewards_to_go,
)
from tests.descent.policies.test_exact_mdp import random_mdp

DISCOUNT = 0.8


def small(seed=0, horizon=3):
    mdp, policy, theta = random_mdp(seed, states=2, actions=2, discount=DISCOUNT, dimension=3)
    return EnumeratedTrajectories(mdp, policy, horizon), theta[0]


def mean_hessian(paths, theta, score_weight=1.0):
    weights = rewards_to_go(paths.rewards, DISCOUNT)
    columns = [
        paths.expectation(
            theta,
            lambda t, u=u: policy_hessian_vector(
                paths.log_probability, t, weights, u.expand(t.shape), score_weight=score_weight
            ),
        )
        for u in torch.eye(len(theta), dtype=theta.dtype)
    ]
    return torch.stack(columns, -1)


def test_rewards_to_go_by_hand():
    rewards = torch.tensor([1.0, 2.0, 4.0])
    assert rewards_to_go(rewards, 0.5).tolist() == [3.0, 2.0, 1.0]
    assert rewards_to_go(rewards, 0.5, restart=True).tolist() == [3.0, 4.0, 4.0]
    with pytest.raises(ValueError, match="discount"):
        rewards_to_go(rewards, 1.5)


def test_all_trajectories_are_there_and_their_mean_return_is_the_objective():
    paths, theta = small()
    assert len(paths.states) == 4**3
    probability = paths.probability(theta)
    assert float(probability.sum()) == pytest.approx(1)
    returns = rewards_to_go(paths.rewards, DISCOUNT)[:, 0]
    assert float(probability @ returns) == pytest.approx(float(paths.truncated_objective(theta)))


@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_estimate_is_unbiased_and_restarting_the_discount_is_not(seed):
    paths, theta = small(seed)
    exact = torch.func.grad(paths.truncated_objective)(theta)
    for restart in (False, True):
        weights = rewards_to_go(paths.rewards, DISCOUNT, restart=restart)
        mean = paths.expectation(
            theta, lambda t, w=weights: gpomdp_gradient(paths.log_probability, t, w)
        )
        error = float((mean - exact).abs().max())
        assert error > 1e-3 if restart else error < 1e-14


@pytest.mark.parametrize("seed", range(4))
def test_the_hessian_estimate_is_unbiased_only_with_its_score_term_and_its_sign(seed):
    paths, theta = small(seed)
    exact = torch.func.hessian(paths.truncated_objective)(theta)
    assert float((mean_hessian(paths, theta) - exact).abs().max()) < 1e-13
    for wrong in (-1.0, 0.0):
        assert float((mean_hessian(paths, theta, wrong) - exact).abs().max()) > 1e-2


def test_the_mean_over_the_segment_is_the_difference_of_gradients():
    paths, theta = small(5)
    step = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    weights = rewards_to_go(paths.rewards, DISCOUNT)
    nodes, shares = np.polynomial.legendre.leggauss(12)
    total = sum(
        share
        / 2
        * paths.expectation(
            theta + (1 + node) / 2 * step,
            lambda t: policy_hessian_vector(
                paths.log_probability, t, weights, step.expand(t.shape)
            ),
        )
        for node, share in zip(nodes, shares, strict=True)
    )
    gradient = torch.func.grad(paths.truncated_objective)
    torch.testing.assert_close(total, gradient(theta + step) - gradient(theta))


def test_a_constant_baseline_changes_no_mean():
    paths, theta = small(6)
    plain = rewards_to_go(paths.rewards, DISCOUNT)
    shifted = plain - 0.7
    exact = torch.func.hessian(paths.truncated_objective)(theta)
    u = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)

    def estimate(t):
        return policy_hessian_vector(paths.log_probability, t, shifted, u.expand(t.shape))

    torch.testing.assert_close(paths.expectation(theta, estimate), exact @ u)


def test_steps_after_the_end_do_not_count():
    features = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).double()
    mask = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.float64)
    theta = torch.zeros(2, 3, dtype=torch.float64)
    weights, vector = mask * 0.3, torch.ones(2, 3, dtype=torch.float64)

    def log_probability(t, kept=5):
        return torch.nn.functional.logsigmoid((features[:, :kept] @ t.unsqueeze(-1)).squeeze(-1))

    padded = policy_hessian_vector(log_probability, theta, weights, vector, mask=mask)[0]
    cut = policy_hessian_vector(lambda t: log_probability(t, 3), theta, weights[:, :3], vector)[0]
    torch.testing.assert_close(padded, cut)


def test_impossible_enumerations_are_refused():
    mdp, policy, _ = random_mdp()
    with pytest.raises(ValueError, match="horizon"):
        EnumeratedTrajectories(mdp, policy, 0)
    with pytest.raises(ValueError, match="too many"):
        EnumeratedTrajectories(mdp, policy, 8)
