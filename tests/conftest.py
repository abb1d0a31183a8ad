"""Shared fixtures: the repository, and small real projects made by the scaffold."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


class SmallProject:
    """A project with scaffolded chapters, on a copy of the harness, driven by its own command line."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def environment(self, **extra: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("COMPANION_")}
        return kept | {"PYTHONPATH": str(self.root / "lib"), "OMP_NUM_THREADS": "1"} | extra

    def companion(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "companion", *arguments],
            cwd=self.root, env=self.environment(**extra), capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    def executed(self, result: subprocess.CompletedProcess[str]) -> list[str]:
        """Which chapters a run executed, from its progress lines."""
        lines = [line.split() for line in result.stderr.splitlines() if "started (" in line]
        return sorted(line[1] for line in lines)

    def run_folder(self, slug: str, key: str = "quick-auto-seed0") -> Path:
        return self.root / "_build" / "runs" / key / slug

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.root / path
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{old!r} is not in {path}"
        file.write_text(text.replace(old, new, 1), encoding="utf-8")


def paper(slug: str, part: str) -> dict:
    return {
        "slug": slug,
        "part": part,
        "title": f"The {slug} paper",
        "authors": ["A. Author", "B. Author"],
        "year": 2024,
        "venue": "ICML 2024",
        "arxiv": None,
        "url": "https://arxiv.org/abs/2401.00000",
        "question": f"Does {slug} hold?",
        "bibkey": f"{slug}2024",
    }


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[..., SmallProject]:
    """Build a small project with the named chapters (of alpha, beta, gamma) scaffolded."""

    def make(*slugs: str) -> SmallProject:
        root = tmp_path / "project"
        for folder in ("notebooks", "book", "tests", "lib/descent"):
            (root / folder).mkdir(parents=True)
        shutil.copytree(
            ROOT / "lib" / "companion",
            root / "lib" / "companion",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        (root / "lib" / "descent" / "__init__.py").write_text('"""Methods."""\n')
        for name in ("Snakefile", "_config.yml"):
            shutil.copy2(ROOT / name, root)
        for name in ("house.mplstyle", "colours.yml"):
            shutil.copy2(ROOT / "book" / name, root / "book")
        catalogue = {
            "parts": [
                {"name": "stability", "title": "Stability", "summary": "On staying."},
                {"name": "curvature", "title": "Curvature", "summary": "On bending."},
            ],
            "papers": [
                paper("alpha", "stability"),
                paper("beta", "curvature"),
                paper("gamma", "curvature"),
            ],
        }
        (root / "book" / "papers.yml").write_text(yaml.safe_dump(catalogue, sort_keys=False))
        (root / "book" / "references.bib").write_text("")
        (root / "book" / "index.md").write_text("# Small book\n\n```{gallery}\n```\n")
        (root / "book" / "scoreboard.md").write_text("# Scoreboard\n\n```{scoreboard}\n```\n")
        (root / "_toc.yml").write_text(
            "format: jb-book\nroot: book/index\nparts:\n"
            "- caption: Reading\n  chapters:\n  - file: book/scoreboard\n"
        )
        project = SmallProject(root)
        for slug in slugs:
            result = project.companion("new", slug)
            assert result.returncode == 0, result.stderr
        return project

    return make
