"""Figures: what is written in them, that they are the same every time, and what they refuse."""

import numpy as np
import pandas as pd
import pytest

from analysis.figures import (
    coordinates,
    figure_bytes,
    heatmap,
    layer_curves,
    learning_curves,
    masking_curves,
    neuron_map,
    overlap_by_layer,
    projector_table,
    prompt_map,
    scatter,
)
from analysis.figures.neuron_map import telling_neurons
from analysis.figures.scatter import fit_by_tasks
from analysis.figures.style import TYPE_COLOURS, type_runs
from analysis.matrices import PUBLISHED_TYPES
from analysis.neurons import pack
from tasks.errors import UserError

TASKS = list(PUBLISHED_TYPES)


def transfer(tasks=TASKS, seed=0, references=("no prompt", "majority")):
    values = np.random.default_rng(seed).random((len(tasks) + len(references), len(tasks)))
    return pd.DataFrame(values, index=[*tasks, *references], columns=tasks)


def texts(figure):
    figure.canvas.draw()
    found = [t.get_text() for axes in figure.axes for t in axes.texts]
    found += [
        t.get_text() for axes in figure.axes for t in (*axes.get_xticklabels(), *axes.get_yticklabels())
    ]
    return found + [t.get_text() for t in figure.texts]


def curves():
    rows = [(task, start, seed, step, 0.5 + step / 1000 + 0.1 * (start != "scratch"))
            for task in ("sst2", "imdb") for start in ("scratch", "mnli") for seed in (0, 1) for step in (0, 100, 200)]  # fmt: skip
    return pd.DataFrame(rows, columns=["task", "start", "seed", "step", "score"])


def states(prompts=6):
    names = TASKS[:prompts]
    return pack(np.random.default_rng(0).random((prompts, 4, 50)) > 0.5, names, "tiny")


def masking():
    rows = [
        (s / 4, kind, d, 1 - s / 5)
        for s in range(5)
        for kind, draws in (("specific", 1), ("random", 5))
        for d in range(draws)
    ]
    return pd.DataFrame(rows, columns=["share", "kind", "draw", "score"])


def points():
    table = pd.DataFrame(np.random.default_rng(0).random((6, 2)), columns=["x", "y"])
    return table.assign(
        task=["sst2", "sst2", "imdb", "mnli", "snli", "own"], type=["sentiment"] * 3 + ["nli"] * 2 + [""]
    )


