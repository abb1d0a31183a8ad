"""The batched transformer and its optimiser against single copies, causality, and torch's own AdamW."""

import lzma
import math

import pytest
import torch
from torch.nn import functional as F

from descent.stability.byte_language_experiments import (
    TokenSource,
    mean_loss,
    token_sharpness,
    train_under_schedules,
)
from descent.stability.byte_language_model import (
    BatchedAdamW,
    DecoderShape,
    decoder_logits,
    initial_decoder,
    read_bytes,
    token_losses,
)
from descent.stability.cycle_schedule import constant_schedule, cosine_schedule, wsd_schedule

SHAPE = DecoderShape(vocabulary=11, context=6, width=8, layers=2, heads=2)


def generators(count, seed=0):
    return [torch.Generator().manual_seed(seed + k) for k in range(count)]


def parameters(copies=3, seed=0):
    found = initial_decoder(SHAPE, generators(copies, seed))
    found["head"] += torch.randn(found["head"].shape, generator=generators(1, 50)[0])
    return found


def test_bytes_are_numbered_without_gaps(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"cab")
    (tmp_path / "a.txt.xz").write_bytes(lzma.compress(b"cab"))
    for name in ("a.txt", "a.txt.xz"):
        text, vocabulary = read_bytes(tmp_path / name)
        assert text.tolist() == [2, 0, 1]
        assert vocabulary == 3


def test_fresh_models_predict_uniformly_and_have_the_stated_size():
    fresh = initial_decoder(SHAPE, generators(2))
    windows = torch.randint(11, (2, 3, 7))
    torch.testing.assert_close(token_losses(fresh, windows), torch.full((2, 3, 6), math.log(11)))
    assert sum(p[0].numel() for p in fresh.values()) == SHAPE.parameter_count()


def test_copies_compute_what_they_would_alone():
    many, windows = parameters(), torch.randint(11, (3, 4, 7), generator=generators(1)[0])
    together = token_losses(many, windows)
    for c in range(3):
        alone = token_losses({k: p[c : c + 1] for k, p in many.items()}, windows[c : c + 1])
        torch.testing.assert_close(together[c : c + 1], alone)


def test_a_later_token_changes_no_earlier_prediction():
    one, tokens = parameters(1), torch.randint(11, (1, 1, 6), generator=generators(1)[0])
    changed = tokens.clone()
    changed[..., 4] = (changed[..., 4] + 1) % 11
    before, after = decoder_logits(one, tokens), decoder_logits(one, changed)
    torch.testing.assert_close(before[..., :4, :], after[..., :4, :])
    assert not torch.allclose(before[..., 4:, :], after[..., 4:, :])


def test_batched_adamw_is_torchs_on_every_copy():
    ours = {k: p.double() for k, p in parameters(2).items()}
    singles = [[torch.nn.Parameter(p[c].clone()) for p in ours.values()] for c in range(2)]
    rates = torch.tensor([0.01, 0.003])
    peers = [
        torch.optim.AdamW(s, lr=float(r), betas=(0.9, 0.95), weight_decay=0.1, foreach=False)
        for s, r in zip(singles, rates, strict=True)
    ]
    optimiser = BatchedAdamW(ours)
    for step in range(4):
        noise = {
            k: torch.randn(p.shape, generator=generators(1, step)[0], dtype=p.dtype)
            for k, p in ours.items()
        }
        optimiser.step(noise, rates)
        for c, (single, peer) in enumerate(zip(singles, peers, strict=True)):
            for p, g in zip(single, noise.values(), strict=True):
                p.grad = g[c].clone()
            peer.step()
    for c in range(2):
        for p, mine in zip(singles[c], ours.values(), strict=True):
            torch.testing.assert_close(mine[c], p.detach(), rtol=1e-6, atol=1e-8)


