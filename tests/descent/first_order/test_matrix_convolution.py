"""The convolution as a matrix product: torch's conv2d, gradients, no needless gradients, refusals."""

import pytest
import torch
from torch.nn.functional import conv2d

from descent.first_order.matrix_convolution import convolve, patches


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("side", [7, 8])
def test_value_and_gradients_are_those_of_conv2d(stride, side):
    source = torch.Generator().manual_seed(0)
    images = torch.randn(3, side, side, 5, generator=source, dtype=torch.float64)
    kernel = torch.randn(4, 27, generator=source, dtype=torch.float64)
    images.requires_grad_()
    kernel.requires_grad_()
    ours = convolve(images, kernel, stride)
    theirs = conv2d(
        images.permute(3, 0, 1, 2), kernel.view(4, 3, 3, 3), stride=stride, padding=1
    ).permute(1, 2, 3, 0)
    assert torch.allclose(ours, theirs, atol=1e-12)
    weights = torch.randn(ours.shape, generator=source, dtype=torch.float64)
    a = torch.autograd.grad((ours * weights).sum(), (images, kernel))
    b = torch.autograd.grad((theirs * weights).sum(), (images, kernel))
    assert all(torch.allclose(x, y, atol=1e-11) for x, y in zip(a, b, strict=True))


def test_gradients_by_finite_differences():
    images = torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: patches(x, 2), images)


def test_frozen_input_is_not_differentiated():
    kernel = torch.randn(4, 9, requires_grad=True)
    result = convolve(torch.randn(1, 8, 8, 2), kernel)
    assert result.grad_fn.next_functions[0][0].next_functions[1][0] is None


def test_refusals():
    with pytest.raises(ValueError, match="9 columns, got 10"):
        convolve(torch.zeros(1, 4, 4, 1), torch.zeros(2, 10))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        patches(torch.zeros(1, 4, 4, 1), 0)
    with pytest.raises(ValueError, match="must have shape"):
        patches(torch.zeros(1, 4, 4))
