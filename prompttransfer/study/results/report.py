"""`study report`: tables of all results with their statistics, a page a backbone, and one page over all of them.

results.csv, results.parquet      every number, one a row (results.COLUMNS)
report/summary.csv                mean and spread over seeds
report/comparisons.csv            paired differences and speed-ups (tables.COMPARISON_COLUMNS)
report/indicators.csv             whether indicators predict transfer
report/columns.csv                what each column is
report/tuning.csv                 what was tried before the best was kept, with its figures in tuning/ (results/tuning.py)
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
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prompttransfer.files import atomic_path, write_text
from prompttransfer.reports.calls import Call
from prompttransfer.reports.page import write_report
from prompttransfer.study.cell import Graph
from prompttransfer.study.engine.leases import turn
from prompttransfer.study.engine.remote import RemoteStore
from prompttransfer.study.engine.store import Store, read_failures
from prompttransfer.study.kinds.figure import picture_name, roles_of
from prompttransfer.study.methods import slug
from prompttransfer.study.results.long_table import (
    COLUMNS,
    OWN,
    Results,
    long_table,
    open_results,
    raw_scores,
    with_methods,
)
from prompttransfer.study.results.page import render_page, systems_section, titles, tuning_section
from prompttransfer.study.results.run_folders import sides_scored, titled, write_run_folder
from prompttransfer.study.results.statistics import (
    COMPARISON_COLUMNS,
    INDICATOR_COLUMNS,
    comparisons,
    predictions,
    summary,
)
from prompttransfer.study.results.systems import (
    SYSTEM_COLUMNS,
    draw_systems,
    run_table,
    system_table,
    target_table,
)
from prompttransfer.study.results.tuning import TUNING_COLUMNS, draw_tuning, tuning_table, untold
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

    page: Path | str
    files: tuple[Path | str, ...]
    tables: Mapping[str, pd.DataFrame]
    missing: int
    """Cells that are not finished."""
    notes: tuple[str, ...]


def write_own_report(graph: Graph, store: Store, *, title: str = "") -> Written:
    """Write the report beside the cells, in a folder or behind a URL; of several runs that end at once one after the other."""
    with turn(store.work / "leases", "report"):
        if not isinstance(store, RemoteStore):
            return write_study_report(graph, store, Path(store.place), title=title)
        with tempfile.TemporaryDirectory(prefix="prompttransfer-") as folder:
            return _upload(write_study_report(graph, store, Path(folder), title=title), Path(folder), store)


def _upload(written: Written, folder: Path, store: RemoteStore) -> Written:
    """The same report behind the store's URL; the study's page goes last, since it leads to the others."""
    assert isinstance(written.page, Path)
    there = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    page = written.page.relative_to(folder).as_posix()
    for name in (*(name for name in there if name != page), page):
        store.upload(folder / name, name)
    place = store.place.rstrip("/")
    files = tuple(f"{place}/{Path(file).relative_to(folder).as_posix()}" for file in written.files)
    return replace(written, page=f"{place}/{page}", files=files)


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
    curves = draw_tuning(results, report / "tuning")
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
        tuning_section(tables, curves),
    )
    write_text(page, text)
    missing = len(graph.cells) - len(results.finished)
    return Written(page, (*files, *pages.values(), *figures, *curves, page), tables, missing, notes)


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
    tuning = tuning_table(results)
    if len(tuning):
        found["tuning"] = tuning
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
    if "tuning" in tables:
        described += [("tuning", *item) for item in TUNING_COLUMNS.items()]
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
            own = slug(f"{slug(backbone)}{name.removeprefix('heatmap')}", len(".svg"))
            folder.mkdir(parents=True, exist_ok=True)
            for end in ("png", "svg", "csv"):
                path = folder / f"{own}.{end}"
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
    if count := untold(results):
        notes.append(
            f"{count} cells chose among several settings and do not say what came of each: an earlier version made them."
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
