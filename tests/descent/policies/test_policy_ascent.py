"""The ascents: exact transport on quadratics, reductions to simpler methods, steps by hand, failures."""

import pytest
import torch

from descent.policies.policy_ascent import (
    HessianAidedAscent,
    MomentumAscent,
    Schedule,
    harpg,
    n_harpg,
    n_pg_igt,
    n_sgdm,
    vanilla_pg,
)


def quadratic(seed=0, dimension=4):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)
    start = torch.randn(dimension, generator=generator, dtype=torch.float64)
    return -(root @ root.T), start


def test_schedules():
    assert Schedule(0.3, 1.0)(0) == 0.3
    assert Schedule(0.3, 1.0)(2) == pytest.approx(0.15)
    assert Schedule(0.5)(1000) == 0.5
    assert Schedule(torch.ones(2), torch.tensor([0.0, 1.0]))(2).tolist() == [1.0, 0.5]


def test_igt_has_no_transport_bias_on_a_quadratic_and_momentum_has():
    hessian, start = quadratic()
    worst = {}
    for name, method in (("igt", n_pg_igt(start, 0.3)), ("momentum", n_sgdm(start, 0.3))):
        errors = []
        for _ in range(50):
            theta = method.theta
            method.update(hessian @ method.sampling_point())
            errors.append(float((method.direction - hessian @ theta).norm()))
        worst[name] = max(errors)
    assert worst["igt"] < 1e-12
    assert worst["momentum"] > 1e-2


@pytest.mark.parametrize("make", [harpg, n_harpg])
def test_hessian_aided_direction_is_exact_on_a_quadratic(make):
    hessian, start = quadratic(1)
    method = make(start, 0.05)
    for _ in range(50):
        theta = method.theta
        method.update(hessian @ theta, hessian @ method.displacement)
        torch.testing.assert_close(method.direction, hessian @ theta)


def test_two_steps_of_igt_by_hand():
    method = MomentumAscent(torch.tensor([0.0]), Schedule(0.1), Schedule(0.5), normalize=False)
    assert method.sampling_point().tolist() == [0.0]
    method.update(torch.tensor([2.0]))  # the first average is the first gradient
    assert method.theta.tolist() == pytest.approx([0.2])
    assert method.sampling_point().tolist() == pytest.approx([0.4])
    method.update(torch.tensor([4.0]))
    assert method.direction.tolist() == pytest.approx([3.0])
    assert method.theta.tolist() == pytest.approx([0.5])


def test_two_steps_of_harpg_by_hand():
    method = HessianAidedAscent(torch.tensor([0.0]), Schedule(0.1), Schedule(0.5), normalize=False)
    method.update(torch.tensor([2.0]), torch.tensor([99.0]))  # nothing to transport at first
    assert method.theta.tolist() == pytest.approx([0.2])
    assert method.displacement.tolist() == pytest.approx([0.2])
    assert method.segment_point(0.25).tolist() == pytest.approx([0.05])
    method.update(torch.tensor([4.0]), torch.tensor([1.0]))
    assert method.direction.tolist() == pytest.approx([3.5])


def test_vanilla_takes_the_gradient_and_normalised_steps_have_their_length():
    _, start = quadratic()
    gradient = torch.arange(4.0, dtype=torch.float64)
    plain = vanilla_pg(start, 0.2)
    for t in range(3):
        before = plain.theta
        plain.update(gradient)
        torch.testing.assert_close(plain.theta - before, 0.2 * (2 / (t + 2)) ** 0.5 * gradient)
    for make in (n_pg_igt, n_sgdm):
        method = make(start, 0.2)
        for t in range(3):
            method.update(gradient)
            assert float(method.displacement.norm()) == pytest.approx(0.2 * 2 / (t + 2))


def test_a_zero_direction_does_not_move():
    method = n_pg_igt(torch.ones(2), 1.0)
    method.update(torch.zeros(2))
    assert method.theta.tolist() == [1.0, 1.0]


def test_rows_of_a_batch_are_independent_and_choose_their_own_options():
    _, start = quadratic(2)
    generator = torch.Generator().manual_seed(0)
    rows = MomentumAscent(
        start.expand(3, 4),
        Schedule(torch.tensor([[0.1], [0.2], [0.3]]).double(), torch.tensor([[1.0], [1.0], [0.5]])),
        Schedule(1.0, torch.tensor([[0.8], [2 / 3], [0.0]]).double()),
        extrapolate=torch.tensor([[True], [False], [False]]),
        normalize=torch.tensor([[True], [True], [False]]),
    )
    single = [n_pg_igt(start, 0.1), n_sgdm(start, 0.2), vanilla_pg(start, 0.3)]
    for _ in range(20):
        gradient = torch.randn(3, 4, generator=generator, dtype=torch.float64)
        points = rows.sampling_point()
        for row, method in enumerate(single):
            torch.testing.assert_close(points[row], method.sampling_point())
            method.update(gradient[row])
        rows.update(gradient)
    for row, method in enumerate(single):
        torch.testing.assert_close(rows.theta[row], method.theta)


def test_options_outside_their_range_are_refused():
    start = torch.zeros(2)
    with pytest.raises(ValueError, match="scale of step"):
        n_pg_igt(start, 0.0)
    with pytest.raises(ValueError, match="at most 1"):
        HessianAidedAscent(start, Schedule(0.1), Schedule(1.5))
    with pytest.raises(ValueError, match="finite"):
        vanilla_pg(torch.tensor([torch.nan]), 0.1)
