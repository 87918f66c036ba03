"""`compare`: how alike adaptations are and what may tell of transfer between their tasks; one CSV an indicator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prompttransfer.cli.options import (
    AsJson,
    Columns,
    DataFolder,
    Device,
    LabelValues,
    Overwrite,
    Precision,
    Shots,
    SkipEmpty,
    SourceMethods,
    SplitNames,
    Types,
)
from prompttransfer.cli.values import Output, Whole, checked

if TYPE_CHECKING:
    import pandas as pd

    from prompttransfer.transfers.compared import Compared

_LISTED, _PAIRS = 60, 5  # of more prompts than are listed only the nearest pairs are printed
_BESIDE = 8  # indicators that stand side by side
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
            "For any method: ON and jaccard, which run the backbone; and few-shot, LEEP, NCE, LogME, H-score, TransRate, GBC, "
            "PARC, gradient-cosine, step-cosine, Fisher-cosine, task2vec, which also need labelled rows of every task.",
        ),
    ] = None,
    per_layer: Annotated[
        bool,
        typer.Option(
            "--per-layer",
            help="Also by linear map (LoRA and its kin) or attention (prefixes): a CSV more each.",
        ),
    ] = False,
    method: SourceMethods = None,
    rows: Annotated[
        int,
        typer.Option("--rows", help="Labelled training rows a task, for indicators that need some."),
        Whole(),
    ] = 32,
    data: DataFolder = None,
    columns: Columns = None,
    labels: LabelValues = None,
    splits: SplitNames = None,
    skip_empty: SkipEmpty = False,
    shots: Shots = None,
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
    """Compare prompts: E_concat, E_average, C_concat, C_average of Su et al. 2022, controls, neurons, few-shot; a CSV each.

    Adaptations of other methods by products B A, keys and values, neurons, and what labelled training rows of the tasks say.
    A row of a table is a source, a column the task of a target. Test rows are never touched.
    """
    given = dict(locals())
    from functools import cache

    from analysis.similarity import INDICATORS as VECTORS
    from analysis.similarity import PAPER_METRICS
    from prompttransfer.adaptations.running import called
    from prompttransfer.cli.common import say
    from prompttransfer.cli.data import asked, data_options
    from prompttransfer.cli.evaluate import backbone_of
    from prompttransfer.cli.tables import check_comparable, read_prompts, say_written, task_types, write_table
    from prompttransfer.outputs import Files, settings_of
    from prompttransfer.reports.calls import note_call, precision_name, remember
    from prompttransfer.transfers.compared import Compared
    from prompttransfer.transfers.indicators import (
        OF_ROWS,
        by_layer,
        check_layers,
        cost,
        gaps,
        indicator_table,
    )

    found = read_prompts(prompts, method)
    read = data_options(given | {"metric": None}).at_most(rows)  # that of `compare` is an indicator
    backbone = cache(lambda: backbone_of(found, None, precision, device))
    group = Compared(
        tuple(found),
        task_types([prompt.task for prompt in found], types or [], found),
        backbone=backbone,
        rows=lambda names: read.targets(read.tasks(names, found)),
    )
    names = names_of(group, metric or [])
    check_comparable(found, shape=any(name in VECTORS for name in names))
    if per_layer:
        check_layers(names)
    if not metric and not set(names) & set(PAPER_METRICS):
        without = next(each for each in found if not each.has_vectors)
        say(f"{without.method} has no vectors to compare; by {', '.join(names)} instead", quiet=json_)
    paths = [] if output is None else [output / f"similarity_{name}.csv" for name in names]
    if output is not None and per_layer:
        paths += [output / f"layers_{name}.csv" for name in names]
    written = Files(tuple(paths), settings_of("compare", asked(given) | {"metric": None, "per_layer": None}))
    written.check(overwrite=overwrite)
    tables = {name: indicator_table(name, group) for name in names}
    layers = {name: by_layer(name, group) for name in names} if per_layer else {}
    costs = [line for line in dict.fromkeys(cost(name, group) for name in names) if line]
    notes = [line for name in names for line in gaps(name, group)]
    written.claim()
    long = [long_table(of_layers) for of_layers in layers.values()]
    for path, table in zip(paths, [*tables.values(), *long], strict=bool(paths)):
        write_table(path, table)
    ran = {"precision": precision_name(backbone().precision)} if backbone.cache_info().currsize else {}
    note_call(paths, remember("compare", compare, given, **ran))
    if not json_:
        _print(tables, called(found).removesuffix("s"))
        for name, of_layers in layers.items():
            _print_layers(name, of_layers, {p.name: group.types.get(p.task, "") for p in found})
    for line in (*(f"cost: {line}" for line in costs), *(f"note: {line}" for line in notes)):
        say(line, quiet=json_)
    if any(name in OF_ROWS for name in names):
        drawn = (
            f"{rows} labelled training rows a task at most"
            if shots is None
            else f"{shots} training rows of each label"
        )
        say(f"{drawn}, drawn by seed 0", quiet=json_)
    matrices = {name: known_values(table) for name, table in tables.items()}
    record = {"prompts": [p.name for p in found], "metrics": matrices, "cost": costs, "notes": notes}
    if layers:
        record["layers"] = {n: {site: known_values(t) for site, t in of.items()} for n, of in layers.items()}
    say_written(paths, json_, record)
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


def known_values(table: pd.DataFrame) -> list[list[float | None]]:
    """A table for JSON, null where there is no value."""
    return [[None if value != value else value for value in row] for row in table.to_numpy().tolist()]


def long_table(of_layers: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a pair, one column a linear map or attention."""
    import pandas as pd

    first = next(iter(of_layers.values()))
    pairs = [f"{source} > {target}" for source in first.index for target in first.columns]
    columns = {site: table.to_numpy().ravel() for site, table in of_layers.items()}
    return pd.DataFrame(columns, index=pd.Index(pairs, name="pair"))


