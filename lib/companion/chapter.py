"""The context of a running chapter: parameters, random streams, figures, evidence and generated tables."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
import zlib
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from companion import criteria, tables
from companion.claims import load_claims
from companion.data import data_file
from companion.evidence import ClaimRecord, Record
from companion.figures import Columns, DisplayedFigure, load_colours, render, use_house_style
from companion.paths import RUN_VARIABLE, Project, ProjectError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from matplotlib.figure import Figure as MatplotlibFigure

PROFILES = ("quick", "full")
SEED_OFFSET = 1_000_003
VERSIONED = ("torch", "numpy", "scipy", "matplotlib")
UNTIL_VARIABLE = "COMPANION_UNTIL"

T = TypeVar("T")


class StoppedAsAsked(Exception):
    """Raised after the claim named by ``$COMPANION_UNTIL`` is judged, so that a check need not run on."""


def resolve_device(name: str) -> torch.device:
    """``auto`` takes cuda, then mps, then cpu; a named device must be there."""
    import torch

    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(d for d, there in available.items() if there))
    if name not in available:
        raise ProjectError(f"unknown device {name!r}; choose auto, cuda, mps or cpu.")
    if not available[name]:
        raise ProjectError(f"the device {name!r} is not available here; use device auto or cpu.")
    return torch.device(name)


class Chapter:
    """One run of a chapter.

    Args:
        slug: the chapter, as in the catalogue.
        seed: 0, 1, 2, …; every random stream of the chapter derives from it.
        profile: ``quick`` or ``full``.
        device: ``auto``, ``cuda``, ``mps`` or ``cpu``.

    Raises:
        ProjectError: for an unknown slug, profile or device, or a claims file that does not validate.
    """

    def __init__(
        self, slug: str, seed: int = 0, profile: str = "quick", device: str = "auto"
    ) -> None:
        if profile not in PROFILES:
            raise ProjectError(f"unknown profile {profile!r}; choose {' or '.join(PROFILES)}.")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ProjectError(f"the seed must be 0, 1, 2, …, not {seed!r}.")
        self._project = Project()
        self._files = self._project.chapter(slug)
        self._claims = load_claims(self._files.claims)
        self.slug, self.seed, self.profile = slug, seed, profile
        self.device = resolve_device(device)
        self._run_folder = Path(f) if (f := os.environ.get(RUN_VARIABLE)) else None
        self._until = os.environ.get(UNTIL_VARIABLE)
        self._evidence: dict[str, dict[str, tuple[criteria.Sample, criteria.Sample]]] = {}
        self._notes: dict[str, str] = {}
        self._figures: list[str] = []
        self._colours = load_colours(self._project.root)
        use_house_style(self._project.root)
        if threads := os.environ.get("OMP_NUM_THREADS"):
            import torch

            torch.set_num_threads(int(threads))

    # -- parameters and random streams

    @property
    def full(self) -> bool:
        """Whether this is the full profile."""
        return self.profile == "full"

    def choose(self, quick: T, full: T) -> T:
        """The value for this run's profile."""
        return full if self.full else quick

    def seeds(self, count: int) -> list[int]:
        """``count`` integers for independent replicates, disjoint between seeds and from all pilots."""
        if not 1 <= count <= 1000:
            raise ProjectError(f"a chapter has 1 to 1000 replicates, not {count}.")
        first = SEED_OFFSET + 1000 * self.seed
        return list(range(first, first + count))

    def rng(self, name: str, index: int = 0) -> np.random.Generator:
        """The NumPy random stream called ``name``; the same for the same seed, name and index."""
        import numpy as np

        return np.random.default_rng(self._entropy(name, index))

    def generator(self, name: str, index: int = 0) -> torch.Generator:
        """The torch random stream called ``name``, on the CPU so that devices agree."""
        import numpy as np
        import torch

        state = np.random.SeedSequence(self._entropy(name, index)).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0]) >> 1)

    def _entropy(self, name: str, index: int) -> list[int]:
        stream = zlib.crc32(f"{self.slug}/{name}".encode())
        return [SEED_OFFSET, self.seed, stream, index]

    def data(self, name: str) -> Path:
        """The verified path of a file in ``data/`` that the claims file lists."""
        if name not in self._claims.data:
            raise ProjectError(
                f"{self.slug}.claims.yml does not list the data file {name!r} under data: "
                "(a change of it must re-execute the chapter)."
            )
        return data_file(self._project.root, name)

    # -- figures

    def colour(self, method: str) -> str:
        """The book's colour of a method."""
        if method not in self._colours:
            raise ProjectError(f"no colour for {method!r}; add one to book/colours.yml.")
        return self._colours[method]

    def subplots(self, *args: Any, **kwargs: Any) -> Any:
        """``matplotlib.pyplot.subplots`` in the house style."""
        import matplotlib.pyplot as plt

        return plt.subplots(*args, **kwargs)

    def figure(self, figure_id: str, figure: MatplotlibFigure, data: Columns) -> DisplayedFigure:
        """Register and display a figure of the claims file with the numbers behind it."""
        entry = self._claims.figure(figure_id)
        folder = self._run_folder / "figures" if self._run_folder else None
        shown = render(self.slug, entry, figure, data, folder)
        if figure_id not in self._figures:
            self._figures.append(figure_id)
        return shown

    # -- evidence

    def evidence(
        self,
        claim_id: str,
        metric: str | None = None,
        *,
        measured: Any,
        control: Any,
        note: str = "",
    ) -> None:
        """Hand over what was measured of one condition, beside its control arm.

        Args:
            claim_id: as registered, such as ``"C3"``.
            metric: the condition's metric; may be left out where the claim has a single one.
            measured: sample of the main arm (numbers, arrays, tensors, ``no_value(...)``; for a slope
                ``{"x": ..., "y": ...}``, for a paired difference ``{"method": ..., "baseline": ...}``).
            control: sample of the same metric in the control arm.
            note: a remark kept in the record.

        Raises:
            ProjectError: for a claim or metric that was never registered, or evidence that is not finite.
        """
        claim = self._claims.claim(claim_id)
        if claim.reach == "out-of-reach":
            raise ProjectError(f"{claim_id} is registered as out of reach: it takes no evidence.")
        condition = claim.condition(metric)
        where = f"{claim_id}, metric {condition.metric!r}"
        pair = tuple(
            criteria.as_sample(condition, sample, f"{where}, {arm}")
            for arm, sample in (("measured", measured), ("control", control))
        )
        self._evidence.setdefault(claim_id, {})[condition.metric] = (pair[0], pair[1])
        if note:
            self._notes[claim_id] = " ".join(filter(None, (self._notes.get(claim_id), note)))
        if self._until == claim_id and len(self._evidence[claim_id]) == len(claim.conditions):
            self._save(self._judged([claim_id]), "evidence.partial.json")
            raise StoppedAsAsked(claim_id)

    def _claim_record(self, claim_id: str) -> ClaimRecord:
        claim, samples = self._claims.claim(claim_id), self._evidence.get(claim_id, {})
        for condition in claim.conditions:
            if condition.metric not in samples:
                raise ProjectError(
                    f"{claim_id} is registered but has no evidence for {condition.metric!r}; "
                    f'call chapter.evidence("{claim_id}", "{condition.metric}", measured=…, control=…).'
                )
        return ClaimRecord.judged(claim, samples, self._notes.get(claim_id, ""))

    def _judged(self, claim_ids: list[str] | None = None) -> Record:
        return Record(
            schema=1,
            slug=self.slug,
            part=self._files.part,
            profile=self.profile,
            device=self.device.type,
            seed=self.seed,
            versions=_versions(),
            figures=sorted(self._figures),
            claims=[
                self._claim_record(i) for i in claim_ids or [c.id for c in self._claims.claims]
            ],
        )

    # -- generated pieces of the page

    def at_a_glance(self) -> tables.Facts:
        """Paper, authors, year, link and what was read of it."""
        return tables.glance_table(self._claims)

    def claims(self) -> tables.Grouped:
        """The registered claims with criterion and control."""
        return tables.claims_table(self._claims)

    def verdicts(self) -> tables.Grouped:
        """Claim by claim: measured value, interval, criterion, control, verdict."""
        return tables.verdicts_table(self._claims, self._judged())

    def summary(self) -> PlainText:
        """One line per claim, without numbers; the cell that nbval compares."""
        return PlainText(tables.summary_lines(self._judged().claims))

    def markdown(self, text: str) -> Any:
        """Prose with numbers from the run."""
        from IPython.display import Markdown

        return Markdown(text)

    def provenance(self) -> tables.Facts:
        """Seed, profile, device and versions. Time and memory are in the evidence record."""
        record = self._judged()
        rows: list[tuple[str, tables.Cell]] = [
            ("Seed", str(self.seed)),
            ("Profile", self.profile),
            ("Device", self.device.type),
            *((name, version) for name, version in record.versions.items()),
        ]
        return tables.Facts(rows)

    def record(self) -> Witness:
        """Judge, save the evidence of this run, and show it as the notebook's last output."""
        missing = [f.id for f in self._claims.figures if f.id not in self._figures]
        if missing:
            raise ProjectError(f"registered but never drawn: {', '.join(missing)}.")
        record = self._judged()
        self._save(record, "evidence.json.run")
        return Witness(record)

    def _save(self, record: Record, name: str) -> None:
        if self._run_folder is None:
            return
        record.started, record.wall_seconds, record.cpu_seconds, record.peak_mib = _usage()
        record.revision = _revision(self._project.root)
        record.save(self._run_folder / name)


class PlainText:
    """Text shown as it is."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class Witness:
    """The record of a run as a notebook output: JSON for machines, one line for people."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {
            "application/vnd.companion.evidence+json": self.record.witness(),
            "text/plain": f"evidence of {len(self.record.claims)} claims recorded in this notebook",
        }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        found[name] = metadata.version(name).split("+")[0]
    return found


def _usage() -> tuple[str, float, float, float]:
    """Start, wall seconds, CPU seconds and peak resident MiB of this process, imports included."""
    import resource

    import psutil

    started = psutil.Process().create_time()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return (
        datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        round(time.time() - started, 2),
        round(usage.ru_utime + usage.ru_stime, 2),
        round(usage.ru_maxrss / unit, 1),
    )


def _revision(root: Path) -> str | None:
    try:
        out = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=root, capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return out.stdout.strip() or None
