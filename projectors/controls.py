"""Controls: what tells a projector from a constant.

A projector that ignores its input still scores well on tasks like those it was fitted on: it has learned one good
target prompt (the authors' published T5 -> RoBERTa prompts are such: pairwise cosine above 0.9999996). So every result
has, beside the projected prompt, random source prompts through the same projector, a mean and a tuned constant
prompt, and the spread of the outputs. Scores decide where they can: what is left when the input is random is what a
constant would give. Only where they do not, the geometry of the outputs does (docs/transfer-statistics.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

import torch
from scipy.stats import t as student
from torch import Tensor, nn
from torch.nn import functional

from projectors.architectures import Architecture, Constant, Shape, build
from projectors.fitting import FitSettings, Lesson, Pair, fit, task_objective
from prompttransfer.adaptations.random_prompts import random_like
from tasks.errors import UserError

DEAF = 0.3
"""Outputs that lie less than this share as far apart as the target's own prompts are collapsed: they carry less than
a tenth (0.3 squared) of the variance between tasks."""

MOSTLY = 0.5
"""A projector is collapsed too if random source prompts keep more than this share of what real ones gain."""

LEAST_GAIN = 0.02
"""Below this gain over no prompt there is nothing of which a random source could keep a share."""


def mean_prompt(pairs: Sequence[Pair]) -> Tensor:
    """The constant prompt [L_t, d_t]: the mean over fitting tasks of each task's mean target prompt."""
    tasks = sorted({pair.task for pair in pairs})
    means = [torch.stack([pair.target for pair in pairs if pair.task == task]).mean(0) for task in tasks]
    return torch.stack(means).mean(0)


def constant(shape: Shape, start: Tensor | None = None, *, seed: int = 0) -> Constant:
    """The control module that is tuned like a projector and ignores its input; `start` [L_t, d_t] is where it begins."""
    module = build(Architecture("constant"), shape, seed=seed)
    assert isinstance(module, Constant)
    if start is not None:
        with torch.no_grad():
            module.prompt.copy_(start)
    return module


CONSTANT_RATE = 0.1
"""Learning rate of a tuned constant in units of the prompts' rms, .02 to .03 on the embedded masked LMs: that of a projector
would hardly move it."""


def tune_constant(
    shape: Shape,
    start: Tensor,
    size: float,
    lessons: Sequence[Lesson],
    settings: FitSettings,
    checkpoint: Path | None = None,
) -> Tensor:
    """One prompt [L_t, d_t] for all lessons, tuned from `start` as a projector would be, at `CONSTANT_RATE` of `size`."""
    module = constant(shape, start, seed=settings.seed)
    settings = replace(settings, lr=CONSTANT_RATE * size, unit=1.0)
    fit(module, task_objective(lessons, settings), settings, checkpoint=checkpoint)
    return module.prompt.detach()


@dataclass(frozen=True)
class Sensitivity:
    """How far apart outputs lie, and what that says.

    `inputs` and `outputs` are mean pairwise L2 distances between prompts on both sides. `apart` is how far the
    directions of the outputs are apart (`directions_apart`), `wanted` the same of the target model's own prompts of
    these tasks, or of the inputs where it has none. Directions, because a prompt that is only longer asks for the same.
    """

    inputs: float
    outputs: float
    apart: float
    wanted: float
    cosine: float
    """Mean pairwise cosine of flattened outputs."""

    @property
    def ratio(self) -> float:
        """Mean pairwise distance of outputs over that of inputs."""
        return self.outputs / self.inputs

    @property
    def relative(self) -> float:
        """How far apart outputs lie over how far the target's own prompts do: 1 for a projector that meets them."""
        return self.apart / self.wanted

    @property
    def collapsed(self) -> bool:
        """Whether the outputs say that the projector ignores its input."""
        return self.relative < DEAF


def directions_apart(prompts: Tensor) -> float:
    """Root mean square distance between the directions of flattened prompts [n, L, d]: sqrt(2 - 2 mean cosine)."""
    directions = functional.normalize(prompts.flatten(1).double(), dim=1)
    return math.sqrt(max(0.0, 2 - 2 * mean_cosine(directions)))


def mean_cosine(directions: Tensor) -> float:
    """Mean cosine of all pairs of unit vectors [n, d]."""
    upper = torch.triu_indices(len(directions), len(directions), offset=1)
    return float((directions @ directions.T)[upper[0], upper[1]].mean())


