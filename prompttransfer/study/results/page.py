"""The page over all models of a study: what was found, the models' own pages, comparisons and indicators with their p values.

It has the style of the page of a model (analysis/report) and fetches nothing; report.py writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.report.shell import html_page
from analysis.report.tables import scrolled, stacked
from prompttransfer.reports.calls import Call
from prompttransfer.study.cell import Impossible
from prompttransfer.study.methods import PROMPT, called
from prompttransfer.study.results.long_table import raw_scores, with_methods
from prompttransfer.study.results.outcome import mean_matrices, shown, winners
from prompttransfer.study.results.statistics import gains_over_no_prompt
from prompttransfer.study.results.systems import system_lines
from prompttransfer.study.results.tuning import tuning_means

if TYPE_CHECKING:
    import pandas as pd


def render_page(
    title: str,
    tables: Mapping[str, pd.DataFrame],
    pages: Mapping[str, Path],
    heatmaps: Mapping[str, Sequence[Path]],
    notes: Sequence[str],
    impossible: Sequence[Impossible],
    again: Call,
    systems: str = "",
    tuning: str = "",
) -> str:
    """A page with what was found and links to the pages of the models."""
    sections = _sections(tables, pages, heatmaps, notes, impossible, again, systems, tuning)
    nav = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in sections)
    body = "".join(
        f'<section id="{key}"><h2>{escape(name)}</h2>{content}</section>' for key, name, content in sections
    )
    return html_page(title, nav, body)


def _sections(
    tables: Mapping[str, pd.DataFrame],
    pages: Mapping[str, Path],
    heatmaps: Mapping[str, Sequence[Path]],
    notes: Sequence[str],
    impossible: Sequence[Impossible],
    again: Call,
    systems: str,
    tuning: str,
) -> list[tuple[str, str, str]]:
    """(anchor, heading, content) of every section that has something in it."""
    said = [*winners(tables["results"]), *headlines(tables["results"], tables["indicators"])]
    links = "".join(
        f'<li><a href="{escape(f"{path.parent.name}/{path.name}")}">{escape(name)}</a></li>'
        for name, path in pages.items()
    )
    found = [
        ("summary", "In short", listed(said)),
        ("systems", "Systems on few rows", systems),
        (
            "models",
            "Models",
            f"<p>Indicators, maps and curves of each model:</p><ul>{links}</ul>" if pages else "",
        ),
        ("transfer", "Zero-shot transfer", _matrices(tables["results"]) + _heatmaps(heatmaps)),
        ("tuning", "Settings tried", tuning),
        ("notes", "To know", listed(notes)),
        ("impossible", "What cannot be", listed([one.line for one in impossible])),
        ("comparisons", "Comparisons", _comparisons(tables["comparisons"])),
        ("indicators", "Do indicators predict transfer?", _indicators(tables["indicators"])),
        ("scores", "Scores", "" if systems else _overview(tables["results"])),
        ("again", "Run it again", f'<pre tabindex="0"><code>{escape(again.line())}</code></pre>'),
    ]
    return [section for section in found if section[2]]


def listed(lines: Sequence[str]) -> str:
    """Lines as a list; nothing for none."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>" if lines else ""


def without_the_only_method(table: pd.DataFrame) -> pd.DataFrame:
    """A table for the page: which method it was goes without saying where all rows are of one."""
    if "method" in table and table["method"].nunique() < 2:
        return table.drop(columns="method")
    return table


def _heatmaps(found: Mapping[str, Sequence[Path]]) -> str:
    """The heatmaps of each backbone, those of its methods beside each other."""
    if all(len(paths) < 2 for paths in found.values()):
        return ""  # the page of the model has it
    words = "<p>Scores as they are, mean over seeds: rows are sources, columns targets. The heatmaps of a model have one scale of colours.</p>"
    rows = ("".join(map(_picture, paths)) for paths in found.values())
    return words + "".join(map(scrolled, rows))


def _picture(path: Path) -> str:
    """An SVG as part of the page."""
    from base64 import b64encode

    data = b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(path.stem)}" src="data:image/svg+xml;base64,{data}">'


def headlines(results: pd.DataFrame, indicators: pd.DataFrame) -> list[str]:
    """What the numbers come down to: where transfer is worth less than no prompt, and whether an indicator predicts it."""
    return [*_transfer_headlines(results), *_indicator_headlines(indicators)]


def titles(table: pd.DataFrame) -> Callable[[str, str], str]:
    """What backbone and method are called: by both where a table has several methods."""
    several = "method" in table and table["method"].nunique() > 1
    return lambda backbone, method: f"{backbone}, {method}" if several else called(backbone, method)


def _transfer_headlines(results: pd.DataFrame) -> list[str]:
    lines = []
    name = titles(results)
    for backbone, method, metric, gains in gains_over_no_prompt(results):
        worse = [relation for relation, gain in gains.items() if gain < 0]
        told = ", ".join(f"{relation} {gain:+.3f}" for relation, gain in gains.items())
        if not gains:
            continue
        what = "prompts" if method == PROMPT else "adaptations"
        if len(worse) == len(gains):
            verdict = f"transfer does not help: {what} of other tasks score below no prompt"
        elif worse:
            verdict = f"{what} of tasks of {worse[0]} score below no prompt"
        else:
            verdict = f"{what} of other tasks score above no prompt"
        lines.append(
            f"{name(backbone, method)}, {metric}: {verdict} (zero-shot minus no prompt, mean over targets: {told})."
        )
    return lines


