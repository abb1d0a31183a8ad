"""The Gaussian bandit: closed forms against quadrature, autograd and the general estimators."""

import numpy as np
import pytest
import torch

from descent.policies.gaussian_bandit import BanditDraw, GaussianBandit
from descent.policies.trajectory_estimators import gpomdp_gradient, policy_hessian_vector

THETA = torch.tensor([-0.2, 0.4, 1.7], dtype=torch.float64)


def bandit(**options):
    contexts = torch.from_numpy(np.random.default_rng(7).standard_normal((8, 3)))
    return GaussianBandit(contexts, torch.ones(3, dtype=torch.float64), **options)


def quadrature(problem, function):
    """Exact mean over contexts and Gauss-Hermite nodes of the action noise."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    total = 0.0
    for context in problem.contexts:
        for node, weight in zip(nodes, weights / np.sqrt(2 * np.pi), strict=True):
            draw = BanditDraw(context, torch.tensor([node], dtype=torch.float64))
            total = total + weight * function(draw) / len(problem.contexts)
    return total


def test_values_of_the_trial():
    problem = bandit()
    assert problem.optimum() == pytest.approx(0.970143, abs=1e-6)
    start = torch.full((3,), -0.2, dtype=torch.float64)
    assert float(problem.objective(start)) == pytest.approx(0.696183, abs=1e-6)
    assert float(problem.objective(problem.target)) == pytest.approx(problem.optimum())


def test_objective_and_gradient_in_closed_form():
    problem = bandit()
    mean = quadrature(problem, lambda d: problem.reward(THETA, d))
    torch.testing.assert_close(mean[0], problem.objective(THETA))
    torch.testing.assert_close(
        problem.gradient(THETA), torch.func.grad(lambda t: problem.objective(t))(THETA)
    )


@pytest.mark.parametrize("baseline", [False, True])
def test_estimates_are_unbiased(baseline):
    problem = bandit(baseline=baseline)
    u = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    hessian = torch.func.hessian(lambda t: bandit().objective(t))(THETA)
    torch.testing.assert_close(
        quadrature(problem, lambda d: problem.estimate_gradient(THETA, d)), problem.gradient(THETA)
    )
    torch.testing.assert_close(
        quadrature(problem, lambda d: problem.estimate_hessian_vector(THETA, d, u)), hessian @ u
    )
    if not baseline:
        wrong = quadrature(problem, lambda d: problem.estimate_hessian_vector(THETA, d, u, -1.0))
        assert float((wrong - hessian @ u).norm()) > 1e-2


def test_closed_forms_are_those_of_the_general_estimators():
    problem, generator = bandit(), torch.Generator().manual_seed(0)
    theta = THETA.expand(5, 3) + torch.arange(5.0, dtype=torch.float64)[:, None] / 7
    draw, u = problem.draw((5,), generator), torch.ones(5, 3, dtype=torch.float64)
    action = (theta * draw.context).sum(-1, keepdim=True) + 0.5 * draw.action_noise
    weights = problem.reward(theta, draw)

    def log_probability(t):
        return -0.5 * ((action - (t * draw.context).sum(-1, keepdim=True)) / 0.5).square()

    torch.testing.assert_close(
        gpomdp_gradient(log_probability, theta, weights), problem.estimate_gradient(theta, draw)
    )
    for weight in (1.0, -1.0, 0.0):
        torch.testing.assert_close(
            policy_hessian_vector(log_probability, theta, weights, u, score_weight=weight),
            problem.estimate_hessian_vector(theta, draw, u, weight),
        )


def test_fisher_is_the_mean_square_of_the_score():
    problem = bandit()
    mean = quadrature(problem, lambda d: torch.outer(problem.score(d), problem.score(d)))
    torch.testing.assert_close(mean, problem.fisher())


def test_reward_noise_has_its_size_and_no_mean():
    problem, generator = bandit(reward_noise=3.0), torch.Generator().manual_seed(0)
    draw = problem.draw((20_000,), generator)
    theta = THETA.expand(20_000, 3)
    noise = problem.reward(theta, draw) - bandit().reward(theta, draw)
    assert float(noise.std()) == pytest.approx(3, rel=0.03)
    assert abs(float(noise.mean())) < 0.1


def test_bad_shapes_and_lengths_are_refused():
    with pytest.raises(ValueError, match="contexts must be"):
        GaussianBandit(torch.ones(3), torch.ones(3))
    with pytest.raises(ValueError, match="policy_std"):
        bandit(policy_std=0.0)
    with pytest.raises(ValueError, match="reward_width"):
        bandit(reward_width=-1.0)
