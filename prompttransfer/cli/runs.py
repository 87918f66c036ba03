"""Training runs as commands carry them out: what is finished already, a run with progress and logs, and its table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prompttransfer.adaptations.adaptation import Adaptation, Origin
    from prompttransfer.adaptations.method import Method
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.training.recipes import Recipe
    from prompttransfer.training.train import Job, Trained, TrainingOptions


def finished(
    model: Backbone,
    jobs: Sequence[Job],
    recipe: Recipe,
    encoding: Encoding,
    method: Method,
    output: Path | None,
    *,
    overwrite: bool,
) -> dict[str, Adaptation]:
    """Name -> prompt of those that lie in `output`, trained to their end with the very same settings.

    Raises UserError for a prompt of other settings, unless it may be overwritten.
    """
    from prompttransfer.adaptations.artifacts import holds_one, load_adaptation
    from prompttransfer.training.train import origins_of

    found: dict[str, Adaptation] = {}
    if output is None or overwrite:
        return found
    for job, origin in zip(jobs, origins_of(model, jobs, recipe, encoding, method), strict=True):
        folder = output / job.name
        if not holds_one(folder):
            continue
        there = load_adaptation(folder)
        check_made(folder, there, model, job, origin, encoding, method)
        if _came_to_its_end(there, recipe):
            found[job.name] = there
    return found


def check_made(
    folder: Path,
    there: Adaptation,
    model: Backbone,
    job: Job,
    origin: Origin,
    encoding: Encoding,
    method: Method,
) -> None:
    """Raise a UserError that names --overwrite unless `there`, which lies in `folder`, is what a job would begin as."""
    from dataclasses import replace

    from prompttransfer.adaptations.adaptation import digest_tensors
    from prompttransfer.outputs import check_same

    if there.origin.opening is None:  # of a version that did not record it
        origin = replace(origin, opening=None)
    start = job.member(method, model, encoding).tensors()
    before = None if there.initial is None else digest_tensors(there.initial)
    check_same(
        folder,
        {**_made(there.method, there.origin, there.encoding), "initial": before},
        {**_made(method, origin, encoding), "initial": digest_tensors(start)},
        what="a finished prompt",
    )


def _made(method: Method, origin: Origin, encoding: Encoding) -> dict[str, Any]:
    """All that decides what a training run gives, in one table."""
    from dataclasses import asdict

    values = asdict(origin)
    return {"method": str(method), **asdict(encoding), **values.pop("recipe"), **values}


def _came_to_its_end(prompt: Adaptation, recipe: Recipe) -> bool:
    """Whether training ended by its steps or its patience, and not because a loss was not finite."""
    best = prompt.scores.get("validation", {}).get("step", 0)
    since_best = sum(point.step > best for point in prompt.curve)
    return bool(prompt.curve) and (prompt.curve[-1].step >= recipe.steps or 0 < recipe.patience <= since_best)


def run_jobs(
    model: Backbone,
    jobs: Sequence[Job],
    recipe: Recipe,
    encoding: Encoding,
    method: Method,
    *,
    output: Path | None,
    logger: str,
    quiet: bool,
) -> tuple[list[Trained], TrainingOptions]:
    """Train jobs with progress and logs, and score each prompt on the test split of its task; no output, no logs."""
    from prompttransfer.cli.common import console
    from prompttransfer.training.progress import TrainingProgress
    from prompttransfer.training.run_logs import open_logs
    from prompttransfer.training.train import TrainingOptions, train_adaptations

    names = [job.name for job in jobs]

    def loggers(run: str) -> list[Any]:
        return [] if output is None else open_logs(logger, output, names, run)

    with TrainingProgress(console, names, recipe.steps) as progress:
        options = TrainingOptions(state_folder=output, progress=None if quiet else progress, loggers=loggers)
        results = train_adaptations(model, jobs, recipe, encoding, method=method, options=options)
    return tested(model, jobs, results, encoding), options


def tested(
    model: Backbone, jobs: Sequence[Job], runs: Sequence[Trained], encoding: Encoding
) -> list[Trained]:
    """The runs with the scores of what they trained on the test splits of their tasks."""
    from itertools import groupby

    from prompttransfer.transfers.tuning import with_mixture_scores, with_test_score
    from prompttransfer.transfers.zero_shot import Target

    found: list[Trained] = []
    for _, group in groupby(zip(jobs, runs, strict=True), key=lambda pair: id(pair[0].task)):
        pairs = list(group)
        if pairs[0][0].beside:
            found += [with_mixture_scores(model, run, job.parts, encoding) for job, run in pairs]
            continue
        target = Target(pairs[0][0].task, pairs[0][0].splits)
        found += with_test_score(model, [run for _, run in pairs], target, encoding)
    return found


def print_results(results: Sequence[Trained], *, jobs: Sequence[Job], output: Path | None) -> None:
    """A table of test scores beside what they must be compared with."""
    from prompttransfer.cli.common import constant_line, number, say, table

    rows = []
    for job, run in zip(jobs, results, strict=True):
        scores, metric = run.adaptation.scores, job.metric
        test, validation = scores["test"], scores["validation"]
        values = (
            test["chance"],
            test["no_prompt"],
            run.adaptation.curve[0].score,
            validation[metric],
            test[metric],
        )
        rows.append(
            [run.adaptation.name, metric, *map(number, values), str(validation["step"]), str(test["rows"])]
        )
    what = "prompt" if all(run.adaptation.method.is_prompt for run in results) else "adaptation"
    table(
        f"trained {what}s (test is the official validation split; validation is a seeded part of train)",
        [
            what,
            "metric",
            "chance",
            "no prompt",
            "step 0 (val.)",
            "validation",
            "test",
            "best step",
            "rows",
        ],
        rows,
        left=2,
    )
    print_spread(results, jobs)
    for job, run in zip(jobs, results, strict=True):
        each = run.adaptation.scores["test"].get("tasks", {})
        if each:
            say(f"{run.adaptation.name}, test: " + ", ".join(f"{n} {number(v)}" for n, v in each.items()))
        for line in (*_noted(run.adaptation), *how_it_went(run, job.task.metric)):
            say(line)
        if line := constant_line(run.adaptation.name, run.adaptation.scores["test"]):
            say(line)
    if output is not None:
        say(f"written to {output}")


def how_it_went(run: Trained, metric: str) -> list[str]:
    """What a user should know of a run that ended early, or in which nothing was learned; nothing of what is not trained."""
    own = run.adaptation
    if len(own.curve) < 2:
        return []
    validation, test = own.scores["validation"], own.scores.get("test", {})
    lines = []
    if run.ended == "patience":
        lines.append(
            f"{own.name}: ended by --patience at step {run.steps}, its best was at step {validation['step']}"
        )
    if validation["step"] == 0:
        lines.append(
            f"{own.name}: its best was at step 0, so training gained nothing: try another --lr or more --steps"
        )
    elif (chance := test.get("chance")) is not None and test.get(metric, 1.0) <= chance:
        lines.append(
            f"{own.name}: its test {metric} is no better than the majority answer, so nothing was learned: try another --lr or "
            f"more --steps"
        )
    return lines


def print_spread(results: Sequence[Trained], jobs: Sequence[Job]) -> None:
    """Mean, standard deviation, lowest and highest over the seeds of each task; nothing where every task has one seed."""
    from statistics import fmean, stdev

    from prompttransfer.cli.common import number, table

    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for job, run in zip(jobs, results, strict=True):
        scores, metric = run.adaptation.scores, job.task.metric
        pair = (scores["validation"][metric], scores["test"][metric])
        found.setdefault((job.task.name, metric), []).append(pair)
    rows = []
    for (task, metric), pairs in found.items():
        if len(pairs) > 1:
            validation, test = zip(*pairs, strict=True)
            values = (fmean(validation), fmean(test), stdev(test), min(test), max(test))
            rows.append([task, metric, str(len(pairs)), *map(number, values)])
    if rows:
        columns = ["task", "metric", "seeds", "validation", "test", "spread", "lowest", "highest"]
        table("mean over seeds (spread: standard deviation of the test scores)", columns, rows, left=2)


def _noted(adaptation: Adaptation) -> list[str]:
    """What is said of an adaptation beside its scores: a hard prompt's text, and what a search for it cost."""
    from tasks.documents import shortened

    notes = adaptation.notes
    found = [f"{adaptation.name}: {shortened(notes['text'], 300)!r}"] if "text" in notes else []
    if "forward_passes" in notes:
        found.append(
            f"{adaptation.name}: the search took {notes['forward_passes']:,} forward and {notes['backward_passes']:,} "
            f"backward passes of a row"
        )
    return found
