"""Support vector machines: exact solutions against cvxpy and scikit-learn, gradients by differences."""

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from descent.bilevel.problem import BilevelProblem
from descent.bilevel.svm_experiments import (
    SVMSplits,
    draw_splits,
    random_walk,
    tuned_linear_svm,
    uniform_cost_search,
)
from descent.bilevel.svm_tuning import SVMTuning

cvxpy = pytest.importorskip("cvxpy")


def generators(count, seed=0):
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


@pytest.fixture(scope="module")
def splits():
    return draw_splits(generators(2), 40, 60, flip=0.1)


@pytest.fixture(scope="module")
def problem(splits):
    return splits.problem(scale=3.0)


def draw(seed, *shape):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def test_joint_projection_agrees_with_cvxpy(problem):
    x, y = draw(0, 2, 40), draw(1, 2, 31 + 40)
    px, py = problem.project_joint(x, y)
    torch.testing.assert_close(px, x.clamp(-2, 2 / 3))
    for i in range(2):
        u = cvxpy.Variable(71)
        rows = problem.rows[i].numpy()
        margins = 1 - u[31:] - rows @ u[:31] <= 0
        cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(u - y[i].numpy())), [margins]).solve(
            solver="CLARABEL"
        )
        np.testing.assert_allclose(py[i], u.value, atol=1e-5)
    again = problem.project_joint(px, py)
    torch.testing.assert_close(again[1], py, atol=1e-9, rtol=0)


def test_lower_solution_satisfies_the_optimality_conditions(problem):
    costs = draw(2, 2, 40).clamp(-2, 2)
    y, lam = problem.lower_solution(costs)
    x = costs / problem.scale
    g = problem.constraint(x, y)
    assert float(g.max()) < 1e-10
    assert float((lam * g).abs().max()) < 1e-10
    slope = problem.lower_gradient_y(x, y) + problem.constraint_product_y(x, y, lam)
    assert float(slope.abs().max()) < 1e-8


def test_equal_costs_give_scikit_learns_machine(splits, problem):
    u = problem.solve_lower(torch.full((2, 40), 0.5, dtype=torch.float64))
    for i in range(2):
        # scikit-learn: w'w / 2 + C sum(slack^2), offset penalised unless its scaling is large
        machine = LinearSVC(
            C=np.exp(0.5) / 2,
            loss="squared_hinge",
            tol=1e-10,
            max_iter=10**6,
            intercept_scaling=1e3,
        )
        machine.fit(splits.features[i].numpy(), splits.labels[i].numpy())
        np.testing.assert_allclose(u[i, :-1], machine.coef_[0], atol=2e-3)


def test_closed_form_gradients_are_those_of_autograd(problem):
    x, y, lam = draw(3, 2, 40), draw(4, 2, 71), draw(5, 2, 40)
    for method, args in (
        ("upper_gradient", (x, y)),
        ("lower_gradient_x", (x, y)),
        ("lower_gradient_y", (x, y)),
        ("constraint_product_y", (x, y, lam)),
    ):
        found = getattr(problem, method)(*args)
        expected = getattr(BilevelProblem, method)(problem, *args)
        torch.testing.assert_close(found, expected)


def test_implicit_gradient_agrees_with_differences(problem):
    costs = draw(6, 2, 40).clamp(-1, 1)
    gradient, _ = problem.implicit_gradient(costs)
    direction, h = draw(7, 2, 40), 1e-5

    def loss(c):
        return problem.validation_loss(problem.solve_lower(c))

    slope = (loss(costs + h * direction) - loss(costs - h * direction)) / (2 * h)
    torch.testing.assert_close((gradient * direction).sum(-1), slope, atol=1e-5, rtol=1e-4)


def test_splits_are_disjoint_and_flips_counted():
    split = draw_splits(generators(3), 80, 150, flip=0.3)
    assert split.flipped.sum(1).tolist() == [24, 24, 24]
    assert split.test.shape == (3, 569 - 230, 30)
    clean = draw_splits(generators(3), 80, 150)
    changed = clean.labels != split.labels
    torch.testing.assert_close(changed, split.flipped)


def test_joined_batches_are_solved_as_they_are_alone(splits):
    other = draw_splits(generators(3, seed=7), 40, 60)
    both = SVMSplits.joined([splits, other])
    costs = torch.zeros(5, 40, dtype=torch.float64)
    together = both.problem().solve_lower(costs)
    torch.testing.assert_close(together[:2], splits.problem().solve_lower(costs[:2]))
    torch.testing.assert_close(together[2:], other.problem().solve_lower(costs[2:]))


def test_searches(splits, problem):
    accuracies, costs = tuned_linear_svm(splits)
    assert min(accuracies) > 0.85
    assert len(costs) == 2
    loss, best = uniform_cost_search(problem, 5)
    at_best = problem.validation_loss(problem.solve_lower(best[:, None].expand(2, 40)))
    torch.testing.assert_close(loss, at_best)


def test_random_walk_stays_in_the_box_and_keeps_its_step_length():
    start = torch.zeros(2, 30, dtype=torch.float64)
    lengths = torch.full((1, 2), 0.5, dtype=torch.float64)
    end = random_walk(start, lengths, -5.0, 5.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(end.norm(dim=1), lengths[0])
    far = random_walk(start, lengths.expand(200, 2), -0.1, 0.1, torch.Generator().manual_seed(0))
    assert float(far.abs().max()) <= 0.1


def test_refusals(splits):
    sets = (splits.features, splits.labels, splits.validation, splits.validation_labels)
    with pytest.raises(ValueError, match="labels must be -1 or 1"):
        SVMTuning(sets[0], 0 * sets[1], *sets[2:])
    with pytest.raises(ValueError, match="low must be below high"):
        SVMTuning(*sets, low=2.0, high=2.0)
    with pytest.raises(ValueError, match="leave no test set"):
        draw_splits(generators(1), 500)
    with pytest.raises(ValueError, match="flip"):
        draw_splits(generators(1), 50, flip=1.0)
