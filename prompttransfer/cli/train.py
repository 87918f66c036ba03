"""`prompttransfer train`: one soft prompt for each task and seed, all of them in one bank on one frozen backbone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prompttransfer.cli.options import (
    EMBEDDED_DEFAULT,
    Aggregation,
    AsJson,
    BackboneName,
    Batch,
    Columns,
    DataFolder,
    Device,
    Devices,
    EmbedAt,
    EvaluateEvery,
    HeadAsked,
    LabelValues,
    LabelWords,
    LayoutName,
    LearningRate,
    Length,
    LimitTest,
    LimitTrain,
    MaxLength,
    MethodText,
    MetricName,
    Nodes,
    OneSplit,
    Optimizer,
    Overwrite,
    Patience,
    Precision,
    Predictions,
    Revision,
    Schedule,
    Seeds,
    Shots,
    SkipEmpty,
    SplitNames,
    Steps,
    Strategy,
    Sweeps,
    TaskNames,
    Template,
    WarmUp,
    WeightDecay,
)
from prompttransfer.cli.train_checks import asked_of
from prompttransfer.cli.train_told import say_memory
from prompttransfer.cli.values import OneOf, Output, Real, checked, lines_of

if TYPE_CHECKING:
    from prompttransfer.adaptations.adaptation import Adaptation


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
    columns: Columns = None,
    labels: LabelValues = None,
    splits: SplitNames = None,
    skip_empty: SkipEmpty = False,
    seeds: Seeds = None,
    one_split: OneSplit = False,
    method: MethodText = None,
    init: Annotated[
        str | None,
        typer.Option(
            "--init",
            "--start",
            help="random, vocabulary, label-words, text:WORDS, from:PATH, mixture:PATH=WEIGHT,... or "
            "retrieve:DIR,top=3,by=C_average; if not given random, or vocabulary for prompts of decoders.",
        ),
    ] = None,
    mixture: Annotated[
        bool,
        typer.Option(
            "--mixture",
            help="Train one prompt for all tasks together, which comes to each as often as it has rows.",
        ),
    ] = False,
    distil: Annotated[
        list[Path] | None,
        typer.Option(
            "--distil",
            help="Trained prompts, or folders of them, that teach the runs of their tasks: the distance to their answers is added "
            "to the loss.",
        ),
    ] = None,
    distil_weight: Annotated[
        float | None,
        typer.Option("--distil-weight", help="Of that distance (0.9)."),
        Real(0, 1e30, below=True),
    ] = None,
    distil_on: Annotated[
        str | None,
        typer.Option(
            "--distil-on",
            help="logits (scores of the label words; the default), states (of the last layer, where the answer is read) or both.",
        ),
        OneOf("part to distil", ("both", "logits", "states")),
    ] = None,
    distil_distance: Annotated[
        str | None,
        typer.Option(
            "--distil-distance", help="Of logits: kl (the default) or squared; states are always squared."
        ),
        OneOf("distance to a teacher", ("kl", "squared")),
    ] = None,
    distil_temperature: Annotated[
        float | None,
        typer.Option("--distil-temperature", help="That logits are divided by under kl (1)."),
        Real(0, 1e6, above=True),
    ] = None,
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
    metric: MetricName = None,
    embed_at: EmbedAt = None,
    sweep: Sweeps = None,
    halving: Annotated[
        bool,
        typer.Option(
            "--halving/--no-halving",
            help="Of a sweep: the better half of the settings goes on behind a quarter and behind half of their steps.",
        ),
    ] = True,
    label_words: LabelWords = None,
    head: HeadAsked = False,
    aggregation: Aggregation = None,
    max_length: MaxLength = None,
    limit_train: LimitTrain = None,
    shots: Shots = None,
    limit_test: LimitTest = None,
    predictions: Predictions = None,
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
        str,
        typer.Option(help="csv, tensorboard, wandb or none."),
        OneOf("logger", ("csv", "none", "tensorboard", "wandb")),
    ] = "csv",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> list[Adaptation]:
    """Train a soft prompt, or what --method says, for each task and seed on a frozen backbone.

    Prints the recipe, a live learning curve and the test scores beside chance and the backbone without a prompt. A
    killed run goes on from its last evaluation when the same command is given again; what it has finished is not trained
    again. From Python nothing is written without `output`. With --distil each run also learns from what a frozen teacher, an
    adaptation of its task on the same backbone, answers to the same rows.

    With --sweep every combination of the values is trained, and what is kept is the one that is best on the validation
    rows of its task, mean over seeds.

    With --devices every device takes a share of the rows, and with --strategy fsdp of the backbone; the prompts are
    those of one device, but for the rounding of sums.
    """
    given = dict(locals())
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.backbones.locating import locate
    from prompttransfer.distributed.placement import Placement

    placement = Placement(devices, strategy, nodes)
    encoding = Encoding(layout, max_length, aggregation, lines_of(template))
    locate(backbone, revision)  # before the heavy imports: a name that is nothing is said at once
    asked = asked_of(given)
    from prompttransfer.distributed.launching import must_start, run_on

    if not dry_run and must_start(placement, device):
        return run_on(placement, train, **given)
    from prompttransfer.backbones.loading import load_backbone, outline_backbone
    from prompttransfer.cli.train_run import Run

    teachers = asked.teachers()
    targets = asked.rows.targets(asked.tasks, asked.seeds)
    if dry_run:
        model = outline_backbone(backbone, revision, precision=precision)
    else:
        model = load_backbone(
            backbone, revision=revision, precision=precision, device=device, placement=placement
        )
    run = Run(asked, model, encoding)
    run.announce(targets)
    jobs = run.jobs(targets, teachers)
    if dry_run:
        say_memory(
            model, jobs, run.recipe, encoding, run.method,
            precision=precision, device=device, placement=placement, quiet=as_json,
        )  # fmt: skip
        return []
    return run.carry_out(jobs, train)
