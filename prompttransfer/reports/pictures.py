"""The pictures of the report page: every figure that a run has the files for, and a reason for one that it cannot have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from analysis.figures import (
    coordinates,
    figure_bytes,
    heatmap,
    heatmaps,
    layer_curves,
    learned,
    learning_curves,
    masking_curves,
    neuron_map,
    overlap_by_layer,
    prompt_map,
    scatter,
)
from analysis.figures.curves import SCRATCH
from analysis.prediction import BASELINE, Prediction
from analysis.report import Picture, View
from analysis.report.matrix import MOST_SHOWN
from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.artifacts import load_adaptation
from prompttransfer.adaptations.starts import source_of
from prompttransfer.neurons.states import load_all
from prompttransfer.reports.run_folder import RunFolder, read_long
from tasks.errors import UserError

Draw = Callable[[str, str, Callable[[], "Figure | None"]], None]
"""Title, caption, and what makes the figure."""
MANY_STARTS = 5


def draw_all(
    folder: RunFolder,
    prompts: Sequence[Adaptation],
    view: View,
    tables: Mapping[str, pd.DataFrame],
    predictions: Sequence[Prediction],
    types: Mapping[str, str],
    prefix: str,
    notes: list[str],
    methods: Mapping[str, str] | None = None,
) -> tuple[Picture, ...]:
    """Every figure that the run has the files for; one that cannot be drawn is named with its reason.

    `prefix` is what the names in files have and those of `prompts`, `tables` and `types` have not; `methods` is row of the
    matrix -> method.
    """
    drawn: list[Picture] = []
    methods = methods or {}

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
            "The indicator with the highest mean rank correlation; filled points are pairs of one type.",
            lambda: scatter(view.table, tables[best.indicator], types, name=best.indicator, transfer_label=view.name, common=True),
        )  # fmt: skip
    if max(view.table.shape) > MOST_SHOWN:
        draw(
            "Transfer matrix",
            f"All of it, {view.meaning or view.name}.",
            lambda: heatmap(view.table, types, value_label=view.name),
        )
    panels = by_method(view.table, methods)
    if len(panels) > 1:
        draw(
            "One method beside another",
            f"The matrix by the sources' methods, on one scale of colours: {view.meaning or view.name}.",
            lambda: heatmaps(panels, types, value_label=view.name),
        )
    draw(
        "Map of prompts",
        "Each point is a prompt, by the main directions (PCA) of what the axes name.",
        lambda: _map(prompts, types),
    )
    draw(
        "Learning curves",
        "Validation score by training step; the ring marks the first step at the best score from scratch.",
        lambda: _curves([load_adaptation(path) for path in folder.tuned_prompts] or prompts, types, prefix),
    )
    if folder.states:
        draw_neurons(folder, types, prefix, draw)
    for path in folder.masking:
        table = read_long(path)
        caption = f"Score while neurons are switched off ({path.relative_to(folder.root)})."
        draw("Without neurons", caption, lambda table=table: masking_curves(table))  # type: ignore[misc]
    return tuple(drawn)


def draw_neurons(folder: RunFolder, types: Mapping[str, str], prefix: str, draw: Draw) -> None:
    """The neuron map, and overlap by layer where there are pairs."""
    captured = load_all(folder.states)
    names = tuple(name.removeprefix(prefix) for name in captured.states.names)
    states = replace(captured.states, names=names)
    tasks = {name: task.removeprefix(prefix) for name, task in zip(names, captured.tasks, strict=True)}
    kinds = {name: types[task] for name, task in tasks.items() if task in types}
    draw("Activated neurons", f"Black is active ({states.rule}).", lambda: neuron_map(states, kinds))
    if len(names) > 1:
        draw(
            "Overlap by layer",
            "Mean overlap ON of pairs of prompts; bands are the middle half of the pairs.",
            lambda: layer_curves(overlap_by_layer(states, kinds)),
        )


def by_method(table: pd.DataFrame, methods: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """Method -> its rows of a matrix, with every reference row; `methods` is source -> method.

    The tables say their method, so that the names of their sources need not.
    """
    kinds = list(dict.fromkeys(methods[str(name)] for name in table.index if str(name) in methods))
    short = {name: name.rpartition("@")[0] or name for name in methods}
    return {
        kind: table.loc[[name for name in table.index if methods.get(str(name), kind) == kind]].rename(
            index=short
        )
        for kind in kinds
    }


def _map(prompts: Sequence[Adaptation], types: Mapping[str, str]) -> Figure | None:
    prompts = [prompt for prompt in prompts if prompt.has_vectors]
    if len(prompts) < 3 or len({(p.backbone, tuple(p.vectors.shape)) for p in prompts}) > 1:
        return None
    points, what = map_points(prompts, "pca", 0)
    points["type"] = [types.get(p.task, "") for p in prompts]
    return prompt_map(points, method=what)


def map_points(prompts: Sequence[Adaptation], method: str, seed: int) -> tuple[pd.DataFrame, str]:
    """Where prompts lie in the plane (x, y, task), and what the axes are of.

    Prompts of several seeds lie by what training added to their start: by the vectors as they are the map would show
    the seeds.
    """
    vectors = _flat([p.vectors for p in prompts])
    starts = [None if p.first_vectors is None else _flat([p.first_vectors])[0] for p in prompts]
    moved = learned(vectors, starts, [p.seed for p in prompts])
    places = coordinates(vectors if moved is None else moved, method, seed)
    points = pd.DataFrame(places, columns=["x", "y"])
    points["task"] = [p.task for p in prompts]
    name = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}[method]
    return points, name if moved is None else f"{name} of vectors less their start,"


def _flat(vectors: Sequence[torch.Tensor]) -> np.ndarray:
    return np.asarray(torch.stack(list(vectors)).flatten(1).double().numpy())


RECIPE = (
    "backbone", "revision", "method", "layout", "start", "optimizer", "lr", "weight_decay", "steps", "batch", "length", "evaluate_every",
    "patience", "precision", "max_length", "aggregation", "label words", "training rows", "rows from",
)  # fmt: skip
"""What two runs may differ in beside their seed; `start` is the initialiser of a run from scratch."""


def curve_table(prompts: Sequence[Adaptation]) -> pd.DataFrame:
    """The stored learning curves of prompts as one long table, with what tells their recipes apart.

    A prompt started from another names it. Two different curves of one task, start, seed and recipe are told apart by
    the names of the prompts, so that nothing but seeds is ever averaged.
    """
    facts = [_recipe_facts(prompt) for prompt in prompts]
    varied = _varied(prompts, facts)
    rows: list[tuple[str, str, str, int, int, float]] = []
    runs: dict[tuple[str, str, str, int], list[Adaptation]] = {}
    for prompt, fact in zip(prompts, facts, strict=True):
        source = source_of(prompt.origin.start)
        start = SCRATCH if source is None else Path(source).name
        recipe = ", ".join(f"{name.replace('_', ' ')} {fact[name]}" for name in varied if fact[name])
        others = runs.setdefault((prompt.task, start, recipe, prompt.seed or 0), [])
        if any(other.curve == prompt.curve for other in others):
            continue
        others.append(prompt)
        if len(others) > 1:
            recipe = ", ".join(filter(None, (recipe, f"run {len(others)} ({prompt.name})")))
        rows += [(prompt.task, start, recipe, prompt.seed or 0, p.step, p.score) for p in prompt.curve]
    return pd.DataFrame(rows, columns=["task", "start", "recipe", "seed", "step", "score"])


def _varied(prompts: Sequence[Adaptation], facts: Sequence[Mapping[str, str]]) -> list[str]:
    """What the runs of some task differ in, as far as it is known of them."""
    values: dict[tuple[str, str], set[str]] = {}
    for prompt, fact in zip(prompts, facts, strict=True):
        for name in RECIPE:
            values.setdefault((prompt.task, name), set()).update(filter(None, [fact[name]]))
    return [name for name in RECIPE if any(len(values[task, name]) > 1 for task in {p.task for p in prompts})]


def _recipe_facts(prompt: Adaptation) -> dict[str, str]:
    """RECIPE of a prompt as text, empty where it is not known."""
    known = {
        **prompt.settings,
        "backbone": prompt.backbone,
        "revision": prompt.revision,
        "layout": prompt.layout,
    }
    known["method"] = "" if prompt.method.name == "prompt" else str(prompt.method)
    known["start"] = "" if source_of(prompt.origin.start) else prompt.origin.start
    known["label words"] = " ".join(f"{label}={word}" for label, word in prompt.origin.words.items())
    known["training rows"] = prompt.origin.data.get("train")
    known["rows from"] = prompt.origin.data.get("source")
    return {name: "" if known.get(name) is None else str(known[name]) for name in RECIPE}


def _curves(prompts: Sequence[Adaptation], types: Mapping[str, str], prefix: str) -> Figure | None:
    """The curves; where there are too many sources to tell apart, by whether the source is of the target's type."""
    table = curve_table(prompts)
    if table.empty:
        return None
    for column in ("task", "start"):
        table[column] = table[column].str.removeprefix(prefix)
    starts = [start for start in dict.fromkeys(table["start"]) if start != SCRATCH]
    if len(starts) > MANY_STARTS:
        table["seed"] = (
            table["start"] + " " + table["seed"].astype(str)
        )  # what is averaged is no longer seeds alone
        kinds = {s: types.get(s) or types.get(re.sub(r"-s\d+$", "", s)) for s in starts}
        table["start"] = [
            start if start == SCRATCH else "same type" if kinds[start] == types.get(task) else "another type"
            for start, task in zip(table["start"], table["task"], strict=True)
        ]
    return learning_curves(table)
