"""The generated parts of the book's pages."""

from __future__ import annotations

from types import SimpleNamespace

from companion.paths import Project
from companion.reports import chapter_reports
from companion.sphinx_extension import outdated_api_pages, public_modules, templates, totals


def test_an_api_page_is_read_anew_when_a_module_comes_or_goes(tmp_path):
    package = tmp_path / "lib" / "methods"
    package.mkdir(parents=True)
    for name in ("__init__", "first", "_private"):
        (package / f"{name}.py").touch()
    app = SimpleNamespace(srcdir=tmp_path)
    modules = list(public_modules(app, "methods"))
    assert modules == ["methods.first"]
    page = {"api-package": "methods", "api-modules": modules}
    env = SimpleNamespace(metadata={"api/methods": page, "index": {}})
    assert outdated_api_pages(app, env, set(), set(), set()) == []
    (package / "second.py").touch()
    assert outdated_api_pages(app, env, set(), set(), set()) == ["api/methods"]
    (package / "second.py").unlink()
    (package / "first.py").unlink()
    assert outdated_api_pages(app, env, set(), set(), set()) == ["api/methods"]


def test_head_and_scoreboard_tell_the_verdict_on_all_seeds(root):
    found = chapter_reports(Project(root))
    board = templates.get_template("scoreboard.html.j2").render(
        reports=found, totals=totals(found), runs=[], root=".", link=str
    )
    expected = 0
    for report in found:
        quick = [r for r in report.records if r.profile == "quick"]
        expected += len(report.seed_dependent) * len(quick)
        head = templates.get_template("badges.html.j2").render(
            report=report, record=report.reference, link=str
        )
        for claim_id, claim in report.seed_dependent.items():
            assert f"{claim_id} ({claim.verdict} on all recorded seeds together)" in head
    assert board.count("all recorded seeds together: ") == expected > 0
