"""What several commands do in the same way: find tasks, apply label words, load rows, print."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import JustifyMethod
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from prompttransfer.cli.terminal import CleanConsole, clean_line, json_text
from tasks.catalog import all_tasks, find_task
from tasks.errors import UserError, unknown
from tasks.reading import AS_THEY_ARE, Reading
from tasks.records import KEPT, is_of_catalogue, own_task
from tasks.task import Example, Task, parse_label_words, with_head, with_metric, with_words

if TYPE_CHECKING:
    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.transfers.zero_shot import Target

console = CleanConsole(highlight=False)


def resolve_tasks(
    names: Sequence[str],
    label_words: Sequence[str] | None = None,
    prompts: Sequence[Adaptation] = (),
    reading: Reading = AS_THEY_ARE,
    data: Path | None = None,
    metric: str | None = None,
    *,
    head: bool = False,
) -> list[Task]:
    """Tasks by name, YAML file or data, with the run's label words put on every task that has such a label.

    A name is looked for in the catalogue first, then among the own tasks that `prompts` were trained on and keep.
    `reading` says how their files are read. Raises UserError for an unknown task, one that is given twice, a label that none
    of the tasks has, a metric that one of them cannot have, or a reading of what are no files (`data` is where they are for
    tasks without a folder). With `head` each is answered by a trained head in place of label words.
    """
    words = parse_label_words(label_words or ())
    found = [with_metric(_resolve(name, prompts, reading, data, head), metric) for name in names]
    called = [task.name for task in found]
    twice = next((name for name in called if called.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"task {twice!r} is given twice: name it once, or give one of the two another name")
    labels = {label for task in found for label in task.labels}
    for label in words:
        if label not in labels:
            raise unknown("label", label, labels or ["none of these tasks has labels"])
    return [
        with_words(task, own) if (own := {k: v for k, v in words.items() if k in task.labels}) else task
        for task in found
    ]


def _resolve(
    name: str, prompts: Sequence[Adaptation], reading: Reading, data: Path | None, head: bool
) -> Task:
    from tasks.proposing import is_proposed, task_of_data

    if is_proposed(name):
        return task_of_data(name, reading, head=head)
    task = _named(name, prompts, reading, data)
    task = with_head(task) if head else task
    if reading and data is None and task.folder is None:
        raise UserError(
            f"--columns, --labels, --splits and --skip-empty say how files are read, and the rows of {task.name} are in "
            f"none: give files with --data"
        )
    return reading.of(task)


def _named(name: str, prompts: Sequence[Adaptation], reading: Reading, data: Path | None) -> Task:
    if name.endswith((".yaml", ".yml")):
        from tasks.custom import read_task_file

        return read_task_file(Path(name), reading, data)
    if "/" in name and Path(name).is_dir():
        raise UserError(
            f"{name} is a folder and no task: folders of prompts stand before the options of several values"
        )
    kept = own_task(name, {f"prompt {p.name!r}": p.origin.data.get(KEPT) for p in prompts})
    if name not in all_tasks():
        return kept or find_task(name)
    known = find_task(name)
    if kept is None or is_of_catalogue(kept):
        return known
    if kept.labels == known.labels and is_of_catalogue(
        replace(kept, metric=known.metric, head=known.head, words=known.words)
    ):  # the same task, whose checkpoints another metric chose, or which a head answers
        return with_metric(with_head(known) if kept.head else known, kept.metric)
    warn(f"the prompts of {name} were trained on another task than the catalogue's, which is used here")
    return known


def load_targets(
    tasks: Sequence[Task],
    *,
    data: Path | None,
    limit_train: int | None = None,
    limit_test: int | None = None,
    seeds: Sequence[int] = (0,),
    one_split: bool = False,
    shots: int | None = None,
) -> list[Target]:
    """Each task with its three splits; each seed draws its own validation rows, or with `one_split` has those of seed 0."""
    from prompttransfer.transfers.zero_shot import Target
    from tasks.loading import load_seeded

    drawn = [0] if one_split else list(seeds)
    targets = []
    for task in tasks:
        found = load_seeded(
            task, drawn, data=data, limit_train=limit_train, limit_test=limit_test, shots=shots
        )
        if empty := found[drawn[0]].empty:
            warn(f"{task.name}: {empty:,} row{'s' * (empty > 1)} with an empty text left out")
        targets.append(Target(task, found[drawn[0]], {} if one_split else found))
    return targets


def seeds_line(seeds: Sequence[int], *, one_split: bool, shots: int | None = None) -> str:
    """What a seed decides, for people: a spread over seeds is the spread of just that."""
    drawn = "validation rows" if shots is None else f"{shots} rows of each label to train and to validate"
    shared = f"; all have the {drawn} of seed 0" if one_split else f" and {drawn}"
    return f"seed{'s' * (len(seeds) > 1)} {' '.join(map(str, seeds))}: start, row order{shared}"


def only_the_first_speaks(backbone: Backbone) -> bool:
    """Whether this process is the one that writes; the others, which do the same, are silenced."""
    console.quiet = not backbone.processes.first
    return backbone.processes.first


def describe(backbone: Backbone) -> str:
    """One line on what was loaded, and where."""
    line = f"backbone {backbone.name}: {backbone.family}, width {backbone.width}, {backbone.dtype}, {backbone.device}"
    if backbone.quantised:
        line += ", linear maps of the layers in nf4"
    if backbone.engine != "frozen":
        line += f", {backbone.engine} engine"
    if backbone.processes.count > 1:
        line += f"; {backbone.processes.placement}, {backbone.held_bytes / 1e6:.1f} MB of weights in each"
    return line


def unknown_words(backbone: Backbone, task: str, examples: Sequence[Example]) -> str | None:
    """One line on the words of some rows that a backbone's tokenizer does not know; None where they have no word."""
    share = backbone.unknown_share(examples)
    if share is None:
        return None
    if not share:
        return f"{backbone.name} knows all words of {task}"
    read = (
        f"reads them as {backbone.tokenizer.unk_token}" if backbone.tokenizer.unk_token else "leaves them out"
    )
    return f"{100 * share:.1f} % of the words of {task} are unknown to {backbone.name}, which {read}"


