"""The arms of the experiments do what they say: sabotage that is sabotage, cosines that are cosines."""

import torch

from descent.beyond_gradients.consensus import consensus_point
from descent.beyond_gradients.consensus_experiments import (
    NormalisedObjective,
    PermutedObjective,
    consensus_displacement,
    cosines_along_run,
    gaussian_cloud,
    hop_alignment,
    hop_samples,
    sample_size_along_path,
)
from descent.beyond_gradients.landscapes import quadratic, rastrigin

IDENTITY = torch.eye(3, dtype=torch.float64)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=stream(seed), dtype=torch.float64)


def test_permutation_keeps_each_cloud_s_energies_and_their_places_not():
    cloud = draw(4, 50, 2)
    energies, mixed = rastrigin(cloud), PermutedObjective(rastrigin, stream())(cloud)
    assert torch.equal(energies.sort(-1).values, mixed.sort(-1).values)
    assert not torch.equal(energies, mixed)


def test_normalised_energies_forget_the_scale():
    cloud = draw(4, 50, 2)
    torch.testing.assert_close(
        NormalisedObjective(rastrigin)(cloud),
        NormalisedObjective(lambda x: 8 * rastrigin(x))(cloud),
    )


def test_repeated_particles_give_the_same_hop_whatever_their_number():
    hops = hop_samples(
        rastrigin,
        draw(2),
        sigma=0.3,
        alpha=4.0,
        counts=(10, 40, 80),
        repeats=5,
        generator=stream(),
        distinct=10,
    )
    assert hops.shape == (3, 5, 2)
    torch.testing.assert_close(hops[0], hops[2])


def test_small_hops_on_a_linear_energy_are_gradient_steps():
    slope = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    points = draw(20, 3)
    cosine, length = hop_alignment(
        lambda x: x @ slope,
        slope.expand(20, 3),
        points,
        sigma=0.1,
        alpha=2.0,
        count=50_000,
        generator=stream(),
    )
    assert float(cosine.min()) > 0.99
    assert float((length - 1).abs().max()) < 0.1


def test_displacement_vanishes_for_full_drift_without_noise_and_without_weights():
    options = {"spread": 0.3, "noise_level": 0.0, "count": 50, "runs": 3, "generator": stream()}
    bowl = quadratic(IDENTITY)
    full = consensus_displacement(bowl, draw(3), drift=1.0, alpha=5.0, **options)
    unweighted = consensus_displacement(bowl, draw(3), drift=0.5, alpha=0.0, **options)
    half = consensus_displacement(bowl, draw(3), drift=0.5, alpha=5.0, **options)
    assert float(full.max()) < 1e-12
    assert float(unweighted.max()) < 1e-12
    assert float(half.min()) > 1e-3


def test_constant_noise_displaces_a_point_cloud_and_proportional_noise_does_not():
    options = {"spread": 1e-6, "drift": 1.0, "noise_level": 0.3, "alpha": 5.0, "count": 500}
    bowl = quadratic(IDENTITY)
    for constant, low, high in ((True, 1e-2, 1.0), (False, 0.0, 1e-4)):
        moved = consensus_displacement(
            bowl, draw(3), runs=4, generator=stream(), constant_noise=constant, **options
        )
        assert low <= float(moved.min())
        assert float(moved.max()) <= high


def test_the_offset_of_the_consensus_is_a_preconditioned_gradient_for_small_alpha():
    slope = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    cloud = draw(2, 4000, 3) * torch.tensor([1.0, 0.3, 2.0], dtype=torch.float64)
    found = cosines_along_run(
        lambda x: x @ slope,
        lambda x: slope.expand_as(x),
        cloud,
        steps=3,
        lam=1.0,
        sigma=0.1,
        dt=0.1,
        alpha=1e-3,
        generator=stream(),
    )
    assert {k: v.shape for k, v in found.items()} == dict.fromkeys(found, (3, 2))
    assert float(found["offset"].min()) > 0.999


def test_shapes_of_clouds_and_sample_sizes():
    cloud = gaussian_cloud(draw(4, 2), 0.5, 7, stream())
    assert cloud.shape == (4, 7, 2)
    sizes = sample_size_along_path(rastrigin, [cloud, cloud], 0.0)
    torch.testing.assert_close(sizes, torch.full((2, 4), 7.0, dtype=torch.float64))
    centre = consensus_point(rastrigin(cloud), gaussian_cloud(draw(4, 2), 0.0, 7), 0.0)
    torch.testing.assert_close(centre, draw(4, 2))
