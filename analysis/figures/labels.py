"""Names beside points without covering each other: eight places round a point, the freest one taken."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from analysis.figures.style import INK, RULE, shorten

_PLACES: list[tuple[int, int]] = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)]
_LETTER, _LINE = 4.2, 9.0  # points, at a size of 7


def place_labels(
    axes: Axes, anchors: NDArray[np.float64], texts: list[str], crowd: NDArray[np.float64]
) -> None:
    """Write `texts` beside `anchors` [n, 2]; `crowd` [m, 2] are points not to be covered. Limits must be final."""
    to_points = axes.transData.transform
    scale = 72 / _dpi(axes)
    dots = to_points(crowd) * scale
    frame = np.array([*axes.bbox.min, *axes.bbox.max]) * scale
    taken: list[NDArray[np.float64]] = []
    for anchor, text in zip(anchors, map(shorten, texts), strict=True):
        home = to_points(anchor) * scale
        boxes = [_box(home, text, place, reach) for reach in (6, 13, 22) for place in _PLACES]
        costs = [_cost(box, dots, taken, frame) + 0.01 * i for i, box in enumerate(boxes)]
        box = boxes[int(np.argmin(costs))]
        taken.append(box)
        x, y = ((box[:2] + box[2:]) / 2 - home).tolist()
        far = max(abs(x), abs(y)) > 0.5 * _LETTER * len(text) + 9
        axes.annotate(
            text, (anchor[0], anchor[1]), (x, y), textcoords="offset points", ha="center", va="center", fontsize=7, color=INK,
            arrowprops={"arrowstyle": "-", "color": RULE, "linewidth": 0.6} if far else None,
        )  # fmt: skip


def _dpi(axes: Axes) -> float:
    figure = axes.get_figure()
    return float(figure.dpi) if figure is not None else 100.0


def _box(home: NDArray[np.float64], text: str, place: tuple[int, int], reach: float) -> NDArray[np.float64]:
    """Left, bottom, right, top of the text when written on that side of `home`, in points."""
    half = np.array([_LETTER * len(text) / 2, _LINE / 2])
    centre = home + np.array(place) * (half + (reach if 0 in place else reach * 0.6))
    return np.concatenate([centre - half, centre + half])


def _cost(
    box: NDArray[np.float64],
    dots: NDArray[np.float64],
    taken: list[NDArray[np.float64]],
    frame: NDArray[np.float64],
) -> float:
    covered = ((dots > box[:2] - 2) & (dots < box[2:] + 2)).all(1).sum()
    clashes = sum(bool((box[:2] < other[2:]).all() and (other[:2] < box[2:]).all()) for other in taken)
    outside = bool((box[:2] < frame[:2]).any() or (box[2:] > frame[2:]).any())
    return float(covered + 3 * clashes + 4 * outside)