def test_selected_copies_carry_their_moments():
    optimiser = BatchedAdamW({"w": torch.ones(2, 3)})
    optimiser.step({"w": torch.tensor([[1.0] * 3, [2.0] * 3])}, torch.tensor([0.1, 0.1]))
    optimiser.select(torch.tensor([1, 1, 0]))
    assert optimiser.direction.first["w"].shape == (3, 3)
    assert torch.equal(optimiser.direction.first["w"][0], optimiser.direction.first["w"][1])
    assert optimiser.direction.first["w"][2, 0] < optimiser.direction.first["w"][0, 0]


def run(schedules, keep):
    text = torch.randint(11, (500,), generator=generators(1, 8)[0])
    source = TokenSource(text, SHAPE.context)
    return train_under_schedules(
        SHAPE,
        source,
        schedules,
        0.01,
        4,
        generators(2, 10),
        generators(2, 20),
        source.test(5, generators(1)[0]),
        10,
        keep,
    )


def test_schedules_share_updates_until_they_differ_and_end_where_they_would_alone():
    schedules = {
        "long": constant_schedule(30),
        "short": wsd_schedule(20, decay=4),
        "cosine": cosine_schedule(20),
    }
    ends = {"long": (30,), "short": (20,), "cosine": (20,)}
    together = run(schedules, ends)
    assert together.updates == 30 + 4 + 20
    for name, schedule in schedules.items():
        alone = run({name: schedule}, {name: ends[name]})
        for key, value in alone.kept[name, ends[name][0]].items():
            torch.testing.assert_close(value, together.kept[name, ends[name][0]][key])
        steps, losses = zip(*together.curves[name], strict=True)
        assert steps[-1] == schedule.total
        torch.testing.assert_close(losses[-1], alone.curves[name][-1][1])


def test_training_lowers_the_loss_of_a_periodic_text():
    source = TokenSource(torch.arange(400) % 5, 6)
    shape = DecoderShape(5, 6, 8, 1, 2)
    windows = source.test(8, generators(1)[0])
    schedule = {"wsd": wsd_schedule(60, warmup=5)}
    found = train_under_schedules(
        shape,
        source,
        schedule,
        0.02,
        4,
        generators(2),
        generators(2, 5),
        windows,
        60,
        {"wsd": (60,)},
    )
    assert float(mean_loss(found.kept["wsd", 60], windows, 2).max()) < 0.3


def test_held_out_text_is_never_trained_on():
    source = TokenSource(torch.arange(100), 4)
    assert int(source.train((500,), generators(1)[0]).max()) < 90
    assert int(source.test(200, generators(1)[0]).min()) >= 90


def test_sharpness_is_the_gauss_newton_trace():
    one = parameters(1)
    windows = torch.randint(11, (3, 6), generator=generators(1)[0])
    entropy, traces = token_sharpness(one, windows, 2, 800, generators(1, 3)[0])
    for m in range(3):
        names = list(one)

        def logits(*values, names=names, m=m):
            return decoder_logits(dict(zip(names, values, strict=True)), windows[m][None, None])[
                0, 0, -1
            ]

        jacobians = torch.autograd.functional.jacobian(logits, tuple(one.values()))
        flat = torch.cat([j.flatten(1) for j in jacobians], 1)
        p = torch.softmax(logits(*one.values()), 0)
        exact = ((torch.diag(p) - torch.outer(p, p)) @ (flat @ flat.T)).trace()
        assert float(traces[m]) == pytest.approx(float(exact), rel=0.2)
        assert float(entropy[m]) == pytest.approx(float(torch.special.entr(p).sum()), rel=1e-5)


def test_losses_are_cross_entropies():
    one, windows = parameters(1), torch.randint(11, (1, 2, 7), generator=generators(1)[0])
    logits = decoder_logits(one, windows[..., :-1])
    expected = F.cross_entropy(logits.flatten(0, 2), windows[..., 1:].flatten())
    torch.testing.assert_close(token_losses(one, windows).mean(), expected)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="3 heads do not divide the width 8"):
        DecoderShape(5, 4, 8, 1, 3)
