"""Derivatives on a circle: exact on polynomials, order N, aliasing, conjugate symmetry, the radius."""

import cmath

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.beyond_gradients.cauchy_derivative import cauchy_derivative, circle, half_circle


def polynomial(coefficients):
    def value(z):
        total = sum(c * z**j for j, c in enumerate(coefficients))
        return torch.tensor([complex(total)], dtype=torch.complex128)

    return value


@settings(max_examples=50, deadline=None)
@given(
    coefficients=st.lists(st.floats(-2, 2), min_size=2, max_size=9),
    points=st.integers(2, 12),
    radius=st.floats(0.1, 2),
)
def test_what_survives_is_every_nth_taylor_coefficient(coefficients, points, radius):
    estimate = float(cauchy_derivative(polynomial(coefficients), radius, points))
    expected = sum(
        c * radius ** (j - 1) for j, c in enumerate(coefficients) if (j - 1) % points == 0
    )
    assert estimate == pytest.approx(expected, abs=1e-9 * max(1, radius**8))


@pytest.mark.parametrize("points", [1, 2, 3, 4, 5, 6])
def test_the_error_has_order_n(points):
    def exponential(z):
        return torch.tensor([cmath.exp(z)], dtype=torch.complex128)

    error = [abs(float(cauchy_derivative(exponential, r, points)) - 1) for r in (0.2, 0.4)]
    assert torch.log2(torch.tensor(error[1] / error[0])) == pytest.approx(points, abs=0.2)


@pytest.mark.parametrize(("radius", "inside"), [(0.5, True), (1.5, False)])
def test_beyond_a_singularity_more_points_do_not_help(radius, inside):
    def pole(z):
        return torch.tensor([1 / (1 - z)], dtype=torch.complex128)

    error = abs(float(cauchy_derivative(pole, radius, 64)) - 1)
    assert (error < 1e-12) if inside else error == pytest.approx(1, abs=1e-6)


def test_one_and_two_points_need_real_displacements_only():
    seen = []

    def record(z):
        seen.append(z)
        return torch.tensor([complex(z) ** 3 + z])

    cauchy_derivative(record, 0.1, 1)
    cauchy_derivative(record, 0.1, 2)
    assert all(complex(z).imag == 0 for z in seen)
    assert sorted({complex(z).real for z in seen}) == [-0.1, 0, 0.1]


@pytest.mark.parametrize("points", range(1, 9))
def test_half_of_the_circle_counts_for_all(points):
    half = half_circle(0.7, points)
    assert sum(m for _, m in half) == points
    whole = {(round(z.real, 12), round(abs(z.imag), 12)) for z in circle(0.7, points)}
    assert {(round(z.real, 12), round(abs(z.imag), 12)) for z, _ in half} == whole


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match="radius must be positive, got -1"):
        circle(-1, 4)
    with pytest.raises(ValueError, match="points must be at least 1, got 0"):
        circle(1, 0)
