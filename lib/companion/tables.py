"""Tables that render in a notebook and a page (HTML), in the terminal (rich) and as plain text."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from companion.claims import Claim, ClaimsFile, Verdict, number
from companion.evidence import ClaimRecord, Record

SYMBOL: dict[str, str] = {
    "reproduced": "✓",
    "not reproduced": "✗",
    "undiscriminating": "?",
    "out of reach": "–",
}


@dataclass(frozen=True)
class Html:
    """A piece of ready HTML in a cell, with its plain-text twin."""

    html: str
    text: str


Cell = str | Html


@dataclass
class Grouped:
    """Rows in groups, one group per claim, each under its heading; ``folded`` groups open on a click."""

    headers: Sequence[str]
    groups: Sequence[tuple[Cell, Sequence[Sequence[Cell]]]]
    folded: bool = False

    def _repr_html_(self) -> str:
        if self.folded:
            blocks = (
                f"<details><summary>{_html(heading)}</summary>{self._table(self._rows(rows))}</details>"
                for heading, rows in self.groups
            )
            return f'<div class="companion-folded">{"".join(blocks)}</div>'
        span = len(self.headers)
        return self._table(
            "".join(
                f'<tbody><tr class="group"><th scope="rowgroup" colspan="{span}">{_html(heading)}</th></tr>'
                f"{self._rows(rows)}</tbody>"
                for heading, rows in self.groups
            )
        )

    def _table(self, body: str) -> str:
        head = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in self.headers)
        return (
            f'<table class="companion-table grouped"><thead><tr>{head}</tr></thead>{body}</table>'
        )

    def _rows(self, rows: Sequence[Sequence[Cell]]) -> str:
        return "".join(
            "<tr>"
            + "".join(
                f'<td data-label="{html.escape(h)}">{_html(cell)}</td>'
                for h, cell in zip(self.headers, row, strict=True)
            )
            + "</tr>"
            for row in rows
        )

    def __repr__(self) -> str:
        blocks = []
        for heading, rows in self.groups:
            lines = [_text(heading)]
            for row in rows:
                cells = [f"{h}: {_text(c)}" for h, c in zip(self.headers, row, strict=True)]
                lines.append("  - " + "\n    ".join(cells))
            blocks.append("\n".join(lines))
        return "\n\n".join(blocks)


@dataclass
class Facts:
    """Named facts, one per row."""

    rows: Sequence[tuple[str, Cell]]

    def _repr_html_(self) -> str:
        body = "".join(
            f'<tr><th scope="row">{html.escape(name)}</th><td>{_html(cell)}</td></tr>'
            for name, cell in self.rows
        )
        return f'<table class="companion-table companion-facts"><tbody>{body}</tbody></table>'

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {_text(cell)}" for name, cell in self.rows)


def _html(cell: Cell) -> str:
    return cell.html if isinstance(cell, Html) else html.escape(cell).replace("\n", "<br>")


def _text(cell: Cell) -> str:
    return cell.text if isinstance(cell, Html) else cell


def badge(verdict: Verdict, label: str = "") -> Html:
    """A verdict as a coloured badge; the words carry the meaning, the colour repeats it."""
    kind = verdict.replace(" ", "-")
    text = f"{label} {verdict}".strip()
    return Html(
        f'<span class="verdict verdict-{kind}"><span aria-hidden="true">{SYMBOL[verdict]}</span> '
        f"{html.escape(text)}</span>",
        text,
    )


def listed(lines: Sequence[str]) -> Html:
    """Several short texts in one cell."""
    if len(lines) == 1:
        return Html(html.escape(lines[0]), lines[0])
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return Html(f"<ul>{items}</ul>", "; ".join(lines))


def with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    """A value and its interval, such as ``1.53 [1.49, 1.58]``."""
    if value is None:
        return "no value"
    if interval is None:
        return number(value)
    return f"{number(value)} [{number(interval[0])}, {number(interval[1])}]"


def glance_table(claims: ClaimsFile) -> Facts:
    """Paper, authors, year, link and what was read of it."""
    paper = claims.paper
    link = Html(
        f'<a href="{html.escape(paper.url)}">{html.escape(paper.url)}</a>',
        paper.url,
    )
    reaches = [c.reach for c in claims.claims]
    rows: list[tuple[str, Cell]] = [
        ("Paper", paper.title),
        ("Authors", ", ".join(paper.authors)),
        ("Published", f"{paper.venue} ({paper.year})"),
        ("Link", link),
        ("What was read", listed(claims.read)),
        ("What was not read", listed(claims.not_read or ("nothing was left out",))),
        (
            "Claims",
            f"{len(reaches)} registered, {sum(r == 'full' for r in reaches)} at full reach, "
            f"{sum(r in ('reduced', 'stand-in') for r in reaches)} at reduced scale, "
            f"{reaches.count('out-of-reach')} out of reach",
        ),
    ]
    return Facts(rows)


def claims_table(claims: ClaimsFile) -> Grouped:
    """What the paper says, where, and the criterion and control fixed beforehand."""
    groups: list[tuple[Cell, list[tuple[Cell, ...]]]] = []
    for claim in claims.claims:
        rows: list[tuple[Cell, ...]] = [(c.criterion(), c.control) for c in claim.conditions]
        heading = Html(
            f'<span class="claim-id">{claim.id}</span> {html.escape(claim.statement)} '
            f'<span class="claim-source">{html.escape(claim.source)} · {claim.kind} · '
            f"{html.escape(_reach(claim))}</span>",
            f"{claim.id} {claim.statement} ({claim.source}; {claim.kind}; {_reach(claim)})",
        )
        groups.append((heading, rows or [(f"not measured: {claim.reach_reason}", "–")]))
    return Grouped(("Criterion, fixed beforehand", "Control that must fail"), groups, folded=True)


def _reach(claim: Claim) -> str:
    reach = f"reach: {claim.reach}"
    return f"{reach} ({claim.reach_reason})" if claim.reach_reason else reach


def verdicts_table(claims: ClaimsFile, record: Record) -> Grouped:
    """Claim by claim: each condition, measured value with interval, control value, verdict."""
    groups: list[tuple[Cell, list[tuple[Cell, ...]]]] = []
    for result in record.claims:
        claim, mark = claims.claim(result.id), badge(result.verdict)
        rows: list[tuple[Cell, ...]] = [
            (
                c.criterion,
                marked(with_interval(c.value, c.interval), c.holds),
                marked(with_interval(c.control_value, c.control_interval), c.control_fails),
            )
            for c in result.conditions
        ]
        heading = Html(
            f'<span class="claim-id">{claim.id}</span> {mark.html} {html.escape(claim.statement)}',
            f"{claim.id} {result.verdict}: {claim.statement}",
        )
        groups.append((heading, rows or [(f"not measured: {claim.reach_reason}", "–", "–")]))
    return Grouped(("Criterion", "Measured", "Control"), groups)


def marked(text: str, as_it_should: bool) -> Html:
    """A value with a mark saying whether it came out as the claim needs (a control is needed to fail)."""
    sign, word = ("✓", "as required") if as_it_should else ("✗", "not as required")
    return Html(
        f'{html.escape(text)} <span class="mark-{"good" if as_it_should else "bad"}" '
        f'role="img" aria-label="{word}">{sign}</span>',
        f"{text} {sign}",
    )


def summary_lines(results: Sequence[ClaimRecord]) -> str:
    """One plain line per claim, without numbers: what must not drift from run to run."""
    return "\n".join(f"{r.id:<4} {r.verdict}" for r in results)
