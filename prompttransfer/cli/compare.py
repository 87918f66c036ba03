"""`compare`: how alike prompts are, from their vectors and from the neurons that they activate; one CSV an indicator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prompttransfer.cli.options import (
    AsJson,
    DataFolder,
    Device,
    Overwrite,
    Precision,
    SourceMethods,
    Types,
)
from prompttransfer.cli.values import Output, Whole, checked

if TYPE_CHECKING:
    import pandas as pd

    from prompttransfer.transfers.indicators import Compared

_LISTED, _PAIRS = 60, 5  # of more prompts than are listed only the nearest pairs are printed
_PRINTED_WHOLE = 6  # matrices of up to this many prompts are printed, larger ones only written


@checked
def compare(
    prompts: Annotated[
        list[Path],
        typer.Argument(help="Prompt folders, a folder of them, or a safetensors file with a key a prompt."),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            help="Indicator, may be repeated; 'all' for every one of the vectors. Default: the paper's four. "
            "ON and jaccard run the backbone and are for any method, few-shot also needs labelled rows.",
        ),
    ] = None,
    method: SourceMethods = None,
    rows: Annotated[
        int, typer.Option("--rows", help="Labelled training rows a task, for few-shot."), Whole()
    ] = 32,
    data: DataFolder = None,
    types: Types = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the CSV files."),
        Output(standard="runs/compare"),
    ] = None,
    overwrite: Overwrite = False,
    precision: Precision = "auto",
    device: Device = "auto",
    json_: AsJson = False,
) -> dict[str, pd.DataFrame]:
    """Compare prompts: E_concat, E_average, C_concat, C_average of Su et al. 2022, controls, neurons, few-shot; a CSV each."""
    given = dict(locals())
    from functools import cache

    from analysis.similarity import INDICATORS as VECTORS
    from analysis.similarity import PAPER_METRICS
    from prompttransfer.cli.common import load_targets, resolve_tasks, say
    from prompttransfer.cli.evaluate import backbone_of
    from prompttransfer.cli.tables import check_comparable, read_prompts, say_written, task_types, write_table
    from prompttransfer.outputs import Files, settings_of
    from prompttransfer.reports.calls import note_call, precision_name, remember
    from prompttransfer.transfers.indicators import Compared, indicator_table

    found = read_prompts(prompts, method)
    backbone = cache(lambda: backbone_of(found, None, precision, device))
    group = Compared(
        tuple(found),
        task_types([prompt.task for prompt in found], types or [], found),
        backbone=backbone,
        rows=lambda names: load_targets(resolve_tasks(names, prompts=found), data=data, limit_train=rows),
    )
    names = names_of(group, metric or [])
    check_comparable(found, shape=any(name in VECTORS for name in names))
    if not metric and not set(names) & set(PAPER_METRICS):
        without = next(each for each in found if not each.has_vectors)
        say(f"{without.method} has no vectors to compare; by {', '.join(names)} instead", quiet=json_)
    paths = [] if output is None else [output / f"similarity_{name}.csv" for name in names]
    written = Files(tuple(paths), settings_of("compare", given | {"metric": None}))
    written.check(overwrite=overwrite)
    tables = {name: indicator_table(name, group) for name in names}
    written.claim()
    for path, table in zip(paths, tables.values(), strict=bool(paths)):
        write_table(path, table)
    ran = {"precision": precision_name(backbone().precision)} if backbone.cache_info().currsize else {}
    note_call(paths, remember("compare", compare, given, **ran))
    if not json_:
        _print(tables)
    matrices = {name: table.to_numpy().tolist() for name, table in tables.items()}
    say_written(paths, json_, {"prompts": [p.name for p in found], "metrics": matrices})
    return tables


def names_of(group: Compared, names: Sequence[str] = ()) -> list[str]:
    """The indicators that are meant: the usual ones if none is named, every one of the vectors for `all`.

    Raises UserError for one that there is none of, here or at all, before any is computed.
    """
    from prompttransfer.adaptations.running import called
    from prompttransfer.transfers.indicators import INDICATORS, missing, of_vectors, usual
    from tasks.errors import UserError, unknown

    if len(group.prompts) < 2:
        raise UserError(f"comparing needs at least two {called(group.prompts)}; given {len(group.prompts)}")
    chosen: list[str] = []
    for name in names or usual(group.prompts):
        if name != "all" and name not in INDICATORS:
            raise unknown("indicator", name, [*INDICATORS, "all"])
        if reason := missing(name, group.prompts):
            raise UserError(reason)
        chosen += (of_vectors(group.prompts) or usual(group.prompts)) if name == "all" else [name]
    return list(dict.fromkeys(chosen))


def _print(tables: dict[str, pd.DataFrame]) -> None:
    """For every prompt the other prompt nearest to it, by each indicator; small matrices whole."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    from analysis.matrices import shared_prefix
    from prompttransfer.cli.terminal import CleanConsole

    console = CleanConsole()
    if len(next(iter(tables.values()))) > _LISTED:
        _print_summary(tables)
        return
    first = next(iter(tables.values()))
    shared = shared_prefix(list(map(str, first.index)))

    def short(name: object) -> str:
        return escape(str(name).removeprefix(shared))

    if len(first) <= _PRINTED_WHOLE:
        for metric, table in tables.items():
            whole = Table(metric, *map(short, table.columns), box=SIMPLE_HEAD)
            for name, row in table.iterrows():
                whole.add_row(short(name), *(f"{value:.4f}" for value in row))
            console.print(whole)
    said = f" ({shared!r} left out of the names)" if shared else ""
    nearest = Table(title=f"nearest other prompt{said}", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("prompt", *tables):
        nearest.add_column(heading, overflow="fold")
    for name in first.index:
        nearest.add_row(short(name), *(short(nearest_of(table, str(name))) for table in tables.values()))
    console.print(nearest)


def _print_summary(tables: dict[str, pd.DataFrame]) -> None:
    """Of many prompts the pairs that are nearest by each indicator."""
    from prompttransfer.cli.common import number, say, table

    prompts = len(next(iter(tables.values())))
    say(f"{prompts:,} prompts, {prompts * (prompts - 1) // 2:,} pairs; the files have all of them")
    rows = [
        [metric, first, second, number(value, 4)]
        for metric, found in tables.items()
        for first, second, value in nearest_pairs(found, _PAIRS)
    ]
    table("nearest pairs", ["indicator", "prompt", "prompt", "value"], rows, left=3)


def nearest_pairs(table: pd.DataFrame, count: int) -> list[tuple[str, str, float]]:
    """The pairs of different prompts with the largest values, each pair once, first those that stand first."""
    import numpy as np

    values = table.to_numpy(dtype=float)
    upper = np.triu_indices(len(values), k=1)
    pairs = np.fmax(values[upper], values.T[upper])
    pairs = np.where(np.isfinite(pairs), pairs, -np.inf)
    best = (
        np.argpartition(-pairs, min(count, len(pairs) - 1))[: count + 1]
        if len(pairs)
        else np.array([], dtype=int)
    )
    best = best[np.lexsort((best, -pairs[best]))][:count]
    names = [str(name) for name in table.index]
    return [(names[upper[0][i]], names[upper[1][i]], float(pairs[i])) for i in best if np.isfinite(pairs[i])]


def nearest_of(table: pd.DataFrame, target: str) -> str:
    """The source that an indicator puts first for a target; - where it cannot tell the first from another."""
    column = table[target].drop(target)
    first = column[column == column.max()]
    return str(first.index[0]) if len(first) == 1 else "-"
