"""The claims file of a chapter: what the paper claims and how each claim will be judged.

A claims file is written before anything is measured. It is validated strictly: an unknown field, a missing
control or a threshold that does not fit its test is refused with file, line and field.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from companion.paths import ProjectError

SCHEMA_VERSION = 1

Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
ClaimId = Annotated[str, StringConstraints(pattern=r"^C[0-9]+[a-z]?$")]
FigureId = Annotated[str, StringConstraints(pattern=r"^F[0-9]+[a-z]?$")]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Verdict = Literal["reproduced", "not reproduced", "undiscriminating", "out of reach"]

OF_ENTRIES = ("every", "share", "median")


class Strict(BaseModel):
    """A model without silent extras and without coercion of NaN or infinity."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Tolerance(Strict):
    """Drift of a condition's value allowed against the committed record: absolute + relative·\\|value\\|."""

    relative: float = Field(0.1, ge=0)
    absolute: float = Field(0.0, ge=0)

    def allows(self, fresh: float, committed: float) -> bool:
        return abs(fresh - committed) <= self.absolute + self.relative * abs(committed)


class Condition(Strict):
    """One measurable condition of a claim, with the control arm that must fail it.

    ``test`` says what of the sample is compared with ``threshold``:

    - ``point``: the only entry;
    - ``every``: each entry;
    - ``share``: each entry, and at least the fraction ``share`` of them satisfies it;
    - ``median``: the median;
    - ``confidence``: the less favourable end of the confidence interval of the mean;
    - ``slope``: the least-squares slope of y against x on ``axes``;
    - ``paired``: the less favourable end of the interval of the mean of method - baseline;
    - ``zero``: nothing; each entry is exactly 0.
    """

    metric: Identifier
    label: Text
    unit: str = ""
    test: Literal["point", "every", "share", "median", "confidence", "slope", "paired", "zero"]
    comparison: Literal["<", "<=", ">", ">=", "==", "between"] | None = None
    threshold: float | tuple[float, float] | None = None
    share: float | None = Field(None, gt=0, le=1)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    interval: Literal["t", "bootstrap"] = "t"
    axes: Literal["loglog", "semilogx", "semilogy", "linear"] = "loglog"
    span: float = Field(10.0, gt=1)
    bound: Literal["estimate", "interval"] = "estimate"
    control: Text
    control_share: float | None = Field(None, gt=0, le=1)
    tolerance: Tolerance = Tolerance()

    @model_validator(mode="after")
    def _fits_its_test(self) -> Condition:
        if self.test == "zero":
            if self.comparison is not None or self.threshold is not None:
                raise ValueError("the test 'zero' takes neither comparison nor threshold")
        elif self.comparison is None or self.threshold is None:
            raise ValueError(f"the test {self.test!r} needs a comparison and a threshold")
        if (self.comparison == "between") != isinstance(self.threshold, tuple):
            raise ValueError(
                "a [low, high] threshold goes with the comparison 'between', and only with it"
            )
        if isinstance(self.threshold, tuple) and self.threshold[0] > self.threshold[1]:
            raise ValueError("the threshold [low, high] has low above high")
        if (self.test == "share") != (self.share is not None):
            raise ValueError("the field 'share' goes with the test 'share', and only with it")
        if self.control_share is not None and self.test not in OF_ENTRIES:
            raise ValueError(f"'control_share' goes with the tests {', '.join(OF_ENTRIES)}")
        if self.test in ("confidence", "paired") and self.comparison == "==":
            raise ValueError("a confidence bound cannot be compared with '=='")
        return self

    def satisfied_by(self, value: float) -> bool:
        """Whether one number satisfies the comparison."""
        if self.test == "zero":
            return value == 0.0
        if isinstance(self.threshold, tuple):
            low, high = self.threshold
            return low <= value <= high
        assert self.threshold is not None
        match self.comparison:
            case "<":
                return value < self.threshold
            case "<=":
                return value <= self.threshold
            case ">":
                return value > self.threshold
            case ">=":
                return value >= self.threshold
            case _:
                return value == self.threshold

    def requirement(self) -> str:
        """The comparison in words, such as ``≤ 1e-09``."""
        if self.test == "zero":
            return "= 0 exactly"
        unit = f" {self.unit}" if self.unit else ""
        if isinstance(self.threshold, tuple):
            return f"in [{number(self.threshold[0])}, {number(self.threshold[1])}]{unit}"
        sign = {"<=": "≤", ">=": "≥", "==": "="}.get(self.comparison or "", self.comparison)
        assert self.threshold is not None
        return f"{sign} {number(self.threshold)}{unit}"

    def criterion(self) -> str:
        """The whole condition as one sentence."""
        percent = f"{100 * self.confidence:g} %"
        match self.test:
            case "point":
                subject = self.label
            case "every" | "zero":
                subject = f"every instance of: {self.label}"
            case "share":
                subject = f"at least {100 * (self.share or 0):g} % of: {self.label}"
            case "median":
                subject = f"median of: {self.label}"
            case "confidence":
                subject = f"{percent} bound of the mean of: {self.label}"
            case "slope":
                at = f"{percent} bound of the slope" if self.bound == "interval" else "slope"
                subject = f"{at} ({self.axes}) of: {self.label}"
            case _:
                subject = f"{percent} bound of the mean paired difference of: {self.label}"
        return f"{subject} {self.requirement()}"


