"""A confusion matrix: how often each label was taken for each; the shade is the share of a true label's rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from analysis.figures.cells import COLOURS
from analysis.figures.style import INK, Figure, figure_style, shorten

LARGEST_WRITTEN = 20
"""Above this many labels a number no longer fits its cell."""


def confusion_counts(
    gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]
) -> NDArray[np.int64]:
    """Rows [true label, predicted label]."""
    place = {label: index for index, label in enumerate(labels)}
    found = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for true, said in zip(gold, predicted, strict=True):
        found[place[true], place[said]] += 1
    return found


def confusion(counts: Sequence[NDArray[np.int64]], labels: Sequence[str], titles: Sequence[str]) -> Figure:
    """The matrices of one task side by side, on one scale: a cell has its rows, and its share of the true label's."""
    with figure_style():
        names = [shorten(label) for label in labels]
        side = max(1.5, 0.55 * len(labels))
        room = 0.085 * max(map(len, names))
        figure = Figure(
            figsize=((side + 0.5) * len(counts) + room + 1.2, side + room + 1.1), layout="constrained"
        )
        axes = figure.subplots(1, len(counts), squeeze=False, sharey=True)[0]
        for number, (axis, table, title) in enumerate(zip(axes, counts, titles, strict=True)):
            shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
            image = axis.imshow(shares, cmap=COLOURS, vmin=0, vmax=1)
            axis.set_xticks(range(len(labels)), names, rotation=45, ha="right", rotation_mode="anchor")
            axis.set_yticks(range(len(labels)), names)
            axis.tick_params(length=0)
            axis.set_xlabel("predicted")
            if number == 0:
                axis.set_ylabel("true")
            axis.set_title(title)
            if len(labels) <= LARGEST_WRITTEN:
                _write(axis, table, shares)
        figure.colorbar(image, ax=list(axes), shrink=0.8, label="share of the true label's rows")
    return figure


def _write(axis: Axes, table: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    for (true, said), count in np.ndenumerate(table):
        colour = "white" if shares[true, said] > 0.6 else INK
        axis.text(said, true, f"{count:,}", ha="center", va="center", color=colour)
