"""`prompttransfer train`: one soft prompt for each task and seed, all of them in one bank on one frozen backbone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.cli.options import (
    EMBEDDED_DEFAULT,
    Aggregation,
    AsJson,
    BackboneName,
    Batch,
    DataFolder,
    Device,
    Devices,
    EmbedAt,
    EvaluateEvery,
    LabelWords,
    LayoutName,
    LearningRate,
    Length,
    LimitTest,
    LimitTrain,
    MaxLength,
    MethodText,
    Nodes,
    OneSplit,
    Optimizer,
    Overwrite,
    Patience,
    Precision,
    Revision,
    Schedule,
    Seeds,
    Steps,
    Strategy,
    TaskNames,
    Template,
    WarmUp,
    WeightDecay,
)
from prompttransfer.cli.values import OneOf, Output, checked, lines_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prompttransfer.adaptations.adaptation import Adaptation, Origin
    from prompttransfer.adaptations.method import Method
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.distributed.placement import Placement
    from prompttransfer.training.recipes import Recipe
    from prompttransfer.training.train import Job, Trained, TrainingOptions
    from prompttransfer.transfers.nearest_rows import RowsOf
    from prompttransfer.transfers.zero_shot import Target
    from tasks.task import Task

PROMPT = "prompt"
"""The method where none is given."""
UNKNOWN_ROWS, FEW_UNKNOWN = 200, 0.03
"""Training rows of which the words are looked at, and the share of unknown ones above which it is said."""


@checked
def train(
    task: TaskNames,
    backbone: BackboneName = EMBEDDED_DEFAULT,
    revision: Revision = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for one folder a prompt."),
        Output(standard="runs/prompts"),
    ] = None,
    data: DataFolder = None,
    seeds: Seeds = None,
    one_split: OneSplit = False,
    method: MethodText = None,
    init: Annotated[
        str,
        typer.Option(
            "--init",
            "--start",
            help="random, vocabulary, label-words, text:WORDS, from:PATH, mixture:PATH=WEIGHT,... or "
            "retrieve:DIR,top=3,by=C_average.",
        ),
    ] = "random",
    mixture: Annotated[
        bool,
        typer.Option(
            "--mixture",
            help="Train one prompt for all tasks together, which comes to each as often as it has rows.",
        ),
    ] = False,
    layout: LayoutName = "prompt-first",
    template: Template = None,
    length: Length = None,
    steps: Steps = None,
    batch: Batch = None,
    lr: LearningRate = None,
    optimizer: Optimizer = None,
    weight_decay: WeightDecay = None,
    schedule: Schedule = None,
    warm_up: WarmUp = None,
    evaluate_every: EvaluateEvery = None,
    patience: Patience = None,
    embed_at: EmbedAt = None,
    label_words: LabelWords = None,
    aggregation: Aggregation = None,
    max_length: MaxLength = None,
    limit_train: LimitTrain = None,
    limit_test: LimitTest = None,
    precision: Precision = "auto",
    device: Device = "auto",
    devices: Devices = 1,
    strategy: Strategy = "auto",
    nodes: Nodes = 1,
    checkpoint_activations: Annotated[
        bool,
        typer.Option(
            "--checkpoint-activations",
            help="Compute inner values again in the backward pass: less memory, more time, the same prompts.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be trained and its expected memory; train nothing."),
    ] = False,
    logger: Annotated[
        str, typer.Option(help="csv, tensorboard or none."), OneOf("logger", ("csv", "none", "tensorboard"))
    ] = "csv",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> list[Adaptation]:
    """Train a soft prompt, or what --method says, for each task and seed on a frozen backbone.

    Prints the recipe, a live learning curve and the test scores beside chance and the backbone without a prompt. A
    killed run goes on from its last evaluation when the same command is given again; what it has finished is not trained
    again. From Python nothing is written without `output`.

    With --devices every device takes a share of the rows, and with --strategy fsdp of the backbone; the prompts are
    those of one device, but for the rounding of sums.
    """
    given = dict(locals())
    from prompttransfer.adaptations.methods import parse_method
    from prompttransfer.adaptations.starts import Retrieve, check_start, parse_start
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.backbones.locating import locate
    from prompttransfer.distributed.placement import Placement

    placement = Placement(devices, strategy, nodes)
    encoding = Encoding(layout, max_length, aggregation, lines_of(template))
    locate(backbone, revision)  # before the heavy imports: a name that is nothing is said at once
    from prompttransfer.cli.common import (
        describe,
        load_targets,
        only_the_first_speaks,
        print_json,
        resolve_tasks,
        say,
        seeds_line,
        words_line,
    )
    from prompttransfer.distributed.launching import must_start, run_on

    tasks = resolve_tasks(task, label_words)
    chosen = list(dict.fromkeys(seeds or [0]))
    together = "+".join(item.name for item in tasks)
    names = names_of([together] if mixture else [item.name for item in tasks], chosen, output)
    check_start(init)
    if mixture:
        check_mixture(tasks, init)
    method = method or _source_method(init)
    parse_method(method, length=length or 1).check_complete()  # before the heavy imports, too
    if not dry_run and must_start(placement, device):
        return run_on(placement, train, **given)
    from prompttransfer.adaptations.artifacts import save_adaptation
    from prompttransfer.backbones.loading import load_backbone, outline_backbone
    from prompttransfer.reports.calls import commit_of, note_call, precision_name, remember
    from prompttransfer.training.recipes import method_and_recipe
    from prompttransfer.training.train import Job, Trained

    targets = load_targets(
        tasks, data=data, limit_train=limit_train, limit_test=limit_test, seeds=chosen, one_split=one_split
    )
    if dry_run:
        model = outline_backbone(backbone, revision, precision=precision)
    else:
        model = load_backbone(
            backbone, revision=revision, precision=precision, device=device, placement=placement
        )
    encoding.place(model.family)
    first = only_the_first_speaks(model)
    model.checkpoints = checkpoint_activations
    chosen_method, recipe = method_and_recipe(
        model.family,
        model.state_width,
        method,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        schedule=schedule,
        warm_up=warm_up,
        steps=steps,
        batch=batch,
        length=length,
        evaluate_every=evaluate_every,
        patience=patience,
        embed_at=embed_at,
    )
    if not dry_run:  # an outline of a backbone has neither precision nor place
        say(describe(model), quiet=as_json)
    if chosen_method.name != PROMPT:
        say(f"method: {chosen_method}", quiet=as_json)
    for remark in chosen_method.remarks(model):
        say(remark, quiet=as_json)
    say(f"recipe: {recipe.told(chosen_method)}", quiet=as_json)
    say_strange(model, targets, quiet=as_json)
    say(seeds_line(chosen, one_split=one_split), quiet=as_json)
    for target in targets:
        answers = model.answers(target.task, encoding)
        say(
            f"label words of {words_line(target.task.name, answers.mapping if answers else {})}",
            quiet=as_json,
        )
    start = parse_start(init)
    if mixture:
        parts = {seed: [(target.task, target.rows(seed)) for target in targets] for seed in chosen}
        jobs = [
            Job(*parts[seed][0], seed, start, names[together, seed], beside=tuple(parts[seed][1:]))
            for seed in chosen
        ]
        say(shares_line(jobs[0]), quiet=as_json)
    else:
        jobs = [
            Job(target.task, target.rows(seed), seed, start, names[target.task.name, seed])
            for target in targets
            for seed in chosen
        ]
    if isinstance(start, Retrieve) and not dry_run:
        from prompttransfer.transfers.retrieval import with_retrieved

        jobs = with_retrieved(
            model, jobs, recipe, encoding, chosen_method,
            rows_of=rows_of_sources(data), tell=lambda line: say(line, quiet=as_json),
        )  # fmt: skip
    if dry_run:
        _say_memory(
            model, jobs, recipe, encoding, chosen_method,
            precision=precision, device=device, placement=placement, quiet=as_json,
        )  # fmt: skip
        return []
    there = finished(model, jobs, recipe, encoding, chosen_method, output, overwrite=overwrite)
    if len(there) == len(jobs):
        say("trained before with the same settings: nothing is left to do", quiet=as_json)
        results = [Trained(there[job.name], "steps", recipe.steps) for job in jobs]
    else:
        results, options = run_jobs(
            model, jobs, recipe, encoding, chosen_method, output=output, logger=logger, quiet=as_json
        )
        if first and output is not None:
            for run in results:
                if run.adaptation.name not in there:
                    save_adaptation(run.adaptation, output / run.adaptation.name)
            call = remember(
                "train",
                train,
                given,
                **recipe.as_dict(),
                backbone=model.name,
                revision=commit_of(model.revision),
                precision=precision_name(model.precision),
            )
            note_call([output / run.adaptation.name for run in results], call)
            options.clear()
    if as_json:
        print_json([_record(run.adaptation, output) for run in results])
    else:
        print_results(results, jobs=jobs, output=output)
    _raise_failures(results)
    return [run.adaptation for run in results]


def check_mixture(tasks: Sequence[Task], init: str) -> None:
    """Raise UserError for a mixture that cannot be, before anything is loaded."""
    from tasks.errors import UserError

    if len(tasks) < 2:
        raise UserError("--mixture is of several tasks: give two or more with --task")
    if init.partition(":")[0] == "retrieve":
        raise UserError("--mixture cannot start from what is retrieved for one task: give another --init")


def shares_line(job: Job) -> str:
    """How often each task of a mixture comes, for people."""
    counts = {task.name: len(splits.train) for task, splits in job.parts}
    said = ", ".join(f"{name} {count / sum(counts.values()):.3f}" for name, count in counts.items())
    return f"mixture by rows (examples-proportional; --limit-train is the most of each task): {said}"


def rows_of_sources(data: Path | None) -> RowsOf:
    """What gives the tasks of sources with a few training rows each, for retrieval by rows."""
    from prompttransfer.cli.common import load_targets, resolve_tasks
    from prompttransfer.transfers.nearest_rows import STORED

    def found(sources: Sequence[Adaptation]) -> Sequence[Target]:
        names = list(dict.fromkeys(source.task for source in sources))
        return load_targets(resolve_tasks(names, prompts=sources), data=data, limit_train=STORED)

    return found


def names_of(tasks: Sequence[str], seeds: Sequence[int], output: Path | None) -> dict[tuple[str, int], str]:
    """(task, seed) -> name of the prompt; UserError where one cannot be a folder's name, or its folder is not free."""
    from prompttransfer.adaptations.artifacts import MARKERS
    from prompttransfer.files import check_free, safe_name
    from prompttransfer.outputs import COMMANDS
    from tasks.errors import UserError

    if COMMANDS in tasks:
        raise UserError(
            f"a task cannot be called {COMMANDS!r}: a file of that name stands beside the prompts"
        )
    names = {
        (task, seed): safe_name(task if len(seeds) == 1 else f"{task}-s{seed}")
        for task in tasks
        for seed in seeds
    }
    if output is not None:
        for name in names.values():
            check_free(output / name, marker=MARKERS)
    return names


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
    from dataclasses import replace

    from prompttransfer.adaptations.adaptation import digest_tensors
    from prompttransfer.adaptations.artifacts import holds_one, load_adaptation
    from prompttransfer.outputs import check_same
    from prompttransfer.training.train import origins_of

    found: dict[str, Adaptation] = {}
    if output is None or overwrite:
        return found
    for job, origin in zip(jobs, origins_of(model, jobs, recipe, encoding, method), strict=True):
        folder = output / job.name
        if not holds_one(folder):
            continue
        there = load_adaptation(folder)
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
        if _came_to_its_end(there, recipe):
            found[job.name] = there
    return found


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


