"""Dynamic M-FAC: equal to the static form and Woodbury after every replacement; ring buffer; factors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.curvature.inverse_fisher import woodbury_solve
from descent.curvature.sliding_inverse_fisher import SlidingInverseFisher, eliminate
from descent.curvature.static_inverse_fisher import StaticInverseFisher


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("damp", [1e-5, 1e-2])
def test_equal_to_static_and_woodbury_after_every_push(damp):
    generator = torch.Generator().manual_seed(0)
    fisher = SlidingInverseFisher(8, 30, damp, torch.float64)
    x = torch.randn(30, generator=generator, dtype=torch.float64)
    recent: list[torch.Tensor] = []
    for _ in range(19):
        g = torch.randn(30, generator=generator, dtype=torch.float64)
        product = fisher.push_mul(g)
        recent = [*recent, g][-8:]
        rows = torch.zeros(8, 30, dtype=torch.float64)
        rows[: len(recent)] = torch.stack(recent)
        assert relative(product, woodbury_solve(rows, damp, g)) < 1e-8
        assert relative(fisher.mul(x), woodbury_solve(rows, damp, x)) < 1e-8
        assert relative(fisher.mul(x), StaticInverseFisher(rows, damp).mul(x)) < 1e-8
    torch.testing.assert_close(fisher.gram, fisher.gradients @ fisher.gradients.T)
    assert fisher.position == 19 % 8


@settings(max_examples=25, deadline=None)
@given(slots=st.lists(st.integers(0, 4), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_any_sequence_of_replacements_leaves_the_same_state_as_a_fresh_window(slots, seed):
    generator = torch.Generator().manual_seed(seed)
    fisher = SlidingInverseFisher(5, 11, 0.1, torch.float64)
    for slot in slots:
        fisher.replace(slot, torch.randn(11, generator=generator, dtype=torch.float64))
    x = torch.randn(11, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(fisher.mul(x), woodbury_solve(fisher.gradients, 0.1, x))


def test_removal_is_overwriting_by_zero():
    generator = torch.Generator().manual_seed(0)
    fisher = SlidingInverseFisher(5, 11, 0.1, torch.float64)
    for _ in range(7):
        fisher.push(torch.randn(11, generator=generator, dtype=torch.float64))
    rows = fisher.gradients.clone()
    rows[3] = 0
    fisher.replace(3, torch.zeros(11, dtype=torch.float64))
    x = torch.randn(11, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(fisher.mul(x), StaticInverseFisher(rows, 0.1).mul(x))


def test_factors_are_scalar_products_and_coefficients_of_the_static_vectors():
    rows = torch.randn(6, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    products, denominators, coefficients = eliminate(rows @ rows.T, 0.3)
    static = StaticInverseFisher(rows, 0.3)
    torch.testing.assert_close(denominators, static.denominators[0])
    torch.testing.assert_close(coefficients @ rows, static.vectors[0])
    torch.testing.assert_close(products, (static.vectors[0] @ rows.T).triu())
    torch.testing.assert_close(coefficients, coefficients.tril())


def test_an_empty_window_divides_by_the_damping():
    x = torch.arange(4.0)
    torch.testing.assert_close(SlidingInverseFisher(3, 4, 0.5).mul(x), x / 0.5)


def test_state_round_trip_shares_the_buffer():
    fisher = SlidingInverseFisher(3, 4, 0.5)
    fisher.push(torch.ones(4))
    other = SlidingInverseFisher.from_state(fisher.state_dict(), 0.5)
    assert other.position == 1
    torch.testing.assert_close(other.mul(torch.ones(4)), fisher.mul(torch.ones(4)))
    assert other.gradients is fisher.gradients


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match="window and dim"):
        SlidingInverseFisher(0, 4, 0.1)
    with pytest.raises(ValueError, match="damp"):
        SlidingInverseFisher(2, 4, -1.0)
    fisher = SlidingInverseFisher(2, 4, 0.1)
    with pytest.raises(ValueError, match="shape \\(4,\\)"):
        fisher.push(torch.ones(3))
    with pytest.raises(IndexError, match="slot 2"):
        fisher.replace(2, torch.ones(4))
    with pytest.raises(ValueError, match="vector"):
        fisher.mul(torch.ones(3))
