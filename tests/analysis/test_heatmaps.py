"""Several heatmaps side by side: one scale, the same columns, a panel a method."""

import numpy as np
import pandas as pd
import pytest

from analysis.figures import heatmaps
from tasks.errors import UserError

TASKS = ["imdb", "sst2", "snli"]


def table(low, high, rows=("imdb", "snli", "majority"), columns=TASKS):
    return pd.DataFrame(np.linspace(low, high, len(rows) * len(columns)).reshape(len(rows), -1), list(rows), list(columns))  # fmt: skip


def panels(figure):
    return [axes for axes in figure.axes if axes.get_title(loc="left")]


def test_each_panel_has_its_name_and_all_have_one_scale_and_the_same_columns():
    figure = heatmaps({"prompt": table(0.5, 0.9), "lora": table(0.1, 0.6)}, {"imdb": "a", "sst2": "a"})
    assert [axes.get_title(loc="left") for axes in panels(figure)] == ["prompt", "lora"]
    assert {mesh.get_clim() for axes in figure.axes for mesh in axes.collections if mesh.get_array() is not None and mesh.get_array().size > 1 and axes in panels(figure)} == {(0.0, 0.9)}  # fmt: skip


def test_a_target_that_a_panel_lacks_is_a_cell_that_cannot_be():
    figure = heatmaps({"prompt": table(0, 1), "probe": table(0, 1, columns=["imdb", "sst2"])})
    dashes = [[text.get_text() for text in axes.texts].count("–") for axes in panels(figure)]
    assert dashes == [0, 2]


def test_nothing_to_draw_and_too_large_are_one_clear_line():
    with pytest.raises(UserError, match="nothing to draw"):
        heatmaps({})
    many = [f"t{i}" for i in range(130)]
    with pytest.raises(UserError, match="too large to stand beside others"):
        heatmaps({"a": table(0, 1, rows=many, columns=many)})


def labels(axes):
    return [text.get_text() for text in axes.get_yticklabels()], [
        t.get_text() for t in axes.get_xticklabels()
    ]


def test_names_stand_once_and_without_what_all_begin_with():
    rows = ("world-imdb", "world-snli")
    one = table(0, 1, rows=rows, columns=[f"world-{task}" for task in TASKS])
    figure = heatmaps({f"model-{name}": one for name in ("a", "b", "c", "d", "e")})
    first, *middle, last = panels(figure)
    assert [axes.get_title(loc="left") for axes in panels(figure)] == ["a", "b", "c", "d", "e"]
    assert labels(first) == (["imdb", "snli"], [])  # its columns are named below the panel beneath
    assert [labels(axes) for axes in middle] == [([], TASKS)] * 3
    assert labels(last) == (["imdb", "snli"], TASKS)


def test_panels_of_other_rows_have_their_own_names():
    figure = heatmaps({"prompt": table(0, 1, rows=("imdb",)), "lora": table(0, 1, rows=("snli",))})
    assert [labels(axes)[0] for axes in panels(figure)] == [["imdb"], ["snli"]]
