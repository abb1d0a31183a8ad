"""Networks of flat affine layers: convolutions against torch, adjoints, Jacobians against autograd."""

import pytest
import torch
from torch import nn

from descent.physics.relu_network import Convolution, Dense, ReluNetwork
from tests.descent.physics.networks import drawn


def convolution(stride, padding, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 2, 3, 3, generator=generator, dtype=torch.float64)
    bias = torch.randn(3, generator=generator, dtype=torch.float64)
    return Convolution.of_channels(weight, bias, (2, 7, 6), stride, padding)


def unrolled(layer):
    return Dense(layer.rows(torch.arange(layer.out_size)), layer.bias)


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0)])
def test_a_convolution_is_the_dense_matrix_of_its_rows(stride, padding):
    layer = convolution(stride, padding)
    dense = unrolled(layer)
    x = torch.randn(2, 5, layer.in_size, dtype=torch.float64)
    y = torch.randn(2, 5, layer.out_size, dtype=torch.float64)
    torch.testing.assert_close(layer.apply(x), dense.apply(x))
    torch.testing.assert_close(layer.adjoint(y), dense.adjoint(y))
    torch.testing.assert_close((layer.apply(x) * y).sum(), (x * layer.adjoint(y)).sum())
    torch.testing.assert_close(layer.row_norms(), dense.row_norms())
    index = torch.tensor([0, 5, layer.in_size - 1])
    torch.testing.assert_close(layer.adjoint_rows(index), dense.adjoint_rows(index))
    torch.testing.assert_close(layer.magnitude().apply(x), x @ dense.weight.abs().T)


def test_a_sequential_is_copied():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(2, 3, 2, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(27, 5),
        nn.ReLU(),
        nn.Linear(5, 2, bias=False),
    ).double()
    network = ReluNetwork.of_sequential(model, (1, 8, 8))
    images = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(network(images.flatten(1)), model(images).detach())
    before = network(images.flatten(1))
    with torch.no_grad():
        model[0].weight.zero_()
    assert torch.equal(network(images.flatten(1)), before)
    assert network.to(torch.zeros(1)).layers[0].bias.dtype == torch.float32


@pytest.mark.parametrize("sizes", [(5, 3), (4, 7, 3), (6, 8, 8, 8, 2)])
def test_the_jacobian_is_that_of_autograd(sizes):
    network, lower, _, _ = drawn(1, sizes, boxes=5)
    expected = torch.stack([torch.autograd.functional.jacobian(network, x) for x in lower])
    torch.testing.assert_close(network.jacobian(lower), expected, rtol=1e-12, atol=1e-13)
    weights = torch.randn(4, sizes[-1], dtype=torch.float64)
    torch.testing.assert_close(network.jacobian(lower, weights), weights @ expected)


def test_a_kink_takes_the_slope_zero():
    one = torch.ones(1, 1, dtype=torch.float64)
    network = ReluNetwork.of_weights([one, one], [torch.zeros(1).double()] * 2)
    assert float(network.jacobian(torch.zeros(1, 1, dtype=torch.float64))) == 0


def test_what_does_not_fit_is_refused():
    w, b = torch.ones(3, 2), torch.ones(3)
    with pytest.raises(ValueError, match="3 outputs is followed by one with 2 inputs"):
        ReluNetwork.of_weights([w, w], [b, b])
    with pytest.raises(ValueError, match="at least one layer"):
        ReluNetwork(())
    with pytest.raises(ValueError, match="got \\(3, 2\\) and \\(2,\\)"):
        Dense(w, torch.ones(2))
    with pytest.raises(ValueError, match="over 1 channels"):
        Convolution(torch.ones(3, 2, 3, 3), torch.ones(3), (1, 5, 5))
    with pytest.raises(ValueError, match="shape \\(27,\\)"):
        Convolution(torch.ones(3, 1, 3, 3), torch.ones(3), (1, 5, 5))
    with pytest.raises(ValueError, match="without a ReLU"):
        ReluNetwork.of_sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="got Tanh"):
        ReluNetwork.of_sequential(nn.Sequential(nn.Tanh()))
    with pytest.raises(ValueError, match="needs in_shape"):
        ReluNetwork.of_sequential(nn.Sequential(nn.Conv2d(1, 1, 3)))
