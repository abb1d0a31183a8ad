"""Schedules: anchors of the Levanter library, peers, boundaries, and the torch scheduler contract."""

import io
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from descent.stability.cycle_schedule import (
    CycleLR,
    CycleSchedule,
    HeldSchedule,
    constant_schedule,
    cosine_schedule,
    cyclic_cosine_schedule,
    decay_ratio,
    wsd_schedule,
    wsds_schedule,
)


def optimiser(lr=0.1, groups=1):
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(groups)]
    return torch.optim.SGD([{"params": [w], "lr": lr * (k + 1)} for k, w in enumerate(weights)])


def rates_of(scheduler, steps):
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return found


def test_the_inverse_rate_is_linear_and_meets_the_formula_of_the_paper():
    peak, floor = 3.0, 0.6
    for s in (0.0, 0.3, 1.0):
        rate = peak * decay_ratio(s, floor / peak)
        assert 1 / rate == pytest.approx(s / floor + (1 - s) / peak, rel=1e-13)


@pytest.mark.parametrize("shape", ["inverse", "linear", "cosine", "sqrt"])
def test_every_shape_falls_from_one_to_the_floor(shape):
    values = [decay_ratio(s / 20, 0.1, shape) for s in range(21)]
    assert values[0] == pytest.approx(1)
    assert values[-1] == pytest.approx(0.1)
    assert all(b < a for a, b in itertools.pairwise(values))


def test_anchors_of_the_levanter_library():
    schedule = wsds_schedule((300, 700, 1000), decay=0.1, decay_of="cycle")
    for flat in (0, 269, 300, 659, 700, 701, 969):
        assert schedule(flat) == 1
    for decaying in (271, 661, 971):
        assert schedule(decaying) < 1


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(20, 80), min_size=1, max_size=4),
    decay=st.floats(0.05, 0.3),
    of=st.sampled_from(["cycle", "total"]),
    shape=st.sampled_from(["inverse", "linear", "cosine", "sqrt"]),
    floor=st.floats(0.01, 0.9),
)
def test_each_cycle_ends_on_the_floor_and_the_next_starts_at_the_peak(
    lengths, decay, of, shape, floor
):
    ends = tuple(sum(lengths[: k + 1]) for k in range(len(lengths)))
    options = {"decay": decay, "decay_of": of, "shape": shape, "floor_ratio": floor}
    if of == "total" and any(round(decay * e) > n for e, n in zip(ends, lengths, strict=True)):
        with pytest.raises(ValueError, match="is shorter than its warmup"):
            wsds_schedule(ends, **options)
        return
    schedule = wsds_schedule(ends, **options)
    ratios = schedule.ratios()
    assert len(ratios) == ends[-1]
    assert all(floor - 1e-12 <= r <= 1 for r in ratios)
    for cycle, end in enumerate(ends):
        start = schedule.decay_start(cycle)
        if start < end:
            assert ratios[end - 1] == pytest.approx(floor)
            assert ratios[start] < 1 == ratios[start - 1]
        if end < ends[-1]:
            assert ratios[end] == 1
        whole = end if of == "total" else lengths[cycle]
        assert end - start == round(decay * whole)


def test_warmup_rises_linearly_from_zero_and_rewarmup_from_the_floor():
    schedule = wsds_schedule((100, 200), warmup=10, rewarmup=5, floor_ratio=0.2)
    assert [schedule(t) for t in (0, 5, 10)] == [0, 0.5, 1]
    assert [schedule(t) for t in (100, 105)] == [pytest.approx(0.2), 1]


def test_cyclic_cosine_is_cosine_in_each_cycle():
    cyclic = cyclic_cosine_schedule((50, 130)).ratios()
    torch.testing.assert_close(cyclic[:50], cosine_schedule(50).ratios())
    torch.testing.assert_close(cyclic[50:], cosine_schedule(80).ratios())


def test_wsd_of_two_budgets_share_their_past_and_cosines_do_not():
    a, b = wsd_schedule(100).ratios(), wsd_schedule(400).ratios()
    assert torch.equal(a[:90], b[:90])
    assert not torch.equal(cosine_schedule(100).ratios()[:90], cosine_schedule(400).ratios()[:90])


def test_a_held_schedule_keeps_the_rate_it_has_reached():
    whole = wsds_schedule((100, 200), floor_ratio=0.1)
    held = HeldSchedule(whole, 100)
    assert torch.equal(held.ratios()[:100], whole.ratios()[:100])
    assert held.ratios()[100:].eq(0.1).all()
    assert whole.ratios()[100] == 1
    assert (held.total, held.ends) == (200, (100, 200))
    with pytest.raises(ValueError, match="steps must be from 1 to 200, got 201"):
        HeldSchedule(whole, 201)


