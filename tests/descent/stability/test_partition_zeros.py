"""Zeros of the partition function: closed forms, the lower bound, mpmath as peer, the Taylor series."""

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.stability.partition_zeros import (
    count_zeros,
    has_zero_inside,
    nearest_zero,
    partition_taylor,
    radius_binary,
    scaled_partition,
    taylor_errors,
    zeros_in_disc,
)


def draw(n, count=1, scale=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = scale * torch.randn(count, n, generator=generator, dtype=torch.float64)
    return z, torch.randn(count, n, generator=generator, dtype=torch.float64)


@settings(max_examples=30, deadline=None)
@given(margin=st.floats(-30, 30), exponent=st.floats(-4, 4), shift=st.floats(-5, 5))
def test_two_classes_have_the_closed_form(margin, exponent, shift):
    spread = 10**exponent
    logits = torch.tensor([margin, 0.0], dtype=torch.float64)
    # a shift of the slopes costs digits of their difference: it is added in the spread's own unit
    slopes = spread * torch.tensor([shift, shift + 1.0], dtype=torch.float64)
    exact = radius_binary(torch.tensor(margin, dtype=torch.float64), slopes[1] - slopes[0])
    assert abs(float(nearest_zero(logits, slopes).abs() / exact) - 1) < 1e-9
    assert float(exact) >= math.pi / spread * (1 - 1e-9)


@pytest.mark.parametrize("n", range(2, 9))
def test_equal_weights_and_equispaced_slopes_have_the_roots_of_unity(n):
    # a geometric sum in q = exp(t): zeros at 2 pi i k / n, k not a multiple of n
    slopes = torch.arange(n, dtype=torch.float64)
    zero = nearest_zero(torch.zeros(n, dtype=torch.float64), slopes)
    assert abs(complex(zero) - 2j * math.pi / n) < 1e-10
    found = zeros_in_disc(torch.zeros(n, dtype=torch.float64), slopes, 6.0)
    expected = 2 * sum(1 for k in range(1, n) if 2 * math.pi * k / n < 6.0)
    assert len(found) == expected


@settings(max_examples=25, deadline=None)
@given(n=st.integers(3, 10), seed=st.integers(0, 10_000), scale=st.floats(0.1, 6))
def test_no_zero_in_the_strip_and_none_nearer_than_the_nearest(n, seed, scale):
    z, a = draw(n, scale=scale, seed=seed)
    spread = float(a.max() - a.min())
    zero = nearest_zero(z, a)
    assert float(zero.imag) >= math.pi / spread * (1 - 1e-9)
    assert int(count_zeros(z, a, 0.999 * zero.abs())[0]) == 0
    assert int(count_zeros(z, a, 1.001 * zero.abs())[0]) >= 2
    assert bool(has_zero_inside(z, a, 1.02 * zero.abs())[0])


@pytest.mark.parametrize("seed", range(4))
def test_zeros_agree_with_mpmath(seed):
    z, a = draw(5, seed=seed)
    zero = complex(nearest_zero(z, a)[0])
    weights, slopes = [mpmath.exp(v) for v in z[0].tolist()], a[0].tolist()

    def partition(t):
        return mpmath.fsum(w * mpmath.exp(s * t) for w, s in zip(weights, slopes, strict=True))

    root = mpmath.findroot(partition, zero + 1e-3)
    assert abs(complex(root) - zero) < 1e-9 * abs(zero)


def test_integer_slopes_agree_with_the_roots_of_a_polynomial():
    weights = [2.0, 1.0, 0.5, 3.0]
    roots = mpmath.polyroots(weights[::-1], maxsteps=200, extraprec=100)
    logs = [mpmath.log(root) for root in roots]
    exact = min(abs(complex(t)) for t in logs)
    zero = nearest_zero(torch.tensor(weights).double().log(), torch.arange(4).double())
    assert abs(float(zero.abs()) - exact) < 1e-9


def test_huge_logits_and_shifts_do_not_overflow():
    z, a = draw(4, seed=3)
    near = nearest_zero(z, a)
    torch.testing.assert_close(nearest_zero(z + 1e4, a), near, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(nearest_zero(z, a + 7.0), near, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(nearest_zero(z, 1e6 * a), near / 1e6, rtol=1e-9, atol=0)
    assert float(scaled_partition(z[0] + 5000, a[0], near).abs()) < 1e-9


def test_taylor_coefficients_of_log_two_cosh():
    half = torch.tensor([-0.5, 0.5], dtype=torch.float64)
    series = partition_taylor(torch.zeros(2, dtype=torch.float64), half, 8)
    exact = torch.tensor(
        [math.log(2), 0, 1 / 8, 0, -1 / 192, 0, 1 / 2880, 0, -17 / 645120], dtype=torch.float64
    )
    torch.testing.assert_close(series, exact, rtol=1e-12, atol=1e-15)


def test_taylor_coefficients_are_cumulants():
    z, a = draw(6, seed=5)
    series, p = partition_taylor(z, a, 3)[0], z[0].softmax(0)
    mean = (p * a[0]).sum()
    centred = a[0] - mean
    torch.testing.assert_close(series[1], mean)
    torch.testing.assert_close(series[2], (p * centred**2).sum() / 2)
    torch.testing.assert_close(series[3], (p * centred**3).sum() / 6)


@pytest.mark.parametrize("seed", range(5))
def test_the_series_converges_up_to_the_nearest_zero_and_not_beyond(seed):
    z, a = draw(4, seed=seed)
    radius = nearest_zero(z, a).abs()
    inside, outside = (taylor_errors(z, a, f * radius, 40)[0] for f in (0.8, 1.3))
    assert inside[38:].max() < 0.1 * inside[10:13].max()
    assert outside[38:].max() > 10 * outside[10:13].max()


def test_wrong_arguments_are_told():
    z, a = draw(3)
    with pytest.raises(ValueError, match="share a shape"):
        nearest_zero(z, a[:, :2])
    with pytest.raises(ValueError, match="slopes must differ"):
        nearest_zero(z, torch.ones_like(a))
    with pytest.raises(ValueError, match="not be negative, got -1"):
        radius_binary(torch.tensor(0.0), torch.tensor(-1.0))
    with pytest.raises(ValueError, match="order must be at least 1, got 0"):
        partition_taylor(z, a, 0)
    with pytest.raises(ValueError, match="one instance"):
        zeros_in_disc(z, a, 3.0)
    with pytest.raises(RuntimeError, match="too close to a zero"):
        count_zeros(z, a, nearest_zero(z, a).abs())
