"""Kind `figure`: heatmaps of zero-shot transfer, mean over seeds, relative to each target's own prompt.

Its files: `heatmap.png`, `heatmap.svg`, and the numbers that are drawn, `heatmap.csv`. Of several methods one of each a
method, `heatmap-<method>.png`, all on one scale of colours; they are of the scores as they are, for two methods with
different own scores cannot be compared in shares of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prompttransfer.files import write_text
from prompttransfer.study.cell import Cell, Context, Json, Unit
from prompttransfer.study.contents import read_score
from prompttransfer.study.kinds.loading import setting
from prompttransfer.study.kinds.versions import VERSIONS
from prompttransfer.study.methods import PROMPT, slug

if TYPE_CHECKING:
    import pandas as pd


class Figure:
    """The figures of one backbone a cell."""

    version = VERSIONS["figure"]

    def run(self, unit: Unit, context: Context) -> Mapping[str, Mapping[str, Json]]:
        """Draw."""
        for cell in unit.cells:
            draw(cell, context, context.output(cell))
        return {cell.id: {} for cell in unit.cells}


def draw(cell: Cell, context: Context, folder: Path) -> None:
    """Every heatmap of a cell, with the numbers in it."""
    from analysis.figures import common_limits, figure_bytes, heatmap

    given = dict(roles_of(cell))
    several = len(given) > 1
    tables = {method: table_of(cell, roles, context, relative=not several) for method, roles in given.items()}
    limits = common_limits([table for table, _ in tables.values()]) if several else None
    for method, (table, relative) in tables.items():
        title = title_of(cell, method, relative)
        figure = heatmap(table, setting(cell.settings, "types"), title=title, limits=limits)
        name = picture_name(method, several)
        for kind in ("png", "svg"):
            (folder / f"{name}.{kind}").write_bytes(figure_bytes(figure, kind))
        write_text(folder / f"{name}.csv", table.to_csv(float_format="%.10g", lineterminator="\n"))


def roles_of(cell: Cell) -> Iterator[tuple[str, list[str]]]:
    """Each method with the inputs that are its scores."""
    if "methods" not in cell.settings:
        yield PROMPT, list(cell.inputs)
        return
    for method in setting(cell.settings, "methods"):
        yield method, [role for role in cell.inputs if role.startswith(f"{method}: ")]


def table_of(cell: Cell, roles: list[str], context: Context, *, relative: bool) -> tuple[pd.DataFrame, bool]:
    """What is drawn, and whether it is relative to own scores, where there are such."""
    from prompttransfer.study.results.matrices import mean_table, transfer_matrix

    matrix = transfer_matrix([read_score(context.input(cell, role)) for role in roles])
    relative = relative and matrix.has_own
    return mean_table(matrix.relative() if relative else matrix), relative


def title_of(cell: Cell, method: str, relative: bool) -> str:
    """What a heatmap shows; soft prompts alone go without saying."""
    backbone = setting(cell.settings, "backbone")
    if "methods" not in cell.settings:
        return f"Zero-shot transfer on {backbone}" + ", relative to own prompt" * relative
    return f"Zero-shot transfer of {method}\non {backbone}" + ", relative to own score" * relative


def picture_name(method: str, several: bool) -> str:
    """The name of a heatmap's files, without their ends."""
    return f"heatmap-{slug(method, len('heatmap-.svg'))}" if several else "heatmap"