def _record(prompt: Adaptation, output: Path | None) -> dict[str, Any]:
    place = {} if output is None else {"folder": str(output / prompt.name)}
    return {**place, "scores": prompt.scores}


def say_strange(model: Backbone, targets: Sequence[Target], *, quiet: bool) -> None:
    """Say what was strange about a backbone, and of which tasks it does not know more than a few of the words."""
    from prompttransfer.cli.common import say, unknown_words

    for remark in model.remarks:
        say(f"warning: {remark}", quiet=quiet)
    for target in targets:
        examples = target.splits.train[:UNKNOWN_ROWS]
        if (model.unknown_share(examples) or 0) > FEW_UNKNOWN:
            line = unknown_words(model, target.task.name, examples)
            say(f"warning: {line}: what it reads there is not the text", quiet=quiet)


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
    from itertools import groupby

    from prompttransfer.cli.common import console
    from prompttransfer.training.progress import TrainingProgress
    from prompttransfer.training.run_logs import open_logs
    from prompttransfer.training.train import TrainingOptions, train_adaptations
    from prompttransfer.transfers.tuning import with_mixture_scores, with_test_score
    from prompttransfer.transfers.zero_shot import Target

    names = [job.name for job in jobs]

    def loggers(run: str) -> list[Any]:
        return [] if output is None else open_logs(logger, output, names, run)

    with TrainingProgress(console, names, recipe.steps) as progress:
        options = TrainingOptions(state_folder=output, progress=None if quiet else progress, loggers=loggers)
        results = train_adaptations(model, jobs, recipe, encoding, method=method, options=options)
    tested: list[Trained] = []
    for _, group in groupby(zip(jobs, results, strict=True), key=lambda pair: id(pair[0].task)):
        pairs = list(group)
        if pairs[0][0].beside:
            tested += [with_mixture_scores(model, run, job.parts, encoding) for job, run in pairs]
            continue
        target = Target(pairs[0][0].task, pairs[0][0].splits)
        runs = [run for _, run in pairs]
        tested += with_test_score(model, runs, target, encoding)
    return tested, options


