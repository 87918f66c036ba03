"""`recommend`: from a folder of trained prompts and a few labelled rows, the source that a new task should start from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.cli.options import (
    Aggregation,
    AsJson,
    Columns,
    DataFolder,
    Device,
    LabelValues,
    LabelWords,
    MaxLength,
    OtherBackbone,
    Overwrite,
    Precision,
    Revision,
    Shots,
    SkipEmpty,
    SourceMethods,
    SplitNames,
    TaskNames,
    Types,
)
from prompttransfer.cli.values import Output, Whole, checked

if TYPE_CHECKING:
    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.transfers.recommendation import Recommendation


@checked
def recommend(
    task: TaskNames,
    prompts: Annotated[
        list[Path] | None, typer.Option("--prompts", help="Folders of trained source prompts.")
    ] = None,
    method: SourceMethods = None,
    rows: Annotated[
        int, typer.Option(help="Labelled rows of the task's train split that may be used."), Whole()
    ] = 32,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            help="Indicator to rank by in place of the usual order, as LogME or LEEP; of several the first ranks, the others "
            "stand beside it.",
        ),
    ] = None,
    probe_steps: Annotated[
        int | None,
        typer.Option(
            "--probe-steps", help="Steps of the probe; 0: none, and none of the indicators that need one."
        ),
        Whole(0),
    ] = None,
    data: DataFolder = None,
    columns: Columns = None,
    labels: LabelValues = None,
    splits: SplitNames = None,
    skip_empty: SkipEmpty = False,
    shots: Shots = None,
    types: Types = None,
    label_words: LabelWords = None,
    aggregation: Aggregation = None,
    max_length: MaxLength = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", "-b", help="Another backbone than the prompts' own.")
    ] = None,
    revision: Revision = None,
    other_backbone: OtherBackbone = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for recommend.json and a CSV an indicator, for correlate."
        ),
        Output(),
    ] = None,
    overwrite: Overwrite = False,
    precision: Precision = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
) -> list[Recommendation]:
    """Rank trained prompts as starts for a new task, say why and at what cost, and print the command to go on with.

    Sources may be of any methods. Every source is tried on a few labelled training rows with nothing trained; a probe of
    its method, trained briefly on the same rows, feeds the indicators of similarity. Test rows are never touched.
    """
    given = dict(locals())
    from prompttransfer.adaptations.running import called
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.cli.common import print_json, say
    from prompttransfer.cli.data import READING, asked, data_options
    from prompttransfer.cli.evaluate import backbone_of
    from prompttransfer.cli.tables import task_types
    from prompttransfer.outputs import Files, settings_of
    from prompttransfer.reports.calls import commit_of, note_call, precision_name, remember
    from prompttransfer.transfers.evidence import check_rankings
    from prompttransfer.transfers.recommendation import no_source
    from prompttransfer.transfers.recommendation import recommend as rank

    found, places = _sources(prompts or [Path("runs/prompts")], method)
    check_rankings(by or (), found, probe_steps)
    read = data_options(given)
    tasks = read.tasks(task, found)
    folders = asked(given) | {"prompts": prompts or [Path("runs/prompts")]}
    written = Files(() if output is None else (output / "recommend.json",), settings_of("recommend", folders))
    written.check(overwrite=overwrite)
    targets = read.targets(tasks)  # `recommend` draws the rows, here as from Python; of --shots it has all
    if shots is not None:
        rows = max(len(target.splits.train) for target in targets)
    model = backbone_of(found, backbone, precision, device, revision=revision)
    model.takes_any = other_backbone
    drawn = f"{rows} labelled rows a task" if shots is None else f"{shots} rows of each label"
    say(f"{len(found)} source {called(found)} on {model.name}, {drawn}", quiet=as_json)
    answers = rank(
        model,
        found,
        targets,
        task_types([p.task for p in found], types or [], found),
        rows=rows,
        probe_steps=probe_steps,
        by=by or (),
        encoding=Encoding(max_length=max_length, aggregation=aggregation),
    )
    files: list[Path] = []
    if output is not None:
        written.claim()
        files = _write(answers, output)
    chosen = precision_name(model.precision)
    note_call(files, remember("recommend", recommend, given, precision=chosen))
    sources = {p.name: p for p in found}
    commands = []
    for name, own, a in zip(task, tasks, answers, strict=True):
        words = [item for item in label_words or [] if item.partition("=")[0].strip() in own.labels]
        same: dict[str, Any] = {
            "task": [name],
            "backbone": model.name,
            "revision": commit_of(model.revision),
            "data": data,
            "label_words": words or None,
        }
        same |= {option: given[option] or None for option in READING}
        same |= {"aggregation": aggregation, "max_length": max_length, "precision": chosen}
        same |= {"device": None if device == "auto" else device}
        same |= {"head": True if own.head and not own.separator else None}  # its sources may say so alone
        commands.append(start_command(sources[a.best.source], places[a.best.source], same))
    if as_json:
        records = [a.as_dict() | {"command": c} for a, c in zip(answers, commands, strict=True)]
        print_json({"recommendations": records, "files": [str(path) for path in files]})
        return answers
    for answer, command in zip(answers, commands, strict=True):
        _print(answer, command, no_source(found))
    for path in files:
        say(f"written: {path}")
    return answers


def _sources(folders: list[Path], methods: list[str] | None) -> tuple[list[Adaptation], dict[str, Path]]:
    """The prompts of the folders, and where each lies."""
    from prompttransfer.adaptations.artifacts import find_adaptations
    from prompttransfer.cli.sources import of_methods
    from prompttransfer.cli.tables import read_prompts
    from tasks.errors import UserError

    missing = next((folder for folder in folders if not folder.is_dir()), None)
    if missing is not None:
        raise UserError(f"no folder of prompts at {missing}: name one with --prompts, or train some first")
    paths = [path for folder in folders for path in find_adaptations(folder)]
    everything = read_prompts(paths)
    chosen = of_methods(everything, methods)
    kept = [path for path, each in zip(paths, everything, strict=True) if any(each is one for one in chosen)]
    found = read_prompts(kept)
    return found, {prompt.name: path for prompt, path in zip(found, kept, strict=True)}


def start_command(source: Adaptation, place: Path, options: dict[str, Any]) -> str:
    """The command that trains from the source's vectors, with the options under which it was recommended."""
    from prompttransfer.reports.calls import Call

    layout = None if source.layout == "prompt-first" else source.layout
    call = Call(verb="train").with_options(**options, init=f"from:{place}", layout=layout)
    return call.line()


