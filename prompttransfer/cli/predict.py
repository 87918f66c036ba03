"""`predict`: answer the rows of a file, each by the adaptation that it names, all on one backbone.

The file is checked to its last line before a model is loaded. Answers go, window by window, to a file beside the output,
so that a killed run goes on where it stopped; windows are the same in every run, and with them the answers' bits.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from prompttransfer.cli.options import (
    AsJson,
    Columns,
    Device,
    MaxLength,
    OtherBackbone,
    OtherLayout,
    Overwrite,
    Precision,
    Revision,
    SourceMethods,
    Template,
)
from prompttransfer.cli.values import checked, lines_of
from tasks.errors import UserError, unknown

if TYPE_CHECKING:
    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.evaluation.answering import Answers, Question
    from tasks.reading import Reading
    from tasks.task import Task

WINDOW = 2048
"""Rows that are read, sorted by length and answered together."""
STREAM = "-"
OWN = ("adaptation", "task")
"""Keys of a row that say who is to answer it, and what."""


class Predicted(NamedTuple):
    """What `predict` has done."""

    rows: int
    of_earlier_run: int
    """How many of them were answered before."""
    seconds: float


@checked
def predict(
    from_: Annotated[
        list[Path], typer.Option("--from", help="Folders of adaptations, or folders of such folders.")
    ],
    input_: Annotated[
        Path,
        typer.Option(
            "--input", "-i", help="JSON lines, each with its task or adaptation; - for standard input."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="JSON lines, the same rows with `prediction`; standard output if not given.",
        ),
    ] = None,
    columns: Columns = None,
    method: SourceMethods = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", "-b", help="Another backbone than the adaptations' own.")
    ] = None,
    revision: Revision = None,
    other_backbone: OtherBackbone = False,
    template: Template = None,
    other_layout: OtherLayout = False,
    max_length: MaxLength = None,
    overwrite: Overwrite = False,
    precision: Precision = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
) -> Predicted:
    """Answer rows of many tasks by many adaptations at once: label (or number), probabilities and text for each.

    A row is `{"task": "sst2", "text": "..."}`, or names one of several with `"adaptation": "sst2@lora"`; with both, the
    adaptation answers that task. Its other fields are those of the task's data, and the right answer need not be there.
    A row that names nothing that is there is an error. A killed run goes on when the same command is given again.
    """
    given = dict(locals())
    from prompttransfer.cli.common import print_json
    from prompttransfer.cli.data import asked
    from prompttransfer.cli.evaluate import backbone_of
    from prompttransfer.cli.tables import read_prompts
    from prompttransfer.evaluation.answering import Answers
    from prompttransfer.outputs import Files, check_place, settings_of
    from prompttransfer.reports.calls import note_call, precision_name, remember
    from tasks.reading import parse_reading

    place = None if output is None or str(output) == STREAM else output
    if place is not None:
        check_place(place, folder=False)
    adaptations = read_prompts(from_, method)
    with _Spooled(input_) as rows:
        called = "standard input" if str(input_) == STREAM else str(input_)
        finder = Finder(adaptations, called, parse_reading(columns))
        count = sum(1 for _ in finder.questions(rows))
        if not count:
            raise UserError(f"{finder.source} holds no rows: write one JSON object a line")
        files = Files((place,) if place else (), settings_of("predict", asked(given) | {"input_": rows}))
        files.check(overwrite=overwrite)
        if place is not None and place.exists() and not overwrite:
            _say(f"made before with the same settings, nothing is left to do: {count:,} rows in {place}")
            return Predicted(count, count, 0.0)
        model = backbone_of(adaptations, backbone, precision, device, revision=revision)
        model.takes_any = other_backbone
        answers = Answers(
            model,
            adaptations,
            max_length=max_length,
            template=lines_of(template),
            other_layout=other_layout,
        )
        started, before = time.monotonic(), 0
        with _Progress(count) as progress:
            if place is None:
                _answer(answers, finder.questions(rows), _write_out, progress.advance)
            else:
                with Part(place, files.settings) as part:
                    before = part.rows
                    progress.advance(before)
                    left = islice(finder.questions(rows), before, None)
                    _answer(answers, left, part.write, progress.advance)
                files.claim()
                part.finish()
                note_call(
                    [place], remember("predict", predict, given, precision=precision_name(model.precision))
                )
    seconds = time.monotonic() - started
    if as_json and place is not None:
        print_json({"rows": count, "from_an_earlier_run": before, "seconds": seconds, "output": str(place)})
    else:
        rate = (count - before) / max(seconds, 1e-9)
        _say(
            f"{count:,} rows"
            + f", {before:,} of an earlier run" * bool(before)
            + f"; {seconds:.1f} s, {rate:,.0f} rows a second"
        )
        if place is not None:
            _say(f"written to {place}")
    return Predicted(count, before, seconds)


# Rows ------------------------------------------------------------------------------------------------------------


class Finder:
    """Which adaptation and task a row means."""

    def __init__(self, adaptations: Sequence[Adaptation], source: str, reading: Reading):
        self.adaptations, self.source, self.reading = adaptations, source, reading
        self.names = {each.name: place for place, each in enumerate(adaptations)}
        self.of_task: dict[str, list[int]] = {}
        for place, each in enumerate(adaptations):
            self.of_task.setdefault(each.task, []).append(place)
        self.tasks: dict[str, Task] = {}
        self.refused: dict[tuple[int, str], str] = {}
        """What an adaptation says to a task, empty where it can answer it."""

    def questions(self, path: Path) -> Iterator[tuple[dict[str, Any], Question]]:
        """Every row of a file of JSON lines, as it stands there and as a question. Raises UserError for a bad one."""
        from tasks.documents import parse_json

        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    where = f"{self.source}:{number}"
                    row = parse_json(line, where, any_number=True)
                    if not isinstance(row, dict):
                        raise UserError(
                            f"{where}: this is a {type(row).__name__}; each line must be a JSON object"
                        )
                    yield row, self.question(row, where)

    def question(self, row: dict[str, Any], where: str) -> Question:
        """The question in a row."""
        from prompttransfer.adaptations.running import impossible
        from prompttransfer.evaluation.answering import Question
        from tasks.rows import GOLD, neutral, question_of

        named = {key: self._name(row, key, where) for key in OWN}
        if not any(named.values()):
            raise UserError(
                f'{where}: the row names neither task nor adaptation: write "task": "{self.adaptations[0].task}"'
            )
        place = self._place(named["adaptation"], named["task"], where)
        task = self._task(named["task"] or self.adaptations[place].task, where)
        key = (place, task.name)
        if key not in self.refused:
            self.refused[key] = impossible(self.adaptations[place], task)
        if self.refused[key]:
            raise UserError(f"{where}: {self.refused[key]}")
        fields = {name: value for name, value in row.items() if name not in OWN}
        return Question(place, task, question_of(task, neutral(task, fields, where, left_out=GOLD), where))

    @staticmethod
    def _name(row: dict[str, Any], key: str, where: str) -> str | None:
        value = row.get(key)
        if value is not None and not isinstance(value, str):
            raise UserError(f"{where}: {key!r} is {value!r}: it must be a name")
        return value

    def _place(self, adaptation: str | None, task: str | None, where: str) -> int:
        if adaptation is not None:
            if adaptation not in self.names:
                raise UserError(f"{where}: {unknown('adaptation', adaptation, self.names)}")
            return self.names[adaptation]
        assert task is not None
        places = self.of_task.get(task)
        if places is None:
            there = ", ".join(self.of_task)
            raise UserError(
                f"{where}: no adaptation of task {task!r} is here; those that are here are of {there}"
            )
        if len(places) > 1:
            names = ", ".join(self.adaptations[place].name for place in places[:6])
            raise UserError(
                f'{where}: task {task!r} has {len(places)} adaptations: write "adaptation" with one of {names}, or choose '
                f"with --method"
            )
        return places[0]

    def _task(self, name: str, where: str) -> Task:
        from prompttransfer.cli.common import resolve_tasks

        if name not in self.tasks:
            try:
                (found,) = resolve_tasks([name], prompts=self.adaptations)
                self.tasks[name] = self.reading.of(found)
            except UserError as error:
                raise UserError(f"{where}: {error}") from None
        return self.tasks[name]


class _Spooled:
    """The path of a file of rows; what comes from standard input is kept in one that goes away in the end."""

    def __init__(self, path: Path):
        self.path, self.kept = path, ""

    def __enter__(self) -> Path:
        import shutil

        if str(self.path) != STREAM:
            if not self.path.is_file():
                raise UserError(f"--input {self.path}: there is no such file")
            return self.path
        handle, self.kept = tempfile.mkstemp(suffix=".jsonl")
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        return Path(self.kept)

    def __exit__(self, *error: object) -> None:
        if self.kept:
            Path(self.kept).unlink(missing_ok=True)


# Answers ---------------------------------------------------------------------------------------------------------


def _answer(
    answers: Answers,
    questions: Iterator[tuple[dict[str, Any], Question]],
    write: Callable[[list[str]], None],
    advance: Callable[[int], None],
) -> None:
    """Answer window by window, and hand each to `write` as lines."""
    while window := list(islice(questions, WINDOW)):
        found = answers([question for _, question in window], advance=advance)
        lines = []
        for (row, question), answer in zip(window, found, strict=True):
            name = answers.adaptations[question.place].name
            lines.append(
                json.dumps(
                    {**row, "prediction": {"adaptation": name, **answer.as_dict()}}, ensure_ascii=False
                )
            )
        write(lines)


def _write_out(lines: list[str]) -> None:
    from prompttransfer.cli.terminal import json_text

    for line in lines:
        print(json_text(json.loads(line), indent=None))
    sys.stdout.flush()


class Part:
    """The answers so far, in a file beside the output that says in its name's companion what they come from."""

    def __init__(self, output: Path, settings: Any):
        from prompttransfer.outputs import plain

        self.output = output
        self.path = output.with_name(f"{output.name}.part")
        self.record = output.with_name(f"{output.name}.part.json")
        self.settings = plain(settings)
        self.rows = 0

    def __enter__(self) -> Part:
        from prompttransfer.files import disk_errors, write_json
        from tasks.documents import read_json_object

        with disk_errors(self.output):
            self.output.parent.mkdir(parents=True, exist_ok=True)
            same = self.record.exists() and read_json_object(self.record, "settings") == self.settings
            if not same:
                self.path.unlink(missing_ok=True)
                write_json(self.record, self.settings)
            self.file = self.path.open("a+b")
            self._keep_whole_windows()
        return self

    def _keep_whole_windows(self) -> None:
        """Cut off what a kill left of a window: windows are answered whole, as they would be in one go."""
        self.file.seek(0)
        end = position = lines = 0
        for line in self.file:
            position += len(line)
            lines += line.endswith(b"\n")
            if lines % WINDOW == 0 and line.endswith(b"\n"):
                self.rows, end = lines, position
        self.file.truncate(end)
        self.file.seek(end)

    def write(self, lines: list[str]) -> None:
        """Add a window."""
        from prompttransfer.files import disk_errors

        with disk_errors(self.output):
            self.file.write("".join(f"{line}\n" for line in lines).encode())
            self.file.flush()

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def finish(self) -> None:
        """Give the answers their name."""
        from prompttransfer.files import disk_errors

        with disk_errors(self.output):
            self.path.replace(self.output)
            self.record.unlink(missing_ok=True)


class _Progress:
    """A bar with rows a second on standard error, where that is a terminal."""

    def __init__(self, rows: int):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("rows"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("rows", total=rows, rate="")

    def __enter__(self) -> _Progress:
        self.bar.__enter__()
        return self

    def advance(self, rows: int) -> None:
        """So many more are done."""
        self.bar.advance(self.task, rows)
        speed = self.bar.tasks[0].speed
        self.bar.update(self.task, rate=f"{speed:,.0f} rows a second" if speed else "")

    def __exit__(self, *error: Any) -> None:
        self.bar.__exit__(*error)


def _say(line: str) -> None:
    """A line on standard error: standard output may be where the answers go."""
    from prompttransfer.cli.terminal import clean_line

    print(clean_line(line), file=sys.stderr)
