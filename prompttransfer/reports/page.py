"""Collecting a run's folder into the values of the report page, and writing the page.

Everything is read from what the commands wrote; nothing is computed by a model. Prompts of several seeds of a task
(`sst2-s0`, `sst2-s1`) become one row, their mean, with the number of seeds and the spread beside it. The page itself
is analysis/report.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.matrices import is_reference, shared_prefix
from analysis.prediction import Prediction, predict_transfer
from analysis.report import ReportData, View, render_report
from projectors.artifacts import read_record as read_projector
from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.artifacts import load_adaptation
from prompttransfer.files import write_text
from prompttransfer.reports.calls import Call
from prompttransfer.reports.commands import commands
from prompttransfer.reports.pictures import draw_all
from prompttransfer.reports.run_folder import (
    MatrixRecord,
    RunFolder,
    TransferRecord,
    find_run,
    read_square,
    read_transfer,
)
from prompttransfer.reports.taught import taught
from tasks.catalog import all_tasks

PAGE = "report.html"
MOST_PREDICTED = 200
"""Tasks over which indicators are judged on the page; the draws of more take minutes."""
CONTROLS = ("own prompt", "projected", "projected, validated step")
"""Rows of a projector's table that are no controls."""


def write_report(run: Path, output: Path | None = None, *, title: str = "") -> Path:
    """Write the page of a run beside its folders (or to `output`), whole or not at all."""
    path = output or run / PAGE
    page = render_report(collect(run, title=title, output=None if path == run / PAGE else path))
    write_text(path, page)
    return path


def collect(run: Path, *, title: str = "", output: Path | None = None) -> ReportData:
    """Everything of a run that the page shows; UserError where the folder has no matrix, or a file is damaged."""
    whole = find_run(run)
    full = read_transfer(whole.matrix)
    every = {path: load_adaptation(path) for path in whole.prompts}
    folder, prompts = of_the_matrix(whole, full, every)
    prefix = shared_prefix(full.raw.targets)
    record, shown = without_prefix(full, prefix), [_short_prompt(prompt, prefix) for prompt in prompts]
    labels = row_labels(record)
    raw, seeds, spread = merge_seeds(record, labels)
    types = types_of(full, prefix) | record.types
    views = make_views(record, raw, labels)
    notes: list[str] = [f"{prefix!r} is left out of all names on this page."] if prefix else []
    tables = read_indicators(folder, labels, prefix, notes)
    metrics = dict(zip(record.raw.targets, record.raw.metrics, strict=False))
    predictions = answer(views[0].table, tables, types, notes, metrics, least_seeds(seeds))
    cross, controls = cross_model(folder, notes)
    if seeds is None and len({p.seed for p in prompts}) <= 1 and not record.tuned:
        notes.append("One seed: differences here are not evidence; train with several --seeds for a spread.")
    page = Call(verb="report").with_options(run=run, output=output, title=title or None)
    again = commands(folder, full, every, page, notes)
    return ReportData(
        title=title or f"Prompt transfer on {record.backbone or run.resolve().name}",
        views=views,
        types=types,
        metrics=metrics,
        seeds=seeds,
        spread=spread,
        impossible=record.raw.impossible,
        predictions=predictions,
        pictures=draw_all(
            folder, shown, views[0], tables, predictions, types, prefix, notes, methods_of(record.raw)
        ),
        cross_model=cross,
        cross_model_controls=controls,
        taught=taught(folder, record, prefix),
        facts=facts(folder, record, shown),
        environment=record.versions,
        commands=again,
        notes=tuple(notes),
    )


def methods_of(raw: MatrixRecord) -> dict[str, str]:
    """Source -> method, of a record that says them."""
    return dict(zip(raw.sources, raw.methods, strict=False))


def without_prefix(record: TransferRecord, prefix: str) -> TransferRecord:
    """The record with names that are short enough for a page; the files keep the whole ones."""
    if not prefix:
        return record
    raw, data = record.raw, record.model_dump()
    cut = {name: name.removeprefix(prefix) for name in [*raw.sources, *raw.source_tasks, *raw.targets]}
    data["types"] = {task.removeprefix(prefix): kind for task, kind in record.types.items()}
    data["data"] = {task.removeprefix(prefix): entry for task, entry in record.data.items()}
    for matrix in filter(None, (data["raw"], data["calibrated"])):
        for key in ("sources", "source_tasks", "targets"):
            matrix[key] = [cut.get(name, name) for name in matrix[key]]
        matrix["impossible"] = {task.removeprefix(prefix): why for task, why in matrix["impossible"].items()}
    for key in ("tuned", "distilled"):
        data[key] = [
            replace(pair, source=pair.source.removeprefix(prefix), target=pair.target.removeprefix(prefix))
            for pair in getattr(record, key)
        ]
    return TransferRecord(**data)


def _short_prompt(prompt: Adaptation, prefix: str) -> Adaptation:
    origin = replace(prompt.origin, task=prompt.task.removeprefix(prefix))
    return replace(prompt, name=prompt.name.removeprefix(prefix), origin=origin)


