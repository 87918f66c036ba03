"""`compare-predictions`: two files of predictions, row by row; `plot confusion`: what was taken for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.cli.options import AsJson, Overwrite
from prompttransfer.cli.plot import Drawing, Json, Picture, Title, plot_app
from prompttransfer.cli.values import Output, Whole, checked
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.evaluation.predictions import Said

FileOfPredictions = Annotated[
    Path, typer.Argument(help="Predictions, as --predictions of evaluate, transfer or train writes them.")
]
OfTask = Annotated[
    str | None, typer.Option("--task", "-t", help="The predictions on this task; on all if not given.")
]
DRAWS = 10_000


@checked
def compare_predictions(
    first: FileOfPredictions,
    second: FileOfPredictions,
    first_prompt: Annotated[
        str | None, typer.Option("--first", help="Which adaptation of the first file, where it has several.")
    ] = None,
    second_prompt: Annotated[
        str | None, typer.Option("--second", help="The same for the second file.")
    ] = None,
    task: OfTask = None,
    show: Annotated[
        int, typer.Option("--show", help="Print so many rows that only one of the two gets right."), Whole(0)
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the rows that only one gets right, as JSON lines."),
        Output(folder=False),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> list[dict[str, Any]]:
    """Say what one adaptation gets right and the other does not, on the same test rows, and how sure that difference is.

    McNemar's test is exact; the interval is of rows drawn again, the same for both. Both are about other rows of this kind,
    not about other seeds.
    """
    from prompttransfer.cli.common import print_json, say, table
    from prompttransfer.evaluation.predictions import choose, read_predictions, write_predictions
    from prompttransfer.outputs import Files, settings_of

    files = Files((output,) if output else (), settings_of("compare-predictions", dict(locals())))
    files.check(overwrite=overwrite)
    ours = choose(read_predictions(first), first, first_prompt, task, "--first")
    theirs = choose(read_predictions(second), second, second_prompt, task, "--second")
    pairs = _pairs(ours, theirs, first, second)
    records = [compared(one, other) for one, other in pairs]
    divided = [line for one, other in pairs for line in only_one(one, other)]
    if output is not None:
        files.claim()
        write_predictions(output, divided)
    if as_json:
        print_json(records)
        return records
    names = [column for column, _ in COLUMNS]
    table("predictions compared, row by row", names, [[shown(record) for _, shown in COLUMNS] for record in records], left=3)  # fmt: skip
    say(
        f"both, only, neither: rows that are right; interval: {DRAWS:,} draws of rows; p: McNemar's exact test"
    )
    if any(one.of_values for one, _ in pairs):
        say(
            "-: numbers are neither right nor wrong; what is compared is Pearson's correlation with the right ones"
        )
    for record in records:
        if record["reason"]:
            say(f"{record['task']}: {record['reason']}")
    for line in divided[:show]:
        say(
            f"\n{line['task']}, row {line['row']}: {line['text']}"
            + (f" | {line['text_b']}" if line.get("text_b") else "")
        )
        say(f"  gold {line['gold']}; first {line['first']}, second {line['second']}")
    if output is not None:
        say(f"written to {output}: {len(divided):,} rows that only one of the two gets right")
    return records


def _pairs(
    ours: Sequence[Said], theirs: Sequence[Said], first: Path, second: Path
) -> list[tuple[Said, Said]]:
    """Those of one task each; UserError where a file has several adaptations of a task, or the two share none."""
    from prompttransfer.evaluation.predictions import check_same_rows

    for found, path, option in ((ours, first, "--first"), (theirs, second, "--second")):
        several = [name for name, count in Counter(said.task for said in found).items() if count > 1]
        if several:
            there = ", ".join(said.prompt for said in found if said.task == several[0])
            raise UserError(
                f"{path} has several adaptations on {several[0]}: choose one with {option}, of {there}"
            )
    others = {said.task: said for said in theirs}
    pairs = [(said, others[said.task]) for said in ours if said.task in others]
    if not pairs:
        raise UserError(
            f"{first} has predictions on {', '.join(said.task for said in ours)}, {second} on {', '.join(others)}: they "
            f"share no task"
        )
    for one, other in pairs:
        check_same_rows(one, other)
    return pairs


def compared(one: Said, other: Said) -> dict[str, Any]:
    """Two adaptations on the rows of one task."""
    same = {"task": one.task, "first": one.prompt, "second": other.prompt, "rows": len(one.rows)}
    return same | (_correlated(one, other) if one.of_values else _counted(one, other))


def _counted(one: Said, other: Said) -> dict[str, Any]:
    """Where rows are right or wrong."""
    from analysis.paired import mcnemar, paired_bootstrap
    from prompttransfer.evaluation.predictions import outcome

    found = Counter(outcome(a, b) for a, b in zip(one.rows, other.rows, strict=True))
    ours, theirs = [row.score for row in one.rows], [row.score for row in other.rows]
    difference, interval = paired_bootstrap(ours, theirs, draws=DRAWS)
    test = mcnemar([bool(row.right) for row in one.rows], [bool(row.right) for row in other.rows])
    return {
        "score_first": sum(ours) / len(ours),
        "score_second": sum(theirs) / len(theirs),
        "difference": difference,
        **asdict(interval),
        "both": found["both right"],
        **{name: value for name, value in asdict(test).items() if name != "p_value"},
        "neither": found["both wrong"],
        "p_mcnemar": test.p_value,
    }


def _correlated(one: Said, other: Said) -> dict[str, Any]:
    """Where numbers are answered, of which none is right: how they correlate with those that are."""
    from analysis.paired import paired_correlation

    truth, first, second = (
        [_number(row.gold) for row in one.rows],
        [_number(row.predicted) for row in one.rows],
        [_number(row.predicted) for row in other.rows],
    )
    ours, theirs, interval = paired_correlation(first, second, truth, draws=DRAWS)
    nothing = dict.fromkeys(("both", "only_first", "only_second", "neither", "p_mcnemar"))
    scores = {"score_first": ours, "score_second": theirs, "difference": ours - theirs}
    return {**scores, **asdict(interval), **nothing}


def _number(said: Any) -> float:
    """What a regression answers, or is asked for."""
    return float(said)


def only_one(one: Said, other: Said) -> list[dict[str, Any]]:
    """The rows that one of the two gets right and the other does not, the first's before the second's."""
    found = []
    for mine, theirs in zip(one.rows, other.rows, strict=True):
        if mine.right != theirs.right:
            line = mine.model_dump(include={"task", "row", "text", "text_b", "gold"}, exclude_none=True)
            found.append({**line, "right": "first" if mine.right else "second", "first": mine.predicted, "second": theirs.predicted})  # fmt: skip
    return sorted(found, key=lambda line: line["right"])


def _difference(record: dict[str, Any]) -> str:
    said = f"{record['difference']:+.3f}"
    return said if record["low"] is None else f"{said} ({record['low']:+.3f}, {record['high']:+.3f})"


def _count(rows: int | None) -> str:
    return "-" if rows is None else str(rows)


COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("task", lambda r: str(r["task"])),
    ("first", lambda r: str(r["first"])),
    ("second", lambda r: str(r["second"])),
    ("rows", lambda r: f"{r['rows']:,}"),
    ("1st", lambda r: f"{r['score_first']:.3f}"),
    ("2nd", lambda r: f"{r['score_second']:.3f}"),
    ("1st - 2nd (95 %)", _difference),
    ("both", lambda r: _count(r["both"])),
    ("only 1st", lambda r: _count(r["only_first"])),
    ("only 2nd", lambda r: _count(r["only_second"])),
    ("neither", lambda r: _count(r["neither"])),
    ("p", lambda r: "-" if r["p_mcnemar"] is None else f"{r['p_mcnemar']:.2g}"),
)
"""Heading -> what stands below it."""


@plot_app.command("confusion")
@checked
def confusion(
    file: FileOfPredictions,
    output: Picture = None,
    overwrite: Overwrite = False,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", help="Adaptations of the file; all if not given.")
    ] = None,
    task: OfTask = None,
    title: Title = "",
    json_: Json = False,
) -> None:
    """Confusion matrices of the adaptations in a file of predictions on one task, side by side."""
    picture = Drawing("confusion", output or file.with_suffix(".png"), dict(locals()))
    from analysis.figures import confusion as draw
    from analysis.figures import confusion_counts
    from prompttransfer.cli.tables import say_written
    from prompttransfer.evaluation.predictions import choose, read_predictions

    found = choose(read_predictions(file), file, None, task, "--prompt")
    for name in prompt or ():
        choose(found, file, name, task, "--prompt")
    found = [said for said in found if not prompt or said.prompt in prompt]
    tasks = list(dict.fromkeys(said.task for said in found))
    if len(tasks) > 1:
        raise UserError(f"{file} has predictions on {', '.join(tasks)}: draw one with --task")
    if not all(said.of_labels for said in found):
        said = "numbers were answered" if found[0].of_values else "text was written"
        if found[0].of_sets:
            said = "rows have any number of labels, of which none stands for another"
        raise UserError(f"{file}: on {tasks[0]} {said}, so there are no labels to confuse")
    labels = found[0].labels
    counts = [
        confusion_counts(
            [str(row.gold) for row in said.rows], [str(row.predicted) for row in said.rows], labels
        )
        for said in found
    ]
    titles = [title or tasks[0]] if len(found) == 1 else [said.prompt for said in found]
    say_written(picture.write(draw(counts, labels, titles)), json_)
