"""The public workflows: they parse, start on the intended events, and call only what the Makefile has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".github" / "workflows"

INTENDED: dict[str, tuple[dict[str, Any], set[str]]] = {
    # workflow: (its events, the make targets it must call)
    "test.yml": ({"push": None, "pull_request": None}, {"test"}),
    "publish.yml": ({"push": {"branches": ["main"]}}, {"read"}),
    "weekly.yml": ({"schedule": [{"cron": "17 3 * * 0"}], "workflow_dispatch": None}, {"book"}),
    "gpu.yml": ({"workflow_dispatch": ...}, {"chapter"}),
}


class Loader(yaml.SafeLoader):
    """YAML 1.2's booleans only, so that the key ``on`` stays a word, as on GitHub."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))


def workflow(name: str) -> dict[str, Any]:
    content = yaml.load((FOLDER / name).read_text(encoding="utf-8"), Loader=Loader)
    assert isinstance(content, dict)
    return content


def scripts(name: str) -> list[str]:
    steps = [step for job in workflow(name)["jobs"].values() for step in job["steps"]]
    return [step["run"] for step in steps if "run" in step]


def called_targets(script: str) -> set[str]:
    """The targets of every ``make`` call of a script; assignments and options are none."""
    found: set[str] = set()
    for line in script.splitlines():
        for command in re.split(r"&&|\|\||[;|]", line):
            words = command.split()
            if words[:1] == ["make"]:
                found |= {w for w in words[1:] if "=" not in w and not w.startswith("-")}
    return found


def makefile_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", text, flags=re.MULTILINE))


def test_these_are_all_the_workflows():
    assert {path.name for path in FOLDER.iterdir()} == set(INTENDED)


@pytest.mark.parametrize("name", INTENDED)
def test_it_starts_on_the_intended_events(name):
    events, wanted = workflow(name)["on"], INTENDED[name][0]
    assert set(events) == set(wanted)
    assert all(events[event] == wanted[event] for event in wanted if wanted[event] is not ...)


def test_the_gpu_workflow_asks_for_slug_profile_and_device():
    inputs = workflow("gpu.yml")["on"]["workflow_dispatch"]["inputs"]
    assert set(inputs) == {"slug", "profile", "device"}
    assert inputs["slug"]["required"] is True


@pytest.mark.parametrize("name", INTENDED)
def test_it_calls_make_targets_that_exist(name):
    called = set().union(*(called_targets(script) for script in scripts(name)))
    assert called >= INTENDED[name][1]
    assert called <= makefile_targets()


@pytest.mark.parametrize("name", INTENDED)
def test_no_input_is_pasted_into_a_shell(name):
    assert not [script for script in scripts(name) if "${{" in script]


@pytest.mark.parametrize("name", INTENDED)
def test_it_asks_for_no_more_than_reading(name):
    assert workflow(name)["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in workflow(name)["jobs"].values())


def test_only_the_publication_may_write_and_only_the_pages():
    granted = {
        (name, job): body["permissions"]
        for name in INTENDED
        for job, body in workflow(name)["jobs"].items()
        if "permissions" in body
    }
    assert granted == {("publish.yml", "deploy"): {"pages": "write", "id-token": "write"}}


def test_the_command_finds_a_target_that_is_missing():
    assert called_targets('make chapter C="$SLUG" -k && make nonsense') == {"chapter", "nonsense"}
    assert "nonsense" not in makefile_targets()
    assert {"book", "test", "read", "chapter"} <= makefile_targets()
