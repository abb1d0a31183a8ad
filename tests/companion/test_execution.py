"""What an executed notebook keeps and drops."""

from __future__ import annotations

import nbformat

from companion.execution import normalise, read_source
from companion.paths import Project, RunKey
from companion.reference import pairing_faults


def test_normalising_drops_what_changes_from_run_to_run():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    notebook.metadata.update(papermill={"start_time": "now"}, kernelspec={"name": "python3"})
    notebook.cells[0].metadata.update(
        papermill={"duration": 1}, execution={"iopub.status.busy": "now"}, tags=["parameters"]
    )
    normalise(notebook)
    assert dict(notebook.metadata) == {"kernelspec": {"name": "python3"}}
    assert dict(notebook.cells[0].metadata) == {"tags": ["parameters"]}


def test_cell_ids_depend_on_the_place_only(make_project):
    files = Project(make_project("alpha").root).chapter("alpha")
    first, second = read_source(files), read_source(files)
    assert [c["id"] for c in first.cells] == [c["id"] for c in second.cells]
    assert first.cells[0]["id"] == "cell-000"


def test_pairing_sees_a_changed_a_missing_and_a_retagged_cell(make_project):
    files = Project(make_project("alpha").root).chapter("alpha")
    nbformat.write(read_source(files), files.notebook)
    assert pairing_faults(files) == []

    def spoiled(change) -> list[str]:
        notebook = read_source(files)
        change(notebook.cells)
        nbformat.write(notebook, files.notebook)
        return pairing_faults(files)

    assert "cell 3 differs" in spoiled(lambda cells: cells[3].update(source="x"))[0]
    assert "cells, its text" in spoiled(lambda cells: cells.pop())[0]
    assert "cell 1 differs" in spoiled(lambda cells: cells[1].metadata.update(tags=[]))[0]


def test_the_reference_run_has_the_default_parameters():
    assert RunKey().is_reference
    assert not RunKey(seed=1).is_reference
    assert str(RunKey("full", "cuda", 2)) == "full-cuda-seed2"
