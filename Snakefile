"""The workflow: execute each chapter, judge it, then build the book from what came out.

Ordinarily run through `make book` or `python -m companion run`; it is an ordinary Snakemake file all the same:

    snakemake --cores 2 --config profile=quick device=auto seeds=0 chapters=m-fac -- runs
"""

import sys

from companion.dependencies import chapter_dependencies
from companion.paths import Project, ProjectError, RunKey
from companion.staging import book_sources

project = Project(workflow.basedir)
written = [files.slug for files in project.chapters()]
chosen = str(config["chapters"]).split(",") if config.get("chapters") else written
seeds = [int(seed) for seed in str(config.get("seeds", 0)).split(",")]
keys = [RunKey(config.get("profile", "quick"), config.get("device", "auto"), seed) for seed in seeds]
runs = [f"_build/runs/{key}/{slug}" for key in keys for slug in chosen]
full = config.get("profile", "quick") == "full"


def inputs(wildcards):
    """What the chapter depends on; where that cannot be told, its own run will say why and fail alone."""
    files = project.chapter(wildcards.slug)
    try:
        found = chapter_dependencies(files)
    except ProjectError:
        found = [files.text]
    return [str(path.relative_to(project.root)) for path in found]


rule runs:
    input:
        expand("{run}/{file}", run=runs, file=["notebook.ipynb", "evidence.json"]),


rule chapter:
    input:
        inputs,
    output:
        notebook="_build/runs/{profile}-{device}-seed{seed}/{slug}/notebook.ipynb",
        evidence="_build/runs/{profile}-{device}-seed{seed}/{slug}/evidence.json",
    log:
        "_build/runs/{profile}-{device}-seed{seed}/{slug}/log.txt",
    wildcard_constraints:
        profile="quick|full",
        device="[a-z]+",
        seed="[0-9]+",
    threads: 2 if full else 1
    resources:
        mem_mb=16384 if full else 2048,
        runtime=40 if full else 10,
    shell:
        "COMPANION_THREADS={threads} {sys.executable} -m companion execute {wildcards.slug} --profile {wildcards.profile} "
        "--device {wildcards.device} --seed {wildcards.seed} --log {log}"


rule book:
    input:
        book_sources(project),
        expand("{run}/{file}", run=runs, file=["notebook.ipynb", "evidence.json"]),
    output:
        "_build/book/html/index.html",
    log:
        "_build/book/log.txt",
    threads: workflow.cores
    shell:
        "{sys.executable} -m companion build --runs {keys[0]} --log {log}"
