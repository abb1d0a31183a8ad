"""What a chapter depends on: its text, its claims, its data and the library modules that it really imports."""

from __future__ import annotations

import ast
import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

from companion.claims import load_claims
from companion.paths import ChapterFiles, ProjectError

PACKAGES = ("companion", "descent")


def chapter_dependencies(files: ChapterFiles) -> list[Path]:
    """All files whose change must re-execute the chapter."""
    claims = load_claims(files.claims)
    data = [files.root / "data" / name for name in claims.data]
    modules = closure(files.root, imported_modules(files.text))
    return [files.text, files.claims, *data, *modules]


def imported_modules(text: Path) -> set[str]:
    """The names under ``companion`` and ``descent`` that the code cells of a text notebook import."""
    import jupytext

    names: set[str] = set()
    for cell in jupytext.read(text).cells:
        if cell.cell_type != "code":
            continue
        try:
            tree = ast.parse(cell.source)
        except SyntaxError as error:
            raise ProjectError(
                f"{text.name}: a code cell is not valid Python ({error.msg}: {(error.text or '').strip()!r})."
            ) from None
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {n for n in names if n.split(".")[0] in PACKAGES}


def closure(root: Path, names: set[str]) -> list[Path]:
    """The files of the library modules behind ``names``, with all that they import in turn.

    A name may be a module or something defined in one. The packages around a module count too, since
    importing it runs their ``__init__``.
    """
    graph = _graph(str(root / "lib"))
    known: set[str] = graph.modules
    pending = {_module_of(name, known) for name in names}
    found: set[str] = set()
    while pending:
        module = pending.pop()
        if module in found:
            continue
        found.add(module)
        package, _, _ = module.rpartition(".")
        pending |= graph.find_modules_directly_imported_by(module) | (
            {package} if package else set()
        )
    return sorted(_file_of(root / "lib", module) for module in found)


def _module_of(name: str, known: set[str]) -> str:
    module = name
    while module and module not in known:
        module = module.rpartition(".")[0]
    if not module:
        raise ProjectError(f"{name!r} is imported by a chapter but is not in lib/.")
    return module


def _file_of(library: Path, module: str) -> Path:
    path = library.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _graph(library: str) -> Any:
    """The import graph of the two packages under ``library`` (read from source, nothing is imported)."""
    import grimp

    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None or not spec.origin.startswith(library):
            sys.path.insert(0, library)
            sys.modules.pop(package, None)
            break
    return grimp.build_graph(*PACKAGES, cache_dir=None)
