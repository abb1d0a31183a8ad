r"""Warmup-stable-decay, WSD-S and cyclic cosine as one family of learning-rate schedules.

A schedule is a sequence of cycles that end at the steps :math:`T_1<\dots<T_K`. Each cycle has a warmup, a stable part
at the peak :math:`\eta_{\max}` and a decay to the floor :math:`\eta_{\min}=\rho\,\eta_{\max}`; the next cycle starts at
the peak again. One cycle is WSD, several are WSD-S, and cycles that are all decay, with a cosine, are cyclic cosine.

With :math:`s=j/D` at the j-th of D decay steps (so that the last step of a cycle has the floor, and the next the peak)

.. math:: \frac1{\eta(s)}=\frac s{\eta_{\min}}+\frac{1-s}{\eta_{\max}}

is the paper's inverse decay (equation 8). All rates are given relative to the peak.

Source: Wen et al. (2024), equation (8) for the decay; the layout of cycles, the linear warmup from 0 and the optional
re-warmup from the floor as in the Levanter library, whose own decay reaches the floor one step later.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

__all__ = [
    "CycleLR",
    "CycleSchedule",
    "HeldSchedule",
    "RateSchedule",
    "Shape",
    "constant_schedule",
    "cosine_schedule",
    "cyclic_cosine_schedule",
    "decay_ratio",
    "wsd_schedule",
    "wsds_schedule",
]

Shape = Literal["inverse", "linear", "cosine", "sqrt"]


def decay_ratio(progress: float, floor_ratio: float, shape: Shape = "inverse") -> float:
    r"""The rate relative to the peak after a fraction of the decay.

    ``inverse``: :math:`1/(1+(1/\rho-1)s)`; ``linear``: :math:`1-(1-\rho)s`; ``cosine``:
    :math:`\rho+(1-\rho)\frac{1+\cos\pi s}2`; ``sqrt``: :math:`\rho+(1-\rho)(1-\sqrt s)`.

    Args:
        progress: :math:`s` in [0, 1].
        floor_ratio: :math:`\rho` in [0, 1]; positive for ``inverse``.
        shape: one of the four names.

    Returns:
        1 at ``progress`` 0 and ``floor_ratio`` at 1.

    Raises:
        ValueError: for a progress outside [0, 1], an unknown shape, or an inverse decay to zero.
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress must lie in [0, 1], got {progress}")
    match shape:
        case "inverse":
            if floor_ratio <= 0:
                raise ValueError("an inverse decay never reaches 0: give a positive floor_ratio")
            return 1 / (1 + (1 / floor_ratio - 1) * progress)
        case "linear":
            return 1 - (1 - floor_ratio) * progress
        case "cosine":
            return floor_ratio + (1 - floor_ratio) * (1 + math.cos(math.pi * progress)) / 2
        case "sqrt":
            return floor_ratio + (1 - floor_ratio) * (1 - math.sqrt(progress))
        case _:
            raise ValueError(f"shape must be one of {', '.join(get_args(Shape))}, got {shape!r}")


