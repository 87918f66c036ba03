"""The matrix of the page: as a plain table that reads and prints without a script, and as data that the script sorts.

Both are made from the same values; the script draws the table again from the data, so order and filter never touch
what is true.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns

from analysis.figures.style import type_colours
from analysis.matrices import is_reference, order_by_type
from analysis.report.data import ReportData, View

_STOPS = [
    [round(255 * c) for c in sns.color_palette("YlGnBu", as_cmap=True)(x)[:3]] for x in np.linspace(0, 1, 9)
]


MOST_SHOWN = 80
"""Rows and columns of the table on the page: a browser draws a table of a few thousand cells at once."""


def ordered_labels(data: ReportData) -> tuple[list[str], list[str]]:
    """(rows, columns) by type, rows for reference last; of more than MOST_SHOWN the first."""
    table = data.views[0].table
    references = [r for r in table.index if is_reference(str(r)) and r not in table.columns]
    prompts = [r for r in table.index if r not in references]
    rows, columns = order_by_type(prompts, data.types), order_by_type(list(table.columns), data.types)
    return rows[:MOST_SHOWN] + references, columns[:MOST_SHOWN]


def left_out(data: ReportData) -> str:
    """What of a large matrix the table does not show, in one sentence; empty for nothing."""
    rows, columns = data.views[0].table.shape
    if max(rows, columns) <= MOST_SHOWN:
        return ""
    return (
        f"The matrix has {rows:,} rows and {columns:,} columns: the table shows the first {min(rows, MOST_SHOWN)} sources "
        f"and {min(columns, MOST_SHOWN)} targets, the picture below and the files all of them."
    )


def matrix_json(data: ReportData) -> str:
    """The data of the interactive table, safe inside a script element: no `<` can end it."""
    rows, columns = ordered_labels(data)
    first, colours = data.views[0].table, type_colours(list(data.types.values()))
    value: dict[str, Any] = {
        "rows": [_label(r, data, is_reference(r) and r not in first.columns, colours) for r in rows],
        "columns": [_label(c, data, False, colours) for c in columns],
        "views": [
            {
                "name": v.name,
                "meaning": v.meaning,
                "percent": v.percent,
                "range": colour_range(v.table),
                "values": _values(v.table.loc[rows, columns]),
            }
            for v in data.views
        ],
        "seeds": None if data.seeds is None else _values(data.seeds.loc[rows, columns]),
        "spread": None if data.spread is None else _values(data.spread.loc[rows, columns]),
        "impossible": {task: why for task, why in data.impossible.items() if task in columns},
        "stops": _STOPS,
    }
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _label(name: str, data: ReportData, reference: bool, colours: Mapping[str, str]) -> dict[str, Any]:
    kind = data.types.get(name, "")
    return {
        "name": str(name),
        "type": "" if reference else kind,
        "colour": colours[kind],
        "reference": reference,
    }


def _values(table: pd.DataFrame) -> list[list[float | None]]:
    return [
        [None if not np.isfinite(v) else round(float(v), 6) for v in row]
        for row in table.to_numpy(dtype=float)
    ]


def colour_range(table: pd.DataFrame) -> list[float]:
    """Lowest and highest colour; from 0 where the values start near it."""
    values = table.to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    if not len(values):
        return [0.0, 1.0]
    low, high = float(values.min()), float(values.max())
    low = 0.0 if 0 <= low < 0.3 * high else low
    return [low, high if high > low else low + 1.0]


def cell_text(value: float, percent: bool, largest: float) -> str:
    """A value as the cells show it: 87 for percent, .87 for shares, more digits for small numbers."""
    if percent:
        return f"{value * 100:.0f}"
    if largest > 1.5:
        return f"{value:.0f}"
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.2f}") if largest >= 0.1 else f"{value:.1e}"


def cell_colours(value: float, low: float, high: float) -> tuple[str, str]:
    """(background, text) of a value; the text is white where the background is dark."""
    place = float(np.clip((value - low) / (high - low), 0, 1)) * (len(_STOPS) - 1)
    first = min(int(place), len(_STOPS) - 2)
    mixed = [a + (b - a) * (place - first) for a, b in zip(_STOPS[first], _STOPS[first + 1], strict=True)]
    red, green, blue = (round(c) for c in mixed)
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 132
    return f"rgb({red},{green},{blue})", "#fff" if dark else "#1a1a1a"


def matrix_table(data: ReportData) -> str:
    """The table without a script: the first view, in order of type."""
    rows, columns = ordered_labels(data)
    view, span = data.views[0], colour_range(data.views[0].table)
    head = "".join(f'<th scope="col"><span>{escape(str(c))}</span></th>' for c in columns)
    body = []
    for row in rows:
        reference = is_reference(row) and row not in columns
        cells = "".join(_cell(view, row, column, span) for column in columns)
        body.append(
            f'<tr{" class=reference" if reference else ""}><th scope="row">{escape(str(row))}</th>{cells}</tr>'
        )
    return f'<table id="matrix"><thead><tr><td></td>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'


def _cell(view: View, row: str, column: str, span: Sequence[float]) -> str:
    value = float(view.table.loc[row, column])  # type: ignore[arg-type]
    if not np.isfinite(value):
        return '<td class="none">–</td>'
    low, high = span
    background, ink = cell_colours(value, low, high)
    return f'<td style="background:{background};color:{ink}">{cell_text(value, view.percent, high)}</td>'
