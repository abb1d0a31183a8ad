"""The workflow on small real chapters: what executes, what resumes, what fails alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.workflow

SLOW = "import time; time.sleep({seconds})\nsteps = list(range(10))"


def slow_down(project, slug: str, part: str, seconds: float) -> None:
    project.edit(
        f"notebooks/{part}/{slug}.md", "steps = list(range(10))", SLOW.format(seconds=seconds)
    )


def test_precise_invalidation_failure_alone_and_the_record(make_project):
    """One project through its life, since each run costs seconds."""
    project = make_project("alpha", "beta")
    first = project.companion("run")
    assert first.returncode == 0, first.stderr
    assert project.executed(first) == ["alpha", "beta"]
    assert "finished in" in first.stderr
    folder = project.run_folder("alpha")
    assert {p.name for p in folder.iterdir()} == {
        "notebook.ipynb",
        "evidence.json",
        "log.txt",
        "figures",
    }
    notebook = (folder / "notebook.ipynb").read_text()
    for private in (str(project.root), "papermill", time.strftime("%Y-%m-%d")):
        assert private not in notebook

    # nothing changed: nothing executes
    assert project.executed(project.companion("run")) == []

    # a module of one chapter; a harness module that chapters do not import
    project.edit("lib/descent/curvature/beta.py", "x * x)", "x * x + 0.0)")
    project.edit("lib/companion/reports.py", '"""What', '"""\nWhat')
    assert project.executed(project.companion("run")) == ["beta"]

    # the claims of one chapter; a harness module that all chapters import
    project.edit("notebooks/stability/alpha.claims.yml", "threshold: 0.1", "threshold: 0.2")
    assert project.executed(project.companion("run")) == ["alpha"]
    project.edit("lib/companion/criteria.py", '"""Applying', '"""\nApplying')
    assert project.executed(project.companion("run")) == ["alpha", "beta"]

    # another seed is another run, with the parameter injected
    other = project.companion("run", "alpha", "--seed", "3")
    assert project.executed(other) == ["alpha"]
    evidence = json.loads(
        (project.run_folder("alpha", "quick-auto-seed3") / "evidence.json").read_text()
    )
    assert evidence["seed"] == 3

    # a crash fails alone, says where, keeps the partial notebook and the log
    project.edit("notebooks/stability/alpha.md", "chapter.at_a_glance()", "1 / 0")
    project.edit("lib/descent/curvature/beta.py", "x * x + 0.0)", "x * x + 0)")
    broken = project.companion("run")
    assert broken.returncode == 1
    assert "alpha (quick-auto-seed0) failed in cell" in broken.stderr
    assert "ZeroDivisionError: division by zero" in broken.stderr
    assert "what succeeded is kept" in broken.stderr.lower()
    assert "finished in" in broken.stderr
    assert (folder / "notebook.partial.ipynb").is_file()
    assert not (folder / "notebook.ipynb").exists()
    assert "ZeroDivisionError" in (folder / "log.txt").read_text()

    # a broken claims file fails alone as well, with file, line and field
    project.edit("notebooks/stability/alpha.md", "1 / 0", "chapter.at_a_glance()")
    project.edit("notebooks/stability/alpha.claims.yml", "kind: quantity", "kind: opinion")
    refused = project.companion("run")
    assert refused.returncode == 1
    assert "alpha.claims.yml, line" in refused.stderr
    assert "field claims.0.kind" in refused.stderr
    project.edit("notebooks/stability/alpha.claims.yml", "kind: opinion", "kind: quantity")

    # mended: only the broken one runs; then it can be recorded and checked
    mended = project.companion("run")
    assert project.executed(mended) == ["alpha"], mended.stderr
    assert project.companion("record").returncode == 0
    assert project.companion("check").returncode == 0, project.companion("check").stderr
    assert project.companion("check", "--seed", "0").returncode == 0

    # a criterion changed after the record is a fault until the run is recorded again
    project.edit("notebooks/stability/alpha.claims.yml", "threshold: 0.2", "threshold: 0.3")
    changed = project.companion("check")
    assert changed.returncode == 1
    assert (
        "alpha (quick-cpu-seed0) C1 final_loss: recorded under another criterion" in changed.stderr
    )
    project.edit("notebooks/stability/alpha.claims.yml", "threshold: 0.3", "threshold: 0.2")

    # a text edited after the record, and a value that drifts, are faults
    project.edit("notebooks/stability/alpha.md", "## Try it", "## Try it\n\nMore.")
    stale = project.companion("check")
    assert stale.returncode == 1
    assert "alpha.ipynb: cell" in stale.stderr
    project.edit("lib/descent/curvature/beta.py", "learning_rate * 2", "learning_rate * 1")
    assert project.companion("run").returncode == 0
    drifted = project.companion("check", "--seed", "0")
    assert drifted.returncode == 1
    assert (
        "beta (quick-cpu-seed0) C1: the verdict was 'reproduced' and is now 'not reproduced'"
        in drifted.stderr
    )


def test_a_killed_run_resumes_without_repeating_what_was_finished(make_project):
    project = make_project("alpha", "beta")
    slow_down(project, "beta", "curvature", 60)
    process = subprocess.Popen(
        [sys.executable, "-m", "companion", "run", "--cores", "2"],
        cwd=project.root, env=project.environment(), stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    finished = project.run_folder("alpha") / "notebook.ipynb"
    deadline = time.monotonic() + 90
    while not finished.is_file() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert finished.is_file()
    time.sleep(1)
    stamp = finished.stat().st_mtime_ns
    os.kill(process.pid, signal.SIGKILL)  # the driver alone: its children must not live on
    process.wait()
    assert not (project.run_folder("beta") / "notebook.ipynb").exists()
    project.edit("notebooks/curvature/beta.md", "time.sleep(60)", "time.sleep(0)")
    again = project.companion("run")
    assert again.returncode == 0, again.stderr
    assert project.executed(again) == ["beta"]
    assert finished.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "alhpa"), "unknown chapter 'alhpa'; did you mean alpha"),
        (("run", "gamma"), "still to come"),
        (("run", "--profile", "slow"), "unknown profile 'slow'"),
        (("run", "--device", "tpu"), "unknown device 'tpu'"),
        (("new", "alpha"), "alpha exists already"),
        (("new", "delta"), "unknown chapter 'delta'"),
        (("record", "alpha"), "no finished run to record"),
        (("read",), "no executed notebook of alpha"),
    ],
)
def test_bad_input_gets_one_sentence(make_project, arguments, message):
    project = make_project("alpha")
    result = project.companion(*arguments)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_device_that_is_not_there_is_told(make_project):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    result = make_project("alpha").companion("run", "--device", "cuda")
    assert result.returncode == 1
    assert "the device 'cuda' is not available here" in result.stderr


def test_outside_the_repository_is_told(tmp_path, make_project):
    project = make_project()
    result = subprocess.run(
        [sys.executable, "-m", "companion", "status"],
        cwd=tmp_path, env=project.environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 1
    assert "is not inside the book's repository" in result.stderr


def test_a_page_with_a_warning_fails_however_often_it_is_built(make_project):
    project = make_project()
    project.edit("book/scoreboard.md", "# Scoreboard", "# Scoreboard\n\n{ref}`nowhere`")
    for _ in range(2):
        result = project.companion("read")
        assert result.returncode == 1
        assert "undefined label: 'nowhere'" in result.stderr
    project.edit("book/scoreboard.md", "{ref}`nowhere`", "")
    assert project.companion("read").returncode == 0
