"""Problem instances: scaling, symmetry, reproducibility and refusals."""

import pytest
import torch

from descent.curvature.transport_problems import (
    blob_image,
    grid_cost,
    image_transport,
    permute_rows,
    point_clouds,
    random_assignment,
)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_grid_costs_by_hand():
    euclidean, manhattan = grid_cost(3, "squared_euclidean"), grid_cost(3, "manhattan")
    assert float(euclidean[0, 8]) == float(manhattan[0, 8]) == 1.0
    assert float(euclidean[0, 5]) == pytest.approx((1 + 4) / 8)
    assert float(manhattan[0, 5]) == pytest.approx(3 / 4)
    for cost in (euclidean, manhattan):
        assert torch.equal(cost, cost.T)
        assert not cost.diagonal().any()


def test_blobs_are_a_positive_image_of_mass_one_with_their_background():
    image = blob_image(12, stream(), background=0.01)
    assert image.shape == (12, 12)
    assert float(image.sum()) == pytest.approx(1.0)
    assert float(image.min()) >= 0.01 / 144
    assert torch.equal(image, blob_image(12, stream(), background=0.01))


def test_images_become_marginals_and_an_empty_pixel_is_told():
    first, second = blob_image(6, stream(1)), blob_image(6, stream(2))
    problem = image_transport(3 * first, second, "manhattan", 50.0)
    torch.testing.assert_close(problem.source, first.flatten())
    first[2, 3] = 0.0
    with pytest.raises(ValueError, match=r"source\[15\] = 0.*uniform background"):
        image_transport(first, second, "manhattan", 50.0)


def test_clouds_and_assignments_have_uniform_marginals_and_scaled_costs():
    clouds = point_clouds(30, 10.0, stream())
    assert float(clouds.cost.max()) == 1.0
    assert float(clouds.cost.min()) >= 0.0
    assignment = random_assignment(30, 10.0, stream())
    assert 0.4 < float(assignment.cost.mean()) < 0.6
    for problem in (clouds, assignment):
        torch.testing.assert_close(problem.source, torch.full((30,), 1 / 30, dtype=torch.float64))


def test_squared_distances_of_clouds_have_the_rank_of_the_plane():
    assert int(torch.linalg.matrix_rank(point_clouds(20, 1.0, stream()).cost)) == 4


def test_permuted_rows_are_the_same_rows():
    problem = random_assignment(12, 10.0, stream())
    mixed = permute_rows(problem, stream(1))
    assert not torch.equal(mixed.cost, problem.cost)
    assert torch.equal(mixed.cost.sort(0).values, problem.cost.sort(0).values)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: grid_cost(1, "manhattan"), "side must be at least 2, got 1"),
        (lambda: grid_cost(4, "chebyshev"), "metric must be .* got 'chebyshev'"),
        (lambda: blob_image(4, stream(), background=1.5), "background must be between 0 and 1, got 1.5"),
        (lambda: blob_image(4, stream(), blobs=0), "blobs must be at least 1, got 0"),
        (lambda: image_transport(torch.ones(2, 3), torch.ones(2, 3), "manhattan", 1.0), "square images"),
        (lambda: random_assignment(0, 1.0, stream()), "size must be at least 1, got 0"),
        (lambda: point_clouds(0, 1.0, stream()), "size must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
