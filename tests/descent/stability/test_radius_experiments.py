"""Copies, limiters and experiments: copies are independent, peers agree, lines are lines."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from descent.adam import AdamDirection
from descent.stability.digit_classifiers import (
    ARCHITECTURES,
    build,
    mini_batches,
    stratified_split,
)
from descent.stability.network_copies import (
    NetworkCopies,
    accuracies,
    cross_entropies,
    flat_norms,
    scaled,
)
from descent.stability.partition_zeros import nearest_zero
from descent.stability.radius_experiments import (
    descent_direction,
    exact_radius_of_set,
    linear_loss_ratios,
    onset,
    random_directions,
    responses_along,
    spiked_training,
    temperature_onsets,
    train_by_rates,
)
from descent.stability.step_limiters import (
    Proposal,
    RadiusLimiter,
    backtracking,
    clip_gradients,
    grouped,
    logit_change_limiter,
    no_limit,
    normalized_lengths,
    polyak,
    radius_along_gradient,
    step_norm_limiter,
)
from descent.stability.step_radius import logit_jvp, normalized_step


def seeds(count, first=0):
    return [torch.Generator().manual_seed(first + k) for k in range(count)]


def problem(name="MLP", copies=3, samples=40):
    generator = torch.Generator().manual_seed(9)
    width = 196 if name == "patch CNN" else 64
    x = torch.rand(copies, samples, width, generator=generator)
    y = torch.randint(10, (copies, samples), generator=generator)
    models = [build(name, g) for g in seeds(copies)]
    return models, NetworkCopies(models), x, y


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_copies_are_the_single_networks(name):
    models, copies, x, y = problem(name, copies=2, samples=12)
    gradient, losses = copies.gradients(x, y)
    v = random_directions(copies, torch.Generator().manual_seed(3))
    z, a = copies.logits_and_slopes(x, v)
    for c, model in enumerate(models):
        model.eval()
        loss = cross_entropy(model(x[c]), y[c])
        loss.backward()
        torch.testing.assert_close(losses[c], loss.detach())
        for n, p in model.named_parameters():
            torch.testing.assert_close(gradient[n][c], p.grad, rtol=1e-3, atol=1e-5)
        one = logit_jvp(model, x[c], {n: part[c] for n, part in v.items()})
        torch.testing.assert_close(z[c], one[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(a[c], one[1], rtol=1e-3, atol=1e-4)


def test_training_with_batch_norm_updates_statistics_of_each_copy_as_a_single_network_does():
    models, copies, x, y = problem("CNN+BN", copies=2)
    batches = torch.stack([mini_batches(40, 3, 10, g) for g in seeds(2)])
    copies.train(x, y, batches, lambda g: g, 0.1)
    model = models[1]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for index in batches[1]:
        optimizer.zero_grad()
        cross_entropy(model(x[1, index]), y[1, index]).backward()
        optimizer.step()
    for n, value in model.state_dict().items():
        ours = copies.parameters.get(n, copies.buffers.get(n))
        torch.testing.assert_close(ours[1].detach(), value, rtol=1e-3, atol=1e-4)


def test_adam_direction_is_that_of_torch():
    models, copies, x, y = problem()
    adam, model = AdamDirection(), models[0]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(4):
        direction = adam(copies.gradients(x, y)[0])
        copies.add({n: -0.01 * d for n, d in direction.items()})
        optimizer.zero_grad()
        cross_entropy(model(x[0]), y[0]).backward()
        optimizer.step()
    for n, p in model.named_parameters():
        torch.testing.assert_close(
            copies.parameters[n][0].detach(), p.detach(), rtol=1e-3, atol=1e-5
        )


def test_select_leaves_the_original_alone():
    _, copies, x, y = problem()
    before = copies.logits(x).detach()
    chosen = copies.select([2, 2, 0])
    torch.testing.assert_close(chosen.logits(x[[2, 2, 0]]), copies.logits(x)[[2, 2, 0]])
    chosen.train(x[[2, 2, 0]], y[[2, 2, 0]], torch.zeros(3, 2, 4).long(), lambda g: g, 1.0)
    assert torch.equal(copies.logits(x), before)
    assert len(chosen) == 3


def proposal(rate=1.0):
    models, copies, x, y = problem()
    gradient, losses = copies.gradients(x, y)
    rates = torch.full((3,), rate)
    return models, Proposal(copies, x, x, y, losses, gradient, scaled(gradient, -rates), rates)


def test_normalised_lengths_are_those_of_single_networks_and_scale():
    models, p = proposal()
    r = normalized_lengths(p.copies, p.reference, p.update)
    for c, model in enumerate(models):
        single = normalized_step(model, p.reference[c], {n: u[c] for n, u in p.update.items()})
        torch.testing.assert_close(r[c], single, rtol=1e-4, atol=1e-6)
    far = normalized_lengths(p.copies, p.reference, scaled(p.update, torch.full((3,), 1e6)))
    torch.testing.assert_close(far, 1e6 * r, rtol=1e-4, atol=0)


def test_limiters_keep_what_they_promise():
    _, p = proposal(rate=1e4)
    r = normalized_lengths(p.copies, p.reference, p.update)
    assert bool((r > 10).all())
    limiter = RadiusLimiter(torch.tensor([1.0, 10.0, math.inf]), observe={0})
    factor = limiter(p)
    torch.testing.assert_close(
        factor * r, torch.tensor([1.0, 10.0, float(r[2])]), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(limiter.seen[0], r)
    assert bool(RadiusLimiter(math.inf)(p).eq(1).all())
    assert float((step_norm_limiter(0.3)(p) * flat_norms(p.update)).max()) <= 0.3 * (1 + 1e-5)
    slopes = p.copies.logits_and_slopes(
        p.reference, scaled(p.update, logit_change_limiter(2.0)(p))
    )[1]
    assert float(slopes.abs().amax()) == pytest.approx(2.0, rel=1e-4)
    # along plain gradient steps the script's variant is the controller
    torch.testing.assert_close(radius_along_gradient()(p), RadiusLimiter()(p))
    half = grouped([no_limit, RadiusLimiter(), no_limit])(p)
    assert half[0] == half[2] == 1
    assert half[1] < 1


def test_backtracking_and_polyak_make_the_loss_fall():
    _, p = proposal(rate=1e3)
    for rule in (backtracking(), polyak()):
        factor = rule(p)
        assert bool((factor < 1).all())
        assert bool((factor > 0).all())
    moved = p.copies.select(range(3))
    moved.add(scaled(p.update, backtracking()(p)))
    assert bool((cross_entropies(moved.logits(p.inputs), p.labels) < p.losses).all())
    step = scaled(p.update, polyak()(p))
    first_order = sum((p.gradient[n] * step[n]).flatten(1).sum(1) for n in step)
    torch.testing.assert_close(first_order, -p.losses, rtol=1e-4, atol=1e-5)


def test_gradient_clipping_is_that_of_torch():
    models, copies, x, y = problem()
    clipped = clip_gradients(copies.gradients(x, y)[0], torch.tensor([0.01, math.inf, 0.01]))
    cross_entropy(models[0](x[0]), y[0]).backward()
    nn.utils.clip_grad_norm_(models[0].parameters(), 0.01)
    for n, p in models[0].named_parameters():
        torch.testing.assert_close(clipped[n][0], p.grad, rtol=1e-4, atol=1e-8)
        torch.testing.assert_close(clipped[n][1], copies.gradients(x, y)[0][n][1])


def test_a_linear_network_has_straight_lines_and_descent_descends():
    _, copies, x, y = problem("Linear")
    v = descent_direction(copies, x, y)
    torch.testing.assert_close(flat_norms(v), torch.ones(3))
    z, a = copies.logits_and_slopes(x, v)
    found = responses_along(copies, v, torch.tensor([[0.1] * 3, [2.0] * 3]), (x, y), (x, y))
    base = cross_entropies(z, y)
    torch.testing.assert_close(
        found.loss_ratio[1].float(), cross_entropies(z + 2 * a, y) / base, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(found.accuracy[1], accuracies(z + 2 * a, y))
    assert bool((found.loss_ratio[0] < 1).all())
    straight = linear_loss_ratios(z, a, torch.tensor([[0.1] * 3, [2.0] * 3]), y)
    torch.testing.assert_close(found.loss_ratio, straight, rtol=1e-4, atol=1e-5)


def test_temperature_of_the_slopes_scales_the_bound():
    _, copies, x, y = problem("Linear", copies=2)
    same = copies.select([0, 0])
    x, y = x[[0, 0]], y[[0, 0]]
    grid = torch.logspace(-1, 2, 30)
    raw, r = temperature_onsets(same, torch.tensor([1.0, 3.0]), (x, y), grid)
    assert raw.shape == r.shape == (2,)
    slopes = same.logits_and_slopes(x, descent_direction(same, x, y), torch.tensor([1.0, 3.0]))[1]
    torch.testing.assert_close(slopes[0], 3 * slopes[1])


def test_exact_radius_of_a_set_is_the_least_over_its_samples():
    generator = torch.Generator().manual_seed(2)
    z = 3 * torch.randn(60, 5, generator=generator, dtype=torch.float64)
    a = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(exact_radius_of_set(z, a), nearest_zero(z, a).abs().min())


def test_onset_interpolates_and_tells_never_from_at_once():
    grid = torch.tensor([1.0, 10.0, 100.0])
    values = torch.tensor([[1.0, 5.0, 1.0], [1.0, 5.0, 1.0], [100.0, 5.0, 1.0]]).double()
    assert onset(grid, values, 10.0 - 1e-12).tolist() == pytest.approx(
        [10**1.5, math.inf, math.inf]
    )
    assert onset(grid, values, 3.0).tolist()[1] == 1.0


def test_spiked_training_without_limit_is_torch_adam_and_the_controller_keeps_its_word():
    models, copies, x, y = problem("ReLU MLP")
    rates = torch.full((6, 3), 0.01)
    rates[3] *= 1000
    plain = copies.select(range(3))
    run = spiked_training(plain, (x, y), (x, y), rates, evaluate_every=2)
    assert run.accuracy_steps == [2, 4, 6]
    model = models[2]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(3):
        optimizer.zero_grad()
        loss = cross_entropy(model(x[2]), y[2])
        torch.testing.assert_close(run.losses[step, 2], loss.detach(), rtol=1e-4, atol=1e-5)
        loss.backward()
        optimizer.step()
    limiter = RadiusLimiter()
    run = spiked_training(copies.select(range(3)), (x, y), (x, y), rates, limiter=limiter)
    assert float((torch.stack(limiter.seen) * run.factors).max()) <= 1 + 1e-5
    assert float(limiter.seen[3].min()) > 10


def test_steps_of_given_normalised_length_have_it():
    _, copies, x, y = problem(samples=64)
    batches = torch.stack([mini_batches(64, 3, 16, g) for g in seeds(3)])
    seen = []
    lengths = train_by_rates(
        copies, x[0], y[0], batches, torch.tensor([0.1, 0.0, 0.0]), torch.tensor([0.0, 0.5, 2.0]),
        torch.tensor([False, False, False]), after_step=seen.append,
    )  # fmt: skip
    torch.testing.assert_close(lengths[:, 1:], torch.tensor([[0.5, 2.0]] * 3), rtol=1e-4, atol=0)
    assert seen == [1, 2, 3]


def test_splits_are_stratified_and_batches_run_through_the_data():
    labels = torch.arange(100) % 10
    train, test = stratified_split(labels, torch.Generator().manual_seed(0))
    assert sorted(torch.cat([train, test]).tolist()) == list(range(100))
    assert labels[test].bincount().tolist() == [2] * 10
    batches = mini_batches(20, 4, 10, torch.Generator().manual_seed(0))
    assert sorted(batches[:2].flatten().tolist()) == list(range(20))
    with pytest.raises(ValueError, match="must be in \\(0, 1\\), got 1"):
        stratified_split(labels, torch.Generator(), 1)
    with pytest.raises(ValueError, match="at most the 5 samples, got 6"):
        mini_batches(5, 1, 6, torch.Generator())
    with pytest.raises(ValueError, match="unknown architecture 'VGG'"):
        build("VGG", torch.Generator())
