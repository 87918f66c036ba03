"""`compare`: how alike prompts are, from their vectors alone; one CSV a metric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd

_PRINTED_WHOLE = 6  # matrices of up to this many prompts are printed, larger ones only written


def compare(
    prompts: Annotated[
        list[Path],
        typer.Argument(help="Prompt folders, a folder of them, or a safetensors file with a key a prompt."),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", help="Metric, may be repeated; 'all' for every one. Default: the paper's four."
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the CSV files.")] = Path("runs/compare"),
    json_: Annotated[bool, typer.Option("--json", help="Print the matrices as JSON.")] = False,
) -> None:
    """Compare prompts by their vectors: E_concat, E_average, C_concat, C_average of Su et al. 2022, and controls."""
    from prompttransfer.cli.tables import check_comparable, read_prompts, say_written, write_table

    found = read_prompts(prompts)
    check_comparable(found)
    tables = similarities(found, metric or [])
    paths = [write_table(output / f"similarity_{name}.csv", table) for name, table in tables.items()]
    if not json_:
        _print(tables)
    matrices = {name: table.to_numpy().tolist() for name, table in tables.items()}
    say_written(paths, json_, {"prompts": [p.name for p in found], "metrics": matrices})


def similarities(prompts: Sequence, metrics: Sequence[str] = ()) -> dict[str, pd.DataFrame]:
    """Metric -> table over the prompts' names; the paper's four if none is named, every possible one for `all`."""
    import torch

    from analysis.similarity import INDICATORS, PAPER_METRICS, similarity
    from tasks.errors import UserError

    if len(prompts) < 2:
        raise UserError(f"comparing needs at least two prompts; given {len(prompts)}")
    vectors = torch.stack([p.vectors for p in prompts])
    initials = [p.initial for p in prompts if p.initial is not None]
    initial = torch.stack(initials) if len(initials) == len(prompts) else None
    names = list(metrics) or list(PAPER_METRICS)
    if "all" in names:
        names = [n for n in INDICATORS if initial is not None or not n.endswith("-minus-initial")]
        names = [n for n in names if len(prompts) > 2 or not n.endswith("-minus-mean")]
    return {
        name: similarity(name, vectors, [p.name for p in prompts], initial) for name in dict.fromkeys(names)
    }


def _print(tables: dict[str, pd.DataFrame]) -> None:
    """For every prompt the other prompt nearest to it, by each metric; small matrices whole."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    first = next(iter(tables.values()))
    if len(first) <= _PRINTED_WHOLE:
        for metric, table in tables.items():
            whole = Table(metric, *map(escape, table.columns), box=SIMPLE_HEAD)
            for name, row in table.iterrows():
                whole.add_row(escape(str(name)), *(f"{value:.4f}" for value in row))
            console.print(whole)
    nearest = Table(title="nearest other prompt", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("prompt", *tables):
        nearest.add_column(heading, overflow="fold")
    for name in first.index:
        others = [str(table.loc[name].drop(name).idxmax()) for table in tables.values()]
        nearest.add_row(*map(escape, (name, *others)))
    console.print(nearest)