def _write(answers: list[Recommendation], output: Path) -> list[Path]:
    from prompttransfer.cli.tables import write_table
    from prompttransfer.files import write_json
    from prompttransfer.transfers.recommendation import indicator_tables

    write_json(output / "recommend.json", [answer.as_dict() for answer in answers])
    tables = indicator_tables(answers)
    return [
        output / "recommend.json",
        *(write_table(output / f"{name}.csv", t) for name, t in tables.items()),
    ]


def _print(answer: Recommendation, command: str, bare: str) -> None:
    """The order with its reasons, what each indicator cost, what is not sure, and the command."""
    from prompttransfer.cli.common import few, number, say, say_command, table

    rows = [
        [str(place), c.source, answer.reason(c), number(c.score), number(c.loss)]
        for place, c in enumerate(answer.candidates[:20], start=1)
    ]
    ranked = f", ranked by {answer.ranked_by}" if answer.ranked_by else ""
    table(f"\nsources for {answer.task}{ranked}", ["", "source", "why", answer.metric, "loss"], rows, left=3)
    if len(answer.candidates) > 20:
        say(f"... and {len(answer.candidates) - 20} more (--json shows all)")
    own = "" if answer.bare is None else f"{bare} {answer.bare:.3f}, "
    say(f"beside: {own}majority {answer.chance:.3f}")
    costs = [
        [e.indicator, answer.first_choice(e.indicator), e.cost, f"{e.seconds:.1f} s"] for e in answer.evidence
    ]
    title = "\nwhat each indicator would choose, and its cost"
    table(title, ["indicator", "first choice", "cost", "time"], costs, left=3)
    if answer.undecided:
        names = few([c.source for c in answer.undecided])
        say(f"{answer.rows} rows do not tell {answer.best.source} apart from: {names}")
    for note in answer.notes:
        say(f"note: {note}")
    say(f"\nstart from {answer.best.source}:")
    say_command(command)
