"""Divergences under a tilt: which one the cumulant gap is, both bounds, sharp constants."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.stability.exponential_tilt import (
    cumulant_gap,
    extremal_bernoulli,
    forward_divergence,
    kl_remainder_bound,
    quadratic_model,
    reverse_divergence,
    third_central_moment,
)
from descent.stability.step_radius import logit_spread


def draw(n, seed, count=200):
    generator = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(count, n, generator=generator, dtype=torch.float64)
    a = torch.randn(count, n, generator=generator, dtype=torch.float64)
    t = 10 ** (3 * torch.rand(count, generator=generator, dtype=torch.float64) - 2)
    return z, a, t / logit_spread(a)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(2, 8), seed=st.integers(0, 10_000))
def test_both_remainders_and_the_third_moment_are_bounded(n, seed):
    z, a, t = draw(n, seed)
    model = quadratic_model(z, a, t)
    for name, divergence in (("forward", forward_divergence), ("reverse", reverse_divergence)):
        slack = (divergence(z, a, t) - model).abs() - kl_remainder_bound(a, t, name)
        assert float(slack.max()) <= 1e-13
    bound = logit_spread(a) ** 3 / (6 * math.sqrt(3))
    assert bool((third_central_moment(z, a).abs() <= bound * (1 + 1e-12)).all())


def test_the_cumulant_gap_is_the_reverse_divergence():
    z, a, t = draw(4, 0)
    torch.testing.assert_close(
        cumulant_gap(z, a, t), reverse_divergence(z, a, t), rtol=1e-7, atol=1e-13
    )
    assert float((cumulant_gap(z, a, t) - forward_divergence(z, a, t)).abs().max()) > 0.1


def test_forward_divergence_is_the_integral_of_s_times_the_variance():
    z, a, _ = draw(5, 1, count=1)
    s = torch.linspace(0, 2, 20_001, dtype=torch.float64)
    variance = 2 * quadratic_model(z + s[:, None] * a, a.expand(len(s), -1), torch.ones_like(s))
    integral = torch.trapezoid(s * variance, s)
    torch.testing.assert_close(forward_divergence(z, a, s[-1:])[0], integral, rtol=1e-7, atol=1e-9)


def test_the_constants_are_sharp_for_the_extremal_law():
    z, a = extremal_bernoulli()
    t = torch.tensor(1e-2, dtype=torch.float64)
    assert float(third_central_moment(z, a)) == pytest.approx(1 / (6 * math.sqrt(3)))
    for name, divergence in (("forward", forward_divergence), ("reverse", reverse_divergence)):
        remainder = (divergence(z, a, t) - quadratic_model(z, a, t)).abs()
        assert 0.99 < float(remainder / kl_remainder_bound(a, t, name)) <= 1


def test_half_the_forward_constant_is_violated():
    z, a = extremal_bernoulli()
    t = torch.tensor(1e-2, dtype=torch.float64)
    remainder = (forward_divergence(z, a, t) - quadratic_model(z, a, t)).abs()
    assert float(remainder / kl_remainder_bound(a, t, "reverse")) > 1.9


def test_wrong_arguments_are_told():
    z, a, t = draw(3, 0)
    with pytest.raises(ValueError, match="'forward' or 'reverse', got 'both'"):
        kl_remainder_bound(a, t, "both")
    with pytest.raises(ValueError, match="share a shape"):
        forward_divergence(z, a[:, :2], t)