def sensitivity(module: nn.Module, sources: Tensor, own: Tensor | None = None) -> Sensitivity:
    """Project `sources` [n, L_s, d_s], prompts of different tasks, and see how far apart the outputs lie.

    `own` [m, L_t, d_t] are the target model's own prompts of these tasks, which may share a start: that is no
    collapse. They are what the outputs are held against if there are two different ones, else the inputs are.
    """
    if len(sources) < 2:
        raise UserError(f"input sensitivity needs at least 2 source prompts, given {len(sources)}")
    with torch.no_grad():
        outputs = module(sources).detach()
    spread_in, spread_out = (
        float(torch.pdist(prompts.flatten(1).double()).mean()) for prompts in (sources, outputs)
    )
    if spread_in == 0:
        raise UserError("input sensitivity needs source prompts that differ, all given are the same")
    wanted = directions_apart(own) if own is not None and len(own) > 1 else 0.0
    if wanted == 0:
        wanted = max(
            directions_apart(sources), 1e-6
        )  # sources of one direction are told apart by length alone
    directions = functional.normalize(outputs.flatten(1).double(), dim=1)
    return Sensitivity(spread_in, spread_out, directions_apart(outputs), wanted, mean_cosine(directions))


def probes(sources: Mapping[str, Tensor]) -> Tensor:
    """The inputs for a sensitivity: each task's first prompt; random prompts too where these are one and the same."""
    first = torch.stack([prompts[0] for prompts in sources.values()])
    if len(torch.unique(first, dim=0)) > 1:
        return first
    return torch.cat([first, random_like(first, 7, torch.Generator().manual_seed(0))])


@dataclass(frozen=True)
class Gains:
    """Scores of the tasks that a projector is judged on, each a mean over seeds and draws, in one order of tasks."""

    projected: tuple[float, ...]
    random: tuple[float, ...]
    """Random source prompts through the same projector."""
    floor: tuple[float, ...]
    """No prompt."""

    def __post_init__(self) -> None:
        if not 0 < len(self.projected) == len(self.random) == len(self.floor):
            raise ValueError(f"gains need one score a task of each kind, given {self!r}")

    @property
    def gain(self) -> float:
        """What the projected prompts gain over no prompt, mean over tasks."""
        return fmean(self.projected) - fmean(self.floor)

    @property
    def over_random(self) -> float:
        """What the input is worth: projected minus random source, mean over tasks."""
        return fmean(self.projected) - fmean(self.random)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of `over_random` (Student's t over tasks); None for one task."""
        return student_interval([p - r for p, r in zip(self.projected, self.random, strict=True)])

    @property
    def kept(self) -> float | None:
        """The share of the gain that a random source keeps, 0 to 1; None where there is no gain to speak of."""
        if self.gain < LEAST_GAIN:
            return None
        return min(max(1 - self.over_random / self.gain, 0.0), 1.0)

    def __str__(self) -> str:
        ends = self.interval
        span = f" (95 % {ends[0]:+.3f} to {ends[1]:+.3f})" if ends else ""
        count = len(self.projected)
        said = f"{self.over_random:+.3f}{span} over {count} task{'s' * (count > 1)}"
        return said if self.kept is None else f"{said}; a random source keeps {self.kept:.0%} of the gain"


def student_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """The t interval of a mean; None from fewer than two values."""
    if len(values) < 2:
        return None
    reach = float(student.ppf((1 + level) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - reach, fmean(values) + reach


def verdict(measured: Sensitivity, gains: Gains | None, tasks: int) -> tuple[bool, str]:
    """Whether a projector is collapsed, and the sentence that says so in its table and card.

    Scores go before geometry: random sources that keep most of the gain are collapse however far apart the outputs
    lie, and an input that is worth something for sure is none however close they lie.
    """
    if tasks == 1:
        return True, "collapsed: fitted on one task, so what it learned cannot be told from a constant"
    kept = None if gains is None else gains.kept
    if gains is not None and kept is not None:
        if kept > MOSTLY:
            return (
                True,
                f"collapsed: it is mostly a constant in disguise; projected minus random source {gains}",
            )
        if gains.interval is not None and gains.interval[0] > 0:
            return False, f"not collapsed: its input counts; projected minus random source {gains}"
    apart = (
        f"outputs lie {measured.relative:.3f} times as far apart as the target's own prompts, pairwise cosine "
        f"{measured.cosine:.6f}"
    )
    unsettled = (
        "" if gains is None else f"; scores alone do not settle it: projected minus random source {gains}"
    )
    if measured.collapsed:
        return True, f"collapsed: {apart} (below {DEAF}): it ignores its input{unsettled}"
    return False, f"not collapsed: its output depends on its input, {apart}{unsettled}"
