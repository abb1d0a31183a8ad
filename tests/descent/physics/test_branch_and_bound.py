"""The driver on problems without networks: intervals of a function, exhaustion, batches, targets."""

import math

import pytest

from descent.physics.branch_and_bound import branch_and_bound


def by_slope(function, slope):
    """Bound a function of that Lipschitz constant on intervals by its value in the middle."""

    def evaluate(intervals):
        return [(function((a + b) / 2) + slope * (b - a) / 2, None) for a, b in intervals]

    def halve(interval, notes):
        a, b = interval
        return [(a, (a + b) / 2), ((a + b) / 2, b)]

    return evaluate, halve


@pytest.mark.parametrize("batch", [1, 4])
def test_the_bound_falls_to_the_maximum_and_never_below(batch):
    evaluate, halve = by_slope(lambda x: math.sin(5 * x) + x, 6.0)
    best = max(math.sin(5 * x / 1000) + x / 1000 for x in range(3001))
    result = branch_and_bound((0.0, 3.0), evaluate, halve, 300, batch)
    assert best <= result.bound < best + 1e-2
    assert all(b <= a for a, b in zip(result.trace, result.trace[1:], strict=False))
    assert result.splits == 300
    assert result.bounded == 601
    assert result.trace[0] == evaluate([(0.0, 3.0)])[0][0]
    assert len(result.trace) == 1 + 300 // batch if batch == 1 else len(result.trace) <= 301
    assert not result.finished


def test_leaves_end_the_search_exactly():
    values = {"a": 3.0, "b": 5.0, "c": 4.0, "d": 1.0}

    def evaluate(sets):
        # bounds are loose by one for every element beyond the first
        return [(max(values[k] for k in s) + len(s) - 1, None) for s in sets]

    def halve(s, notes):
        return [s[: len(s) // 2], s[len(s) // 2 :]] if len(s) > 1 else []

    for batch in (1, 3):
        result = branch_and_bound("abcd", evaluate, halve, 100, batch)
        assert result.bound == 5.0
        assert result.finished


def test_a_part_inherits_the_better_bound_and_empty_parts_vanish():
    def evaluate(domains):
        return [({"root": 2.0, "worse": 7.0, "empty": -math.inf}[d], d) for d in domains]

    def branch(domain, notes):
        assert notes == domain
        return ["worse", "empty"] if domain == "root" else []

    result = branch_and_bound("root", evaluate, branch, 10)
    assert result.trace == (2.0, 2.0)
    assert result.finished
    assert (result.splits, result.bounded) == (1, 3)


def test_it_stops_at_the_target_and_without_splits():
    evaluate, halve = by_slope(lambda x: -abs(x), 1.0)
    assert branch_and_bound((-1.0, 1.0), evaluate, halve, 0).trace == (1.0,)
    result = branch_and_bound((-1.0, 1.0), evaluate, halve, 100, target=0.3)
    assert result.finished
    assert 0 <= result.bound <= 0.3
    assert result.splits < 100


def test_wrong_numbers_are_told():
    evaluate, halve = by_slope(abs, 1.0)
    with pytest.raises(ValueError, match="got -1 and 1"):
        branch_and_bound((0.0, 1.0), evaluate, halve, -1)
    with pytest.raises(ValueError, match="got 1 and 0"):
        branch_and_bound((0.0, 1.0), evaluate, halve, 1, 0)