def say(line: str, *, quiet: bool = False) -> None:
    """Print one line, unless the output is for a machine."""
    if not quiet:
        console.print(line, markup=False)


def say_command(line: str) -> None:
    """Print a command on one line however long it is, so that it can be copied."""
    console.print(line, markup=False, soft_wrap=True)


def few(names: Sequence[str], most: int = 10) -> str:
    """Names in a row, the first of many and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def warn(line: str) -> None:
    """One line that a person should see whatever is printed for a machine."""
    if not console.quiet:
        print(f"warning: {clean_line(line)}", file=sys.stderr)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    if not console.quiet:
        print(json_text(value))


MOST_ROWS, MOST_COLUMNS = 60, 24
"""What of a table is printed; of a larger one its beginning and end, and how large it is."""


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Print a table whose first `left` columns are text and whose others are numbers; of a large one a part."""
    columns, rows, left_out = shortened(columns, rows, left)
    _print_table(title, columns, rows, left)
    if left_out:
        say(left_out)


def shortened(
    columns: Sequence[str], rows: Sequence[Sequence[str]], left: int
) -> tuple[list[str], list[list[str]], str]:
    """The columns and rows of a table that are printed, and a line on what is left out (empty for nothing).

    Rows in the middle and the columns behind MOST_COLUMNS go: reference rows stand at the end.
    """
    size = f"{len(rows):,} rows and {len(columns) - left:,} columns"
    kept = len(columns) if len(columns) <= left + MOST_COLUMNS else left + MOST_COLUMNS
    shown = [list(row[:kept]) for row in rows]
    if len(rows) > MOST_ROWS:
        between = ["..."] * min(left, kept) + [""] * (kept - min(left, kept))
        shown = [*shown[: MOST_ROWS - 10], between, *shown[-10:]]
    short = len(shown) < len(rows) or kept < len(columns)
    said = f"{size}; a part of them is shown, the files that are written and --json have all" if short else ""
    return list(columns[:kept]), shown, said


GAP = 2
"""Columns of the terminal that a column of a table takes beside its text."""


def _print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> None:
    """The table in one piece, in several below each other, or row by row: as the terminal is wide enough for its words."""
    console.print(title, style="bold", markup=False)
    words = [[name, *(row[index] for row in rows)] for index, name in enumerate(columns)]
    whole = [max(map(cell_len, cells)) for cells in words]
    need = [max(cell_len(word) for cell in cells for word in [*cell.split(), ""]) for cells in words]
    parts = in_pieces(need, left, console.width)
    if parts is None:
        _print_rows(columns, rows)
        return
    for part in parts:
        drawn = Table(header_style="bold", box=None, pad_edge=False)
        spare = console.width - sum(need[index] + GAP for index in part)
        for index in part:
            more = min(spare, whole[index] - need[index])
            spare -= more
            side: JustifyMethod = "left" if index < left else "right"
            drawn.add_column(Text(columns[index]), justify=side, width=need[index] + more)
        for row in rows:
            drawn.add_row(*(Text(row[index]) for index in part))
        console.print(drawn)


def in_pieces(need: Sequence[int], left: int, width: int) -> list[list[int]] | None:
    """The columns of each piece of a table that fits into `width`, every piece with the first `left` ones.

    `need` is the longest word of each column. None where not even one column fits beside the first ones.
    """
    lead = list(range(min(left, len(need))))
    taken = sum(need[index] + GAP for index in lead)
    pieces: list[list[int]] = []
    room = -1
    for index in range(len(lead), len(need)):
        if room < need[index] + GAP:
            pieces.append([*lead])
            room = width - taken
        if room < need[index] + GAP:
            return None
        pieces[-1].append(index)
        room -= need[index] + GAP
    if not pieces:
        return [lead] if taken <= width else None
    return pieces


def _print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Each row as lines of `column: value`, below what names it."""
    for row in rows:
        console.print(row[0] or "-", style="bold", markup=False)
        for name, cell in zip(columns[1:], row[1:], strict=True):
            if cell:
                text = Text(f"{name}: {cell}" if name else cell)
                console.print(Padding(text, (0, 0, 0, 2), expand=False))


def number(value: float | None, digits: int = 3) -> str:
    """A score for people; a dash where there is none."""
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def answers_line(task: Task, words: Mapping[str, str]) -> str:
    """What answers a task, for people: its label words, a head, or text."""
    if not task.head:
        return f"label words of {words_line(task.name, words)}"
    from prompttransfer.adaptations.heads import Classes

    return f"head of {task.name}, trained: {Classes.of(task).told}"


def constant_line(name: str, values: Mapping[str, float]) -> str:
    """What to know of a regression whose answers are all the same; empty where they are not."""
    if "constant" not in values:
        return ""
    return f"{name} says {values['constant']:g} to every row, with which nothing correlates: its score is 0 by definition"


def words_line(task: str, words: Mapping[str, str]) -> str:
    """`sst2: negative = terrible, positive = great`."""
    spoken = ", ".join(f"{label} = {word}" for label, word in words.items())
    return f"{task}: {spoken or 'text is written'}"
