"""The committed reference runs: making them, and checking that text, notebook and evidence agree."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import nbformat
import yaml

from companion.claims import ClaimsFile, load_claims
from companion.evidence import Record, drift, load_record
from companion.execution import read_source
from companion.paths import ChapterFiles, Project, ProjectError, RunKey

WITNESS = "application/vnd.companion.evidence+json"
CHECKED_TAG = "nbval-check-output"


def commit_runs(project: Project, slug: str) -> list[Path]:
    """Copy the evidence of every finished run, and the notebook of the reference run, into the repository."""
    files = project.chapter(slug)
    written = []
    for path in sorted(project.build.glob(f"runs/*/{slug}/evidence.json")):
        record = load_record(path)
        target = files.evidence / record.name
        record.save(target)
        written.append(target)
        reference = path.parent == project.run_folder(slug, RunKey())
        if reference and record.device == "cpu":
            draft = files.notebook.with_name(files.notebook.name + ".part")
            shutil.copyfile(path.with_name("notebook.ipynb"), draft)
            os.replace(draft, files.notebook)
            written.append(files.notebook)
    if not written:
        raise ProjectError(f"{slug} has no finished run to record; first: make chapter C={slug}")
    return written


def standing_faults(project: Project) -> list[str]:
    """What is wrong with the committed chapters, one sentence each."""
    faults = []
    contents = _toc_files(project.root)
    for files in project.chapters():
        entry = f"notebooks/{files.part}/{files.slug}"
        if entry not in contents:
            faults.append(f"{files.slug} is not in _toc.yml; add the line: - file: {entry}")
        try:
            faults += _chapter_faults(files)
        except ProjectError as error:
            faults.append(str(error))
    return faults


def faults_of_runs(project: Project, key: RunKey) -> list[str]:
    """Where fresh runs depart from the committed records."""
    faults = []
    for files in project.chapters():
        try:
            fresh = load_record(project.run_folder(files.slug, key) / "evidence.json")
            committed = load_record(files.evidence / fresh.name)
            faults += drift(load_claims(files.claims), fresh, committed)
        except ProjectError as error:
            faults.append(str(error))
    return faults


def pairing_faults(files: ChapterFiles) -> list[str]:
    """Whether the committed ``.ipynb`` holds exactly the cells of its ``.md``."""
    ours, theirs = read_source(files), nbformat.read(files.notebook, as_version=4)
    mend = f"run make chapter C={files.slug} and python -m companion record {files.slug}"
    if len(ours.cells) != len(theirs.cells):
        return [
            f"{files.notebook.name} has {len(theirs.cells)} cells, its text {len(ours.cells)}; {mend}."
        ]
    for index, (mine, other) in enumerate(zip(ours.cells, theirs.cells, strict=True)):
        if _essence(mine) != _essence(other):
            return [f"{files.notebook.name}: cell {index} differs from the text; {mend}."]
    return []


def _chapter_faults(files: ChapterFiles) -> list[str]:
    claims = load_claims(files.claims)
    if not files.notebook.is_file():
        return [f"{files.slug} has no committed reference run ({files.notebook.name})."]
    faults = pairing_faults(files)
    notebook = nbformat.read(files.notebook, as_version=4)
    checked = [c for c in notebook.cells if CHECKED_TAG in c.metadata.get("tags", [])]
    if not checked:
        faults.append(f"{files.notebook.name}: no cell is tagged {CHECKED_TAG}.")
    faults += [
        f"{files.notebook.name}: the tagged cell {cell['id']} has no stored output, so nothing is compared."
        for cell in checked
        if not cell.outputs
    ]
    reference = files.evidence / "quick-cpu-seed0.json"
    record = load_record(reference)
    stored = _witness(notebook)
    if stored is None:
        faults.append(f"{files.notebook.name}: the last cell carries no evidence.")
    elif Record.model_validate(stored).witness() != record.witness():
        faults.append(f"{files.slug}: the notebook and {reference.name} carry different evidence.")
    for path in files.evidence_files():
        other = load_record(path)
        faults += _criteria_faults(claims, other)
        if other.name != path.name:
            faults.append(f"{files.slug}: {path.name} holds the run {other.name}.")
        faults += [
            f"{files.slug} ({path.stem}) {c.id}: undiscriminating; mend the check."
            for c in other.claims
            if c.verdict == "undiscriminating"
        ]
    return faults


def _criteria_faults(claims: ClaimsFile, record: Record) -> list[str]:
    """Whether a record was judged by the criteria that the claims file states."""
    stated = {(c.id, k.metric): k.criterion() for c in claims.claims for k in c.conditions}
    judged = {(c.id, k.metric): k.criterion for c in record.claims for k in c.conditions}
    return [
        f"{claims.slug} ({record.name.removesuffix('.json')}) {claim} {metric}: recorded under another "
        "criterion than the claims file states; run and record it again."
        for claim, metric in sorted(stated.keys() | judged.keys())
        if stated.get((claim, metric)) != judged.get((claim, metric))
    ]


def _witness(notebook: Any) -> dict[str, Any] | None:
    for cell in reversed(notebook.cells):
        for output in cell.get("outputs", []):
            found: dict[str, Any] | None = output.get("data", {}).get(WITNESS)
            if found:
                return found
    return None


def _essence(cell: Any) -> tuple:
    return cell.cell_type, cell.source.strip(), sorted(cell.metadata.get("tags", []))


def _toc_files(root: Path) -> set[str]:
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    return {
        section["file"]
        for part in toc.get("parts", [])
        for chapter in part.get("chapters", [])
        for section in (chapter, *chapter.get("sections", []))
    }