def _indicator_headlines(indicators: pd.DataFrame) -> list[str]:
    """One line a backbone and method: the indicator with the highest mean, only where it is more than chance is it said to predict."""
    from analysis.prediction import BASELINE, LEVEL

    lines = []
    name = titles(indicators)
    for (backbone, method), part in with_methods(indicators).groupby(["backbone", "method"], sort=False):
        ranked = part[(part["indicator"] != BASELINE) & part["mean_spearman"].notna()]
        if ranked.empty:
            continue
        best = ranked.loc[ranked["mean_spearman"].idxmax()]
        p_value = best["p_permutation_holm"]
        highest = (
            f"{best['indicator']} has the highest mean Spearman of {len(ranked)}, {best['mean_spearman']:.2f}"
        )
        if best["mean_spearman"] <= 0:
            said = f"no indicator predicts transfer: {highest}"
        elif p_value != p_value:
            said = f"whether an indicator predicts transfer is not shown: {highest}"
        elif p_value > LEVEL:
            said = f"no indicator is shown to predict transfer: {highest} (p {p_value:.3f}, corrected)"
        else:
            said = f"{best['indicator']} predicts transfer better than chance does: {highest} (p {p_value:.3f}, corrected)"
        lines.append(f"{name(str(backbone), str(method))}: {said}.")
    return lines


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """Test scores by backbone, method, metric and condition: mean over sources, targets and seeds, and the number of values."""
    scores = raw_scores(without_the_only_method(table)).rename(columns={"measure": "metric"})
    scores["condition"] = scores["condition"] + scores["relation"].map(
        lambda relation: f", {relation}" if relation in ("same type", "different type") else ""
    )
    keys = [key for key in ("backbone", "method", "metric", "condition") if key in scores]
    groups = scores.groupby(keys, sort=False)["value"]
    seeds = scores.groupby([*keys, "seed"], sort=False)["value"].mean().groupby(level=keys, sort=False)
    return (
        groups.mean()
        .to_frame("mean")
        .assign(**{"spread over seeds": seeds.std(), "values": groups.count()})
        .reset_index()
    )


def _matrices(results: pd.DataFrame) -> str:
    """The matrix of each model and method, mean over seeds; of many tasks only the models' own pages have it."""
    name = titles(results)
    parts = []
    for (backbone, method), matrix in mean_matrices(results).items():
        if len(matrix.columns) > MOST_TASKS:
            continue
        columns, rows = shown(matrix)
        head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
        body = "".join(
            f"<tr{' class=reference' if reference else ''}><th scope=row>{escape(label)}</th>"
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + "</tr>"
            for label, cells, reference in rows
        )
        table = f'<table class="plain"><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>'
        parts.append(f"<h3>{escape(name(backbone, method))}</h3>{scrolled(table)}")
    words = "<p>Test scores, mean over seeds: rows are source prompts, columns target tasks; in italics what they are read against.</p>"
    return words + "".join(parts) if parts else ""


MOST_TASKS = 24
"""Targets of a matrix that is on the page of the whole study."""


def _comparisons(table: pd.DataFrame) -> str:
    """The comparisons, family by family; a row says first what it found and how sure that is."""
    if not len(table):
        return ""
    words = (
        "<p>Differences of scores, and ratios of steps for speed-ups, over the unit named. p values by flips of signs, corrected by "
        "Holm within each family, and 95 % intervals of what the flips do not reject; from one seed no p value is given, and "
        "fewer than six pairs cannot come out significant. comparisons.csv has every column.</p>"
    )
    headings = (
        "comparison",
        "difference",
        "95 % interval",
        "p",
        "p, corrected",
        "significant",
        "over",
        "what to know",
    )
    several = {key for key in ("backbone", "method") if table[key].nunique() > 1}
    parts = []
    for family, rows in table.groupby("family", sort=False):
        cells = [
            [
                ", ".join(
                    [
                        str(row["comparison"]),
                        *(str(row[key]) for key in ("backbone", "method") if key in several),
                    ]
                ),
                number(row["value"]),
                span(row["low"], row["high"]),
                number(row["p"]),
                number(row["p_holm"]),
                cell_text(row["significant"]),
                f"{row['over']}: {row['pairs']} pairs, {row['tasks']} tasks, {row['seeds']} seeds",
                cell_text(row["note"]),
            ]
            for _, row in rows.iterrows()
        ]
        parts.append(f"<h3>{escape(str(family))}</h3>{stacked(headings, cells)}")
    return words + "".join(parts)


