"""Controls: what tells a projector from a constant.

A projector that ignores its input still scores well on tasks like those it was fitted on: it has learned one good
target prompt (the authors' published T5 -> RoBERTa prompts are such: pairwise cosine above 0.9999996). So every result
has, beside the projected prompt, a random source prompt through the same projector, a mean and a tuned constant
prompt, and the sensitivity of the output to the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from projectors.architectures import Architecture, Constant, Shape, build
from projectors.fitting import Pair, random_like
from tasks.errors import UserError

DEAF = 0.3
"""A projector whose outputs differ, for their size, less than this share of what its inputs do is collapsed."""

DISTINCT = 0.1
"""A projector is collapsed too if a random source prompt keeps all but this share of what a real one gains."""


def random_source(prompts: Tensor, seed: int) -> Tensor:
    """One random source prompt [L_s, d_s] whose tokens have the mean norm of those of `prompts` [n, L_s, d_s]."""
    return random_like(prompts, 1, torch.Generator().manual_seed(seed))[0]


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


@dataclass(frozen=True)
class Sensitivity:
    """How outputs follow inputs: mean pairwise L2 distance between prompts on both sides, and what that says.

    `inputs` and `outputs` are mean pairwise distances; `relative` divides each by its side's mean prompt norm first,
    so a change of scale is not taken for one of direction; `cosine` is the mean pairwise cosine of flattened outputs.
    """

    inputs: float
    outputs: float
    relative: float
    cosine: float

    @property
    def ratio(self) -> float:
        """Mean pairwise distance of outputs over that of inputs."""
        return self.outputs / self.inputs

    @property
    def collapsed(self) -> bool:
        """Whether the projector ignores its input."""
        return self.relative < DEAF


def sensitivity(module: nn.Module, sources: Tensor) -> Sensitivity:
    """Project `sources` [n, L_s, d_s], prompts of different tasks, and compare distances before and after."""
    if len(sources) < 2:
        raise UserError(f"input sensitivity needs at least 2 source prompts, given {len(sources)}")
    with torch.no_grad():
        outputs = module(sources).flatten(1).double()
    inputs = sources.flatten(1).double()
    spread_in, spread_out = float(torch.pdist(inputs).mean()), float(torch.pdist(outputs).mean())
    if spread_in == 0:
        raise UserError("input sensitivity needs source prompts that differ, all given are the same")
    size_in, size_out = float(inputs.norm(dim=1).mean()), max(float(outputs.norm(dim=1).mean()), 1e-12)
    directions = functional.normalize(outputs, dim=1)
    upper = torch.triu_indices(len(sources), len(sources), offset=1)
    agreement = float((directions @ directions.T)[upper[0], upper[1]].mean())
    return Sensitivity(spread_in, spread_out, (spread_out / size_out) / (spread_in / size_in), agreement)


def probes(sources: Mapping[str, Tensor]) -> Tensor:
    """The inputs for a sensitivity: each task's first prompt; random prompts too where these are one and the same."""
    first = torch.stack([prompts[0] for prompts in sources.values()])
    if len(torch.unique(first, dim=0)) > 1:
        return first
    return torch.cat([first, random_like(first, 7, torch.Generator().manual_seed(0))])


def kept_by_random(projected: float, random: float, floor: float) -> float:
    """The share of what a projected prompt gains over `floor` (no prompt) that a random source keeps, 0 to 1.

    1 where the projected prompt gains nothing: there is nothing that the input could have done.
    """
    gain = projected - floor
    return 1.0 if gain <= 0 else min(max((random - floor) / gain, 0.0), 1.0)


def verdict(
    measured: Sensitivity | None,
    projected: float | None,
    random: float | None,
    floor: float | None,
    tasks: int,
) -> tuple[bool, str]:
    """Whether a projector is collapsed, and the sentence that says so in its table and card."""
    if tasks == 1:
        return True, "collapsed: fitted on one task, so what it learned cannot be told from a constant"
    if measured is not None and measured.collapsed:
        return True, (
            f"collapsed: outputs differ {measured.relative:.3f} times as much as inputs (below {DEAF}), pairwise cosine "
            f"{measured.cosine:.6f}: it ignores its input"
        )
    if projected is not None and random is not None and floor is not None:
        kept = kept_by_random(projected, random, floor)
        if kept > 1 - DISTINCT:
            return True, (
                f"collapsed: a random source prompt through it scores {random:.3f} where a real one scores "
                f"{projected:.3f} (no prompt {floor:.3f}): it is a constant in disguise"
            )
    return False, "not collapsed: its output depends on its input"
