"""The chapter context: parameters, streams, evidence, figures, and its refusals."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest
import torch

from companion.chapter import Chapter, resolve_device
from companion.evidence import load_record
from companion.paths import ProjectError


@pytest.fixture
def project(make_project, monkeypatch):
    project = make_project("alpha")
    monkeypatch.setenv("COMPANION_ROOT", str(project.root))
    return project


@pytest.fixture
def chapter(project):
    return Chapter("alpha")


@pytest.fixture
def figure(chapter):
    picture, axes = chapter.subplots()
    axes.plot([0, 1], [1, 2])
    return picture


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"slug": "alhpa"}, "unknown chapter 'alhpa'; did you mean alpha"),
        ({"slug": "beta"}, "still to come .*make new C=beta"),
        ({"slug": "alpha", "profile": "slow"}, "unknown profile 'slow'; choose quick or full"),
        ({"slug": "alpha", "device": "tpu"}, "unknown device 'tpu'"),
        ({"slug": "alpha", "seed": -1}, "seed must be 0, 1, 2"),
    ],
)
def test_bad_parameters_are_refused(project, arguments, message):
    with pytest.raises(ProjectError, match=message):
        Chapter(**arguments)


def test_auto_takes_the_best_device_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto").type == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(ProjectError, match="'cuda' is not available here"):
        resolve_device("cuda")


def test_streams_depend_on_seed_name_and_index_only(project):
    def draw(seed, name, index=0):
        return Chapter("alpha", seed=seed).rng(name, index).normal()

    values = [draw(0, "a"), draw(1, "a"), draw(0, "b"), draw(0, "a", 1)]
    assert len(set(values)) == 4
    assert draw(0, "a") == values[0]
    first = Chapter("alpha").generator("a")
    again = Chapter("alpha").generator("a")
    assert torch.equal(torch.randn(3, generator=first), torch.randn(3, generator=again))


def test_replicate_seeds_are_disjoint_between_seeds_and_from_pilots(project):
    drawn = [set(Chapter("alpha", seed=k).seeds(1000)) for k in range(3)]
    assert not drawn[0] & drawn[1]
    assert not drawn[1] & drawn[2]
    assert min(drawn[0]) > 10_000
    with pytest.raises(ProjectError, match="1 to 1000"):
        Chapter("alpha").seeds(0)


def test_unregistered_things_are_refused(chapter, figure):
    with pytest.raises(ProjectError, match="'C7' was never registered"):
        chapter.evidence("C7", measured=1, control=2)
    with pytest.raises(ProjectError, match="C1 has no metric 'loss'"):
        chapter.evidence("C1", "loss", measured=1, control=2)
    with pytest.raises(ProjectError, match="figure 'F8' is not registered"):
        chapter.figure("F8", figure, data={"x": [1]})
    with pytest.raises(ProjectError, match="no colour for 'nobody'"):
        chapter.colour("nobody")
    with pytest.raises(ProjectError, match=r"does not list the data file 'a\.npz'"):
        chapter.data("a.npz")


def test_nan_evidence_names_claim_metric_and_arm(chapter):
    with pytest.raises(ProjectError, match="C1, metric 'final_loss', control: entry 0 is nan"):
        chapter.evidence("C1", measured=0.0, control=float("nan"))


def test_a_claim_left_without_evidence_is_refused(chapter):
    with pytest.raises(ProjectError, match="C1 is registered but has no evidence for 'final_loss'"):
        chapter.verdicts()


def test_a_figure_never_drawn_is_refused(chapter):
    chapter.evidence("C1", measured=0.0, control=9.0)
    with pytest.raises(ProjectError, match="registered but never drawn: F1"):
        chapter.record()


def test_a_figure_carries_picture_caption_alt_and_numbers(project, monkeypatch, tmp_path):
    monkeypatch.setenv("COMPANION_RUN_DIR", str(tmp_path / "run"))
    chapter = Chapter("alpha")
    picture, axes = chapter.subplots()
    axes.plot([0, 1])
    page = chapter.figure("F1", picture, data={"x": torch.arange(2), "y": np.array([0.5, 1.25])})
    html = page._repr_html_()
    assert 'alt="A decreasing curve."' in html
    assert "A placeholder" in html
    assert (tmp_path / "run" / "figures" / "F1.csv").read_text() == "x,y\n0,0.5\n1,1.25\n"
    png = base64.b64decode(re.search(r'src="data:image/png;base64,([^"]+)"', html)[1])
    assert png == (tmp_path / "run" / "figures" / "F1.png").read_bytes()
    assert png.startswith(b"\x89PNG")


def test_figure_data_of_unequal_length_is_refused(chapter, figure):
    with pytest.raises(ProjectError, match="unequal length"):
        chapter.figure("F1", figure, data={"x": [1, 2], "y": [1]})


def test_the_record_is_saved_and_shown_without_what_varies(project, monkeypatch, tmp_path):
    monkeypatch.setenv("COMPANION_RUN_DIR", str(tmp_path))
    chapter = Chapter("alpha")
    picture, _ = chapter.subplots()
    chapter.figure("F1", picture, data={"x": [1]})
    chapter.evidence("C1", measured=0.05, control=9.0, note="a remark")
    witness = chapter.record()._repr_mimebundle_()["application/vnd.companion.evidence+json"]
    saved = load_record(tmp_path / "evidence.json.run")
    assert saved.wall_seconds is not None
    assert saved.peak_mib > 10
    assert "wall_seconds" not in witness
    assert "started" not in witness
    assert witness == saved.witness()
    assert witness["claims"][0]["verdict"] == "reproduced"
    assert witness["claims"][0]["note"] == "a remark"
    json.dumps(witness, allow_nan=False)


def test_tables_render_for_pages_and_as_text(chapter):
    chapter.evidence("C1", measured=0.05, control=9.0)
    table = chapter.verdicts()
    assert "verdict-reproduced" in table._repr_html_()
    assert "C1 reproduced: Replace this claim" in repr(table)
    assert "≤ 0.1" in repr(chapter.claims())
    assert "A. Author" in repr(chapter.at_a_glance())
    assert repr(chapter.summary()) == "C1   reproduced"
    assert "Seed: 0" in repr(chapter.provenance())


def test_profiles_choose(project):
    assert Chapter("alpha").choose(quick=1, full=2) == 1
    assert Chapter("alpha", profile="full").choose(quick=1, full=2) == 2
