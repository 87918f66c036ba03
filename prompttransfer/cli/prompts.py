"""`prompts`: what lies in folders of adaptations, what one of them is, and what its vectors say in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.cli import prompts_combine, prompts_parts
from prompttransfer.cli.options import AsJson, DataFolder, LimitTest, Revision
from prompttransfer.cli.values import OneOf, Whole, checked

if TYPE_CHECKING:
    from prompttransfer.adaptations.artifacts import AdaptationRecord

prompts_app = typer.Typer(
    help="List trained prompts and other adaptations, show one, read its vectors as words or what it attends to, make new ones "
    "of several.",
    no_args_is_help=True,
)
for _verb, _function in prompts_combine.VERBS.items():
    prompts_app.command(_verb)(_function)
prompts_app.command("parts")(prompts_parts.parts)
prompts_app.command("whole")(prompts_parts.whole)
COLUMNS = ("name", "method", "backbone", "task", "seed", "validation", "test", "size", "bytes", "start")
SCORES = ("validation", "test")


@prompts_app.command("list")
@checked
def list_prompts(
    folders: Annotated[list[Path], typer.Argument(help="Prompt folders, or folders of them.")],
    sort: Annotated[
        str,
        typer.Option("--sort", help=f"Column to sort by: {', '.join(COLUMNS)}; scores from the best down."),
        OneOf("column", COLUMNS),
    ] = "name",
    as_json: AsJson = False,
) -> list[dict[str, Any]]:
    """List the adaptations in folders: method, backbone, task, seed, scores, numbers that were learned, bytes on disk."""
    from prompttransfer.adaptations.artifacts import find_adaptations, read_record
    from prompttransfer.cli.common import number, print_json, table

    found = [_line(at, read_record(at)) for folder in folders for at in find_adaptations(folder)]
    found.sort(key=lambda line: _rank(line[sort], down=sort in SCORES))
    if as_json:
        print_json(found)
        return found
    columns = ("name", "method", "backbone", "task", "seed", "metric", "validation", "test", "size", "bytes")
    shown = {"size": "{:,}".format, "bytes": "{:,}".format, "validation": number, "test": number}
    rows = [[shown.get(column, _plain)(line[column]) for column in columns] for line in found]
    table(f"{len(found)} adaptations, by {sort}", columns, rows, left=4)
    return found


@prompts_app.command("show")
@checked
def show_prompt(
    folder: Annotated[Path, typer.Argument(help="The folder of one prompt or other adaptation.")],
    as_json: AsJson = False,
) -> dict[str, Any]:
    """Show all that is known of one adaptation: where it comes from, how it was trained, its scores."""
    from prompttransfer.adaptations.artifacts import read_record
    from prompttransfer.cli.common import print_json, table

    record = read_record(folder)
    values = {**_line(folder, record), **record.model_dump(exclude={"name", "method"})}
    if as_json:
        print_json(values)
        return values
    curve = values["curve"]
    told = {key: value for key, value in values.items() if key not in ("origin", "encoding", "curve")}
    told |= {**values["origin"], **values["encoding"]}
    told["curve"] = f"{len(curve)} evaluations up to step {curve[-1]['step']}" if curve else None
    rows = [[key, _plain(value)] for key, value in told.items() if value not in (None, "", {}, [])]
    table(f"{record.method.name} {record.name}", ["field", "value"], rows, left=2)
    return values


@prompts_app.command("attention")
@checked
def show_attention(
    prompt: Annotated[Path, typer.Argument(help="The folder of one adaptation of method attempt.")],
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="The task whose rows are read; its own if not given.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", "-b", help="Where its own backbone lies now.")
    ] = None,
    revision: Revision = None,
    data: DataFolder = None,
    limit_test: LimitTest = None,
    as_json: AsJson = False,
) -> dict[str, Any]:
    """Show how much each source counts in what attempt mixes for the rows of a test split; --json has every row."""
    from prompttransfer.adaptations.artifacts import load_adaptation
    from prompttransfer.adaptations.running import check_runs_on
    from prompttransfer.cli.common import load_targets, print_json, resolve_tasks, table
    from prompttransfer.cli.evaluate import backbone_of
    from prompttransfer.evaluation.attention import attention_weights, mixed_prompts
    from prompttransfer.evaluation.encoding import encode_task

    own = load_adaptation(prompt)
    names = mixed_prompts(own)
    (target,) = load_targets(resolve_tasks([task or own.task], None, [own]), data=data, limit_test=limit_test)
    model = backbone_of([own], backbone, "auto", "auto", revision=revision)
    check_runs_on(
        own,
        backbone=model.name,
        revision=model.revision,
        width=model.width,
        family=model.family,
        layout=own.layout,
    )
    encoded = encode_task(model, target.task, target.splits.test, own.encoding, reserved=own.method.reserved)
    weights = attention_weights(model, own, encoded)
    mean, least, most = weights.mean(dim=0), weights.amin(dim=0), weights.amax(dim=0)
    values = {
        "prompt": own.name,
        "task": target.task.name,
        "mean": dict(zip(names, mean.tolist(), strict=True)),
        "rows": [dict(zip(names, row, strict=True)) for row in weights.tolist()],
    }
    if as_json:
        print_json(values)
        return values
    table(
        f"attention of {own.name} on {len(weights)} rows of {target.task.name}; all alike would be {1 / len(names):.3f}",
        ["prompt", "mean", "least", "most"],
        [
            [name, *(f"{float(value):.3f}" for value in line)]
            for name, *line in zip(names, mean, least, most, strict=True)
        ],
        left=1,
    )
    return values


@prompts_app.command("read")
@checked
def read_prompts_as_words(
    prompts: Annotated[list[Path], typer.Argument(help="Prompt folders, or folders of them.")],
    top: Annotated[int, typer.Option("--top", help="Words named for each vector."), Whole(1, 1000)] = 3,
    backbone: Annotated[
        str | None, typer.Option("--backbone", "-b", help="Where the prompts' own backbone lies now.")
    ] = None,
    revision: Revision = None,
    as_json: AsJson = False,
) -> list[dict[str, Any]]:
    """Name the words whose embeddings are nearest to each vector of a prompt, with their cosines.

    Beside them stands what a random direction gets. Prompts that an encoder made are read as what was kept of them; a
    prompt that is a text says its text.
    """
    from dataclasses import asdict

    from prompttransfer.adaptations.nearest_words import by_chance, nearest_words
    from prompttransfer.adaptations.running import check_runs_on
    from prompttransfer.cli.common import print_json, say, table
    from prompttransfer.cli.evaluate import backbone_of
    from prompttransfer.cli.tables import read_prompts

    chosen = read_prompts(prompts)
    vectors = [prompt.vectors for prompt in chosen]  # before the backbone is loaded: a LoRA has none
    model = backbone_of(chosen, backbone, "fp32", "cpu", revision=revision)
    for prompt in chosen:
        check_runs_on(
            prompt,
            backbone=model.name,
            revision=model.revision,
            width=model.width,
            family=model.family,
            layout=prompt.layout,
        )
    chance = by_chance(model)
    found: list[dict[str, Any]] = [
        {
            "name": prompt.name,
            "text": prompt.notes.get("text"),
            "by_chance": chance,
            "positions": nearest_words(model, own, top),
        }
        for prompt, own in zip(chosen, vectors, strict=True)
    ]
    if as_json:
        print_json(
            [{**each, "positions": [list(map(asdict, near)) for near in each["positions"]]} for each in found]
        )
        return found
    for each, prompt in zip(found, chosen, strict=True):
        rows = [
            [str(place), *(f"{near.word} {near.cosine:.3f}" for near in row)]
            for place, row in enumerate(each["positions"], start=1)
        ]
        width = len(rows[0]) - 1
        heads = ["position", "nearest word and its cosine", *[""] * (width - 1)]
        table(f"{prompt.name}: {prompt.method}", heads, rows, left=len(heads))
        if each["text"]:
            say(f"its text: {each['text']!r}")
    say(f"a random direction is at {chance:.3f} of the word nearest to it, on average")
    return found


def _line(folder: Path, record: AdaptationRecord) -> dict[str, Any]:
    """What a list says of one adaptation."""
    from math import prod

    from prompttransfer.adaptations.artifacts import method_of

    origin = record.origin
    metric, scores = _scores(record)
    return {
        "name": record.name,
        "folder": str(folder),
        "method": str(method_of(record)),
        "backbone": origin.backbone,
        "task": origin.task,
        "seed": origin.seed,
        "metric": metric,
        **scores,
        "size": sum(prod(shape) for shape in record.shapes.values()),
        "bytes": sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
        "start": origin.start,
    }


def _scores(record: AdaptationRecord) -> tuple[str, dict[str, float | None]]:
    """The metric, and the score of each split that has one."""
    test = record.scores.get("test") or {}
    validation = record.scores.get("validation") or {}
    metric = test.get("metric") or next((key for key in validation if key != "step"), "")
    return metric, {"validation": validation.get(metric), "test": test.get("value", test.get(metric))}


def _rank(value: Any, *, down: bool) -> tuple[bool, Any]:
    """What is sorted by: values that are not there come last."""
    return value is None, "" if value is None else -value if down else value


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_plain(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, float):
        return f"{value:.4g}"
    return (
        ", ".join(map(_plain, value))
        if isinstance(value, (list, tuple))
        else "-"
        if value is None
        else str(value)
    )
