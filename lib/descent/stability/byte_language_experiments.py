r"""Training byte-level language models under many schedules at once, and looking at single tokens.

Schedules with the same past share their computation: a copy is split in two at the first step at which two schedules
differ. That is the economy of WSD itself, and it makes the number of updates spent an output of the run.

Source: the comparison of schedules in Wen et al. (2024), section 5, at a much smaller size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from descent.stability.byte_language_model import (
    BatchedAdamW,
    DecoderShape,
    decoder_logits,
    initial_decoder,
    token_losses,
)
from descent.stability.cycle_schedule import RateSchedule

__all__ = ["TokenSource", "Trained", "token_sharpness", "train_under_schedules"]

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class TokenSource:
    """A text, cut into a part to train on and a part to test on.

    Args:
        text: token numbers, shape ``(n,)``.
        context: T; windows have T + 1 tokens.
        held_out: the last fraction, never trained on.
    """

    text: Tensor
    context: int
    held_out: float = 0.1

    def _windows(self, low: int, high: int, shape: tuple[int, ...], g: torch.Generator) -> Tensor:
        starts = torch.randint(low, high - self.context, shape, generator=g).unsqueeze(-1)
        return self.text[(starts + torch.arange(self.context + 1)).to(self.text.device)]

    def train(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Random windows of the training part, ``shape + (T + 1,)``."""
        return self._windows(0, self._cut, shape, generator)

    def test(self, count: int, generator: torch.Generator) -> Tensor:
        """Random windows of the held-out part, ``(count, T + 1)``."""
        return self._windows(self._cut, len(self.text), (count,), generator)

    @property
    def _cut(self) -> int:
        return round(len(self.text) * (1 - self.held_out))


@dataclass
class Trained:
    """What a run leaves.

    Attributes:
        curves: per schedule, steps done and test losses, ``(step, losses of shape (S,))``.
        kept: parameters by ``(schedule, steps done)``, leading dimension S.
        updates: updates computed, per seed, all schedules together.
    """

    curves: dict[str, list[tuple[int, Tensor]]] = field(default_factory=dict)
    kept: dict[tuple[str, int], Parameters] = field(default_factory=dict)
    updates: int = 0


def train_under_schedules(
    shape: DecoderShape,
    source: TokenSource,
    schedules: Mapping[str, RateSchedule],
    peak: float,
    batch: int,
    initial: Sequence[torch.Generator],
    batches: Sequence[torch.Generator],
    test_windows: Tensor,
    every: int,
    keep: Mapping[str, Sequence[int]],
) -> Trained:
    """Train S seeds under all schedules with AdamW; every schedule of a seed sees the same batches.

    In float64: training amplifies rounding, which differs between processors, to differences as large as those between
    schedules.

    Args:
        shape: of the model.
        source: of the text.
        schedules: by name.
        peak: learning rate at ratio 1.
        batch: windows per step.
        initial: S generators of initial parameters.
        batches: S generators of batches.
        test_windows: for the curves, shape ``(M, T + 1)``.
        every: a point of the curves after so many steps, and at the end of every cycle.
        keep: numbers of steps done at which a schedule's parameters are wanted.
    """
    seeds, names = len(initial), list(schedules)
    device = source.text.device
    f64 = torch.empty(0, dtype=torch.float64, device=device)
    parameters = {k: p.to(f64) for k, p in initial_decoder(shape, list(initial)).items()}
    optimiser = BatchedAdamW(parameters)
    groups, result = [names], Trained({name: [] for name in names})
    for step in range(max(s.total for s in schedules.values())):
        split = [part for group in groups for part in _split(group, schedules, step)]
        origin = [i for i, g in enumerate(groups) for _ in _split(g, schedules, step)]
        if split != groups:
            rows = torch.tensor([seeds * i + s for i in origin for s in range(seeds)])
            optimiser.select(rows.to(device))
            groups = split
        ratios = [schedules[group[0]](step) for group in groups]
        rates = f64.new_tensor(ratios).repeat_interleave(seeds) * peak
        windows = torch.stack([source.train((batch,), g) for g in batches])
        active = {k: p.detach().requires_grad_() for k, p in optimiser.parameters.items()}
        loss = token_losses(active, windows.repeat(len(groups), 1, 1), shape.heads)
        gradients = torch.autograd.grad(loss.mean((1, 2)).sum(), list(active.values()))
        optimiser.step(dict(zip(active, gradients, strict=True)), rates)
        result.updates += len(groups)
        done = step + 1
        for i, group in enumerate(groups):
            own = {k: p[seeds * i : seeds * (i + 1)] for k, p in optimiser.parameters.items()}
            for name in group:
                if done in keep.get(name, ()):
                    result.kept[name, done] = {k: p.detach().clone() for k, p in own.items()}
            if done % every == 0 or any(done in schedules[n].ends for n in group):
                losses = mean_loss(own, test_windows, shape.heads)
                for name in group:
                    result.curves[name].append((done, losses))
    return result


def _split(
    group: Sequence[str], schedules: Mapping[str, RateSchedule], step: int
) -> list[list[str]]:
    """The schedules of a group that are still running, by their ratio at this step."""
    parts: dict[float, list[str]] = {}
    for name in group:
        if step < schedules[name].total:
            parts.setdefault(schedules[name](step), []).append(name)
    return list(parts.values())


@torch.no_grad()
def mean_loss(parameters: Mapping[str, Tensor], windows: Tensor, heads: int) -> Tensor:
    """Mean loss of each copy over the same windows, shape ``(C,)``."""
    copies = len(parameters["embedding"])
    return token_losses(parameters, windows.expand(copies, -1, -1), heads).mean((1, 2))


def token_sharpness(
    parameters: Mapping[str, Tensor],
    windows: Tensor,
    heads: int,
    draws: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    r"""Entropy of the prediction at the last position of every window, and the curvature of its loss.

    Curvature is the trace of the Gauss-Newton matrix of that one token's loss with respect to all parameters,

    .. math:: \operatorname{tr}J^\top(\operatorname{diag}p-pp^\top)J=\mathbb E_{y\sim p}\|\nabla_\theta\log p_y\|^2,

    estimated with tokens drawn from the model.

    Args:
        parameters: of one copy, leading dimension 1.
        windows: contexts, shape ``(M, T)``.
        heads: attention heads.
        draws: tokens drawn per context.
        generator: of the draws, on the CPU.

    Returns:
        Entropies in nats and traces, both of shape ``(M,)``.
    """
    with torch.no_grad():
        logits = decoder_logits(parameters, windows[None], heads)[0, :, -1]
    model = torch.softmax(logits, -1)
    drawn = torch.multinomial(model.cpu(), draws, replacement=True, generator=generator)
    # one copy of the parameters per context: the gradient of the sum is the gradient of each
    own = {
        k: p.detach().expand(len(windows), *p.shape[1:]).contiguous().requires_grad_()
        for k, p in parameters.items()
    }
    last = torch.log_softmax(decoder_logits(own, windows[:, None], heads)[:, 0, -1], -1)
    traces = torch.zeros(len(windows), device=windows.device)
    for token in drawn.to(windows.device).T:
        chosen = last.gather(1, token[:, None]).sum()
        for gradient in torch.autograd.grad(chosen, list(own.values()), retain_graph=True):
            traces += gradient.square().flatten(1).sum(1) / draws
    return torch.special.entr(model).sum(1), traces
