"""Driving Snakemake: one run at a time, resumable, and quiet unless something fails."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from companion.paths import DRIVER_VARIABLE, ROOT_VARIABLE, Project, ProjectError, RunKey


def workflow(
    project: Project,
    target: str,
    key: RunKey,
    chapters: list[str],
    *,
    cores: int = 0,
    executor: str = "",
    force: bool = False,
) -> None:
    """Bring ``runs`` or ``book`` up to date.

    Args:
        target: ``runs`` (execute and judge) or ``book`` (that, then the HTML).
        key: profile, device and seed of the runs.
        chapters: slugs; empty for all.
        cores: chapters run at once; 0 takes all cores there are, or 100 jobs with an executor.
        executor: name of a Snakemake executor plugin; empty runs here.
        force: execute the chapters even where they are up to date.

    Raises:
        ProjectError: a chapter failed (the others went on), or the book did not build.
    """
    settings = {"profile": key.profile, "device": key.device, "seeds": key.seed}
    if chapters:
        settings["chapters"] = ",".join(chapters)
    where = ["--cores", str(cores or "all")]
    if executor:
        where = ["--executor", executor, "--jobs", str(cores or 100)]
    command = [
        sys.executable, "-m", "snakemake" if executor else "companion.snakemake_local",
        "--snakefile", "Snakefile", *where, "--keep-going",
        "--rerun-incomplete", "--nolock", "--quiet", "all",
        "--rerun-triggers", "mtime", "input", "params",
        "--config", *(f"{name}={value}" for name, value in settings.items()),
    ]  # fmt: skip
    if force:
        command += ["--forcerun", "chapter"]
    command += ["--", target]
    environment = os.environ | {
        ROOT_VARIABLE: str(project.root),
        "PYTHONPATH": str(project.root / "lib"),
        "OMP_NUM_THREADS": "1",
    }
    if not executor:
        environment[DRIVER_VARIABLE] = str(os.getpid())
    with one_at_a_time(project):
        result = subprocess.run(command, cwd=project.root, env=environment)
    if result.returncode != 0:
        raise ProjectError(
            "the workflow did not finish: see the sentences above. What succeeded is kept; "
            "the same command goes on from there."
        )


@contextmanager
def one_at_a_time(project: Project) -> Iterator[None]:
    """Wait while another workflow runs in this clone; the lock vanishes with its process, even a killed one."""
    project.build.mkdir(exist_ok=True)
    with (project.build / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for the workflow that is running in this clone …", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