def test_linear_wsd_is_torchs_sequential_schedule():
    from torch.optim.lr_scheduler import ConstantLR, LinearLR, SequentialLR

    ours = CycleLR(optimiser(), wsd_schedule(100, decay=20, shape="linear", warmup=10))
    base = optimiser()
    peer = SequentialLR(
        base,
        [
            LinearLR(base, 1e-12, 1.0, 10),
            ConstantLR(base, 1.0, 69),
            LinearLR(base, 1.0, 0.1, 20),
        ],
        [10, 79],
    )
    assert rates_of(ours, 100) == pytest.approx(rates_of(peer, 100), abs=1e-12)


def test_cyclic_cosine_is_torchs_warm_restarts_one_step_ahead():
    from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

    ours = CycleLR(optimiser(), cyclic_cosine_schedule((40, 80), floor_ratio=0.1))
    base = optimiser()
    peer = rates_of(CosineAnnealingWarmRestarts(base, 40, eta_min=0.01), 80)
    mine = rates_of(ours, 80)
    # torch counts from the start of a step, so that its cycles never quite reach the floor
    assert mine[:39] == pytest.approx(peer[1:40])
    assert mine[40:79] == pytest.approx(peer[41:80])
    assert mine[39] == pytest.approx(0.01)


def test_pytorch_optimizers_wsd_is_ours_one_decay_step_later():
    wsd = pytest.importorskip("pytorch_optimizer.lr_scheduler.wsd")
    peer = wsd.get_wsd_schedule(optimiser(), 10, 70, 20, min_lr_ratio=0.1, cooldown_type="cosine")
    ours = CycleLR(optimiser(), wsd_schedule(100, decay=20, shape="cosine", warmup=10))
    theirs, mine = rates_of(peer, 100), rates_of(ours, 100)
    assert mine[:80] == pytest.approx(theirs[:80])
    assert mine[80:99] == pytest.approx(theirs[81:])


def test_every_group_keeps_its_own_peak():
    scheduler = CycleLR(optimiser(groups=2), constant_schedule(5))
    assert scheduler.get_last_lr() == [0.1, 0.2]


def test_state_dict_survives_torch_save_without_pickled_classes():
    schedule = wsds_schedule((20, 50), warmup=2)
    first = CycleLR(optimiser(), schedule)
    rates_of(first, 23)
    buffer = io.BytesIO()
    torch.save({"s": first.state_dict(), "o": first.optimizer.state_dict()}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    base = optimiser()
    second = CycleLR(base, schedule)
    base.load_state_dict(saved["o"])
    second.load_state_dict(saved["s"])
    assert rates_of(second, 27) == rates_of(first, 27)


def test_a_checkpoint_moves_to_a_schedule_with_the_same_past_only():
    main = CycleLR(optimiser(), wsd_schedule(400))
    rates_of(main, 90)
    branch = CycleLR(optimiser(), wsd_schedule(100))
    branch.load_state_dict(main.state_dict())
    rates = rates_of(branch, 10)
    assert rates == pytest.approx([0.1 * wsd_schedule(100)(t) for t in range(90, 100)])
    for other in (cosine_schedule(400), wsd_schedule(50)):
        with pytest.raises(ValueError, match="trained for 90 steps under another schedule: step"):
            CycleLR(optimiser(), other).load_state_dict(main.state_dict())


def test_stepping_beyond_the_end_is_refused():
    scheduler = CycleLR(optimiser(), wsd_schedule(10, decay=2))
    rates_of(scheduler, 10)
    assert scheduler.get_last_lr() == [pytest.approx(0.01)]
    with pytest.raises(ValueError, match="has 10 steps, step\\(\\) was called 11 times"):
        scheduler.step()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CycleSchedule((5, 5)), "increase, got \\[5, 5\\]"),
        (lambda: CycleSchedule(()), "positive and increase"),
        (lambda: wsd_schedule(10, floor_ratio=0), "positive floor_ratio"),
        (lambda: wsd_schedule(10, floor_ratio=2), "floor_ratio must lie in \\[0, 1\\], got 2"),
        (lambda: wsd_schedule(10, shape="square"), "got 'square'"),
        (lambda: wsd_schedule(10, decay=-1), "decay must not be negative"),
        (lambda: wsd_schedule(10, decay=1.5), "decay as a fraction must lie in \\[0, 1\\)"),
        (lambda: wsd_schedule(10, decay=8, warmup=3), "shorter than its warmup \\(3\\)"),
        (lambda: wsd_schedule(10, decay_of="run"), "'total' or 'cycle', got 'run'"),
        (lambda: wsd_schedule(10)(10), "steps 0 to 9, asked for 10"),
        (lambda: decay_ratio(1.5, 0.1), "progress must lie in"),
    ],
)
def test_wrong_arguments_are_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_decay_to_zero_is_possible_where_the_shape_allows_it():
    assert wsd_schedule(10, floor_ratio=0, shape="linear")(9) == 0
    assert math.isclose(wsd_schedule(10, floor_ratio=0, decay=5, shape="sqrt")(5), 1 - 0.2**0.5)
