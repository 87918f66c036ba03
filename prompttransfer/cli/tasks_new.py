"""`tasks new`: a task file from the data, with what was guessed open to correction; nothing is guessed silently."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prompttransfer.cli.options import Columns, LabelValues, LabelWords, Overwrite, SkipEmpty, SplitNames
from prompttransfer.cli.values import OneOf, checked
from tasks.errors import UserError

if TYPE_CHECKING:
    from tasks.proposing import Seen
    from tasks.reading import Reading
    from tasks.task import Task

KINDS = (CLASSIFICATION, HEAD, MULTI_LABEL, REGRESSION) = (
    *("classification", "head", "multi-label", "regression"),
)
"""What a label of a row is."""


@checked
def new_task(
    name: Annotated[str, typer.Argument(help="Name of the task; the file is NAME.yaml.")],
    data: Annotated[
        str | None,
        typer.Option("--data", help="File of rows, folder of such files, or hub:OWNER/NAME[:CONFIG]."),
    ] = None,
    columns: Columns = None,
    labels: LabelValues = None,
    splits: SplitNames = None,
    skip_empty: SkipEmpty = False,
    label_words: LabelWords = None,
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            help="What a label is: classification (one of a few, by words), head (one of many, by a trained head), multi-label (any number of them, by a head), or regression (a number).",
        ),
        OneOf("kind of labels", KINDS),
    ] = KINDS[0],
    separator: Annotated[
        str | None, typer.Option(help="Between the labels in a cell of multi-label rows; found if not given.")
    ] = None,
    low: Annotated[float | None, typer.Option(help="Of a regression: the least number there may be.")] = None,
    high: Annotated[float | None, typer.Option(help="Of a regression: the largest one.")] = None,
    type_: Annotated[
        str | None,
        typer.Option("--type", help="Type of the task, for tables; what the labels tell if not given."),
    ] = None,
    ask: Annotated[
        bool, typer.Option("--ask", help="Ask for what is not given; without --data this is so anyway.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; NAME.yaml if not given.")
    ] = None,
    overwrite: Overwrite = False,
) -> Task:
    """Write a commented task file from a file of rows: its columns, its labels, and words that may stand for them.

    Columns that are not given are guessed from their names, and said. The file is to be read and mended; `tasks check`
    shows what it makes of the rows.
    """
    from dataclasses import replace

    from prompttransfer.cli.common import answers_line, say, words_line
    from prompttransfer.files import write_text
    from prompttransfer.outputs import check_place
    from tasks.custom import read_task_file
    from tasks.proposing import scale_of, separator_of, task_of_data
    from tasks.reading import parse_reading
    from tasks.task import check_name, parse_label_words, with_words
    from tasks.writing import task_file

    name = check_name("task", name.removesuffix(".yaml").removesuffix(".yml"))
    place = output or Path(f"{name}.yaml")
    check_place(place, folder=False)
    if place.exists() and not overwrite:
        raise UserError(f"{place} is there already: choose another name, or replace it with --overwrite")
    ask = ask or data is None
    if data is None:
        data = _asked("file of rows, folder of them, or hub:OWNER/NAME")
    if kind != REGRESSION and (low, high) != (None, None):
        raise UserError("--low and --high are the bounds of a regression: give --kind regression, too")
    if kind != MULTI_LABEL and separator is not None:
        raise UserError("--separator stands between several labels: give --kind multi-label, too")
    reading = parse_reading(columns, labels, splits, skip_empty=skip_empty)
    seen, reading = look(data, reading, ask=ask)
    scale = scale_of(seen, reading, low, high) if kind == REGRESSION else None
    between = (separator or separator_of(seen, reading)) if kind == MULTI_LABEL else ""
    task = task_of_data(data, reading, scale, head=kind == HEAD, separator=between)
    task = replace(task, name=name)
    if ask and type_ is None:
        type_ = _asked("type of task, for tables", task.type)
    if type_ is not None:
        task = replace(task, type=type_, template="")
    words = parse_label_words(label_words or ())
    if ask and task.has_words:
        words |= {
            label: _asked(f"word for {label!r}", task.words["masked-lm"][label][0])
            for label in task.labels
            if label not in words
        }
    task = with_words(task, words) if words else task
    write_text(place, task_file(task, seen, place))
    made = read_task_file(place)  # what was written is what will be read
    for field, column in {**reading.columns}.items():
        say(f"{field}: column {column}")
    if made.scale is not None:
        say(f"numbers from {made.scale}")
    if made.head:
        say(answers_line(made, {}))
    if made.separator:
        say(f"any number of labels a row, with {made.separator!r} between them")
    if made.has_words:
        first = {label: words[0] for label, words in made.words["masked-lm"].items()}
        say(f"label words of {words_line(made.name, first)}")
        if all(label.lstrip("-").isdigit() for label in made.labels) and not words:
            say(
                "the labels are numbers, which tell no words: write words for them into the file, or give --label-words"
            )
    say(f"written to {place}; next: prompttransfer tasks check {place}")
    return made


def look(data: str, reading: Reading, *, ask: bool) -> tuple[Seen, Reading]:
    """What is in the data, and the reading with columns guessed or asked for where none are given."""
    from dataclasses import replace

    from tasks.proposing import guess_columns, see

    seen = see(data, reading)
    if reading.columns:
        return seen, reading
    guessed = guess_columns(seen)
    if ask and not ("text_a" in guessed or "question" in guessed):
        for field, usual in (("text", seen.columns[0]), ("label", seen.columns[-1])):
            there = field if field in seen.columns else usual
            column = _asked(f"column of the {field} ({', '.join(seen.columns)})", guessed.get(field, there))
            guessed[field] = column
    return seen, replace(reading, columns={f: c for f, c in guessed.items() if f != c})


def _asked(question: str, default: str | None = None) -> str:
    try:
        answer: str = typer.prompt(question, default=default)
    except typer.Abort:
        raise UserError(f"no answer to {question!r}: give it as an option, as --data FILE") from None
    return answer.strip()
