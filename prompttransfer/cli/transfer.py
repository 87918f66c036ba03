"""`prompttransfer transfer`: source prompts on target tasks, zero-shot or (`--tune`) as initialisation."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.cli.options import (
    Aggregation,
    AsJson,
    Batch,
    Calibrate,
    DataFolder,
    Device,
    Devices,
    EvaluateEvery,
    LabelWords,
    LearningRate,
    LimitTest,
    LimitTrain,
    MaxLength,
    Nodes,
    Optimizer,
    OtherLayout,
    Overwrite,
    Patience,
    Precision,
    Seeds,
    Steps,
    Strategy,
)
from prompttransfer.cli.values import Output, checked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prompttransfer.backbones import Backbone
    from prompttransfer.matrix import TransferMatrix
    from prompttransfer.prompt import Prompt
    from prompttransfer.reuse import Target, TunedPair, TunedTransfer
    from prompttransfer.run_folder import MatrixRecord
    from prompttransfer.training import Trained, TrainingOptions
    from tasks.task import Task

MARKER = "transfer.json"
FILES = (MARKER, "transfer.csv", "transfer_relative.csv", "transfer_calibrated.csv", "tuned.csv", "prompts")
"""What the folder of a transfer holds of ours; all else in it is the user's and stays."""


@checked
def transfer(
    sources: Annotated[list[Path], typer.Argument(help="Source prompt folders, or folders of them.")],
    to: Annotated[list[str], typer.Option("--to", help="Target tasks, by name or YAML file.")],
    tune: Annotated[
        bool, typer.Option("--tune", help="Train each target from each source, and from scratch beside it.")
    ] = False,
    backbone: Annotated[
        str | None, typer.Option("--backbone", "-b", help="Another backbone than the prompts' own.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for matrices, figures and prompts."),
        Output(standard="runs/transfer"),
    ] = None,
    data: DataFolder = None,
    label_words: LabelWords = None,
    aggregation: Aggregation = None,
    other_layout: OtherLayout = False,
    seeds: Seeds = None,
    steps: Steps = None,
    batch: Batch = None,
    lr: LearningRate = None,
    optimizer: Optimizer = None,
    evaluate_every: EvaluateEvery = None,
    patience: Patience = None,
    max_length: MaxLength = None,
    limit_train: LimitTrain = None,
    limit_test: LimitTest = None,
    calibrate: Calibrate = "none",
    precision: Precision = "auto",
    device: Device = "auto",
    devices: Devices = 1,
    strategy: Strategy = "auto",
    nodes: Nodes = 1,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> TransferMatrix:
    """Use source prompts on target tasks with the targets' own templates and label words.

    Without --tune nothing is trained: the result is a matrix with the rows `no prompt` (also with its label words
    calibrated), `random prompt` and `majority` beneath, with --calibrate a second one of calibrated scores. With --tune each source is also the start of a training run on each target (TPT_task), with
    the target's run from scratch beside it and both speed-ups of the paper. Prompts that `project apply` carried from
    another model are used in the same way (TPT_model). With --devices every device takes a share of the rows.
    From Python nothing is written without `output`.
    """
    given = dict(locals())
    from prompttransfer.calibration import calibration_of
    from prompttransfer.cli.common import (
        load_targets,
        only_the_first_speaks,
        print_json,
        resolve_tasks,
        say,
        words_line,
    )
    from prompttransfer.cli.evaluate import backbone_of, load_prompts
    from prompttransfer.files import atomic_folder, check_free
    from prompttransfer.launching import must_start, run_on
    from prompttransfer.outputs import keep_others, settings_of
    from prompttransfer.placement import Placement
    from tasks.errors import UserError

    placement = Placement(devices, strategy, nodes)
    calibration = calibration_of(calibrate)
    prompts = load_prompts(sources)
    tasks = resolve_tasks(to, label_words, prompts)
    check_names(prompts, [task.name for task in tasks], list(dict.fromkeys(seeds or [0])) if tune else [])
    settings = settings_of("transfer", given)
    if output is not None:
        check_free(output, marker=MARKER)
        if not overwrite and (there := finished(output, settings)) is not None:
            return show_finished(there, output, as_json=as_json)
    elif tune:
        raise UserError(
            "tune=True returns the matrix alone: give output for the tuned prompts, or call prompttransfer.tune"
        )
    if must_start(placement, device):
        return run_on(placement, transfer, **given)
    from prompttransfer.reuse import zero_shot

    targets = load_targets(tasks, data=data, limit_train=limit_train, limit_test=limit_test)
    model = backbone_of(prompts, backbone, precision, device, placement)
    first = only_the_first_speaks(model)
    for task in tasks:
        if not task.generates:
            answers = model.answers(task, aggregation)
            say(f"label words of {words_line(task.name, answers.mapping if answers else {})}", quiet=as_json)
    matrix = zero_shot(
        model,
        prompts,
        targets,
        other_layout=other_layout,
        max_length=max_length,
        aggregation=aggregation,
        calibration=calibration,
        advance=lambda name: say(f"zero-shot: {name}", quiet=as_json),
    )
    pairs: list[TunedPair] = []
    trained: list[Trained] = []
    options: TrainingOptions | None = None
    if tune and output is not None:
        result, options = _tune(
            model,
            prompts,
            [t for t in targets if t.task.name not in matrix.impossible],
            seeds or [0],
            dict(
                steps=steps,
                batch=batch,
                lr=lr,
                optimizer=optimizer,
                evaluate_every=evaluate_every,
                patience=patience,
                length=prompts[0].length,
            ),
            max_length=max_length,
            aggregation=aggregation,
            output=output,
            quiet=as_json,
        )
        pairs, trained = list(result.pairs), list(result.trained)
    if not first:
        return matrix
    record = {**_record(model, matrix, tasks, targets, pairs), "settings": settings}
    if output is not None:
        with atomic_folder(output, marker=MARKER) as folder:
            write_transfer(folder, matrix, record, pairs, trained)
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
        if output is not None:
            say(f"written to {output}: " + ", ".join(sorted(p.name for p in output.iterdir())))
    return matrix


def check_names(prompts: Sequence[Prompt], targets: Sequence[str], seeds: Sequence[int]) -> None:
    """Raise UserError where two prompts share a name, or a tuned prompt's name cannot be a folder of its own."""
    from prompttransfer.files import safe_name
    from tasks.errors import UserError

    names = [prompt.name for prompt in prompts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two prompts are called {twice!r}: rename one folder's prompt, or give one of them")
    tuned = [safe_name(name, "name of a tuned prompt") for name in tuned_names(names, targets, seeds)]
    twice = next((name for name in tuned if tuned.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two tuned prompts would be called {twice!r}: rename a source prompt or a task")


def tuned_names(sources: Sequence[str], targets: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """The names of the runs of --tune: for every target and seed the one from scratch, then one a source."""
    return [
        f"{start}-s{seed}"
        for target in targets
        for seed in seeds
        for start in (f"{target}-scratch", *(f"{source}-to-{target}" for source in sources))
    ]


def finished(output: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The record of the transfer in `output`, if it was made with these settings; None if there is none.

    Raises UserError for one of other settings.
    """
    from prompttransfer.outputs import check_same
    from tasks.documents import read_json_object

    path = output / MARKER
    if not path.exists():
        return None
    record = read_json_object(path, "transfer matrix")
    before = record.get("settings")
    check_same(output, before if isinstance(before, dict) else {}, settings, what="a finished transfer")
    return record


def show_finished(record: dict[str, Any], output: Path, *, as_json: bool) -> TransferMatrix:
    """Print and return what was made before with the same settings."""
    from dataclasses import replace

    from prompttransfer.cli.common import print_json, say
    from prompttransfer.run_folder import read_transfer

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

    from prompttransfer.matrix import TransferMatrix

    values = [[float("nan") if value is None else value for value in row] for row in record.values]
    return TransferMatrix(
        sources=tuple(record.sources),
        source_tasks=tuple(record.source_tasks),
        targets=tuple(record.targets),
        values=torch.tensor(values, dtype=torch.float64).reshape(len(record.sources), len(record.targets)),
        metrics=tuple(record.metrics),
        rows=tuple(record.rows),
        impossible=record.impossible,
        calibration=record.calibration,
    )


def _tune(
    model: Backbone,
    prompts: Sequence[Prompt],
    targets: Sequence[Target],
    seeds: Sequence[int],
    overrides: dict[str, Any],
    *,
    max_length: int | None,
    aggregation: str | None,
    output: Path,
    quiet: bool,
) -> tuple[TunedTransfer, TrainingOptions]:
    from prompttransfer.cli.common import console, say
    from prompttransfer.progress import TrainingProgress
    from prompttransfer.recipes import recipe_for
    from prompttransfer.reuse import tune
    from prompttransfer.training import TrainingOptions

    recipe = recipe_for(model, **overrides)
    say(f"recipe: {recipe}", quiet=quiet)
    wanted = list(dict.fromkeys(seeds))
    names = tuned_names([p.name for p in prompts], [t.task.name for t in targets], wanted)
    say(f"tuning: {len(names)} runs in one bank", quiet=quiet)
    with TrainingProgress(console, names, recipe.steps) as progress:
        options = TrainingOptions(state_folder=output.parent, progress=None if quiet else progress)
        result = tune(
            model,
            prompts,
            targets,
            recipe,
            seeds=wanted,
            max_length=max_length,
            aggregation=aggregation,
            options=options,
        )
    return result, options


def _record(
    model: Backbone,
    matrix: TransferMatrix,
    tasks: Sequence[Task],
    targets: Sequence[Target],
    pairs: Sequence[TunedPair],
) -> dict[str, Any]:
    from prompttransfer.artifacts import versions

    return {
        "backbone": model.name,
        "revision": model.revision,
        "types": {task.name: task.type for task in tasks},
        "data": {t.task.name: {"source": t.splits.source, "revision": t.splits.revision} for t in targets},
        "split": "test (the official validation split)",
        "raw": matrix.as_dict(),
        "relative": matrix.relative().as_dict() if matrix.has_own else None,
        **({"calibrated": matrix.calibrated.as_dict()} if matrix.calibrated else {}),
        "tuned": [pair.as_dict() for pair in pairs],
        "versions": versions(),
    }


def write_transfer(
    folder: Path,
    matrix: TransferMatrix,
    record: dict[str, Any],
    pairs: Sequence[TunedPair],
    trained: Sequence[Trained],
) -> None:
    """Write matrices, record, figures and tuned prompts into a folder."""
    from prompttransfer.artifacts import save_prompt
    from prompttransfer.files import write_json, write_text

    write_text(folder / "transfer.csv", matrix.to_csv())
    if matrix.has_own:
        write_text(folder / "transfer_relative.csv", matrix.relative().to_csv())
    if matrix.calibrated is not None:
        write_text(folder / "transfer_calibrated.csv", matrix.calibrated.to_csv())
    write_json(folder / MARKER, record)
    if pairs:
        write_text(folder / "tuned.csv", pairs_csv(pairs))
    for run in trained:
        save_prompt(run.prompt, folder / "prompts" / run.prompt.name)


def pairs_csv(pairs: Sequence[TunedPair]) -> str:
    """One line a pair of source and target."""
    stream = io.StringIO()
    rows = [pair.as_dict() for pair in pairs]
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def print_matrix(matrix: TransferMatrix, title: str = "zero-shot transfer") -> None:
    """The matrix in per cent, with the reference rows beneath."""
    from prompttransfer.cli.common import say, table

    shared = "microworld-" if all(name.startswith("microworld-") for name in matrix.targets) else ""
    rows = [
        [
            name.removeprefix(shared),
            *("-" if value != value else f"{100 * value:.1f}" for value in row),
        ]
        for name, row in zip(matrix.sources, matrix.values.tolist(), strict=True)
    ]
    table(
        f"{title}, per cent (rows: source prompts, columns: target tasks"
        + (f"; {shared!r} left out of the names)" if shared else ")"),
        ["", *(name.removeprefix(shared) for name in matrix.targets)],
        rows,
    )
    for target, reason in matrix.impossible.items():
        say(f"{target}: {reason}")
    if matrix.written:
        say(f"calibrated: none for {', '.join(matrix.written)}, whose answer is written")


def _times(speedup: float | None, steps: int | None) -> str:
    """A speed-up for people; a run that was there at step 0 has only a lower bound."""
    if speedup is None:
        return "never" if steps is None else "-"
    return ("at least " if steps == 0 else "") + f"{speedup:.1f}x"


def kind_of_start(prompts: Sequence[Prompt]) -> str:
    """The paper's name for the run: TPT_model where every source was carried from another model, else TPT_task."""
    carried = [prompt.initialiser.startswith("projected:") for prompt in prompts]
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
            _times(pair.convergence_speedup, pair.tuned_steps),
            _times(pair.comparable_speedup, pair.reach_steps),
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
    say(
        "convergence: scratch steps over steps, each to 99 % of the run's own best validation score. "
        "comparable: scratch steps over the steps to the score at which scratch converged."
    )
    if len({pair.seed for pair in pairs}) == 1:
        say("one seed: differences here are not evidence; give --seeds 0 1 2 for a spread")
