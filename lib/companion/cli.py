"""The command line: ``python -m companion --help``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table as RichTable

from companion.paths import Project, ProjectError, RunKey

app = typer.Typer(
    help="Run, judge and read the chapters of the book.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(soft_wrap=True)

Profile = Annotated[str, typer.Option(help="quick (seconds, CPU) or full (minutes, or a GPU)")]
Device = Annotated[str, typer.Option(help="auto, cuda, mps or cpu")]
Seed = Annotated[int, typer.Option(min=0, help="which random streams")]
Cores = Annotated[int, typer.Option(min=0, help="chapters run at once; 0 takes all cores")]
Executor = Annotated[str, typer.Option(help="a Snakemake executor plugin, such as slurm")]
Slugs = Annotated[list[str] | None, typer.Argument(help="chapters; all if none is named")]


def main() -> None:
    """Run the command line; a fault of the input is one sentence and exit status 1."""
    try:
        app(standalone_mode=True)
    except ProjectError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


@app.command()
def run(
    slugs: Slugs = None,
    profile: Profile = "quick",
    device: Device = "auto",
    seed: Seed = 0,
    cores: Cores = 0,
    executor: Executor = "",
    force: Annotated[bool, typer.Option(help="execute even what is up to date")] = False,
) -> None:
    """Execute and judge chapters (only those that changed), in parallel."""
    from companion.workflow import workflow

    project = Project()
    key = _key(profile, device, seed)
    chosen = [project.chapter(slug).slug for slug in slugs or []]
    workflow(project, "runs", key, chosen, cores=cores, executor=executor, force=force)
    for slug in chosen or [files.slug for files in project.chapters()]:
        folder = project.run_folder(slug, key).relative_to(project.root)
        console.print(f"{slug}: {folder}/notebook.ipynb", highlight=False)


@app.command()
def book(
    profile: Profile = "quick",
    device: Device = "auto",
    seed: Seed = 0,
    cores: Cores = 0,
    executor: Executor = "",
) -> None:
    """Execute what changed, judge it, and build the HTML book from these runs."""
    from companion.workflow import workflow

    start = time.perf_counter()
    project = Project()
    key = _key(profile, device, seed)
    workflow(project, "book", key, [], cores=cores, executor=executor)
    _print_scoreboard(project, fresh=True)
    page = project.build / "book" / "html" / "index.html"
    console.print(f"book: {page} ({time.perf_counter() - start:.1f} s)", highlight=False)


@app.command()
def read() -> None:
    """Build the HTML book from the committed reference runs, executing nothing."""
    from companion.staging import build as build_book

    start = time.perf_counter()
    page = build_book(Project(), "read", None)
    console.print(f"book: {page} ({time.perf_counter() - start:.1f} s)", highlight=False)


@app.command(hidden=True)
def execute(
    slug: str,
    profile: Profile = "quick",
    device: Device = "auto",
    seed: Seed = 0,
    log: Annotated[Path | None, typer.Option(help="where a failure is written")] = None,
) -> None:
    """Execute one chapter in this process (the workflow's job)."""
    from companion.execution import execute as execute_chapter

    try:
        execute_chapter(Project(), slug, _key(profile, device, seed))
    except Exception as error:
        if log is not None:
            import traceback

            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(traceback.format_exc(), encoding="utf-8")
            if isinstance(error, ProjectError):
                raise ProjectError(f"{error} Log: {log}") from None
        raise
    if log is not None:
        log.write_text("finished without error\n", encoding="utf-8")


@app.command(hidden=True)
def build(
    runs: Annotated[str, typer.Option(help="the runs shown, as <profile>-<device>-seed<k>")],
    log: Annotated[Path | None, typer.Option()] = None,
) -> None:
    """Build the book from finished runs (the workflow's last job)."""
    from companion.staging import build as build_book

    profile, device, seed = runs.split("-")
    try:
        build_book(Project(), "book", RunKey(profile, device, int(seed.removeprefix("seed"))))
    except ProjectError as error:
        if log is not None:
            log.write_text(f"{error}\n", encoding="utf-8")
        raise


@app.command()
def status(
    json: Annotated[bool, typer.Option("--json", help="all records as JSON")] = False,
    fresh: Annotated[bool, typer.Option(help="lay the runs under _build over the records")] = False,
) -> None:
    """Print the scoreboard from the committed records."""
    project = Project()
    if json:
        from companion.reports import chapter_reports, status_json

        print(status_json(chapter_reports(project, fresh)))
    else:
        _print_scoreboard(project, fresh)


@app.command()
def record(slugs: Slugs = None) -> None:
    """Make finished runs the committed record: reference notebook and evidence of every seed run."""
    from companion.reference import commit_runs

    project = Project()
    for slug in slugs or [files.slug for files in project.chapters()]:
        for path in commit_runs(project, slug):
            console.print(str(path.relative_to(project.root)), highlight=False)


@app.command()
def check(
    seed: Annotated[int | None, typer.Option(help="also compare fresh runs of this seed")] = None,
    profile: Profile = "quick",
    device: Device = "auto",
) -> None:
    """Check claims files, reference notebooks and records; with --seed, compare a fresh run."""
    from companion.reference import faults_of_runs, standing_faults

    project = Project()
    faults = standing_faults(project)
    if seed is not None:
        faults += faults_of_runs(project, _key(profile, device, seed))
    for fault in faults:
        print(f"fault: {fault}", file=sys.stderr)
    if faults:
        raise SystemExit(1)
    count = sum(1 for _ in project.chapters())
    against = f", fresh runs at seed {seed} agree with the record" if seed is not None else ""
    console.print(f"{count} chapters in order{against}")


@app.command()
def new(slug: str) -> None:
    """Scaffold a chapter that is in the catalogue: text, claims file, module, test."""
    from companion.scaffold import scaffold

    project = Project()
    for path in scaffold(project, slug):
        console.print(str(path.relative_to(project.root)), highlight=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a claims file (committed as book/claims.schema.json)."""
    from companion.claims import json_schema

    print(json_schema(), end="")


def _key(profile: str, device: str, seed: int) -> RunKey:
    from companion.chapter import PROFILES

    if profile not in PROFILES:
        raise ProjectError(f"unknown profile {profile!r}; choose {' or '.join(PROFILES)}.")
    if device not in ("auto", "cuda", "mps", "cpu"):
        raise ProjectError(f"unknown device {device!r}; choose auto, cuda, mps or cpu.")
    return RunKey(profile, device, seed)


def _print_scoreboard(project: Project, fresh: bool) -> None:
    from companion.reports import chapter_reports, main_value
    from companion.tables import SYMBOL

    colours = {"reproduced": "green", "not reproduced": "red", "undiscriminating": "yellow"}
    for report in chapter_reports(project, fresh):
        table = RichTable(
            title=f"{report.claims.title} ({report.files.slug})", title_justify="left"
        )
        for heading in ("claim", "verdict", "deciding value", "all runs"):
            table.add_column(heading)
        reference = report.reference
        for claim in reference.claims if reference else []:
            colour = colours.get(claim.verdict, "dim")
            runs = " ".join(SYMBOL[v] for v in report.flips(claim.id).values())
            if together := report.seed_dependent.get(claim.id):
                runs += f" (seeds together {SYMBOL[together.verdict]})"
            table.add_row(claim.id, f"[{colour}]{claim.verdict}[/]", main_value(claim), runs)
        if reference is None:
            table.add_row("–", "no reference run recorded", "", "")
        elif reference.wall_seconds is not None:
            table.caption = (
                f"quick, seed 0: {reference.wall_seconds:.1f} s wall, "
                f"{reference.cpu_seconds:.1f} s CPU, {reference.peak_mib:.0f} MiB"
            )
        console.print(table)
    written = {files.slug for files in project.chapters()}
    console.print(f"{len(written)} of {len(project.part_of)} chapters written")
