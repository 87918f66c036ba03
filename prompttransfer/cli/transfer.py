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
from prompttransfer.cli.values import OneOf, Output, Whole, checked, lines_of
from prompttransfer.transfers.files import FILES, MARKER, record_of, write_transfer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.evaluation.evaluate import Score
    from prompttransfer.reports.run_folder import MatrixRecord
    from prompttransfer.training.train import Trained, TrainingOptions
    from prompttransfer.transfers.distilled import DistilledPair, DistilledTransfer, Distilling
    from prompttransfer.transfers.library import LibraryTransfer
    from prompttransfer.transfers.matrix import TransferMatrix
    from prompttransfer.transfers.speedups import Range
    from prompttransfer.transfers.tuning import TunedPair, TunedTransfer
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

    from prompttransfer.adaptations.running import common_method
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.backbones.locating import locate
    from prompttransfer.cli.common import (
        load_targets,
        only_the_first_speaks,
        print_json,
        resolve_tasks,
        say,
        seeds_line,
        words_line,
    )
    from prompttransfer.cli.evaluate import backbone_of
    from prompttransfer.cli.tables import read_prompts
    from prompttransfer.distributed.launching import must_start, run_on
    from prompttransfer.distributed.placement import Placement
    from prompttransfer.evaluation.calibration import calibration_of
    from prompttransfer.evaluation.predictions import predicted_lines, write_predictions
    from prompttransfer.files import atomic_folder, check_free, write_json
    from prompttransfer.outputs import SETTINGS, Files, keep_others, plain, settings_of
    from tasks.errors import UserError
    from tasks.reading import parse_reading

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
    if tune:
        common_method(prompts)
    reading = parse_reading(columns, labels, splits, skip_empty=skip_empty)
    tasks = resolve_tasks(to, label_words, prompts, reading, data, metric)
    check_names(
        prompts,
        [task.name for task in tasks],
        list(dict.fromkeys(seeds or [0])) if tune else [],
        distilled=distil,
    )
    at = locate(backbone or prompts[0].backbone, revision)[1]
    settings = settings_of("transfer", given) | {"backbone revision": at}
    beside = Files((predictions,) if predictions else (), settings)
    beside.check(overwrite=overwrite)
    if output is not None:
        check_free(output, marker=MARKER)
        complete = predictions is None or predictions.exists()
        if not overwrite and complete and (there := finished(output, settings)) is not None:
            return show_finished(there, output, as_json=as_json)
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
    targets = load_targets(
        tasks,
        data=data,
        limit_train=limit_train,
        limit_test=limit_test,
        seeds=chosen,
        one_split=one_split,
        shots=shots,
    )
    model = backbone_of(prompts, backbone, precision, device, placement, revision=revision)
    model.takes_any = other_backbone
    first = only_the_first_speaks(model)
    for task in tasks:
        if not task.generates:
            answers = model.answers(task, encoding)
            say(f"label words of {words_line(task.name, answers.mapping if answers else {})}", quiet=as_json)
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
        result, taught, options = _tune(
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
    if not first:
        return matrix
    if predictions is not None:
        beside.claim()
        write_predictions(predictions, said)
    record = record_of(model, matrix, tasks, targets, pairs, distilled)
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
        print_matrix(matrix)
        if matrix.calibrated is not None:
            print_matrix(matrix.calibrated, f"zero-shot transfer, calibrated ({matrix.calibration})")
        if pairs:
            print_pairs(pairs, kind_of_start(prompts))
            for line in seen_lines(prompts, targets, chosen):
                say(line)
        if distilled:
            print_distilled(distilled)
        if output is not None:
            say(f"written to {output}: " + ", ".join(sorted(p.name for p in output.iterdir())))
    return matrix


def distilling_of(weight: str | None) -> Distilling:
    """What --distil-weight asks for. Raises UserError."""
    from prompttransfer.transfers.distilled import CONSTANT, Distilling
    from tasks.errors import UserError

    if weight is None or weight == "similarity":
        return Distilling()
    try:
        number = float(weight)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e30:
        raise UserError(
            f"--distil-weight {weight}: give 'similarity' or a number of 0 or more, such as {CONSTANT:g}"
        )
    return Distilling(number)


def check_names(
    prompts: Sequence[Adaptation], targets: Sequence[str], seeds: Sequence[int], *, distilled: bool = False
) -> None:
    """Raise UserError where two tuned ones would share a name, or a name cannot be a folder's."""
    from prompttransfer.files import safe_name
    from tasks.errors import UserError

    names = [prompt.name for prompt in prompts]
    wanted = tuned_names(names, targets, seeds) + (student_names(names, targets, seeds) if distilled else [])
    tuned = [safe_name(name, "name of a tuned prompt") for name in wanted]
    twice = next((name for name in tuned if tuned.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two tuned prompts would be called {twice!r}: rename a source prompt or a task")


def tuned_names(sources: Sequence[str], targets: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """The names of the runs of --tune: for every target and seed the one from scratch, then one a source."""
    from prompttransfer.transfers.tuning import run_name

    return [
        f"{start}-s{seed}"
        for target in targets
        for seed in seeds
        for start in (f"{target}-scratch", *(run_name(source, target) for source in sources))
    ]


def student_names(sources: Sequence[str], targets: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """The names of the runs of --distil, in their order."""
    from prompttransfer.transfers.distilled import student_name

    return [student_name(source, target, seed) for target in targets for seed in seeds for source in sources]


def finished(output: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The record of the transfer in `output`, if it was made with these settings; None if there is none.

    Raises UserError for one of other settings.
    """
    from prompttransfer.outputs import check_same, settings_in
    from tasks.documents import read_json_object

    if not (output / MARKER).exists():
        return None
    check_same(output, settings_in(output), settings, what="a finished transfer")
    return read_json_object(output / MARKER, "transfer matrix")


def show_finished(record: dict[str, Any], output: Path, *, as_json: bool) -> TransferMatrix:
    """Print and return what was made before with the same settings."""
    from dataclasses import replace

    from prompttransfer.cli.common import print_json, say
    from prompttransfer.reports.run_folder import read_transfer

    found = read_transfer(output / MARKER)
    matrix = matrix_of(found.raw)
    if found.calibrated is not None:
        matrix = replace(matrix, calibrated=matrix_of(found.calibrated), calibration=found.raw.calibration)
    if as_json:
        print_json(record)
        return matrix
    print_matrix(matrix)
    if matrix.calibrated is not None:
        print_matrix(matrix.calibrated, f"zero-shot transfer, calibrated ({matrix.calibration})")
    say(f"made before with the same settings, nothing is left to do; all of it is in {output}")
    return matrix


def matrix_of(record: MatrixRecord) -> TransferMatrix:
    """The matrix that a record holds."""
    import torch

    from prompttransfer.transfers.matrix import TransferMatrix

    nan = float("nan")
    values = [[nan if value is None else value for value in row] for row in record.values]
    return TransferMatrix(
        sources=tuple(record.sources),
        source_tasks=tuple(record.source_tasks),
        targets=tuple(record.targets),
        values=torch.tensor(values, dtype=torch.float64).reshape(len(record.sources), len(record.targets)),
        metrics=tuple(record.metrics),
        rows=tuple(record.rows),
        impossible=record.impossible,
        impossible_cells=record.impossible_cells,
        methods=tuple(record.methods),
        calibration=record.calibration,
        in_context=record.in_context,
        in_context_spread=tuple(nan if value is None else value for value in record.in_context_spread),
    )


def _tune(
    model: Backbone,
    prompts: Sequence[Adaptation],
    targets: Sequence[Target],
    seeds: Sequence[int],
    overrides: dict[str, Any],
    *,
    encoding: Encoding,
    distilling: Distilling | None,
    output: Path,
    quiet: bool,
) -> tuple[TunedTransfer, DistilledTransfer | None, TrainingOptions]:
    from prompttransfer.adaptations.running import common_method
    from prompttransfer.cli.common import console, say
    from prompttransfer.training.progress import TrainingProgress
    from prompttransfer.training.recipes import recipe_for
    from prompttransfer.training.train import TrainingOptions
    from prompttransfer.transfers.distilled import check_distilling, distil
    from prompttransfer.transfers.tuning import tune

    method = common_method(prompts)
    if distilling is not None:
        check_distilling(distilling, prompts, targets)
    recipe = recipe_for(model, method, **overrides)
    for remark in method.remarks(model):
        say(remark, quiet=quiet)
    say(f"recipe: {recipe.told(method)}", quiet=quiet)
    names = tuned_names([p.name for p in prompts], [t.task.name for t in targets], seeds)
    say(f"tuning: {len(names)} runs in one bank", quiet=quiet)
    with TrainingProgress(console, names, recipe.steps) as progress:
        options = TrainingOptions(state_folder=output.parent, progress=None if quiet else progress)
        result = tune(
            model,
            prompts,
            targets,
            recipe,
            seeds=seeds,
            encoding=encoding,
            options=options,
        )
    if distilling is None:
        return result, None, options
    names = student_names([p.name for p in prompts], [t.task.name for t in targets], seeds)
    say(f"distilling: {len(names)} runs in one bank", quiet=quiet)
    with TrainingProgress(console, names, recipe.steps) as progress:
        options.progress = None if quiet else progress
        taught = distil(
            model,
            prompts,
            targets,
            recipe,
            result,
            distilling,
            seeds=seeds,
            encoding=encoding,
            options=options,
        )
    return result, taught, options


def print_matrix(matrix: TransferMatrix, title: str = "zero-shot transfer") -> None:
    """The matrix in per cent, with the reference rows beneath and how far random prompts lie apart."""
    from prompttransfer.cli.common import say, table
    from prompttransfer.transfers.matrix import IN_CONTEXT, RANDOM_PROMPT, RANDOM_ROWS

    shared = "microworld-" if all(name.startswith("microworld-") for name in matrix.targets) else ""
    rows = []
    for name, row in zip(matrix.sources, matrix.values.tolist(), strict=True):
        rows.append([name.removeprefix(shared), *map(_per_cent, row)])
        if name in RANDOM_ROWS and matrix.random_draws:
            rows.append(["  its spread", *map(_per_cent, matrix.random_spread)])
        if name == IN_CONTEXT and matrix.in_context:
            rows.append(["  its spread", *map(_per_cent, matrix.in_context_spread)])
    rows_are = "source prompts" if RANDOM_PROMPT in matrix.sources else "sources"
    table(
        f"{title}, per cent (rows: {rows_are}, columns: target tasks"
        + (f"; {shared!r} left out of the names)" if shared else ")"),
        ["", *(name.removeprefix(shared) for name in matrix.targets)],
        rows,
    )
    if seeds := _seed_rows(matrix):
        table(
            "the same, mean over the prompts of a source task ± standard deviation",
            ["", *(name.removeprefix(shared) for name in matrix.targets)],
            [[name.removeprefix(shared), *cells] for name, *cells in seeds],
        )
    for line in impossible_lines(matrix):
        say(line)
    if matrix.random_draws:
        say(
            f"{next(n for n in matrix.sources if n in RANDOM_ROWS)}: mean and standard deviation of {matrix.random_draws} draws, each with random directions "
            "at the norms of one source's vectors"
        )
    if matrix.in_context:
        say(f"in-context: {matrix.in_context}; mean and standard deviation")
    if matrix.written:
        say(f"calibrated: none for {', '.join(matrix.written)}, whose answer is written")


def impossible_lines(matrix: TransferMatrix) -> list[str]:
    """Why there are dashes in a matrix, each reason once with the cells that it holds for."""
    from prompttransfer.cli.common import few

    cells: dict[str, list[str]] = {}
    for source, targets in matrix.impossible_cells.items():
        for target, reason in targets.items():
            cells.setdefault(reason, []).append(f"{source} on {target}")
    columns = [f"{target}: {reason}" for target, reason in matrix.impossible.items()]
    return [*columns, *(f"{few(found, 4)}: {reason}" for reason, found in cells.items())]


def _per_cent(value: float) -> str:
    return "-" if value != value else f"{100 * value:.1f}"


def _times(pair: TunedPair, found: Range | None, *, never: bool = False) -> str:
    """What is known of a speed-up, or why there is none, for people."""
    return pair.outcome if found is None else f"{found}{' (never)' * never}"


def kind_of_start(prompts: Sequence[Adaptation]) -> str:
    """The paper's name for the run: TPT_model where every source was carried from another model, else TPT_task."""
    carried = [prompt.origin.start.startswith("projected:") for prompt in prompts]
    return "TPT_model" if all(carried) else "TPT_task"


def print_pairs(pairs: Sequence[TunedPair], kind: str = "TPT_task") -> None:
    """Transfer as initialisation beside training from scratch."""
    from prompttransfer.cli.common import number, say, table

    rows = [
        [
            pair.source,
            pair.target,
            str(pair.seed),
            number(pair.step0),
            number(pair.tuned),
            number(pair.scratch),
            number(pair.chance),
            str(pair.tuned_steps),
            str(pair.scratch_steps),
            _times(pair, pair.convergence),
            _times(pair, pair.comparable, never=pair.reach_steps is None),
        ]
        for pair in pairs
    ]
    table(
        f"\ntransfer as initialisation ({kind}) beside training from scratch",
        [
            "source",
            "target",
            "seed",
            "step 0 (val.)",
            "test",
            "scratch test",
            "chance",
            "steps",
            "scratch steps",
            "convergence",
            "comparable",
        ],
        rows,
        left=2,
    )
    _print_pair_means(pairs)
    for line in speed_up_lines(pairs):
        say(line)
    if len({pair.seed for pair in pairs}) == 1:
        say("one seed: differences here are not evidence; give --seeds 0 1 2 for a spread")


def _print_pair_means(pairs: Sequence[TunedPair]) -> None:
    """Mean and spread over seeds of each source and target; nothing where each has one seed."""
    from statistics import fmean, stdev

    from prompttransfer.cli.common import number, table

    groups: dict[tuple[str, str], list[TunedPair]] = {}
    for pair in pairs:
        groups.setdefault((pair.source, pair.target), []).append(pair)
    rows = []
    for (source, target), group in groups.items():
        if len(group) < 2:
            continue
        gains = [pair.tuned - pair.scratch for pair in group]
        tuned, scratch = [pair.tuned for pair in group], [pair.scratch for pair in group]
        values = (fmean(tuned), stdev(tuned), fmean(scratch), stdev(scratch), fmean(gains), stdev(gains))
        rows.append([source, target, str(len(group)), *map(number, values)])
    if rows:
        columns = ["source", "target", "seeds", "test", "spread", "scratch test", "spread", "gain", "spread"]
        table("mean over seeds (spread: standard deviation)", columns, rows, left=2)


def _seed_rows(matrix: TransferMatrix) -> list[list[str]]:
    """Rows of the source tasks that have several sources of one method, as those of several seeds: mean ± deviation."""
    from statistics import mean, stdev

    from prompttransfer.transfers.matrix import REFERENCE_ROWS

    groups: dict[tuple[str, str], list[list[float]]] = {}
    methods = [*matrix.methods, *[""] * (len(matrix.sources) - len(matrix.methods))]  # references have none
    values = matrix.values.tolist()
    for name, task, method, row in zip(matrix.sources, matrix.source_tasks, methods, values, strict=True):
        if name not in REFERENCE_ROWS:
            groups.setdefault((task, method), []).append(row)
    several = len({method for _, method in groups}) > 1
    rows = []
    for (task, method), group in groups.items():
        if len(group) < 2:
            continue
        cells = []
        for column in zip(*group, strict=True):
            known = [value for value in column if value == value]
            spread = f" ±{100 * stdev(known):.1f}" if len(known) > 1 else ""
            cells.append(f"{100 * mean(known):.1f}{spread}" if known else "-")
        rows.append([f"{task}, {method}" if several and method else task, *cells])
    return rows


def print_distilled(pairs: Sequence[DistilledPair]) -> None:
    """Teachers beside starts: the same targets from scratch, from the source, and from scratch with a teacher."""
    from prompttransfer.cli.common import number, say, table

    rows = [
        [
            pair.source,
            pair.target,
            str(pair.seed),
            "-" if pair.similarity is None else number(pair.similarity),
            f"{pair.weight:.4f}",
            *map(number, (pair.chance, pair.scratch, pair.transferred, pair.distilled)),
            f"{pair.scratch_steps} / {pair.transferred_steps} / {pair.distilled_steps}",
            " / ".join("?" if steps is None else str(steps) for steps in pair.all_steps),
        ]
        for pair in pairs
    ]
    table(
        "\ndistilled from what was tuned from the source (PANDA), beside it and training from scratch: test scores",
        [
            "source",
            "target",
            "seed",
            "similarity",
            "weight",
            "chance",
            "scratch",
            "TPT_task",
            "distilled",
            "target steps",
            "all steps",
        ],
        rows,
        left=2,
    )
    mean = [
        sum(getattr(pair, name) for pair in pairs) / len(pairs)
        for name in ("scratch", "transferred", "distilled")
    ]
    won = [
        sum(pair.distilled > getattr(pair, other) for pair in pairs) for other in ("transferred", "scratch")
    ]
    say(
        f"means over {len(pairs)} runs: scratch {mean[0]:.3f}, TPT_task {mean[1]:.3f}, distilled {mean[2]:.3f}; distilled is above "
        f"TPT_task in {won[0]} of them and above scratch in {won[1]}"
    )
    say(
        "steps are those of scratch / TPT_task / distilled; all of them count the source's and the teacher's own"
    )


def speed_up_lines(pairs: Sequence[TunedPair]) -> list[str]:
    """What the speed-ups of all pairs come down to; pairs that have none are counted, not left out in silence."""
    from prompttransfer.transfers.speedups import median_range
    from prompttransfer.transfers.tuning import DID_NOT_LEARN, NOTHING_TO_LEARN

    counted = [pair for pair in pairs if pair.outcome != NOTHING_TO_LEARN]
    learned = [pair.convergence for pair in counted if pair.convergence is not None]
    flat = sum(pair.outcome == DID_NOT_LEARN for pair in counted)
    reached = sum(pair.reach_steps is not None for pair in counted)
    comparable = [pair.comparable for pair in counted if pair.comparable is not None]
    lines = [
        f"convergence: median {median_range(learned) or '-'} over {len(learned)} of {len(counted)} runs, {flat} did not "
        "learn; scratch steps over steps, each to 99 % of the run's own best validation score",
        f"comparable: median {median_range(comparable) or '-'} over {len(counted)} runs, {reached} of which reached it; "
        "scratch steps over steps, both to 99 % of the best validation score from scratch",
        "ranges, because a run is looked at every "
        f"{pairs[0].evaluate_every} steps only; a run learned if its best is at least 99 % of that from scratch",
    ]
    if left_out := len(pairs) - len(counted):
        lines.append(f"{left_out} of {len(pairs)} runs are not in the medians: scratch learned nothing there")
    return lines


def seen_lines(prompts: Sequence[Adaptation], targets: Sequence[Target], seeds: Sequence[int]) -> list[str]:
    """What to know where a source was trained on rows that validate a run: on the same task with another split."""
    seen = [
        f"{prompt.name} on seed {seed}"
        for prompt in prompts
        for target in targets
        for seed in seeds
        if prompt.task == target.task.name
        and prompt.origin.data.get("split_seed", 0) != target.rows(seed).seed
    ]
    if not seen:
        return []
    started = "a prompt" if all(prompt.has_vectors for prompt in prompts) else "a source"
    return [
        f"{len(seen)} runs start from {started} of the same task with another split ({seen[0]}, ...), which has learned "
        "from some of their validation rows: their steps and speed-ups are too good, their test scores are not"
    ]
