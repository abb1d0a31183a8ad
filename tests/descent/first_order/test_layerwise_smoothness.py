"""Exact instances: gradients by autograd, descent inequalities, tightness, telescoping."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.first_order.cutoff_sampling import UniformCutoff
from descent.first_order.layerwise_smoothness import CoshLayers, QuadraticLayers, descend
from descent.first_order.linear_minimisation import NORMS, norm

SHAPES = [(4, 3), (2, 5), (3, 3)]


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def functions():
    yield QuadraticLayers([1.0, 4.0, 0.5], [draw(9, *s) for s in SHAPES])
    yield QuadraticLayers([1.0, 4.0, 0.5], [draw(9, *s) for s in SHAPES], "linf")
    yield CoshLayers([1.0, 0.7, 1.4], SHAPES, "linf")
    yield CoshLayers([1.0, 0.7, 1.4], SHAPES, "spectral")


@pytest.mark.parametrize("function", functions(), ids=lambda f: type(f).__name__ + f.norms[0])
def test_gradients_are_those_of_autograd(function):
    layers = [draw(k, 6, *s).requires_grad_() for k, s in enumerate(SHAPES)]
    expected = torch.autograd.grad(function.values(layers).sum(), layers)
    for ours, theirs in zip(function.gradients(layers), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(kind=st.sampled_from(sorted(NORMS)), seed=st.integers(0, 1000), size=st.floats(0.01, 3))
def test_quadratic_upper_bound_holds(kind, seed, size):
    function = QuadraticLayers([1.0, 4.0, 0.5], [draw(9, *s) for s in SHAPES], kind)
    layers = [draw(seed + k, *s) for k, s in enumerate(SHAPES)]
    moves = [size * draw(seed + 10 + k, *s) for k, s in enumerate(SHAPES)]
    gradients = function.gradients(layers)
    constants = function.constants(function.dual_norms(gradients))
    after = function.values([x + g for x, g in zip(layers, moves, strict=True)])
    linear = torch.stack([(a * b).sum() for a, b in zip(gradients, moves, strict=True)])
    square = torch.stack([norm(g, kind) ** 2 for g in moves])
    bound = function.values(layers) + linear + constants / 2 * square
    assert bool((after <= bound + 1e-9).all())


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["linf", "spectral"]),
    seed=st.integers(0, 1000),
    size=st.floats(0.01, 3),
    share=st.floats(0.01, 1),
)
def test_generalised_upper_bound_holds_up_to_its_radius(kind, seed, size, share):
    function = CoshLayers([1.0, 0.7, 1.4], SHAPES, kind)
    layers = [size * draw(seed + k, *s) for k, s in enumerate(SHAPES)]
    gradients = function.gradients(layers)
    duals = function.dual_norms(gradients)
    _, one = function.pair(duals)
    moves = [draw(seed + 10 + k, *s) for k, s in enumerate(SHAPES)]
    moves = [share / r * m / norm(m, kind) for m, r in zip(moves, one, strict=True)]
    after = function.values([x + g for x, g in zip(layers, moves, strict=True)])
    linear = torch.stack([(a * b).sum() for a, b in zip(gradients, moves, strict=True)])
    bound = function.values(layers) + linear + function.constants(duals) / 2 * (share / one) ** 2
    assert bool((after <= bound * (1 + 1e-12) + 1e-9).all())


@pytest.mark.parametrize("function", functions(), ids=lambda f: type(f).__name__ + f.norms[0])
def test_every_step_descends_by_what_is_guaranteed(function):
    start = [draw(20 + k, 8, *s) for k, s in enumerate(SHAPES)]
    cutoffs = UniformCutoff(3).sample_many(15 * 8, torch.Generator().manual_seed(2)).view(15, 8)
    assert float(descend(function, start, cutoffs)["slack"].min()) > -1e-10
    long = descend(function, start, cutoffs, stretch=4.0)
    assert float(long["slack"].min()) < -1e-3


def test_guaranteed_decrease_telescopes_on_the_spectral_quadratic():
    function = QuadraticLayers([1.0, 4.0, 0.5], [draw(9, *s) for s in SHAPES])
    start = [torch.zeros(5, *s, dtype=torch.float64) for s in SHAPES]
    cutoffs = UniformCutoff(3).sample_many(400 * 5, torch.Generator().manual_seed(2)).view(400, 5)
    run = descend(function, start, cutoffs)
    total = (run["guarantee"] * run["moved"]).sum((0, 2))
    assert torch.allclose(total, run["values"][0], rtol=1e-11)


def test_layers_below_the_cutoff_stay():
    function = QuadraticLayers([1.0, 4.0, 0.5], [draw(9, *s) for s in SHAPES])
    start = [torch.zeros(1, *s, dtype=torch.float64) for s in SHAPES]
    run = descend(function, start, torch.tensor([[2], [1]]))
    assert run["moved"].squeeze(1).tolist() == [[False, False, True], [False, True, True]]


def test_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="'linf' or 'spectral', got 'fro'"):
        CoshLayers([1.0], [(2, 2)], "fro")