def print_results(results: Sequence[Trained], *, jobs: Sequence[Job], output: Path | None) -> None:
    """A table of test scores beside what they must be compared with."""
    from prompttransfer.cli.common import number, say, table

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
    table(
        "trained prompts (test is the official validation split; validation is a seeded part of train)",
        [
            "prompt",
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
    for run in results:
        each = run.adaptation.scores["test"].get("tasks", {})
        if each:
            say(f"{run.adaptation.name}, test: " + ", ".join(f"{n} {number(v)}" for n, v in each.items()))
        for line in _noted(run.adaptation):
            say(line)
    if output is not None:
        say(f"written to {output}")


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


def _say_memory(
    model: Backbone,
    jobs: Sequence[Job],
    recipe: Recipe,
    encoding: Encoding,
    method: Method,
    *,
    precision: str,
    device: str,
    placement: Placement,
    quiet: bool,
) -> None:
    """Print the expected peak memory of a run, with and without activation checkpointing."""
    from collections import Counter
    from dataclasses import asdict

    from prompttransfer.backbones.loading import choose_dtype
    from prompttransfer.cli.common import print_json, say
    from prompttransfer.distributed.processes import choose_device
    from prompttransfer.training.memory import expected_memory
    from prompttransfer.training.train import RowEncoder, bank_data

    if not method.trains:
        say(f"{method.name}: nothing is trained, so it takes what an evaluation takes", quiet=quiet)
        if quiet:
            print_json({"trains": False})
        return
    asked = model.checkpoints
    place = encoding.place(model.family)
    encode = RowEncoder(model, method.reserved, encoding)
    data = bank_data(model, [encode.train(job) for job in jobs], jobs, recipe, method, place)
    where = choose_device(device)
    dtype = choose_dtype(precision, where)
    evaluated = Counter(part for job in jobs for part in (*encode.validations(job), *encode.tests(job)))
    with_, without = (
        expected_memory(
            model, data, evaluated, method, dtype=dtype, device=where, checkpoints=choice, placement=placement
        )
        for choice in (True, False)
    )
    if quiet:
        print_json(
            {
                "precision": model.precision,
                "expected": {**asdict(without), "total": without.total},
                "expected_with_checkpoints": {**asdict(with_), "total": with_.total},
            }
        )
        return
    chosen, other = (with_, without) if asked else (without, with_)
    each = f" in each of {placement}" if placement.several else ""
    say(f"{dtype} on {where}{each}; {chosen}")
    flag = "without --checkpoint-activations" if asked else "with --checkpoint-activations"
    say(f"{flag}: {other.total / 1e9:.2f} GB")


def _raise_failures(results: list[Trained]) -> None:
    from tasks.errors import UserError

    failures = [line for run in results if (line := run.failure) is not None]
    if failures:
        raise UserError("; ".join(failures))


def _source_method(init: str) -> str:
    """The method of what a run starts from, so that it need not be said twice; soft prompts for other starts."""
    from prompttransfer.adaptations.artifacts import method_of, read_record
    from prompttransfer.adaptations.starts import Retrieve, parse_start, source_of

    start = parse_start(init) if init.partition(":")[0] == "retrieve" else None
    if isinstance(start, Retrieve):
        from prompttransfer.transfers.retrieval import check_retrieve

        return str(check_retrieve(start))
    source = source_of(init)
    return PROMPT if source is None else str(method_of(read_record(Path(source))))
