"""The loops on bandit and control tasks: pairing of arms, counting, curves, error messages."""

import math

import pytest
import torch

from descent.policies.bandit_experiments import AdamAscent, ascend
from descent.policies.control_experiments import (
    learning_curve,
    mean_gradient,
    mean_hessian_vector,
)
from descent.policies.control_rollouts import CartPole, PendulumBalance
from descent.policies.policy_ascent import Schedule, harpg, n_harpg, n_pg_igt, vanilla_pg
from descent.policies.sample_ledger import SampleLedger
from tests.descent.policies.test_gaussian_bandit import bandit


def start(*shape):
    return torch.full((*shape, 3), -0.2, dtype=torch.float64)


@pytest.mark.parametrize("make", [n_pg_igt, n_harpg])
def test_arms_of_a_seed_share_their_randomness(make):
    together = make(start(2, 4), torch.tensor([0.3, 0.1], dtype=torch.float64)[:, None, None])
    alone = make(start(4), 0.1)
    for method in (together, alone):
        ascend(bandit(), method, 30, [30], torch.Generator().manual_seed(0))
    torch.testing.assert_close(together.theta[1], alone.theta)


def test_the_trace_counts_samples_and_knows_its_rows():
    trace = ascend(bandit(), n_harpg(start(1, 5), 0.3), 20, [5, 20], torch.Generator())
    assert trace.samples.tolist() == [10, 40]
    assert trace.at(20) == 1
    assert trace.error.shape == trace.gap.shape == (2, 1, 5)
    assert trace.samples_to(10.0).tolist() == [10]
    assert math.isinf(float(trace.samples_to(-1.0)))
    with pytest.raises(ValueError, match="not recorded"):
        trace.at(7)
    with pytest.raises(ValueError, match="is to be recorded"):
        ascend(bandit(), n_pg_igt(start(1, 5), 0.3), 20, [50], torch.Generator())


def test_every_method_gets_closer_to_the_optimum():
    for method in (
        n_pg_igt(start(1, 16), 0.5),
        harpg(start(1, 16), 0.1),
        vanilla_pg(start(1, 16), 0.1),
        AdamAscent(start(1, 16), Schedule(0.3, 0.5)),
    ):
        trace = ascend(bandit(), method, 5000, [1, 5000], torch.Generator().manual_seed(1))
        assert float(trace.gap[1].mean()) < 0.5 * float(trace.gap[0].mean())


@pytest.mark.parametrize("task", [CartPole(20), PendulumBalance(8)])
def test_mean_estimates_are_those_of_the_expected_return(task):
    """Finite differences of mean gradients agree with mean Hessian-vector products, within noise."""
    theta = torch.full((1, task.dimension), 0.2, dtype=torch.float64)
    u = torch.zeros_like(theta)
    u[:, 1] = 0.3
    count, repeats = 4000, 8
    found = []
    for seed in range(repeats):
        generator = torch.Generator().manual_seed(seed)
        ahead, behind = (
            mean_gradient(task, theta + s * u / 2, count, 0.9, generator) for s in (1, -1)
        )
        product = mean_hessian_vector(task, theta, u, count, 0.9, generator)
        found.append(product - (ahead - behind))
    rows = torch.cat(found)
    assert bool((rows.mean(0).abs() < 4 * rows.std(0) / repeats**0.5 + 0.02).all())


def test_the_ledger_counts_episodes_and_sees_off_policy_use():
    ledger = SampleLedger(CartPole(20))
    theta = torch.zeros(1, 4, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    learning_curve(
        ledger, n_harpg(theta, 0.3), 40, generator, batch=1, evaluations=1, evaluation_episodes=1
    )
    assert ledger.episodes == 40 + 2
    assert ledger.off_policy == 0
    episodes = ledger.rollout(theta, generator)
    ledger.log_probability(episodes, theta + 1)
    assert ledger.off_policy == pytest.approx(2)
    other = CartPole(20).rollout(theta, generator)
    with pytest.raises(ValueError, match="not the last"):
        ledger.log_probability(other, theta)


def test_learning_curves_rise_on_cartpole_and_have_their_area():
    curve = learning_curve(
        CartPole(),
        vanilla_pg(torch.zeros(1, 5, 4, dtype=torch.float64), 0.1),
        150,
        torch.Generator().manual_seed(0),
        evaluations=5,
    )
    assert curve.episodes.tolist() == [0, 30, 60, 90, 120, 150]
    assert float(curve.returns[-1].mean()) > 3 * float(curve.returns[0].mean())
    low, high = curve.returns.amin(0), curve.returns.amax(0)
    assert bool(((low <= curve.area) & (curve.area <= high)).all())
    with pytest.raises(ValueError, match="fewer than the evaluations"):
        learning_curve(CartPole(), vanilla_pg(torch.zeros(1, 4), 0.1), 10, torch.Generator())
