"""Peers are stopped at the first success, within their budget, and count what they evaluate."""

import numpy as np
import torch

from descent.beyond_gradients.evolution_peers import (
    cma_evaluations_to_success,
    differential_evolution_to_success,
    first_success,
)
from descent.beyond_gradients.landscapes import CountedObjective


def sphere(points):
    return points.square().sum(-1)


def near(point):
    return float(np.abs(point).max()) < 0.1


def never(point):
    return False


def test_cma_finds_a_sphere_and_counts():
    counted = CountedObjective(sphere)
    used = cma_evaluations_to_success(counted, np.full(3, 2.0), 1.0, near=near, budget=5000)
    assert used == counted.evaluations < 2000


def test_cma_gives_up_at_the_budget():
    counted = CountedObjective(sphere)
    assert (
        cma_evaluations_to_success(counted, np.ones(2), 1.0, near=never, budget=300, population=8)
        is None
    )
    assert 300 <= counted.evaluations < 400


def test_differential_evolution_finds_a_sphere_and_respects_its_budget():
    population = np.random.default_rng(0).standard_normal((20, 3)) + 2
    counted = CountedObjective(sphere)
    used = differential_evolution_to_success(counted, population, near=near, budget=5000)
    assert used == counted.evaluations < 3000
    counted = CountedObjective(sphere)
    assert differential_evolution_to_success(counted, population, near=never, budget=300) is None
    assert counted.evaluations <= 300


def test_first_success_of_each_run():
    hits = torch.tensor([[False, False, True], [True, False, False], [False, False, True]])
    assert first_success(hits, 200) == [400, None, 200]
