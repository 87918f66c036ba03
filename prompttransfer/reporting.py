"""Collecting a run's folder into the values of the report page, and writing the page.

Everything is read from what the commands wrote; nothing is computed by a model. Prompts of several seeds of a task
(`sst2-s0`, `sst2-s1`) become one row, their mean, with the number of seeds and the spread beside it. The page itself
is analysis/report.
"""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from analysis.figures import (
    coordinates,
    figure_bytes,
    layer_curves,
    learning_curves,
    masking_curves,
    neuron_map,
    overlap_by_layer,
    prompt_map,
    scatter,
)
from analysis.figures.curves import SCRATCH
from analysis.matrices import is_reference
from analysis.prediction import BASELINE, Prediction, predict
from analysis.report import Picture, ReportData, View, render_report
from projectors.artifacts import read_record as read_projector
from prompttransfer.artifacts import load_prompt
from prompttransfer.files import write_text
from prompttransfer.neuron_states import load_all
from prompttransfer.prompt import Prompt
from prompttransfer.run_folder import (
    RunFolder,
    TransferRecord,
    find_run,
    read_square,
    read_text,
    read_transfer,
)
from tasks.catalog import all_tasks
from tasks.errors import UserError

PAGE = "report.html"
CONTROLS = ("own prompt", "projected", "projected, validated step")
"""Rows of a projector's table that are no controls."""
MANY_STARTS = 5


def write_report(run: Path, output: Path | None = None, *, title: str = "") -> Path:
    """Write the page of a run beside its folders (or to `output`), whole or not at all."""
    page = render_report(collect(run, title=title))
    path = output or run / PAGE
    write_text(path, page)
    return path


def collect(run: Path, *, title: str = "") -> ReportData:
    """Everything of a run that the page shows; UserError where the folder has no matrix, or a file is damaged."""
    folder = find_run(run)
    record = read_transfer(folder.matrix)
    prompts = [load_prompt(path) for path in folder.prompts]
    labels = row_labels(record)
    raw, seeds, spread = merge_seeds(record, labels)
    types = types_of(record, labels)
    views = make_views(record, raw, labels)
    notes: list[str] = []
    tables = read_indicators(folder, labels, notes)
    predictions = answer(views[0].table, tables, types, notes)
    cross, controls = cross_model(folder, notes)
    if seeds is None and len({p.seed for p in prompts}) <= 1 and not record.tuned:
        notes.append("One seed: differences here are not evidence; train with several --seeds for a spread.")
    return ReportData(
        title=title or f"Prompt transfer on {record.backbone or run.resolve().name}",
        views=views,
        types=types,
        seeds=seeds,
        spread=spread,
        impossible=record.raw.impossible,
        predictions=predictions,
        pictures=draw_all(folder, prompts, views[0], tables, predictions, types, notes),
        cross_model=cross,
        cross_model_controls=controls,
        facts=facts(folder, record, prompts),
        environment=record.versions,
        commands=commands(folder, record, prompts),
        notes=tuple(notes),
    )


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
    if record.tuned:
        pairs = pd.DataFrame([pair.model_dump() for pair in record.tuned])
        pairs["source"] = pairs["source"].map(lambda name: labels.get(name, name))
        pairs["gain"] = pairs["test_from_source"] - pairs["test_from_scratch"]
        for name, column, meaning in (
            ("step 0", "step0_validation", "validation score of the source's vectors before the first step"),
            ("tuned", "test_from_source", "test score after training from the source, mean over seeds"),
            ("gain", "gain", "test score from the source minus that from scratch, mean over seeds"),
        ):
            wide = pairs.pivot_table(index="source", columns="target", values=column, aggfunc="mean")
            views.append(View(name, wide.reindex(index=raw.index, columns=raw.columns), meaning))
    return tuple(views)


def types_of(record: TransferRecord, labels: Mapping[str, str]) -> dict[str, str]:
    """Row and column labels -> type, as far as it is known."""
    known = {**{name: task.type for name, task in all_tasks().items()}, **record.types}
    tasks = dict(zip(record.raw.sources, record.raw.source_tasks, strict=True))
    found = {label: known[tasks[name]] for name, label in labels.items() if tasks[name] in known}
    return found | {target: known[target] for target in record.raw.targets if target in known}


# Indicators ------------------------------------------------------------------------------------------------------


def read_indicators(
    folder: RunFolder, labels: Mapping[str, str], notes: list[str]
) -> dict[str, pd.DataFrame]:
    """The indicators of the run over the matrix's labels, seeds of a task averaged."""
    tables = {}
    for name, path in folder.indicators.items():
        table = read_square(path)
        table.index = pd.Index([labels.get(str(label), str(label)) for label in table.index])
        table.columns = pd.Index([labels.get(str(label), str(label)) for label in table.columns])
        tables[name] = table.groupby(level=0, sort=False).mean().T.groupby(level=0, sort=False).mean().T
    if folder.layer_indicators:
        notes.append(
            f"{folder.layer_indicators} overlaps over some layers only are not in the table: compare them with correlate."
        )
    return tables


