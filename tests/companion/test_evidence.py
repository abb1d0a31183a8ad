"""Evidence records: round trip, and the comparison with the committed record."""

from __future__ import annotations

import pytest

from companion.claims import ClaimsFile
from companion.criteria import as_sample, control_fails, judge, verdict
from companion.evidence import ClaimRecord, ConditionRecord, Record, drift, load_record
from companion.paths import ProjectError
from tests.companion.test_claims import valid


@pytest.fixture
def claims():
    return ClaimsFile.model_validate(valid())


def record(claims: ClaimsFile, measured, control, **more) -> Record:
    claim = claims.claims[0]
    condition = claim.conditions[0]
    samples = [as_sample(condition, s, "") for s in (measured, control)]
    pair = (judge(condition, samples[0]), judge(condition, samples[1]))
    row = ConditionRecord.of(condition, *samples, *pair, control_fails(condition, pair[1]))
    result = ClaimRecord(
        id="C1", verdict=verdict(claim, {condition.metric: pair}), expected="reproduced",
        reach="full", conditions=[row],
    )  # fmt: skip
    fields = {
        "schema": 1, "slug": "sample", "part": "stability", "profile": "quick", "device": "cpu",
        "seed": 0, "versions": {}, "figures": ["F1"], "claims": [result],
    }  # fmt: skip
    return Record(**(fields | more))


def test_a_record_survives_the_round_trip(tmp_path, claims):
    original = record(claims, [0.5, 0.25], [2.0, 3.0], wall_seconds=1.5)
    original.save(tmp_path / "quick-cpu-seed0.json")
    assert load_record(tmp_path / "quick-cpu-seed0.json") == original
    assert list(tmp_path.iterdir()) == [tmp_path / "quick-cpu-seed0.json"]


def test_a_broken_record_is_named(tmp_path):
    path = tmp_path / "quick-cpu-seed0.json"
    path.write_text('{"schema": 1, "slug": "x"')
    with pytest.raises(ProjectError, match=r"quick-cpu-seed0\.json is not a valid evidence record"):
        load_record(path)
    with pytest.raises(ProjectError, match="run the chapter first"):
        load_record(tmp_path / "other.json")


def test_no_drift_within_tolerance(claims):
    assert drift(claims, record(claims, [0.52], [2.1]), record(claims, [0.5], [2.0])) == []


def test_a_value_beyond_its_tolerance_is_told_for_each_arm(claims):
    faults = drift(claims, record(claims, [0.7], [9.0]), record(claims, [0.5], [2.0]))
    assert len(faults) == 2
    assert "C1: error (measured) was 0.5 and is now 0.7" in faults[0]
    assert "error (control) was 2 and is now 9" in faults[1]


def test_a_changed_verdict_names_claim_old_and_new(claims):
    faults = drift(claims, record(claims, [1.01], [2.0]), record(claims, [0.99], [2.0]))
    assert faults == [
        "sample (quick-cpu-seed0) C1: the verdict was 'reproduced' and is now 'not reproduced'."
    ]


def test_a_changed_criterion_is_told(claims):
    content = valid()
    content["claims"][0]["conditions"][0]["threshold"] = 5.0
    looser = ClaimsFile.model_validate(content)
    faults = drift(looser, record(looser, [0.5], [9.0]), record(claims, [0.5], [9.0]))
    assert "the criterion of error changed since the record" in faults[0]


def test_the_decisive_condition_is_the_first_that_fails_or_whose_control_does_not(claims):
    held = record(claims, [0.5], [2.0]).claims[0].conditions[0]
    lost = record(claims, [2.0], [2.0]).claims[0].conditions[0]
    idle = record(claims, [0.5], [0.5]).claims[0].conditions[0]

    def decisive(*conditions):
        return ClaimRecord(
            id="C1", verdict="reproduced", expected="reproduced", reach="full",
            conditions=list(conditions),
        ).decisive  # fmt: skip

    assert decisive(held, held.model_copy(update={"metric": "second"})) is held
    assert decisive(held, lost) is lost
    assert decisive(held, idle, lost) is idle
    assert decisive() is None
