"""Tables with task names on both sides: rows are source prompts, columns are target tasks.

A transfer table may carry rows that are no trained prompt (no prompt, random prompt, majority class): they are for
reference, set apart in figures and left out of every statistic. An empty cell (NaN) is a cell that cannot be, not a
zero. Two tables are compared only over tasks that both of them name.
"""

from __future__ import annotations

import csv
import io
import os.path
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.documents import shortened
from tasks.errors import UserError
from tasks.task import TYPES as TYPE_ORDER

LONGEST_NAME = 300
"""Letters of a label; the name of a task has at most 100."""

REFERENCE_ROWS = (
    "no prompt",
    "no prompt, calibrated",
    "random prompt",
    "random adaptation",
    "random",
    "in-context",
    "majority",
    "majority class",
    "full fine-tuning",
)

# The names that Su et al. 2022 give the tasks in their published matrices (they differ in spelling from the hub's).
PUBLISHED_TYPES: dict[str, str] = {
    **dict.fromkeys(
        ("IMDB", "SST2", "laptop", "restaurant", "movierationales", "tweetevalsentiment"), "sentiment"
    ),
    **dict.fromkeys(("MNLI", "QNLI", "snli"), "nli"),
    **dict.fromkeys(("ethicsdeontology", "ethicsjustice"), "ethics"),
    **dict.fromkeys(("QQP", "MRPC"), "paraphrase"),
    **dict.fromkeys(("squad", "nq_open"), "qa"),
    **dict.fromkeys(("multi_news", "samsum"), "summarisation"),
}


def is_reference(label: str) -> bool:
    """Whether a row of this name stands for reference: `no prompt`, `random-prompt`, `Majority` ..."""
    return label.lower().replace("_", " ").replace("-", " ") in {r.replace("-", " ") for r in REFERENCE_ROWS}


def shared_prefix(labels: Sequence[str]) -> str:
    """What all names begin with, up to a dash, underscore or slash (`microworld-`); empty for fewer than two names.

    A page or a table leaves it out, says so, and has room for what tells the names apart.
    """
    names = list(labels) if len(set(labels)) > 1 else [""]
    common = os.path.commonprefix(names)  # noqa: RUF071  (characters are what is wanted)
    return re.sub(r"[^-_/]*$", "", common)


def parse_matrix(text: str, name: str) -> pd.DataFrame:
    """The table in CSV `text`: first line target names, first column source names, cells numbers or empty (NaN).

    `name` is what the messages call it. A line of another length, a cell that is no number, or a label that occurs
    twice is a UserError with the line number.
    """
    try:
        lines = [line for line in csv.reader(io.StringIO(text.lstrip("\ufeff"))) if line]
    except csv.Error as error:
        raise UserError(f"{name} is not a table: {error}") from None
    if len(lines) < 2 or len(lines[0]) < 2:
        raise UserError(
            f"{name} is not a matrix: it needs a line of column names and at least one row of numbers"
        )
    columns = [label.strip() for label in lines[0][1:]]
    rows: list[str] = []
    values: list[np.ndarray] = []
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(lines[0]):
            raise UserError(
                f"{name}, line {number}: {len(line)} cells where the first line has {len(lines[0])}; mend the file"
            )
        rows.append(line[0].strip())
        values.append(_numbers(line[1:], columns, f"{name}, line {number}"))
    for side, labels in (("row", rows), ("column", columns)):
        check_names(labels, f"{name}: {side}")
        twice = sorted(label for label, count in Counter(labels).items() if count > 1)
        if twice:
            raise UserError(
                f"{name}: {side} name used twice: {_list(twice)}; every {side} needs its own name"
            )
    return pd.DataFrame(np.stack(values), index=rows, columns=columns)


def _numbers(cells: Sequence[str], columns: Sequence[str], place: str) -> np.ndarray:
    """The numbers of a line; a table of thousands of columns is read in seconds, since few lines are looked at twice."""
    try:
        values = np.array([cell or "nan" for cell in cells], dtype=float)
    except ValueError:
        values = np.array([np.inf])
    if not np.isinf(values).any():
        return values
    return np.array(
        [_number(cell, f"{place}, column {shortened(c)!r}") for cell, c in zip(cells, columns, strict=True)],
        dtype=float,
    )


def check_names(labels: Iterable[str], where: str) -> None:
    """Raise UserError for a name that is too long to be drawn or printed."""
    for label in labels:
        if len(label) > LONGEST_NAME:
            raise UserError(
                f"{where} name {shortened(label, 60)!r} has {len(label)} letters: at most {LONGEST_NAME} are drawn"
            )


