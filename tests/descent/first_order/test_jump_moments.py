"""Second moments: the secular equation against the dense generator, closed forms, simulation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.first_order.jump_moments import (
    LinearJumpProcess,
    mean_square_decay_rate,
    second_moment_generator,
    spectral_abscissa,
    stationary_second_moment,
)


def random_process(m, k, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rates = torch.rand(k, generator=generator, dtype=torch.float64) + 0.1
    return LinearJumpProcess(draw(m, m) - 2 * torch.eye(m).double(), rates, 0.4 * draw(k, m), 0.4 * draw(k, m))  # fmt: skip


def scalar(drift, rate, gain):
    one = torch.ones(1, 1, dtype=torch.float64)
    return LinearJumpProcess(drift * one, torch.tensor([rate]).double(), gain * one, one)


@settings(max_examples=60, deadline=None)
@given(m=st.integers(1, 6), k=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_secular_equation_is_the_abscissa_of_the_dense_generator(m, k, seed):
    process = random_process(m, k, seed)
    dense = -spectral_abscissa(second_moment_generator(process))
    assert mean_square_decay_rate(process) == pytest.approx(dense, abs=1e-6 * (1 + abs(dense)))


@pytest.mark.parametrize(("drift", "rate", "gain"), [(0.3, 2.0, 0.5), (-1.0, 0.7, 3.0), (0.0, 1.0, 1.0)])  # fmt: skip
def test_one_dimension(drift, rate, gain):
    # d/dt E s^2 = (2 a + rate ((1 - w)^2 - 1)) E s^2
    expected = -(2 * drift + rate * ((1 - gain) ** 2 - 1))
    assert mean_square_decay_rate(scalar(drift, rate, gain)) == pytest.approx(expected, abs=1e-6)


def test_generator_is_the_sum_over_jump_matrices():
    process = random_process(4, 3, 1)
    sigma = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    sigma = sigma + sigma.T
    expected = process.drift @ sigma + sigma @ process.drift.T
    for k in range(3):
        jump = process.jump(k)
        expected += process.rates[k] * (jump @ sigma @ jump.T - sigma)
    row, column = torch.triu_indices(4, 4)
    scale = torch.where(row == column, 1.0, 2.0**0.5).double()
    found = second_moment_generator(process) @ (sigma[row, column] * scale)
    torch.testing.assert_close(found / scale, expected[row, column])


def test_a_defective_mean_drift_falls_back_to_the_dense_form():
    drift = torch.tensor([[-1.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    still = torch.zeros(1, 2, dtype=torch.float64)
    process = LinearJumpProcess(drift, torch.ones(1).double(), still, still)
    assert mean_square_decay_rate(process) == pytest.approx(2.0, abs=1e-5)


def test_stationary_moment_balances_noise():
    process = random_process(4, 2, 5)
    assert mean_square_decay_rate(process) > 0
    noise = torch.eye(4, dtype=torch.float64)
    sigma = stationary_second_moment(process, noise)
    mean = process.mean_drift()
    rest = mean @ sigma + sigma @ mean.T + noise
    seen = torch.einsum("km,mn,kn->k", process.functionals, sigma, process.functionals)
    rest += torch.einsum("k,km,kn->mn", process.rates * seen, process.gains, process.gains)
    assert float(rest.abs().max()) < 1e-9 * float(sigma.abs().max())
    with pytest.raises(ValueError, match="grows"):
        stationary_second_moment(scalar(1.0, 1.0, 0.0), torch.ones(1, 1).double())


def test_restriction_to_a_subspace_that_is_not_invariant_is_refused():
    process = random_process(3, 1, 0)
    with pytest.raises(ValueError, match="not invariant"):
        process.restricted(torch.eye(3, dtype=torch.float64)[:, :1])
