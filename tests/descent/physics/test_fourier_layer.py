"""The spectral convolution: the identity on band-limited fields, and modes beyond the kept ones vanish."""

import math

import pytest
import torch

from descent.physics.fourier_layer import spectral_convolution


@pytest.mark.parametrize("norm", ["backward", "forward"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_unit_matrices_keep_low_modes_and_remove_the_others(axes, norm):
    n, modes, replicates, channels = 12, 3, 2, 4
    grid = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    waves = [torch.cos(2 * grid), torch.sin(grid), torch.cos(2 * grid + 1)][:axes]
    low = torch.ones((), dtype=torch.float64)
    for wave in waves:
        low = low[..., None] * wave
    high = torch.cos(4 * grid).reshape(n, *(1,) * (axes - 1)).expand(low.shape)
    scale = 1 + torch.arange(replicates * 3 * channels, dtype=torch.float64)
    scale = scale.reshape(replicates, 3, *(1,) * axes, channels)
    sizes = (2 * modes,) * (axes - 1) + (modes,)
    kernel = torch.eye(channels, dtype=torch.complex128).expand(replicates, *sizes, -1, -1)
    found = spectral_convolution(scale * (low + high)[..., None], kernel, norm)
    torch.testing.assert_close(found, scale * low[..., None])
