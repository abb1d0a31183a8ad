"""The data registry: small files in ``data/``, each with source, licence and hash."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import yaml

from companion.paths import ProjectError


def registry(root: Path) -> dict[str, dict[str, str]]:
    """``data/registry.yml``: file name → source, licence, sha256 and what it holds."""
    entries: dict[str, dict[str, str]] = yaml.safe_load(
        (root / "data" / "registry.yml").read_text("utf-8")
    )
    return entries


def data_file(root: Path, name: str) -> Path:
    """The verified path of a committed data file.

    Raises:
        ProjectError: the name is not registered, the file is missing, or its hash differs.
    """
    known = registry(root)
    if name not in known:
        raise ProjectError(f"the data file {name!r} is not registered; known: {', '.join(known)}.")
    path = root / "data" / name
    if not path.is_file():
        raise ProjectError(f"data/{name} is missing; restore it with: git checkout -- data/{name}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != known[name]["sha256"]:
        raise ProjectError(
            f"data/{name} is not the registered file (sha256 {found[:12]}…, registered "
            f"{known[name]['sha256'][:12]}…); restore it with: git checkout -- data/{name}"
        )
    return path


def downloaded(root: Path, name: str, fallback: str) -> Path:
    """A larger file of the full profile, fetched once with its pinned hash; else the embedded fallback.

    The registry entry of ``name`` has a ``url``. When the download fails, the committed ``fallback`` is
    returned and a warning says so.
    """
    import pooch

    entry = registry(root).get(name)
    if entry is None or "url" not in entry:
        raise ProjectError(f"the download {name!r} is not registered in data/registry.yml.")
    try:
        return Path(
            pooch.retrieve(
                entry["url"],
                known_hash=f"sha256:{entry['sha256']}",
                fname=name,
                path=root / "_build" / "downloads",
                progressbar=False,
            )
        )
    except Exception as error:  # pooch raises what its transport raises
        warnings.warn(
            f"{name} could not be downloaded ({type(error).__name__}: {str(error)[:120]}); "
            f"using the embedded {fallback} instead.",
            stacklevel=2,
        )
        return data_file(root, fallback)
