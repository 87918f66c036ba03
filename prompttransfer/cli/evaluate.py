"""`prompttransfer evaluate`: score prompts on tasks, beside chance and the backbone without a prompt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.backbones.layouts import LAYOUTS
from prompttransfer.cli.options import (
    Aggregation,
    AsJson,
    Calibrate,
    Columns,
    DataFolder,
    Device,
    LabelValues,
    LabelWords,
    LimitTest,
    MaxLength,
    MetricName,
    OtherBackbone,
    OtherLayout,
    Overwrite,
    Precision,
    Predictions,
    Revision,
    SkipEmpty,
    SourceMethods,
    SplitNames,
    Template,
)
from prompttransfer.cli.values import OneOf, Output, checked, lines_of
from prompttransfer.distributed.placement import SINGLE, Placement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.evaluation.calibration import Calibration
    from prompttransfer.evaluation.encoding import EncodedTask
    from prompttransfer.evaluation.evaluate import Score
    from prompttransfer.transfers.zero_shot import Target
    from tasks.task import Task

    Prepared = tuple[EncodedTask, EncodedTask | None, tuple[Score | None, Score | None]]
    Cells = dict[tuple[int, int], tuple[Score | None, dict[str, Any]]]


@checked
def evaluate(
    prompts: Annotated[list[Path], typer.Argument(help="Prompt folders, or folders of them.")],
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", help="Tasks to score on; each prompt's own if not given."),
    ] = None,
    method: SourceMethods = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", "-b", help="Another backbone than the prompts' own.")
    ] = None,
    revision: Revision = None,
    layout: Annotated[
        str | None,
        typer.Option("--layout", help="Another layout, with --other-layout."),
        OneOf("layout", LAYOUTS),
    ] = None,
    template: Template = None,
    data: DataFolder = None,
    columns: Columns = None,
    labels: LabelValues = None,
    splits: SplitNames = None,
    skip_empty: SkipEmpty = False,
    metric: MetricName = None,
    label_words: LabelWords = None,
    aggregation: Aggregation = None,
    other_layout: OtherLayout = False,
    other_backbone: OtherBackbone = False,
    max_length: MaxLength = None,
    limit_test: LimitTest = None,
    calibrate: Calibrate = "none",
    predictions: Predictions = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Also write the scores as JSON."),
        Output(folder=False),
    ] = None,
    overwrite: Overwrite = False,
    precision: Precision = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
) -> list[Score]:
    """Score prompts on the test split of tasks. The label words are the task's own, never the prompt's."""
    given = dict(locals())
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.cli.common import print_json
    from prompttransfer.cli.data import data_options
    from prompttransfer.cli.tables import read_prompts
    from prompttransfer.evaluation.calibration import calibration_of
    from prompttransfer.evaluation.predictions import predicted_lines, write_predictions
    from prompttransfer.files import write_json
    from prompttransfer.outputs import Files, settings_of
    from tasks.errors import UserError

    calibration = calibration_of(calibrate)
    wanted = Encoding(max_length=max_length, aggregation=aggregation, template=lines_of(template))
    loaded = read_prompts(prompts, method)
    rows = data_options(given)
    wanted_tasks = task or list(dict.fromkeys(each.task for each in loaded))
    tasks = rows.tasks(wanted_tasks, loaded)
    paths = tuple(path for path in (output, predictions) if path is not None)
    written = Files(paths, settings_of("evaluate", given, without=paths))
    written.check(overwrite=overwrite)
    targets = rows.targets(tasks)
    model = backbone_of(loaded, backbone, precision, device, revision=revision)

    _check_sources(
        loaded, tasks, model, wanted, layout=layout, other_layout=other_layout, other_backbone=other_backbone
    )
    cells = _cells(loaded, targets, model, wanted, layout, calibration, keep=predictions is not None)
    records = [record for _, (_, record) in sorted(cells.items())]
    scores = [score for _, (score, _) in sorted(cells.items()) if score is not None]
    if not scores:
        raise UserError(records[0]["impossible"])
    if paths:
        written.claim()
    if output is not None:
        write_json(output, records)
    if predictions is not None:
        said = [
            line
            for (place, column), (score, _) in sorted(cells.items())
            if score is not None and score.answered is not None
            for line in predicted_lines(
                loaded[place].name, targets[column].task, targets[column].splits.test, score.answered
            )
        ]
        write_predictions(predictions, said)
    if as_json:
        print_json(records)
    else:
        _print(records, model, calibration, paths)
    return scores


COLUMNS = (
    ("prompt", "prompt"),
    ("task", "task"),
    ("metric", "metric"),
    ("chance", "chance"),
    ("no prompt", "no_prompt"),
    ("no prompt, calibrated", "no_prompt_calibrated"),
    ("score", "value"),
    ("calibrated", "calibrated"),
    ("share cut", "cut"),
    ("rows", "rows"),
)
"""Heading of the table -> key of a record."""


def _check_sources(
    loaded: Sequence[Adaptation],
    tasks: Sequence[Task],
    model: Backbone,
    wanted: Encoding,
    *,
    layout: str | None,
    other_layout: bool,
    other_backbone: bool,
) -> None:
    """Raise UserError where an adaptation is not of this backbone, layout or template; say where it learned other words."""
    from prompttransfer.adaptations.running import check_on, check_reads, other_words
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.cli.common import warn

    for each in loaded:
        check_on(
            each,
            model,
            layout=layout or each.layout,
            other_layout=other_layout,
            other_backbone=other_backbone,
        )
        check_reads(each, model, wanted.template or each.encoding.template, other_layout=other_layout)
        each.method.check_fits(model, each.tensors, each.name)
    for line in other_words(model, loaded, tasks, Encoding(aggregation=wanted.aggregation)):
        warn(line)


def _cells(
    loaded: Sequence[Adaptation],
    targets: Sequence[Target],
    model: Backbone,
    wanted: Encoding,
    layout: str | None,
    calibration: Calibration | None,
    *,
    keep: bool,
) -> Cells:
    """Every adaptation on every task, those that read alike in one bank; with `keep` what was said to each row, too."""
    from functools import cache

    from prompttransfer.adaptations.running import bank_of, impossible
    from prompttransfer.evaluation.calibration import (
        TRAIN_MEAN,
        Calibration,
        bare_calibrated,
        encode_inputs,
        evaluate_both,
    )
    from prompttransfer.evaluation.encoding import encode_task
    from prompttransfer.evaluation.grouped import alike

    @cache
    def prepared(place: int, reserved: int, read: Encoding) -> Prepared:
        """Rows, inputs of the calibration and the backbone alone, once for all that take as much of the text."""
        task, splits = targets[place].task, targets[place].splits
        encoding = replace(read, max_length=wanted.max_length, aggregation=wanted.aggregation)
        encoded = encode_task(model, task, splits.test, encoding, reserved=reserved)
        inputs = encode_inputs(model, calibration or Calibration(TRAIN_MEAN), encoded, splits)
        return encoded, inputs, bare_calibrated(model, encoded, inputs)

    cells: Cells = {}
    for group, chosen in alike(loaded, layout, wanted.template):
        bank = bank_of(model, group.adaptations)
        for column, target in enumerate(targets):
            if reason := impossible(group.adaptations[0], target.task):
                cells |= {
                    (place, column): (None, _no_record(each, target.task, reason))
                    for place, each in zip(group.places, group.adaptations, strict=True)
                }
                continue
            encoded, inputs, bare = prepared(column, group.reserved, chosen)
            raw, less = evaluate_both(model, bank, encoded, inputs if calibration else None, keep=keep)
            for index, (place, each) in enumerate(zip(group.places, group.adaptations, strict=True)):
                record = _record(each, raw[index], bare, less[index] if less else None, calibration)
                cells[place, column] = raw[index], record
    return cells


def _print(
    records: Sequence[dict[str, Any]],
    model: Backbone,
    calibration: Calibration | None,
    paths: Sequence[Path],
) -> None:
    """The table for people, and beneath it what could not be, what says one word always, and where it was written."""
    from prompttransfer.cli.common import constant_line, say, table

    shown = [pair for pair in COLUMNS if pair[1] in records[0]]
    table(
        f"scores on {model.name}",
        [heading for heading, _ in shown],
        [[_shown(record[key]) for _, key in shown] for record in records],
        left=3,
    )
    for reason in dict.fromkeys(record["impossible"] for record in records if "impossible" in record):
        say(f"-: {reason}")
    for record in records:
        if line := constant_line(record["prompt"], record.get("values") or {}):
            say(line)
    if calibration is not None:
        say(f"calibrated: {calibration}; - where the answer is written or a head's")
    for path in paths:
        say(f"written to {path}")


def _record(
    prompt: Adaptation,
    score: Score,
    bare: tuple[Score | None, Score | None],
    calibrated: Score | None,
    calibration: Calibration | None,
) -> dict[str, Any]:
    """One prompt on one task, for JSON; null where there are no label words: nothing to calibrate, and of a head no model without one."""
    raw, less = bare
    record = {"prompt": prompt.name, **score.as_dict(), "no_prompt": raw.value if raw else None}
    record["no_prompt_calibrated"] = less.value if less else None
    if calibration is not None:
        record |= {"calibrated": calibrated.value if calibrated else None, "calibration": str(calibration)}
    return record


def _no_record(each: Adaptation, task: Task, reason: str) -> dict[str, Any]:
    """One adaptation on a task that it cannot answer, with the reason."""
    nothing = {key: None for _, key in COLUMNS[3:]}
    return {"prompt": each.name, "task": task.name, "metric": task.metric, **nothing, "impossible": reason}


def _shown(value: Any) -> str:
    from prompttransfer.cli.common import number

    return number(value) if value is None or isinstance(value, float) else str(value)


def backbone_of(
    prompts: Sequence[Adaptation],
    name: str | None,
    precision: str,
    device: str,
    placement: Placement = SINGLE,
    *,
    revision: str | None = None,
) -> Backbone:
    """The named backbone, or the one that all prompts were trained on, a hub model at the commit that they name."""
    from prompttransfer.backbones.loading import load_backbone
    from tasks.errors import UserError

    names = list(dict.fromkeys(prompt.backbone for prompt in prompts))
    if name is None and len(names) > 1:
        raise UserError(
            f"the prompts are of several backbones ({', '.join(names)}): choose one with --backbone"
        )
    if name is None and revision is None:
        revision = _common_commit(prompts)
    return load_backbone(
        name or names[0], revision=revision, precision=precision, device=device, placement=placement
    )


def _common_commit(prompts: Sequence[Adaptation]) -> str | None:
    """The commit of the hub that prompts of one backbone were trained at; UserError if it is not one for all."""
    from prompttransfer.backbones.revisions import is_commit
    from tasks.errors import UserError

    found = {prompt.revision: prompt.name for prompt in prompts if is_commit(prompt.revision)}
    if len(found) > 1:
        (first, name), (second, other) = list(found.items())[:2]
        raise UserError(
            f"prompts {name!r} and {other!r} were trained on {prompts[0].backbone} at different commits ({first}, "
            f"{second}): use them one after the other, or train again at one --revision"
        )
    return next(iter(found), None)
