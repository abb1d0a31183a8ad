"""Exact second moments: sampling, fixed point, optimal decay, averages, and the model problems built on them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.stability.averaged_quadratic import averaged_losses
from descent.stability.cycle_schedule import decay_ratio, wsd_schedule
from descent.stability.noisy_quadratic import (
    NoisyQuadratic,
    optimal_inverse_decay,
    stationary_variance,
)
from descent.stability.schedule_experiments import (
    BranchingRun,
    power_law_quadratic,
    rate_table,
    river_and_hills,
)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_moments_are_those_of_sampled_sgd():
    generator = torch.Generator().manual_seed(0)
    curvature, noise = column(0.3, 1.2), column(0.5, 2.0)
    rates = column(0.9, 0.4, 0.1, 0.7)
    sampled = torch.ones(200_000, 2, dtype=torch.float64)
    for rate in rates:
        push = torch.randn(sampled.shape, generator=generator, dtype=torch.float64) * noise.sqrt()
        sampled = sampled - rate * (curvature * sampled + push)
    exact = NoisyQuadratic(curvature, noise, 1.0)
    exact.run(rates[None], [4])
    torch.testing.assert_close(exact.second_moments[0], sampled.square().mean(0), rtol=0.02, atol=0)


@settings(max_examples=40, deadline=None)
@given(product=st.floats(0.05, 1.95), curvature=st.floats(0.1, 10), noise=st.floats(0.01, 10))
def test_stationary_variance_is_the_fixed_point(product, curvature, noise):
    rate = product / curvature
    variance = float(stationary_variance(rate, curvature, noise))
    mode = NoisyQuadratic(column(curvature), noise, variance)
    mode.step(column(rate))
    assert float(mode.second_moments) == pytest.approx(variance, rel=1e-12)


def test_the_excess_hardly_depends_on_the_curvature():
    for curvature in (0.01, 0.1):
        excess = curvature * float(stationary_variance(0.1, curvature, 3.0)) / 2
        assert excess == pytest.approx(0.1 * 3.0 / 4, rel=0.01)


@settings(max_examples=30, deadline=None)
@given(
    start=st.floats(0.01, 10),
    curvature=st.floats(0.1, 5),
    noise=st.floats(0.05, 5),
    steps=st.integers(2, 30),
)
def test_optimal_decay_has_harmonic_rates_and_no_neighbour_does_better(
    start, curvature, noise, steps
):
    rates, variances = optimal_inverse_decay(start, curvature, noise, steps)
    torch.testing.assert_close((1 / rates).diff(), torch.full_like(rates[1:], curvature))
    torch.testing.assert_close(
        (1 / variances).diff(), torch.full_like(rates, curvature**2 / noise), rtol=1e-6, atol=1e-6
    )
    for factor in (0.9, 1.1):
        mode = NoisyQuadratic(column(curvature), noise, start)
        mode.run((rates * factor)[None], [steps])
        assert float(mode.second_moments) > float(variances[-1])


def test_from_stationarity_the_optimum_starts_at_half_the_rate():
    rates, _ = optimal_inverse_decay(float(stationary_variance(0.5, 1.0, 1.0)), 1.0, 1.0, 3)
    assert float(rates[0]) == pytest.approx(0.25)


def test_inverse_decay_ends_below_linear_and_cosine_on_one_mode():
    finals = {}
    for shape in ("inverse", "linear", "cosine"):
        rates = column(*[0.5 * decay_ratio(j / 50, 2 / 52, shape) for j in range(1, 51)])
        finals[shape] = float(NoisyQuadratic(column(1.0), 1.0, 1 / 3).run(rates[None], [50]))
    assert finals["inverse"] < 0.5 * finals["cosine"] < finals["linear"]


def test_copies_are_independent_and_record_keeps_its_order():
    rates = torch.stack([torch.full((6,), 0.3), torch.full((6,), 0.8)]).double()
    both = power_law_quadratic(2, modes=5).run(rates, [6, 0, 3])
    alone = power_law_quadratic(1, modes=5).run(rates[1:], [6, 0, 3])
    torch.testing.assert_close(both[1], alone[0])
    assert both[0, 1] == both[1, 1]


def test_an_average_of_one_step_is_the_iterate_and_sampling_agrees():
    plain = power_law_quadratic(1, modes=20).run(torch.full((1, 30), 0.9).double(), [10, 30])
    averaged = averaged_losses(power_law_quadratic(1, modes=20), 0.9, column(1.0), [10, 30])
    torch.testing.assert_close(plain, averaged)
    generator = torch.Generator().manual_seed(1)
    w = torch.ones(200_000, dtype=torch.float64)
    a = w.clone()
    for _ in range(12):
        w = w - 0.5 * (w + torch.randn(w.shape, generator=generator, dtype=torch.float64))
        a = 0.8 * a + 0.2 * w
    exact = averaged_losses(NoisyQuadratic(column(1.0), 1.0, 1.0), 0.5, column(0.2), [12])
    assert float(exact) == pytest.approx(float(a.square().mean() / 2), rel=0.02)


def test_river_loss_is_the_area_and_hills_start_empty():
    rates = rate_table([wsd_schedule(50), wsd_schedule(30)], [0.5, 1.0])
    hills, river = river_and_hills(rates, column(0.5, 1.0), 0.1, slope=0.2)
    assert hills.shape == river.shape == (2, 51)
    assert float(hills[:, 0].abs().max()) == 0
    torch.testing.assert_close(river[:, -1], -0.04 * rates.sum(1))
    assert float(rates[1, 30:].abs().max()) == 0


def test_a_branch_equals_the_planned_run_bit_for_bit_only_with_its_moments():
    noise = torch.randn(100, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    main, planned = (BranchingRun(wsd_schedule(t), noise) for t in (400, 100))
    assert torch.equal(main.advance(90), planned.advance(90))
    saved = main.checkpoint()
    end = planned.advance(10)
    assert torch.equal(main.branch(saved, wsd_schedule(100)).advance(10), end)
    assert not torch.equal(main.branch(saved, wsd_schedule(100), False).advance(10), end)


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match="must lie in \\(0, 2\\)"):
        stationary_variance(2.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="curvatures must be positive"):
        NoisyQuadratic(column(0.0), 1.0, 1.0)
    with pytest.raises(ValueError, match="must not be negative"):
        NoisyQuadratic(column(1.0), -1.0, 1.0)
    with pytest.raises(ValueError, match="step 5 of 3"):
        NoisyQuadratic(column(1.0), 1.0, 1.0).run(torch.ones(1, 3).double(), [5])
    with pytest.raises(ValueError, match="averaging weights"):
        averaged_losses(power_law_quadratic(1, modes=3), 0.5, column(0.0), [1])
