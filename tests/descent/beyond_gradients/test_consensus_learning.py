"""The logistic problem: gradient of the loss, whitening, and what happens with a perfect separator."""

import pytest
import torch

from descent.beyond_gradients.consensus_learning import whitened_halves


def make(penalty=0.02):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 6, generator=generator, dtype=torch.float64)
    labels = (inputs[:, 0] > 0).long()
    return whitened_halves(
        inputs, labels, splits=3, components=4, penalty=penalty, generator=generator
    )


def test_training_inputs_are_white_and_end_with_a_constant():
    problem = make()
    assert problem.train_inputs.shape == (3, 30, 5)
    assert problem.test_inputs.shape == (3, 30, 5)
    white = problem.train_inputs[..., :-1]
    covariance = white.mT @ white / 29
    torch.testing.assert_close(covariance, torch.eye(4, dtype=torch.float64).expand(3, 4, 4))
    assert bool((problem.train_inputs[..., -1] == 1).all())


def test_gradient_is_that_of_autograd():
    problem = make()
    weights = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights.requires_grad_(True)
    (exact,) = torch.autograd.grad(problem.loss(weights.unsqueeze(-2)).sum(), weights)
    torch.testing.assert_close(problem.gradient(weights.detach()), exact)


def test_zero_weights_have_loss_log_two():
    loss = make().loss(torch.zeros(3, 7, 5, dtype=torch.float64))
    torch.testing.assert_close(loss, torch.full((3, 7), 2.0, dtype=torch.float64).log())


def test_accuracy_counts_signs():
    problem = make()
    weights = torch.zeros(3, 5, dtype=torch.float64)
    weights[:, -1] = 1
    share = (problem.test_labels > 0).double().mean(-1)
    torch.testing.assert_close(problem.accuracy(weights), share)
    torch.testing.assert_close(problem.accuracy(-weights), 1 - share)


def test_too_many_components_are_told():
    with pytest.raises(ValueError, match="components must be at most 2, got 3"):
        whitened_halves(
            torch.zeros(8, 2), torch.zeros(8), splits=1, components=3, penalty=0.0,
            generator=torch.Generator(),
        )  # fmt: skip
