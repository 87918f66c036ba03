"""`prompttransfer tasks`: list the shipped tasks, show one record, check one against a backbone, write a new one."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.cli.options import (
    EMBEDDED_DEFAULT,
    LONGEST_PROMPT,
    Aggregation,
    AsJson,
    BackboneName,
    Columns,
    DataFolder,
    LabelValues,
    LabelWords,
    LayoutName,
    MaxLength,
    Revision,
    SkipEmpty,
    SplitNames,
    Template,
)
from prompttransfer.cli.tasks_new import new_task
from prompttransfer.cli.tasks_words import search_task_words
from prompttransfer.cli.values import Whole, checked, lines_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prompttransfer.backbones.base import Backbone
    from prompttransfer.backbones.label_words import Answers
    from tasks.task import Example, Scale, Task

tasks_app = typer.Typer(help="List, show, check and write tasks.", no_args_is_help=True)
tasks_app.command("new")(new_task)
tasks_app.command("words")(search_task_words)
ROWS = 500
"""Test rows of which the words are looked at."""
TaskName = Annotated[str, typer.Argument(help="Name of a shipped task, or a YAML file.")]


@tasks_app.command("list")
@checked
def list_tasks(as_json: AsJson = False) -> None:
    """List the tasks that come with the package: those of the hub and those of the embedded world."""
    from prompttransfer.cli.common import print_json, table
    from tasks.catalog import all_tasks
    from tasks.task import task_table

    rows = task_table(all_tasks().values())
    if as_json:
        print_json(rows)
        return
    columns = list(rows[0])
    table(f"{len(rows)} tasks", columns, [[str(row[c]) for c in columns] for row in rows], left=len(columns))


@tasks_app.command("show")
@checked
def show_task(name: TaskName, as_json: AsJson = False) -> None:
    """Show the whole record of one task."""
    from prompttransfer.cli.common import print_json, resolve_tasks, table

    record = asdict(resolve_tasks([name])[0])
    if as_json:
        print_json(record)
        return
    rows = [[key, _plain(value)] for key, value in record.items() if value not in (None, "", {}, (), False)]
    table(f"task {name}", ["field", "value"], rows, left=2)


@tasks_app.command("check")
@checked
def check_task(
    name: TaskName,
    backbone: BackboneName = EMBEDDED_DEFAULT,
    revision: Revision = None,
    data: DataFolder = None,
    columns: Columns = None,
    labels: LabelValues = None,
    splits: SplitNames = None,
    skip_empty: SkipEmpty = False,
    layout: LayoutName = "prompt-first",
    template: Template = None,
    length: Annotated[int, typer.Option(help="Prompt length."), Whole(1, LONGEST_PROMPT)] = 20,
    max_length: MaxLength = None,
    label_words: LabelWords = None,
    aggregation: Aggregation = None,
) -> None:
    """Show how two rows of a task enter a backbone, token by token, and what is read where."""
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.backbones.loading import load_backbone, read_otherwise
    from prompttransfer.cli.common import load_targets, resolve_tasks, say, unknown_words
    from tasks.reading import parse_reading

    encoding = Encoding(layout, max_length, aggregation, lines_of(template))
    reading = parse_reading(columns, labels, splits, skip_empty=skip_empty)
    task = resolve_tasks([name], label_words, reading=reading, data=data)[0]
    target = load_targets([task], data=data)[0]
    model = load_backbone(backbone, revision=revision)
    place = encoding.place(model.family)
    found = target.splits
    rows = model.encode(task, found.test, encoding, reserved=length)
    say(f"task {task.name} ({task.type}, {task.kind}, {task.metric}) on {model.name} ({model.family})")
    say(f"revision of the backbone: {model.revision}")
    for remark in model.remarks:
        say(f"strange: {remark}")
    say(f"source: {found.source}, revision {found.revision}")
    say(f"rows: {len(found.train)} train, {len(found.validation)} validation, {len(found.test)} test")
    for index in range(min(2, len(rows))):
        tokens = model.describe(rows[index], length=length, layout=place)
        slot = model.answer_slot(length, place)
        if slot is not None and slot < 0:  # counted from a row's end
            slot += len(tokens)
        shown = [f"{i}:{t}{' <- answer' if i == slot else ''}" for i, t in enumerate(tokens)]
        say(f"\nrow {index + 1}: " + "  ".join(_shorten(shown, length, place.start)))
        if slot is None:
            say("  the answer is written by the decoder")
        elif task.generates:
            say("  the answer is written behind it")
    answers = model.answers(task, encoding)
    if answers is not None:
        _show_answers(model, task, answers, found.test)
    say(f"\ntexts cut to fit: {sum(row.cut for row in rows)} of {len(rows)} test rows")
    other = read_otherwise(model, [example.first for example in found.test[:ROWS]])
    if other:
        say(
            f"transformers' AutoTokenizer reads {other} of {min(ROWS, len(rows))} rows otherwise than the tokenizer.json "
            f"of this backbone, which is what counts here"
        )
    line = unknown_words(model, task.name, found.test[:ROWS])
    if line is not None:
        say(line)


def _show_answers(model: Backbone, task: Task, answers: Answers, rows: Sequence[Example]) -> None:
    """Print the label words with their tokens, or the classes of a head; beside each its share of some rows."""
    from prompttransfer.cli.common import answers_line, say, table

    balance = _balance(task, rows)
    if task.scale is not None:
        say(f"\n{_numbers(rows, task.scale)}")
    if task.head:
        ranked = sorted(zip(task.labels, balance, strict=True), key=lambda pair: -pair[1])
        table(f"\n{answers_line(task, {})}", ["class", "share of test"], [[c, f"{n:.3f}"] for c, n in ranked])
        return
    spelled = [
        [label, word, " ".join(model.tokenizer.convert_ids_to_tokens(list(ids))), str(list(ids))]
        for label, word, ids in zip(answers.labels, answers.words, answers.pieces, strict=True)
    ]
    table(
        "\nlabel words",
        ["label", "word", "tokens", "ids", "share of test"],
        [[*cells, f"{share:.3f}"] for cells, share in zip(spelled, balance, strict=True)],
        left=4,
    )


def _balance(task: Task, rows: Sequence[Example]) -> list[float]:
    """The share of each label in some rows, of rows that have it where they may have several, or what the numbers of
    a regression give its two words in the mean."""
    if task.one_label:
        counts = Counter(row.label for row in rows)
        return [counts[label] / len(rows) for label in range(len(task.labels))]
    shares = [task.shares(row) or () for row in rows]
    return [sum(own) / len(rows) for own in zip(*shares, strict=True)]


def _numbers(rows: Sequence[Example], scale: Scale) -> str:
    """What the numbers of a regression are, in a line."""
    values = [row.value for row in rows if row.value is not None]
    mean = sum(values) / len(values)
    return (
        f"a number from {scale}: the first word stands for {scale.low:g}, the second for {scale.high:g}; in the test rows "
        f"{min(values):g} to {max(values):g}, mean {mean:.3g}"
    )


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_plain(item)}" for key, item in value.items() if item is not None)
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _shorten(tokens: list[str], length: int, start: int) -> list[str]:
    """The tokens without the middle of a long prompt."""
    if length <= 6:
        return tokens
    return [*tokens[: start + 3], "...", *tokens[start + length - 1 :]]
