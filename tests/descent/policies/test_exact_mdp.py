"""Exact MDP: closed forms, simulation, finite differences, brute force, error messages."""

import itertools

import pytest
import torch

from descent.policies.exact_mdp import ExactMDP
from descent.policies.log_linear_policy import LogLinearPolicy


def random_mdp(seed=0, states=4, actions=3, discount=0.9, dimension=5):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    transitions = draw(states, actions, states)
    start = draw(states)
    mdp = ExactMDP(
        transitions / transitions.sum(-1, keepdim=True),
        draw(states, actions),
        discount,
        start / start.sum(),
    )
    features = torch.randn(states, actions, dimension, generator=generator, dtype=torch.float64)
    theta = torch.randn(7, dimension, generator=generator, dtype=torch.float64)
    return mdp, LogLinearPolicy(features), theta


def test_one_state_has_the_geometric_series():
    mdp = ExactMDP(torch.ones(1, 2, 1), torch.tensor([[1.0, 3.0]]), 0.75)
    policy = torch.tensor([[0.5, 0.5]])
    assert float(mdp.objective(policy)) == pytest.approx(2 / 0.25)
    assert mdp.advantage(policy).flatten().tolist() == pytest.approx([-1.0, 1.0])
    assert float(mdp.optimum().objective) == pytest.approx(3 / 0.25)


def test_bellman_equation_occupancy_and_mean_advantage():
    mdp, policy, theta = random_mdp()
    table = policy.probabilities(theta)
    value, quality = mdp.value(table), mdp.action_value(table)
    torch.testing.assert_close((table * quality).sum(-1), value)
    occupancy = mdp.occupancy(table)
    torch.testing.assert_close(occupancy.sum(-1), torch.ones(7, dtype=torch.float64))
    # J is the mean reward under the occupancy
    mean = (occupancy.unsqueeze(-1) * table * mdp.rewards).sum((-2, -1)) / (1 - mdp.discount)
    torch.testing.assert_close(mean, mdp.objective(table))
    torch.testing.assert_close((table * mdp.advantage(table)).sum(-1), torch.zeros_like(value))


def test_occupancy_is_the_discounted_sum_of_state_distributions():
    mdp, policy, theta = random_mdp(1)
    table = policy.probabilities(theta[0])
    kernel = torch.einsum("sa,sat->st", table, mdp.transitions)
    state, total = mdp.start.clone(), torch.zeros_like(mdp.start)
    for step in range(600):
        total += (1 - mdp.discount) * mdp.discount**step * state
        state = state @ kernel
    torch.testing.assert_close(mdp.occupancy(table), total)


def test_performance_difference_lemma():
    mdp, policy, theta = random_mdp(2)
    old, new = policy.probabilities(theta[0]), policy.probabilities(theta[1])
    weight = mdp.occupancy(new).unsqueeze(-1) * new
    expected = (weight * mdp.advantage(old)).sum() / (1 - mdp.discount)
    torch.testing.assert_close(mdp.objective(new) - mdp.objective(old), expected)


@pytest.mark.parametrize("seed", range(3))
def test_policy_iteration_finds_the_best_of_all_deterministic_policies(seed):
    mdp, _, _ = random_mdp(seed)
    best = max(
        float(
            mdp.objective(torch.nn.functional.one_hot(torch.tensor(choice), mdp.actions).double())
        )
        for choice in itertools.product(range(mdp.actions), repeat=mdp.states)
    )
    assert float(mdp.optimum().objective) == pytest.approx(best, abs=1e-12)


def test_gradient_and_hessian_are_those_of_the_objective():
    mdp, policy, theta = random_mdp(3)

    def objective(t):
        return mdp.objective(policy.probabilities(t))

    for t in theta[:3]:
        torch.testing.assert_close(mdp.gradient(policy, t), torch.func.grad(objective)(t))
    hessian, step = mdp.hessian(policy, theta[0]), 1e-5
    for k, unit in enumerate(torch.eye(5, dtype=torch.float64)):
        forward, backward = (mdp.gradient(policy, theta[0] + s * step * unit) for s in (1, -1))
        torch.testing.assert_close(
            (forward - backward) / (2 * step), hessian[k], rtol=1e-6, atol=1e-8
        )
    torch.testing.assert_close(mdp.gradient(policy, theta)[2], mdp.gradient(policy, theta[2]))


def test_fisher_is_minus_the_expected_curvature_of_the_log_probability():
    mdp, policy, theta = random_mdp(4)
    t = theta[0]
    table = policy.probabilities(t)
    weight = mdp.occupancy(table).unsqueeze(-1) * table
    curvature = torch.func.hessian(lambda x: (weight * policy.log_probabilities(x)).sum())(t)
    torch.testing.assert_close(mdp.fisher(policy, t), -curvature)


def test_bad_tables_are_refused():
    with pytest.raises(ValueError, match=r"transitions must be \(S, A, S\)"):
        ExactMDP(torch.ones(2, 2, 3), torch.ones(2, 2), 0.9)
    with pytest.raises(ValueError, match="sum to 1"):
        ExactMDP(torch.ones(2, 2, 2), torch.ones(2, 2), 0.9)
    with pytest.raises(ValueError, match="discount"):
        ExactMDP(torch.ones(1, 2, 1), torch.ones(1, 2), 1.0)
    with pytest.raises(ValueError, match="start"):
        ExactMDP(torch.ones(1, 2, 1), torch.ones(1, 2), 0.9, torch.ones(2))
    mdp = ExactMDP(torch.ones(1, 2, 1), torch.ones(1, 2), 0.9)
    with pytest.raises(ValueError, match="a policy must be"):
        mdp.value(torch.ones(2, 2))
