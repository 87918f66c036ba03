"""`study report`: tables of all results with their statistics, a page a backbone, and one page over all of them.

results.csv, results.parquet      every number, one a row (results.COLUMNS)
report/summary.csv                mean and spread over seeds
report/comparisons.csv            paired differences and speed-ups (tables.COMPARISON_COLUMNS)
report/indicators.csv             whether indicators predict transfer
report/columns.csv                what each column is
report/systems.csv                of a study of few rows: every system beside the first (results/systems.py)
report/systems-targets.csv        the same target by target
report/systems/                   its figures, one a backbone
report/impossible.csv             what the study asks for and cannot have, with the reason
report/<backbone>/report.html     the page of a run; of several methods <backbone>-<method>, one a method
report/heatmaps/                  the heatmaps of zero-shot transfer
report/report.html                the study: what was found, with links to the pages
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from prompttransfer.files import atomic_path, write_text
from prompttransfer.reports.calls import Call
from prompttransfer.reports.page import write_report
from prompttransfer.study.cell import Graph, Impossible
from prompttransfer.study.engine.store import Store, read_failures
from prompttransfer.study.kinds.figure import picture_name, roles_of
from prompttransfer.study.methods import PROMPT, called, slug
from prompttransfer.study.results.long_table import (
    COLUMNS,
    OWN,
    Results,
    long_table,
    open_results,
    raw_scores,
    with_methods,
)
from prompttransfer.study.results.run_folders import sides_scored, titled, write_run_folder
from prompttransfer.study.results.statistics import (
    COMPARISON_COLUMNS,
    INDICATOR_COLUMNS,
    comparisons,
    gains_over_no_prompt,
    predictions,
    summary,
)
from prompttransfer.study.results.systems import (
    SYSTEM_COLUMNS,
    draw_systems,
    run_table,
    system_lines,
    system_table,
    target_table,
)
from tasks.documents import checked, parse_json
from tasks.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

DIGITS = "%.10g"
RUN_CALL = "command.json"
"""The file of a study's store that says how `study run` was called."""


@dataclass(frozen=True)
class Written:
    """What `write_study_report` made, and what it could be made from."""

    page: Path
    files: tuple[Path, ...]
    tables: Mapping[str, pd.DataFrame]
    missing: int
    """Cells that are not finished."""
    notes: tuple[str, ...]


def write_study_report(graph: Graph, store: Store, output: Path, *, title: str = "") -> Written:
    """Write tables and pages under `output` from what is finished; UserError where no score is."""
    results = open_results(graph, store)
    scored = sides_scored(results)
    sides = [] if graph.runs else scored  # few rows have no matrix, and so no page of one
    if not scored:
        raise UserError(f"no score of this study is finished in {store.place}: run it first with `study run`")
    tables = make_tables(results)
    files = [*_write_tables(tables, output), *_write_impossible(graph, output / "report")]
    notes = _notes(results, tables)
    report = output / "report"
    again = run_again(store)
    pages = {}
    for side in sides:
        name = titled(results, side)
        folder = write_run_folder(results, side, report / slug(name), again)
        pages[name] = write_report(folder, title=f"{title}: {name}" if title else "")
    heatmaps = copy_heatmaps(results, report / "heatmaps")
    figures = draw_systems(tables["systems"], report / "systems") if graph.runs else []
    page = report / "report.html"
    text = render_page(
        title or "Study",
        tables,
        pages,
        heatmaps,
        notes,
        graph.impossible,
        again,
        systems_section(tables, figures),
    )
    write_text(page, text)
    missing = len(graph.cells) - len(results.finished)
    return Written(page, (*files, *pages.values(), *figures, page), tables, missing, notes)


def run_again(store: Store) -> Call:
    """The `study run` that makes this study: as it was last called, else of the study file kept with its results."""
    kept = store.read_text(RUN_CALL)
    try:
        return checked(Call, parse_json(kept or "", RUN_CALL), RUN_CALL)
    except UserError:
        return Call(verb="study run", options={"file": f"{store.place}/study.yaml", "output": store.place})


def make_tables(results: Results) -> dict[str, pd.DataFrame]:
    """Name -> table: results, summary, comparisons, indicators."""
    table = long_table(results)
    found = {
        "results": table,
        "summary": summary(table),
        "comparisons": comparisons(table),
        "indicators": predictions(table, dict(results.types)),
    }
    if results.graph.runs:
        runs = run_table(results)
        found |= {"systems": system_table(runs), "systems-targets": target_table(runs)}
    return found


def _write_tables(tables: Mapping[str, pd.DataFrame], output: Path) -> list[Path]:
    import pandas as pd

    files = []
    for name, table in tables.items():
        path = output / "results.csv" if name == "results" else output / "report" / f"{name}.csv"
        write_text(path, table.to_csv(index=False, float_format=DIGITS, lineterminator="\n"))
        files.append(path)
    with atomic_path(output / "results.parquet") as temporary:
        tables["results"].to_parquet(temporary, index=False)
    described = [("results", *item) for item in COLUMNS.items()]
    described += [("comparisons", *item) for item in COMPARISON_COLUMNS.items()]
    described += [("indicators", *item) for item in INDICATOR_COLUMNS.items()]
    if "systems" in tables:
        described += [("systems", *item) for item in SYSTEM_COLUMNS.items()]
    columns = pd.DataFrame(described, columns=["table", "column", "meaning"])
    write_text(output / "report" / "columns.csv", columns.to_csv(index=False, lineterminator="\n"))
    return [*files, output / "results.parquet", output / "report" / "columns.csv"]


