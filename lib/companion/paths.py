"""Where things are: the repository's folders and the files of a chapter."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

ROOT_VARIABLE = "COMPANION_ROOT"
RUN_VARIABLE = "COMPANION_RUN_DIR"
DRIVER_VARIABLE = "COMPANION_DRIVER_PID"


class ProjectError(Exception):
    """A fault of the user's input or of the repository, told in one sentence that names the mend."""


def find_root(start: Path | None = None) -> Path:
    """The repository root: ``$COMPANION_ROOT``, or the nearest folder upwards with a ``_toc.yml``."""
    if named := os.environ.get(ROOT_VARIABLE):
        return Path(named).resolve()
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "_toc.yml").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise ProjectError(
        f"{here} is not inside the book's repository (no _toc.yml and notebooks/ above it); "
        f"change into the clone, or set {ROOT_VARIABLE}."
    )


@dataclass(frozen=True, order=True)
class RunKey:
    """Which run of a chapter: profile, requested device and seed."""

    profile: str = "quick"
    device: str = "auto"
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.profile}-{self.device}-seed{self.seed}"

    @property
    def is_reference(self) -> bool:
        """Whether these are the chapter's default parameters, for which no cell is injected."""
        return self == RunKey()


@dataclass(frozen=True)
class ChapterFiles:
    """The three committed files of a chapter, and its committed evidence."""

    root: Path
    part: str
    slug: str

    @property
    def text(self) -> Path:
        return self.root / "notebooks" / self.part / f"{self.slug}.md"

    @property
    def notebook(self) -> Path:
        return self.text.with_suffix(".ipynb")

    @property
    def claims(self) -> Path:
        return self.text.with_name(f"{self.slug}.claims.yml")

    @property
    def evidence(self) -> Path:
        return self.root / "book" / "evidence" / self.slug

    def evidence_files(self) -> list[Path]:
        return sorted(self.evidence.glob("*.json"))


class Project:
    """The repository: its catalogue of papers, its chapters and its build folder."""

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root).resolve() if root is not None else find_root()

    @property
    def build(self) -> Path:
        return self.root / "_build"

    @cached_property
    def catalogue(self) -> dict:
        """``book/papers.yml``: the parts and the papers of the book, written and to come."""
        path = self.root / "book" / "papers.yml"
        if not path.is_file():
            raise ProjectError(f"{path} is missing: the catalogue of papers.")
        catalogue: dict = yaml.safe_load(path.read_text(encoding="utf-8"))
        return catalogue

    @cached_property
    def part_of(self) -> dict[str, str]:
        """The part of every paper in the catalogue, by slug."""
        return {paper["slug"]: paper["part"] for paper in self.catalogue["papers"]}

    def chapters(self) -> Iterator[ChapterFiles]:
        """The chapters that exist, in the catalogue's order."""
        for slug, part in self.part_of.items():
            files = ChapterFiles(self.root, part, slug)
            if files.text.is_file():
                yield files

    def chapter(self, slug: str) -> ChapterFiles:
        """The files of one chapter; refuses an unknown or unwritten one."""
        if slug not in self.part_of:
            near = _nearest(slug, self.part_of)
            raise ProjectError(f"unknown chapter {slug!r}; {near}")
        files = ChapterFiles(self.root, self.part_of[slug], slug)
        if not files.text.is_file():
            written = ", ".join(c.slug for c in self.chapters()) or "none yet"
            raise ProjectError(
                f"the chapter {slug!r} is still to come (written: {written}); "
                f"start it with: make new C={slug}"
            )
        return files

    def run_folder(self, slug: str, key: RunKey) -> Path:
        return self.build / "runs" / str(key) / slug


def _nearest(word: str, known: dict[str, str]) -> str:
    import difflib

    close = difflib.get_close_matches(word, known, n=3)
    if close:
        return "did you mean " + " or ".join(close) + "?"
    return "known: " + ", ".join(known) + "."