FIGURES = {
    "heatmap": lambda: heatmap(transfer(TASKS[4:10]), PUBLISHED_TYPES, title="t", value_label="v"),
    "clustered": lambda: heatmap(transfer(TASKS[4:10]), PUBLISHED_TYPES, cluster=True),
    "map": lambda: prompt_map(points(), method="PCA"),
    "scatter": lambda: scatter(transfer(), transfer(seed=1), PUBLISHED_TYPES),
    "learning": lambda: learning_curves(curves(), title="t"),
    "masking": lambda: masking_curves(masking()),
    "neurons": lambda: neuron_map(states(), PUBLISHED_TYPES),
    "layers": lambda: layer_curves(overlap_by_layer(states(), PUBLISHED_TYPES)),
    "projectors": lambda: projector_table(transfer(references=("random",)).iloc[-4:, :4], ["random"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_data_gives_the_same_bytes(name, kind):
    first, again = figure_bytes(FIGURES[name](), kind), figure_bytes(FIGURES[name](), kind)
    assert first == again
    assert first.startswith(b"\x89PNG" if kind == "png" else b"<?xml")
    assert b"Date" not in first and b"date>" not in first


def test_a_pdf_holds_no_date():
    assert b"CreationDate" not in figure_bytes(FIGURES["masking"](), "pdf")


def test_an_unknown_format_is_named():
    with pytest.raises(UserError, match="figure format 'gif'"):
        figure_bytes(FIGURES["masking"](), "gif")


def test_every_value_of_17_by_17_is_written_in_a_type_of_at_least_6_points():
    table = transfer()
    figure = heatmap(table, PUBLISHED_TYPES)
    written = [t for axes in figure.axes for t in axes.texts if t.get_text().replace(".", "").isdigit()]
    assert len(written) == table.size
    assert min(t.get_fontsize() for t in written) >= 6


def test_tasks_stand_by_type_and_every_type_is_bracketed():
    shuffled = list(np.random.default_rng(3).permutation(TASKS))
    figure = heatmap(transfer(shuffled), PUBLISHED_TYPES)
    rows = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert [kind for kind, _, _ in type_runs(rows, PUBLISHED_TYPES)] == list(TYPE_COLOURS)
    assert all(texts(figure).count(kind) == 2 for kind in TYPE_COLOURS)  # over columns and beside rows


def test_reference_rows_stand_in_axes_of_their_own():
    figure = heatmap(transfer(), PUBLISHED_TYPES)
    assert [t.get_text() for t in figure.axes[1].get_yticklabels()] == ["no prompt", "majority"]


def test_a_cell_that_cannot_be_is_hatched_with_a_dash_and_not_a_zero():
    table = transfer(TASKS[:4], references=())
    table.iloc[1, 2] = np.nan
    figure = heatmap(table)
    assert texts(figure).count("–") == 1
    assert sum(bool(p.get_hatch()) for p in figure.axes[0].patches) == 1


def test_a_diagonal_of_ones_does_not_take_the_colours():
    table = pd.DataFrame(np.full((4, 4), 0.002) + np.eye(4) * 0.998, index=TASKS[:4], columns=TASKS[:4])
    table.iloc[0, 1] = table.iloc[1, 0] = 0.001
    figure = heatmap(table)
    assert figure.axes[0].collections[0].get_clim()[1] == pytest.approx(0.002)
    assert texts(figure).count("self") == 4 and "2.0" in texts(figure)


def test_names_from_data_are_no_mathematics():
    table = transfer(["$x$", "a_b", "c^d"], references=())
    figure_bytes(heatmap(table, title="$\\frac{$"), "png")


def test_clustering_puts_like_tasks_together():
    table = pd.DataFrame(np.full((4, 4), 0.1), index=list("abcd"), columns=list("abcd"))
    for pair in (("a", "c"), ("b", "d")):
        table.loc[list(pair), list(pair)] = 0.9
    order = [t.get_text() for t in heatmap(table, cluster=True).axes[0].get_yticklabels()]
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset("ac"), frozenset("bd")}


def test_clustering_of_an_incomplete_table_is_refused():
    table = transfer(TASKS[:4])
    table.iloc[0, 1] = np.nan
    with pytest.raises(UserError, match="empty"):
        heatmap(table, cluster=True)


def test_an_empty_table_is_refused():
    with pytest.raises(UserError, match="nothing to draw"):
        heatmap(pd.DataFrame(np.nan, index=["a"], columns=["a"]))


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_map_places_are_the_same_for_the_same_seed_and_keep_groups_apart(method):
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(0, 0.1, (6, 30)) + centre for centre in np.eye(30)[:2] * 5])
    places = coordinates(vectors, method, seed=1)
    np.testing.assert_array_equal(places, coordinates(vectors, method, seed=1))
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
    distances[np.diag_indices(12)] = np.inf
    assert all((distances[i].argmin() < 6) == (i < 6) for i in range(12))


def test_too_few_prompts_for_a_map_are_refused():
    with pytest.raises(UserError, match="at least 5 prompts"):
        coordinates(np.eye(3), "umap")


def test_the_fit_goes_through_a_line_and_its_band_has_no_width():
    x = np.random.default_rng(0).random((6, 6))
    grid = np.array([0.0, 1.0])
    line, low, high = fit_by_tasks(x, 2 * x + 1, ~np.eye(6, dtype=bool), grid, draws=50)
    np.testing.assert_allclose([line, low, high], [[1, 3]] * 3, atol=1e-6)


def test_learning_curves_have_a_panel_a_task_and_mark_where_scratch_ends():
    figure = learning_curves(curves())
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["sst2", "imdb"]
    rings = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert rings == [200, 100]  # scratch reaches .7 at 200, the transferred prompt at 100


def test_curves_without_their_columns_are_refused():
    with pytest.raises(UserError, match="missing: seed"):
        learning_curves(curves().drop(columns="seed"))
    with pytest.raises(UserError, match="missing: rows"):
        masking_curves(masking().iloc[:0])


def test_the_neurons_that_tell_types_apart_are_shown_as_blocks():
    active = np.array([[1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 1, 0], [1, 0, 1, 0]], dtype=bool)
    kinds = np.array(["x", "x", "y", "y"])
    assert telling_neurons(active, kinds, 2).tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]


def test_layers_outside_the_model_are_refused():
    with pytest.raises(UserError, match=r"\[9\]"):
        neuron_map(states(), layers=[0, 9])


def test_overlap_by_layer_tells_same_from_different_types():
    table = overlap_by_layer(states(8), PUBLISHED_TYPES)
    assert set(table["pair"]) == {"same type", "different type"} and len(table) == 8


def test_the_best_projector_is_bold_and_a_control_never():
    table = pd.DataFrame(
        [[1.0, 5.0], [2.0, np.nan], [9.0, 9.0]], index=["linear", "mlp", "random"], columns=["a", "b"]
    )
    figure = projector_table(table, ["random"])
    bold = {t.get_text() for t in figure.axes[0].texts if t.get_fontweight() == "bold"}
    assert bold == {"2.0", "5.0"} and "–" in texts(figure)
