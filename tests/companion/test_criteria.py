"""Judging samples: each kind of test, the control, and the four verdicts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from companion.claims import Claim, Condition
from companion.criteria import NoValue, as_sample, control_fails, judge, no_value, pooled, verdict
from companion.paths import ProjectError

finite = st.floats(-1e6, 1e6)


def condition(
    test: str = "every", comparison: str | None = "<=", threshold=1.0, **more
) -> Condition:
    if test == "zero":
        comparison = threshold = None
    return Condition(
        metric="m", label="m", test=test, comparison=comparison, threshold=threshold,
        control="c", **more,
    )  # fmt: skip


def outcome(c: Condition, raw):
    return judge(c, as_sample(c, raw, "C1"))


def claim(*conditions: Condition, reach: str = "full") -> Claim:
    return Claim(
        id="C1", statement="s", source="s", kind="bound", reach=reach, reach_reason="r",
        expected="reproduced", conditions=conditions,
    )  # fmt: skip


@given(st.lists(finite, min_size=1, max_size=30))
def test_every_holds_exactly_when_all_entries_do(values):
    result = outcome(condition(), values)
    assert result.holds == all(v <= 1.0 for v in values)
    assert result.value == max(values)


@given(st.lists(finite, min_size=1, max_size=30), st.floats(0.01, 1))
def test_share_counts_entries(values, share):
    result = outcome(condition("share", share=share), values)
    assert result.value == pytest.approx(np.mean([v <= 1.0 for v in values]))
    assert result.holds == (result.value >= share)


@given(st.lists(finite, min_size=1, max_size=30))
def test_median_compares_the_median(values):
    result = outcome(condition("median"), values)
    assert result.holds == (float(np.median(values)) <= 1.0)


def test_a_run_without_a_value_satisfies_nothing():
    diverged = no_value("diverged at step 3")
    assert not outcome(condition(), [0.5, diverged]).holds
    assert not outcome(condition(comparison=">="), [2.0, diverged]).holds
    assert outcome(condition("share", share=0.5), [0.5, diverged]).holds
    assert not outcome(condition("median"), [0.5, diverged, diverged]).holds
    assert outcome(condition("median"), [0.5, 0.6, diverged]).holds
    assert not outcome(condition("confidence"), [0.5, 0.6, diverged]).holds
    assert outcome(condition("point"), diverged).value is None


def test_no_value_needs_a_reason():
    with pytest.raises(ProjectError, match="reason"):
        no_value(" ")


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=20, unique=True))
def test_confidence_compares_the_unfavourable_end_of_the_t_interval(values):
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    above = outcome(condition("confidence", ">=", 0.0), values)
    below = outcome(condition("confidence", "<=", 0.0), values)
    assert above.holds == (low >= 0)
    assert below.holds == (high <= 0)
    assert above.interval == pytest.approx((low, high))


def test_bootstrap_interval_covers_the_mean_and_is_repeatable():
    values = np.random.default_rng(3).exponential(size=40)
    c = condition("confidence", "<=", 2.0, interval="bootstrap")
    first, second = outcome(c, values), outcome(c, values)
    assert first.interval == second.interval
    assert first.interval[0] < values.mean() < first.interval[1]


@pytest.mark.parametrize("power", [-2.0, 0.5, 1.0, 3.0])
def test_slope_recovers_a_power_law(power):
    x = np.geomspace(1, 100, 9)
    result = outcome(
        condition("slope", "between", (power - 0.01, power + 0.01)), {"x": x, "y": 7 * x**power}
    )
    assert result.holds
    assert result.value == pytest.approx(power)


def test_the_slope_of_a_constant_is_zero():
    result = outcome(condition("slope", "<=", 0.1), {"x": [1, 10, 100], "y": [5, 5, 5]})
    assert (result.holds, result.value, result.interval) == (True, 0.0, (0.0, 0.0))


def test_slope_on_semilog_axes():
    x = np.arange(10.0)
    c = condition("slope", "between", (-0.71, -0.69), axes="semilogy")
    assert outcome(c, {"x": x, "y": 3 * np.exp(-0.7 * x)}).holds


def test_slope_bound_by_its_interval_is_stricter_than_by_its_estimate():
    rng = np.random.default_rng(0)
    x = np.geomspace(1, 100, 12)
    sample = {"x": x, "y": x * np.exp(0.3 * rng.normal(size=(3, 12)))}
    fitted = outcome(condition("slope", "<=", 9.0), sample)
    threshold = (fitted.value + fitted.interval[1]) / 2
    assert outcome(condition("slope", "<=", threshold), sample).holds
    assert not outcome(condition("slope", "<=", threshold, bound="interval"), sample).holds


def test_a_slope_over_less_than_its_span_is_refused():
    with pytest.raises(ProjectError, match="spans a factor 4"):
        as_sample(condition("slope"), {"x": [1, 2, 4], "y": [1, 2, 4]}, "C1")


def test_a_slope_of_nonpositive_values_on_log_axes_is_refused():
    with pytest.raises(ProjectError, match="positive"):
        as_sample(condition("slope"), {"x": [1, 10, 100], "y": [1, 0, 4]}, "C1")


def test_paired_difference_sees_what_unpaired_means_hide():
    rng = np.random.default_rng(1)
    base = rng.normal(scale=10, size=8)
    sample = {"method": base - 0.1 - 0.01 * rng.random(8), "baseline": base}
    result = outcome(condition("paired", "<", 0.0), sample)
    assert result.holds
    assert result.interval[1] < -0.09
    reverse = {"method": sample["baseline"], "baseline": sample["method"]}
    assert not outcome(condition("paired", "<", 0.0), reverse).holds


def test_zero_is_exact():
    assert outcome(condition("zero"), [0.0, -0.0]).holds
    assert not outcome(condition("zero"), [0.0, 5e-324]).holds


def test_between_reports_the_entry_nearest_to_failing():
    assert (
        outcome(condition(comparison="between", threshold=(0.0, 10.0)), [5.0, 9.5, 1.0]).value
        == 9.5
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("wrap", [list, np.array, torch.tensor])
def test_evidence_that_is_not_finite_is_refused(bad, wrap):
    with pytest.raises(ProjectError, match="C1, measured: entry 1 is .*must be finite"):
        as_sample(condition(), wrap([0.5, bad]), "C1, measured")


@pytest.mark.parametrize(
    ("test", "raw", "message"),
    [
        ("every", [], "empty"),
        ("every", ["0.5"], "not a number"),
        ("every", [True], "not a number"),
        ("every", {"x": [1]}, "not a mapping"),
        ("point", [1.0, 2.0], "takes one number"),
        ("slope", [1.0], "takes {x"),
        ("slope", {"x": [1, 10, 100], "y": [1, 2]}, "shape"),
        ("paired", {"method": [1.0], "baseline": [1.0]}, "at least two pairs"),
        ("paired", {"method": [1.0, 2.0], "baseline": [1.0]}, "against"),
        ("paired", {"method": [1.0, math.nan], "baseline": [1.0, 1.0]}, "finite"),
    ],
)
def test_samples_that_do_not_fit_are_refused(test, raw, message):
    with pytest.raises(ProjectError, match=message):
        as_sample(condition(test), raw, "C1")


def test_tensors_arrays_and_scalars_are_one():
    c = condition()
    assert as_sample(c, torch.tensor([0.5, 2.0]), "") == as_sample(c, np.array([0.5, 2.0]), "")
    assert as_sample(c, np.float32(0.5), "") == as_sample(c, 0.5, "") == [0.5]
    assert as_sample(c, [torch.tensor(0.5), NoValue("x")], "") == [0.5, {"no_value": "x"}]


def test_a_control_share_demands_that_enough_entries_violate():
    strict = condition(control_share=1.0)
    assert not control_fails(strict, outcome(strict, [0.5, 2.0]))
    assert control_fails(strict, outcome(strict, [3.0, 2.0]))
    assert control_fails(condition(), outcome(condition(), [0.5, 2.0]))


@pytest.mark.parametrize(
    ("measured", "control", "expected"),
    [
        (0.5, 2.0, "reproduced"),
        (2.0, 2.0, "not reproduced"),
        (2.0, 0.5, "not reproduced"),
        (0.5, 0.5, "undiscriminating"),
    ],
)
def test_the_verdict_of_one_condition(measured, control, expected):
    c = condition("point")
    assert verdict(claim(c), {"m": (outcome(c, measured), outcome(c, control))}) == expected


def test_all_conditions_must_hold_and_all_controls_fail():
    one = condition("point")
    two = one.model_copy(update={"metric": "n"})
    good = (outcome(one, 0.5), outcome(one, 2.0))
    blind = (outcome(one, 0.5), outcome(one, 0.5))
    wrong = (outcome(one, 2.0), outcome(one, 2.0))
    both = claim(one, two)
    assert verdict(both, {"m": good, "n": good}) == "reproduced"
    assert verdict(both, {"m": good, "n": blind}) == "undiscriminating"
    assert verdict(both, {"m": blind, "n": wrong}) == "not reproduced"
    with pytest.raises(ProjectError, match="no evidence for n"):
        verdict(both, {"m": good})


def test_out_of_reach_needs_nothing_measured():
    assert verdict(claim(reach="out-of-reach"), {}) == "out of reach"


def test_samples_of_several_seeds_are_put_together():
    every, point = condition("every"), condition("point")
    assert pooled(every, [[1.0, 2.0], [{"no_value": "diverged"}]]) == [
        1.0,
        2.0,
        {"no_value": "diverged"},
    ]
    assert pooled(point, [[1.0], [2.0], [6.0]]) == [3.0]
    lost = pooled(point, [[1.0], [{"no_value": "diverged"}]])
    assert not judge(point, lost).holds
    paired = condition("paired", "<", 0)
    parts = [
        {"method": [1.0, 2.0], "baseline": [2.0, 3.5]},
        {"method": [[0.0]], "baseline": [[3.0]]},
    ]
    assert pooled(paired, parts) == {"method": [1.0, 2.0, 0.0], "baseline": [2.0, 3.5, 3.0]}


def test_a_slope_over_several_seeds_is_fitted_to_all_their_points():
    slope = condition("slope", "<=", -0.9, axes="loglog", span=4)
    x = [1.0, 2.0, 4.0]
    parts = [{"x": x, "y": [1.0, 0.5, 0.25]}, {"x": x, "y": [[4.0, 2.0, 1.0], [1.0, 1.0, 1.0]]}]
    together = judge(slope, pooled(slope, parts))
    assert together.value == pytest.approx(-2 / 3)
    assert together.entries == 9
