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
    DataFolder,
    Device,
    Devices,
    LabelWords,
    LayoutName,
    LimitTest,
    LimitTrain,
    MaxLength,
    Nodes,
    OneSplit,
    Precision,
    Revision,
    Strategy,
    TaskNames,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prompttransfer.backbones import Backbone
    from prompttransfer.placement import Placement
    from prompttransfer.prompt import Prompt
    from prompttransfer.recipes import Recipe
    from prompttransfer.reuse import Target
    from prompttransfer.training import Job, Trained, TrainingOptions

UNKNOWN_ROWS, FEW_UNKNOWN = 200, 0.03
"""Training rows of which the words are looked at, and the share of unknown ones above which it is said."""


def train(
    task: TaskNames,
    backbone: BackboneName = EMBEDDED_DEFAULT,
    revision: Revision = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for one folder a prompt.")] = Path(
        "runs/prompts"
    ),
    data: DataFolder = None,
    seeds: Annotated[list[int] | None, typer.Option("--seeds", help="One prompt a seed and task.")] = None,
    one_split: OneSplit = False,
    init: Annotated[
        str, typer.Option(help="random, vocabulary, label-words, text:WORDS or prompt:PATH.")
    ] = "random",
    layout: LayoutName = "prompt-first",
    length: Annotated[int | None, typer.Option(help="Number of prompt vectors.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    batch: Annotated[int | None, typer.Option(help="Rows a step and prompt.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw or adafactor.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay.")] = None,
    evaluate_every: Annotated[int | None, typer.Option(help="Steps between evaluations.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after this many evaluations without a better score; 0: never.")
    ] = None,
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
    logger: Annotated[str, typer.Option(help="csv, tensorboard or none.")] = "csv",
    as_json: AsJson = False,
) -> list[Prompt]:
    """Train a soft prompt for each task and seed on a frozen backbone.

    Prints the recipe, a live learning curve and the test scores beside chance and the backbone without a prompt. A
    killed run goes on from its last evaluation when the same command is given again.

    With --devices every device takes a share of the rows, and with --strategy fsdp of the backbone; the prompts are
    those of one device, but for the rounding of sums.
    """
    given = dict(locals())
    from prompttransfer.placement import Placement
    from prompttransfer.places import locate

    placement = Placement(devices, strategy, nodes)
    locate(backbone, revision)  # before the heavy imports: a name that is nothing is said at once
    from prompttransfer.artifacts import MARKER, save_prompt
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
    from prompttransfer.files import check_free, safe_name
    from prompttransfer.launching import must_start, run_on

    tasks = resolve_tasks(task, label_words)
    chosen = list(dict.fromkeys(seeds or [0]))
    names = {
        (item.name, seed): safe_name(item.name if len(chosen) == 1 else f"{item.name}-s{seed}")
        for item in tasks
        for seed in chosen
    }
    for name in names.values():
        check_free(output / name, marker=MARKER)
    if not dry_run and must_start(placement, device):
        return run_on(placement, train, **given)
    from prompttransfer.backbones import load_backbone, outline_backbone
    from prompttransfer.recipes import recipe_for
    from prompttransfer.training import Job

    targets = load_targets(
        tasks, data=data, limit_train=limit_train, limit_test=limit_test, seeds=chosen, one_split=one_split
    )
    if dry_run:
        model = outline_backbone(backbone, revision)
    else:
        model = load_backbone(
            backbone, revision=revision, precision=precision, device=device, placement=placement
        )
    first = only_the_first_speaks(model)
    model.checkpoints = checkpoint_activations
    recipe = recipe_for(
        model,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        steps=steps,
        batch=batch,
        length=_source_length(init) if length is None else length,
        evaluate_every=evaluate_every,
        patience=patience,
    )
    if not dry_run:  # an outline of a backbone has neither precision nor place
        say(describe(model), quiet=as_json)
    say(f"recipe: {recipe}", quiet=as_json)
    say_strange(model, targets, quiet=as_json)
    say(seeds_line(chosen, one_split=one_split), quiet=as_json)
    for target in targets:
        answers = model.answers(target.task, aggregation)
        say(
            f"label words of {words_line(target.task.name, answers.mapping if answers else {})}",
            quiet=as_json,
        )
    jobs = [
        Job(target.task, target.rows(seed), seed, init, names[target.task.name, seed])
        for target in targets
        for seed in chosen
    ]
    if dry_run:
        _say_memory(
            model, jobs, recipe, layout=layout, max_length=max_length, aggregation=aggregation,
            precision=precision, device=device, placement=placement, quiet=as_json,
        )  # fmt: skip
        return []
    results, options = run_jobs(
        model,
        jobs,
        recipe,
        layout=layout,
        max_length=max_length,
        aggregation=aggregation,
        output=output,
        logger=logger,
        quiet=as_json,
    )
    if first:
        for run in results:
            save_prompt(run.prompt, output / run.prompt.name)
        options.clear()
    if as_json:
        print_json([{"folder": str(output / r.prompt.name), "scores": r.prompt.scores} for r in results])
    else:
        print_results(results, jobs=jobs, output=output)
    _raise_failures(results)
    return [run.prompt for run in results]


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
    *,
    layout: str,
    max_length: int | None,
    aggregation: str | None,
    output: Path,
    logger: str,
    quiet: bool,
) -> tuple[list[Trained], TrainingOptions]:
    """Train jobs with progress and loggers, and score each prompt on the test split of its task."""
    from itertools import groupby

    from prompttransfer.cli.common import console
    from prompttransfer.progress import TrainingProgress
    from prompttransfer.reuse import Target, with_test_score
    from prompttransfer.training import TrainingOptions, train_prompts

    with TrainingProgress(console, [job.name for job in jobs], recipe.steps) as progress:
        options = TrainingOptions(
            state_folder=output, progress=None if quiet else progress, loggers=log_of(logger, output)
        )
        results = train_prompts(
            model,
            jobs,
            recipe,
            layout=layout,
            max_length=max_length,
            aggregation=aggregation,
            options=options,
        )
    tested: list[Trained] = []
    for _, group in groupby(zip(jobs, results, strict=True), key=lambda pair: id(pair[0].task)):
        pairs = list(group)
        target = Target(pairs[0][0].task, pairs[0][0].splits)
        runs = [run for _, run in pairs]
        tested += with_test_score(model, runs, target, max_length=max_length, aggregation=aggregation)
    return tested, options


