"""Reports, tables and the staged book tell what the records hold."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from companion.paths import Project, RunKey
from companion.reports import ChapterReport, chapter_reports, status_json
from companion.staging import book_sources, stage
from companion.tables import Facts, Grouped, badge, listed, with_interval


@pytest.fixture(scope="module")
def project() -> Project:
    return Project(Path(__file__).resolve().parents[2])


def test_the_catalogue_has_thirty_papers_in_seven_parts(project):
    parts = [part["name"] for part in project.catalogue["parts"]]
    papers = project.catalogue["papers"]
    assert len(parts) == 7
    assert len({paper["slug"] for paper in papers}) == len(papers) == 30
    assert list(dict.fromkeys(paper["part"] for paper in papers)) == parts
    for paper in papers:
        assert paper["question"].endswith("?"), paper["slug"]
        assert paper["authors"], paper["slug"]
        assert paper["title"], paper["slug"]


def test_every_paper_has_its_bibliography_entry(project):
    text = (project.root / "book" / "references.bib").read_text(encoding="utf-8")
    for paper in project.catalogue["papers"]:
        assert f"{{{paper['bibkey']}," in text, paper["slug"]


def test_catalogue_and_claims_files_agree(project):
    papers = {paper["slug"]: paper for paper in project.catalogue["papers"]}
    for report in chapter_reports(project):
        assert report.claims.part == papers[report.files.slug]["part"]
        assert report.claims.paper.bibkey == papers[report.files.slug]["bibkey"]


def test_status_as_json_holds_every_record(project):
    content = json.loads(status_json(chapter_reports(project)))
    for files in project.chapters():
        assert len(content[files.slug]) == len(files.evidence_files())


def test_counts_add_up(project):
    for report in chapter_reports(project):
        assert report.reference is not None
        assert sum(report.counts().values()) == len(report.claims.claims)


def test_fresh_runs_are_laid_over_the_record(make_project):
    project = make_project("alpha")
    assert project.companion("run").returncode == 0
    assert project.companion("record").returncode == 0
    project.edit("lib/descent/stability/alpha.py", "learning_rate * 2", "learning_rate * 1")
    assert project.companion("run").returncode == 0
    here = Project(project.root)
    assert chapter_reports(here)[0].reference.claims[0].verdict == "reproduced"
    assert chapter_reports(here, fresh=True)[0].reference.claims[0].verdict == "not reproduced"
    for key, expected in ((None, "reproduced"), (RunKey(), "not reproduced")):
        source = project.root / "staged"
        stage(here, source, key)
        record = json.loads((source / "book/evidence/alpha/quick-cpu-seed0.json").read_text())
        assert record["claims"][0]["verdict"] == expected
        assert (source / "notebooks/stability/alpha.ipynb").is_file()


def test_a_claim_whose_verdict_differs_between_seeds_is_judged_on_all_of_them(project):
    report = next(r for r in chapter_reports(project) if len(r.records) > 2)
    claim = next(
        c
        for c in report.claims.claims
        if len(c.conditions) == 1 and c.conditions[0].test == "every"
    )
    runs = [deepcopy(r) for r in report.records if r.profile == "quick"]
    assert claim.id not in ChapterReport(report.files, report.claims, runs).seed_dependent
    changed, threshold = runs[1].claim(claim.id), claim.conditions[0].threshold
    changed.verdict = "not reproduced" if changed.verdict == "reproduced" else "reproduced"
    spoilt = threshold + 1 if claim.conditions[0].comparison in ("<", "<=") else threshold - 1
    changed.conditions[0].measured = [spoilt]
    together = ChapterReport(report.files, report.claims, runs).seed_dependent[claim.id]
    assert together.verdict == "not reproduced"
    assert spoilt in together.conditions[0].measured
    assert len(together.conditions[0].measured) == 1 + sum(
        len(r.claim(claim.id).conditions[0].measured) for r in (runs[0], *runs[2:])
    )


def test_the_book_depends_on_its_pages_and_the_library_but_not_on_caches(project):
    sources = book_sources(project)
    assert "book/index.md" in sources
    assert "lib/companion/sphinx_extension.py" in sources
    assert not [s for s in sources if "__pycache__" in s or "_build" in s]


def test_tables_escape_what_they_are_given():
    table = Grouped(("a",), [("<b>", [("<script>",), (listed(["x < y", "z"]),)])])
    assert "<script>" not in table._repr_html_()
    assert "x &lt; y" in table._repr_html_()
    assert repr(table) == "<b>\n  - a: <script>\n  - a: x < y; z"
    assert "<b>" not in Facts([("name", "<b>")])._repr_html_()


def test_folded_groups_show_their_headings_and_open_on_a_click():
    table = Grouped(("a",), [("first", [("<x>",)]), ("second", [("y",)])], folded=True)
    html = table._repr_html_()
    assert html.count("<details><summary>") == 2
    assert "&lt;x&gt;" in html
    assert repr(table) == repr(Grouped(table.headers, table.groups))


def test_a_verdict_is_told_in_words_and_not_by_colour_alone():
    assert "not reproduced" in badge("not reproduced").html
    assert badge("out of reach", "C3").text == "C3 out of reach"


def test_values_with_intervals():
    assert with_interval(None, None) == "no value"
    assert with_interval(1.5, None) == "1.5"
    assert with_interval(1.534, (1.49, 1.58)) == "1.53 [1.49, 1.58]"


def test_the_table_of_contents_lists_each_written_chapter_once(project):
    toc = yaml.safe_load((project.root / "_toc.yml").read_text())
    listed_files = [c["file"] for part in toc["parts"] for c in part["chapters"]]
    assert len(listed_files) == len(set(listed_files))
    written = [f"notebooks/{f.part}/{f.slug}" for f in project.chapters()]
    assert [f for f in listed_files if f.startswith("notebooks/")] == written


def test_every_package_of_the_library_has_its_api_page(project):
    toc = yaml.safe_load((project.root / "_toc.yml").read_text())
    chapters = [c for part in toc["parts"] for c in part["chapters"]]
    pages = next(c["sections"] for c in chapters if c["file"] == "book/api/descent")
    packages = {p.parent.name for p in (project.root / "lib" / "descent").glob("*/__init__.py")}
    assert {page["file"] for page in pages} == {f"book/api/{name}" for name in packages}