def _print_layers(name: str, of_layers: dict[str, pd.DataFrame], types: Mapping[str, str]) -> None:
    """Of each linear map or attention the mean over pairs of two, apart for those of one type where types are known."""
    import numpy as np

    from analysis.matrices import same_type
    from prompttransfer.cli.common import number, table

    some = next(iter(of_layers.values()))
    other = ~np.eye(len(some), dtype=bool)
    parts = {"all pairs": other}
    if all(types.get(label) for label in some.index):
        same = same_type(list(some.index), types).to_numpy() > 0
        parts |= {"same type": other & same, "another type": other & ~same}
    rows = [
        [
            site,
            *(
                number(float(found.to_numpy()[pairs].mean()) if pairs.any() else None)
                for pairs in parts.values()
            ),
        ]
        for site, found in of_layers.items()
    ]
    table(f"\n{name} by layer, mean over pairs", ["", *parts], rows)


def _print(tables: dict[str, pd.DataFrame], kind: str = "prompt") -> None:
    """For every prompt the other prompt nearest to it, by each indicator; small matrices whole."""
    from analysis.matrices import shared_prefix
    from prompttransfer.cli.common import table

    if len(next(iter(tables.values()))) > _LISTED:
        _print_summary(tables, kind)
        return
    first = next(iter(tables.values()))
    shared = shared_prefix(list(map(str, first.index)))

    def short(name: object) -> str:
        return str(name).removeprefix(shared)

    if len(first) <= _PRINTED_WHOLE:
        for metric, found in tables.items():
            rows = [[short(name), *(f"{value:.4f}" for value in row)] for name, row in found.iterrows()]
            table(metric, ["", *map(short, found.columns)], rows)
    said = f" ({shared!r} left out of the names)" if shared else ""
    for start in range(0, len(tables), _BESIDE):
        part = dict(list(tables.items())[start : start + _BESIDE])
        rows = [
            [short(name), *(short(nearest_of(found, str(name))) for found in part.values())]
            for name in first.index
        ]
        table(f"nearest other {kind}{said}", [kind, *part], rows)


def _print_summary(tables: dict[str, pd.DataFrame], kind: str) -> None:
    """Of many prompts the pairs that are nearest by each indicator."""
    from prompttransfer.cli.common import number, say, table

    prompts = len(next(iter(tables.values())))
    say(f"{prompts:,} {kind}s, {prompts * (prompts - 1) // 2:,} pairs; the files have all of them")
    rows = [
        [metric, first, second, number(value, 4)]
        for metric, found in tables.items()
        for first, second, value in nearest_pairs(found, _PAIRS)
    ]
    table("nearest pairs", ["indicator", kind, kind, "value"], rows, left=3)


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
