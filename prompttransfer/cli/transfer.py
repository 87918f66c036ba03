"""`prompttransfer transfer`: source prompts on target tasks, zero-shot or (`--tune`) as initialisation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from prompttransfer.cli.transfer_tables import (
    kind_of_start,
    print_transfer,
    seen_lines,
)
from prompttransfer.cli.transfer_tune import check_names, distilling_of, predictions_of_tuned, run_tuning
from prompttransfer.cli.values import OneOf, Output, Whole, checked, lines_of
from prompttransfer.transfers.files import FILES, MARKER, record_of, write_transfer

if TYPE_CHECKING:
    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.evaluation.evaluate import Score
    from prompttransfer.training.train import Trained, TrainingOptions
    from prompttransfer.transfers.distilled_pairs import DistilledPair
    from prompttransfer.transfers.library import LibraryTransfer
    from prompttransfer.transfers.matrix import TransferMatrix
    from prompttransfer.transfers.tuned_pairs import TunedPair
    from prompttransfer.transfers.zero_shot import Target


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
    from dataclasses import replace

    from prompttransfer.adaptations.heads import check_head
    from prompttransfer.adaptations.running import common_method, other_words
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.backbones.locating import locate
    from prompttransfer.cli.common import (
        answers_line,
        only_the_first_speaks,
        print_json,
        say,
        seeds_line,
        warn,
    )
    from prompttransfer.cli.data import data_options, where_given
    from prompttransfer.cli.evaluate import backbone_of
    from prompttransfer.cli.tables import read_prompts
    from prompttransfer.distributed.launching import must_start, run_on
    from prompttransfer.distributed.placement import Placement
    from prompttransfer.evaluation.calibration import calibration_of
    from prompttransfer.evaluation.predictions import predicted_lines, write_predictions
    from prompttransfer.files import atomic_folder, check_free, write_json
    from prompttransfer.outputs import SETTINGS, Files, keep_others, plain, settings_of
    from prompttransfer.training.recipes import check_warm_up
    from tasks.errors import UserError

    placement = Placement(devices, strategy, nodes)
    calibration = calibration_of(calibrate)
    encoding = Encoding(max_length=max_length, aggregation=aggregation, template=lines_of(template))
    if draws is not None and in_context is None:
        raise UserError("--draws are those of the rows of --in-context: give both")
    distilling = distilling_of(distil_weight) if distil else None
    if (distil or distil_weight is not None) and not (tune and distil):
        raise UserError(
            "--distil has what --tune trains as its teachers, and --distil-weight is of it: give them together"
        )
    prompts = read_prompts(sources, method)
    rows = data_options(given)
    tasks = rows.tasks(to, prompts)
    if tune:
        check_warm_up(warm_up, steps)
        trained_by = common_method(prompts)
        for task in tasks:
            check_head(trained_by, task)
    check_names(
        prompts,
        [task.name for task in tasks],
        list(dict.fromkeys(seeds or [0])) if tune else [],
        distilled=distil,
    )
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
    from prompttransfer.reports.calls import commit_of, note_call, precision_name, recipe_options, remember
    from prompttransfer.transfers.in_context import Shown, with_in_context
    from prompttransfer.transfers.zero_shot import zero_shot

    chosen = list(dict.fromkeys(seeds or [0]))
    targets = rows.targets(tasks, chosen)
    model = backbone_of(prompts, backbone, precision, device, placement, revision=revision)
    model.takes_any = other_backbone
    first = only_the_first_speaks(model)
    for task in tasks:
        if not task.generates:
            answers = model.answers(task, encoding)
            say(answers_line(task, answers.mapping if answers else {}), quiet=as_json)
    for line in other_words(model, prompts, tasks, encoding):
        warn(line)
    said: list[dict[str, Any]] = []

    def keep(source: Adaptation, target: Target, score: Score) -> None:
        assert score.answered is not None
        said.extend(predicted_lines(source.name, target.task, target.splits.test, score.answered))

    matrix = zero_shot(
        model,
        prompts,
        targets,
        other_layout=other_layout,
        encoding=encoding,
        calibration=calibration,
        draws=random_draws,
        advance=lambda name: say(f"zero-shot: {name}", quiet=as_json),
        keep=keep if predictions is not None else None,
    )
    if in_context is not None:
        matrix = with_in_context(
            model,
            matrix,
            targets,
            Shown(in_context, draws or 5),
            replace(encoding, layout=prompts[0].layout),
            calibration=calibration,
            advance=lambda name: say(f"in-context: {name}", quiet=as_json),
        )
    pairs: list[TunedPair] = []
    distilled: list[DistilledPair] = []
    trained: list[Trained] = []
    options: TrainingOptions | None = None
    if tune and output is not None:
        say(seeds_line(chosen, one_split=one_split, shots=shots), quiet=as_json)
        result, taught, options = run_tuning(
            model,
            prompts,
            [t for t in targets if t.task.name not in matrix.impossible],
            chosen,
            dict(
                steps=steps,
                batch=batch,
                lr=lr,
                optimizer=optimizer,
                schedule=schedule,
                warm_up=warm_up,
                evaluate_every=evaluate_every,
                patience=patience,
            ),
            encoding=encoding,
            distilling=distilling,
            output=output,
            quiet=as_json,
        )
        pairs, trained = list(result.pairs), list(result.trained)
        if taught is not None:
            distilled, trained = list(taught.pairs), [*trained, *taught.trained]
    if predictions is not None:
        said += predictions_of_tuned(model, trained, targets)
    notes = seen_lines(prompts, targets, chosen) if pairs else []
    if not first:
        return matrix
    if predictions is not None:
        beside.claim()
        write_predictions(predictions, said)
    record = record_of(model, matrix, tasks, targets, pairs, distilled, notes)
    if output is not None:
        with atomic_folder(output, marker=MARKER) as folder:
            write_transfer(folder, matrix, record, pairs, trained, distilled)
            write_json(folder / SETTINGS, plain(settings))
            recipe = recipe_options(trained[0].adaptation.settings) if trained else {}
            call = remember(
                "transfer",
                transfer,
                given,
                **recipe,
                revision=commit_of(model.revision),
                precision=precision_name(model.precision),
            )
            note_call([folder / MARKER], call)
            keep_others(output, folder, FILES)
    if options is not None:
        options.clear()
    if as_json:
        print_json(record)
    else:
        print_transfer(matrix, pairs, distilled, notes, kind_of_start(prompts))
        if output is not None:
            say(f"written to {output}: " + ", ".join(sorted(p.name for p in output.iterdir())))
    return matrix