def of_the_matrix(
    folder: RunFolder, record: TransferRecord, prompts: Mapping[Path, Adaptation]
) -> tuple[RunFolder, list[Adaptation]]:
    """The run with the prompts of the matrix's backbone alone: those of a projector's other side are not its sources."""
    kept = {path: prompt for path, prompt in prompts.items() if prompt.backbone == record.backbone} or prompts
    return replace(folder, prompts=tuple(kept)), list(kept.values())


# The matrix ------------------------------------------------------------------------------------------------------


def row_labels(record: TransferRecord) -> dict[str, str]:
    """Source prompt -> its row: the task where the name is the task's, with or without its seed."""
    raw = record.raw
    return {
        name: task if re.fullmatch(re.escape(task) + r"(-s\d+)?", name) else name
        for name, task in zip(raw.sources, raw.source_tasks, strict=True)
    }


def merge_seeds(
    record: TransferRecord, labels: Mapping[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame | None, pd.DataFrame | None]:
    """The raw matrix with one row a label (mean over seeds), and seeds and spread where a label has several."""
    raw = record.raw
    table = pd.DataFrame(raw.values, index=[labels[s] for s in raw.sources], columns=raw.targets, dtype=float)
    groups = table.groupby(level=0, sort=False)
    mean = groups.mean()
    if len(mean) == len(table):
        return mean, None, None
    return mean, groups.count().astype(float), groups.max() - groups.min()


def make_views(record: TransferRecord, raw: pd.DataFrame, labels: Mapping[str, str]) -> tuple[View, ...]:
    """Relative first where every number can be read against an own prompt, then raw, then what tuning gave."""
    views = []
    own = pd.Series({t: raw.loc[t, t] if t in raw.index else np.nan for t in raw.columns}, dtype=float)
    relative = raw / own.where(own > 0)
    if np.isfinite(relative.to_numpy()).any():
        views.append(View("relative", relative, "score over that of the target's own prompt", percent=True))
    views.append(View("raw", raw, "the target's metric on the test rows, 0 to 1"))
    if record.calibrated is not None:
        calibrated = merge_seeds(record.model_copy(update={"raw": record.calibrated}), labels)[0]
        how = f" ({record.calibrated.calibration})" if record.calibrated.calibration else ""
        meaning = (
            f"the target's metric once the bias of its label words is taken off{how}; no prompt as it is"
        )
        views.append(View("calibrated", calibrated, meaning))
    if record.tuned:
        pairs = pd.DataFrame([asdict(pair) for pair in record.tuned])
        pairs["source"] = pairs["source"].map(lambda name: labels.get(name, name))
        pairs["gain"] = pairs["tuned"] - pairs["scratch"]
        for name, column, meaning in (
            ("step 0", "step0", "validation score of the source's vectors before the first step"),
            ("tuned", "tuned", "test score after training from the source, mean over seeds"),
            ("gain", "gain", "test score from the source minus that from scratch, mean over seeds"),
        ):
            wide = pairs.pivot_table(index="source", columns="target", values=column, aggfunc="mean")
            views.append(View(name, wide.reindex(index=raw.index, columns=raw.columns), meaning))
    return tuple(views)


def types_of(record: TransferRecord, prefix: str) -> dict[str, str]:
    """Row and column labels, less the prefix -> type, as far as it is known."""
    known = {**{name: task.type for name, task in all_tasks().items()}, **record.types}
    tasks = dict(zip(record.raw.sources, record.raw.source_tasks, strict=True))
    labels = row_labels(record)
    found = {label: known[tasks[name]] for name, label in labels.items() if tasks[name] in known}
    found |= {target: known[target] for target in record.raw.targets if target in known}
    return {label.removeprefix(prefix): kind for label, kind in found.items()}


# Indicators ------------------------------------------------------------------------------------------------------


def read_indicators(
    folder: RunFolder, labels: Mapping[str, str], prefix: str, notes: list[str]
) -> dict[str, pd.DataFrame]:
    """The indicators of the run over the matrix's labels, seeds of a task averaged."""

    def label(name: object) -> str:
        short = str(name).removeprefix(prefix)
        return labels.get(short, short)

    tables = {}
    for name, path in folder.indicators.items():
        table = read_square(path).rename(index=label, columns=label)
        tables[name] = table.groupby(level=0, sort=False).mean().T.groupby(level=0, sort=False).mean().T
    if folder.layer_files:
        notes.append(
            f"{len(folder.layer_files)} overlaps over some layers only are not in the table: compare them with correlate."
        )
    return tables


def least_seeds(seeds: pd.DataFrame | None) -> int:
    """The number of seeds of the source that has the fewest; one where no source has several."""
    if seeds is None:
        return 1
    counts = seeds.loc[[not is_reference(str(row)) for row in seeds.index]].max(axis=1)
    return int(counts[counts > 0].min()) if (counts > 0).any() else 1


def answer(
    transfer: pd.DataFrame,
    tables: dict[str, pd.DataFrame],
    types: Mapping[str, str],
    notes: list[str],
    metrics: Mapping[str, str],
    seeds: int,
) -> tuple[Prediction, ...]:
    """What the indicators say about the first view; an indicator that fits no task is left out and named."""
    usable, others = {}, []
    rows = [label for label in transfer.index if label in transfer.columns]
    for name, table in tables.items():
        common = [task for task in rows if task in table.index and task in table.columns]
        if len(common) > 1:
            usable[name] = table
        else:
            others.append(name)
    if others:
        notes.append(f"Left out, as they name no two tasks of the matrix on both sides: {few(others, ', ')}.")
    if not rows or not usable:
        return ()
    if len(rows) > MOST_PREDICTED:
        notes.append(
            f"Whether indicators predict transfer is not on this page for {len(rows):,} tasks (at most {MOST_PREDICTED}): "
            "ask `prompttransfer correlate`."
        )
        return ()
    typed = all(column in types for column in transfer.columns)
    return predict_transfer(
        transfer, usable, types if typed else None, metrics=metrics, seeds=seeds, common=True
    )


# The rest --------------------------------------------------------------------------------------------------------


def cross_model(folder: RunFolder, notes: list[str]) -> tuple[pd.DataFrame | None, tuple[str, ...]]:
    """The table of the run's projectors, rows conditions, columns groups of tasks, and which rows are controls."""
    columns: dict[str, dict[str, float]] = {}
    for path in folder.projectors:
        record = read_projector(path)
        name = f"{path.name}: " if len(folder.projectors) > 1 else ""
        for group, conditions in record.scores.items():
            columns[name + group] = {condition: entry.mean for condition, entry in conditions.items()}
        notes.append(
            f"Projector {path.name} ({record.method}) from {record.source.backbone} to {record.target.backbone}: "
            f"{record.verdict}."
        )
    if not columns:
        return None, ()
    table = pd.DataFrame(columns)
    return table, tuple(str(row) for row in table.index if row not in CONTROLS)


def facts(folder: RunFolder, record: TransferRecord, prompts: Sequence[Adaptation]) -> dict[str, str]:
    """What was run, as far as the files say."""
    raw = record.raw
    sources = [name for name in raw.sources if not is_reference(name)]
    day = datetime.fromtimestamp(folder.matrix.stat().st_mtime, timezone.utc).date()
    data = dict.fromkeys(
        f"{task}: {entry.get('source')} ({entry.get('revision')})" for task, entry in record.data.items()
    )
    found = {
        "backbone": " ".join(filter(None, (record.backbone, record.revision and f"({record.revision})"))),
        "matrix": f"{len(sources)} source prompts x {len(raw.targets)} target tasks, {day}",
        "scored on": record.split,
        "test rows": _rows(raw),
        "metrics": ", ".join(dict.fromkeys(raw.metrics)),
        "data": few(data),
        "seeds of tuned runs": ", ".join(str(s) for s in sorted({pair.seed for pair in record.tuned})),
    }
    if prompts:
        found["recipe"] = few(dict.fromkeys(map(_recipe, prompts)))
        found["layout"] = ", ".join(dict.fromkeys(p.layout for p in prompts))
        found["seeds"] = ", ".join(str(s) for s in sorted({p.seed for p in prompts if p.seed is not None}))
        words = (
            f"{p.task}: " + ", ".join(f"{k} = {v}" for k, v in p.origin.words.items())
            for p in prompts
            if p.origin.words
        )
        found["label words"] = few(dict.fromkeys(words))
        heads = (f"{p.task}: {p.head.told}" for p in prompts if p.head is not None)
        found["trained heads"] = few(dict.fromkeys(heads))
    return {name: text for name, text in found.items() if text}


def _rows(raw: MatrixRecord) -> str:
    if len(set(raw.rows)) == 1 and len(raw.rows) > 1:
        return f"{raw.rows[0]} of each target"
    return few([f"{target} {count}" for target, count in zip(raw.targets, raw.rows, strict=False)], ", ")


def few(texts: Iterable[str], between: str = "; ", most: int = 40) -> str:
    """Texts in a row, of very many the first and how many more there are."""
    found = list(texts)
    more = f"{between}and {len(found) - most:,} more" if len(found) > most else ""
    return between.join(found[:most]) + more


def _recipe(prompt: Adaptation) -> str:
    s = prompt.settings
    if not {"optimizer", "lr", "steps", "batch"} <= s.keys():
        return f"{prompt.size}, started from {prompt.origin.start}"
    rate = f"{s['lr']:g}" if isinstance(s["lr"], int | float) else s["lr"]
    return (
        f"{s['optimizer']} lr {rate}, {s['steps']} steps of {s['batch']} rows, {prompt.size} started "
        f"from {prompt.origin.start}, {s.get('precision', '')}"
    )