def answer(
    transfer: pd.DataFrame, tables: dict[str, pd.DataFrame], types: Mapping[str, str], notes: list[str]
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
        notes.append(f"Left out, as they name no two tasks of the matrix on both sides: {', '.join(others)}.")
    if not rows or not usable:
        return ()
    typed = all(column in types for column in transfer.columns)
    return predict(transfer, usable, types if typed else None, common=True)


# Pictures --------------------------------------------------------------------------------------------------------


def draw_all(
    folder: RunFolder,
    prompts: Sequence[Prompt],
    view: View,
    tables: Mapping[str, pd.DataFrame],
    predictions: Sequence[Prediction],
    types: Mapping[str, str],
    notes: list[str],
) -> tuple[Picture, ...]:
    """Every figure that the run has the files for; one that cannot be drawn is named with its reason."""
    drawn: list[Picture] = []

    def draw(title: str, caption: str, make: Callable[[], Figure | None]) -> None:
        try:
            figure = make()
        except UserError as error:
            notes.append(f"{title} is not drawn: {error}.")
            return
        if figure is not None:
            drawn.append(Picture(title, caption, figure_bytes(figure, "svg")))

    best = next((p for p in predictions if p.indicator != BASELINE and p.mean is not None), None)
    if best is not None:
        draw(
            f"{best.indicator} against transfer",
            "The indicator that ranks sources best; filled points are pairs of one type.",
            lambda: scatter(view.table, tables[best.indicator], types, name=best.indicator, transfer_label=view.name, common=True),
        )  # fmt: skip
    draw(
        "Map of prompts",
        "Each point is a prompt, by the main directions of its vectors (PCA).",
        lambda: _map(prompts, types),
    )
    draw(
        "Learning curves",
        "Validation score by training step; the ring marks the first step at the best score from scratch.",
        lambda: _curves([load_prompt(path) for path in folder.tuned_prompts] or prompts, types),
    )
    if folder.states:
        captured = load_all(folder.states)
        by_task = dict(zip(captured.states.names, captured.tasks, strict=True))
        kinds = {name: types[task] for name, task in by_task.items() if task in types}
        draw(
            "Activated neurons",
            f"Black is active ({captured.states.rule}).",
            lambda: neuron_map(captured.states, kinds),
        )
        if len(by_task) > 1:
            draw(
                "Overlap by layer",
                "Mean overlap ON of pairs of prompts; bands are the middle half of the pairs.",
                lambda: layer_curves(overlap_by_layer(captured.states, kinds)),
            )
    for path in folder.masking:
        table = pd.read_csv(io.StringIO(read_text(path)))
        caption = f"Score while neurons are switched off ({path.relative_to(folder.root)})."
        draw("Without neurons", caption, lambda table=table: masking_curves(table))  # type: ignore[misc]
    return tuple(drawn)


def _map(prompts: Sequence[Prompt], types: Mapping[str, str]) -> Figure | None:
    if len(prompts) < 3 or len({(p.backbone, tuple(p.vectors.shape)) for p in prompts}) > 1:
        return None
    vectors = torch.stack([p.vectors for p in prompts]).flatten(1).double().numpy()
    points = pd.DataFrame(coordinates(vectors, "pca", 0), columns=["x", "y"])
    points["task"] = [p.task for p in prompts]
    points["type"] = [types.get(p.task, "") for p in prompts]
    return prompt_map(points, method="PCA")


def curve_table(prompts: Sequence[Prompt]) -> pd.DataFrame:
    """The stored learning curves of prompts as one long table; a prompt started from another names it."""
    rows = []
    for prompt in prompts:
        transferred = prompt.initialiser.startswith("prompt:")
        start = Path(prompt.initialiser.removeprefix("prompt:")).name if transferred else SCRATCH
        rows += [(prompt.task, start, prompt.seed or 0, point.step, point.score) for point in prompt.curve]
    return pd.DataFrame(rows, columns=["task", "start", "seed", "step", "score"])


def _curves(prompts: Sequence[Prompt], types: Mapping[str, str]) -> Figure | None:
    """The curves; where there are too many sources to tell apart, by whether the source is of the target's type."""
    table = curve_table(prompts)
    if table.empty:
        return None
    starts = [start for start in dict.fromkeys(table["start"]) if start != SCRATCH]
    if len(starts) > MANY_STARTS:
        kinds = {s: types.get(s) or types.get(re.sub(r"-s\d+$", "", s)) for s in starts}
        table["start"] = [
            start if start == SCRATCH else "same type" if kinds[start] == types.get(task) else "another type"
            for start, task in zip(table["start"], table["task"], strict=True)
        ]
    return learning_curves(table)


# The rest --------------------------------------------------------------------------------------------------------


def cross_model(folder: RunFolder, notes: list[str]) -> tuple[pd.DataFrame | None, tuple[str, ...]]:
    """The table of the run's projectors, rows conditions, columns groups of tasks, and which rows are controls."""
    columns: dict[str, dict[str, float]] = {}
    for path in folder.projectors:
        record = read_projector(path)
        name = f"{path.name}: " if len(folder.projectors) > 1 else ""
        for group, conditions in record.scores.items():
            columns[name + group] = {condition: entry["mean"] for condition, entry in conditions.items()}
        notes.append(
            f"Projector {path.name} ({record.method}) from {record.source.backbone} to {record.target.backbone}: "
            f"{record.verdict}."
        )
    if not columns:
        return None, ()
    table = pd.DataFrame(columns)
    return table, tuple(str(row) for row in table.index if row not in CONTROLS)


def facts(folder: RunFolder, record: TransferRecord, prompts: Sequence[Prompt]) -> dict[str, str]:
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
        "test rows": ", ".join(f"{t} {n}" for t, n in zip(raw.targets, raw.rows, strict=False)),
        "metrics": ", ".join(dict.fromkeys(raw.metrics)),
        "data": "; ".join(data),
        "seeds of tuned runs": ", ".join(str(s) for s in sorted({pair.seed for pair in record.tuned})),
    }
    if prompts:
        found["recipe"] = "; ".join(dict.fromkeys(map(_recipe, prompts)))
        found["layout"] = ", ".join(dict.fromkeys(p.layout for p in prompts))
        found["seeds"] = ", ".join(str(s) for s in sorted({p.seed for p in prompts if p.seed is not None}))
        words = (
            f"{p.task}: " + ", ".join(f"{k} = {v}" for k, v in p.words.items()) for p in prompts if p.words
        )
        found["label words"] = "; ".join(dict.fromkeys(words))
    return {name: text for name, text in found.items() if text}