class RateSchedule(ABC):
    """Learning rates relative to their peak, step by step; ``schedule(t)`` is that of update ``t`` = 0, 1, …"""

    ends: tuple[int, ...]
    """Numbers of steps after which a cycle ends."""

    @property
    def total(self) -> int:
        """:math:`T_K`, the number of steps of the whole schedule."""
        return self.ends[-1]

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The ratio for update ``step`` = 0, …, total - 1."""

    def ratios(self) -> Tensor:
        """All ratios, shape ``(total,)``, float64."""
        return torch.tensor([self(t) for t in range(self.total)], dtype=torch.float64)


@dataclass(frozen=True)
class CycleSchedule(RateSchedule):
    r"""Learning rates relative to their peak, step by step.

    ``schedule(t)`` is the ratio for the update number ``t`` = 0, 1, …; ``ratios()`` is all of them.

    Args:
        ends: :math:`T_1<\dots<T_K`, numbers of steps after which a cycle ends.
        decay: length of the decay; an ``int`` counts steps, a ``float`` in (0, 1) is a fraction of
            what ``decay_of`` says, ``None`` is the whole cycle after its warmup, 0 is no decay.
        decay_of: ``"total"``: a fraction of :math:`T_k`, all steps so far; ``"cycle"``: of :math:`T_k-T_{k-1}`.
        shape: see :func:`decay_ratio`.
        floor_ratio: :math:`\rho=\eta_{\min}/\eta_{\max}` in [0, 1].
        warmup: steps, or a fraction of the first cycle, of a linear rise from 0.
        rewarmup: steps, or a fraction of the cycle, of a linear rise from the floor in later cycles; 0 jumps.

    Raises:
        ValueError: for ends that do not increase, an option outside its range, or a cycle shorter than
            its warmup and decay together.
    """

    ends: tuple[int, ...]
    decay: float | None = 0.1
    decay_of: Literal["total", "cycle"] = "total"
    shape: Shape = "inverse"
    floor_ratio: float = 0.1
    warmup: float = 0
    rewarmup: float = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "ends", tuple(int(e) for e in self.ends))
        if not self.ends or any(b <= a for a, b in zip((0, *self.ends), self.ends, strict=False)):
            raise ValueError(f"ends must be positive and increase, got {list(self.ends)}")
        if self.decay_of not in ("total", "cycle"):
            raise ValueError(f"decay_of must be 'total' or 'cycle', got {self.decay_of!r}")
        if not 0 <= self.floor_ratio <= 1:
            raise ValueError(f"floor_ratio must lie in [0, 1], got {self.floor_ratio}")
        decay_ratio(1.0, self.floor_ratio, self.shape)
        for cycle in range(len(self.ends)):
            start, end, rise, fall = self._parts(cycle)
            if rise + fall > end - start:
                raise ValueError(
                    f"the cycle of steps {start} to {end} is shorter than its warmup ({rise}) "
                    f"and decay ({fall}); shorten them or use decay_of='cycle'"
                )

    def _parts(self, cycle: int) -> tuple[int, int, int, int]:
        """Start, end, warmup steps and decay steps of a cycle."""
        start, end = (self.ends[cycle - 1] if cycle else 0), self.ends[cycle]
        rise = _steps(self.warmup if cycle == 0 else self.rewarmup, end - start, "warmup")
        if self.decay is None:
            return start, end, rise, end - start - rise
        whole = end if self.decay_of == "total" else end - start
        return start, end, rise, _steps(self.decay, whole, "decay")

    def decay_start(self, cycle: int = -1) -> int:
        """The first update of the decay of a cycle (the last cycle by default), where a branch leaves."""
        _, end, _, fall = self._parts(cycle % len(self.ends))
        return end - fall

    def __call__(self, step: int) -> float:
        """The ratio for update ``step`` = 0, …, total - 1.

        Raises:
            ValueError: for a step outside the schedule.
        """
        if not 0 <= step < self.total:
            raise ValueError(f"this schedule has steps 0 to {self.total - 1}, asked for {step}")
        cycle = bisect_right(self.ends, step)
        start, end, rise, fall = self._parts(cycle)
        if step < start + rise:
            low = 0.0 if cycle == 0 else self.floor_ratio
            return low + (1 - low) * (step - start) / rise
        if step < end - fall:
            return 1.0
        return decay_ratio((step - (end - fall) + 1) / fall, self.floor_ratio, self.shape)


@dataclass(frozen=True)
class HeldSchedule(RateSchedule):
    """A schedule that keeps, from some step on, the rate it has reached.

    Held at the end of its first cycle, WSD-S goes on at the decayed rate: the method without the jump back.

    Args:
        schedule: followed until then.
        steps: number of steps followed, from 1 to ``schedule.total``.

    Raises:
        ValueError: for a number of steps outside that range.
    """

    schedule: CycleSchedule
    steps: int

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= self.schedule.total:
            raise ValueError(f"steps must be from 1 to {self.schedule.total}, got {self.steps}")

    @property
    def ends(self) -> tuple[int, ...]:  # type: ignore[override]
        """The ends of the cycles of the schedule."""
        return self.schedule.ends

    def __call__(self, step: int) -> float:
        """The ratio for update ``step``, as of :class:`CycleSchedule`."""
        followed = self.schedule(step)
        return followed if step < self.steps else self.schedule(self.steps - 1)


def _steps(amount: float, whole: int, name: str) -> int:
    """A number of steps: an int as it is, a float as a fraction of ``whole``."""
    if isinstance(amount, int):
        if amount < 0:
            raise ValueError(f"{name} must not be negative, got {amount}")
        return amount
    if not 0 <= amount < 1:
        raise ValueError(f"{name} as a fraction must lie in [0, 1), got {amount}")
    return round(amount * whole)


def wsd_schedule(total: int, **options: Any) -> CycleSchedule:
    """Warmup, stable, decay: one cycle. Options as for :class:`CycleSchedule`."""
    return CycleSchedule((total,), **options)


def wsds_schedule(ends: tuple[int, ...], **options: Any) -> CycleSchedule:
    """WSD-S: several cycles, each resumed from the decayed point at the peak rate."""
    return CycleSchedule(tuple(ends), **options)


def cyclic_cosine_schedule(ends: tuple[int, ...], **options: Any) -> CycleSchedule:
    """A full cosine in each cycle, restarted at the peak."""
    return CycleSchedule(tuple(ends), decay=None, shape="cosine", **options)


def cosine_schedule(total: int, **options: Any) -> CycleSchedule:
    """One cosine over the whole budget, which has to be known from the start."""
    return cyclic_cosine_schedule((total,), **options)


def constant_schedule(total: int, **options: Any) -> CycleSchedule:
    """The peak rate throughout: the main branch of WSD."""
    return CycleSchedule((total,), decay=0, **options)


class CycleLR(LRScheduler):
    r"""A :class:`CycleSchedule` as a ``torch.optim.lr_scheduler``.

    Each group's rate is its initial ``lr`` (the peak) times the ratio; ``step()`` after each update.

    A checkpoint may be loaded into *another* schedule if the two agree on all steps already taken. That is how a
    branch leaves the main line of WSD, or a budget is extended; anything else would silently continue at
    a rate that neither schedule describes, and is refused.

    Args:
        optimizer: whose ``lr`` is the peak.
        schedule: the ratios.
        last_epoch: -1 for a fresh start.

    Raises:
        ValueError: on a ``step()`` beyond the update after the last one, as ``OneCycleLR`` does.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, schedule: CycleSchedule, last_epoch: int = -1
    ) -> None:
        self.schedule = schedule
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """The rates of the groups for the coming update; after the last update that of the last one."""
        if self.last_epoch > self.schedule.total:
            raise ValueError(
                f"the schedule has {self.schedule.total} steps, step() was called {self.last_epoch} times"
            )
        ratio = self.schedule(min(self.last_epoch, self.schedule.total - 1))
        return [base * ratio for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and names, so that ``torch.load(weights_only=True)`` reads them back."""
        state = super().state_dict()
        return {**state, "schedule": asdict(self.schedule)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was saved, with the schedule of *this* scheduler.

        Raises:
            ValueError: if the two schedules differ on a step already taken.
        """
        state = dict(state_dict)
        saved = CycleSchedule(**state.pop("schedule"))
        done = state["last_epoch"]
        for step in range(done):
            ours = self.schedule(step) if step < self.schedule.total else math.nan
            if saved(step) != ours:
                raise ValueError(
                    f"the checkpoint was trained for {done} steps under another schedule: step {step} had "
                    f"{saved(step):g} of the peak, here it would have {ours:g}"
                )
        super().load_state_dict(state)
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]
