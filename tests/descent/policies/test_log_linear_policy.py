"""Log-linear policies: scores, the gauge of the tabular softmax, error messages."""

import pytest
import torch

from descent.policies.log_linear_policy import LogLinearPolicy


def test_scores_are_gradients_of_log_probabilities_and_average_to_zero():
    generator = torch.Generator().manual_seed(0)
    policy = LogLinearPolicy(torch.randn(3, 4, 5, generator=generator, dtype=torch.float64))
    theta = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    for t, score in zip(theta, policy.score(theta), strict=True):
        torch.testing.assert_close(score, torch.func.jacrev(policy.log_probabilities)(t))
    mean = (policy.probabilities(theta).unsqueeze(-1) * policy.score(theta)).sum(-2)
    torch.testing.assert_close(mean, torch.zeros_like(mean))


def test_the_tabular_softmax_ignores_a_constant_in_a_state():
    policy = LogLinearPolicy.tabular(3, 2)
    theta = torch.arange(6.0, dtype=torch.float64)
    shift = torch.tensor([5.0, 5.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(policy.probabilities(theta), policy.probabilities(theta + shift))


def test_bad_features_and_parameters_are_refused():
    with pytest.raises(ValueError, match="features must be"):
        LogLinearPolicy(torch.ones(3, 2))
    with pytest.raises(ValueError, match="finite"):
        LogLinearPolicy(torch.full((1, 1, 1), torch.nan))
    with pytest.raises(ValueError, match="theta must end in 4"):
        LogLinearPolicy.tabular(2, 2).probabilities(torch.zeros(3, dtype=torch.float64))
