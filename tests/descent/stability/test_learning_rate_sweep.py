"""Batched sweeps against one plain autograd loop per run, sample orders, divergence, error messages."""

import math

import pytest
import torch

from descent.stability.diagonal_linear_network import diagonal_jacobian, diagonal_predict
from descent.stability.diagonal_sweep import (
    sweep_diagonal_gd,
    sweep_diagonal_sgd,
    sweep_diagonal_weighted,
)
from descent.stability.interpolation_problems import (
    relu_student,
    relu_teacher_data,
    sparse_regression,
)
from descent.stability.learning_rate_sweep import sample_order, uniform_batches
from descent.stability.linearised_sgd import linearised_sgd_loss
from descent.stability.relu_sweep import cosine_factor, sweep_relu_gd, sweep_relu_sgd
from descent.stability.two_layer_relu import relu_jacobian, relu_predict

RATES = torch.tensor([0.01, 0.04], dtype=torch.float64)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def reference(predict, parameters, inputs, targets, rate, batches, clip=False, cosine=False):
    """Plain SGD by autograd on one network; ``batches`` lists the samples of each step."""
    values = [value.clone().requires_grad_() for value in parameters]
    for step, batch in enumerate(batches):
        loss = 0.5 * (predict(*values, inputs[batch]) - targets[batch]).square().mean()
        grads = torch.autograd.grad(loss, values)
        norm = torch.sqrt(sum(g.square().sum() for g in grads))
        scale = rate * cosine_factor(step, len(batches), cosine)
        if clip:
            scale = scale * min(1.0, 1.0 / float(norm))
        with torch.no_grad():
            for value, grad in zip(values, grads, strict=True):
                value -= scale * grad
    return [value.detach() for value in values]


@pytest.fixture
def diagonal():
    inputs, targets, _ = sparse_regression(6, 9, 2, generators(0, 1))
    return inputs, targets, torch.ones(2, 9).double(), 0.1 * torch.ones(2, 9).double()


@pytest.fixture
def relu():
    inputs, targets, _, _ = relu_teacher_data(7, 5, 2, 3, generators(2, 3), unit=True)
    a, weights = relu_student(6, 5, 1.0, 5**-0.25, generators(4, 5))
    return inputs, targets, a, weights


@pytest.mark.parametrize("kind", ["sgd", "batch", "gd"])
def test_diagonal_runs_equal_plain_autograd(diagonal, kind):
    inputs, targets, a, b = diagonal
    steps = 40
    if kind == "sgd":
        order = sample_order(6, steps, generators(6, 7))
        sweep = sweep_diagonal_sgd(inputs, targets, a, b, RATES[None], order, 10)
        batches = [[[int(i)] for i in order[:, s]] for s in range(2)]
    elif kind == "batch":
        weights = uniform_batches(6, steps, 3, generators(6, 7))
        sweep = sweep_diagonal_weighted(inputs, targets, a, b, RATES[None], weights, 10)
        counts = (3 * weights).round().long()
        batches = [
            [torch.arange(6).repeat_interleave(w).tolist() for w in counts[:, s]] for s in range(2)
        ]
    else:
        sweep = sweep_diagonal_gd(inputs, targets, a, b, RATES[None], steps, 10)
        batches = [[list(range(6))] * steps] * 2
    assert sweep.steps.tolist() == [0, 10, 20, 30, 40]
    for s in range(2):
        for lane, rate in enumerate(RATES.tolist()):
            expected = reference(
                diagonal_predict, (a[s], b[s]), inputs[s], targets[s], rate, batches[s]
            )
            for actual, value in zip(sweep.parameters, expected, strict=True):
                torch.testing.assert_close(actual[s, lane], value, rtol=1e-10, atol=1e-12)
            loss = 0.5 * (diagonal_predict(*expected, inputs[s]) - targets[s]).square().mean()
            torch.testing.assert_close(sweep.final_loss[s, lane], loss, rtol=1e-8, atol=1e-15)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("cosine", [False, True])
def test_relu_runs_equal_plain_autograd(relu, clip, cosine):
    inputs, targets, a, weights = relu
    order = sample_order(7, 24, generators(6, 7))
    options = {"clip": clip, "cosine": cosine}
    sgd = sweep_relu_sgd(inputs, targets, a, weights, RATES, order, 8, block=8, **options)
    gd = sweep_relu_gd(inputs, targets, a, weights, RATES, 24, 8, **options)
    assert sgd.steps.tolist() == gd.steps.tolist() == [0, 8, 16, 24]
    for s in range(2):
        single = [[int(i)] for i in order[:, s]]
        for lane, rate in enumerate(RATES.tolist()):
            for sweep, batches in ((sgd, single), (gd, [list(range(7))] * 24)):
                expected = reference(
                    relu_predict,
                    (a[s], weights[s]),
                    inputs[s],
                    targets[s],
                    rate,
                    batches,
                    **options,
                )
                for actual, value in zip(sweep.parameters, expected, strict=True):
                    torch.testing.assert_close(actual[s, lane], value, rtol=1e-9, atol=1e-11)