def log_of(kind: str, output: Path) -> Callable[[str], list[Any]]:
    """What makes the Lightning loggers of a run: one folder a run in `<output>/logs`, written anew when the run goes on."""
    from tasks.errors import unknown

    if kind not in ("csv", "tensorboard", "none"):
        raise unknown("logger", kind, ("csv", "tensorboard", "none"))

    def make(run: str) -> list[Any]:
        import shutil

        if kind == "none":
            return []
        shutil.rmtree(output / "logs" / run, ignore_errors=True)
        if kind == "csv":
            from lightning.pytorch.loggers import CSVLogger

            return [CSVLogger(output, name="logs", version=run)]
        from lightning.pytorch.loggers import TensorBoardLogger

        return [TensorBoardLogger(output, name="logs", version=run)]

    return make


def print_results(results: Sequence[Trained], *, jobs: Sequence[Job], output: Path) -> None:
    """A table of test scores beside what they must be compared with."""
    from prompttransfer.cli.common import number, say, table

    rows = []
    for job, run in zip(jobs, results, strict=True):
        scores, metric = run.prompt.scores, job.task.metric
        test, validation = scores["test"], scores["validation"]
        values = (
            test["chance"],
            test["no_prompt"],
            run.prompt.curve[0].score,
            validation[metric],
            test[metric],
        )
        rows.append(
            [run.prompt.name, metric, *map(number, values), str(validation["step"]), str(test["rows"])]
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
    say(f"written to {output}")


def _say_memory(
    model: Backbone,
    jobs: Sequence[Job],
    recipe: Recipe,
    *,
    layout: str,
    max_length: int | None,
    aggregation: str | None,
    precision: str,
    device: str,
    placement: Placement,
    quiet: bool,
) -> None:
    """Print the expected peak memory of a run, with and without activation checkpointing."""
    from collections import Counter
    from dataclasses import asdict

    from prompttransfer.backbones import choose_device, choose_dtype
    from prompttransfer.cli.common import print_json, say
    from prompttransfer.layouts import find_layout
    from prompttransfer.memory import expected_memory
    from prompttransfer.training import RowEncoder, bank_data

    asked = model.checkpoints
    place = find_layout(layout, model.family)
    encode = RowEncoder(model, recipe.length, place, max_length, aggregation)
    data = bank_data(model, [encode.train(job) for job in jobs], jobs, recipe, place)
    where = choose_device(device)
    dtype = choose_dtype(precision, where)
    evaluated = Counter(encode.validation(job) for job in jobs)
    evaluated += Counter(encode.test(job) for job in jobs)
    with_, without = (
        expected_memory(
            model, data, evaluated, dtype=dtype, device=where, checkpoints=choice, placement=placement
        )
        for choice in (True, False)
    )
    if quiet:
        print_json(
            {
                "precision": str(dtype).removeprefix("torch."),
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


def _source_length(init: str) -> int | None:
    """The length of the prompt that a run starts from, so that it need not be said twice."""
    if not init.startswith("prompt:"):
        return None
    from prompttransfer.artifacts import read_record

    return read_record(Path(init.removeprefix("prompt:"))).length
