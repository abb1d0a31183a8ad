"""Sharpness through the Gram matrix: closed forms, the Hessian by autograd, curvlinops as peer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from descent.stability.sharpness import (
    alignment_factor,
    gauss_newton_gram,
    per_sample_jacobian,
    sharpness,
)


@pytest.fixture
def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    return model, torch.randn(12, 5, dtype=torch.float64)


def test_jacobian_matches_one_backward_pass_per_sample(network):
    model, inputs = network
    rows = []
    for sample in inputs:
        grads = torch.autograd.grad(model(sample[None]).squeeze(), list(model.parameters()))
        rows.append(torch.cat([g.flatten() for g in grads]))
    torch.testing.assert_close(per_sample_jacobian(model, inputs, chunk_size=5), torch.stack(rows))


def test_gram_shares_the_spectrum_of_the_gauss_newton_matrix(network):
    jacobian = per_sample_jacobian(*network)
    full = sharpness(jacobian.T @ jacobian / 12)
    for small, large in zip(sharpness(gauss_newton_gram(jacobian)), full, strict=True):
        torch.testing.assert_close(small, large, rtol=1e-10, atol=0)


def test_gram_is_the_hessian_of_the_half_squared_loss_at_interpolation(network):
    model, inputs = network
    names = [name for name, _ in model.named_parameters()]
    shapes = [value.shape for value in model.parameters()]
    flat = torch.cat([value.detach().flatten() for value in model.parameters()])
    labels = model(inputs).detach()

    def loss(vector):
        pieces = vector.split([shape.numel() for shape in shapes])
        values = {
            name: piece.view(shape)
            for name, piece, shape in zip(names, pieces, shapes, strict=True)
        }
        return 0.5 * (torch.func.functional_call(model, values, (inputs,)) - labels).square().mean()

    hessian = sharpness(torch.func.hessian(loss)(flat))
    for gram, exact in zip(
        sharpness(gauss_newton_gram(per_sample_jacobian(model, inputs))), hessian, strict=True
    ):
        torch.testing.assert_close(gram, exact, rtol=1e-9, atol=0)


def test_agrees_with_curvlinops(network):
    """Peer: generalised Gauss-Newton operator of curvlinops; its MSELoss has no factor one half."""
    curvlinops = pytest.importorskip("curvlinops")
    model, inputs = network
    measured = sharpness(gauss_newton_gram(per_sample_jacobian(model, inputs)))
    operator = curvlinops.GGNLinearOperator(
        model,
        nn.MSELoss(),
        list(model.parameters()),
        [(inputs, torch.zeros(12, 1, dtype=torch.float64))],
    )
    size = sum(value.numel() for value in model.parameters())
    dense = 0.5 * (operator @ torch.eye(size, dtype=torch.float64)).detach()
    assert float(measured.trace) == pytest.approx(float(dense.trace()), rel=1e-6)
    assert float(measured.largest) == pytest.approx(
        float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-6
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 9))
def test_chain_of_norms(seed, n, p):
    jacobian = torch.randn(
        3, n, p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    measured = sharpness(gauss_newton_gram(jacobian))
    slack = 1 + 1e-12
    assert (measured.largest <= measured.frobenius * slack).all()
    assert (measured.frobenius <= measured.trace * slack).all()
    assert (measured.trace <= min(n, p) ** 0.5 * measured.frobenius * slack).all()


def test_diverged_networks_give_nan_beside_finite_ones():
    gram = torch.eye(3).double().repeat(2, 1, 1)
    gram[1, 0, 0] = torch.inf
    measured = sharpness(gram)
    assert float(measured.trace[0]) == 3.0
    assert float(measured.largest[0]) == pytest.approx(1.0)
    assert measured.trace[1].isnan()
    assert measured.largest[1].isnan()


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_alignment_matches_the_noise_covariance_formed_in_full(shape):
    generator = torch.Generator().manual_seed(3)
    jacobian = torch.randn(shape, generator=generator, dtype=torch.float64)
    residual = torch.randn(shape[0], generator=generator, dtype=torch.float64)
    gram = jacobian.T @ jacobian / shape[0]
    mean = jacobian.T @ residual / shape[0]
    scaled = residual[:, None] * jacobian
    covariance = scaled.T @ scaled / shape[0] - torch.outer(mean, mean)
    expected = (covariance @ gram).trace() / (residual.square().mean() * gram.square().sum())
    assert alignment_factor(jacobian, residual) == pytest.approx(float(expected), rel=1e-10)


def test_alignment_of_isotropic_gaussian_features():
    """mu tends to 1 + Tr(G S G G) / (2 R ||G||_F^2) = 1 + 1/d for identity covariance."""
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(200_000, 10, generator=generator, dtype=torch.float64)
    direction = torch.randn(10, generator=generator, dtype=torch.float64)
    assert alignment_factor(features, features @ direction) == pytest.approx(1.1, abs=0.02)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"\(\.\.\., n, p\), got \(3,\)"):
        gauss_newton_gram(torch.ones(3))
    with pytest.raises(ValueError, match=r"\(\.\.\., n, n\), got \(2, 3\)"):
        sharpness(torch.ones(2, 3))
    with pytest.raises(ValueError, match="need shapes"):
        alignment_factor(torch.ones(3, 2), torch.ones(4))
    with pytest.raises(ValueError, match="every residual is zero"):
        alignment_factor(torch.ones(3, 2), torch.zeros(3))
    with pytest.raises(ValueError, match="one scalar per sample"):
        per_sample_jacobian(nn.Linear(3, 2), torch.ones(4, 3))
