"""`tasks words`: label words that the model's own vocabulary has for a task, beside those that the task names."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from prompttransfer.cli.options import (
    EMBEDDED_DEFAULT,
    AsJson,
    BackboneName,
    Columns,
    DataFolder,
    Device,
    LabelValues,
    LabelWords,
    LayoutName,
    MaxLength,
    Precision,
    Revision,
    SkipEmpty,
    SplitNames,
    Template,
)
from prompttransfer.cli.values import Seed, Whole, checked, lines_of

if TYPE_CHECKING:
    from prompttransfer.evaluation.word_search import Search


@checked
def search_task_words(
    name: Annotated[
        str, typer.Argument(help="Name of a task, a YAML file, a file of rows, or hub:OWNER/NAME.")
    ],
    backbone: BackboneName = EMBEDDED_DEFAULT,
    revision: Revision = None,
    data: DataFolder = None,
    columns: Columns = None,
    labels: LabelValues = None,
    splits: SplitNames = None,
    skip_empty: SkipEmpty = False,
    label_words: LabelWords = None,
    layout: LayoutName = "prompt-first",
    template: Template = None,
    max_length: MaxLength = None,
    shots: Annotated[
        int, typer.Option("--shots", help="Training rows of each label that propose words."), Whole(1, 10_000)
    ] = 16,
    candidates: Annotated[
        int, typer.Option("--candidates", help="Words of each label that are combined."), Whole(2, 200)
    ] = 20,
    words: Annotated[
        int,
        typer.Option("--words", help="Words of the vocabulary that are asked about, the first of them."),
        Whole(10, 200_000),
    ] = 4000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the rows that propose words."), Seed] = 0,
    show: Annotated[int, typer.Option("--show", help="How many of the best are shown."), Whole()] = 5,
    precision: Precision = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
) -> Search:
    """Search label words for a task in a model's vocabulary, by a few labelled rows; test rows are not looked at.

    Words are proposed by training rows and chosen by validation rows, without any adaptation, so the best one's validation
    score is better than it will be on other rows: `train` with those words, and without, tells what they are worth.
    """
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.backbones.loading import load_backbone
    from prompttransfer.cli.common import load_targets, print_json, resolve_tasks, say, say_command, table
    from prompttransfer.evaluation.word_search import search_words
    from tasks.reading import parse_reading

    reading = parse_reading(columns, labels, splits, skip_empty=skip_empty)
    (task,) = resolve_tasks([name], label_words, reading=reading, data=data)
    (target,) = load_targets([task], data=data)
    encoding = Encoding(layout, max_length, template=lines_of(template))
    model = load_backbone(backbone, revision=revision, precision=precision, device=device)
    found = search_words(
        model, task, target.splits, encoding, shots=shots, candidates=candidates, pool=words, seed=seed
    )
    if as_json:
        print_json(asdict(found))
        return found
    say(
        f"{found.pool:,} words of {model.name} asked about; proposed by {found.rows} training rows, chosen by "
        f"{found.validation_rows} validation rows, no adaptation; accuracies"
    )
    rows = [
        [called, *each.words.values(), f"{each.learned:.3f}", f"{each.validation:.3f}"]
        for called, each in (
            ("task's own", found.default),
            *((f"{i}", w) for i, w in enumerate(found.found[:show], 1)),
        )
    ]
    table(f"label words of {task.name}", ["", *task.labels, "proposing rows", "validation"], rows, left=1 + len(task.labels))  # fmt: skip
    best = found.found[0]
    gain = best.validation - found.default.validation
    if gain <= 0:
        say("nothing that was found is better on the validation rows than the task's own words")
        return found
    say(
        f"{gain:+.3f} on the validation rows, which chose among {found.combinations:,} combinations: less is to be expected on other rows"
    )
    say_command(
        "--label-words " + " ".join(shlex.quote(f"{label}={word}") for label, word in best.words.items())
    )
    return found
