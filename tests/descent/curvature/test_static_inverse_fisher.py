"""Static M-FAC: the dense inverse, Sherman-Morrison, order independence, blocks, LDL factors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.curvature.inverse_fisher import dense_inverse, woodbury_solve
from descent.curvature.static_inverse_fisher import StaticInverseFisher


def draw(m, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(m, d, generator=generator, dtype=torch.float64),
        torch.randn(d, generator=generator, dtype=torch.float64),
    )


def relative(a, b):
    return float((a - b).norm() / b.norm())


@settings(max_examples=30, deadline=None)
@given(
    m=st.integers(1, 20),
    d=st.integers(1, 30),
    exponent=st.floats(-5, 1),
    seed=st.integers(0, 1000),
)
def test_product_diagonal_and_entries_are_those_of_the_inverse(m, d, exponent, seed):
    gradients, x = draw(m, d, seed)
    damp = 10**exponent
    fisher, dense = StaticInverseFisher(gradients, damp), dense_inverse(gradients, damp)
    scale = float(dense.abs().max())
    for vector in (x, gradients[0]):
        assert relative(fisher.mul(vector), woodbury_solve(gradients, damp, vector)) < 1e-7
        assert float((fisher.mul(vector) - dense @ vector).norm()) < 1e-8 * scale * float(
            vector.norm()
        )
    assert float((fisher.diag() - dense.diag()).abs().max()) < 1e-8 * scale
    i, j = seed % d, (7 * seed) % d
    assert abs(float(fisher.element(i, j) - dense[i, j])) < 1e-8 * scale


def test_one_gradient_is_sherman_morrison():
    gradients, _ = draw(1, 9)
    g = gradients[0]
    torch.testing.assert_close(
        StaticInverseFisher(gradients, 0.2).mul(g), g / (0.2 + g.square().sum())
    )


def test_the_order_of_the_gradients_does_not_matter():
    gradients, x = draw(12, 40)
    shuffled = gradients[torch.randperm(12, generator=torch.Generator().manual_seed(1))]
    a, b = StaticInverseFisher(gradients, 1e-3), StaticInverseFisher(shuffled, 1e-3)
    assert relative(a.mul(x), b.mul(x)) < 1e-9


def test_the_vectors_are_a_triangular_solve_with_the_ldl_factor_of_the_woodbury_matrix():
    gradients, _ = draw(10, 30)
    fisher = StaticInverseFisher(gradients, 0.01)
    factor = torch.linalg.cholesky(
        gradients @ gradients.T / 0.01 + 10 * torch.eye(10, dtype=torch.float64)
    )
    torch.testing.assert_close(fisher.denominators[0], factor.diagonal().square())
    unit = factor / factor.diagonal()
    torch.testing.assert_close(
        fisher.vectors[0], torch.linalg.solve_triangular(unit, gradients / 0.01, upper=False)
    )


@pytest.mark.parametrize("size", [1, 4, 7, 30])
def test_blocks_invert_the_block_diagonal(size):
    gradients, x = draw(6, 30)
    fisher = StaticInverseFisher(gradients, 0.05, size)
    dense = torch.zeros(30, 30, dtype=torch.float64)
    for start in range(0, 30, size):
        cut = slice(start, start + size)
        dense[cut, cut] = dense_inverse(gradients[:, cut], 0.05)
    torch.testing.assert_close(fisher.mul(x), dense @ x)
    torch.testing.assert_close(fisher.diag(), dense.diag())
    for i, j in ((0, 0), (3, 5), (29, 28), (0, 29)):
        torch.testing.assert_close(fisher.element(i, j), dense[i, j])


def test_gradients_are_left_alone_and_dtype_is_kept():
    gradients = draw(4, 10)[0].float()
    before = gradients.clone()
    fisher = StaticInverseFisher(gradients, 0.1, 3)
    assert torch.equal(gradients, before)
    assert fisher.mul(gradients[0]).dtype == fisher.diag().dtype == torch.float32


def test_float32_survives_norms_that_differ_by_a_million_between_coordinates():
    gradients, x = draw(16, 60)
    gradients[:, :30] *= 1e-3
    gradients[:, 30:] *= 1e3
    exact = woodbury_solve(gradients, 1e-5, x)
    single = StaticInverseFisher(gradients.float(), 1e-5).mul(x.float()).double()
    assert relative(single, exact) < 1e-4


def test_float32_keeps_its_digits_for_a_gradient_of_the_window_in_high_dimension():
    gradients, _ = draw(8, 200_000)
    exact = woodbury_solve(gradients, 1.0, gradients[0])
    single = StaticInverseFisher(gradients.float(), 1.0).mul(gradients[0].float()).double()
    assert relative(single, exact) < 0.03


def test_wrong_arguments_are_told():
    gradients, x = draw(3, 8)
    with pytest.raises(ValueError, match="block_size must be from 1 to 8, got 9"):
        StaticInverseFisher(gradients, 0.1, 9)
    fisher = StaticInverseFisher(gradients, 0.1)
    with pytest.raises(ValueError, match="shape \\(8,\\), got \\(2,\\)"):
        fisher.mul(x[:2])
    with pytest.raises(IndexError, match="\\(0, 8\\)"):
        fisher.element(0, 8)
