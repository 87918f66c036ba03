"""`correlate`: does an indicator predict transfer, and how sure are we?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.cli.options import Overwrite, Types
from prompttransfer.cli.values import Output, Seed, Whole, checked

if TYPE_CHECKING:
    from analysis.prediction import Prediction


@checked
def correlate(
    transfer: Annotated[
        Path, typer.Option(help="The transfer matrix, CSV: rows source prompts, columns targets.")
    ],
    indicator: Annotated[
        list[Path], typer.Option(help="A square CSV of an indicator (as `compare` writes), may be repeated.")
    ],
    include_self: Annotated[
        bool, typer.Option("--include-self", help="Rank the target's own prompt too, as the paper does.")
    ] = False,
    common: Annotated[bool, typer.Option("--common", help="Keep the tasks that all files have.")] = False,
    leave_out: Annotated[list[str] | None, typer.Option(help="Task to leave out, may be repeated.")] = None,
    types: Types = None,
    draws: Annotated[
        int, typer.Option(help="Draws of the bootstrap and shuffles of the test."), Whole(1, 1_000_000)
    ] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of both."), Seed] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for summary.csv and per_target.csv."),
        Output(),
    ] = None,
    overwrite: Overwrite = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rank correlation of indicators with transfer per target, with interval, permutation test, and the choice made."""
    given = dict(locals())
    from analysis.prediction import per_target_table, predict, prediction_table
    from prompttransfer.cli.plot import without
    from prompttransfer.cli.tables import read_matrix, say_written, task_types, write_table
    from prompttransfer.outputs import Files, settings_of

    paths = [] if output is None else [output / "summary.csv", output / "per_target.csv"]
    written = Files(tuple(paths), settings_of("correlate", given))
    written.check(overwrite=overwrite)
    table = without(read_matrix(transfer), leave_out or [])
    indicators = {_name(path, indicator): read_matrix(path) for path in indicator}
    kinds = task_types(map(str, table.columns), types or [])
    untyped = [str(t) for t in table.columns if str(t) not in kinds]
    answers = predict(
        table, indicators, None if untyped else kinds,
        include_self=include_self, common=common, draws=draws, seed=seed,
    )  # fmt: skip
    if paths:
        written.claim()
        write_table(paths[0], prediction_table(answers))
        write_table(paths[1], per_target_table(answers))
    notes = (
        [f"same-type flag left out: no type known for {', '.join(untyped[:5])} (give --types)"]
        if untyped
        else []
    )
    if json_:
        say_written(paths, True, {"indicators": [as_record(a) for a in answers], "notes": notes})
        return
    _print(answers, include_self, notes)
    say_written(paths)


def _name(path: Path, paths: list[Path]) -> str:
    """The metric that a file is named after; the path where two files would share it."""
    short = path.stem.removeprefix("similarity_")
    return short if [p.stem.removeprefix("similarity_") for p in paths].count(short) == 1 else str(path)


def as_record(answer: Prediction) -> dict[str, Any]:
    """One indicator's answer as JSON values; what does not exist is null and has its reason beside it."""
    from dataclasses import asdict

    return {
        "indicator": answer.indicator,
        "mean_spearman": answer.mean,
        "interval": asdict(answer.interval),
        "permutation_test": asdict(answer.test),
        "per_target": [asdict(t) for t in answer.targets],
        "choice": asdict(answer.choice) if answer.choice else None,
        "choices": [{**asdict(c), "regret": c.regret} for c in answer.choices],
        "minus_same_type": asdict(answer.against_baseline) if answer.against_baseline else None,
        "p_minus_same_type_holm": answer.p_corrected,
        "notes": list(answer.notes),
    }


def _print(answers: tuple[Prediction, ...], include_self: bool, notes: list[str]) -> None:
    """Two tables (rank correlation; the choice of a source), then every reason why something is missing."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    from prompttransfer.cli.terminal import CleanConsole

    console = CleanConsole()
    own = "kept in" if include_self else "left out"
    ranks = Table(
        title=f"Spearman with transfer, mean over targets (the target's own prompt {own})", box=SIMPLE_HEAD
    )
    chosen = Table(title="the source each would choose, mean over targets", box=SIMPLE_HEAD)
    for table, headings in (
        (ranks, ("indicator", "rho", "95 % interval", "p (shuffled)", "minus same type", "p (Holm)")),
        (chosen, ("indicator", "gives", "best source", "regret", "NDCG at 1", "NDCG")),
    ):
        for heading in headings:
            table.add_column(heading, justify="left" if heading == "indicator" else "right", overflow="fold")
    for a in answers:
        other = None if a.against_baseline is None else a.against_baseline.mean
        low, high = _number(a.interval.low, 2), _number(a.interval.high, 2)
        ranks.add_row(escape(a.indicator), _number(a.mean, 3), f"{low} to {high}", _number(a.test.p_value, 4), _number(other, 3), _number(a.p_corrected, 3))  # fmt: skip
        if a.choice:
            c = a.choice
            chosen.add_row(escape(a.indicator), *(_number(v, 3) for v in (c.chosen_score, c.best_score, c.regret, c.ndcg_first, c.ndcg)))  # fmt: skip
    console.print(ranks)
    if chosen.row_count:
        console.print(chosen)
        loss = next(a.choice.random_regret for a in answers if a.choice)
        console.print(f"A source drawn at random has a regret of {loss:.3g}.")
    for line, names in reasons(answers).items():
        notes.append(f"{line} ({', '.join(names)})")
    for note in notes:
        console.print(f"note: {escape(note)}", highlight=False)


def reasons(answers: tuple[Prediction, ...]) -> dict[str, list[str]]:
    """Every reason why a number is missing or a task was left out -> the indicators it holds for."""
    found: dict[str, list[str]] = {}
    for a in answers:
        lines = [
            *a.notes,
            a.interval.reason,
            a.test.reason,
            *(f"target {t.target}: {t.reason}" for t in a.unranked),
        ]
        for line in dict.fromkeys(lines):
            if line:
                found.setdefault(line, []).append(a.indicator)
    return found


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"
