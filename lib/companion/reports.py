"""What the records say, for all readers: one source for the gallery, the scoreboard and the terminal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

from companion.claims import Claim, ClaimsFile, load_claims
from companion.criteria import Sample, pooled
from companion.evidence import ClaimRecord, Record, load_record
from companion.paths import ChapterFiles, Project

VERDICTS = ("reproduced", "not reproduced", "undiscriminating", "out of reach")


@dataclass(frozen=True)
class ChapterReport:
    """A written chapter with all its records, the reference run first."""

    files: ChapterFiles
    claims: ClaimsFile
    records: list[Record]

    @property
    def reference(self) -> Record | None:
        """The run shown by default (quick, seed 0, on the CPU where there is one)."""
        return next((r for r in self.records if r.profile == "quick" and r.seed == 0), None)

    def counts(self) -> dict[str, int]:
        """How many claims of the reference run have each verdict."""
        verdicts = [c.verdict for c in self.reference.claims] if self.reference else []
        return {v: verdicts.count(v) for v in VERDICTS if v in verdicts}

    def flips(self, claim_id: str) -> dict[str, str]:
        """The verdict of one claim in every run, by run name."""
        found: dict[str, str] = {}
        for record in self.records:
            if claim := record.claim(claim_id):
                found[record.name.removesuffix(".json")] = claim.verdict
        return found

    @cached_property
    def seed_dependent(self) -> dict[str, ClaimRecord]:
        """The claims whose verdict differs between the recorded seeds, judged once more on all of them together.

        Seeds are those of the reference run's profile and device.
        """
        reference = self.reference
        if reference is None:
            return {}
        seeds = [
            r
            for r in self.records
            if (r.profile, r.device) == (reference.profile, reference.device)
        ]
        found = {}
        for claim in self.claims.claims:
            judged = [c for r in seeds if (c := r.claim(claim.id))]
            if len({c.verdict for c in judged}) > 1:
                found[claim.id] = ClaimRecord.judged(claim, _together(claim, judged))
        return found


def _together(claim: Claim, judged: list[ClaimRecord]) -> dict[str, tuple[Sample, Sample]]:
    """The samples of each metric, put together over seeds."""
    samples = {}
    for condition in claim.conditions:
        runs = [k for c in judged for k in c.conditions if k.metric == condition.metric]
        samples[condition.metric] = (
            pooled(condition, [k.measured for k in runs]),
            pooled(condition, [k.control for k in runs]),
        )
    return samples


def chapter_reports(project: Project, fresh: bool = False) -> list[ChapterReport]:
    """A report of every written chapter; ``fresh`` lays the runs under ``_build`` over the committed ones."""
    reports = []
    for files in project.chapters():
        records = {p.name: load_record(p) for p in files.evidence_files()}
        if fresh:
            for path in project.build.glob(f"runs/*/{files.slug}/evidence.json"):
                record = load_record(path)
                records[record.name] = record
        ordered = sorted(
            records.values(), key=lambda r: (r.profile != "quick", r.device != "cpu", r.seed)
        )
        reports.append(ChapterReport(files, load_claims(files.claims), ordered))
    return reports


def status_json(reports: list[ChapterReport]) -> str:
    """All records as one JSON document."""
    return json.dumps(
        {r.files.slug: [record.model_dump(by_alias=True) for record in r.records] for r in reports},
        indent=1,
        ensure_ascii=False,
    )


def main_value(claim: ClaimRecord) -> str:
    """The verdict-deciding numbers of a claim in one short line for the terminal."""
    from companion.tables import with_interval

    decisive = claim.decisive
    if decisive is None:
        return "not measured"
    return f"{decisive.metric} = {with_interval(decisive.value, decisive.interval)}"
