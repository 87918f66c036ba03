"""`project apply --method` and `project compare`: adaptations of weights (LoRA and its kin) carried to another backbone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prompttransfer.cli.options import (
    AsJson,
    Columns,
    DataFolder,
    Device,
    LabelValues,
    LabelWords,
    LimitTest,
    LimitTrain,
    MaxLength,
    Overwrite,
    Shots,
    SkipEmpty,
    SplitNames,
    Steps,
)
from prompttransfer.cli.project_pair import SourceBackbone, SourceRevision, TargetBackbone, TargetRevision
from prompttransfer.cli.values import OneOf, Output, Whole, checked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projectors.carried_report import CarriedTable
    from projectors.weights import Carrier
    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.transfers.zero_shot import Target

WAYS = ("copy", "cross-lora", "lora-x")
Way = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="Carry a LoRA or its kin without a projector: copy (the control), cross-lora (any widths), lora-x.",
    ),
]
Directions = Annotated[
    int | None,
    typer.Option(
        "--rank",
        help="Directions kept of each weight: as many as there are for cross-lora, half for lora-x, if not given.",
    ),
    Whole(1, 1_000_000),
]
Signs = Annotated[
    str,
    typer.Option(help="Signs of singular vectors (cross-lora): by words that both models know, or as found."),
    OneOf("way to choose signs", ("words", "found")),
]


def read_weights(folders: Sequence[Path]) -> list[Adaptation]:
    """The adaptations in folders, whose names must be of their own."""
    from prompttransfer.adaptations.artifacts import find_adaptations, load_adaptation
    from prompttransfer.files import safe_name
    from tasks.errors import UserError

    found = [load_adaptation(folder) for path in folders for folder in find_adaptations(path)]
    names = [safe_name(each.name, "name") for each in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two are called {twice!r}: carry them one at a time, or to different folders")
    return found


def both_backbones(
    found: Sequence[Adaptation],
    source: str | None,
    target: str | None,
    revisions: tuple[str | None, str | None],
    device: str,
) -> tuple[Backbone, Backbone]:
    """Source and target in float32, which the SVDs are made of; every adaptation is checked to be of the source."""
    from projectors.carrying import check_carried
    from prompttransfer.backbones.loading import load_backbone
    from prompttransfer.cli.evaluate import backbone_of
    from tasks.errors import UserError

    if target is None:
        raise UserError("no target given: name the backbone to carry to with --target-backbone")
    near = backbone_of(found, source, "fp32", device, revision=revisions[0])
    for each in found:
        check_carried(each, near)
    return near, load_backbone(target, revision=revisions[1], precision="fp32", device=device)


def carry_all(
    folders: Sequence[Path],
    carrier: Carrier,
    *,
    source: str | None,
    target: str | None,
    revisions: tuple[str | None, str | None],
    output: Path,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> list[Path]:
    """Carry the adaptations in folders and write them; the folders that were written."""
    from projectors.carrying import bridge, carry, sites_of
    from prompttransfer.adaptations.artifacts import MARKER, check_unlike, save_adaptation
    from prompttransfer.cli.common import print_json, say
    from prompttransfer.files import check_free

    found = read_weights(folders)
    places = [output / each.name for each in found]
    for place in places:
        check_free(place, marker=MARKER)
    near, far = both_backbones(found, source, target, revisions, device)
    over = bridge(near, far, sites_of(near, found), carrier)
    made = [carry(over, each) for each in found]
    for each, place in zip(made, places, strict=True):
        if not overwrite:
            check_unlike(each, place)
    for each, place in zip(made, places, strict=True):
        save_adaptation(each, place)
        said = f"{each.name}: now {each.method} of {each.backbone} by {carrier.method}"
        say(f"{said}, at {len(each.tensors) // 2} linear maps", quiet=as_json)
    if as_json:
        print_json(
            [
                {"name": each.name, "method": str(each.method), "folder": str(place)}
                for each, place in zip(made, places, strict=True)
            ]
        )
    else:
        say(
            f"written to {output}; what they are worth: `prompttransfer project compare`, or `prompttransfer evaluate`"
        )
    return places


@checked
def compare_ways(
    adaptations: Annotated[
        list[Path], typer.Argument(help="Folders of LoRAs of the source, or folders of them.")
    ],
    source_backbone: SourceBackbone = None,
    target_backbone: TargetBackbone = None,
    source_revision: SourceRevision = None,
    target_revision: TargetRevision = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method", help="Ways to compare; all if not given, and copy in any case.", show_default=False
        ),
        OneOf("way to carry updates of weights", WAYS),
    ] = None,
    rank: Directions = None,
    signs: Signs = "words",
    own: Annotated[
        Path | None,
        typer.Option(
            help="Folder of what the target learned itself; trained, into the output, if not given."
        ),
    ] = None,
    steps: Steps = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the table and what is trained."), Output()
    ] = Path("runs/carried"),
    data: DataFolder = None,
    columns: Columns = None,
    labels: LabelValues = None,
    splits: SplitNames = None,
    label_words: LabelWords = None,
    skip_empty: SkipEmpty = False,
    shots: Shots = None,
    max_length: MaxLength = None,
    limit_train: LimitTrain = None,
    limit_test: LimitTest = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> CarriedTable:
    """Compare ways to carry LoRAs to another backbone on the tasks that they were trained on.

    Beside them stand the target's own, random ones of the same size behind the same maps, no adaptation and the majority,
    each with the score less the bias of the label words. Nothing is fitted; `copy` is the control to beat.
    """
    given = dict(locals())
    from projectors.carried_report import compare_carriers
    from projectors.weights import Carrier
    from prompttransfer.adaptations.running import common_encoding
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.cli.common import print_json, say
    from prompttransfer.cli.data import asked, data_options
    from prompttransfer.files import write_json, write_text
    from prompttransfer.outputs import Files, settings_of
    from prompttransfer.reports.calls import note_call, remember

    ways = [Carrier(name, rank if name != "copy" else None, signs) for name in method or WAYS]
    found = read_weights(adaptations)
    paths = (output / "carried.csv", output / "carried.json")
    written = Files(paths, settings_of("project compare", asked(given, "label_words")))
    written.check(overwrite=overwrite)
    revisions = (source_revision, target_revision)
    near, far = both_backbones(found, source_backbone, target_backbone, revisions, device)
    read = data_options(given)
    tasks = read.tasks(list(dict.fromkeys(each.task for each in found)), found)
    seeds = sorted({each.seed or 0 for each in found})
    targets = read.targets(tasks, seeds)
    say(f"from {near.name} to {far.name}: {len(found)} adaptations", quiet=as_json)
    encoding = common_encoding(near, found, Encoding(max_length=max_length))
    if own is None:
        learned = train_own(far, targets, found, encoding, steps, output / "own", as_json=as_json)
    else:
        learned = read_weights([own])
    _check_own(learned, far, encoding)
    table = compare_carriers(
        near,
        far,
        found,
        learned,
        targets,
        ways,
        encoding=encoding,
        advance=lambda name: say(f"scoring {name}", quiet=as_json),
    )
    written.claim()
    write_text(paths[0], table.to_csv())
    write_json(paths[1], table.as_dict())
    call = remember(
        "project compare", compare_ways, given, source_backbone=near.name, target_backbone=far.name
    )
    note_call(paths, call)
    if as_json:
        print_json(table.as_dict() | {"files": [str(path) for path in paths]})
    else:
        show_table(table)
        for path in paths:
            say(f"written: {path}")
    return table


def _check_own(learned: Sequence[Adaptation], target: Backbone, encoding: Encoding) -> None:
    """Raise UserError for what does not run on the target, or reads rows otherwise than what is carried."""
    from prompttransfer.adaptations.running import common_encoding
    from tasks.errors import UserError

    layout = common_encoding(target, learned, encoding).layout
    if layout != encoding.layout:
        raise UserError(
            f"the target's own are of layout {layout!r} and those to carry of {encoding.layout!r}: give --own of the same "
            f"layout, or leave it out to train them"
        )


def train_own(
    target: Backbone,
    targets: Sequence[Target],
    found: Sequence[Adaptation],
    encoding: Encoding,
    steps: int | None,
    folder: Path,
    *,
    as_json: bool,
) -> list[Adaptation]:
    """What the target learns itself, by the method of the given ones with its own recipe; what is there is taken up."""
    from prompttransfer.adaptations.artifacts import save_adaptation
    from prompttransfer.adaptations.running import common_method
    from prompttransfer.cli.common import say
    from prompttransfer.cli.runs import finished, run_jobs
    from prompttransfer.training.recipes import recipe_for
    from prompttransfer.training.train import Job

    method = common_method(found)
    recipe = recipe_for(target, method, steps=steps)
    jobs = [
        Job(one.task, one.rows(each.seed or 0), each.seed or 0, name=each.name)
        for one in targets
        for each in found
        if each.task == one.task.name
    ]
    there = finished(target, jobs, recipe, encoding, method, folder, overwrite=False)
    if len(there) < len(jobs):
        say(f"training the target's own: {method}, {recipe.told(method)}", quiet=as_json)
        runs, options = run_jobs(
            target, jobs, recipe, encoding, method, output=folder, logger="none", quiet=as_json
        )
        for run in runs:
            save_adaptation(run.adaptation, folder / run.adaptation.name)
            there[run.adaptation.name] = run.adaptation
        options.clear()
    return [there[job.name] for job in jobs]


def show_table(found: CarriedTable) -> None:
    """Conditions by tasks, and why a way has no score."""
    from prompttransfer.cli.common import number, say, table

    rows = [
        [
            name,
            number(found.mean(name)),
            number(found.mean(name, calibrated=True)),
            *(number(found.mean(name, task)) for task in found.tasks),
        ]
        for name in found.conditions
    ]
    table(
        "test score on the target, mean over tasks, seeds and draws (calibrated: less the bias of the label words)",
        ["condition", "mean", "calibrated", *found.tasks],
        rows,
    )
    for name, reason in found.impossible.items():
        say(f"no {name}: {reason}")
    say("random: adaptations of the same size in random directions behind the same maps")