def parse_long_table(text: str, name: str) -> pd.DataFrame:
    """A CSV with named columns, one observation a row; UserError for what is none."""
    try:
        return pd.read_csv(io.StringIO(text))
    except (ValueError, OverflowError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{name} is not a table: {shortened(str(error))}") from None


def _number(cell: str, place: str) -> float:
    if cell.strip().lower() in {"", "nan", "na", "-"}:
        return float("nan")
    try:
        value = float(cell)
    except ValueError:
        raise UserError(
            f"{place}: {shortened(cell)!r} is not a number; leave a cell empty if it cannot be"
        ) from None
    if np.isinf(value):
        raise UserError(f"{place}: {shortened(cell)!r} is not finite; leave a cell empty if it cannot be")
    return value


def merge_seeds(table: pd.DataFrame, tasks: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """(the table with one row a task, number of seeds): rows `sst2-s0`, `sst2-s1` of task sst2 become their mean.

    Columns that are named so (an indicator's) become one, too. The number is that of the task with the fewest rows;
    a row that is named after its task alone is one seed, as far as the names say.
    """
    named = {str(label): _task_of(str(label), tasks) for label in [*table.index, *table.columns]}
    if list(named) == list(named.values()):
        return table, 1
    merged = table.rename(index=named, columns=named)
    counts = pd.Series([task for task in merged.index if task in tasks]).value_counts()
    merged = merged.groupby(level=0, sort=False).mean()
    if not merged.columns.is_unique:
        merged = merged.T.groupby(level=0, sort=False).mean().T
    return merged, int(counts.min()) if len(counts) else 1


def _task_of(label: str, tasks: Sequence[str]) -> str:
    """The task that a prompt of a seed is of; the label itself for every other."""
    stem = re.sub(r"-s\d+$", "", label)
    return stem if stem in tasks and label not in tasks else label


def split_references(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(rows of prompts, rows for reference); a row whose name is also a column is always a prompt's."""
    reference = np.array(
        [is_reference(str(row)) and row not in table.columns for row in table.index], dtype=bool
    )
    return table[~reference], table[reference]


@dataclass(frozen=True)
class Aligned:
    """A transfer table and an indicator over the same tasks in the same order, [tasks, tasks], and what was left out."""

    transfer: pd.DataFrame
    indicator: pd.DataFrame
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        labels = list(self.transfer.columns)
        for side in (self.transfer.index, self.indicator.index, self.indicator.columns):
            if list(side) != labels:
                raise ValueError("an aligned pair has the same labels in the same order on all four sides")


def align(transfer: pd.DataFrame, indicator: pd.DataFrame, name: str, *, common: bool = False) -> Aligned:
    """Bring an indicator to the tasks of a transfer table.

    The tasks are the target columns. Rows of the transfer that are no target are left out with a note, as are
    tasks that only the indicator knows. A target that the indicator or the rows lack is a UserError that says what
    is missing on which side, unless `common` asks for the tasks that both have.
    """
    targets = [str(t) for t in transfer.columns]
    known = [t for t in indicator.columns if t in indicator.index]
    tasks = [t for t in targets if t in transfer.index and t in known]
    sides = {
        "only in the transfer table": [t for t in targets if t not in known],
        "only in the indicator": [t for t in known if t not in targets],
        "targets without a source row": [t for t in targets if t not in transfer.index],
    }
    said = [f"{side}: {_list(labels)}" for side, labels in sides.items() if labels]
    if len(tasks) < len(targets) and not (common and tasks):
        hint = (
            f"keep the {len(tasks)} common tasks with --common"
            if tasks
            else "nothing is common: give matching files"
        )
        raise UserError(f"the transfer table and indicator {name!r} do not match: {'; '.join(said)}; {hint}")
    sources = [row for row in split_references(transfer)[0].index if row not in targets]
    if sources:
        said.append(f"source rows that are no target: {_list(sources)}")
    notes = tuple(f"left out, {line}" for line in said)
    return Aligned(transfer.loc[tasks, tasks], indicator.loc[tasks, tasks], notes)


def _list(labels: Sequence[str]) -> str:
    shown = ", ".join(map(str, labels[:8]))
    return shown + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")


def order_by_type(labels: Sequence[str], types: Mapping[str, str]) -> list[str]:
    """Labels of one type next to each other: the paper's types first, then others by name, then those without."""

    def place(label: str) -> tuple[int, str]:
        kind = types.get(label, "")
        if kind in TYPE_ORDER:
            return TYPE_ORDER.index(kind), ""
        return (len(TYPE_ORDER), kind) if kind else (len(TYPE_ORDER) + 1, "")

    return sorted(labels, key=place)  # stable: within a type the given order stays


def same_type(labels: Sequence[str], types: Mapping[str, str]) -> pd.DataFrame:
    """The plain baseline that an indicator has to beat: 1 where source and target are of one type, else 0."""
    unknown = [label for label in labels if not types.get(label)]
    if unknown:
        raise UserError(
            f"no type is known for {_list(unknown)}: give it as name=type (for example {unknown[0]}=sentiment)"
        )
    kinds = np.array([types[label] for label in labels])
    return pd.DataFrame(
        (kinds[:, None] == kinds[None, :]).astype(float), index=list(labels), columns=list(labels)
    )
