"""Transfer from a library: the sources that are most like a target, each tried or all mixed, beside training from scratch.

`best`: a run from each of the `top` sources, of which the best on the validation split is kept (SPoT's best of top-k).
`average`: one run from their mean weighted by similarity. Beside them stand two runs from scratch: one of as many steps
as each of those runs, and one of as many as the whole way took, source training, probe and every run counted.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import mean, stdev
from typing import Any

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.method import Method
from prompttransfer.adaptations.starts import Retrieve, start_from
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import Encoding
from prompttransfer.training.recipes import Recipe
from prompttransfer.training.train import Job, Trained, TrainingOptions, train_adaptations
from prompttransfer.transfers.nearest_rows import RowsOf
from prompttransfer.transfers.retrieval import Retrieved, Tell, retrieve
from prompttransfer.transfers.tuning import run_name, with_test_score
from prompttransfer.transfers.zero_shot import Target

SCRATCH, SCRATCH_ALL, BEST, AVERAGE = "scratch", "scratch, all steps", "best of top-k", "weighted average"
HOWS = ("best", "average", "both")
"""What is trained from the sources that were found."""


@dataclass(frozen=True)
class Outcome:
    """What one way came to on one target with one seed."""

    target: str
    seed: int
    way: str
    adaptation: str
    """The name of what was kept."""
    validation: float
    test: float
    steps: int
    """Of one run."""
    target_steps: int
    """On rows of the target, the probe and every run counted."""
    all_steps: int
    """Those, and the training of the sources that were ranked."""


@dataclass(frozen=True)
class Choice:
    """What was retrieved for a target and seed, in words and numbers."""

    target: str
    seed: int
    sources: Sequence[str]
    similarities: Sequence[float]
    weights: Sequence[float]

    def __str__(self) -> str:
        rows = zip(self.sources, self.weights, self.similarities, strict=True)
        said = ", ".join(f"{name} {weight:.2f} (similarity {value:.3f})" for name, weight, value in rows)
        return f"retrieved for {self.target}, seed {self.seed}: {said}"


@dataclass(frozen=True)
class LibraryTransfer:
    """All ways on all targets, what was retrieved for each, and what was trained."""

    outcomes: tuple[Outcome, ...]
    retrieved: tuple[Choice, ...]
    trained: tuple[Trained, ...] = ()

    def summary(self) -> list[dict[str, Any]]:
        """A row a target and way: means over seeds, and the standard deviation of test scores (None for one seed)."""
        groups: dict[tuple[str, str], list[Outcome]] = {}
        for each in self.outcomes:
            groups.setdefault((each.target, each.way), []).append(each)
        return [
            {
                "target": target,
                "way": way,
                "seeds": len(found),
                "validation": mean(each.validation for each in found),
                "test": mean(each.test for each in found),
                "spread": stdev(each.test for each in found) if len(found) > 1 else None,
                **{key: found[0].__dict__[key] for key in ("steps", "target_steps", "all_steps")},
            }
            for (target, way), found in groups.items()
        ]

    def to_csv(self) -> str:
        """One line an outcome."""
        stream = io.StringIO()
        rows = [asdict(each) for each in self.outcomes]
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return stream.getvalue()


def from_library(
    backbone: Backbone,
    start: Retrieve,
    targets: Sequence[Target],
    recipe: Recipe,
    encoding: Encoding,
    method: Method,
    *,
    seeds: Sequence[int] = (0,),
    how: str = "best",
    all_steps: bool = True,
    given: Adaptation | None = None,
    rows_of: RowsOf | None = None,
    options: TrainingOptions | None = None,
    tell: Tell = lambda line: None,
) -> LibraryTransfer:
    """Train every target from what a library has for it, and from scratch, for every seed.

    `given` is an adaptation of the one target that stands for the probes. Without `all_steps` the long run from scratch is
    left out. Raises what `retrieve` raises.
    """
    places = [(target, seed) for target in targets for seed in seeds]
    for target in targets:
        backbone.check_task(target.task)
    asked = [Job(t.task, t.rows(seed), seed, start, f"{t.task.name}-s{seed}") for t, seed in places]
    found = retrieve(
        backbone, start, asked, recipe, encoding, method, given=given, rows_of=rows_of, tell=tell
    )
    jobs = [_jobs(job, one, how) for job, one in zip(asked, found, strict=True)]
    runs = _trained(backbone, [job for group in jobs for job in group], recipe, encoding, method, options)
    outcomes, trained = [], []
    for (target, seed), group, one in zip(places, jobs, found, strict=True):
        own = with_test_score(backbone, [runs[job.called] for job in group], target, encoding)
        trained += own
        outcomes += _outcomes(target, seed, own, one, recipe.steps, how)
    if all_steps:
        more, longer = _from_scratch(backbone, places, outcomes, recipe, encoding, method, options)
        outcomes, trained = outcomes + more, trained + longer
    order = (SCRATCH, SCRATCH_ALL, BEST, AVERAGE)
    outcomes.sort(key=lambda each: ([t.task.name for t in targets].index(each.target), order.index(each.way)))
    choices = [
        Choice(t.task.name, seed, one.names, one.similarities, one.weights)
        for (t, seed), one in zip(places, found, strict=True)
    ]
    return LibraryTransfer(tuple(outcomes), tuple(choices), tuple(trained))


def runs_of(targets: Sequence[str], seeds: Sequence[int], top: int, how: str) -> list[str]:
    """What the runs are called before it is known which sources they start from, in their order."""
    kinds = ["scratch"]
    kinds += [f"source {place}" for place in range(1, top + 1)] if how in ("best", "both") else []
    kinds += ["average"] if how in ("average", "both") else []
    return [f"{target} s{seed} {kind}" for target in targets for seed in seeds for kind in kinds]


def _jobs(asked: Job, found: Retrieved, how: str) -> list[Job]:
    """The runs for one target and seed: from scratch first, then from each source, last from their average."""
    task, seed = asked.task.name, asked.seed
    jobs = [replace(asked, start=None, name=f"{task}-scratch-s{seed}")]
    if how in ("best", "both"):
        jobs += [
            replace(asked, start=start_from(source), name=f"{run_name(source.name, task)}-s{seed}")
            for source in found.sources
        ]
    if how in ("average", "both"):
        jobs.append(replace(asked, start=found.start, name=f"{run_name('average', task)}-s{seed}"))
    return jobs


def _trained(
    backbone: Backbone,
    jobs: Sequence[Job],
    recipe: Recipe,
    encoding: Encoding,
    method: Method,
    options: TrainingOptions | None,
) -> dict[str, Trained]:
    """Name -> run, all in one bank."""
    runs = train_adaptations(backbone, jobs, recipe, encoding, method=method, options=options)
    return {job.called: run for job, run in zip(jobs, runs, strict=True)}


def _outcomes(
    target: Target, seed: int, runs: Sequence[Trained], found: Retrieved, steps: int, how: str
) -> list[Outcome]:
    """What the runs of `_jobs` came to."""
    scratch, *rest = runs
    tried = rest[: len(found.sources)] if how in ("best", "both") else []
    kept = [(SCRATCH, scratch, steps, steps)]
    if tried:
        cost = found.probe_steps + steps * len(tried)
        kept.append((BEST, max(tried, key=on_validation), cost, cost + found.source_steps))
    if how in ("average", "both"):
        cost = found.probe_steps + steps
        kept.append((AVERAGE, rest[-1], cost, cost + found.source_steps))
    return [_outcome(target, seed, way, run, steps, on, whole) for way, run, on, whole in kept]


def on_validation(run: Trained) -> tuple[float, float]:
    """What is larger for the better run on the validation split; of equal scores the lesser loss decides."""
    return max(
        (point.score, float("-inf") if point.validation_loss is None else -point.validation_loss)
        for point in run.adaptation.curve
    )


def _outcome(target: Target, seed: int, way: str, run: Trained, steps: int, on: int, whole: int) -> Outcome:
    own, metric = run.adaptation, target.task.metric
    scores = own.scores["validation"][metric], own.scores["test"][metric]
    return Outcome(target.task.name, seed, way, own.name, *scores, steps, on, whole)


def _from_scratch(
    backbone: Backbone,
    places: Sequence[tuple[Target, int]],
    outcomes: Sequence[Outcome],
    recipe: Recipe,
    encoding: Encoding,
    method: Method,
    options: TrainingOptions | None,
) -> tuple[list[Outcome], list[Trained]]:
    """Runs from scratch with as many steps as the dearest way took on a target, those of equal steps in one bank."""
    if options is not None:
        options = replace(options, progress=None)  # which is about other runs
    budgets: dict[int, list[tuple[Target, int]]] = {}
    for target, seed in places:
        whole = max(each.all_steps for each in outcomes if each.target == target.task.name)
        budgets.setdefault(whole, []).append((target, seed))
    found, trained = [], []
    for whole, group in budgets.items():
        jobs = [
            Job(t.task, t.rows(seed), seed, name=f"{t.task.name}-scratch-all-s{seed}") for t, seed in group
        ]
        runs = _trained(backbone, jobs, replace(recipe, steps=whole), encoding, method, options)
        for (target, seed), job in zip(group, jobs, strict=True):
            own = with_test_score(backbone, [runs[job.called]], target, encoding)
            trained += own
            found.append(_outcome(target, seed, SCRATCH_ALL, own[0], whole, whole, whole))
    return found, trained
