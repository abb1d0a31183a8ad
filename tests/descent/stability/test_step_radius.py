"""Radius bound and step controller: finite differences, torch.func, modes, norms, any optimiser."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, jvp

from descent.stability.margin_curvature import curvature_step, directional_curvature, margin_radius
from descent.stability.partition_zeros import nearest_zero
from descent.stability.radius_clip import RadiusClip, clip_factor
from descent.stability.radius_cost import central_difference_slopes, count_work, reverse_mode_slopes
from descent.stability.step_radius import (
    logit_jvp,
    logit_spread,
    normalized_step,
    radius_bound,
    spread_of_update,
    top_two_radius,
    update_norm,
)


def network(norm=False, dtype=torch.float64, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        middle = [nn.BatchNorm1d(12), nn.Dropout(0.5)] if norm else []
        return nn.Sequential(nn.Linear(6, 12), *middle, nn.GELU(), nn.Linear(12, 4)).to(dtype)


def inputs(samples=20, dtype=torch.float64):
    return torch.randn(samples, 6, generator=torch.Generator().manual_seed(1), dtype=dtype)


def direction(model, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return {
        n: torch.randn(p.shape, generator=generator, dtype=p.dtype)
        for n, p in model.named_parameters()
    }


def test_slopes_are_those_of_torch_func_finite_differences_and_backward_passes():
    model, x = network(), inputs()
    v = direction(model)
    z, a = logit_jvp(model, x, v)
    parameters = dict(model.named_parameters())
    peer = jvp(lambda p: functional_call(model, p, (x,)), (parameters,), (v,))
    torch.testing.assert_close(z, peer[0])
    torch.testing.assert_close(a, peer[1])
    torch.testing.assert_close(
        a, central_difference_slopes(model, x, v, 1e-5), rtol=1e-7, atol=1e-7
    )
    torch.testing.assert_close(a, reverse_mode_slopes(model, x, v))


def test_eval_mode_is_used_and_restored_and_statistics_are_left_alone():
    model, x = network(norm=True), inputs()
    model.train()
    model[2].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    first, second = (logit_jvp(model, x, direction(model))[1] for _ in range(2))
    assert torch.equal(first, second)
    modes = [module.training for module in model]
    assert modes == [True, True, False, True, True]
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    model.eval()
    torch.testing.assert_close(logit_jvp(model, x, direction(model))[1], first)


def test_bound_spread_and_temperature():
    a = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.1, 0.0]])
    assert logit_spread(a).tolist() == pytest.approx([3.0, 0.1])
    assert float(radius_bound(a)) == pytest.approx(math.pi / 3)
    assert float(radius_bound(a, 4.0)) == pytest.approx(4 * float(radius_bound(a / 1.0)))
    assert float(radius_bound(a / 4)) == pytest.approx(float(radius_bound(a, 4.0)))
    assert math.isinf(float(radius_bound(torch.ones(3, 2))))
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        radius_bound(a, 0)


def test_the_bound_is_below_the_exact_radius_of_every_sample():
    model, x = network(), inputs()
    z, a = logit_jvp(model, x, direction(model))
    assert float(radius_bound(a)) <= float(nearest_zero(z, a).abs().min()) * (1 + 1e-9)


def test_normalised_step_is_linear_in_the_update_and_free_of_common_logit_shifts():
    model, x = network(), inputs()
    v = direction(model)
    r = normalized_step(model, x, v)
    torch.testing.assert_close(normalized_step(model, x, {k: 3 * p for k, p in v.items()}), 3 * r)
    torch.testing.assert_close(spread_of_update(model, x, v) / math.pi, r)
    shift = {k: torch.zeros_like(p) for k, p in v.items()}
    shift["2.bias"] += 5.0
    assert float(normalized_step(model, x, shift)) < 1e-12
    assert float(normalized_step(model, x, {k: 0 * p for k, p in v.items()})) == 0
    assert float(update_norm(v)) == pytest.approx(
        float(torch.cat([p.flatten() for p in v.values()]).norm())
    )


def test_two_classes_make_the_top_two_radius_exact():
    z, a = torch.randn(5, 2).double(), torch.randn(5, 2).double()
    torch.testing.assert_close(top_two_radius(z, a)[0], nearest_zero(z, a).abs())


def test_a_missing_direction_is_told():
    model = network()
    v = direction(model)
    del v["0.bias"]
    with pytest.raises(ValueError, match="differ in '0.bias'"):
        logit_jvp(model, inputs(), v)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
@pytest.mark.parametrize("norm", [False, True])
def test_every_clipped_step_is_within_the_radius(name, norm):
    model, x = network(norm, torch.float32), inputs(dtype=torch.float32)
    labels = torch.arange(20) % 4
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=100.0)
    clip = RadiusClip(optimizer, model)
    for _ in range(5):
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        clip.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        proposed, applied = clip.step(x)
        moved = {n: p.detach() - before[n] for n, p in model.named_parameters()}
        after = {n: p.detach().clone() for n, p in model.named_parameters()}
        with torch.no_grad():
            for n, p in model.named_parameters():
                p.copy_(before[n])
            r = float(normalized_step(model, x, moved))
            for n, p in model.named_parameters():
                p.copy_(after[n])
        assert proposed > 1
        assert applied <= 1 + 1e-5
        assert r == pytest.approx(1, abs=1e-4)


def test_a_short_step_is_left_alone_and_a_stretched_one_is_not():
    x, labels = inputs(), torch.arange(20) % 4
    results = {}
    for key, options in {
        "plain": None,
        "clip": {},
        "stretch": {"stretch": True, "cap": 0.5},
    }.items():
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        nn.functional.cross_entropy(model(x), labels).backward()
        if options is None:
            optimizer.step()
        else:
            results[key + " r"] = RadiusClip(optimizer, model, **options).step(x)[1]
        results[key] = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.testing.assert_close(results["clip"], results["plain"])
    assert results["stretch r"] == pytest.approx(0.5)


def test_clip_factor_and_its_errors():
    r = torch.tensor([0.0, 0.5, 4.0])
    assert clip_factor(r).tolist() == [1, 1, 0.25]
    assert clip_factor(r, torch.tensor([1.0, 0.25, math.inf])).tolist() == [1, 0.5, 1]
    with pytest.raises(ValueError, match="cap must be positive, got 0"):
        RadiusClip(torch.optim.SGD(network().parameters()), network(), cap=0)


def test_the_radius_costs_one_evaluation_and_at_most_three_forward_passes():
    model, x = network(), inputs()
    v = direction(model)
    forward = count_work(model, lambda: model(x))
    ours = count_work(model, lambda: logit_jvp(model, x, v))
    reverse = count_work(model, lambda: reverse_mode_slopes(model, x, v))
    assert forward.evaluations == ours.evaluations == 1
    assert forward.multiply_adds == 20 * (6 * 12 + 12 * 4)
    assert ours.multiply_adds <= 3 * forward.multiply_adds
    assert reverse.evaluations >= 4
    assert reverse.multiply_adds > 2 * ours.multiply_adds


def test_curvature_of_a_linear_classifier_is_that_of_autograd():
    model, x = nn.Linear(6, 4).double(), inputs()
    labels, v = torch.arange(20) % 4, direction(model)
    z, a = logit_jvp(model, x, v)

    def loss(t):
        point = {n: p.detach() + t * v[n] for n, p in model.named_parameters()}
        return nn.functional.cross_entropy(functional_call(model, point, (x,)), labels)

    second = torch.autograd.functional.hessian(loss, torch.tensor(0.0).double())
    torch.testing.assert_close(directional_curvature(z, a), second)


def test_curvature_promises_4203_radii_at_margin_ten():
    ten = torch.tensor(10.0).double()
    assert float(curvature_step(ten)) == pytest.approx(4 + 4 * math.cosh(10))
    assert round(float(curvature_step(ten) / margin_radius(ten))) == 4203
