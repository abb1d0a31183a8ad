"""Norms, duals, oracles and sharp operators: duality, optimality, equivalence of the two step rules."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.first_order.linear_minimisation import (
    NORMS,
    direction,
    dual_norm,
    lmo,
    norm,
    sharp,
    smoothness_factor,
)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inner(a, b):
    return (a * b).sum((-2, -1))


cases = given(
    name=st.sampled_from(sorted(NORMS)),
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    seed=st.integers(0, 10_000),
)


@settings(max_examples=40, deadline=None)
@cases
def test_sharp_attains_the_dual_norm_squared(name, rows, columns, seed):
    matrix = draw(seed, rows, columns)
    dual, image = dual_norm(matrix, name), sharp(matrix, name)
    assert torch.allclose(inner(matrix, image), dual**2, rtol=1e-10)
    assert torch.allclose(norm(image, name), dual, rtol=1e-10)
    assert torch.allclose(norm(direction(matrix, name), name), torch.ones((), dtype=torch.float64))


@settings(max_examples=40, deadline=None)
@cases
def test_no_point_of_the_ball_is_better_than_the_oracle(name, rows, columns, seed):
    matrix, others = draw(seed, rows, columns), draw(seed + 1, 50, rows, columns)
    inside = others / norm(others, name)[:, None, None]
    best = inner(matrix, lmo(matrix, 1.0, name))
    assert torch.allclose(best, -dual_norm(matrix, name))
    assert bool((inner(matrix, inside) >= best - 1e-10).all())


@pytest.mark.parametrize("name", sorted(NORMS))
def test_a_radius_of_step_times_dual_norm_is_a_sharp_step(name):
    matrix = draw(3, 5, 4, 6)
    step = lmo(matrix, 0.3 * dual_norm(matrix, name), name)
    assert torch.allclose(step, -0.3 * sharp(matrix, name), atol=1e-12)


@pytest.mark.parametrize("name", sorted(NORMS))
def test_factor_is_the_largest_frobenius_norm_in_the_ball(name):
    largest = direction(draw(5, 4, 7), name).square().sum()
    assert float(largest) == pytest.approx(smoothness_factor(4, 7, name))


def test_frobenius_sharp_is_the_identity_and_zero_stays_zero():
    matrix = draw(1, 3, 4)
    assert torch.allclose(sharp(matrix, "fro"), matrix)
    for name in NORMS:
        assert not direction(torch.zeros(2, 3), name).any()


def test_unknown_norms_and_negative_radii_are_refused():
    for call in (norm, dual_norm, direction, sharp):
        with pytest.raises(ValueError, match="unknown norm 'nuclear'"):
            call(torch.eye(2), "nuclear")
    with pytest.raises(ValueError, match="unknown norm"):
        smoothness_factor(2, 2, "nuclear")
    with pytest.raises(ValueError, match="non-negative, got -1"):
        lmo(torch.eye(2), -1.0)
