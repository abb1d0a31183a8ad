"""The lines around D·g and |g|: sound, touching at both ends, and the degenerate cases."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.physics.clarke_relaxations import (
    METHODS,
    abs_chord,
    clarke_product_lines,
    clarke_states,
    product_lines,
)

ends = st.floats(-10, 10).map(lambda v: round(v, 3))


def scalar(*values):
    return [torch.tensor([v], dtype=torch.float64) for v in values]


@settings(max_examples=100, deadline=None)
@given(a=ends, b=ends)
def test_product_lines_are_sound_and_touch_the_hull_at_both_ends(a, b):
    low, high = scalar(min(a, b), max(a, b))
    lines = clarke_product_lines(low, high)
    for share in torch.linspace(0, 1, 21, dtype=torch.float64):
        g = low + share * (high - low)
        for d in (0.0, 0.3, 1.0):
            assert float(lines.upper_slope * g + lines.upper_constant - d * g) >= -1e-12
            assert float(d * g - lines.lower_slope * g - lines.lower_constant) >= -1e-12
    for g in (low, high):
        upper = lines.upper_slope * g + lines.upper_constant
        lower = lines.lower_slope * g + lines.lower_constant
        torch.testing.assert_close(upper, g.clamp(min=0), rtol=0, atol=1e-12)
        torch.testing.assert_close(lower, g.clamp(max=0), rtol=0, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(a=ends, b=ends)
def test_the_chord_of_the_absolute_value_is_sound_and_touches_at_both_ends(a, b):
    low, high = scalar(min(a, b), max(a, b))
    slope, constant = abs_chord(low, high)
    for share in torch.linspace(0, 1, 21, dtype=torch.float64):
        g = low + share * (high - low)
        assert float(slope * g + constant - g.abs()) >= -1e-12
    for g in (low, high):
        torch.testing.assert_close(slope * g + constant, g.abs(), rtol=0, atol=1e-12)


def test_states_include_zero_among_the_undecided():
    low, high = scalar(0.0, 1e-9)
    assert clarke_states(low, high).item() == 2
    assert clarke_states(-high, low).item() == 2
    assert clarke_states(low, low).item() == 2
    assert clarke_states(high, high).item() == 1
    assert clarke_states(-high, -high).item() == 0
    one = torch.tensor([1])
    assert clarke_states(-high, high, one).item() == 1
    assert clarke_states(-high, high, -one).item() == 0
    assert clarke_states(high, high, 0 * one).item() == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("state", [0, 1, 2])
def test_the_lines_of_every_method_enclose_the_product(method, state):
    low = torch.tensor([-2.0, -3.0, 1.0, 0.0, -1.0, 0.0], dtype=torch.float64)
    high = torch.tensor([1.0, -1.0, 4.0, 2.0, 0.0, 0.0], dtype=torch.float64)
    lines = product_lines(torch.tensor([state] * 6), low, high, method)
    factors = {0: (0.0,), 1: (1.0,), 2: (0.0, 0.5, 1.0)}[state]
    for share in (0.0, 0.25, 0.7, 1.0):
        g = low + share * (high - low)
        for d in factors:
            assert (lines.upper_slope * g + lines.upper_constant >= d * g - 1e-12).all()
            assert (lines.lower_slope * g + lines.lower_constant <= d * g + 1e-12).all()


def test_methods_differ_where_they_should():
    low, high = scalar(-2.0, 1.0)
    undecided, active = torch.tensor([2]), torch.tensor([1])
    linear = product_lines(undecided, low, high, "linear")
    torch.testing.assert_close(
        torch.stack(linear)[:, 0], torch.tensor([1, 2, 2, -2]) / 3.0 + 0.0 * low
    )
    assert [float(v) for v in product_lines(active, low, high, "linear")] == [1, 0, 1, 0]
    assert [float(v) for v in product_lines(active, low, high, "recurjac")] == [0, 1, 0, -2]
    assert [float(v) for v in product_lines(undecided, high, high, "recurjac")] == [1, 0, 0, 0]
    assert [float(v) for v in product_lines(undecided, high, high, "ibp")] == [0, 1, 0, 0]
    with pytest.raises(ValueError, match="got 'exact'"):
        product_lines(active, low, high, "exact")
