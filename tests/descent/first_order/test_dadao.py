"""DADAO: its fixed point, invariants, exact concurrency, and the matrices of its events."""

import pytest
import torch

from descent.first_order.continuized_flow import DADAOConstants
from descent.first_order.dadao import DADAO
from descent.first_order.dadao_accounting import (
    CountedQuadratics,
    audit_continuized,
    audit_dadao,
    flow_of_handlers,
    jumps_of_handlers,
)
from descent.first_order.dadao_moments import curvature_profile, full_jump_process, uniform_rates
from descent.first_order.decentralized_problems import random_regression
from descent.first_order.gossip_graphs import (
    complete_graph,
    cycle_graph,
    graph_constants,
    path_graph,
)
from descent.first_order.poisson_events import Events, poisson_events

N, HORIZON = 6, 40.0


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def instance(edges, seed=0, factor=1.0):
    objective = random_regression(1, N, 30, 2, generator(seed))
    rates = uniform_rates(edges, N, factor)
    chi_1 = graph_constants(edges, N, rates)[0]
    constants = DADAOConstants.of(float(objective.mu), float(objective.smoothness), chi_1)
    events = poisson_events(torch.ones(N), edges, rates, HORIZON, generator(seed + 1))
    start = torch.randn(N, 2, generator=generator(seed + 2), dtype=torch.float64)
    return objective, constants, events, start


def test_the_fixed_point_stays():
    objective, constants, events, start = instance(cycle_graph(N))
    dadao = DADAO(objective, [constants] * N, start)
    best = objective.minimiser.expand(N, -1)
    slope = objective.gradient(torch.arange(N), best)
    shift = slope - constants.nu * best
    dadao.state = torch.stack([best, best, shift, shift, -slope, -slope], 1)
    before = dadao.state.clone()
    dadao.run(events, HORIZON)
    assert float((dadao.state - before).abs().max()) < 1e-9 * float(before.abs().max())


def test_dual_sums_vanish_at_a_common_time():
    objective, constants, events, start = instance(path_graph(N))
    sums = []
    dadao = DADAO(objective, [constants] * N, start)
    dadao.run(events, HORIZON, record=lambda _, state: sums.append(state[:, 4:].sum(0).abs().max()))
    assert max(sums) < 1e-10 * float(dadao.state.abs().max())


def test_it_finds_the_minimiser():
    objective, constants, _, start = instance(complete_graph(N))
    events = poisson_events(torch.ones(N), complete_graph(N), uniform_rates(complete_graph(N), N), 400.0, generator(5))  # fmt: skip
    state = DADAO(objective, [constants] * N, start).run(events, 400.0)
    assert float((state[:, 0] - objective.minimiser).abs().max()) < 1e-6 * float(
        objective.minimiser.abs().max()
    )


@pytest.mark.parametrize("window", [0.7, 4.0, HORIZON])
def test_independent_events_at_once_are_the_same_as_one_by_one(window):
    objective, constants, events, start = instance(complete_graph(N))
    alone = DADAO(objective, [constants] * N, start).run(events, HORIZON, HORIZON, concurrent=False)
    together = DADAO(objective, [constants] * N, start).run(events, HORIZON, window)
    assert float((alone - together).abs().max()) < 1e-10 * float(alone.abs().max())


def test_instances_side_by_side_are_the_same_as_alone():
    objective, constants, events, start = instance(cycle_graph(N))
    twice = DADAO(objective.repeated(2), [constants] * (2 * N), torch.cat([start, start]))
    both = twice.run(Events.together([events, events], N), HORIZON)
    alone = DADAO(objective, [constants] * N, start).run(events, HORIZON)
    torch.testing.assert_close(both[:N], alone)
    torch.testing.assert_close(both[N:], alone)


def test_the_plain_loop_of_the_equations():
    """Every formula once more, event by event, with a generic matrix exponential."""
    objective, c, events, start = instance(path_graph(N))
    state = torch.zeros(N, 6, 2, dtype=torch.float64)
    state[:, 0] = start
    clock = torch.zeros(N, dtype=torch.float64)
    steps = torch.tensor([[c.beta], [c.beta_tilde]], dtype=torch.float64)

    def bring(node, time):
        state[node] = torch.linalg.matrix_exp(c.drift() * (time - clock[node])) @ state[node]
        clock[node] = time

    for time, i, j in zip(events.times, events.first.tolist(), events.second.tolist(), strict=True):
        bring(i, time)
        if j < 0:
            x, y_tilde = state[i, 0].clone(), state[i, 3].clone()
            r = objective.gradient(torch.tensor([i]), x[None])[0] - c.nu * x - y_tilde
            state[i, 0] -= c.gamma * r
            state[i, 1] -= c.gamma_tilde * r
            state[i, 3] += (c.delta + c.delta_tilde) * r
        else:
            bring(j, time)
            m = state[i, 2] + state[i, 4] - state[j, 2] - state[j, 4]
            state[i, 4:] -= steps * m
            state[j, 4:] += steps * m
    for node in range(N):
        bring(node, HORIZON)
    found = DADAO(objective, [c] * N, start).run(events, HORIZON)
    assert float((found - state).abs().max()) < 1e-10 * float(state.abs().max())


def test_handlers_are_the_matrices_of_the_second_moment():
    edges, curvatures = cycle_graph(5), curvature_profile("mixed", 5, 20)
    constants = DADAOConstants.of(1.0, 20.0, 1.3)
    process = full_jump_process(curvatures, edges, torch.ones(5).double(), constants)
    jumps = torch.stack([process.jump(k) for k in range(10)])
    torch.testing.assert_close(jumps_of_handlers(curvatures, edges, constants), jumps)
    time = torch.tensor([0.4, 3.0], dtype=torch.float64)
    torch.testing.assert_close(
        flow_of_handlers(5, constants, time),
        torch.linalg.matrix_exp(process.drift * time[:, None, None]),
    )


def test_audit_finds_no_fault_in_dadao_and_one_in_every_coupled_event():
    objective, constants, events, start = instance(cycle_graph(N))
    counted = objective.to("cpu", kind=CountedQuadratics)
    accounts = audit_dadao(counted, constants, start, events, HORIZON)
    assert accounts.gradient_events + accounts.gossip_events == len(events)
    assert (accounts.gradient_faults, accounts.gossip_faults, accounts.conjugates) == (0, 0, 0)
    assert counted.gradients == accounts.gradient_events
    gossip = poisson_events(torch.zeros(N), cycle_graph(N), 5.0, 10.0, generator())
    coupled = audit_continuized(counted, cycle_graph(N), gossip, most=10)
    assert coupled.gradient_faults == coupled.gossip_faults == coupled.gossip_events == 10


def test_audit_sees_a_channel_that_touches_a_stranger():
    objective, constants, events, start = instance(cycle_graph(N))

    class Meddling(CountedQuadratics):
        def gradient(self, nodes, points):
            super().gradient(nodes, points)
            return super().gradient(nodes, points)

    accounts = audit_dadao(objective.to("cpu", kind=Meddling), constants, start, events, HORIZON)
    assert accounts.gradient_faults == accounts.gradient_events
    assert accounts.gossip_faults == 0


def test_wrong_arguments_are_told():
    objective, constants, _, start = instance(cycle_graph(N))
    with pytest.raises(ValueError, match="2 sets of constants for 6 nodes"):
        DADAO(objective, [constants] * 2, start)
