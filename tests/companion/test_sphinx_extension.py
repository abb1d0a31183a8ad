"""The generated parts of the book's pages."""

from __future__ import annotations

from types import SimpleNamespace

from companion.sphinx_extension import outdated_api_pages, public_modules


def test_an_api_page_is_read_anew_when_a_module_comes_or_goes(tmp_path):
    package = tmp_path / "lib" / "methods"
    package.mkdir(parents=True)
    for name in ("__init__", "first", "_private"):
        (package / f"{name}.py").touch()
    app = SimpleNamespace(srcdir=tmp_path)
    modules = list(public_modules(app, "methods"))
    assert modules == ["methods.first"]
    page = {"api-package": "methods", "api-modules": modules}
    env = SimpleNamespace(metadata={"api/methods": page, "index": {}})
    assert outdated_api_pages(app, env, set(), set(), set()) == []
    (package / "second.py").touch()
    assert outdated_api_pages(app, env, set(), set(), set()) == ["api/methods"]
    (package / "second.py").unlink()
    (package / "first.py").unlink()
    assert outdated_api_pages(app, env, set(), set(), set()) == ["api/methods"]
