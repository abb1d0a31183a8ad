"""Figures in the house style, with their caption, their alternative text and the numbers behind them."""

from __future__ import annotations

import base64
import csv
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from companion.claims import FigureEntry
from companion.paths import ProjectError

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

DOTS_PER_INCH = 150
LARGEST_CSV_ROWS = 5_000

Columns = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]


def use_house_style(root: Path) -> None:
    """Apply ``book/house.mplstyle`` to matplotlib."""
    import matplotlib as mpl
    from matplotlib import style

    style.use(root / "book" / "house.mplstyle")
    mpl.rcParams["svg.hashsalt"] = "descent"


def load_colours(root: Path) -> dict[str, str]:
    """One colour per method throughout the book, from ``book/colours.yml``."""
    colours: dict[str, str] = yaml.safe_load((root / "book" / "colours.yml").read_text("utf-8"))
    return colours


@dataclass(frozen=True)
class DisplayedFigure:
    """A registered figure as a notebook shows it: picture, caption and data in one self-contained piece."""

    slug: str
    entry: FigureEntry
    png: bytes
    csv_text: str

    def _repr_html_(self) -> str:
        entry = self.entry
        picture = base64.b64encode(self.png).decode("ascii")
        numbers = base64.b64encode(self.csv_text.encode("utf-8")).decode("ascii")
        source = f" Regenerates: {html.escape(entry.regenerates)}." if entry.regenerates else ""
        title = html.escape(entry.title)
        stop = "" if title.endswith(("?", "!")) else "."
        return (
            f'<figure class="companion-figure" id="{self.slug}-{entry.id}">'
            f'<img data-figure="{entry.id}" alt="{html.escape(entry.alt)}" '
            f'src="data:image/png;base64,{picture}">'
            f"<figcaption><strong>{entry.id}. {title}{stop}</strong> "
            f"{html.escape(entry.caption)}{source} "
            f'<a class="figure-data" download="{self.slug}-{entry.id}.csv" '
            f'href="data:text/csv;base64,{numbers}">Data of {entry.id} (CSV)</a></figcaption></figure>'
        )

    def __repr__(self) -> str:
        return f"{self.entry.id}. {self.entry.title}"


def render(
    slug: str, entry: FigureEntry, figure: MatplotlibFigure, data: Columns, folder: Path | None
) -> DisplayedFigure:
    """Draw a matplotlib figure to PNG, save it with its CSV under ``folder`` and make it displayable."""
    import matplotlib.pyplot as plt
    from PIL import Image

    raw = io.BytesIO()
    figure.savefig(raw, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    plt.close(figure)
    # 256 colours suffice for a plot and take a third of the bytes in a committed notebook
    small = io.BytesIO()
    Image.open(raw).convert("RGB").quantize(256).save(small, format="png", optimize=True)
    shown = DisplayedFigure(slug, entry, small.getvalue(), to_csv(entry.id, data))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{entry.id}.png").write_bytes(shown.png)
        (folder / f"{entry.id}.csv").write_text(shown.csv_text, encoding="utf-8")
    return shown


def to_csv(figure_id: str, data: Columns) -> str:
    """The numbers behind a figure as CSV; columns of equal length, or rows of equal keys."""
    if isinstance(data, Mapping):
        columns = {name: _column(values) for name, values in data.items()}
        lengths = {len(c) for c in columns.values()}
        if len(lengths) != 1:
            sizes = ", ".join(f"{k} {len(c)}" for k, c in columns.items())
            raise ProjectError(f"the data of {figure_id} has columns of unequal length ({sizes}).")
        names, rows = list(columns), list(zip(*columns.values(), strict=True))
    else:
        names = list(dict.fromkeys(k for row in data for k in row))
        rows = [tuple(row.get(k, "") for k in names) for row in data]
    if not rows:
        raise ProjectError(
            f"the data of {figure_id} is empty: hand over the numbers that it shows."
        )
    if len(rows) > LARGEST_CSV_ROWS:
        raise ProjectError(
            f"the data of {figure_id} has {len(rows)} rows; thin it to at most {LARGEST_CSV_ROWS}."
        )
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([[_short(v) for v in row] for row in rows])
    return out.getvalue()


def _column(values: Any) -> list:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return values.tolist() if hasattr(values, "tolist") else list(values)


def _short(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    return f"{value:.6g}" if isinstance(value, float) else value
