"""Numerical gradients, gradient descent in closed form, the annealing of the noise."""

import math

import pytest
import torch

from descent.beyond_gradients.landscapes import grand_canyon, rastrigin
from descent.beyond_gradients.langevin import central_difference, langevin


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("function", [rastrigin, grand_canyon])
def test_central_differences_are_the_gradient(function):
    points = draw(3, 4, 2).requires_grad_(True)
    (exact,) = torch.autograd.grad(function(points).sum(), points)
    torch.testing.assert_close(
        central_difference(function, points.detach()), exact, rtol=0, atol=1e-7
    )


def test_without_noise_it_is_gradient_descent():
    start = draw(5, 3)
    path = langevin(
        start, lambda x: 2 * x, steps=20, learning_rate=0.5, dt=0.1, sigma=0.0, keep_every=10
    )
    assert path.shape == (2, 5, 3)
    torch.testing.assert_close(path[-1], 0.9**20 * start)


def test_the_noise_is_annealed_by_the_logarithm_from_one_over_log_two():
    zero = torch.zeros(20_000, 1, dtype=torch.float64)
    path = langevin(
        zero,
        torch.zeros_like,
        steps=3,
        learning_rate=1.0,
        dt=0.25,
        sigma=2.0,
        generator=torch.Generator().manual_seed(0),
    )
    increments = torch.diff(path, dim=0, prepend=zero[None])
    for k, increment in enumerate(increments, start=1):
        assert float(increment.std()) == pytest.approx(2 * 0.5 / math.log(k + 1), rel=0.03)


def test_walkers_may_have_their_own_noise_and_the_last_step_is_always_kept():
    sigma = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    path = langevin(
        draw(2, 2), lambda x: x, steps=7, learning_rate=1.0, dt=0.1, sigma=sigma, keep_every=3
    )
    assert len(path) == 3
    torch.testing.assert_close(path[-1, 1], 0.9**7 * draw(2, 2)[1])


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match="width must be positive, got 0"):
        central_difference(rastrigin, draw(2, 2), 0)
    with pytest.raises(ValueError, match="steps >= 1 and dt > 0; got 0, 1"):
        langevin(draw(2), lambda x: x, steps=0, learning_rate=1, dt=1, sigma=0)
