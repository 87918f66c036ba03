"""The look of every figure, and how a figure becomes bytes that are the same every time.

Colours are Okabe and Ito's, told apart by every common kind of colour blindness, and no meaning rests on colour
alone: types are bracketed, named or given markers. Figures are made without pyplot, so nothing is left open;
a notebook shows them all the same.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import seaborn as sns
from matplotlib import figure as figures

from analysis.matrices import TYPE_ORDER
from tasks.errors import unknown

TYPE_COLOURS = dict(
    zip(TYPE_ORDER, ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9"), strict=True)
)
TYPE_MARKERS = dict(zip(TYPE_ORDER, ("o", "s", "^", "D", "P", "v"), strict=True))
OTHER_COLOURS = ("#7A5195", "#8C6D46", "#5F7D95", "#A05A5A", "#4C7A4C")
NO_TYPE = "#767676"
INK, MUTED, RULE = "#1A1A1A", "#5A5A5A", "#C8C8C8"
TRANSFER_COLOUR, SCRATCH_COLOUR = "#0072B2", "#6B6B6B"

FORMATS: dict[str, dict[str, Any]] = {
    "png": {"dpi": 200, "metadata": {"Software": None}},
    "svg": {"dpi": 200, "metadata": {"Date": None, "Creator": None}},
    "pdf": {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}},
}

_SETTINGS: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "hatch.linewidth": 0.5,
    "text.parse_math": False,  # names come from data: a dollar is a dollar
    "svg.hashsalt": "prompttransfer",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "figure.dpi": 100,
}


class Figure(figures.Figure):
    """A figure that a notebook shows though no pyplot made it."""

    def _repr_png_(self) -> bytes:
        return figure_bytes(self)


@contextmanager
def figure_style() -> Iterator[None]:
    """The settings under which every figure is drawn and saved; the caller's own are untouched afterwards."""
    with sns.axes_style("white"), matplotlib.rc_context(_SETTINGS):
        yield


def figure_bytes(figure: figures.Figure, format: str = "png") -> bytes:
    """The figure as a file of `format` (png, svg, pdf): the same bytes from the same figure, no date inside."""
    if format not in FORMATS:
        raise unknown("figure format", format, FORMATS)
    stream = io.BytesIO()
    with figure_style():
        figure.savefig(
            stream, format=format, bbox_inches="tight", pad_inches=0.06, facecolor="white", **FORMATS[format]
        )
    return stream.getvalue()


def type_colours(kinds: Sequence[str]) -> dict[str, str]:
    """A colour for every type: the paper's six are fixed, others take what is left by name, no type is grey."""
    others = sorted({k for k in kinds if k and k not in TYPE_COLOURS})
    colours = {k: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, k in enumerate(others)}
    return {**TYPE_COLOURS, **colours, "": NO_TYPE}


def type_markers(kinds: Sequence[str]) -> dict[str, str]:
    """A marker for every type, so that no type is told by colour alone."""
    others = sorted({k for k in kinds if k and k not in TYPE_MARKERS})
    spare = "X<>ph*"
    return {**TYPE_MARKERS, **{k: spare[i % len(spare)] for i, k in enumerate(others)}, "": "x"}


def type_runs(labels: Sequence[str], types: Mapping[str, str]) -> list[tuple[str, int, int]]:
    """Neighbours of one type as (type, first, last + 1), in order."""
    runs: list[tuple[str, int, int]] = []
    for place, label in enumerate(labels):
        kind = types.get(label, "")
        if runs and runs[-1][0] == kind:
            runs[-1] = (kind, runs[-1][1], place + 1)
        else:
            runs.append((kind, place, place + 1))
    return runs


def shorten(label: str, length: int = 24) -> str:
    """A label that fits its margin."""
    return label if len(label) <= length else label[: length - 1] + "…"