def _indicators(table: pd.DataFrame) -> str:
    """Whether indicators predict transfer, model by model."""
    if not len(table):
        return ""
    words = (
        "<p>Spearman's \u03c1 between an indicator and transfer over the sources of a target, averaged over targets; p one-sided, tasks "
        "shuffled, in brackets corrected by Holm; within types, what it tells beyond them. Regret is what its first choice loses "
        "against the best source. indicators.csv has every column.</p>"
    )
    headings = (
        "indicator", "mean \u03c1", "95 % interval", "p", "p, within types", "\u03c1 minus same type", "its p", "regret", "random source's", "what to know"
    )  # fmt: skip
    name = titles(table)
    parts = []
    for (backbone, method), rows in table.groupby(["backbone", "method"], sort=False):
        cells = [
            [
                str(row["indicator"]),
                number(row["mean_spearman"]),
                span(row["low"], row["high"]),
                _p(row, "p_permutation"),
                _p(row, "p_within_types"),
                number(row["minus_same_type"]),
                _p(row, "p_minus_same_type"),
                number(row["regret"]),
                number(row["random_regret"]),
                cell_text(row["note"]),
            ]
            for _, row in rows.iterrows()
        ]
        parts.append(f"<h3>{escape(name(str(backbone), str(method)))}</h3>{stacked(headings, cells)}")
    return words + "".join(parts)


def systems_section(tables: Mapping[str, pd.DataFrame], figures: Sequence[Path]) -> str:
    """The table of a study of few rows with its figures; nothing for any other."""
    if "systems" not in tables:
        return ""
    found = tables["systems"]
    words = (
        "<p>Differences to the first system on the same targets, rows and seeds; 95 % intervals and p values are for other seeds on "
        "these targets, corrected by Holm over the systems and numbers of rows of a model. Steps are those on the target (of "
        "all that was tried) and all, with the share of the library's.</p>"
    )
    shown_columns = [
        column for column in found.columns if found[column].notna().any() and (found[column] != "").any()
    ]
    # The system names its row, wherever its column stands in the file.
    order = sorted(shown_columns, key=lambda column: column != "system")
    headings = [column.replace("_", " ") for column in order]
    cells = [[number(value) for value in row] for row in found[order].itertuples(index=False)]
    pictures = "".join(_picture(path) for path in figures if path.suffix == ".svg")
    frame = f'<div class="scroll" tabindex="0">{pictures}</div>' if pictures else ""
    return f"{listed(system_lines(found))}{words}{frame}{stacked(headings, cells)}"


def tuning_section(tables: Mapping[str, pd.DataFrame], figures: Sequence[Path]) -> str:
    """What was tried before the best was kept, with the curves; nothing for a study that tries nothing."""
    if "tuning" not in tables:
        return ""
    words = (
        "<p>Every setting was trained for each task and seed, and the best on the validation rows was kept; test rows played no part. "
        "Means over seeds and tasks. Who is best of several is so by chance too: the score that chose is too high, the test score is "
        "not. tuning.csv has every run.</p>"
    )
    headings = ("setting", "validation, mean", "worst task", "best task", "steps, mean", "chosen")
    means = tuning_means(tables["tuning"])
    name, parts = titles(tables["results"]), []
    for (backbone, method, condition), rows in means.groupby(["backbone", "method", "condition"], sort=False):
        cells = [
            [
                str(row["setting"]),
                number(row["mean"]),
                number(row["min"]),
                number(row["max"]),
                f"{row['steps']:.0f}",
                f"{row['chosen']} of {row['runs']}",
            ]
            for _, row in rows.iterrows()
        ]
        heading = f"{name(str(backbone), str(method))}: {condition}"
        parts.append(f"<h3>{escape(heading)}</h3>{stacked(headings, cells)}")
    pictures = "".join(_picture(path) for path in figures if path.suffix == ".svg")
    legend = "<p>Validation curves, mean over seeds; a cross ends what was stopped, a star stands on what a seed has chosen.</p>"
    frame = f'{legend}<div class="scroll" tabindex="0">{pictures}</div>' if pictures else ""
    return words + "".join(parts) + frame


def _overview(results: pd.DataFrame) -> str:
    """Mean scores, a row a condition."""
    table = overview(results)
    if not len(table):
        return ""
    lead = [key for key in ("condition", "backbone", "method", "metric") if key in table]
    headings = (*lead, "mean", "spread over seeds", "values")
    cells = [
        [
            *(str(row[key]) for key in lead),
            number(row["mean"]),
            number(row["spread over seeds"]),
            str(row["values"]),
        ]
        for _, row in table.iterrows()
    ]
    return f"<p>Mean over sources, targets and seeds.</p>{stacked(headings, cells)}"


def _p(row: pd.Series, name: str) -> str:
    """A p value, with the corrected one in brackets."""
    corrected = number(row[f"{name}_holm"])
    return number(row[name]) + (f" ({corrected})" if corrected else "")


def span(low: object, high: object) -> str:
    """An interval, empty where there is none."""
    return f"{number(low)} to {number(high)}" if number(low) and number(high) else ""


def number(value: object) -> str:
    """A number to three decimals, empty where there is none."""
    text = cell_text(value)
    return text.replace("-", "\u2212") if isinstance(value, float) else text


def cell_text(value: object) -> str:
    """A value for people."""
    import pandas as pd

    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
