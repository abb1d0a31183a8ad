"""The committed reference runs: paired with their text, with outputs to compare, and within budget."""

from __future__ import annotations

import pytest

from companion.paths import Project
from companion.reference import standing_faults
from companion.reports import chapter_reports

REPORTS = chapter_reports(Project())


def test_text_notebook_and_record_agree():
    assert standing_faults(Project()) == []


@pytest.mark.parametrize("report", REPORTS, ids=lambda r: r.files.slug)
def test_three_seeds_are_recorded(report):
    quick = {r.seed for r in report.records if r.profile == "quick" and r.device == "cpu"}
    assert {0, 1, 2} <= quick


@pytest.mark.parametrize("report", REPORTS, ids=lambda r: r.files.slug)
def test_the_quick_profile_keeps_its_budget(report):
    for record in report.records:
        if record.profile == "quick" and record.device == "cpu":
            assert record.cpu_seconds <= 45, record.name
            assert record.peak_mib <= 2048, record.name


@pytest.mark.parametrize("report", REPORTS, ids=lambda r: r.files.slug)
def test_a_claim_not_reproduced_is_discussed_where_it_breaks(report):
    text = report.files.text.read_text(encoding="utf-8")
    section = text.split("## Where it breaks")[1].split("\n## ")[0]
    for record in report.records:
        for claim in record.claims:
            if claim.verdict == "not reproduced":
                assert claim.id in section, f"{claim.id} at {record.name}"


@pytest.mark.parametrize("report", REPORTS, ids=lambda r: r.files.slug)
def test_the_notebook_carries_no_path_and_stays_small(report, root):
    content = report.files.notebook.read_text(encoding="utf-8")
    assert str(root) not in content
    assert len(content) < 2_500_000
