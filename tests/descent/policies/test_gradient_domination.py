"""Gradient domination: it holds, both terms are needed, and degenerate policies are refused."""

import pytest
import torch

from descent.policies.gradient_domination import fisher_lower_bound, gradient_domination
from descent.policies.log_linear_policy import LogLinearPolicy
from tests.descent.policies.test_exact_mdp import random_mdp


@pytest.mark.parametrize("dimension", [6, 1])
@pytest.mark.parametrize("seed", range(5))
def test_the_bound_holds(seed, dimension):
    mdp, policy, _ = random_mdp(seed, 5, 3, 0.9, dimension)
    theta = torch.randn(60, dimension, generator=torch.Generator().manual_seed(seed)).double()
    sides = gradient_domination(mdp, policy, theta)
    assert bool((sides.gap >= -1e-12).all())
    assert bool((sides.bound >= sides.gap).all())


def test_with_one_feature_the_gradient_alone_is_not_enough():
    mdp, policy, _ = random_mdp(0, 5, 3, 0.9, 1)
    theta = torch.linspace(-3, 3, 60, dtype=torch.float64)[:, None]
    sides = gradient_domination(mdp, policy, theta)
    assert int((sides.gradient_term < sides.gap).sum()) > 10


def test_with_features_that_span_all_advantages_the_bias_vanishes():
    mdp, _, _ = random_mdp(1, 3, 2)
    features = torch.zeros(3, 2, 3, dtype=torch.float64)  # the gauge is fixed: action 0 has logit 0
    features[:, 1] = torch.eye(3, dtype=torch.float64)
    sides = gradient_domination(mdp, LogLinearPolicy(features), torch.ones(3, dtype=torch.float64))
    assert float(sides.bias_term) < 1e-6


def test_a_tabular_softmax_is_refused():
    mdp, _, _ = random_mdp(0, 3, 2)
    policy = LogLinearPolicy.tabular(3, 2)
    theta = torch.zeros(6, dtype=torch.float64)
    assert float(fisher_lower_bound(mdp.fisher(policy, theta))) == pytest.approx(0, abs=1e-15)
    with pytest.raises(ValueError, match="Fisher-degenerate"):
        gradient_domination(mdp, policy, theta)
