"""The book's source tree and its HTML: staged from the committed record, or from fresh runs, then built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from companion.evidence import load_record
from companion.paths import ROOT_VARIABLE, Project, ProjectError, RunKey

IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info", ".ipynb_checkpoints")


def book_sources(project: Project) -> list[str]:
    """All committed files that the HTML depends on, relative to the root, chapters' runs apart."""
    patterns = ("_config.yml", "_toc.yml", "book/**/*", "lib/**/*", "notebooks/**/*.yml")
    found = {
        path.relative_to(project.root)
        for pattern in patterns
        for path in project.root.glob(pattern)
        if path.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts)
    }
    return sorted(
        str(path) for path in found if not any(p.endswith(".egg-info") for p in path.parts)
    )


def stage(project: Project, source: Path, key: RunKey | None) -> None:
    """Lay out the source tree of the book under ``source``.

    Args:
        project: the repository.
        source: the folder to fill; what it held before is removed.
        key: the runs whose notebooks and evidence make the chapters; ``None`` takes the committed ones.
    """
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy2(project.root / name, source)
    shutil.copytree(project.root / "book", source / "book", ignore=IGNORED)
    (source / "lib").symlink_to(project.root / "lib", target_is_directory=True)
    for files in project.chapters():
        folder = source / "notebooks" / files.part
        folder.mkdir(parents=True, exist_ok=True)
        notebook = files.notebook
        if key is not None:
            notebook = project.run_folder(files.slug, key) / "notebook.ipynb"
        if not notebook.is_file():
            mend = f"make chapter C={files.slug}"
            raise ProjectError(f"there is no executed notebook of {files.slug}; run: {mend}")
        shutil.copy2(notebook, folder / f"{files.slug}.ipynb")
        shutil.copy2(files.text, folder)
        shutil.copy2(files.claims, folder)
    if key is not None:
        _overlay_fresh_evidence(project, source)


def _overlay_fresh_evidence(project: Project, source: Path) -> None:
    """Lay the evidence of all fresh runs over the committed records of the same name."""
    for path in project.build.glob("runs/*/*/evidence.json"):
        record = load_record(path)
        record.save(source / "book" / "evidence" / record.slug / record.name)


def build(project: Project, name: str, key: RunKey | None) -> Path:
    """Stage and build the HTML book, every warning an error; returns its first page."""
    base = project.build / name
    source, html = base / "source", base / "html"
    stage(project, source, key)
    python = Path(sys.executable)
    environment = os.environ | {
        ROOT_VARIABLE: str(project.root),
        "PYTHONPATH": str(project.root / "lib"),
    }
    steps = (
        [python.with_name("jupyter-book"), "config", "sphinx", source],
        [python, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", "-b", "html",
         "-d", base / "doctrees", source, html],
    )  # fmt: skip
    for step in steps:
        result = subprocess.run(
            [str(part) for part in step], cwd=project.root, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if result.returncode != 0:
            # a page with a warning must not pass for a finished book, now or when the build is repeated:
            # Sphinx would not read it again, and so not warn again
            (html / "index.html").unlink(missing_ok=True)
            shutil.rmtree(base / "doctrees", ignore_errors=True)
            raise ProjectError(f"the book did not build:\n{result.stdout.strip()[-6000:]}")
    return html / "index.html"
