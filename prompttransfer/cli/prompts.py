"""`prompts`: what lies in folders of adaptations, what one of them is, and what its vectors say in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.cli import prompts_combine, prompts_keep, prompts_parts
from prompttransfer.cli.options import (
    AsJson,
    Columns,
    DataFolder,
    LabelValues,
    LimitTest,
    Overwrite,
    Revision,
    SkipEmpty,
    SplitNames,
)
from prompttransfer.cli.values import OneOf, Output, Whole, checked

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.cli.data import DataOptions

prompts_app = typer.Typer(
    help="List trained prompts and other adaptations, show one, read its vectors as words or what it attends to, make new ones "
    "of several.",
    no_args_is_help=True,
)
for _verb, _function in {**prompts_keep.VERBS, **prompts_combine.VERBS, **prompts_parts.VERBS}.items():
    prompts_app.command(_verb)(_function)
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
    from prompttransfer.adaptations.library import listed, sort_by
    from prompttransfer.cli.common import number, print_json, table, warn

    found: list[dict[str, Any]] = []
    for folder in folders:
        known = listed(folder)
        found += known.lines
        if known.behind:
            warn(
                f"the index of {folder} is behind: {known.behind:,} adaptations are new, changed or gone, and were looked at; "
                f"`prompttransfer prompts index {folder}` renews it"
            )
    found.sort(key=sort_by(sort, down=sort in SCORES))
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
    from prompttransfer.adaptations.library import line_of
    from prompttransfer.cli.common import print_json, table

    record = read_record(folder)
    values = {**line_of(folder, record), **record.model_dump(exclude={"name", "method"})}
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
    prompts: Annotated[
        list[Path], typer.Argument(help="Folders of adaptations of method attempt, or folders of them.")
    ],
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="The task whose rows are read; its own if not given.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", "-b", help="Where its own backbone lies now.")
    ] = None,
    revision: Revision = None,
    data: DataFolder = None,
    columns: Columns = None,
    labels: LabelValues = None,
    splits: SplitNames = None,
    skip_empty: SkipEmpty = False,
    limit_test: LimitTest = None,
    figure: Annotated[
        Path | None,
        typer.Option(
            "--figure", help="Draw the weights, a row an adaptation: FILE.png (and .svg beside it)."
        ),
        Output(folder=False),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> list[dict[str, Any]]:
    """Show how much each source counts in what attempt mixes for the rows of a test split; --json has every row."""
    given = dict(locals())
    from prompttransfer.cli.common import print_json, say, table
    from prompttransfer.cli.data import data_options
    from prompttransfer.cli.plot import Drawing
    from prompttransfer.cli.tables import read_prompts
    from prompttransfer.evaluation.attention import mixed_prompts

    picture = None if figure is None else Drawing("attention", figure, given)
    chosen = read_prompts(prompts)
    for each in chosen:
        mixed_prompts(each)  # before a backbone is loaded: others mix nothing
    found = _attention_of(chosen, task, backbone, revision, data_options(given))
    if picture is not None:
        from analysis.figures import weights_heatmap

        mean, spread = _weight_tables(found)
        paths = picture.write(weights_heatmap(mean, spread))
    if as_json:
        print_json(found[0] if len(found) == 1 else found)
        return found
    for values in found:
        names, rows = list(values["mean"]), values["rows"]
        weights = {name: [row[name] for row in rows] for name in names}
        table(
            f"attention of {values['prompt']} on {len(rows)} rows of {values['task']}; all alike would be "
            f"{1 / len(names):.3f}",
            ["prompt", "mean", "sd", "least", "most"],
            [
                [
                    name,
                    *(f"{x:.3f}" for x in (values["mean"][name], values["sd"][name], min(own), max(own))),
                ]
                for name, own in weights.items()
            ],
            left=1,
        )
    if picture is not None:
        say("written: " + ", ".join(map(str, paths)))
    return found


def _attention_of(
    chosen: Sequence[Adaptation],
    task: str | None,
    backbone: str | None,
    revision: str | None,
    rows: DataOptions,
) -> list[dict[str, Any]]:
    """The weights of each adaptation on the test rows of `task`, or of its own: mean, deviation and every row."""
    from prompttransfer.adaptations.running import check_on
    from prompttransfer.cli.evaluate import backbone_of
    from prompttransfer.evaluation.attention import attention_weights, mixed_prompts
    from prompttransfer.evaluation.encoding import encode_task

    names = list(dict.fromkeys([task] if task else [own.task for own in chosen]))
    targets = rows.targets(rows.tasks(names, chosen))
    by_task = {target.task.name: target for target in targets}
    model = backbone_of(chosen, backbone, "auto", "auto", revision=revision)
    found = []
    for own in chosen:
        check_on(
            own,
            model,
            layout=own.layout,
        )
        target = targets[0] if task else by_task[own.task]
        encoded = encode_task(
            model, target.task, target.splits.test, own.encoding, reserved=own.method.reserved
        )
        weights, sources = attention_weights(model, own, encoded), mixed_prompts(own)
        spread = weights.std(dim=0, correction=0)
        found.append(
            {
                "prompt": own.name,
                "task": target.task.name,
                "mean": dict(zip(sources, weights.mean(dim=0).tolist(), strict=True)),
                "sd": dict(zip(sources, spread.tolist(), strict=True)),
                "rows": [dict(zip(sources, row, strict=True)) for row in weights.tolist()],
            }
        )
    return found


def _weight_tables(found: Sequence[dict[str, Any]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean weights and their deviations, rows adaptations, columns sources with the target's own prompt last."""
    import pandas as pd

    from prompttransfer.evaluation.attention import OWN

    names = list(dict.fromkeys(name for each in found for name in each["mean"] if name != OWN))
    rows = [each["prompt"] for each in found]
    mean, spread = (
        pd.DataFrame([each[key] for each in found], index=rows, columns=[*names, OWN])
        for key in ("mean", "sd")
    )
    return mean, spread


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
    from prompttransfer.adaptations.running import check_on
    from prompttransfer.cli.common import print_json, say, table
    from prompttransfer.cli.evaluate import backbone_of
    from prompttransfer.cli.tables import read_prompts

    chosen = read_prompts(prompts)
    vectors = [prompt.vectors for prompt in chosen]  # before the backbone is loaded: a LoRA has none
    model = backbone_of(chosen, backbone, "fp32", "cpu", revision=revision)
    for prompt in chosen:
        check_on(
            prompt,
            model,
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
