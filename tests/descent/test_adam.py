"""Adam's direction against torch.optim, and its copies."""

from __future__ import annotations

import torch

from descent.adam import AdamDirection


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_direction_is_that_of_torch():
    ours = noise(4, 3, seed=0)
    theirs = torch.nn.Parameter(ours.clone())
    adam, reference = AdamDirection(), torch.optim.Adam([theirs], lr=1e-2)
    for step in range(20):
        theirs.grad = noise(4, 3, seed=1 + step)
        reference.step()
        ours.sub_(adam({"w": theirs.grad})["w"], alpha=1e-2)
    torch.testing.assert_close(ours, theirs.detach())


def test_selected_copies_go_on_as_if_they_had_been_alone():
    gradients = [noise(3, 2, seed=s) for s in range(4)]
    together, alone, rows = AdamDirection(), AdamDirection(), torch.tensor([2, 0])
    for gradient in gradients[:2]:
        together({"w": gradient})
        alone({"w": gradient[rows]})
    together.select(rows)
    for gradient in gradients[2:]:
        ours, theirs = together({"w": gradient[rows]}), alone({"w": gradient[rows]})
        torch.testing.assert_close(ours["w"], theirs["w"], rtol=0, atol=0)
