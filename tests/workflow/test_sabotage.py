"""A fault planted in a method must turn a unit test red and change a verdict."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from companion.evidence import load_record
from companion.paths import Project

ROOT = Path(__file__).resolve().parents[2]
FAULTS = yaml.safe_load((ROOT / "tests" / "sabotage.yml").read_text(encoding="utf-8")) or []

pytestmark = pytest.mark.workflow


@pytest.fixture
def broken(request, tmp_path: Path) -> Path:
    """A copy of the repository's working parts with one fault planted."""
    fault = request.param
    for name in ("lib", "notebooks", "book", "tests", "data"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_toc.yml", "pyproject.toml"):
        shutil.copy2(ROOT / name, tmp_path)
    source = tmp_path / fault["file"]
    text = source.read_text(encoding="utf-8")
    assert text.count(fault["old"]) == 1, f"{fault['old']!r} must occur once in {fault['file']}"
    source.write_text(text.replace(fault["old"], fault["new"]), encoding="utf-8")
    return tmp_path


def run(arguments: list[str], root: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("COMPANION_", "PYTEST_"))
    }
    environment |= {"PYTHONPATH": str(root / "lib"), "OMP_NUM_THREADS": "1"} | extra
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=root, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "broken"),
    [pytest.param(f, f, id=f["name"]) for f in FAULTS],
    indirect=["broken"],
)
def test_the_fault_is_noticed_by_a_unit_test_and_by_a_verdict(fault, broken):
    unit = run(["pytest", "-q", "-x", "-p", "no:cacheprovider", fault["test"]], broken)
    assert unit.returncode == 1, f"the unit test did not notice:\n{unit.stdout[-2000:]}"

    run(["companion", "execute", fault["chapter"]], broken, COMPANION_UNTIL=fault["claim"])
    folder = broken / "_build" / "runs" / "quick-auto-seed0" / fault["chapter"]
    committed = load_record(
        Project(ROOT).chapter(fault["chapter"]).evidence / "quick-cpu-seed0.json"
    ).claim(fault["claim"])
    found = folder / "evidence.partial.json"
    assert found.is_file(), (
        "the chapter crashed before its verdict: choose a fault that stays silent"
    )
    verdict = json.loads(found.read_text())["claims"][0]["verdict"]
    assert committed.verdict == "reproduced"
    assert verdict != committed.verdict, f"{fault['claim']} is still {verdict}"


def test_the_suite_plants_faults_in_every_chapter():
    written = {files.slug for files in Project(ROOT).chapters()}
    assert {fault["chapter"] for fault in FAULTS} == written
    assert len(FAULTS) >= 3
