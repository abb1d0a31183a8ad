"""Tables that render in a notebook and a page (HTML), in the terminal (rich) and as plain text."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from companion.claims import Claim, ClaimsFile, Condition, Verdict, number
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
class Table:
    """Rows under headers; cells are text (escaped) or :class:`Html`."""

    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in self.headers)
        body = "".join(
            "<tr>"
            + "".join(
                f'<td data-label="{html.escape(h)}">{_html(cell)}</td>'
                for h, cell in zip(self.headers, row, strict=True)
            )
            + "</tr>"
            for row in self.rows
        )
        return (
            f'<table class="companion-table"><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table>"
        )

    def __repr__(self) -> str:
        return "\n\n".join(
            "\n".join(f"{h}: {_text(c)}" for h, c in zip(self.headers, row, strict=True))
            for row in self.rows
        )


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


def claims_table(claims: ClaimsFile) -> Table:
    """What the paper says, where, and the criterion and control fixed beforehand."""
    return Table(
        ("Claim", "What the paper says", "How it is judged", "Control that must fail"),
        [
            (
                Html(
                    f"<strong>{c.id}</strong><br>{c.kind}<br>{_reach(c)}",
                    f"{c.id} ({c.kind}, {c.reach})",
                ),
                Html(
                    f"{html.escape(c.statement)} <em>({html.escape(c.source)})</em>",
                    f"{c.statement} ({c.source})",
                ),
                listed(
                    [k.criterion() for k in c.conditions] or [f"not measured: {c.reach_reason}"]
                ),
                listed(_distinct(c.conditions) or ["–"]),
            )
            for c in claims.claims
        ],
    )


def _reach(claim: Claim) -> str:
    if not claim.reach_reason:
        return claim.reach
    return f'<span title="{html.escape(claim.reach_reason)}">{claim.reach}</span>'


def _distinct(conditions: Sequence[Condition]) -> list[str]:
    return list(dict.fromkeys(c.control for c in conditions))


def verdicts_table(claims: ClaimsFile, record: Record) -> Table:
    """Claim by claim: each condition, measured value with interval, control value, verdict."""
    rows: list[tuple[Cell, ...]] = []
    for result in record.claims:
        claim = claims.claim(result.id)
        if not result.conditions:
            rows.append(
                (result.id, f"not measured: {claim.reach_reason}", "–", "–", badge(result.verdict))
            )
        for index, c in enumerate(result.conditions):
            rows.append(
                (
                    result.id
                    if index == 0
                    else Html(f'<span class="again">{result.id}</span>', result.id),
                    c.criterion,
                    marked(with_interval(c.value, c.interval), c.holds),
                    marked(with_interval(c.control_value, c.control_interval), c.control_fails),
                    badge(result.verdict) if index == 0 else "",
                )
            )
    return Table(("Claim", "Criterion", "Measured", "Control", "Verdict"), rows)


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
