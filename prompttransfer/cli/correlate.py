"""`correlate`: does an indicator predict transfer, and how sure are we?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.cli.options import Overwrite, Types
from prompttransfer.cli.values import Output, Seed, Whole, checked

if TYPE_CHECKING:
    from analysis.prediction import Corrected, Prediction
    from analysis.statistics import Interval


_MOST_NOTES = 20


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
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Training seeds behind every score, where rows task-s0, task-s1 do not say; from one no p value is given.",
        ),
        Whole(),
    ] = None,
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
    from analysis.matrices import merge_seeds
    from analysis.prediction import per_target_table, predict_transfer, prediction_table, smallest_p_values
    from prompttransfer.cli.plot import without
    from prompttransfer.cli.tables import (
        read_matrix,
        say_written,
        task_metrics,
        task_types,
        types_beside,
        write_table,
    )
    from prompttransfer.outputs import Files, settings_of

    paths = [] if output is None else [output / "summary.csv", output / "per_target.csv"]
    written = Files(tuple(paths), settings_of("correlate", given))
    written.check(overwrite=overwrite)
    table = without(read_matrix(transfer), leave_out or [])
    tasks = [str(t) for t in table.columns]
    table, counted = merge_seeds(table, tasks)
    indicators = {_name(path, indicator): merge_seeds(read_matrix(path), tasks)[0] for path in indicator}
    kinds = task_types(tasks, types or [], recorded=types_beside(transfer))
    untyped = [t for t in tasks if t not in kinds]
    answers = predict_transfer(
        table, indicators, None if untyped else kinds, metrics=task_metrics(tasks), seeds=seeds or counted,
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
    notes += smallest_p_values(answers)
    if json_:
        record = {
            "seeds": seeds or counted,
            "indicators": [as_record(a) for a in answers],
            "notes": notes,
        }
        say_written(paths, True, record)
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
        "permutation_test_holm": _corrected(answer.test_holm),
        "permutation_test_within_types": asdict(answer.within) if answer.within else None,
        "permutation_test_within_types_holm": _corrected(answer.within_holm),
        "choice": asdict(answer.choice) if answer.choice else None,
        "choice_by_metric": {name: asdict(each) for name, each in answer.choice_by_metric.items() if name},
        "choices": [{**asdict(c), "regret": c.regret} for c in answer.choices],
        "minus_same_type": asdict(answer.against_baseline) if answer.against_baseline else None,
        "p_minus_same_type_holm": answer.against_holm.p_value if answer.against_holm else None,
        "smallest_p_minus_same_type_holm": answer.against_holm.smallest if answer.against_holm else None,
        "notes": list(answer.notes),
    }


def _corrected(found: Corrected | None) -> dict[str, float | None] | None:
    return None if found is None else {"p_value": found.p_value, "smallest_p": found.smallest}


def _print(answers: tuple[Prediction, ...], include_self: bool, notes: list[str]) -> None:
    """Three tables (rank correlation; against the types; the choice of a source), then what to know of them."""
    from prompttransfer.cli.common import say

    own = "kept in" if include_self else "left out"
    _table(
        f"Spearman with transfer, mean over targets (the target's own prompt {own})",
        ("rho", "95 % interval over tasks", "p one-sided, tasks shuffled", "Holm"),
        [
            (
                a.indicator,
                _number(a.mean, 3),
                _span(a.interval),
                _number(a.test.p_value, 4),
                _holm(a.test_holm, 4),
            )
            for a in answers
        ],
    )
    _table(
        "beyond the task types",
        ("minus same type", "95 % interval over tasks", "p two-sided, tasks drawn", "Holm", "p one-sided, shuffled within types", "Holm"),
        [
            (
                a.indicator,
                _number(a.against_baseline.mean, 3),
                _span(a.against_baseline.interval),
                _number(a.against_baseline.p_value, 4),
                _holm(a.against_holm, 3),
                _number(a.within.p_value if a.within else None, 4),
                _holm(a.within_holm, 3),
            )
            for a in answers
            if a.against_baseline is not None
        ],
    )  # fmt: skip
    chosen = [(a, metric, c) for a in answers for metric, c in a.choice_by_metric.items()]
    several = len({metric for _, metric, _ in chosen}) > 1
    _table(
        f"the source each would choose, mean over targets{' of one metric' if several else ''}",
        ("gives", "best source", "regret", "a random source's", "NDCG at 1", "NDCG"),
        [
            (
                f"{a.indicator}, {metric or 'unknown metric'}" if several else a.indicator,
                *(_number(v, 3) for v in (c.chosen_score, c.best_score, c.regret, c.random_regret, c.ndcg_first, c.ndcg)),
            )
            for a, metric, c in chosen
        ],
    )  # fmt: skip
    for line, names in reasons(answers).items():
        notes.append(f"{line} ({', '.join(names)})" if len(names) < len(answers) else line)
    for note in notes[:_MOST_NOTES]:
        say(f"note: {note}")
    if len(notes) > _MOST_NOTES:
        say(f"and {len(notes) - _MOST_NOTES:,} more notes: --json has all")


def _table(title: str, headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A table whose first column is the indicator; nothing without rows."""
    from prompttransfer.cli.common import table

    if rows:
        table(title, ["indicator", *headings], rows)


def reasons(answers: tuple[Prediction, ...]) -> dict[str, list[str]]:
    """Every reason why a number is missing or a task was left out -> the indicators it holds for."""
    found: dict[str, list[str]] = {}
    for a in answers:
        other = a.against_baseline.interval.reason if a.against_baseline else ""
        lines = [
            *a.notes,
            a.interval.reason,
            other,
            a.test.reason,
            a.within.reason if a.within else "",
            *(f"target {t.target}: {t.reason}" for t in a.unranked),
        ]
        for line in dict.fromkeys(lines):
            if line:
                found.setdefault(line, []).append(a.indicator)
    return found


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _span(interval: Interval) -> str:
    """An interval for people."""
    return "-" if interval.low is None else f"{_number(interval.low, 2)} to {_number(interval.high, 2)}"


def _holm(found: Corrected | None, decimals: int) -> str:
    return "-" if found is None else _number(found.p_value, decimals)
