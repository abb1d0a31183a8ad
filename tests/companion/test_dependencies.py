"""What a chapter depends on: exactly the modules that it imports, directly or through others."""

from __future__ import annotations

import subprocess
import sys

import grimp
import pytest

from companion.paths import Project, ProjectError

LIST = (
    "from companion.dependencies import chapter_dependencies\n"
    "from companion.paths import Project\n"
    "p = Project('.')\n"
    "print(*(f.relative_to(p.root) for f in chapter_dependencies(p.chapter('{slug}'))), sep='\\n')\n"
)


def listed(project, slug: str) -> set[str]:
    result = subprocess.run(
        [sys.executable, "-c", LIST.format(slug=slug)],
        cwd=project.root, env=project.environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(result.stdout.split())


def test_a_chapter_depends_on_its_text_claims_and_imports(make_project):
    project = make_project("alpha", "beta")
    shared = project.root / "lib" / "descent" / "shared.py"
    shared.write_text('"""Shared."""\n')
    method = project.root / "lib" / "descent" / "stability" / "alpha.py"
    method.write_text(method.read_text() + "\n\nimport descent.shared  # noqa\n")
    alpha, beta = listed(project, "alpha"), listed(project, "beta")
    assert {
        "notebooks/stability/alpha.md",
        "notebooks/stability/alpha.claims.yml",
        "lib/descent/__init__.py",
        "lib/descent/stability/__init__.py",
        "lib/descent/stability/alpha.py",
        "lib/descent/shared.py",
        "lib/companion/chapter.py",
        "lib/companion/criteria.py",
    } <= alpha
    assert not {f for f in beta if "stability" in f or "shared" in f}
    for unused in ("cli", "workflow", "staging", "sphinx_extension", "scaffold", "reference"):
        assert f"lib/companion/{unused}.py" not in alpha


def test_unknown_and_unwritten_chapters(root):
    with pytest.raises(ProjectError, match="unknown chapter 'm-fax'; did you mean m-fac"):
        Project(root).chapter("m-fax")


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("companion", "descent", cache_dir=None)


def test_the_two_packages_do_not_know_each_other(graph):
    for module in graph.modules:
        other = "descent" if module.startswith("companion") else "companion"
        reached = graph.find_modules_directly_imported_by(module)
        assert not {m for m in reached if m.split(".")[0] == other}, module


def test_no_chapter_imports_another_or_defines_a_class(root):
    import ast

    import jupytext

    for files in Project(root).chapters():
        for cell in jupytext.read(files.text).cells:
            if cell.cell_type == "code":
                tree = ast.parse(cell.source)
                assert not [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)], files.slug
                assert "notebooks" not in cell.source, files.slug
