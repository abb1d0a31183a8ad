"""The closed form of the flow against a matrix exponential, its semigroup, and its constants."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.first_order.continuized_flow import ContinuizedFlow, DADAOConstants


@settings(max_examples=60, deadline=None)
@given(
    condition=st.floats(1, 1e4),
    mu=st.floats(0.01, 100),
    elapsed=st.floats(0, 10),
    chi=st.floats(0.1, 100),
)
def test_closed_form_is_the_matrix_exponential(condition, mu, elapsed, chi):
    constants = DADAOConstants.of(mu, condition * mu, chi)
    time = torch.tensor([elapsed], dtype=torch.float64)
    found = ContinuizedFlow([constants]).exponential(torch.tensor([0]), time)[0]
    expected = torch.linalg.matrix_exp(constants.drift() * time)
    # Scaling and squaring loses digits in proportion to the norm of the exponent.
    size = max(1.0, float(constants.drift().abs().sum(1).max()) * elapsed)
    assert float((found - expected).abs().max()) < 1e-13 * size * float(expected.abs().max())


def test_two_steps_are_one_and_no_time_is_no_step():
    flow = ContinuizedFlow([DADAOConstants.of(1.0, 30.0, 2.0), DADAOConstants.of(2.0, 3.0, 1.0)])
    state = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    some, more = torch.tensor([0.3, 7.0]).double(), torch.tensor([1.9, 0.2]).double()
    torch.testing.assert_close(
        flow.advance(flow.advance(state, some), more), flow.advance(state, some + more)
    )
    torch.testing.assert_close(flow.advance(state, 0 * some), state)


def test_each_node_has_its_own_flow():
    kinds = [DADAOConstants.of(1.0, 30.0, 2.0), DADAOConstants.of(2.0, 3.0, 1.0)]
    time = torch.tensor([1.3, 1.3], dtype=torch.float64)
    both = ContinuizedFlow(kinds).exponential(torch.tensor([1, 0]), time)
    for row, constants in zip(both, reversed(kinds), strict=True):
        torch.testing.assert_close(row, torch.linalg.matrix_exp(constants.drift() * 1.3))


def test_constants_are_those_of_the_paper():
    c = DADAOConstants.of(2.0, 18.0, 0.7)
    s = math.sqrt(1 / 18)
    assert c.nu == 1.0
    assert (c.eta, c.eta_tilde, c.alpha_tilde) == pytest.approx([s / 8] * 3)
    assert (c.alpha, c.delta) == pytest.approx([s / 4] * 2)
    assert c.theta == pytest.approx(1 / (2 * s))
    assert (c.gamma, c.gamma_tilde) == pytest.approx((1 / 72, 1 / (4 * math.sqrt(18))))
    assert (c.delta_tilde, c.beta, c.beta_tilde) == pytest.approx((1, 0.5, 2 * 0.7 / s))


def test_the_ablation_without_momentum_still_has_a_flow():
    constants = replace(DADAOConstants.of(1.0, 9.0, 1.0), eta=0.0, eta_tilde=0.0)
    time = torch.tensor([2.0], dtype=torch.float64)
    torch.testing.assert_close(
        ContinuizedFlow([constants]).exponential(torch.tensor([0]), time)[0],
        torch.linalg.matrix_exp(constants.drift() * 2.0),
    )


def test_wrong_constants_are_told():
    with pytest.raises(ValueError, match="0 < mu <= smoothness"):
        DADAOConstants.of(2.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="chi_1 must be positive"):
        DADAOConstants.of(1.0, 2.0, 0.0)
    heavy = replace(DADAOConstants.of(1.0, 2.0, 1.0), alpha=10.0)
    with pytest.raises(ValueError, match="over-damped"):
        ContinuizedFlow([heavy])