def test_block_length_changes_nothing_but_rounding(relu):
    order = sample_order(7, 32, generators(6, 7))
    short = sweep_relu_sgd(*relu, RATES, order, 32, block=1)
    long = sweep_relu_sgd(*relu, RATES, order, 32, block=32)
    for one, other in zip(short.parameters, long.parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_recorded_trace_is_that_of_the_jacobian(diagonal, relu):
    inputs, targets, a, b = diagonal
    sweep = sweep_diagonal_gd(inputs, targets, a, b, RATES[None], 20, 10)
    factors = [value[1, 0] for value in sweep.parameters]
    expected = diagonal_jacobian(*factors, inputs[1]).square().sum(-1).mean()
    torch.testing.assert_close(sweep.trace[-1, 1, 0], expected)
    sweep = sweep_relu_gd(*relu, RATES, 20, 10)
    expected = (
        relu_jacobian(*(value[1, 0] for value in sweep.parameters), relu[0][1])
        .square()
        .sum(-1)
        .mean()
    )
    torch.testing.assert_close(sweep.trace[-1, 1, 0], expected)


def test_divergence_is_kept_and_flagged(diagonal):
    inputs, targets, a, b = diagonal
    rates = torch.tensor([[0.01, 5.0]], dtype=torch.float64)
    sweep = sweep_diagonal_gd(inputs, targets, a, b, rates, 200, 10)
    assert sweep.diverged.tolist() == [[False, True]] * 2
    assert (sweep.peak_ratio()[:, 1] == 1e30).all()
    assert (sweep.peak_ratio()[:, 0] <= 1).all()
    assert not sweep.converged()[:, 1].any()


def test_uniform_batches_are_counts_of_independent_draws():
    weights = uniform_batches(5, 4000, 3, generators(8))
    torch.testing.assert_close(weights.sum(-1), torch.ones(4000, 1).double())
    assert set((3 * weights).round().long().unique().tolist()) == {0, 1, 2, 3}
    # Var of a weight under draws with replacement is (1/B)(1/n)(1 - 1/n).
    assert float(weights.var(0).mean()) == pytest.approx(0.2 * 0.8 / 3, rel=0.05)


def test_sample_order_is_reproducible_and_per_seed():
    first, again = (sample_order(50, 20, generators(1, 2)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first[:, 0], first[:, 1])


def test_linearised_sgd_is_the_limit_of_a_small_displacement(diagonal):
    inputs, _, a, b = diagonal
    targets = diagonal_predict(a, b, inputs)
    displacement = torch.randn(
        2, 18, generator=torch.Generator().manual_seed(9), dtype=torch.float64
    )
    order = sample_order(6, 30, generators(6, 7))
    linear = linearised_sgd_loss(
        diagonal_jacobian(a, b, inputs), displacement, RATES[:1].expand(2), order, 10
    )
    scale = 1e-6
    shift_a, shift_b = displacement.chunk(2, dim=1)
    sweep = sweep_diagonal_sgd(
        inputs, targets, a + scale * shift_a, b + scale * shift_b, RATES[None, :1], order, 10
    )
    torch.testing.assert_close(sweep.loss[:, :, 0] / scale**2, linear, rtol=1e-4, atol=0)


def test_cosine_factor_ends():
    assert cosine_factor(0, 10, True) == 1.0
    assert cosine_factor(5, 10, True) == pytest.approx(0.5)
    assert cosine_factor(10, 10, True) == pytest.approx(0.0, abs=1e-15)
    assert math.isclose(cosine_factor(7, 10, False), 1.0)


def test_bad_input_is_refused(diagonal, relu):
    inputs, targets, a, b = diagonal
    order = sample_order(6, 8, generators(1, 2))
    with pytest.raises(ValueError, match="need inputs"):
        sweep_diagonal_sgd(inputs, targets[:, :-1], a, b, RATES[None], order, 1)
    with pytest.raises(ValueError, match=r"\(S, L\) or \(1, L\), got \(2,\)"):
        sweep_diagonal_sgd(inputs, targets, a, b, RATES, order, 1)
    with pytest.raises(ValueError, match=r"order must have shape \(steps, 2\)"):
        sweep_diagonal_sgd(inputs, targets, a, b, RATES[None], order[:, :1], 1)
    with pytest.raises(ValueError, match="weights must have shape"):
        sweep_diagonal_weighted(inputs, targets, a, b, RATES[None], torch.ones(3, 2, 5), 1)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        sweep_diagonal_gd(inputs, targets, a, b, RATES[None], 0, 1)
    with pytest.raises(ValueError, match="multiples of block"):
        sweep_relu_sgd(*relu, RATES, order, 3, block=8)
    with pytest.raises(ValueError, match=r"\(L,\), got \(1, 2\)"):
        sweep_relu_gd(*relu, RATES[None], 3, 1)
    with pytest.raises(ValueError, match="need samples, steps and generators"):
        sample_order(0, 3, generators(0))
    with pytest.raises(ValueError, match="batch must be at least 1"):
        uniform_batches(3, 3, 0, generators(0))
    with pytest.raises(ValueError, match="order must have shape"):
        linearised_sgd_loss(torch.ones(2, 3, 4), torch.ones(2, 4), torch.ones(2), order[:, :1])
