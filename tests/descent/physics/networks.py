"""Small networks and boxes shared by the tests of local Lipschitz constants."""

import torch

from descent.physics.lipschitz_experiments import random_network


def drawn(seed, sizes=(4, 12, 9, 3), radius=0.3, boxes=1):
    """A random network and boxes of one radius around random centres."""
    generator = torch.Generator().manual_seed(seed)
    network = random_network(generator, sizes)
    centre = torch.randn(boxes, sizes[0], generator=generator, dtype=torch.float64) / 2
    return network, centre - radius, centre + radius, generator


def points_in(lower, upper, count, generator):
    """Points of one box, half of them corners."""
    share = torch.rand(count, lower.numel(), generator=generator, dtype=torch.float64)
    share[::2] = share[::2].round()
    return lower + (upper - lower) * share
