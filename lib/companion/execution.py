"""Executing one chapter: text notebook → papermill → executed notebook and evidence, whole or not at all."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from traitlets.config import Config

from companion.evidence import load_record
from companion.paths import (
    DRIVER_VARIABLE,
    ROOT_VARIABLE,
    RUN_VARIABLE,
    ChapterFiles,
    Project,
    ProjectError,
    RunKey,
)

DEFAULTS = RunKey()


def read_source(files: ChapterFiles) -> Any:
    """The chapter's text notebook as cells, with ids that depend only on their place."""
    notebook = jupytext.read(files.text)
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index:03d}"
    notebook.metadata.setdefault(
        "kernelspec", {"display_name": "Python 3", "language": "python", "name": "python3"}
    )
    return notebook


def execute(project: Project, slug: str, key: RunKey) -> Path:
    """Run a chapter and leave ``notebook.ipynb`` and ``evidence.json`` in its run folder.

    The two files appear together at the end of a run that went through. A run that fails leaves
    ``notebook.partial.ipynb`` (executed up to the failing cell) and raises.

    Raises:
        ProjectError: the chapter failed, with cell, error and where to look.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    files = project.chapter(slug)
    folder = project.run_folder(slug, key)
    folder.mkdir(parents=True, exist_ok=True)
    partial, finished = folder / "notebook.partial.ipynb", folder / "notebook.ipynb"
    draft, evidence = folder / "evidence.json.run", folder / "evidence.json"
    for stale in (partial, draft, finished, evidence, folder / "evidence.partial.json"):
        stale.unlink(missing_ok=True)

    source = folder / "notebook.source.ipynb"
    nbformat.write(read_source(files), source)
    os.environ |= {
        ROOT_VARIABLE: str(project.root),
        RUN_VARIABLE: str(folder),
        "OMP_NUM_THREADS": os.environ.get("COMPANION_THREADS", "1"),
        "MKL_NUM_THREADS": os.environ.get("COMPANION_THREADS", "1"),
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": os.pathsep.join(
            filter(None, (str(project.root / "lib"), os.environ.get("PYTHONPATH")))
        ),
    }
    _end_with_driver()
    _register_engine()
    start = time.perf_counter()
    _say(slug, f"started ({key})")
    try:
        executed = papermill.execute_notebook(
            str(source),
            str(partial),
            parameters=_injected(key),
            engine_name="companion",
            kernel_name="python3",
            cwd=str(files.text.parent),
            progress_bar=False,
            autosave_cell_every=30,
            start_timeout=120,
            config=Config(
                {
                    "NotebookClient": {
                        "extra_arguments": ["--log-level=CRITICAL"],
                        # the last cell has saved the evidence: nothing is left to wait for
                        "shutdown_kernel": "immediate",
                    }
                }
            ),
        )
    except PapermillExecutionError as error:
        if error.ename == "StoppedAsAsked":
            return folder / "evidence.partial.json"
        raise ProjectError(
            f"{slug} ({key}) failed in cell {error.cell_index}: {error.ename}: {error.evalue} "
            f"— executed so far: {_shown(project, partial)}."
        ) from error
    finally:
        source.unlink(missing_ok=True)
    if not draft.is_file():
        raise ProjectError(
            f"{slug} ended without evidence; its last cell must be chapter.record()."
        )
    clean = nbformat.from_dict(executed)
    normalise(clean)
    whole = folder / "notebook.ipynb.part"
    nbformat.write(clean, whole)
    os.replace(draft, evidence)
    os.replace(whole, finished)
    partial.unlink(missing_ok=True)
    _say(slug, f"finished in {time.perf_counter() - start:.1f} s: {_tally(evidence)}")
    return finished


def normalise(notebook: Any) -> None:
    """Drop all that changes from run to run of an unchanged chapter: times, paths, execution metadata."""
    for key in ("papermill", "language_info", "widgets"):
        notebook.metadata.pop(key, None)
    for cell in notebook.cells:
        cell.metadata = {
            k: v for k, v in cell.metadata.items() if k not in ("papermill", "execution")
        }
        if cell.metadata.get("tags") == []:
            del cell.metadata["tags"]


def _injected(key: RunKey) -> dict[str, Any]:
    """The parameters that differ from the chapter's defaults; none for a reference run."""
    mine = {"seed": key.seed, "profile": key.profile, "device": key.device}
    default = {"seed": DEFAULTS.seed, "profile": DEFAULTS.profile, "device": DEFAULTS.device}
    return {name: value for name, value in mine.items() if value != default[name]}


def _register_engine() -> None:
    """A papermill engine that says, every ten seconds, which cell is running."""
    from papermill.engines import NBClientEngine, papermill_engines

    class ReportingEngine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **kwargs: Any) -> Any:
            total, last = len(nb_man.nb.cells), time.monotonic()
            begin = nb_man.cell_start

            def cell_start(cell: Any, cell_index: int | None = None, **options: Any) -> None:
                nonlocal last
                if time.monotonic() - last > 10:
                    last = time.monotonic()
                    slug = Path(os.environ[RUN_VARIABLE]).name
                    _say(slug, f"cell {(cell_index or 0) + 1} of {total}")
                begin(cell, cell_index, **options)

            nb_man.cell_start = cell_start
            return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)

    papermill_engines.register("companion", ReportingEngine)


def _end_with_driver() -> None:
    """End this run, kernel included, as soon as the process that ordered it is gone."""
    ordered_by = os.environ.get(DRIVER_VARIABLE)
    if not ordered_by:
        return

    def watch(driver: int) -> None:
        while True:
            time.sleep(0.5)
            try:
                os.kill(driver, 0)
            except ProcessLookupError:
                import psutil

                for child in psutil.Process().children(recursive=True):
                    child.kill()
                os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, args=(int(ordered_by),), daemon=True).start()


def _tally(evidence: Path) -> str:
    verdicts = [c.verdict for c in load_record(evidence).claims]
    return ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))


def _shown(project: Project, path: Path) -> str:
    return str(path.relative_to(project.root))


def _say(slug: str, text: str) -> None:
    # one write, so that the lines of chapters that run side by side stay whole
    os.write(sys.stderr.fileno(), f"{time.strftime('%H:%M:%S')}  {slug:<34} {text}\n".encode())
