"""Projections against closed forms, cvxpy and the variational inequality."""

import numpy as np
import pytest
import torch

from descent.bilevel.projections import (
    AffineSet,
    SmallPolyhedron,
    least_distance,
    project_halfspace,
)

cvxpy = pytest.importorskip("cvxpy")


def draw(seed, *shape):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def by_cvxpy(point, rows, level, equal=None, goal=None):
    u = cvxpy.Variable(len(point))
    constraints = [rows @ u <= level]
    if equal is not None:
        constraints.append(equal @ u == goal)
    programme = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(u - point)), constraints)
    programme.solve(solver="CLARABEL")
    return None if u.value is None else u.value


@pytest.mark.parametrize("seed", range(5))
def test_small_polyhedron_agrees_with_cvxpy(seed):
    rows, level, points = draw(seed, 4, 6), draw(seed + 50, 4), 3 * draw(seed + 99, 5, 6)
    found = SmallPolyhedron(rows, level).project(points)
    for point, projected in zip(points, found, strict=True):
        expected = by_cvxpy(point.numpy(), rows.numpy(), level.numpy())
        np.testing.assert_allclose(projected, expected, atol=1e-5)
        exact = least_distance(point.numpy(), rows.numpy(), level.numpy())
        np.testing.assert_allclose(projected, exact, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_least_distance_with_equalities_agrees_with_cvxpy(seed):
    rows, level, point = (t.numpy() for t in (draw(seed, 3, 6), draw(seed + 9, 3), draw(seed, 6)))
    equal, goal = draw(seed + 20, 2, 6).numpy(), draw(seed + 30, 2).numpy()
    expected = by_cvxpy(point, rows, level, equal, goal)
    np.testing.assert_allclose(least_distance(point, rows, level, equal, goal), expected, atol=1e-5)


def test_an_empty_set_is_found_out():
    rows, level = np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([-1.0, -1.0])
    assert least_distance(np.zeros(2), rows, level) is None
    equal, goal = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0.0, 1.0])
    assert least_distance(np.zeros(2), rows, np.ones(2), equal, goal) is None


def test_rows_that_an_equality_fixes_are_no_contradiction():
    row = np.array([[0.1, 0.7, -0.3]])
    point = least_distance(np.array([1.0, 2.0, 3.0]), row, np.array([0.3]), row, np.array([0.3]))
    assert point is not None
    assert row @ point == pytest.approx(0.3)


def test_dependent_rows_do_no_harm():
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    level = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    projected = SmallPolyhedron(rows, level).project(torch.tensor([3.0, 2.0], dtype=torch.float64))
    torch.testing.assert_close(projected, torch.tensor([1.0, 0.5], dtype=torch.float64))


def test_halfspace_is_a_polyhedron_with_one_row():
    normal, points = draw(0, 5), draw(1, 20, 5)
    single = SmallPolyhedron(normal[None], torch.tensor([0.3], dtype=torch.float64))
    torch.testing.assert_close(project_halfspace(points, normal, 0.3), single.project(points))


def test_affine_set_of_deficient_rank():
    rows = draw(2, 3, 6)
    rows = torch.cat([rows, rows[:1] + rows[1:2]])
    inside = draw(3, 6)
    affine = AffineSet(rows, rows @ inside)
    point = draw(4, 7, 6)
    projected = affine.project(point)
    torch.testing.assert_close(projected @ rows.T, (rows @ inside).expand(7, 4))
    # the correction is orthogonal to the set
    assert float(((point - projected) * (projected - inside)).sum(1).abs().max()) < 1e-12


def test_refusals():
    with pytest.raises(ValueError, match="not be zero"):
        project_halfspace(torch.ones(2), torch.zeros(2), 1.0)
    with pytest.raises(ValueError, match=r"11 rows make 2\^11 active sets"):
        SmallPolyhedron(torch.ones(11, 2), torch.ones(11))
