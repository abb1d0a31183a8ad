"""Scaffolding: files that validate, in the catalogue's order, and never over existing ones."""

from __future__ import annotations

import yaml

from companion.claims import load_claims
from companion.paths import Project


def contents(project) -> list[tuple[str, list[str]]]:
    toc = yaml.safe_load((project.root / "_toc.yml").read_text())
    return [(p["caption"], [c["file"] for c in p["chapters"]]) for p in toc["parts"]]


def test_chapters_enter_the_contents_in_the_catalogues_order(make_project):
    project = make_project("gamma", "beta", "alpha")
    assert contents(project) == [
        ("Reading", ["book/scoreboard"]),
        ("Stability", ["notebooks/stability/alpha"]),
        ("Curvature", ["notebooks/curvature/beta", "notebooks/curvature/gamma"]),
    ]


def test_a_scaffold_validates_and_takes_its_facts_from_the_catalogue(make_project):
    files = Project(make_project("alpha").root).chapter("alpha")
    claims = load_claims(files.claims)
    assert claims.paper.title == "The alpha paper"
    assert claims.question == "Does alpha hold?"
    assert claims.paper.authors == ("A. Author", "B. Author")


def test_existing_files_are_never_touched(make_project):
    project = make_project()
    method = project.root / "lib" / "descent" / "stability" / "alpha.py"
    method.parent.mkdir(parents=True)
    method.write_text('"""Mine."""\n')
    assert project.companion("new", "alpha").returncode == 0
    assert method.read_text() == '"""Mine."""\n'


def test_the_first_chapter_of_a_part_brings_its_api_page(make_project):
    project = make_project()
    toc = project.root / "_toc.yml"
    toc.write_text(
        toc.read_text()
        + "- caption: Reference\n  chapters:\n  - file: book/api/descent\n    sections: []\n"
    )
    for slug in ("beta", "gamma"):
        assert project.companion("new", slug).returncode == 0
    page = project.root / "book" / "api" / "curvature.md"
    assert "{api-reference} descent.curvature" in page.read_text()
    reference = yaml.safe_load(toc.read_text())["parts"][-1]["chapters"]
    assert reference == [{"file": "book/api/descent", "sections": [{"file": "book/api/curvature"}]}]
