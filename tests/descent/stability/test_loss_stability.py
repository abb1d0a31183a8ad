"""Online SGD on Gaussian features: exact recursion against dense second moments, threshold, replicas."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.stability.loss_stability import (
    expected_loss_trajectory,
    gaussian_feature_threshold,
    moment_recursion_step,
    online_replicas,
)
from descent.stability.second_moment import mean_square_stability_threshold


def spectrum_of(seed: int, d: int) -> torch.Tensor:
    return torch.rand(d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.01


def test_recursion_is_the_diagonal_of_the_dense_second_moment():
    spectrum, rate = spectrum_of(0, 5), 0.5
    root = torch.randn(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    dense, gram = root @ root.T, torch.diag(spectrum)
    # E[x x^T S x x^T] = 2 G S G + Tr(G S) G for Gaussian x (Isserlis).
    fourth = 2 * gram @ dense @ gram + (gram @ dense).trace() * gram
    expected = dense - rate * (gram @ dense + dense @ gram) + rate**2 * fourth
    actual = moment_recursion_step(dense.diagonal(), spectrum, torch.tensor(rate).double())
    torch.testing.assert_close(actual, expected.diagonal(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("d", [1, 4, 20])
def test_isotropic_threshold(d):
    threshold = gaussian_feature_threshold(torch.ones(d, dtype=torch.float64))
    assert float(threshold) == pytest.approx(2 / (d + 2), rel=1e-12)


def test_threshold_is_that_of_many_sampled_features():
    spectrum = torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64)
    normal = torch.randn(
        200_000, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    sampled = mean_square_stability_threshold(normal * spectrum.sqrt())
    assert float(gaussian_feature_threshold(spectrum)) == pytest.approx(sampled, rel=2e-2)


def test_recursion_contracts_below_and_expands_above_the_threshold():
    spectrum = spectrum_of(3, 6)
    threshold = gaussian_feature_threshold(spectrum)
    for factor, grows in ((0.98, False), (1.02, True)):
        losses = expected_loss_trajectory(
            spectrum, factor * threshold, torch.ones(6).double(), 3000
        )
        assert bool(losses[-1] > losses[-2]) == grows


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 20), st.floats(0.05, 3.0))
def test_loss_grows_at_least_by_the_squared_frobenius_norm(seed, d, factor):
    spectrum = spectrum_of(seed, d)
    frobenius = torch.linalg.vector_norm(spectrum)
    rate = factor / frobenius
    losses = expected_loss_trajectory(spectrum, rate, torch.ones(d).double(), 20)
    assert (losses[1:] / losses[:-1] >= factor**2 * (1 - 1e-12)).all()
    threshold = gaussian_feature_threshold(spectrum)
    assert threshold * frobenius <= 1 + 1e-12
    assert threshold * spectrum.sum() <= 2 + 1e-12


def test_without_noise_the_recursion_is_gradient_descent():
    spectrum = spectrum_of(4, 3)
    start = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    losses = expected_loss_trajectory(spectrum, torch.tensor(0.5), start, 1, noise=False)
    expected = 0.5 * (spectrum * start * (1 - 0.5 * spectrum).square()).sum()
    assert float(losses[1]) == pytest.approx(float(expected), rel=1e-12)


def test_replicas_of_a_real_step_agree_with_the_recursion():
    spectrum = 1.0 / torch.arange(1, 11, dtype=torch.float64)
    displacement = torch.randn(10, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    mean, error = online_replicas(
        displacement, spectrum, 0.3, 200_000, torch.Generator().manual_seed(6)
    )
    expected = moment_recursion_step(displacement.square(), spectrum, torch.tensor(0.3))
    assert float(((mean - expected) / error).abs().max()) < 4.5


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="positive eigenvalues"):
        gaussian_feature_threshold(torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="at least 2 replicas, got 1"):
        online_replicas(torch.ones(2), torch.ones(2), 0.1, 1, torch.Generator())
