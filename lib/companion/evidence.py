"""The evidence record of a run, and the comparison of a fresh record with the committed one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from companion import criteria
from companion.claims import Claim, ClaimsFile, Condition, Verdict, number
from companion.criteria import Interval, Outcome, Sample
from companion.paths import ProjectError

VOLATILE = ("started", "wall_seconds", "cpu_seconds", "peak_mib", "revision")


class Recorded(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ConditionRecord(Recorded):
    """One condition as measured: both samples, what stands for them, and whether each satisfies it."""

    metric: str
    criterion: str
    measured: Any
    control: Any
    control_arm: str
    value: float | None
    interval: Interval | None
    holds: bool
    control_value: float | None
    control_interval: Interval | None
    control_fails: bool

    @classmethod
    def of(
        cls,
        condition: Condition,
        measured: Sample,
        control: Sample,
        outcome: Outcome,
        against: Outcome,
        fails: bool,
    ) -> ConditionRecord:
        return cls(
            metric=condition.metric,
            criterion=condition.criterion(),
            measured=measured,
            control=control,
            control_arm=condition.control,
            value=outcome.value,
            interval=outcome.interval,
            holds=outcome.holds,
            control_value=against.value,
            control_interval=against.interval,
            control_fails=fails,
        )


class ClaimRecord(Recorded):
    id: str
    verdict: Verdict
    expected: Verdict
    reach: str
    conditions: list[ConditionRecord] = []
    note: str = ""

    @classmethod
    def judged(
        cls, claim: Claim, samples: Mapping[str, tuple[Sample, Sample]], note: str = ""
    ) -> ClaimRecord:
        """Judge a claim by the (measured, control) samples of each of its metrics."""
        outcomes, records = {}, []
        for condition in claim.conditions:
            measured, control = samples[condition.metric]
            pair = (criteria.judge(condition, measured), criteria.judge(condition, control))
            outcomes[condition.metric] = pair
            fails = criteria.control_fails(condition, pair[1])
            records.append(ConditionRecord.of(condition, measured, control, *pair, fails))
        return cls(
            id=claim.id,
            verdict=criteria.verdict(claim, outcomes),
            expected=claim.expected,
            reach=claim.reach,
            conditions=records,
            note=note,
        )

    @property
    def decisive(self) -> ConditionRecord | None:
        """The first condition that fails or does not discriminate, else the first; none where nothing was run."""
        lost = (c for c in self.conditions if not (c.holds and c.control_fails))
        return next(lost, self.conditions[0] if self.conditions else None)


class Record(Recorded):
    """Everything one run of a chapter witnessed; the file ``<profile>-<device>-seed<k>.json``."""

    version: Literal[1] = Field(1, alias="schema", serialization_alias="schema")
    slug: str
    part: str
    profile: str
    device: str
    seed: int
    started: str | None = None
    wall_seconds: float | None = None
    cpu_seconds: float | None = None
    peak_mib: float | None = None
    versions: dict[str, str]
    revision: str | None = None
    figures: list[str]
    claims: list[ClaimRecord]

    @property
    def name(self) -> str:
        """The file name of the committed record."""
        return f"{self.profile}-{self.device}-seed{self.seed}.json"

    def claim(self, claim_id: str) -> ClaimRecord | None:
        return next((c for c in self.claims if c.id == claim_id), None)

    def witness(self) -> dict[str, Any]:
        """The record without what differs from run to run of an unchanged chapter."""
        return self.model_dump(by_alias=True, exclude=set(VOLATILE))

    def save(self, path: Path) -> None:
        """Write the record; the file appears whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.model_dump(by_alias=True), indent=1, ensure_ascii=False) + "\n"
        draft = path.with_name(path.name + ".part")
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)


def load_record(path: Path) -> Record:
    """Read a record; a broken one is told by name."""
    try:
        return Record.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProjectError(f"there is no evidence at {path}; run the chapter first.") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(p) for p in first["loc"]) or "file"
        raise ProjectError(
            f"{path} is not a valid evidence record ({field}: {first['msg']})."
        ) from None


def drift(claims: ClaimsFile, fresh: Record, committed: Record) -> list[str]:
    """Where a fresh record departs from the committed one: one sentence per verdict or value."""
    key = f"{fresh.slug} ({committed.name.removesuffix('.json')})"
    faults = []
    for claim in claims.claims:
        new, old = fresh.claim(claim.id), committed.claim(claim.id)
        if new is None or old is None:
            side = "fresh" if new is None else "committed"
            faults.append(
                f"{key} {claim.id}: not in the {side} record; run and record the chapter again."
            )
            continue
        if new.verdict != old.verdict:
            faults.append(
                f"{key} {claim.id}: the verdict was {old.verdict!r} and is now {new.verdict!r}."
            )
        olds = {c.metric: c for c in old.conditions}
        for condition, now in zip(claim.conditions, new.conditions, strict=True):
            then = olds.get(condition.metric)
            if then is None or then.criterion != now.criterion:
                faults.append(
                    f"{key} {claim.id}: the criterion of {condition.metric} changed since the record."
                )
                continue
            for arm, value, before in (
                ("measured", now.value, then.value),
                ("control", now.control_value, then.control_value),
            ):
                if not _close(condition, value, before):
                    faults.append(
                        f"{key} {claim.id}: {condition.metric} ({arm}) was {_said(before)} and is now "
                        f"{_said(value)}, beyond its tolerance."
                    )
    return faults


def _close(condition: Condition, fresh: float | None, committed: float | None) -> bool:
    if fresh is None or committed is None:
        return fresh is committed
    return condition.tolerance.allows(fresh, committed)


def _said(value: float | None) -> str:
    return "no value" if value is None else number(value)
