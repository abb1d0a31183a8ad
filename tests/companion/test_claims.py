"""The claims file: what is accepted, and the sentence that a broken one gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from companion.claims import ClaimsFile, Condition, json_schema, load_claims, number
from companion.paths import ProjectError


def valid() -> dict:
    return {
        "schema": 1,
        "slug": "sample",
        "part": "stability",
        "title": "A title",
        "question": "Is it so?",
        "paper": {
            "title": "Paper",
            "authors": ["A. Author"],
            "year": 2024,
            "venue": "ICML",
            "url": "https://arxiv.org/abs/1",
            "bibkey": "a2024",
        },
        "read": ["abstract"],
        "hero": "F1",
        "figures": [{"id": "F1", "title": "t", "caption": "c", "alt": "a"}],
        "claims": [
            {
                "id": "C1",
                "statement": "s",
                "source": "abstract",
                "kind": "bound",
                "reach": "full",
                "expected": "reproduced",
                "conditions": [
                    {
                        "metric": "error",
                        "label": "error",
                        "test": "every",
                        "comparison": "<=",
                        "threshold": 1.0,
                        "control": "sabotaged",
                    }
                ],
            }
        ],
    }


def write(tmp_path: Path, content: dict | str) -> Path:
    path = tmp_path / "sample.claims.yml"
    text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_valid_file_is_read(tmp_path):
    claims = load_claims(write(tmp_path, valid()))
    assert claims.claim("C1").conditions[0].criterion() == "every instance of: error ≤ 1"


def condition(content: dict) -> dict:
    return content["claims"][0]["conditions"][0]


@pytest.mark.parametrize(
    ("spoil", "field", "message"),
    [
        (lambda c: c.update(hreo="F1"), "hreo", "Extra inputs"),
        (lambda c: c.pop("question"), "question", "required"),
        (lambda c: c["claims"][0].update(kind="guess"), "kind", "identity"),
        (lambda c: condition(c).pop("control"), "control", "required"),
        (lambda c: condition(c).pop("threshold"), "conditions.0", "threshold"),
        (lambda c: condition(c).update(threshold=float("nan")), "threshold", "finite"),
        (lambda c: condition(c).update(comparison="between"), "conditions.0", "low, high"),
        (lambda c: condition(c).update(share=0.5), "conditions.0", "share"),
        (lambda c: condition(c).update(test="share"), "conditions.0", "share"),
        (lambda c: condition(c).update(test="zero"), "conditions.0", "zero"),
        (lambda c: condition(c).update(test="slope", span=2), "claims.0", "criterion_note"),
        (lambda c: c["claims"][0].update(reach="reduced"), "claims.0", "reach_reason"),
        (
            lambda c: c["claims"][0].update(reach="out-of-reach", reach_reason="a cluster"),
            "claims.0",
            "no conditions",
        ),
        (lambda c: c["claims"][0].update(conditions=[]), "claims.0", "at least one condition"),
        (lambda c: c["claims"].append(c["claims"][0]), "file", "registered twice"),
        (lambda c: c.update(hero="F9"), "file", "F9"),
        (lambda c: c["claims"][0].update(figures=["F7"]), "file", "F7"),
        (lambda c: c.update(slug="other"), "slug", "make the two agree"),
    ],
)
def test_a_broken_file_is_refused_with_file_and_field(tmp_path, spoil, field, message):
    content = valid()
    spoil(content)
    with pytest.raises(ProjectError) as caught:
        load_claims(write(tmp_path, content))
    said = str(caught.value)
    assert said.startswith("sample.claims.yml")
    assert field in said
    assert message in said


def test_the_line_of_the_fault_is_named(tmp_path):
    content = valid()
    condition(content)["treshold"] = 3
    path = write(tmp_path, content)
    line = next(
        i
        for i, text in enumerate(path.read_text().splitlines(), 1)
        if text.strip() == "treshold: 3"
    )
    with pytest.raises(ProjectError, match=f"line {line}, field claims.0.conditions.0.treshold"):
        load_claims(path)


def test_broken_yaml_is_told_with_its_line(tmp_path):
    with pytest.raises(ProjectError, match=r"sample\.claims\.yml, line 3: not valid YAML"):
        load_claims(write(tmp_path, "schema: 1\nslug: sample\npaper: ]\n"))


def test_a_list_is_not_a_claims_file(tmp_path):
    with pytest.raises(ProjectError, match="expected a mapping"):
        load_claims(write(tmp_path, "- a\n- b\n"))


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ProjectError, match="register the claims before measuring"):
        load_claims(tmp_path / "sample.claims.yml")


def test_an_unknown_claim_names_the_registered_ones():
    claims = ClaimsFile.model_validate(valid())
    with pytest.raises(ProjectError, match="C9.*never registered.*C1"):
        claims.claim("C9")


def test_an_unknown_metric_names_the_registered_ones():
    claim = ClaimsFile.model_validate(valid()).claim("C1")
    with pytest.raises(ProjectError, match=r"no metric 'loss'; registered: error"):
        claim.condition("loss")


@pytest.mark.parametrize(
    ("comparison", "threshold", "inside", "outside"),
    [
        ("<", 1.0, 0.9, 1.0),
        ("<=", 1.0, 1.0, 1.1),
        (">", 1.0, 1.1, 1.0),
        (">=", 1.0, 1.0, 0.9),
        ("==", 1.0, 1.0, 1.0 + 1e-15),
        ("between", [1.0, 2.0], 2.0, 2.1),
    ],
)
def test_comparisons_at_their_edges(comparison, threshold, inside, outside):
    c = Condition(
        metric="m", label="m", test="every", comparison=comparison, threshold=threshold, control="x"
    )
    assert c.satisfied_by(inside)
    assert not c.satisfied_by(outside)


def test_the_committed_schema_is_current(root):
    committed = (root / "book" / "claims.schema.json").read_text(encoding="utf-8")
    assert committed == json_schema(), "run: python -m companion schema > book/claims.schema.json"
    assert json.loads(committed)["required"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (20_000.0, "20000"), (0.03124, "0.0312"), (1.2e-9, "1.2e-09")]
)
def test_numbers_as_a_reader_writes_them(value, text):
    assert number(value) == text
