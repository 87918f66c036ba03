"""A map of prompts: every prompt a point in the plane, prompts of one task joined to their medoid and named there.

Coordinates come from UMAP, t-SNE or PCA, all seeded. Distances in UMAP and t-SNE maps are not similarities: near
means neighbours, far means little. Several seeds or checkpoints of a task show whether the task or chance makes the
place: prompts that start from the vectors of their seed lie by seed, unless the start is taken off (`learned`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analysis.figures.labels import place_labels
from analysis.figures.style import MUTED, RULE, Figure, figure_style, type_colours, type_markers
from tasks.errors import UserError, unknown

Floats = NDArray[np.float64]

MOST_NAMED = 60
"""Above this many tasks their names cover each other, and are left out."""
MANY_POINTS = 1000
"""Above this many prompts points are small, and in an SVG one image."""
_MOST_APART = 2000  # points whose distances are all taken


def pca(vectors: Floats, seed: int) -> Floats:
    """The two directions of largest variance, [n, features] -> [n, 2]; the sign is fixed by the largest entry.

    Of unit vectors, as the other two maps: a few prompts of large norm would else push all others into one point.
    """
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    units -= units.mean(0)
    if len(units) < units.shape[1]:  # the same directions from the products of prompts, which are fewer
        squares, directions = np.linalg.eigh(units @ units.T)
        points = directions[:, -2:][:, ::-1] * np.sqrt(np.maximum(squares[-2:][::-1], 0))
    else:
        left, values, _ = np.linalg.svd(units, full_matrices=False)
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


def learned(vectors: Floats, initial: Sequence[Floats | None], seeds: Sequence[int | None]) -> Floats | None:
    """Vectors [n, features] less what each started from; None where that is not known, or all are of one seed.

    A few hundred steps move a prompt less far than two random starts lie apart, so a map of several seeds would show
    the seeds.
    """
    known = [start for start in initial if start is not None]
    if len(set(seeds)) < 2 or len(known) < len(vectors):
        return None
    moved = vectors - np.stack(known)
    return moved if (np.abs(moved).max(1) > 0).all() else None


def medoid(points: Floats) -> int:
    """Which of the points [n, 2] has the smallest sum of distances to the others."""
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1) if len(points) <= _MOST_APART else None
    return int((np.linalg.norm(points - points.mean(0), axis=1) if apart is None else apart.sum(1)).argmin())


def prompt_map(points: pd.DataFrame, *, title: str = "", method: str = "") -> Figure:
    """The figure of a table with columns x, y, task, type (empty if unknown), one row a prompt.

    A type has a colour and a mark, prompts of one task are joined to their medoid and named there; where there are
    more than MOST_NAMED tasks only the types are told apart, and the tasks are counted.
    """
    missing = {"x", "y", "task", "type"} - set(points.columns)
    if missing or points.empty:
        raise UserError(
            f"a map needs columns x, y, task, type and a row a prompt; missing: {sorted(missing)}"
        )
    tasks = list(points.groupby("task", sort=False))
    places = [group[["x", "y"]].to_numpy(dtype=float) for _, group in tasks]
    homes = np.stack([own[medoid(own)] for own in places])
    named = len(tasks) <= MOST_NAMED
    with figure_style():
        figure = Figure(figsize=(6.2, 4.6))
        axes = figure.add_axes((0.06, 0.08, 0.72, 0.82))
        spokes = [[home, place] for home, own in zip(homes, places, strict=True) for place in own]
        axes.add_collection(LineCollection(spokes if named else [], colors=RULE, linewidths=0.8, zorder=1))
        _points_by_type(axes, points)
        axes.margins(0.14)
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel(f"{method} 1".strip(), color=MUTED)
        axes.set_ylabel(f"{method} 2".strip(), color=MUTED)
        if title:
            axes.set_title(title)
        if named:
            place_labels(axes, homes, [str(task) for task, _ in tasks], points[["x", "y"]].to_numpy())
        else:
            axes.text(
                1.01, 0, f"{len(points):,} prompts of\n{len(tasks):,} tasks,\nnames left out",
                transform=axes.transAxes, fontsize=7, color=MUTED,
            )  # fmt: skip
    return figure


def _points_by_type(axes: Axes, points: pd.DataFrame) -> None:
    """Every prompt, by the colour and mark of its type, and the legend of the types."""
    kinds = list(dict.fromkeys(points["type"]))
    colours, markers = type_colours(kinds), type_markers(kinds)
    for kind in kinds:
        group = points[points["type"] == kind]
        axes.scatter(
            group["x"], group["y"], s=34 if len(points) <= MANY_POINTS else 6, color=colours[kind], marker=markers[kind],
            linewidth=0.5, edgecolor=None if markers[kind] == "x" else "white", zorder=2,
            rasterized=len(points) > MANY_POINTS,
        )  # fmt: skip
    known = sorted(kinds, key=list(colours).index)
    handles = [
        Line2D(
            [], [], linestyle="", marker=markers[k], color=colours[k], label=k or "no type", markersize=5.5
        )
        for k in known[:MOST_NAMED]
    ]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), handletextpad=0.3)
