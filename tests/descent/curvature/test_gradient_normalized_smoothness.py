"""The measured radius: exact values, invariances, the harmonic bound, the region, error messages."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.curvature.dual_metric import Metric
from descent.curvature.gradient_normalized_smoothness import (
    gradient_normalized_smoothness,
    harmonic_combination,
)


def scalar(value):
    return torch.tensor([float(value)], dtype=torch.float64)


def measure(slope, second, x, **options):
    return gradient_normalized_smoothness(slope, scalar(x), scalar(second)[:, None], **options)


def cube(points):
    return points * points.abs()


@settings(max_examples=20, deadline=None)
@given(x=st.floats(0.01, 100))
def test_a_cube_has_twice_and_once_the_distance(x):
    assert measure(cube, 2 * x, x) == pytest.approx(2 * x, rel=1e-4)
    assert measure(cube, 2 * x, x, region="ball") == pytest.approx(x, rel=1e-4)


@settings(max_examples=20, deadline=None)
@given(x=st.floats(-5, 5), c=st.floats(1e-3, 1e3))
def test_the_exponential_has_one_radius_at_any_place_and_scale(x, c):
    def slope(points):
        return c * points.exp()

    assert measure(slope, c * math.exp(x), x) == pytest.approx(math.e, rel=1e-4)
    root = measure(slope, c * math.exp(x), x, region="ball")
    assert math.exp(root) == pytest.approx(2 + root, rel=1e-4)


def test_no_model_gives_the_gradient_over_the_smoothness_constant():
    assert measure(lambda p: 4 * p, 0.0, 3.0) == pytest.approx(3.0, rel=1e-3)
    assert measure(lambda p: 4 * p, 4.0, 3.0) == math.inf
    assert measure(lambda p: 4 * p, 4.4, 3.0, region="ball") == pytest.approx(30.0, rel=1e-3)


def test_an_absolute_error_is_not_invariant():
    a = measure(torch.exp, 1.0, 0.0, normalised=False)
    b = measure(lambda p: 10 * p.exp(), 10.0, 0.0, normalised=False)
    assert a == pytest.approx(math.e, rel=1e-4)
    assert math.exp(-b) - 1 + b == pytest.approx(0.1, rel=1e-3)  # γ E(γ) = 1/10


@settings(max_examples=20, deadline=None)
@given(c=st.floats(0.01, 5))
def test_errors_add_harmonically_and_tightly_for_the_exponential(c):
    combined = measure(torch.exp, 1 + c, 0.0, region=torch.ones(1, 1, dtype=torch.float64))
    bound = harmonic_combination(math.e, 1 / c)
    assert combined >= bound * (1 - 1e-4)
    if bound >= 1:
        assert combined == pytest.approx(bound, rel=1e-4)


def test_a_metric_is_a_change_of_variables():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    metric = Metric(a @ a.T)
    x = torch.randn(3, generator=generator, dtype=torch.float64)
    lines = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    factor = metric.factor

    def slope(points):
        return points.exp()

    def moved(points):
        back = torch.linalg.solve_triangular(factor.mT, points.mT, upper=True).mT
        return torch.linalg.solve_triangular(factor, slope(back).mT, upper=False).mT

    model = torch.diag(x.exp())
    here = gradient_normalized_smoothness(slope, x, model, metric=metric, directions=lines)
    there = gradient_normalized_smoothness(
        moved, factor.mT @ x, metric.whiten(model), directions=lines @ factor
    )
    assert here == pytest.approx(there, rel=1e-6)
    assert gradient_normalized_smoothness(
        slope, x, model, metric=metric, directions=lines, region="ball"
    ) <= here * (1 + 1e-9)


def test_more_directions_never_enlarge_the_radius():
    x = torch.tensor([0.3, -0.2], dtype=torch.float64)
    model = torch.diag(x.exp())
    few = gradient_normalized_smoothness(torch.exp, x, model)
    angles = torch.linspace(0, 2 * math.pi, 64, dtype=torch.float64)
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    many = gradient_normalized_smoothness(torch.exp, x, model, directions=circle)
    assert many <= few * (1 + 1e-2)


def test_a_given_covector_sets_the_scale():
    one = measure(torch.exp, 1.0, 0.0, region="ball", g=scalar(1))
    ten = measure(torch.exp, 1.0, 0.0, region="ball", g=scalar(10))
    assert one < ten
    assert harmonic_combination(math.inf, math.inf) == math.inf
    assert harmonic_combination(2.0, 2.0) == 1.0


def test_wrong_arguments_are_told():
    x = torch.zeros(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="shapes"):
        gradient_normalized_smoothness(torch.exp, x, torch.zeros(3, 3))
    with pytest.raises(ValueError, match="samples must be at least 2, got 1"):
        gradient_normalized_smoothness(torch.exp, x, torch.zeros(2, 2).double(), samples=1)
    with pytest.raises(ValueError, match="negative curvature"):
        measure(lambda p: p, -1.0, 1.0)
