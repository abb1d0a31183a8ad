"""Overhead of the workflow: `companion run` against a plain loop of papermill over the same chapters, same cores.

Both execute the named chapters (all, unless told) once in the quick profile, one thread each, interleaved. Printed:
whole-process seconds of each, their ratio, and the workflow's time over its floor: the seconds of the notebooks' own
processes spread over the cores, or the longest of them where that is more. The last line takes one start-up (papermill on
a bare notebook) off the workflow, and its share inside the notebook's process off the floor.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from companion.execution import read_source
from companion.paths import Project

SEED = 97  # a run folder of its own


def environment(project: Project) -> dict[str, str]:
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONPATH": str(project.root / "lib"),
        "COMPANION_ROOT": str(project.root),
    }


def workflow_seconds(project: Project, chapters: list[str], cores: int) -> float:
    shutil.rmtree(project.build / "runs" / f"quick-auto-seed{SEED}", ignore_errors=True)
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "companion", "run", *chapters, "--seed", str(SEED), "--cores", str(cores)],
        check=True, env=environment(project), cwd=project.root, capture_output=True,
    )  # fmt: skip
    return time.perf_counter() - start


def plain_seconds(project: Project, chapters: list[str], cores: int) -> float:
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for files in map(project.chapter, chapters):
            source = Path(folder) / f"{files.slug}.ipynb"
            nbformat.write(read_source(files), source)
            jobs.append((source, files.text.parent))

        def run(job: tuple[Path, Path]) -> None:
            source, cwd = job
            subprocess.run(
                [sys.executable, "-m", "papermill", str(source), str(source.with_suffix(".out.ipynb")),
                 "-p", "seed", str(SEED), "--cwd", str(cwd), "--no-progress-bar"],
                check=True, env=environment(project), capture_output=True,
            )  # fmt: skip

        start = time.perf_counter()
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(run, jobs))
        return time.perf_counter() - start


BARE = "import time, psutil; print(time.time() - psutil.Process().create_time())"


def start_up_seconds() -> tuple[float, float]:
    """Papermill on a bare notebook: its whole process, and the part of it before the first cell of the kernel's."""
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        source, done = Path(folder) / "bare.ipynb", Path(folder) / "done.ipynb"
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(BARE)])
        notebook.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": ""}
        nbformat.write(notebook, source)
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "papermill", str(source), str(done), "--no-progress-bar"],
            check=True, capture_output=True,
        )  # fmt: skip
        whole = time.perf_counter() - start
        output = nbformat.read(done, as_version=4).cells[0].outputs[0]
        return whole, float(output["text"])


def notebook_seconds(project: Project) -> list[float]:
    """Seconds of each chapter's own process, as its evidence records them."""
    folder = project.build / "runs" / f"quick-auto-seed{SEED}"
    return [json.loads(p.read_text())["wall_seconds"] for p in folder.glob("*/evidence.json")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chapters", nargs="*", help="slugs; all when none is given")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    project = Project()
    chapters = options.chapters or [files.slug for files in project.chapters()]
    rows, ours, theirs = [], [], []
    for repeat in range(options.repeats):
        ours.append(workflow_seconds(project, chapters, options.cores))
        rows.append(notebook_seconds(project))
        theirs.append(plain_seconds(project, chapters, options.cores))
        print(f"repeat {repeat + 1}: workflow {ours[-1]:.1f} s, plain papermill {theirs[-1]:.1f} s")
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    compute = [max(sum(r) / options.cores, max(r)) for r in rows]
    bound = [a / c for a, c in zip(ours, compute, strict=True)]
    print(
        f"workflow / plain papermill: median {statistics.median(ratios):.3f} "
        f"(range {min(ratios):.3f} to {max(ratios):.3f})"
    )
    print(
        f"workflow / (notebook processes over {options.cores} cores): median {statistics.median(bound):.3f}; "
        f"seconds beyond it: {statistics.median(a - c for a, c in zip(ours, compute, strict=True)):.1f}"
    )
    starts = [start_up_seconds() for _ in range(5)]
    whole, inside = (statistics.median(s[i] for s in starts) for i in (0, 1))
    beyond = [(a - whole) / (c - inside) for a, c in zip(ours, compute, strict=True)]
    print(
        f"a start-up takes {whole:.1f} s, {inside:.1f} s of it in the notebook's process; "
        f"beyond one start-up: median {statistics.median(beyond):.3f}"
    )


if __name__ == "__main__":
    main()
