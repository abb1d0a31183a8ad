"""The mean-field hop: Gaussian conjugacy, proximal points of known functions, Laplace's principle."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.beyond_gradients.proximal import (
    gibbs_mean,
    laplace_free_energy,
    proximal_point,
    quadratic_proximal_point,
)

GRID = torch.linspace(-8, 8, 200_001, dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(
    curvature=st.floats(0, 5), x=st.floats(-2, 2), tau=st.floats(0.05, 1), alpha=st.floats(2, 200)
)
def test_the_mean_field_hop_on_a_quadratic_is_the_proximal_point(curvature, x, tau, alpha):
    def energy(u):
        return curvature / 2 * u.square()

    exact = x / (1 + tau * curvature)
    assert gibbs_mean(energy, alpha, x, (tau / alpha) ** 0.5, GRID) == pytest.approx(
        exact, abs=1e-6
    )
    assert proximal_point(energy, x, tau, GRID) == pytest.approx(exact, abs=1e-7)


@settings(max_examples=25, deadline=None)
@given(x=st.floats(-3, 3), tau=st.floats(0.1, 2))
def test_the_proximal_point_of_the_absolute_value_is_soft_thresholding(x, tau):
    exact = math.copysign(max(abs(x) - tau, 0.0), x)
    assert proximal_point(torch.abs, x, tau, GRID) == pytest.approx(exact, abs=1e-7)


def test_the_proximal_point_is_the_global_minimiser_not_the_nearest():
    def wells(u):
        return 5 * (u.square() - 1).square() + 2 * u

    found = proximal_point(wells, 0.8, 10.0, GRID)
    assert found < -0.9


def test_several_dimensions_solve_the_implicit_step():
    generator = torch.Generator().manual_seed(0)
    root, x = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((4, 4), (4,)))
    matrix = root @ root.T
    new = quadratic_proximal_point(matrix, x, 0.3)
    torch.testing.assert_close(new, x - 0.3 * matrix @ new)


def test_without_weights_the_hop_stays():
    assert gibbs_mean(torch.cos, 0.0, 1.3, 0.2, GRID) == pytest.approx(1.3)


def test_the_free_energy_of_a_gaussian_integral():
    # int exp(-alpha u^2/2) N(u; x, s^2) = (1 + alpha s^2)^(-1/2) exp(-alpha x^2 / (2 (1 + alpha s^2)))
    alpha, x, s = 7.0, 1.5, 0.8
    scale = 1 + alpha * s * s
    exact = (0.5 * math.log(scale) + alpha * x * x / (2 * scale)) / alpha
    found = laplace_free_energy(lambda u: u.square() / 2, alpha, x, s, GRID)
    assert found == pytest.approx(exact, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(alpha=st.floats(0.1, 1e4), x=st.floats(-2, 2))
def test_the_free_energy_lies_between_the_minimum_and_the_mean(alpha, x):
    def energy(u):
        return 1 - torch.cos(3 * u)

    gauss = (-(GRID - x).square() / 2).exp()
    mean = float((gauss * energy(GRID)).sum() / gauss.sum())
    assert -1e-12 <= laplace_free_energy(energy, alpha, x, 1.0, GRID) <= mean + 1e-12
