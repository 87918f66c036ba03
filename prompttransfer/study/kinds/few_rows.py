"""What a system of a study of few rows makes of its library.

`STARTS` says for each start of study/library_starts.py what training begins from; where it is several sources, each is tried
(tried.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prompttransfer.study.cell import Cell, Context
from prompttransfer.study.kinds.loading import encoding_of, prompt_of, setting
from prompttransfer.study.library_starts import (
    DISTIL,
    LIBRARY,
    LIBRARY_START,
    PROBE,
    SHARED,
    TEACHER,
    LibraryStart,
    parse_library_start,
)
from tasks.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.adaptations.method import Method
    from prompttransfer.adaptations.starts import Start
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.training.distillation import Teacher
    from prompttransfer.training.train import Job


def starts_of(cell: Cell, job: Job, backbone: Backbone, method: Method, context: Context) -> list[Start]:
    """What the runs of a cell start from: one for most, one a source for those that try several; `job` is of them all."""
    from prompttransfer.adaptations.starts import start_from

    if SHARED in cell.inputs:
        return [start_from(prompt_of(cell, SHARED, context), SHARED)]
    library = library_of(cell, context)
    if not library or TEACHER in cell.inputs:
        return [job.start_on(backbone, method)]
    if LIBRARY_START not in cell.settings:
        return [with_sources(method, library, job, backbone)]
    start = parse_library_start(str(cell.settings[LIBRARY_START]))
    probe = prompt_of(cell, PROBE, context) if PROBE in cell.inputs else None
    given = Given(start, library, probe, job, backbone, cell)
    found = STARTS[start.how](given)
    context.tell(f"{job.task.name} starts from {', '.join(map(str, found))}")
    return found


def library_of(cell: Cell, context: Context) -> dict[str, Adaptation]:
    """Task -> prompt of the library that a cell takes."""
    roles = [role for role in cell.inputs if role.startswith(LIBRARY)]
    return {role.removeprefix(LIBRARY): prompt_of(cell, role, context) for role in roles}


def taught(cell: Cell, job: Job, backbone: Backbone, context: Context) -> Job:
    """The job with its teacher, where the cell has one."""
    if TEACHER not in cell.inputs:
        return job
    return replace(job, teacher=teacher_of(cell, job, backbone, context))


def teacher_of(cell: Cell, job: Job, backbone: Backbone, context: Context) -> Teacher:
    """PANDA's: the squared distance of scores, weighed by a tenth of the similarity of the source nearest to the target."""
    from prompttransfer.training.distillation import Teacher
    from prompttransfer.transfers.distilled import SHARE, SQUARED

    weight = setting(cell.settings, DISTIL, "weight")
    if weight is None:
        start = LibraryStart("retrieve", 1, setting(cell.settings, DISTIL, "by"))
        probe = prompt_of(cell, PROBE, context)
        given = Given(start, library_of(cell, context), probe, job, backbone, cell)
        weight = SHARE * max(0.0, float(given.similarities().iloc[0]))
    return Teacher(prompt_of(cell, TEACHER, context), weight, SQUARED)


def with_sources(method: Method, library: Mapping[str, Adaptation], job: Job, backbone: Backbone) -> Start:
    """The member with the library as its frozen sources, as it is before the first step (ATTEMPT, DTVG)."""
    from prompttransfer.adaptations.starts import From, Source

    sources = {task: Source(prompt.vectors, prompt.first_vectors) for task, prompt in library.items()}
    member = method.among(sources, backbone, job.task, start=str(job.start), seed=job.seed)
    return From(member.tensors(), str(job.start), member.encoder())


@dataclass(frozen=True)
class Given:
    """What a start from the library is made of."""

    start: LibraryStart
    library: Mapping[str, Adaptation]
    """Task -> its prompt."""
    probe: Adaptation | None
    job: Job
    backbone: Backbone
    cell: Cell

    def similarities(self) -> pd.Series:
        """Of the probe to every source, the most similar first."""
        import torch

        from analysis.similarity import similarity

        assert self.probe is not None and self.probe.embedding is not None
        probe = replace(self.probe, tensors=self.probe.embedding)  # at its step, not where it was best
        prompts = [probe, *self.library.values()]
        begun = [prompt.first_vectors for prompt in prompts if prompt.first_vectors is not None]
        initial = torch.stack(begun) if len(begun) == len(prompts) else None
        vectors = torch.stack([prompt.vectors for prompt in prompts])
        table = similarity(self.start.by, vectors, [PROBE, *self.library], initial)
        return table.loc[PROBE].drop(PROBE).sort_values(ascending=False, kind="stable")

    def nearest(self) -> list[Adaptation]:
        """The sources most like the target, as many as are asked for."""
        return [
            self.library[str(task)]
            for task in self.similarities().head(self.start.top or len(self.library)).index
        ]


def _retrieved(given: Given) -> list[Start]:
    """SPoT's weights, a_r = sim_r / sum sim, of those that are like the target at all."""
    from prompttransfer.adaptations.starts import mixture_of

    best = given.similarities().head(given.start.top or len(given.library))
    counted = best.clip(lower=0)
    if not counted.sum() > 0:
        raise UserError(
            f"{given.start}: no source is like {given.job.task.name} by {given.start.by} (the best is {best.iloc[0]:.3f})"
        )
    weights = [float(value) for value in counted / counted.sum()]
    return [mixture_of([given.library[str(task)] for task in best.index], weights)]


def _average(given: Given) -> list[Start]:
    from prompttransfer.adaptations.starts import mixture_of

    count = len(given.library)
    return [mixture_of(list(given.library.values()), [1 / count] * count)]


def _best_of(given: Given) -> list[Start]:
    from prompttransfer.adaptations.starts import start_from

    return [start_from(source) for source in given.nearest()]


def _vectors(given: Given) -> list[Start]:
    """P0 + sum_s tau_s (Belanec et al. 2024), P0 the start that all prompts of a seed have."""
    from prompttransfer.adaptations.arithmetic import added
    from prompttransfer.adaptations.starts import From

    chosen = given.nearest()
    _, tensors = added(chosen, [1.0] * len(chosen))
    return [From(tensors, f"from:{'+'.join(source.name for source in chosen)}")]


def _from_best(given: Given) -> list[Start]:
    """The source with the best score on the validation rows, equal ones decided by the loss."""
    from prompttransfer.adaptations.running import bank_of
    from prompttransfer.adaptations.starts import start_from
    from prompttransfer.evaluation.encoding import encode_task
    from prompttransfer.evaluation.evaluate import evaluate_bank

    sources = list(given.library.values())
    bank = bank_of(given.backbone, sources)
    rows, encoding = given.job.splits.validation, encoding_of(given.cell)
    encoded = encode_task(given.backbone, given.job.task, rows, encoding, reserved=bank.reserved)
    scores = evaluate_bank(given.backbone, bank, encoded)
    best = max(range(len(sources)), key=lambda place: _rank(scores[place].value, scores[place].loss))
    return [start_from(sources[best])]


STARTS: dict[str, Callable[[Given], list[Start]]] = {
    "retrieve": _retrieved,
    "mixture": _retrieved,
    "average": _average,
    "best-of": _best_of,
    "vectors": _vectors,
    "from-best": _from_best,
}
"""Name of a start from the library -> what it is for one cell; `shared` is an input of its own."""


def _rank(score: float, loss: float | None) -> tuple[float, float]:
    return score, -loss if loss is not None and loss == loss else float("-inf")
