"""What Snakemake is asked to do."""

from __future__ import annotations

import subprocess

import pytest

from companion import workflow as module
from companion.paths import DRIVER_VARIABLE, Project, ProjectError, RunKey


@pytest.fixture
def asked(monkeypatch, tmp_path):
    calls = []

    def run(command, **options):
        calls.append((command, options["env"]))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(module.subprocess, "run", run)
    (tmp_path / "notebooks").mkdir()

    def ask(**options):
        module.workflow(Project(tmp_path), "runs", RunKey("full", "cpu", 2), ["alpha"], **options)
        return calls[-1]

    return ask


def test_the_run_is_named_by_profile_device_seed_and_chapters(asked):
    command, _ = asked()
    settings = command[command.index("--config") + 1 : command.index("--")]
    assert settings == ["profile=full", "device=cpu", "seeds=2", "chapters=alpha"]
    assert command[command.index("--cores") + 1] == "all"
    assert command[-1] == "runs"


def test_an_executor_passes_through_and_jobs_may_outlive_this_host(asked):
    command, environment = asked(executor="slurm", cores=8)
    assert command[command.index("--executor") + 1] == "slurm"
    assert command[command.index("--jobs") + 1] == "8"
    assert DRIVER_VARIABLE not in environment


def test_local_jobs_end_with_their_driver(asked):
    _, environment = asked()
    assert DRIVER_VARIABLE in environment


def test_a_failure_says_that_the_rest_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(module.subprocess, "run", lambda c, **_: subprocess.CompletedProcess(c, 1))
    with pytest.raises(ProjectError, match="What succeeded is kept"):
        module.workflow(Project(tmp_path), "runs", RunKey(), [])
