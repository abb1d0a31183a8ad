"""Problems: gradients by autograd, conjugates, minimisers, and scikit-learn as a peer."""

import pytest
import torch
from sklearn.linear_model import LinearRegression

from descent.first_order.decentralized_problems import (
    LogisticSum,
    QuadraticSum,
    random_classification,
    random_regression,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def test_least_squares_against_autograd_and_scikit_learn():
    features, targets = draw(2, 3, 20, 4), draw(2, 3, 20, seed=1)
    objective = QuadraticSum.least_squares(features, targets)
    point = draw(6, 4, seed=2).requires_grad_()
    loss = ((features.flatten(0, 1) @ point[..., None])[..., 0] - targets.flatten(0, 1)).square().mean(1)  # fmt: skip
    (expected,) = torch.autograd.grad(loss.sum(), point)
    torch.testing.assert_close(objective.gradient(torch.arange(6), point.detach()), expected)
    peer = LinearRegression(fit_intercept=False).fit(
        features[1].flatten(0, 1), targets[1].flatten()
    )
    torch.testing.assert_close(objective.minimiser[1], torch.from_numpy(peer.coef_))


def test_dual_gradient_inverts_the_gradient():
    objective = random_regression(2, 3, 20, 2, generator())
    nodes, point = torch.tensor([5, 0]), draw(2, 2)
    torch.testing.assert_close(
        objective.dual_gradient(nodes, objective.gradient(nodes, point)), point
    )


def test_logistic_against_autograd_and_a_zero_slope():
    objective = random_classification(2, 3, 40, 3, 0.5, generator())
    nodes = torch.arange(6)
    spread = objective.minimiser.repeat_interleave(3, 0)
    slope = objective.gradient(nodes, spread).unflatten(0, (2, 3)).sum(1)
    assert float(slope.abs().max()) < 1e-13
    features, labels = draw(1, 1, 10, 2), torch.ones(1, 1, 10).double()
    small = LogisticSum(features, labels, 0.3)
    point = draw(1, 2, seed=4).requires_grad_()
    loss = (
        torch.nn.functional.softplus(-(features[0, 0] @ point[0])).mean()
        + 0.15 * point.square().sum()
    )
    (expected,) = torch.autograd.grad(loss, point)
    torch.testing.assert_close(small.gradient(torch.tensor([0]), point.detach()), expected)


def test_logistic_curvature_is_within_its_bounds():
    objective = random_classification(1, 4, 40, 3, 0.5, generator(3))
    nodes, a, b = torch.arange(4), draw(4, 3, seed=1), draw(4, 3, seed=2)
    gap = objective.gradient(nodes, a) - objective.gradient(nodes, b)
    slope = (gap * (a - b)).sum(1) / (a - b).square().sum(1)
    assert bool((slope >= objective.mu - 1e-12).all())
    assert bool((slope <= objective.smoothness + 1e-12).all())


def test_moving_and_repeating_keep_the_functions():
    objective = random_regression(2, 3, 20, 2, generator())
    torch.testing.assert_close(objective.repeated(2).minimiser, objective.minimiser.repeat(2, 1))
    torch.testing.assert_close(objective.to("cpu").minimiser, objective.minimiser)
    logistic = random_classification(1, 2, 20, 2, 1.0, generator())
    torch.testing.assert_close(logistic.to("cpu").minimiser, logistic.minimiser)


def test_wrong_problems_are_told():
    with pytest.raises(ValueError, match="do not match"):
        QuadraticSum(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 2))
    with pytest.raises(ValueError, match="strongly convex"):
        QuadraticSum(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="ridge must be positive"):
        LogisticSum(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2), 0.0)
