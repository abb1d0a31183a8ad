"""Tests of the scaffolded method; replace them by the mathematics of the paper."""

import pytest

from descent.curvature.gradient_normalized_smoothness import gradient_descent_on_parabola


def test_contracts_by_the_closed_form():
    losses = gradient_descent_on_parabola(0.1, 3)
    assert losses == pytest.approx([1.0, 0.8**2, 0.8**4])


def test_refuses_a_learning_rate_that_is_not_positive():
    with pytest.raises(ValueError, match="learning_rate"):
        gradient_descent_on_parabola(0.0, 3)
