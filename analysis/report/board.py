"""The leaderboard: tables for each metric, a row a method as it was used in a run, sortable and filtered.

Runs that have no task in common, not by way of others either, stand in tables of their own.

It fetches nothing: one style, one script known by its hash, text only through textContent. Without the script it is a
table in order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean

from analysis.matrices import shared_prefix
from analysis.report.shell import html_page
from analysis.report.style import STYLE
from analysis.report.tables import scrolled


@dataclass(frozen=True)
class Value:
    """A score, mean over seeds."""

    mean: float
    spread: float | None
    """Standard deviation over seeds; None of one seed."""
    seeds: int


@dataclass(frozen=True)
class Line:
    """A method as it was used in a run."""

    run: str
    backbone: str
    method: str
    how: str
    values: Mapping[tuple[str, str], Value]
    """(metric, task) -> score."""
    reference: bool = False
    """Whether it is only read against."""

    def over(self, metric: str, tasks: Sequence[str]) -> float | None:
        """The mean over tasks; None unless it has them all, since means over other tasks cannot be compared."""
        found = [self.values.get((metric, task)) for task in tasks]
        return fmean(value.mean for value in found if value) if all(found) else None


STYLE_OF_BOARD = """
#find { font: inherit; padding: .25rem .4rem; min-height: 2.1rem; border: 1px solid #8a8a8a; border-radius: 4px; }
table.board th:first-child { min-width: 11rem; max-width: 20rem; } table.board th small { display: block; font-weight: 400; color: var(--muted); overflow-wrap: anywhere; }
table.board { margin-bottom: 1.5rem; } table.board thead th { overflow-wrap: normal; } table.board thead button { font: inherit; color: inherit; background: none; border: 0; padding: .1rem 0; cursor: pointer; text-align: inherit; }
table.board thead button:hover { text-decoration: underline; } table.board thead th[aria-sort] { color: var(--ink); font-weight: 650; }
table.board th[aria-sort=descending] button::after { content: " \\25be"; } table.board th[aria-sort=ascending] button::after { content: " \\25b4"; }
table.board td small { color: var(--muted); } table.board td.best { font-weight: 700; } table.board tr[hidden] { display: none; }
@media (max-width: 40rem) { table.board th:first-child { min-width: 8.5rem; max-width: 9.5rem; } }
"""

SCRIPT = r"""
"use strict";
(() => {
  document.querySelectorAll(".needs-script").forEach((e) => { e.hidden = false; });
  const find = document.getElementById("find");
  find.addEventListener("input", () => {
    const wanted = find.value.toLowerCase();
    document.querySelectorAll("table.board tbody tr").forEach((row) => {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
    });
  });
  document.querySelectorAll("table.board").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    heads.forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== (place ? "descending" : "ascending") ? !!place : !place;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (row) => row.cells[place].dataset.value;
        const rows = [...body.rows].sort((a, b) => {
          const x = key(a), y = key(b);
          if (x === "" || y === "") return (x === "") - (y === "");
          const order = place ? Number(x) - Number(y) : x.localeCompare(y);
          return down ? -order : order;
        });
        body.append(...rows);
      });
    });
  });
})();
"""


def render_board(lines: Sequence[Line], *, title: str = "Leaderboard", notes: Sequence[str] = ()) -> str:
    """The whole page as HTML text; the same lines give the same text."""
    metrics = list(dict.fromkeys(metric for line in lines for metric, _ in line.values))
    sections = "".join(
        f'<section id="m{number}"><h2>{escape(metric)}</h2>{_tables(lines, metric)}</section>'
        for number, metric in enumerate(metrics)
    )
    links = "".join(f'<a href="#m{number}">{escape(metric)}</a>' for number, metric in enumerate(metrics))
    said = "".join(f"<li>{escape(note)}</li>" for note in notes)
    main = f"""
