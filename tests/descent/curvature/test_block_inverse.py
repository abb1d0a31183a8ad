"""The explicit block-wise inverse: dense blocks, and the same matrix as M-FAC with blocks."""

import pytest
import torch

from descent.curvature.block_inverse import explicit_block_inverse
from descent.curvature.inverse_fisher import dense_inverse
from descent.curvature.static_inverse_fisher import StaticInverseFisher

ROWS = torch.randn(5, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_blocks_are_dense_inverses_of_column_slices():
    blocks = explicit_block_inverse(ROWS, 0.2, 4)
    assert blocks.shape == (3, 4, 4)
    torch.testing.assert_close(blocks[1], dense_inverse(ROWS[:, 4:8], 0.2))
    torch.testing.assert_close(blocks[2, :2, :2], dense_inverse(ROWS[:, 8:], 0.2))
    torch.testing.assert_close(blocks[2, 2:, 2:], torch.eye(2, dtype=torch.float64) / 0.2)


def test_mfac_with_the_same_blocks_is_the_same_matrix():
    fisher = StaticInverseFisher(ROWS, 0.2, 5)
    blocks = explicit_block_inverse(ROWS, 0.2, 5)
    torch.testing.assert_close(fisher.diag(), blocks.diagonal(dim1=-2, dim2=-1).flatten())
    torch.testing.assert_close(fisher.mul(ROWS[0])[5:], blocks[1] @ ROWS[0, 5:])


def test_a_block_larger_than_the_matrix_is_refused():
    with pytest.raises(ValueError, match="from 1 to 10, got 11"):
        explicit_block_inverse(ROWS, 0.2, 11)
