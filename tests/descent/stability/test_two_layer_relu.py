"""Two-layer ReLU networks: gradients by autograd, trace on the sphere, path norm and rescaling."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from descent.stability.interpolation_problems import sphere_inputs
from descent.stability.sharpness import gauss_newton_gram, per_sample_jacobian
from descent.stability.two_layer_relu import (
    balanced_rescaling,
    path_norm,
    population_trace,
    relu_gram,
    relu_jacobian,
    relu_predict,
    squared_gradient_norms,
)


class Network(nn.Module):
    def __init__(self, a, weights, activation=torch.relu):
        super().__init__()
        self.a, self.weights, self.activation = nn.Parameter(a), nn.Parameter(weights), activation

    def forward(self, inputs):
        return self.activation(inputs @ self.weights.T) @ self.a


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_jacobian_is_that_of_autograd():
    a, weights, inputs = normal(0, 7), normal(1, 7, 5), normal(2, 9, 5)
    expected = per_sample_jacobian(Network(a, weights), inputs)
    torch.testing.assert_close(relu_jacobian(a, weights, inputs), expected)
    torch.testing.assert_close(
        relu_predict(a, weights, inputs), Network(a, weights)(inputs).detach()
    )


def test_gram_is_that_of_the_jacobian_with_leading_axes():
    a, weights, inputs = normal(0, 2, 7), normal(1, 2, 7, 5), normal(2, 1, 9, 5)
    gram = relu_gram(a, weights, inputs)
    for lane in range(2):
        expected = gauss_newton_gram(relu_jacobian(a[lane], weights[lane], inputs[0]))
        torch.testing.assert_close(gram[lane], expected)


@pytest.mark.parametrize(("name", "function"), [("relu", torch.relu), ("tanh", torch.tanh)])
def test_squared_gradient_norms_are_those_of_autograd(name, function):
    a, weights, inputs = normal(0, 7), normal(1, 7, 5), normal(2, 9, 5)
    expected = per_sample_jacobian(Network(a, weights, function), inputs).square().sum(1)
    torch.testing.assert_close(squared_gradient_norms(a, weights, inputs, name), expected)


def test_trace_formula_on_the_sphere():
    d, m = 20, 50
    a, weights = normal(3, m) / m**0.5, normal(4, m, d) / d**0.5
    inputs = sphere_inputs(40_000, d, torch.Generator().manual_seed(5))
    sampled = squared_gradient_norms(a, weights, inputs)
    assert float(sampled.mean()) == pytest.approx(float(population_trace(a, weights)), rel=5e-3)
    tanh = squared_gradient_norms(a, weights, inputs, "tanh").mean() / population_trace(a, weights)
    assert float(tanh) == pytest.approx(0.80, abs=0.05)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 8))
def test_trace_is_at_least_the_scaled_path_norm_with_equality_when_balanced(seed, m, d):
    a, weights = normal(seed, m), normal(seed + 1, m, d)
    scaled = math.sqrt(d) * path_norm(a, weights)
    assert population_trace(a, weights) >= scaled * (1 - 1e-12)
    torch.testing.assert_close(
        population_trace(*balanced_rescaling(a, weights, math.sqrt(d))), scaled
    )


def test_rescaling_keeps_function_and_path_norm():
    a, weights, inputs = normal(0, 7), normal(1, 7, 5), normal(2, 9, 5)
    new_a, new_weights = balanced_rescaling(a, weights, 3.0)
    torch.testing.assert_close(
        relu_predict(new_a, new_weights, inputs), relu_predict(a, weights, inputs)
    )
    torch.testing.assert_close(path_norm(new_a, new_weights), path_norm(a, weights))
    torch.testing.assert_close(new_weights.norm(dim=-1), 3.0 * new_a.abs())


def test_bad_input_is_refused():
    a, weights = normal(0, 3), normal(1, 3, 2)
    with pytest.raises(ValueError, match="need a of shape"):
        path_norm(a, normal(1, 4, 2))
    with pytest.raises(ValueError, match="'relu' or 'tanh', got 'gelu'"):
        squared_gradient_norms(a, weights, normal(2, 5, 2), "gelu")
    with pytest.raises(ValueError, match="ratio must be positive"):
        balanced_rescaling(a, weights, 0.0)
    with pytest.raises(ValueError, match="cannot be balanced"):
        balanced_rescaling(torch.zeros(3).double(), weights, 1.0)
