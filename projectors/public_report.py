"""What prompts that were carried by public text are worth on their tasks, beside every control.

Test scores of the target's own prompts, of the carried ones by three choices of the step, of a random source that was carried in
the same way, of random prompts at the target's norms, of one prompt tuned for all tasks, and of no prompt.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import torch
from torch import Tensor

from projectors.architectures import Shape
from projectors.controls import tune_constant
from projectors.fitting import FitSettings
from projectors.lessons import lesson
from projectors.public_state import Keeping
from projectors.public_text import Carried
from prompttransfer.adaptations.adaptation import PROMPT_KEY, Adaptation
from prompttransfer.adaptations.bank import BareBank, VectorBank
from prompttransfer.adaptations.prompts import soft_prompt
from prompttransfer.adaptations.random_prompts import random_draws, random_like
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import Encoding
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import evaluate_bank
from tasks.loading import Splits
from tasks.metrics import chance
from tasks.task import Example, Task

CHOSEN, PICKED, LAST = "carried", "carried, step by labels", "carried, last step"
RANDOM_SOURCE = "random source, carried"
CONDITIONS = {
    "own prompt": "the target's own, trained there with labels",
    CHOSEN: "step by held-out public text; no label of the task",
    PICKED: "USES LABELS: step by the task's validation rows, as the authors choose it",
    LAST: "no choice at all",
    RANDOM_SOURCE: "random vectors at the norms of a source prompt in its place",
    "random prompt": "random vectors at the target's norms",
    "tuned constant": "USES LABELS: one prompt tuned on all of these tasks together",
    "no prompt": "the bare target",
    "majority": "always the commonest answer",
}
NOT_CONTROLS = ("own prompt", CHOSEN, PICKED, LAST)
TABLE = "public-text.csv"
"""The file of the table beside the prompts that were carried."""
CONSTANT_STEPS = 100


@dataclass(frozen=True)
class Entry:
    """One condition on one task."""

    task: str
    condition: str
    score: float
    """Mean over prompts of the task (seeds), or over draws."""
    spread: float | None
    """Deviation over those; None of one."""


def to_csv(entries: Sequence[Entry]) -> str:
    """One line a task and condition, with what the condition is in words."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["task", "condition", "score", "spread", "what it is"])
    writer.writerows(
        [entry.task, entry.condition, entry.score, entry.spread, CONDITIONS[entry.condition]]
        for entry in entries
    )
    return stream.getvalue()


def with_random_source(prompts: Sequence[Adaptation], seed: int) -> list[Adaptation]:
    """The prompts and behind them one of random directions at the norms of one of them."""
    generator = torch.Generator().manual_seed(seed)
    vectors = random_like([prompt.vectors for prompt in prompts], 1, generator)[0]
    return [*prompts, replace(prompts[0], name=RANDOM_SOURCE, tensors={PROMPT_KEY: vectors}, initial=None)]


class Looking:
    """What prompts are worth on labelled rows of the task of each; `Look` of projectors/public_text.py."""

    def __init__(
        self,
        backbone: Backbone,
        prompts: Sequence[Adaptation],
        rows: Mapping[str, tuple[Task, Sequence[Example]]],
    ):
        self.backbone, self.prompts, self.rows = backbone, prompts, rows

    def __call__(self, vectors: Tensor) -> list[float]:
        found = [0.0] * len(self.prompts)
        for name, (task, examples) in self.rows.items():
            own = [place for place, prompt in enumerate(self.prompts) if prompt.task == name]
            if own:
                values = scores_on(self.backbone, vectors[own], task, examples, self.prompts[0].encoding)
                for place, value in zip(own, values, strict=True):
                    found[place] = value
        return found


def scores_on(
    backbone: Backbone, vectors: Tensor, task: Task, examples: Sequence[Example], encoding: Encoding
) -> list[float]:
    """The metric of each of `vectors` [n, length, width] on rows of a task."""
    encoded = encode_task(backbone, task, examples, encoding, reserved=vectors.shape[1])
    return [score.value for score in evaluate_bank(backbone, VectorBank(vectors), encoded)]


def report(
    target: Backbone,
    prompts: Sequence[Adaptation],
    carried: Carried,
    tasks: Mapping[str, tuple[Task, Splits]],
    own: Sequence[Adaptation] = (),
    *,
    seed: int = 0,
    keeping: Keeping | None = None,
) -> list[Entry]:
    """Every condition on every task. `carried` is of `prompts` and behind them of a random source.

    With `keeping` the tuning of the one prompt for all tasks goes on where it was killed.
    """
    encoding = prompts[0].encoding
    generator = torch.Generator().manual_seed(seed)
    like = [prompt.vectors for prompt in own] or list(carried.chosen[: len(prompts)])
    noise = random_like(like, random_draws(len(like)), generator)
    tuned = _tuned_constant(target, tasks, noise[0], encoding, seed, keeping) if len(tasks) > 1 else None
    found = []
    for name, (task, splits) in tasks.items():
        places = [place for place, prompt in enumerate(prompts) if prompt.task == name]
        given: dict[str, Tensor] = {CHOSEN: carried.chosen[places], LAST: carried.last[places]}
        if mine := [prompt.vectors for prompt in own if prompt.task == name]:
            given["own prompt"] = torch.stack(mine)
        if carried.picked is not None:
            given[PICKED] = carried.picked[places]
        given[RANDOM_SOURCE] = carried.chosen[len(prompts) :]
        given["random prompt"] = noise
        if tuned is not None:
            given["tuned constant"] = tuned[None]
        for condition, vectors in given.items():
            values = scores_on(target, vectors, task, splits.test, encoding)
            found.append(Entry(name, condition, fmean(values), stdev(values) if len(values) > 1 else None))
        encoded = encode_task(target, task, splits.test, encoding, reserved=0)
        bare = evaluate_bank(target, BareBank(), encoded)[0].value
        found.append(Entry(name, "no prompt", bare, None))
        found.append(Entry(name, "majority", chance(task, splits.test), None))
    order = list(CONDITIONS)
    return sorted(found, key=lambda entry: order.index(entry.condition))


def _tuned_constant(
    target: Backbone,
    tasks: Mapping[str, tuple[Task, Splits]],
    start: Tensor,
    encoding: Encoding,
    seed: int,
    keeping: Keeping | None,
) -> Tensor:
    """One prompt [length, width] for all tasks, tuned on their labelled rows in turn, from a random one of its norms."""
    length, width = start.shape
    ignored = soft_prompt(vectors=start, task="public-text", backbone=target.name, family=target.family)
    lessons = [
        lesson(target, task, splits.train, [ignored], encoding=encoding, length=length, seed=seed)
        for task, splits in tasks.values()
    ]
    settings = FitSettings(steps=CONSTANT_STEPS * len(lessons), seed=seed)
    parts = (settings, start, *(own.origin for own in lessons))
    checkpoint = None if keeping is None else keeping.file("constant", parts)
    size = float(start.square().mean().sqrt())
    return tune_constant(Shape(length, width, length, width), start, size, lessons, settings, checkpoint)
