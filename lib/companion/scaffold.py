"""Scaffolding a chapter: files that run, and say what is still missing."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from companion.paths import ChapterFiles, Project, ProjectError

CREATED = {
    "chapter.md.j2": "notebooks/{part}/{slug}.md",
    "chapter.claims.yml.j2": "notebooks/{part}/{slug}.claims.yml",
    "method.py.j2": "lib/descent/{part}/{module}.py",
    "test_method.py.j2": "tests/descent/{part}/test_{module}.py",
}


def scaffold(project: Project, slug: str) -> list[Path]:
    """Create the files of a new chapter from its catalogue entry; existing files are never touched.

    Raises:
        ProjectError: the slug is not in the catalogue, or the chapter exists already.
    """
    if slug not in project.part_of:
        project.chapter(slug)  # raises, with the nearest slugs
    files = ChapterFiles(project.root, project.part_of[slug], slug)
    if files.text.exists():
        raise ProjectError(f"{slug} exists already: {files.text.relative_to(project.root)}")
    paper = next(p for p in project.catalogue["papers"] if p["slug"] == slug)
    names = {"part": files.part, "slug": slug, "module": slug.replace("-", "_")}
    environment = Environment(
        loader=PackageLoader("companion"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["yaml"] = _yaml
    written = []
    for template, pattern in CREATED.items():
        path = project.root / pattern.format(**names)
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(environment.get_template(template).render(**names, paper=paper), "utf-8")
        written.append(path)
    package = project.root / "lib" / "descent" / files.part / "__init__.py"
    if not package.exists():
        title = next(p["title"] for p in project.catalogue["parts"] if p["name"] == files.part)
        package.write_text(f'"""Methods of the part {title}."""\n', encoding="utf-8")
        reference = project.root / "book" / "api" / f"{files.part}.md"
        reference.parent.mkdir(parents=True, exist_ok=True)
        name = f"descent.{files.part}"
        reference.write_text(f"# `{name}`\n\n```{{api-reference}} {name}\n```\n", encoding="utf-8")
        written += [package, reference]
    _add_to_contents(project, files)
    return [*written, project.root / "_toc.yml"]


def _add_to_contents(project: Project, files: ChapterFiles) -> None:
    """Add the chapter under its part in ``_toc.yml``, in the catalogue's order, keeping the rest as it is."""
    path = project.root / "_toc.yml"
    toc = yaml.safe_load(path.read_text(encoding="utf-8"))
    title = next(p["title"] for p in project.catalogue["parts"] if p["name"] == files.part)
    order = list(project.part_of)
    part = next((p for p in toc["parts"] if p["caption"] == title), None)
    if part is None:
        part = {"caption": title, "chapters": []}
        captions = [p["title"] for p in project.catalogue["parts"]]
        following = [
            i
            for i, p in enumerate(toc["parts"])
            if p["caption"] not in captions[: captions.index(title)]
            and (p["caption"] in captions or p["caption"] == "Reference")
        ]
        toc["parts"].insert(following[0] if following else len(toc["parts"]), part)
    part["chapters"].append({"file": f"notebooks/{files.part}/{files.slug}"})
    part["chapters"].sort(key=lambda c: order.index(Path(c["file"]).name))
    page = {"file": f"book/api/{files.part}"}
    for chapter in (c for p in toc["parts"] for c in p["chapters"]):
        if chapter["file"] == "book/api/descent" and page not in chapter["sections"]:
            chapter["sections"].append(page)
    path.write_text(yaml.safe_dump(toc, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _yaml(value: Any) -> str:
    """A value as one line of YAML."""
    return (
        dedent(yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6))
        .removesuffix("...\n")
        .strip()
    )
