"""Asymmetry of a Jacobian: its two laws, the Cayley turn, the penalty, its gradient and its flow."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.beyond_gradients.fixed_point_network import loop
from descent.beyond_gradients.jacobian_homeostasis import (
    antisymmetric,
    error_alignment,
    first_order_error,
    homeostatic_gradient,
    homeostatic_loss,
    probe_moment,
    symmetric,
    symmetry_index,
    transformed_error,
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stable(n, seed=0):
    g = draw(n, n, seed=seed)
    return (
        -torch.eye(n, dtype=torch.float64) - g @ g.T / n + antisymmetric(draw(n, n, seed=seed + 1))
    )


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 30), seed=st.integers(0, 1000))
def test_exact_law_of_the_response(n, seed):
    J, loss = stable(n, seed), draw(n, seed=seed + 2)
    delta = -torch.linalg.solve(J.T, loss)
    torch.testing.assert_close(transformed_error(J, delta), -torch.linalg.solve(J, loss))


@pytest.mark.parametrize("n", [3, 12, 40])
def test_first_order_law_leaves_a_quadratic_remainder(n):
    J, delta = stable(n), draw(n, seed=9)

    def remainder(scale):
        scaled = symmetric(J) + scale * antisymmetric(J)
        return float((transformed_error(scaled, delta) - first_order_error(scaled, delta)).norm())

    assert remainder(0.01) / remainder(0.005) == pytest.approx(4, abs=0.1)


@settings(max_examples=30, deadline=None)
@given(strength=st.floats(0.01, 20), c=st.floats(0.2, 5), seed=st.integers(0, 100))
def test_isotropic_symmetric_part_turns_and_keeps_the_norm(strength, c, seed):
    plane = torch.tensor([[0.0, strength], [-strength, 0.0]], dtype=torch.float64)
    delta = draw(2, seed=seed)
    eps = transformed_error(plane - c * torch.eye(2, dtype=torch.float64), delta)
    assert float(eps.norm() / delta.norm()) == pytest.approx(1, abs=1e-12)
    cosine = float(eps @ delta / delta.norm() ** 2)
    assert cosine == pytest.approx(
        float(torch.cos(2 * torch.atan(torch.tensor(strength / c)))), abs=1e-6
    )


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 40), seed=st.integers(0, 1000))
def test_the_penalty_is_twice_the_squared_norm_of_the_antisymmetric_part(n, seed):
    J = draw(n, n, seed=seed)
    exact = J.square().sum() - (J @ J).trace()
    torch.testing.assert_close(exact, 2 * antisymmetric(J).square().sum())


def test_the_estimate_is_unbiased_and_takes_two_products():
    J, calls = draw(15, 15), []

    def jvp(rows):
        calls.append(rows.shape)
        return rows @ J.T

    estimate = homeostatic_loss(jvp, 15, 100_000, torch.Generator().manual_seed(0))
    assert float(estimate) == pytest.approx(2 * float(antisymmetric(J).square().sum()), rel=0.02)
    assert calls == [(100_000, 15)] * 2


def test_it_works_with_a_jvp_of_torch_func():
    W, point = draw(8, 8), draw(8, seed=1)

    def field(u):
        return torch.tanh(W @ u) - u

    def jvp(rows):
        return torch.func.vmap(lambda v: torch.func.jvp(field, (point,), (v,))[1])(rows)

    J = torch.func.jacrev(field)(point)
    generators = [torch.Generator().manual_seed(4) for _ in range(2)]
    torch.testing.assert_close(
        homeostatic_loss(jvp, 8, 50, generators[0]),
        homeostatic_loss(lambda e: e @ J.T, 8, 50, generators[1]),
    )


def test_gradient_with_probes_is_that_of_autograd_and_its_mean_is_four_a():
    J, count = draw(9, 9).requires_grad_(), 30
    loss = homeostatic_loss(lambda e: e @ J.T, 9, count, torch.Generator().manual_seed(2))
    (automatic,) = torch.autograd.grad(loss, J)
    moment = probe_moment(count, 9, [torch.Generator().manual_seed(2)], torch.float64)[0]
    torch.testing.assert_close(9 * homeostatic_gradient(J.detach(), moment), automatic)
    torch.testing.assert_close(9 * homeostatic_gradient(J.detach()), 4 * antisymmetric(J.detach()))
    unit = homeostatic_gradient(J.detach(), torch.eye(9, dtype=torch.float64))
    torch.testing.assert_close(unit, homeostatic_gradient(J.detach()))


def test_the_flow_keeps_s_and_lets_a_decay_with_rate_four():
    J, steps = draw(6, 6), 2000
    flowing = J.clone()
    for _ in range(steps):
        flowing = flowing - 0.3 / steps * 6 * homeostatic_gradient(flowing)
    torch.testing.assert_close(symmetric(flowing), symmetric(J))
    decay = torch.exp(torch.tensor(-4 * 0.3, dtype=torch.float64))
    torch.testing.assert_close(antisymmetric(flowing), decay * antisymmetric(J), rtol=2e-3, atol=0)


def test_without_reciprocal_pairs_the_masked_gradient_is_weight_decay():
    mask = loop((5, 4, 3)).mask(torch.float64)
    W = draw(12, 12) * mask
    J = W - torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(homeostatic_gradient(J) * mask, 2 * W / 12)


def test_symmetry_index():
    J = draw(50, 50)
    assert float(symmetry_index(symmetric(J))) == 1
    assert float(symmetry_index(antisymmetric(J))) == 0
    assert float(symmetry_index(J)) == pytest.approx(0.5, abs=0.02)
    assert symmetry_index(draw(3, 2, 7, 7)).shape == (3, 2)


def test_alignment_is_a_mean_cosine():
    a = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    b = torch.tensor([[[0.0, 2.0], [3.0, 3.0]]])
    torch.testing.assert_close(error_alignment(a, b), torch.tensor([0.5]))
    assert float(error_alignment(torch.zeros(1, 2, 2), b)) == 0


def test_no_draws_are_refused():
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        homeostatic_loss(lambda e: e, 3, 0, torch.Generator())
