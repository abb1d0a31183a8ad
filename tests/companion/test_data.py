"""The data registry: hashes, and the fallback of a failed download."""

from __future__ import annotations

import shutil

import pytest
import yaml

from companion.data import data_file, downloaded, registry
from companion.paths import ProjectError


@pytest.fixture
def copy(root, tmp_path):
    shutil.copytree(root / "data", tmp_path / "data")
    return tmp_path


def test_every_committed_file_is_registered_and_whole(root):
    names = {p.name for p in (root / "data").iterdir()} - {"registry.yml"}
    embedded = {n for n, e in registry(root).items() if "url" not in e}
    assert names == embedded
    for name in names:
        assert data_file(root, name).is_file()


def test_every_entry_says_source_and_licence(root):
    for name, entry in registry(root).items():
        assert {"holds", "source", "licence", "sha256"} <= set(entry), name


def test_a_corrupt_file_is_refused(copy):
    name = next(iter(registry(copy)))
    (copy / "data" / name).write_bytes(b"broken")
    with pytest.raises(ProjectError, match=f"data/{name} is not the registered file.*git checkout"):
        data_file(copy, name)


def test_a_missing_and_an_unregistered_file_are_told(copy):
    name = next(iter(registry(copy)))
    (copy / "data" / name).unlink()
    with pytest.raises(ProjectError, match="is missing; restore it"):
        data_file(copy, name)
    with pytest.raises(ProjectError, match="not registered; known"):
        data_file(copy, "cifar.npz")


def test_a_failed_download_falls_back_and_says_so(copy):
    entries = registry(copy)
    name = next(iter(entries))
    entries["large.npz"] = entries[name] | {"url": "http://127.0.0.1:9/large.npz"}
    (copy / "data" / "registry.yml").write_text(yaml.safe_dump(entries))
    with pytest.warns(UserWarning, match=f"large.npz could not be downloaded.*embedded {name}"):
        path = downloaded(copy, "large.npz", fallback=name)
    assert path == copy / "data" / name