class Claim(Strict):
    """One claim of the paper, in our words."""

    id: ClaimId
    statement: Text
    source: Text
    kind: Literal["identity", "bound", "rate", "ordering", "quantity", "phenomenon"]
    reach: Literal["full", "reduced", "stand-in", "out-of-reach"]
    reach_reason: str = ""
    expected: Verdict
    expected_note: str = ""
    figures: tuple[FigureId, ...] = ()
    criterion_note: str = ""
    conditions: tuple[Condition, ...] = ()

    @model_validator(mode="after")
    def _is_complete(self) -> Claim:
        if self.reach == "out-of-reach" and self.conditions:
            raise ValueError("a claim out of reach has no conditions: nothing is measured")
        if self.reach != "out-of-reach" and not self.conditions:
            raise ValueError("a claim within reach needs at least one condition")
        if self.reach != "full" and not self.reach_reason:
            raise ValueError(f"the reach {self.reach!r} needs its reach_reason")
        metrics = [c.metric for c in self.conditions]
        if twice := sorted({m for m in metrics if metrics.count(m) > 1}):
            raise ValueError(f"the metric {twice[0]!r} is registered twice")
        narrow = [c.metric for c in self.conditions if c.test == "slope" and c.span < 10]
        if narrow and not self.criterion_note:
            raise ValueError(
                f"the slope {narrow[0]!r} spans less than a decade: give a criterion_note"
            )
        return self

    def condition(self, metric: str | None) -> Condition:
        known = ", ".join(c.metric for c in self.conditions)
        if metric is None:
            if len(self.conditions) != 1:
                raise ProjectError(
                    f"{self.id} has several metrics ({known}): name the one measured."
                )
            return self.conditions[0]
        for condition in self.conditions:
            if condition.metric == metric:
                return condition
        raise ProjectError(f"{self.id} has no metric {metric!r}; registered: {known or 'none'}.")


class Paper(Strict):
    title: Text
    authors: tuple[Text, ...] = Field(min_length=1)
    year: int = Field(ge=1900, le=2100)
    venue: Text
    url: Annotated[str, StringConstraints(pattern=r"^https?://")]
    bibkey: Text


class FigureEntry(Strict):
    id: FigureId
    title: Text
    caption: Text
    alt: Text
    regenerates: str = ""


class ClaimsFile(Strict):
    """The whole file ``<slug>.claims.yml``."""

    version: Literal[1] = Field(alias="schema")
    slug: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$")]
    part: Identifier
    title: Text
    question: Text
    paper: Paper
    read: tuple[Text, ...] = Field(min_length=1)
    not_read: tuple[Text, ...] = ()
    data: tuple[Text, ...] = ()
    hero: FigureId
    figures: tuple[FigureEntry, ...] = Field(min_length=1)
    claims: tuple[Claim, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_consistent(self) -> ClaimsFile:
        figures = [f.id for f in self.figures]
        claims = [c.id for c in self.claims]
        for kind, ids in (("figure", figures), ("claim", claims)):
            if twice := sorted({i for i in ids if ids.count(i) > 1}):
                raise ValueError(f"the {kind} {twice[0]} is registered twice")
        if self.hero not in figures:
            raise ValueError(f"the hero {self.hero} is not among the figures")
        for claim in self.claims:
            if unknown := sorted(set(claim.figures) - set(figures)):
                raise ValueError(
                    f"{claim.id} names the figure {unknown[0]}, which is not registered"
                )
        return self

    def claim(self, claim_id: str) -> Claim:
        for claim in self.claims:
            if claim.id == claim_id:
                return claim
        known = ", ".join(c.id for c in self.claims)
        raise ProjectError(
            f"{claim_id!r} was never registered in {self.slug}.claims.yml (registered: {known}); "
            "register a claim and its criterion before measuring it."
        )

    def figure(self, figure_id: str) -> FigureEntry:
        for figure in self.figures:
            if figure.id == figure_id:
                return figure
        known = ", ".join(f.id for f in self.figures)
        raise ProjectError(
            f"the figure {figure_id!r} is not registered in {self.slug}.claims.yml (registered: {known})."
        )


def load_claims(path: Path) -> ClaimsFile:
    """Read and validate a claims file; a fault is told with file, line and field."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ProjectError(
            f"{path.name} is missing: register the claims before measuring."
        ) from None
    try:
        content = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not readable"
        raise ProjectError(f"{path.name}{line}: not valid YAML ({problem}).") from None
    if not isinstance(content, dict):
        raise ProjectError(
            f"{path.name}, line 1: expected a mapping of fields, found {type(content).__name__}."
        )
    try:
        claims = ClaimsFile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        field = ".".join(str(part) for part in first["loc"]) or "file"
        message = first["msg"].removeprefix("Value error, ")
        at = _line_of(yaml.compose(text), first["loc"])
        raise ProjectError(f"{path.name}, line {at}, field {field}: {message}{more}.") from None
    if claims.slug != path.name.removesuffix(".claims.yml"):
        raise ProjectError(f"{path.name}: the slug inside is {claims.slug!r}; make the two agree.")
    return claims


def _line_of(node: Any, location: tuple[int | str, ...]) -> int:
    """The line of the deepest part of ``location`` that exists in the YAML tree."""
    line: int = node.start_mark.line + 1 if node is not None else 1
    for part in location:
        child = None
        if isinstance(node, yaml.MappingNode):
            child = next((v for k, v in node.value if k.value == part), None)
        elif (
            isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value)
        ):
            child = node.value[part]
        if child is None:
            break
        node, line = child, child.start_mark.line + 1
    return line


def json_schema() -> str:
    """The JSON Schema of a claims file, for editors."""
    schema = ClaimsFile.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def number(value: float) -> str:
    """A number to three significant digits, as a reader would write it: ``0.0312``, ``1.2e-09``, ``20000``."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if float(value).is_integer() and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.3g}"
