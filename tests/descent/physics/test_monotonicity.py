"""Certificates of monotone features: linear scores, signs, and a dense sweep."""

import torch

from descent.physics.clarke_relaxations import METHODS
from descent.physics.monotonicity import certify, derivative_bounds, feature_boxes
from descent.physics.relu_network import Dense, ReluNetwork
from tests.descent.physics.networks import drawn


def test_boxes_free_one_feature():
    points = torch.tensor([[0.2, 0.7], [0.1, 0.4]], dtype=torch.float64)
    lower, upper = feature_boxes(points)
    assert lower[0].tolist() == [[0, 0.7], [0.2, 0]]
    assert upper[1].tolist() == [[1, 0.4], [0.1, 1]]


def test_a_linear_score_is_certified_by_its_signs():
    weight = torch.tensor([[1.0, -2.0, 0.0]], dtype=torch.float64)
    network = ReluNetwork((Dense(weight, torch.zeros(1, dtype=torch.float64)),))
    low, high = weight.clone(), weight.clone()
    assert certify(low, high).tolist() == [[1, -1, 1]]
    assert certify(low - 0.5, high + 1.5).tolist() == [[1, -1, 0]]
    assert network.in_size == 3


def test_certificates_survive_a_sweep_turn_with_the_sign_and_grow_with_the_method():
    network, _, _, generator = drawn(3, (4, 16, 16, 2))
    points = torch.rand(30, 4, generator=generator, dtype=torch.float64)
    g0 = torch.tensor([0.0, 1.0], dtype=torch.float64)
    pairs = derivative_bounds(network, points, g0, METHODS)
    found = {m: certify(*pair) for m, pair in zip(METHODS, pairs, strict=True)}
    assert (found["linear"] != 0).any()
    assert ((found["recurjac"] == 0) | (found["recurjac"] == found["linear"])).all()
    assert ((found["ibp"] == 0) | (found["ibp"] == found["recurjac"])).all()
    assert torch.equal(certify(*derivative_bounds(network, points, -g0)[0]), -found["linear"])
    grid = torch.linspace(0, 1, 50, dtype=torch.float64)
    for j in range(4):
        sweep = points[:, None, :].repeat(1, 50, 1)
        sweep[:, :, j] = grid
        steps = (network(sweep) @ g0).diff(dim=1)
        sign = found["linear"][:, j]
        assert (steps[sign == 1] >= -1e-12).all()
        assert (steps[sign == -1] <= 1e-12).all()
