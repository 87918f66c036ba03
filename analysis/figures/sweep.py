"""Validation curves of the settings of a sweep: a panel a bank, a line a value of what varies inside it.

Lines are means over seeds, bands run from the lowest to the highest seed. A cross ends a line that was stopped early,
a star stands on the best point of the setting that was chosen. Where seeds choose by themselves (in a study), a line ends
where the first of its seeds was stopped; a thin one is the mean of those that went on, and a star stands if one of them chose it.
"""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from analysis.figures.style import INK, MUTED, Figure, figure_style, shorten
from tasks.errors import UserError

COLUMNS = ("panel", "line", "seed", "step", "score", "stopped", "chosen")
MOST_PANELS, ACROSS = 24, 4
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (3, 1, 1, 1)))


def sweep_curves(table: pd.DataFrame, *, title: str = "", score_label: str = "validation score") -> Figure:
    """The figure of a table with one evaluation of one setting a row: COLUMNS; `stopped` and `chosen` are of the setting.

    Of more than MOST_PANELS panels those without the chosen setting go first, and the title says how many are shown. Raises
    UserError for a table without rows or columns.
    """
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing or table.empty:
        raise UserError(
            f"curves of a sweep need columns {', '.join(COLUMNS)} and rows; missing: {missing or 'rows'}"
        )
    panels = list(dict.fromkeys(table["panel"]))
    if len(panels) > MOST_PANELS:
        with_choice = set(table.loc[table["chosen"], "panel"])
        title = f"{title} ({MOST_PANELS} of {len(panels)} panels)".strip()
        panels = [p for p in panels if p in with_choice] + [p for p in panels if p not in with_choice]
        panels = panels[:MOST_PANELS]
    lines = list(dict.fromkeys(table["line"]))
    colours = dict(zip(lines, sns.color_palette("cividis", len(lines)), strict=True))
    across = min(len(panels), ACROSS)
    down = -(-len(panels) // across)
    with figure_style():
        figure = Figure(figsize=(1.4 + 2.3 * across, 1.1 + 1.9 * down), layout="constrained")
        every = figure.subplots(down, across, squeeze=False, sharey=True)
        for axes, panel in zip(every.flat, panels, strict=False):
            for number, line in enumerate(lines):
                rows = table[(table["panel"] == panel) & (table["line"] == line)]
                if not rows.empty:
                    _line(axes, rows, str(line), colours[line], _DASHES[number % len(_DASHES)])
            axes.set_title(shorten(str(panel)), fontsize=8)
            axes.set_xlabel("training step")
        for axes in every.flat[len(panels) :]:
            axes.remove()
        for axes in every[:, 0]:
            axes.set_ylabel(score_label)
        handles = {
            name: handle
            for axes in every.flat[: len(panels)]
            for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        named = [str(line) for line in lines if str(line) in handles]
        figure.legend(
            [handles[name] for name in named], named, loc="outside lower center", ncols=min(len(named), 4)
        )
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=9, fontweight="bold")
    return figure


def _line(axes: Axes, rows: pd.DataFrame, name: str, colour: object, dash: object) -> None:
    every = rows.groupby("step")["score"].agg(["mean", "min", "max", "count"])
    steps = every[every["count"] == every["count"].iloc[0]]
    axes.plot(steps.index, steps["mean"], color=colour, linestyle=dash, linewidth=1.3, label=name)
    if len(steps) < len(every):  # a mean over fewer seeds is another one
        last = rows.loc[rows["step"] == every.index[-1], "seed"]
        own = rows[rows["seed"].isin(last)].groupby("step")["score"].mean()
        axes.plot(own.index, own, color=colour, linestyle=dash, linewidth=0.6)
    if rows["seed"].nunique() > 1:
        axes.fill_between(steps.index, steps["min"], steps["max"], color=colour, alpha=0.15, linewidth=0)
    if rows["stopped"].any():
        axes.plot(steps.index[-1], steps["mean"].iloc[-1], "x", color=MUTED, markersize=5)
    if rows["chosen"].any():
        own = rows[rows["chosen"]].groupby("step")["score"].mean()
        best = int(own.to_numpy().argmax())
        axes.plot(own.index[best], own.iloc[best], "*", color=INK, markersize=9, zorder=5)
