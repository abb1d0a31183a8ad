"""Levenberg-Marquardt: SciPy's minimisers, one step on linear problems, independence of the batch."""

import numpy as np
import pytest
import scipy.optimize
import torch

from descent.physics import levenberg_marquardt as module
from descent.physics.diffusion_sorption import DiffusionSorption
from descent.physics.domain_router import DomainRouter
from descent.physics.hard_constraint import ConstraintProblem, HardConstraint
from descent.physics.levenberg_marquardt import levenberg_marquardt


class Linear:
    """min |A w - y|^2 in the protocol of the solver."""

    def __init__(self, matrix, target):
        self.matrix, self.target = matrix, target

    def normal_equations(self, weights):
        r = (self.matrix @ weights[..., None])[..., 0] - self.target
        gradient = (r[..., None, :] @ self.matrix)[..., 0, :]
        return self.matrix.mT @ self.matrix, gradient, r.square().sum(-1)

    def select(self, index):
        return Linear(self.matrix[index], self.target[index])


def problem(batch=3, seed=0, wide=4):
    generator = torch.Generator().manual_seed(seed)
    equation = DiffusionSorption(12, 16)
    t = torch.linspace(0, 1, 12, dtype=torch.float64)[:, None, None]
    x = torch.linspace(0, 1, 16, dtype=torch.float64)[:, None]
    rate = 1 + torch.rand(batch, 1, 1, wide - 1, generator=generator, dtype=torch.float64)
    fronts = torch.exp(-rate * torch.arange(1, wide) * x / (t + 0.1).sqrt())
    basis = torch.cat((torch.ones_like(fronts[..., :1]), fronts), -1)
    layer = HardConstraint(equation, DomainRouter.blocks((12, 16), (1, 1)), ridge=1e-2)
    initial = 0.05 + 0.1 * torch.rand(batch, generator=generator, dtype=torch.float64)
    return layer.problem(basis, initial)


def test_the_minimum_is_that_of_scipy():
    batch = problem()
    found = levenberg_marquardt(batch, torch.ones(3, 1, 4, dtype=torch.float64), 200, 0.0)
    for k in range(3):
        alone = batch.select(torch.arange(3)).select(torch.tensor([k]))

        def residual(w, alone=alone):
            return alone.residual(torch.from_numpy(w)[None])[0].numpy()

        def jacobian(w, alone=alone):
            return alone.jacobian(torch.from_numpy(w)[None])[0].numpy()

        peer = scipy.optimize.least_squares(
            residual, np.ones(4), jacobian, method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15
        )
        np.testing.assert_allclose(found.weights[k, 0], peer.x, rtol=1e-7)
        np.testing.assert_allclose(found.cost[k, 0], 2 * peer.cost, rtol=1e-12)


def test_a_linear_problem_is_solved_by_nearly_undamped_steps():
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(5, 20, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(5, 20, generator=generator, dtype=torch.float64)
    found = levenberg_marquardt(Linear(a, y), torch.zeros(5, 3, dtype=torch.float64), 20, 1e-12)
    exact = torch.linalg.lstsq(a, y[..., None]).solution[..., 0]
    torch.testing.assert_close(found.weights, exact, rtol=1e-8, atol=1e-9)
    assert found.converged.all()
    assert (found.iterations <= 4).all()


@pytest.mark.parametrize("small_batch", [2, 1000])
def test_the_answer_does_not_depend_on_the_batch(monkeypatch, small_batch):
    monkeypatch.setattr(module, "SMALL_BATCH", small_batch)
    batch, start = problem(12), torch.ones(12, 1, 4, dtype=torch.float64)
    found = levenberg_marquardt(batch, start, 40, 1e-6)
    for k in range(12):
        alone = levenberg_marquardt(batch.select(torch.tensor([k])), start[k], 40, 1e-6)
        assert alone.iterations[0] == found.iterations[k, 0]
        torch.testing.assert_close(alone.weights[0], found.weights[k, 0], rtol=1e-9, atol=1e-11)


def test_the_cost_never_rises_with_iterations():
    batch, start = problem(4, 3), torch.ones(4, 1, 4, dtype=torch.float64)
    costs = torch.stack([levenberg_marquardt(batch, start, n, 0.0).cost for n in range(1, 12)])
    assert (costs.diff(dim=0) <= 1e-11 * costs[:-1]).all()


def test_without_tolerance_the_gradient_vanishes_to_round_off():
    batch = problem(3, 5)
    found = levenberg_marquardt(batch, torch.ones(3, 1, 4, dtype=torch.float64), 100, 0.0)
    assert (found.gradient_norm < 1e-10).all()
    assert not found.converged.any()


def test_a_problem_of_one_axis_less_keeps_its_shape():
    whole = problem(1)
    single = ConstraintProblem(
        whole.equation,
        whole.operators[0],
        whole.matrix[0],
        whole.target[0],
        whole.weight,
        whole.ridge,
    )
    found = levenberg_marquardt(single, torch.ones(1, 4, dtype=torch.float64))
    assert found.weights.shape == (1, 4)
    assert found.iterations.shape == (1,)


def test_errors_name_the_fault():
    start = torch.ones(1, 1, 4)
    with pytest.raises(TypeError, match="float64 here, not torch.float32"):
        levenberg_marquardt(problem(1), start)
    for options in ({"max_iter": 0}, {"tol": -1.0}, {"damping": 0.0}):
        with pytest.raises(ValueError, match="are needed, got"):
            levenberg_marquardt(problem(1), start.double(), **options)
