"""PANDA (Zhong et al. 2022, arXiv 2208.10160): a source's knowledge comes to a target as a teacher, not as a start.

The teacher is the source-initialised prompt tuned on the target (what TPT_task gives), frozen; the student starts where the
target's run from scratch starts, on the same rows. Its loss has the distance to the teacher beside it, with a weight that grows
with the similarity of source and target, or a constant one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.running import common_encoding, common_method
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding
from prompttransfer.training.distillation import Distance, Teacher
from prompttransfer.training.recipes import Recipe
from prompttransfer.training.train import Job, Trained, TrainingOptions, train_adaptations
from prompttransfer.transfers.compared import Compared
from prompttransfer.transfers.distilled_pairs import DistilledPair
from prompttransfer.transfers.indicators import indicator_table, missing, usual
from prompttransfer.transfers.tuning import TunedTransfer, run_name, with_test_score
from prompttransfer.transfers.zero_shot import Target
from tasks.errors import UserError

SHARE = 0.1
"""The weight of a teacher over the similarity of its source and target."""
CONSTANT = 0.01
"""The weight in the code that the authors released."""
SIMILARITY = "C_average"
"""Of prompts: the mean cosine of their vectors; of other methods the first of their usual indicators."""

SQUARED = Distance(of_logits="squared")
"""Between the scores of the label words, as theirs."""


@dataclass(frozen=True)
class Distilling:
    """How a target learns from a teacher that came from a source."""

    weight: float | None = None
    """Of the distance; None for SHARE times the similarity, 0 where that is negative."""
    distance: Distance = SQUARED


@dataclass(frozen=True)
class DistilledTransfer:
    """What `distil` returns: one pair a source, target and seed, and the students."""

    pairs: tuple[DistilledPair, ...]
    trained: tuple[Trained, ...]


def check_distilling(how: Distilling, sources: Sequence[Adaptation], targets: Sequence[Target]) -> None:
    """Raise UserError where sources or targets cannot be distilled, before anything is trained."""
    if how.weight is not None:
        Teacher(sources[0], how.weight)
    elif reason := missing(_measure(sources), sources):
        raise UserError(f"--distil-weight similarity: {reason}; give a number, such as {CONSTANT:g}")
    written = [target.task.name for target in targets if target.task.generates]
    if written:
        raise UserError(
            f"--distil: the answers of {', '.join(written)} are written, so there are no label words to distil; leave them out"
        )


def distil(
    backbone: Backbone,
    sources: Sequence[Adaptation],
    targets: Sequence[Target],
    recipe: Recipe,
    tuned: TunedTransfer,
    how: Distilling,
    *,
    seeds: Sequence[int] = (0,),
    encoding: Encoding = USUAL,
    options: TrainingOptions | None = None,
) -> DistilledTransfer:
    """A student for each pair and seed of `tuned`, which `tune` made of the same sources, targets, seeds and recipe."""
    check_distilling(how, sources, targets)
    encoding = common_encoding(backbone, sources, encoding)
    lessons = list(_lessons(backbone, sources, targets, seeds, tuned, how))
    jobs = [lesson.job(how) for lesson in lessons]
    found = train_adaptations(
        backbone, jobs, recipe, encoding, method=common_method(sources), options=options
    )
    tested: list[Trained] = []
    for target in targets:
        own = [run for run, lesson in zip(found, lessons, strict=True) if lesson.target is target]
        tested += with_test_score(backbone, own, target, encoding)
    pairs = [lesson.pair(run) for lesson, run in zip(lessons, tested, strict=True)]
    return DistilledTransfer(tuple(pairs), tuple(tested))


def student_name(source: str, target: str, seed: int) -> str:
    """The name of a student, which is a folder's."""
    return f"{run_name(source, target)}-distilled-s{seed}"


@dataclass(frozen=True, eq=False)
class _Lesson:
    """One pair and seed, before its student is trained."""

    source: Adaptation
    target: Target
    seed: int
    scratch: Trained
    teacher: Trained
    similarity: float | None
    weight: float

    def job(self, how: Distilling) -> Job:
        task = self.target.task
        teacher = Teacher(self.teacher.adaptation, self.weight, how.distance)
        name = student_name(self.source.name, task.name, self.seed)
        return Job(task, self.target.rows(self.seed), self.seed, name=name, teacher=teacher)

    def pair(self, student: Trained) -> DistilledPair:
        metric, curve = self.target.task.metric, self.source.curve
        scratch, transferred, distilled = (
            run.adaptation.scores["test"] for run in (self.scratch, self.teacher, student)
        )
        return DistilledPair(
            source=self.source.name,
            target=self.target.task.name,
            seed=self.seed,
            similarity=self.similarity,
            weight=self.weight,
            scratch=scratch[metric],
            transferred=transferred[metric],
            distilled=distilled[metric],
            chance=scratch["chance"],
            scratch_steps=self.scratch.steps,
            transferred_steps=self.teacher.steps,
            distilled_steps=student.steps,
            source_steps=curve[-1].step if curve else None,
        )


def _lessons(
    backbone: Backbone,
    sources: Sequence[Adaptation],
    targets: Sequence[Target],
    seeds: Sequence[int],
    tuned: TunedTransfer,
    how: Distilling,
) -> Iterator[_Lesson]:
    """One for each run from a source, in their order."""
    runs = iter(tuned.trained)
    for target in targets:
        for seed in seeds:
            scratch = next(runs)
            for source, alike in zip(
                sources, similarities(backbone, sources, scratch.adaptation), strict=True
            ):
                weight = SHARE * max(alike or 0.0, 0.0) if how.weight is None else how.weight
                yield _Lesson(source, target, seed, scratch, next(runs), alike, weight)


def similarities(backbone: Backbone, sources: Sequence[Adaptation], target: Adaptation) -> list[float | None]:
    """How like each source is to what was trained on the target, None where that cannot be measured."""
    name = f"target {target.name}"  # no source has a blank in its name
    group = Compared((replace(target, name=name), *sources), backbone=lambda: backbone)
    measure = _measure(sources)
    if missing(measure, group.prompts):
        return [None] * len(sources)
    return [float(value) for value in indicator_table(measure, group).loc[name].drop(name)]


def _measure(sources: Sequence[Adaptation]) -> str:
    return SIMILARITY if sources[0].method.is_prompt else usual(sources)[0]
