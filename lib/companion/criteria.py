"""Applying a criterion to a sample: the only place where a condition is judged.

A *sample* is what a chapter measured of one metric in one arm. It is a list of numbers (or of
:class:`NoValue`, for a run that yielded none), or for a slope ``{"x": ..., "y": ...}`` and for a paired
difference ``{"method": ..., "baseline": ...}``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # scipy.stats takes half a second to import: scipy loads it when a condition is judged

from companion.claims import Claim, Condition, Verdict
from companion.paths import ProjectError

Entry = float | dict[str, str]
Sample = list[Entry] | dict[str, list]
Interval = tuple[float, float]

BOOTSTRAP_RESAMPLES = 9_999


@dataclass(frozen=True)
class NoValue:
    """The outcome of a run that yields no number (it diverged, or never converged): satisfies nothing."""

    reason: str


def no_value(reason: str) -> NoValue:
    """Mark a run that ended without a value, with the reason; it satisfies no comparison.

    Args:
        reason: why there is no number, such as ``"diverged at step 12"``; it is recorded.
    """
    if not reason.strip():
        raise ProjectError("no_value needs the reason why the run yielded no number.")
    return NoValue(reason.strip())


@dataclass(frozen=True)
class Outcome:
    """What a condition makes of one sample.

    ``value`` is the number that stands for the sample in tables and in drift checks: the least favourable
    entry, the share, the median, the slope or the mean; ``None`` where no entry has a value.
    """

    holds: bool
    value: float | None
    interval: Interval | None
    entries: int
    satisfied: int


def as_sample(condition: Condition, raw: Any, where: str) -> Sample:
    """Turn what a chapter hands over (numbers, sequences, arrays, tensors) into a plain, finite sample."""
    keys = {"slope": ("x", "y"), "paired": ("method", "baseline")}.get(condition.test)
    if keys is None:
        if isinstance(raw, Mapping):
            raise ProjectError(
                f"{where}: the test {condition.test!r} takes a list of numbers, not a mapping."
            )
        entries = _entries(raw, where)
        if condition.test == "point" and len(entries) != 1:
            raise ProjectError(f"{where}: the test 'point' takes one number, not {len(entries)}.")
        return entries
    if not isinstance(raw, Mapping) or set(raw) != set(keys):
        raise ProjectError(
            f"{where}: the test {condition.test!r} takes {{{keys[0]}: …, {keys[1]}: …}}."
        )
    first, second = (_array(raw[k], f"{where}, {k}") for k in keys)
    if condition.test == "paired" and first.shape != second.shape:
        raise ProjectError(
            f"{where}: {first.size} method values against {second.size} baseline values."
        )
    if condition.test == "slope":
        if first.ndim != 1 or second.shape[-1] != first.size or second.ndim > 2:
            raise ProjectError(f"{where}: x has {first.size} points, y has shape {second.shape}.")
        _check_axes(condition, first, second, where)
    elif first.size < 2:
        raise ProjectError(f"{where}: a paired difference needs at least two pairs.")
    return {keys[0]: first.tolist(), keys[1]: second.tolist()}


def judge(condition: Condition, sample: Sample) -> Outcome:
    """Apply one condition to one sample."""
    if isinstance(sample, dict):
        return (
            _judge_slope(condition, sample)
            if condition.test == "slope"
            else _judge_paired(condition, sample)
        )
    values = [e for e in sample if not isinstance(e, dict)]
    satisfied = sum(condition.satisfied_by(v) for v in values)
    count = len(sample)
    match condition.test:
        case "share":
            interval = scipy.stats.binomtest(satisfied, count).proportion_ci(
                condition.confidence, "wilson"
            )
            share = satisfied / count
            assert condition.share is not None
            return Outcome(
                share >= condition.share, share, (interval.low, interval.high), count, satisfied
            )
        case "median":
            # a run without a value lies beyond the unfavourable end, so it pushes the median there
            worst = -math.inf if condition.comparison in (">", ">=") else math.inf
            median = (
                float(np.median(values + [worst] * (count - len(values)))) if count else math.nan
            )
            if not math.isfinite(median):
                return Outcome(False, None, None, count, satisfied)
            return Outcome(
                condition.satisfied_by(median),
                median,
                _interval(values, condition, np.median),
                count,
                satisfied,
            )
        case "confidence":
            if len(values) < count or count < 2:
                return Outcome(False, None, None, count, satisfied)
            interval_of_mean = _interval(values, condition, np.mean)
            assert interval_of_mean is not None
            holds = all(
                condition.satisfied_by(end) for end in _binding_ends(condition, interval_of_mean)
            )
            return Outcome(holds, float(np.mean(values)), interval_of_mean, count, satisfied)
        case _:
            spread = (min(values), max(values)) if len(values) > 1 else None
            return Outcome(
                satisfied == count, _least_favourable(condition, values), spread, count, satisfied
            )


def pooled(condition: Condition, samples: Sequence[Sample]) -> Sample:
    """The samples of several seeds as one: entries, points and pairs are put together.

    The single numbers of a ``point`` give their mean, or no value where one seed yielded none.
    """
    if condition.test == "slope":
        runs = [(np.asarray(s["x"]), np.atleast_2d(s["y"])) for s in samples]  # type: ignore[call-overload]
        x = np.concatenate([np.tile(x, len(y)) for x, y in runs])
        return {"x": x.tolist(), "y": np.concatenate([y.ravel() for _, y in runs]).tolist()}
    if condition.test == "paired":
        return {
            arm: np.concatenate([np.ravel(s[arm]) for s in samples]).tolist()  # type: ignore[call-overload]
            for arm in ("method", "baseline")
        }
    entries: list[Entry] = [entry for sample in samples for entry in sample]  # type: ignore[misc]
    if condition.test != "point":
        return entries
    for entry in entries:
        if isinstance(entry, dict):
            return [entry]
    return [float(np.mean(entries))]  # type: ignore[arg-type]


def control_fails(condition: Condition, outcome: Outcome) -> bool:
    """Whether the control arm fails the condition, as widely as the claims file demands."""
    if outcome.holds:
        return False
    if condition.control_share is None:
        return True
    violating = (outcome.entries - outcome.satisfied) / outcome.entries
    return violating >= condition.control_share


def verdict(claim: Claim, outcomes: Mapping[str, tuple[Outcome, Outcome]]) -> Verdict:
    """The verdict of a claim from the (measured, control) outcomes of all its conditions.

    ``reproduced``: every condition holds as measured and fails on its control. ``not reproduced``: some
    condition fails as measured. ``undiscriminating``: all hold, but some control does not fail.
    """
    if claim.reach == "out-of-reach":
        return "out of reach"
    if missing := [c.metric for c in claim.conditions if c.metric not in outcomes]:
        raise ProjectError(f"{claim.id} has no evidence for {', '.join(missing)}.")
    if not all(outcomes[c.metric][0].holds for c in claim.conditions):
        return "not reproduced"
    if not all(control_fails(c, outcomes[c.metric][1]) for c in claim.conditions):
        return "undiscriminating"
    return "reproduced"


def _plain(raw: Any) -> Any:
    """Detach tensors, also inside lists."""
    if hasattr(raw, "detach"):
        raw = raw.detach().cpu().numpy()
    if isinstance(raw, np.ndarray | np.generic):
        raw = raw.tolist()
    if isinstance(raw, Sequence) and not isinstance(raw, str):
        return [_plain(r) for r in raw]
    return raw


def _entries(raw: Any, where: str) -> list[Entry]:
    plain = _plain(raw)
    listed = plain if isinstance(plain, list) else [plain]
    if not listed:
        raise ProjectError(f"{where}: the sample is empty.")
    entries: list[Entry] = []
    for index, item in enumerate(listed):
        if isinstance(item, NoValue):
            entries.append({"no_value": item.reason})
            continue
        if isinstance(item, bool) or not isinstance(item, int | float):
            raise ProjectError(f"{where}: entry {index} is {item!r}, not a number.")
        entries.append(_finite(float(item), index, where))
    return entries


def _array(raw: Any, where: str) -> np.ndarray:
    try:
        array = np.asarray(_plain(raw), dtype=float)
    except (TypeError, ValueError):
        raise ProjectError(f"{where}: expected numbers, found {raw!r:.60}.") from None
    for index, item in enumerate(array.ravel()):
        _finite(float(item), index, where)
    return array


def _finite(value: float, index: int, where: str) -> float:
    if not math.isfinite(value):
        raise ProjectError(
            f"{where}: entry {index} is {value}; evidence must be finite. A run that ended without a number "
            'is recorded as no_value("reason").'
        )
    return value


def _check_axes(condition: Condition, x: np.ndarray, y: np.ndarray, where: str) -> None:
    logs = {"loglog": (x, y), "semilogx": (x,), "semilogy": (y,), "linear": ()}[condition.axes]
    if any((a <= 0).any() for a in logs):
        raise ProjectError(f"{where}: a {condition.axes} slope needs positive values.")
    if x.size < 3:
        raise ProjectError(f"{where}: a slope needs at least three points.")
    if condition.axes in ("loglog", "semilogx") and x.max() / x.min() < condition.span * (1 - 1e-9):
        raise ProjectError(
            f"{where}: x spans a factor {x.max() / x.min():.3g}, the criterion asks for {condition.span:g}."
        )


def _judge_slope(condition: Condition, sample: dict[str, list]) -> Outcome:
    x, y = np.asarray(sample["x"]), np.atleast_2d(np.asarray(sample["y"]))
    if condition.axes in ("loglog", "semilogx"):
        x = np.log(x)
    if condition.axes in ("loglog", "semilogy"):
        y = np.log(y)
    if np.ptp(y) == 0:  # linregress has no standard error for a constant
        return Outcome(condition.satisfied_by(0.0), 0.0, (0.0, 0.0), y.size, 0)
    fit = scipy.stats.linregress(np.tile(x, len(y)), y.ravel())
    half = float(scipy.stats.t.ppf((1 + condition.confidence) / 2, y.size - 2) * fit.stderr)
    slope = float(fit.slope)
    interval = (slope - half, slope + half)
    ends = _binding_ends(condition, interval) if condition.bound == "interval" else (slope,)
    return Outcome(all(condition.satisfied_by(e) for e in ends), slope, interval, y.size, 0)


def _judge_paired(condition: Condition, sample: dict[str, list]) -> Outcome:
    difference = (np.asarray(sample["method"]) - np.asarray(sample["baseline"])).ravel()
    interval = _interval(list(difference), condition, np.mean)
    assert interval is not None
    holds = all(condition.satisfied_by(end) for end in _binding_ends(condition, interval))
    satisfied = sum(condition.satisfied_by(float(d)) for d in difference)
    return Outcome(holds, float(difference.mean()), interval, difference.size, satisfied)


def _binding_ends(condition: Condition, interval: Interval) -> tuple[float, ...]:
    """The ends of an interval that must satisfy the comparison: the unfavourable one, or both for a band."""
    low, high = interval
    match condition.comparison:
        case "<" | "<=":
            return (high,)
        case ">" | ">=":
            return (low,)
        case _:
            return (low, high)


def _interval(values: list[float], condition: Condition, statistic: Any) -> Interval | None:
    """Confidence interval of the mean (t or BCa bootstrap) or of the median (bootstrap)."""
    if len(values) < 2:
        return None
    data = np.asarray(values)
    if np.ptp(data) == 0:
        return float(data[0]), float(data[0])
    if statistic is np.mean and condition.interval == "t":
        low, high = scipy.stats.t.interval(
            condition.confidence, len(data) - 1, data.mean(), scipy.stats.sem(data)
        )
        return float(low), float(high)
    method = "percentile" if statistic is np.median else "BCa"
    result = scipy.stats.bootstrap(
        (data,),
        statistic,
        confidence_level=condition.confidence,
        n_resamples=BOOTSTRAP_RESAMPLES,
        method=method,
        rng=np.random.default_rng(0),
        batch=1000,
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _least_favourable(condition: Condition, values: list[float]) -> float | None:
    """The entry closest to failing (or failing the most)."""
    if not values:
        return None
    if condition.test == "zero":
        return max(values, key=abs)
    if isinstance(condition.threshold, tuple):
        low, high = condition.threshold
        return max(values, key=lambda v: max(low - v, v - high))
    if condition.comparison == "==":
        return max(values, key=lambda v: abs(v - float(condition.threshold or 0)))  # type: ignore[arg-type]
    return min(values) if condition.comparison in (">", ">=") else max(values)