def _write_impossible(graph: Graph, folder: Path) -> list[Path]:
    """What the study asks for and cannot have; no file where there is nothing."""
    import pandas as pd

    path = folder / "impossible.csv"
    path.unlink(missing_ok=True)
    if not graph.impossible:
        return []
    table = pd.DataFrame([asdict(one) for one in graph.impossible])
    write_text(path, table.to_csv(index=False, lineterminator="\n"))
    return [path]


def copy_heatmaps(results: Results, folder: Path) -> dict[str, list[Path]]:
    """Backbone -> the heatmaps that its figure cell drew, one a method, as files of `folder` with names of their own."""
    found: dict[str, list[Path]] = {}
    shutil.rmtree(folder, ignore_errors=True)  # a study that had more methods left more
    for cell in results.of_kind("figure"):
        backbone = str(cell.settings["backbone"])
        methods = [method for method, _ in roles_of(cell)]
        for name in (picture_name(method, len(methods) > 1) for method in methods):
            folder.mkdir(parents=True, exist_ok=True)
            for end in ("png", "svg", "csv"):
                path = folder / f"{slug(backbone)}{name.removeprefix('heatmap')}.{end}"
                shutil.copyfile(results.folder(cell) / f"{name}.{end}", path)
            found.setdefault(backbone, []).append(path.with_suffix(".svg"))
    return found


def _notes(results: Results, tables: Mapping[str, pd.DataFrame]) -> tuple[str, ...]:
    notes = []
    if missing := len(results.graph.cells) - len(results.finished):
        failed = len(set(read_failures(results.store)) & set(results.graph.cells))
        said = f", {failed} of them failed" if failed else ""
        notes.append(
            f"{missing} of {len(results.graph.cells)} cells are not finished{said}: `study run` makes them."
        )
    if tables["results"]["seed"].nunique() < 2:
        notes.append(
            "One seed: differences here are not evidence; no p value is given and no significance is claimed."
        )
    elif results.graph.runs:
        notes.append(
            "A seed draws the labelled and the validation rows of targets, the start and the library's prompts; the test rows are the "
            "same for all."
        )
    else:
        notes.append(
            "A seed decides the start and the row order of a prompt; all seeds have the same validation and test rows, so "
            "their spread is not that over splits."
        )
    return (*notes, *not_learned(tables["results"]))


def not_learned(results: pd.DataFrame) -> list[str]:
    """A line on each backbone and method with tasks whose own score is no better than the majority answer."""
    scores = raw_scores(with_methods(results))
    means = (
        scores.groupby(["backbone", "method", "target", "condition"], sort=False)["value"].mean().unstack()
    )
    if not {OWN, "majority"} <= set(means.columns):
        return []
    flat = means[means[OWN] <= means["majority"]].reset_index()
    name = titles(results)
    return [
        f"{name(str(backbone), str(method))}: the own score of {', '.join(part['target'])} is no better than the majority answer, so "
        f"nothing was learned there (more steps or another rate may help), and numbers relative to it mean nothing."
        for (backbone, method), part in flat.groupby(["backbone", "method"], sort=False)
    ]


# The page over all backbones -------------------------------------------------------------------------------------


def render_page(
    title: str,
    tables: Mapping[str, pd.DataFrame],
    pages: Mapping[str, Path],
    heatmaps: Mapping[str, Sequence[Path]],
    notes: Sequence[str],
    impossible: Sequence[Impossible],
    again: Call,
    systems: str = "",
) -> str:
    """A page with the comparisons and links to the pages of the backbones; it fetches nothing."""
    from analysis.report.style import STYLE

    tables = {name: without_the_only_method(table) for name, table in tables.items()}
    links = "".join(
        f'<li><a href="{escape(f"{path.parent.name}/{path.name}")}">{escape(name)}</a></li>'
        for name, path in pages.items()
    )
    said = headlines(tables["results"], tables["indicators"])
    sections = [
        ("In short", listed(said)),
        ("Systems on few rows", systems),
        ("Models", f"<p>Matrices, figures and curves of each model:</p><ul>{links}</ul>" if pages else ""),
        ("Zero-shot transfer", _heatmaps(heatmaps)),
        ("To know", listed(notes)),
        ("What cannot be", listed([one.line for one in impossible])),
        ("Comparisons", _comparisons(tables["comparisons"])),
        ("Do indicators predict transfer?", _table(tables["indicators"])),
        ("Scores, mean over sources and seeds", "" if systems else _table(overview(tables["results"]))),
        ("Run it again", f'<pre tabindex="0"><code>{escape(again.line())}</code></pre>'),
    ]
    body = "".join(
        f"<section><h2>{escape(name)}</h2>{content}</section>" for name, content in sections if content
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header><h1>{escape(title)}</h1></header>
<main>{body}</main>
</body>
</html>
"""


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
    return words + "".join(f'<div class="scroll" tabindex="0">{row}</div>' for row in rows)


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
    shown = [
        column for column in found.columns if found[column].notna().any() and (found[column] != "").any()
    ]
    pictures = "".join(_picture(path) for path in figures if path.suffix == ".svg")
    return f'{listed(system_lines(found))}{words}<div class="scroll" tabindex="0">{pictures}</div>{_table(found[shown])}'


def _comparisons(table: pd.DataFrame) -> str:
    words = (
        "<p>Differences of scores, and ratios of steps for speed-ups, over the unit named. p values by flips of signs, corrected by "
        "Holm within each family, and 95 % intervals of what the flips do not reject; from one seed no p value is given, and "
        "fewer than six pairs cannot come out significant.</p>"
    )
    return words + _table(table) if len(table) else ""


def _table(table: pd.DataFrame) -> str:
    """A table with numbers to three decimals and nothing where there is none."""
    if not len(table):
        return ""
    head = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell_text(v))}</td>" for v in row) + "</tr>"
        for row in table.itertuples(index=False)
    )
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def cell_text(value: object) -> str:
    """A value for people."""
    import pandas as pd

    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
