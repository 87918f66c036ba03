"""A map of prompts: every prompt a point in the plane, prompts of one task joined to their centre and named once.

Coordinates come from UMAP, t-SNE or PCA, all seeded. Distances in UMAP and t-SNE maps are not similarities: near
means neighbours, far means little. Several seeds or checkpoints of a task show whether the task or chance makes the
place.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analysis.figures.labels import place_labels
from analysis.figures.style import MUTED, RULE, figure_style, type_colours, type_markers
from tasks.errors import UserError, unknown

Floats = NDArray[np.float64]


def pca(vectors: Floats, seed: int) -> Floats:
    """The two directions of largest variance, [n, features] -> [n, 2]; the sign is fixed by the largest entry.

    Of unit vectors, as the other two maps: a few prompts of large norm would else push all others into one point.
    """
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    centred = units - units.mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    points = left[:, :2] * values[:2]
    return points * np.sign(points[np.abs(points).argmax(0), np.arange(points.shape[1])])


def tsne(vectors: Floats, seed: int) -> Floats:
    """t-SNE on cosine distances; the perplexity is made to fit few prompts."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, max(2.0, (len(vectors) - 1) / 3))
    return TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=seed).fit_transform(
        vectors
    )


def umap(vectors: Floats, seed: int) -> Floats:
    """UMAP on cosine distances; the neighbourhood is made to fit few prompts."""
    from umap import UMAP

    neighbours = min(15, len(vectors) - 1)
    mapper = UMAP(n_neighbors=neighbours, metric="cosine", init="random", random_state=seed, n_jobs=1)
    return np.asarray(mapper.fit_transform(vectors))


METHODS: dict[str, Callable[[Floats, int], Floats]] = {"umap": umap, "tsne": tsne, "pca": pca}
_FEWEST = {"umap": 5, "tsne": 5, "pca": 3}


def coordinates(vectors: Floats, method: str = "umap", seed: int = 0) -> Floats:
    """Places of prompts in the plane, [n, features] -> [n, 2]; the same seed gives the same places."""
    if method not in METHODS:
        raise unknown("map method", method, METHODS)
    if len(vectors) < _FEWEST[method]:
        hint = "give more" if method == "pca" else "give more, or use pca"
        raise UserError(
            f"a {method} map needs at least {_FEWEST[method]} prompts; given {len(vectors)}: {hint}"
        )
    return np.asarray(METHODS[method](np.asarray(vectors, dtype=float), seed), dtype=float)


def prompt_map(points: pd.DataFrame, *, title: str = "", method: str = "") -> Figure:
    """The figure of a table with columns x, y, task, type (empty if unknown), one row a prompt."""
    missing = {"x", "y", "task", "type"} - set(points.columns)
    if missing or points.empty:
        raise UserError(
            f"a map needs columns x, y, task, type and a row a prompt; missing: {sorted(missing)}"
        )
    kinds = list(dict.fromkeys(points["type"]))
    colours, markers = type_colours(kinds), type_markers(kinds)
    with figure_style():
        figure = Figure(figsize=(6.2, 4.6))
        axes = figure.add_axes((0.06, 0.08, 0.72, 0.82))
        for _, group in points.groupby("task", sort=False):
            centre = group[["x", "y"]].mean()
            for row in group.itertuples():
                if len(group) > 1:
                    axes.plot([centre.x, row.x], [centre.y, row.y], color=RULE, linewidth=0.8, zorder=1)
            kind = group["type"].iloc[0]
            axes.scatter(
                group["x"], group["y"], s=34, color=colours[kind], marker=markers[kind], linewidth=0.5,
                edgecolor=None if markers[kind] == "x" else "white", zorder=2,
            )  # fmt: skip
        axes.margins(0.14)
        axes.set(xticks=[], yticks=[])
        names = f"{method} " if method else ""
        axes.set_xlabel(f"{names}1", color=MUTED)
        axes.set_ylabel(f"{names}2", color=MUTED)
        if title:
            axes.set_title(title)
        centres = points.groupby("task", sort=False)[["x", "y"]].mean()
        place_labels(axes, centres.to_numpy(), [str(t) for t in centres.index], points[["x", "y"]].to_numpy())
        handles = [
            Line2D(
                [],
                [],
                linestyle="",
                marker=markers[k],
                color=colours[k],
                label=k or "no type",
                markersize=5.5,
            )
            for k in sorted(kinds, key=list(colours).index)
        ]
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), handletextpad=0.3)
    return figure