def _recipe(prompt: Prompt) -> str:
    s = prompt.settings
    if "steps" not in s:
        return f"{prompt.length} vectors, started from {prompt.initialiser}"
    return (
        f"{s['optimizer']} lr {s['lr']:g}, {s['steps']} steps of {s['batch']} rows, {prompt.length} vectors started "
        f"from {prompt.initialiser}, {s.get('precision', '')}"
    )


def commands(folder: RunFolder, record: TransferRecord, prompts: Sequence[Prompt]) -> tuple[str, ...]:
    """The commands that run it again, from what the prompts and the matrix say of themselves."""
    root = folder.root
    trained: dict[tuple[str, ...], list[Prompt]] = {}
    for path, prompt in zip(folder.prompts, prompts, strict=True):
        trained.setdefault(_train_options(prompt, path.parent), []).append(prompt)
    lines = [
        ["prompttransfer", "train", "--task", *_unique(p.task for p in group), *options,
         "--seeds", *_unique(str(p.seed or 0) for p in group)]
        for options, group in trained.items()
        if "steps" in group[0].settings
    ]  # fmt: skip
    places = _unique(str(path.parent) for path in folder.prompts) or ["PROMPTS"]
    tune = ["--tune"] if record.tuned else []
    lines.append(["prompttransfer", "transfer", *places, "--to", *record.raw.targets, *tune, "--output", str(folder.matrix.parent)])  # fmt: skip
    if any(path.name.startswith("similarity_E") for path in folder.indicators.values()):
        lines.append(["prompttransfer", "compare", *places, "--output", str(root / "compare")])
    for path in folder.states:
        lines.append(["prompttransfer", "neurons", *places, "--output", str(path)])
        lines.append(["prompttransfer", "neurons", "overlap", str(path), "--output", str(path.parent)])
    lines.append(["prompttransfer", "report", str(root)])
    return tuple(shlex.join(line) for line in lines)


def _train_options(prompt: Prompt, output: Path) -> tuple[str, ...]:
    names = ("optimizer", "lr", "weight_decay", "steps", "batch", "length", "evaluate_every", "patience")
    given = [
        text
        for name in names
        if name in prompt.settings
        for text in (f"--{name.replace('_', '-')}", f"{prompt.settings[name]}")
    ]
    start = ["--init", prompt.initialiser, "--layout", prompt.layout]
    return ("--backbone", prompt.backbone, *start, *given, "--output", str(output))


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
