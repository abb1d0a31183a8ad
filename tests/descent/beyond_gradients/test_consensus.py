"""CBO and consensus hopping: closed forms, invariances, limits of alpha, agreement with cbx."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.beyond_gradients.consensus import (
    cbo_step,
    consensus_based_optimization,
    consensus_hopping,
    consensus_point,
    consensus_weights,
    effective_sample_size,
    hop,
)
from descent.beyond_gradients.landscapes import grand_canyon, quadratic, rastrigin


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=stream(seed), dtype=torch.float64)


PARAMETERS = {"lam": 1.0, "sigma": 1.6, "dt": 0.01, "alpha": 100.0}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    exponent=st.floats(-3, 15),
    shift=st.floats(-1e3, 1e3),
    count=st.integers(1, 30),
)
def test_weights_are_a_distribution_that_ignores_shifts_and_order(seed, exponent, shift, count):
    energies, alpha = draw(3, count, seed=seed).round(decimals=6), 10**exponent
    weights = consensus_weights(energies, alpha)
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, dtype=torch.float64))
    reversed_weights = consensus_weights(energies.flip(-1), alpha).flip(-1)
    torch.testing.assert_close(weights, reversed_weights)
    # the shift costs digits of the energies, which alpha amplifies
    loss = 4 * alpha * 1e3 * 2.3e-16
    if loss < 1e-3:
        moved = consensus_weights(energies + shift, alpha)
        torch.testing.assert_close(weights, moved, rtol=2 * loss + 1e-12, atol=2 * loss + 1e-12)


def test_consensus_point_by_hand():
    energies = torch.tensor([0.0, math.log(2.0)], dtype=torch.float64)
    particles = torch.tensor([[0.0, 3.0], [3.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([1.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(consensus_point(energies, particles, 1.0), expected)
    torch.testing.assert_close(consensus_point(energies, particles, 0.0), particles.mean(0))
    torch.testing.assert_close(consensus_point(energies, particles, math.inf), particles[0])
    torch.testing.assert_close(consensus_point(energies, particles, 1e15), particles[0])


def test_ties_at_infinite_alpha_share_the_weight():
    energies = torch.tensor([1.0, 0.0, 0.0])
    assert consensus_weights(energies, math.inf).tolist() == [0.0, 0.5, 0.5]


@pytest.mark.parametrize("alpha", [0.5, 1e15, math.inf])
def test_huge_and_infinite_energies_do_no_harm(alpha):
    energies = torch.tensor([1e300, 2.0, math.inf, 1e300], dtype=torch.float64)
    particles = draw(4, 2)
    torch.testing.assert_close(consensus_point(energies, particles, alpha), particles[1])
    assert float(effective_sample_size(energies, alpha)) == 1.0


def test_effective_sample_size_counts_equal_weights():
    assert float(effective_sample_size(torch.zeros(7), 3.0)) == pytest.approx(7)


@pytest.mark.parametrize("noise", ["isotropic", "anisotropic"])
def test_one_step_is_the_formula(noise):
    particles, normals = draw(2, 5, 3), draw(2, 5, 3, seed=1)
    moved, consensus = cbo_step(particles, rastrigin, noise=noise, normals=normals, **PARAMETERS)
    for run in range(2):
        weights = np.exp(-100.0 * (rastrigin(particles[run]) - rastrigin(particles[run]).min()))
        point = (weights[:, None] * particles[run]).sum(0) / weights.sum()
        torch.testing.assert_close(consensus[run], point)
        for i in range(5):
            offset = particles[run, i] - point
            size = offset.norm() if noise == "isotropic" else offset.abs()
            expected = (
                particles[run, i] - 0.01 * offset + 1.6 * math.sqrt(0.01) * size * normals[run, i]
            )
            torch.testing.assert_close(moved[run, i], expected)


def test_diffusion_scales_with_the_square_root_of_the_time_step():
    # the variance of a sum of k steps of length dt/k is that of one step: only sqrt(dt) does that
    particles, normals = draw(1, 4, 2), draw(1, 4, 2, seed=1)
    still = {"lam": 0.0, "sigma": 1.0, "alpha": 1.0}
    long, _ = cbo_step(particles, rastrigin, dt=0.04, normals=normals, **still)
    short, _ = cbo_step(particles, rastrigin, dt=0.01, normals=normals, **still)
    torch.testing.assert_close(long - particles, 2 * (short - particles))


def test_one_dimensional_noise_models_agree_up_to_sign():
    particles, normals = draw(6, 1), draw(6, 1, seed=1)
    steps = [
        cbo_step(particles, rastrigin, noise=kind, normals=normals, **PARAMETERS)[0]
        for kind in ("isotropic", "anisotropic")
    ]
    torch.testing.assert_close(*steps)


def test_at_full_drift_without_noise_all_particles_meet_at_the_consensus():
    moved, consensus = cbo_step(
        draw(4, 9, 2), grand_canyon, lam=10.0, sigma=0.0, dt=0.1, alpha=2.0, generator=stream()
    )
    torch.testing.assert_close(moved, consensus.unsqueeze(-2).expand(4, 9, 2))


def test_runs_are_independent_and_batched_as_they_are_alone():
    cloud = draw(3, 8, 2)
    noise = draw(3, 8, 2, seed=2)
    together, _ = cbo_step(cloud, grand_canyon, normals=noise, **PARAMETERS)
    for run in range(3):
        alone, _ = cbo_step(cloud[run], grand_canyon, normals=noise[run], **PARAMETERS)
        torch.testing.assert_close(together[run], alone)


def test_translation_and_rotation_of_the_problem_translate_and_rotate_the_path():
    turn = torch.linalg.qr(draw(2, 2, seed=3))[0]
    shift = torch.tensor([3.0, -1.0], dtype=torch.float64)
    cloud, normals = draw(10, 2), draw(10, 2, seed=1)
    plain, _ = cbo_step(cloud, grand_canyon, normals=normals, **PARAMETERS)
    moved, _ = cbo_step(
        cloud @ turn.T + shift,
        lambda x: grand_canyon((x - shift) @ turn),
        normals=normals @ turn.T,
        **PARAMETERS,
    )
    torch.testing.assert_close(moved, plain @ turn.T + shift)


def test_infinite_alpha_sees_only_the_order_of_the_energies():
    paths = [
        consensus_hopping(
            draw(2, 2), f, steps=5, sigma=0.3, alpha=math.inf, count=20, generator=stream()
        ).path
        for f in (grand_canyon, lambda x: torch.atan(grand_canyon(x)) * 3 - 1)
    ]
    assert torch.equal(*paths)


def test_hop_mean_on_a_quadratic_is_the_proximal_point():
    matrix = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    start, tau, alpha = torch.tensor([0.6, -0.4], dtype=torch.float64), 0.2, 5.0
    hops, cloud = hop(
        start.expand(100, 2),
        quadratic(matrix),
        sigma=(tau / alpha) ** 0.5,
        alpha=alpha,
        count=4000,
        generator=stream(),
    )
    exact = torch.linalg.solve(torch.eye(2, dtype=torch.float64) + tau * matrix, start)
    assert cloud.shape == (100, 4000, 2)
    assert float((hops.mean(0) - exact).norm()) < 2e-3
    assert float((start - exact).norm()) > 0.1


def test_the_path_is_recorded_before_the_move_and_clouds_are_kept_on_request():
    cloud = draw(2, 6, 2)
    run = consensus_based_optimization(
        cloud, rastrigin, steps=7, generator=stream(), keep_clouds_every=3, **PARAMETERS
    )
    assert run.path.shape == (7, 2, 2)
    assert torch.equal(run.clouds[0], cloud)
    assert len(run.clouds) == 3
    torch.testing.assert_close(run.path[0], consensus_point(rastrigin(cloud), cloud, 100.0))
    hopping = consensus_hopping(
        cloud[:, 0], rastrigin, steps=7, sigma=0.5, alpha=1.0, count=4, keep_clouds_every=3
    )
    assert hopping.path.shape == (7, 2, 2)
    assert [c.shape for c in hopping.clouds] == [(2, 4, 2)] * 3
    torch.testing.assert_close(
        hopping.path[-1], consensus_point(rastrigin(hopping.particles), hopping.particles, 1.0)
    )


def test_dtype_is_kept_and_numpy_objectives_are_welcome():
    cloud = draw(5, 3).float()

    def in_numpy(points):
        return np.square(points.numpy()).sum(-1)

    moved, consensus = cbo_step(cloud, in_numpy, generator=stream(), **PARAMETERS)
    assert moved.dtype == consensus.dtype == torch.float32


@pytest.mark.parametrize("noise", ["isotropic", "anisotropic"])
def test_fifty_steps_agree_with_cbx_fed_with_the_same_noise(noise):
    dynamics = pytest.importorskip("cbx.dynamics")
    cloud = 8 + 0.5 * draw(3, 40, 2)
    source = stream(5)
    peer = dynamics.CBO(
        lambda x: grand_canyon(torch.from_numpy(x)).numpy(),
        f_dim="3D",
        check_f_dims=False,
        verbosity=0,
        max_it=50,
        x=cloud.numpy(),
        noise=noise,
        lamda=1.0,
        sigma=1.6,
        dt=0.01,
        alpha=100.0,
        sampler=lambda size: torch.randn(size, generator=source, dtype=torch.float64).numpy(),
    )
    # cbx multiplies the anisotropic noise by the signed offset, we by its magnitude: the same law
    normals = torch.Generator().manual_seed(5)
    particles = cloud
    for _ in range(50):
        peer.step()
        drawn = torch.randn(3, 40, 2, generator=normals, dtype=torch.float64)
        if noise == "anisotropic":
            point = consensus_point(grand_canyon(particles), particles, 100.0)
            drawn = drawn * torch.sign(particles - point.unsqueeze(-2))
        particles, consensus = cbo_step(
            particles, grand_canyon, noise=noise, normals=drawn, **PARAMETERS
        )
        torch.testing.assert_close(consensus, torch.from_numpy(peer.consensus[:, 0]))
    torch.testing.assert_close(particles, torch.from_numpy(peer.x))


def test_wrong_arguments_are_told():
    cloud = draw(4, 2)
    with pytest.raises(ValueError, match="alpha must be from 0 to infinity, got -1"):
        consensus_weights(torch.zeros(3), -1.0)
    for bad in ([math.nan, 0.0], [math.inf, math.inf]):
        with pytest.raises(ValueError, match="needs a lowest energy that is finite"):
            consensus_weights(torch.tensor(bad), 1.0)
    with pytest.raises(ValueError, match=r"energies of shape \(3,\) do not fit"):
        consensus_point(torch.zeros(3), cloud, 1.0)
    with pytest.raises(ValueError, match="noise must be 'isotropic' or 'anisotropic', got 'pink'"):
        cbo_step(cloud, rastrigin, noise="pink", **PARAMETERS)
    with pytest.raises(ValueError, match="dt > 0; got 1.0, 1.6, 0"):
        cbo_step(cloud, rastrigin, **{**PARAMETERS, "dt": 0})
    with pytest.raises(ValueError, match="sigma > 0 and count >= 1; got 0, 5"):
        hop(cloud, rastrigin, sigma=0, alpha=1.0, count=5)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        consensus_hopping(cloud, rastrigin, steps=0, sigma=1.0, alpha=1.0, count=5)
