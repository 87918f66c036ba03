"""`prompttransfer transfer`: source prompts on target tasks, zero-shot or (`--tune`) as initialisation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prompttransfer.cli.library import check_sources, transfer_from_library
from prompttransfer.cli.options import (
    Aggregation,
    AsJson,
    Batch,
    Calibrate,
    Columns,
    DataFolder,
    Device,
    Devices,
    EvaluateEvery,
    HeadAsked,
    LabelValues,
    LabelWords,
    LearningRate,
    LimitTest,
    LimitTrain,
    MaxLength,
    MetricName,
    Nodes,
    OneSplit,
    Optimizer,
    OtherBackbone,
    OtherLayout,
    Overwrite,
    Patience,
    Precision,
    Predictions,
    RandomDraws,
    Revision,
    Schedule,
    Seeds,
    Shots,
    SkipEmpty,
    SourceMethods,
    SplitNames,
    Steps,
    Strategy,
    Template,
    WarmUp,
)
from prompttransfer.cli.transfer_again import finished, show_finished
from prompttransfer.cli.transfer_tables import kind_of_start
from prompttransfer.cli.transfer_tune import check_names, check_tuning, distilling_of
from prompttransfer.cli.values import OneOf, Output, Whole, checked, lines_of
from prompttransfer.transfers.files import MARKER

if TYPE_CHECKING:
    from prompttransfer.transfers.library import LibraryTransfer
    from prompttransfer.transfers.matrix import TransferMatrix


@checked
def transfer(
    sources: Annotated[
        list[Path] | None, typer.Argument(help="Source prompt folders, or folders of them.")
    ] = None,
    to: Annotated[
        list[str] | None, typer.Option("--to", help="Target tasks, by name or YAML file; needed.")
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Train each target from each source, and from scratch beside it.")
    ] = False,
    distil: Annotated[
        bool,
        typer.Option(
            "--distil",
            help="With --tune: train each target from scratch, too, with what was tuned from the source as its teacher (PANDA).",
        ),
    ] = False,
    distil_weight: Annotated[
        str | None,
        typer.Option(
            "--distil-weight",
            help="Of the distance to that teacher: similarity (a tenth of that of source and target; the default) or a number.",
        ),
    ] = None,
    method: SourceMethods = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", "-b", help="Another backbone than the prompts' own.")
    ] = None,
    revision: Revision = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for matrices, figures and prompts."),
        Output(standard="runs/transfer"),
    ] = None,
    data: DataFolder = None,
    columns: Columns = None,
    labels: LabelValues = None,
    splits: SplitNames = None,
    skip_empty: SkipEmpty = False,
    metric: MetricName = None,
    label_words: LabelWords = None,
    head: HeadAsked = False,
    aggregation: Aggregation = None,
    template: Template = None,
    other_layout: OtherLayout = False,
    other_backbone: OtherBackbone = False,
    seeds: Seeds = None,
    one_split: OneSplit = False,
    steps: Steps = None,
    batch: Batch = None,
    lr: LearningRate = None,
    optimizer: Optimizer = None,
    schedule: Schedule = None,
    warm_up: WarmUp = None,
    evaluate_every: EvaluateEvery = None,
    patience: Patience = None,
    max_length: MaxLength = None,
    limit_train: LimitTrain = None,
    shots: Shots = None,
    limit_test: LimitTest = None,
    calibrate: Calibrate = "none",
    predictions: Predictions = None,
    random_draws: RandomDraws = None,
    in_context: Annotated[
        int | None,
        typer.Option(
            "--in-context",
            help="A row with so many labelled training rows of each target in front of its rows.",
        ),
        Whole(1, 1000),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option("--draws", help="Draws of those rows, of which it is the mean (5)."),
        Whole(1, 1000),
    ] = None,
    precision: Precision = "auto",
    device: Device = "auto",
    devices: Devices = 1,
    strategy: Strategy = "auto",
    nodes: Nodes = 1,
    from_library: Annotated[
        Path | None,
        typer.Option(
            "--from-library",
            help="In place of sources: a folder of them, of which those most like the target are taken (SPoT).",
        ),
    ] = None,
    retrieve: Annotated[
        str | None, typer.Option("--retrieve", help="How many sources are taken from the library, as top-3.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            help="What tells that a source is like the target: C_average, C_average-token, rows, ON ...",
        ),
    ] = None,
    how: Annotated[
        str | None,
        typer.Option(
            "--how",
            help="best: train from each and keep the best by validation; average: from their mean by similarity; both.",
        ),
        OneOf("way to use sources", ("average", "best", "both")),
    ] = None,
    target_prompt: Annotated[
        Path | None,
        typer.Option("--target-prompt", help="A prompt of the target to rank by, in place of a short run."),
    ] = None,
    all_steps: Annotated[
        bool | None,
        typer.Option(
            "--all-steps/--no-all-steps",
            help="With a library: also train from scratch for as many steps as sources, probe and runs took.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> TransferMatrix | LibraryTransfer:
    """Use source prompts on target tasks with the targets' own templates and label words.

    Sources of several methods stand in one matrix, each named with its own; --method chooses among them, and
    `plot heatmap` draws one beside the other. Without --tune nothing is trained: the result is a matrix with the rows `no prompt` (also with its label words
    calibrated), `random prompt` and `majority` beneath, with --calibrate a second one of calibrated scores. With --tune each source is also the start of a training run on each target (TPT_task), with
    the target's run from scratch beside it and both speed-ups of the paper. Prompts that `project apply` carried from
    another model are used in the same way (TPT_model). With --distil, too, each target is trained from scratch with what was
    tuned from each source as its teacher, at the same steps. With --in-context stands beside them what is done without any
    training: labelled rows in front of each row, the mean over --draws. With --devices every device takes a share of the rows.
    With --from-library the sources that are most like each target are found first, and what is trained from them stands
    beside training from scratch with the same steps.
    From Python nothing is written without `output`.
    """
    given = dict(locals())
    check_sources(given)
    if from_library is not None:
        return transfer_from_library(transfer, given)
    assert sources is not None and to is not None
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.backbones.locating import locate
    from prompttransfer.cli.data import data_options, where_given
    from prompttransfer.cli.evaluate import backbone_of
    from prompttransfer.cli.tables import read_prompts
    from prompttransfer.distributed.launching import must_start, run_on
    from prompttransfer.distributed.placement import Placement
    from prompttransfer.evaluation.calibration import calibration_of
    from prompttransfer.files import check_free
    from prompttransfer.outputs import Files, settings_of
    from tasks.errors import UserError

    placement = Placement(devices, strategy, nodes)
    calibration = calibration_of(calibrate)
    encoding = Encoding(max_length=max_length, aggregation=aggregation, template=lines_of(template))
    if draws is not None and in_context is None:
        raise UserError("--draws are those of the rows of --in-context: give both")
    distilling = distilling_of(given)
    prompts = read_prompts(sources, method)
    rows = data_options(given)
    tasks = rows.tasks(to, prompts)
    chosen = list(dict.fromkeys(seeds or [0]))
    if tune:
        check_tuning(prompts, tasks, warm_up, steps)
    check_names(prompts, [task.name for task in tasks], chosen if tune else [], distilled=distil)
    at = locate(backbone or prompts[0].backbone, revision)[1]
    settings = settings_of("transfer", where_given(given, "head")) | {"backbone revision": at}
    beside = Files((predictions,) if predictions else (), settings)
    beside.check(overwrite=overwrite)
    if output is not None:
        check_free(output, marker=MARKER)
        complete = predictions is None or predictions.exists()
        if not overwrite and complete and (there := finished(output, settings)) is not None:
            return show_finished(there, output, kind_of_start(prompts), as_json=as_json)
    elif tune:
        raise UserError(
            "tune=True returns the matrix alone: give output for the tuned prompts, or call prompttransfer.tune"
        )
    if must_start(placement, device):
        return run_on(placement, transfer, **given)
    from prompttransfer.cli.transfer_run import TransferRun

    targets = rows.targets(tasks, chosen)
    model = backbone_of(prompts, backbone, precision, device, placement, revision=revision)
    model.takes_any = other_backbone
    run = TransferRun(given, prompts, targets, chosen, model, encoding)
    run.announce()
    found = run.carry_out(calibration, distilling)
    if run.first:
        run.keep(found, transfer, settings, beside)
        run.show(found)
    return found.matrix
