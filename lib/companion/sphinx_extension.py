"""Sphinx extension: the generated pieces of the book, all from the claims files and the evidence records.

Directives: ``chapter-badges <slug>``, ``gallery``, ``scoreboard``, ``execution-status`` and
``api-reference <package>``.
"""

from __future__ import annotations

import base64
import posixpath
import re
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from companion import tables
from companion.paths import ChapterFiles, Project
from companion.reports import ChapterReport, chapter_reports

STATIC = Path(__file__).parent / "static"
PICTURE = re.compile(
    r'data-figure="(?P<id>F\w+)".*?src="data:image/png;base64,(?P<png>[^"]+)"', re.S
)

templates = Environment(
    loader=PackageLoader("companion"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip


def as_markup(cell: tables.Cell) -> Markup:
    """A table cell as HTML that the template does not escape again."""
    return Markup(cell.html) if isinstance(cell, tables.Html) else Markup.escape(cell)


def byline(authors: list[str]) -> str:
    """One or two authors by name, more as the first and others."""
    return " and ".join(authors) if len(authors) < 3 else f"{authors[0]} and others"


templates.globals |= {
    "byline": byline,
    "badge": lambda *a: as_markup(tables.badge(*a)),
    "marked": lambda *a: as_markup(tables.marked(*a)),
    "with_interval": tables.with_interval,
    "symbol": tables.SYMBOL,
}


class Generated(SphinxDirective):
    """A directive whose content is one rendered template."""

    template = ""

    def context(self) -> dict[str, Any]:
        raise NotImplementedError

    def link(self, document: str) -> str:
        """The relative address of another page."""
        here = posixpath.dirname(self.env.docname)
        return posixpath.relpath(f"{document}.html", here or ".")

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        text = templates.get_template(self.template).render(link=self.link, **self.context())
        return [nodes.raw("", text, format="html")]


class ChapterBadges(Generated):
    """The verdicts of a chapter's reference run and what that run took."""

    required_arguments = 1
    template = "badges.html.j2"

    def context(self) -> dict[str, Any]:
        found = [r for r in reports(self.env.app) if r.files.slug == self.arguments[0]]
        if not found:
            raise self.error(f"unknown chapter {self.arguments[0]!r}")
        return {"report": found[0], "record": found[0].reference}


class Gallery(Generated):
    """Every paper of the catalogue by part: written chapters as cards, the others as still to come."""

    template = "gallery.html.j2"

    def context(self) -> dict[str, Any]:
        project = Project(self.env.app.srcdir)
        return {
            "parts": project.catalogue["parts"],
            "papers": project.catalogue["papers"],
            "written": {r.files.slug: r for r in reports(self.env.app)},
            "root": posixpath.relpath(".", posixpath.dirname(self.env.docname) or "."),
        }


class Scoreboard(Generated):
    """Every claim of every record, sortable and filterable in the browser."""

    template = "scoreboard.html.j2"

    def context(self) -> dict[str, Any]:
        found = reports(self.env.app)
        return {
            "reports": found,
            "totals": totals(found),
            "runs": sorted(
                {rec.name.removesuffix(".json") for rep in found for rec in rep.records}
            ),
            "root": posixpath.relpath(".", posixpath.dirname(self.env.docname) or "."),
        }


class ExecutionStatus(Generated):
    """Every record with its wall time, CPU time, peak memory and versions."""

    template = "execution.html.j2"

    def context(self) -> dict[str, Any]:
        return {"reports": reports(self.env.app)}


class ApiReference(SphinxDirective):
    """The public modules of a package such as ``descent.stability``, without those of its own packages."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        package, env = self.arguments[0], self.env
        modules = public_modules(env.app, package)
        env.metadata[env.docname]["api-package"] = package
        env.metadata[env.docname]["api-modules"] = list(modules)
        container = nodes.container(classes=["api-reference"])
        for module, path in modules.items():
            env.note_dependency(str(path))
            container += self._section(module)
        return list(container.children)

    def _section(self, module: str) -> nodes.section:
        from sphinx.util.parsing import nested_parse_to_nodes

        section = nodes.section(ids=[nodes.make_id(module)], names=[module])
        section += nodes.title(module, "", nodes.literal(text=module))
        lines = ["```{eval-rst}", f".. automodule:: {module}", "   :members:", "```"]
        content = StringList(lines, source=f"api of {module}")
        section += nested_parse_to_nodes(self.state, content, keep_title_context=True)
        return section


def public_modules(app: Sphinx, package: str) -> dict[str, Path]:
    """The public modules of a package, without those of its own packages, and their files."""
    folder = Path(app.srcdir) / "lib" / Path(*package.split("."))
    return {
        f"{package}.{path.stem}": path
        for path in sorted(folder.glob("*.py"))
        if not path.name.startswith("_")
    }


def outdated_api_pages(app: Sphinx, env: Any, *changes: set[str]) -> list[str]:
    """Pages of packages that gained or lost a module: no file that the page depends on tells of that."""
    return [
        page
        for page, data in env.metadata.items()
        if "api-package" in data
        and data["api-modules"] != list(public_modules(app, data["api-package"]))
    ]


def reports(app: Sphinx) -> list[ChapterReport]:
    """The reports of the staged book, read once per build."""
    if not hasattr(app, "_companion_reports"):
        app._companion_reports = chapter_reports(Project(app.srcdir))  # type: ignore[attr-defined]
    found: list[ChapterReport] = app._companion_reports  # type: ignore[attr-defined]
    return found


def totals(found: list[ChapterReport]) -> dict[str, int]:
    """Claims by verdict over all reference runs."""
    sums: dict[str, int] = {}
    for report in found:
        for verdict, count in report.counts().items():
            sums[verdict] = sums.get(verdict, 0) + count
    return sums


def hero_picture(files: ChapterFiles, hero: str) -> bytes | None:
    """The PNG of a figure, out of the outputs of the executed notebook."""
    notebook = nbformat.read(files.notebook, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for match in PICTURE.finditer(output.get("data", {}).get("text/html", "")):
                if match["id"] == hero:
                    return base64.b64decode(match["png"])
    return None


def add_static_files(app: Sphinx) -> None:
    """The style sheet and the script of the generated pieces."""
    app.config.html_static_path.append(str(STATIC))


def write_pictures_and_scripts(app: Sphinx, error: Exception | None) -> None:
    """The hero figures as thumbnails, and DataTables as a script that also works from a local file."""
    if error is not None or app.builder.format != "html":
        return
    import itables

    static = Path(app.outdir) / "_static"
    module = base64.b64encode(
        (Path(itables.__file__).parent / "html" / "dt_bundle.js").read_bytes()
    )
    (static / "datatables.js").write_text(
        f'window.datatablesModule = "{module.decode()}";', "ascii"
    )
    folder = static / "thumbnails"
    folder.mkdir(parents=True, exist_ok=True)
    for report in reports(app):
        picture = hero_picture(report.files, report.claims.hero)
        if picture is not None:
            (folder / f"{report.files.slug}.png").write_bytes(picture)


def drop_thebe(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Leave out the scripts of sphinx-thebe, which the book does not use and which declare a name twice."""
    scripts = context.get("script_files", [])
    context["script_files"] = [
        s for s in scripts if "thebe" not in f"{s}{getattr(s, 'attributes', '')}".lower()
    ]


def setup(app: Sphinx) -> dict[str, Any]:
    directives: dict[str, type[Directive]] = {
        "chapter-badges": ChapterBadges,
        "gallery": Gallery,
        "scoreboard": Scoreboard,
        "execution-status": ExecutionStatus,
        "api-reference": ApiReference,
    }
    for name, directive in directives.items():
        app.add_directive(name, directive)
    app.connect("builder-inited", add_static_files)
    app.connect("env-get-outdated", outdated_api_pages)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("build-finished", write_pictures_and_scripts)
    return {
        "version": "1",
        "env_version": 1,
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
