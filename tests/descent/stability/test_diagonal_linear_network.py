"""Diagonal linear networks: gradients and sharpness by autograd, least sharpness over factorisations."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.stability.diagonal_linear_network import (
    balanced_factors,
    diagonal_gram,
    diagonal_jacobian,
    diagonal_predict,
    least_sharpness,
    population_loss,
    population_sharpness,
)
from descent.stability.sharpness import gauss_newton_gram, sharpness


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_jacobian_is_the_derivative_of_the_output():
    a, b, inputs = normal(0, 6), normal(1, 6), normal(2, 4, 6)
    by_a, by_b = torch.func.jacrev(diagonal_predict, argnums=(0, 1))(a, b, inputs)
    torch.testing.assert_close(diagonal_jacobian(a, b, inputs), torch.cat([by_a, by_b], dim=1))


def test_gram_is_that_of_the_jacobian_with_leading_axes():
    a, b, inputs = normal(0, 3, 2, 6), normal(1, 3, 2, 6), normal(2, 3, 1, 4, 6)
    expected = gauss_newton_gram(diagonal_jacobian(a, b, inputs))
    torch.testing.assert_close(diagonal_gram(a, b, inputs), expected)


def test_population_sharpness_is_that_of_the_hessian():
    a, b = normal(3, 7), normal(4, 7)
    hessian = torch.func.hessian(population_loss)(torch.cat([a, b]), a * b)
    for formula, exact in zip(population_sharpness(a, b), sharpness(hessian), strict=True):
        torch.testing.assert_close(formula, exact, rtol=1e-12, atol=0)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_sharpness_is_at_least_twice_the_norm(seed, d):
    a, b = normal(seed, d), normal(seed + 1, d)
    beta = a * b
    measured = population_sharpness(a, b)
    slack = 1 - 1e-12
    assert measured.trace >= 2 * beta.abs().sum() * slack
    assert measured.frobenius >= 2 * torch.linalg.vector_norm(beta) * slack
    assert measured.largest >= 2 * beta.abs().max() * slack


def test_balanced_factors_attain_the_bound_and_the_unbalanced_do_not():
    beta = normal(5, 9)
    a, b = balanced_factors(beta)
    torch.testing.assert_close(a * b, beta)
    assert float(population_sharpness(a, b).trace) == pytest.approx(2 * float(beta.abs().sum()))
    assert float(population_sharpness(2 * a, b / 2).trace) == pytest.approx(
        4.25 * float(beta.abs().sum())
    )


@pytest.mark.parametrize(
    ("measure", "order"), [("trace", 1), ("frobenius", 2), ("largest", float("inf"))]
)
def test_least_sharpness_is_twice_the_norm(measure, order):
    beta = normal(6, 10)
    least, start = least_sharpness(beta, measure, torch.Generator().manual_seed(0))
    expected = 2 * float(torch.linalg.vector_norm(beta, ord=order))
    assert float(least) == pytest.approx(expected, rel=1e-7)
    assert float(start) > 1.01 * expected


def test_bad_input_is_refused():
    generator = torch.Generator()
    with pytest.raises(ValueError, match="share a shape"):
        diagonal_predict(torch.ones(3), torch.ones(4), torch.ones(2, 3))
    with pytest.raises(ValueError, match="need 2d factors"):
        population_loss(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="measure must be one of"):
        least_sharpness(torch.ones(3), "nuclear", generator)
    with pytest.raises(ValueError, match="zero coefficient"):
        least_sharpness(torch.zeros(3), "trace", generator)