<p>Test scores, mean over seeds, with their standard deviation behind \N{PLUS-MINUS SIGN} where there are several. The mean is over all tasks of
the table, and only given where all are there. In italics what others are read against. <span class="needs-script" hidden>A
column's name sorts by it.</span></p>
<p class="needs-script" hidden><label>Find <input id="find" type="search" placeholder="method, model, run"></label></p>
{sections}
{f'<section id="notes"><h2>To know</h2><ul>{said}</ul></section>' if said else ""}
"""
    return html_page(title, links, main, style=STYLE + STYLE_OF_BOARD, script=SCRIPT, said="Metrics")


def _tables(lines: Sequence[Line], metric: str) -> str:
    """The tables of a metric: lines that share a task, be it by way of others, stand in one."""
    groups: list[tuple[set[str], list[Line]]] = []
    for line in lines:
        if tasks := {task for name, task in line.values if name == metric}:
            near = [group for group in groups if group[0] & tasks]
            place = groups.index(near[0]) if near else len(groups)
            groups = [group for group in groups if group not in near]
            own = [*(one for _, each in near for one in each), line]
            groups.insert(place, (tasks.union(*(each for each, _ in near)), own))
    return "".join(_table(group, metric) for _, group in groups)


def _table(lines: Sequence[Line], metric: str) -> str:
    """The best mean first; lines without all tasks behind those that have them, by how many they have."""
    tasks = list(dict.fromkeys(task for line in lines for name, task in line.values if name == metric))
    prefix = shared_prefix(tasks)
    means = [line.over(metric, tasks) for line in lines]
    order = sorted(range(len(lines)), key=lambda i: _place(lines[i], metric, tasks))
    real = [i for i in order if not lines[i].reference]
    best = [_best([lines[i].values.get((metric, task)) for i in real]) for task in tasks]
    top = max((mean for i in real if (mean := means[i]) is not None), default=None)
    several = {key for key in ("run", "backbone") if len({getattr(line, key) for line in lines}) > 1}
    over_all = [] if top is None else ['<th scope="col" aria-sort="descending">mean</th>']
    names = [f'<th scope="col">{_broken(task.removeprefix(prefix))}</th>' for task in tasks]
    head = "".join(['<th scope="col">method</th>', *over_all, *names])
    rows = "".join(_row(lines[i], metric, tasks, means[i], best, top, several) for i in order)
    short = f"<p>{escape(repr(prefix))} is left out of the names of tasks.</p>" if prefix else ""
    alone = [f"{key} {getattr(lines[0], key)}" for key in ("run", "backbone") if key not in several]
    same = f"<p>All rows: {escape(', '.join(alone))}.</p>" if alone else ""
    table = f'<table class="plain board"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return same + short + scrolled(table)


def _place(line: Line, metric: str, tasks: Sequence[str]) -> tuple[int, float]:
    """Where a line stands: those with more of the tasks first, then by their mean over the tasks that they have."""
    own = [task for task in tasks if (metric, task) in line.values]
    return -len(own), -(line.over(metric, own) or 0.0)


def _broken(name: str) -> str:
    """A name as HTML that may go on in the next line behind a sign."""
    return re.sub(r"([:,=_-])(?=\S)", r"\1<wbr>", escape(name))


def _best(values: Sequence[Value | None]) -> float | None:
    return max((value.mean for value in values if value is not None), default=None)


def _row(
    line: Line,
    metric: str,
    tasks: Sequence[str],
    mean: float | None,
    best: Sequence[float | None],
    top: float | None,
    several: set[str],
) -> str:
    name = ", ".join(filter(None, (line.method, line.how)))
    where = ", ".join(getattr(line, key) for key in ("backbone", "run") if key in several)
    cells = []
    if top is not None:
        cells = [_cell(None if mean is None else Value(mean, None, 1), mean == top and not line.reference)]
    for task, most in zip(tasks, best, strict=True):
        value = line.values.get((metric, task))
        cells.append(_cell(value, value is not None and value.mean == most and not line.reference))
    mark = ' class="reference"' if line.reference else ""
    small = f"<small>{escape(where)}</small>" if where else ""
    label = escape(f"{name} {where}")
    return f'<tr{mark}><th scope="row" data-value="{label}">{_broken(name)}{small}</th>{"".join(cells)}</tr>'


def _cell(value: Value | None, best: bool) -> str:
    if value is None:
        return '<td data-value="">\N{EN DASH}</td>'
    spread = f" <small>\N{PLUS-MINUS SIGN}{value.spread:.3f}</small>" if value.spread is not None else ""
    seeds = f' title="{value.seeds} seeds"' if value.seeds > 1 else ""
    return (
        f'<td data-value="{value.mean!r}"{" class=best" if best else ""}{seeds}>{value.mean:.3f}{spread}</td>'
    )
