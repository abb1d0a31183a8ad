"""The counter against counts by hand, and M-FAC's costs against their formulas."""

import pytest
import torch

from descent.curvature.block_inverse import explicit_block_inverse
from descent.curvature.inverse_fisher import gauss_jordan_inverse
from descent.curvature.sliding_inverse_fisher import SlidingInverseFisher
from descent.curvature.static_inverse_fisher import StaticInverseFisher
from descent.operation_counter import OperationCounter


def test_products_are_counted_by_hand():
    a, b, x = torch.ones(3, 4), torch.ones(4, 5), torch.ones(4)
    with OperationCounter() as counter:
        a @ b
        a @ x
        x.dot(x)
        torch.addmm(torch.ones(3, 5), a, b)
        torch.bmm(torch.ones(2, 3, 4), torch.ones(2, 4, 5))
        a + a
    assert counter.multiply_adds == 60 + 12 + 4 + 60 + 120


def test_bytes_alive_rise_and_fall():
    with OperationCounter() as counter:
        first = torch.zeros(100)
        second = first * 2
        view = second[:50]
        del first
        third = torch.zeros(10)
        del second, view, third
    assert counter.peak_bytes == 800
    assert counter.bytes_alive == 0


def test_what_was_made_inside_is_not_counted_as_read():
    old = torch.ones(10)
    with OperationCounter() as counter:
        new = old[:4] * 2
        new + new
    assert counter.numbers_read == 4


@pytest.mark.parametrize("block", [None, 10])
def test_costs_of_the_static_form(block):
    m, d = 6, 40
    gradients = torch.randn(m, d, dtype=torch.float64)
    with OperationCounter() as build:
        fisher = StaticInverseFisher(gradients, 0.1, block)
    # the m denominators are element-wise sums, which are not counted
    assert build.multiply_adds == d * m * (m - 1)
    with OperationCounter() as product:
        fisher.mul(gradients[0])
    assert product.multiply_adds == 2 * d * m
    with OperationCounter() as entry:
        fisher.element(2, 3)
    assert entry.numbers_read == 3 * m


def test_costs_of_the_dynamic_form():
    m, d = 12, 500
    fisher = SlidingInverseFisher(m, d, 0.1, device="meta")
    with OperationCounter() as update:
        fisher.push(torch.empty(d, device="meta"))
        fisher.factors()
    assert m**3 / 2 <= update.multiply_adds - d * m <= m**3
    with OperationCounter() as product:
        fisher.mul(torch.empty(d, device="meta"))
    assert product.multiply_adds == 2 * d * m + 2 * m**2


def test_costs_of_the_dense_and_block_wise_inverses():
    with OperationCounter() as dense:
        gauss_jordan_inverse(torch.empty(20, 20, device="meta"))
    assert dense.multiply_adds == 20**3
    with OperationCounter() as block:
        explicit_block_inverse(torch.empty(5, 24, device="meta"), 0.1, 8)
    assert block.multiply_adds == pytest.approx(2 * 5 * 24 * 8, rel=0.1)
