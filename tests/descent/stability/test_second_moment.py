"""Mean-square stability of linearised SGD: enumeration, closed forms, bounds, error messages."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.stability.interpolation_problems import equal_norm_gradients, heavy_tailed_gradients
from descent.stability.second_moment import (
    asymptotic_loss_growth,
    batch_factor,
    gd_stability_threshold,
    gradient_moments,
    mean_square_stability_threshold,
    mean_square_stability_threshold_closed_form,
    second_moment_map,
    trace_bound_threshold,
)


def gradients(seed: int, n: int = 5, p: int = 4) -> torch.Tensor:
    return torch.randn(n, p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def enumerated_step(jacobian, second_moment, learning_rate, batches):
    """Average (I - eta G_I) S (I - eta G_I) over an explicit list of equally likely batches."""
    total = torch.zeros_like(second_moment)
    for batch in batches:
        rows = jacobian[list(batch)]
        update = torch.eye(jacobian.shape[1]).double() - learning_rate * rows.T @ rows / len(batch)
        total += update @ second_moment @ update.T
    return total / len(batches)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("replacement", [True, False])
def test_map_equals_enumeration_of_every_batch(batch, replacement):
    jacobian = gradients(0)
    root = gradients(1, 4, 4)
    second_moment = root @ root.T
    if replacement:
        batches = list(itertools.product(range(5), repeat=batch))
    else:
        batches = list(itertools.combinations(range(5), batch))
    expected = enumerated_step(jacobian, second_moment, 0.3, batches)
    actual = second_moment_map(jacobian, 0.3, batch, replacement)(second_moment)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_full_batch_without_replacement_is_gradient_descent():
    jacobian = gradients(2)
    assert batch_factor(5, 5, replacement=False) == 0.0
    threshold = mean_square_stability_threshold(jacobian, 5, replacement=False)
    assert threshold == pytest.approx(gd_stability_threshold(jacobian), rel=1e-9)


def test_single_sample_population_has_no_noise_at_all():
    assert batch_factor(1, 1, replacement=False) == 0.0


@pytest.mark.parametrize("batch", [2, 8])
def test_batches_are_a_mixture_of_full_and_single_steps(batch):
    """T_B = (1 - 1/B) T_full + (1/B) T_single (Mulayoff and Michaeli)."""
    jacobian, rate = gradients(3), 0.2
    root = gradients(4, 4, 4)
    second_moment = root @ root.T
    single = second_moment_map(jacobian, rate, 1)(second_moment)
    full = second_moment_map(jacobian, rate, 5, replacement=False)(second_moment)
    mixed = (1 - 1 / batch) * full + single / batch
    actual = second_moment_map(jacobian, rate, batch)(second_moment)
    torch.testing.assert_close(actual, mixed, rtol=1e-12, atol=1e-12)


def test_equal_norms_make_the_trace_bound_tight():
    for jacobian in heavy_tailed_gradients(20, torch.Generator().manual_seed(0)):
        jacobian = 1.7 * equal_norm_gradients(jacobian)
        threshold = mean_square_stability_threshold(jacobian)
        assert threshold == pytest.approx(2 / 1.7**2, rel=1e-9)
        assert threshold == pytest.approx(trace_bound_threshold(jacobian), rel=1e-9)


def test_orthogonal_gradients_are_limited_by_the_longest():
    jacobian = torch.diag(torch.arange(1.0, 7.0, dtype=torch.float64))
    assert mean_square_stability_threshold(jacobian) == pytest.approx(2 / 36, rel=1e-9)


def test_one_sample_is_gradient_descent():
    jacobian = gradients(5, 1, 6)
    expected = 2 / float(jacobian.square().sum())
    assert mean_square_stability_threshold(jacobian) == pytest.approx(expected, rel=1e-9)
    assert gd_stability_threshold(jacobian) == pytest.approx(expected, rel=1e-9)


def test_isotropic_gaussian_features_tend_to_two_over_d_plus_two():
    jacobian = torch.randn(
        200_000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    assert mean_square_stability_threshold(jacobian) == pytest.approx(2 / 5, rel=2e-2)


@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize("replacement", [True, False])
def test_bisection_agrees_with_the_closed_form(batch, replacement):
    for jacobian in heavy_tailed_gradients(8, torch.Generator().manual_seed(7)):
        jacobian = torch.cat([jacobian, jacobian.flip(1) * 0.7, jacobian.roll(1, 1)])
        bisected = mean_square_stability_threshold(jacobian, batch, replacement)
        closed = mean_square_stability_threshold_closed_form(jacobian, batch, replacement)
        assert bisected == pytest.approx(closed, rel=1e-9)


def test_threshold_separates_decay_from_growth():
    jacobian = gradients(6, 6, 4)
    threshold = mean_square_stability_threshold(jacobian, 2)
    assert asymptotic_loss_growth(jacobian, 0.97 * threshold, 2) < 1
    assert asymptotic_loss_growth(jacobian, 1.03 * threshold, 2) > 1


def test_loss_growth_is_that_of_the_iterated_map():
    jacobian = gradients(6, 6, 4)
    gram = jacobian.T @ jacobian / 6
    step = second_moment_map(jacobian, 0.1, 2)
    second_moment, losses = torch.eye(4).double(), []
    for _ in range(20):
        second_moment = step(second_moment)
        losses.append(float((gram * second_moment).sum()))
    growth = asymptotic_loss_growth(jacobian, 0.1, 2, steps=20)
    assert growth == pytest.approx(losses[-1] / losses[-2], rel=1e-10)


def test_null_space_is_ignored():
    jacobian = gradients(8, 4, 3)
    padded = torch.cat([jacobian, torch.zeros(4, 5).double()], dim=1)
    assert mean_square_stability_threshold(padded) == pytest.approx(
        mean_square_stability_threshold(jacobian)
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 7), st.integers(1, 7), st.sampled_from([1, 2, 5, 8]))
def test_bounds_hold_for_any_gradients(seed, n, p, batch):
    jacobian = gradients(seed, n, p)
    moments = gradient_moments(jacobian)
    threshold = mean_square_stability_threshold(jacobian, batch)
    assert threshold <= trace_bound_threshold(jacobian, batch) * (1 + 1e-9)
    assert threshold * moments["trace"] <= 2 * batch * (1 + 1e-9)
    assert threshold <= gd_stability_threshold(jacobian) * (1 + 1e-9)
    assert threshold <= mean_square_stability_threshold(jacobian, batch + 1) * (1 + 1e-9)
    assert moments["largest"] <= moments["frobenius"] * (1 + 1e-12)
    assert moments["frobenius"] <= moments["trace"] * (1 + 1e-12)
    assert moments["trace"] <= math.sqrt(min(n, p)) * moments["frobenius"] * (1 + 1e-12)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.01, 100.0))
def test_threshold_scales_like_one_over_squared_gradient(scale):
    jacobian = gradients(9)
    expected = mean_square_stability_threshold(jacobian) / scale**2
    assert mean_square_stability_threshold(scale * jacobian) == pytest.approx(expected, rel=1e-9)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        batch_factor(0, 4)
    with pytest.raises(ValueError, match="batch of 5 cannot be drawn without replacement from 4"):
        batch_factor(5, 4, replacement=False)
    with pytest.raises(ValueError, match=r"shape \(n, p\), got \(3,\)"):
        gradient_moments(torch.ones(3))
    with pytest.raises(ValueError, match="gradients are zero"):
        mean_square_stability_threshold(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="steps must be at least 1"):
        asymptotic_loss_growth(torch.ones(3, 2), 0.1, steps=0)
    with pytest.raises(TypeError, match="floating-point"):
        second_moment_map(torch.ones(3, 2, dtype=torch.int64), 0.1)
