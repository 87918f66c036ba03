"""Figures: what is written in them, that they are the same every time, and what they refuse."""

import numpy as np
import pandas as pd
import pytest

from analysis.figures import (
    coordinates,
    figure_bytes,
    heatmap,
    layer_curves,
    learned,
    learning_curves,
    masking_curves,
    neuron_map,
    overlap_by_layer,
    projector_table,
    prompt_map,
    scatter,
    sweep_curves,
)
from analysis.figures.neuron_map import telling_neurons
from analysis.figures.prompt_map import medoid
from analysis.figures.scatter import fit_by_tasks, within_targets
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


def test_the_fit_is_of_the_order_within_targets_whatever_their_level():
    """Every target on a line of slope 2 with a level of its own: the band has no width."""
    x = np.random.default_rng(0).random((6, 6))
    level = np.array([5.0, -3, 8, 0, 1, -9])
    grid = np.array([-1.0, 1.0])
    line, low, high = fit_by_tasks(x, 2 * x + level, ~np.eye(6, dtype=bool), grid, draws=50)
    np.testing.assert_allclose([line, low, high], [[-2, 2]] * 3, atol=1e-6)


def test_line_and_title_of_a_scatter_say_the_same_where_pooling_would_say_the_opposite():
    """Within each target transfer falls with the indicator; targets with a high level have high values of both."""
    names = list("abcdef")
    within = np.array([[(s - t) % 6 for t in range(6)] for s in range(6)], dtype=float)
    level = 100.0 * np.arange(6)
    figure = scatter(
        pd.DataFrame(level - within, names, names), pd.DataFrame(level + within, names, names), draws=50
    )
    line = figure.axes[0].lines[0]
    assert figure.axes[0].get_title(loc="left").startswith("within targets: mean Spearman -1.00")
    assert np.polyfit(line.get_xdata(), line.get_ydata(), 1)[0] == pytest.approx(-1)


def test_a_target_less_its_mean_over_usable_sources():
    usable = np.array([[False, True], [True, False], [True, True]])
    np.testing.assert_allclose(
        within_targets(np.array([[9, 1], [2, 9], [4, 5.0]]), usable), [[0, -2], [-1, 0], [1, 2]]
    )


LARGE = 400


def large(rows=LARGE, columns=LARGE):
    values = np.random.default_rng(0).random((rows, columns))
    return pd.DataFrame(
        values, index=[f"s{i}" for i in range(rows)], columns=[f"s{i}" for i in range(columns)]
    )


@pytest.mark.parametrize("shape", [(LARGE, LARGE), (LARGE, 3), (3, LARGE)])
def test_a_large_heatmap_is_one_image_of_bounded_size_without_names_on_its_long_sides(shape):
    figure = heatmap(large(*shape), {f"s{i}": "nli" if i % 2 else "qa" for i in range(LARGE)})
    assert max(figure.get_size_inches()) < 14 and len(figure.axes[0].images) == 1
    assert not figure.axes[0].collections and sum(t.startswith("s1") for t in texts(figure)) <= 1
    assert len(figure_bytes(figure, "svg")) < 2_000_000


def test_more_cells_than_pixels_are_averaged_in_blocks():
    table = pd.DataFrame(np.repeat([[1.0, 0.0]], 3600, axis=0), columns=["a", "b"])
    table.iloc[::2, 1] = np.nan
    table.iloc[1::2, 0] = 0.0
    image = heatmap(table).axes[0].images[0].get_array()
    assert image.shape == (1800, 2) and set(image[:, 0]) == {0.5} and set(image[:, 1]) == {0.0}


def test_a_large_heatmap_in_order_of_clusters_has_no_tree():
    figure = heatmap(large(), cluster=True)
    assert len(figure.axes) == 2  # cells and colour bar


def map_of(tasks, seeds):
    places = np.random.default_rng(0).random((tasks * seeds, 2))
    return pd.DataFrame(places, columns=["x", "y"]).assign(
        task=[f"t{i}" for i in range(tasks) for _ in range(seeds)], type="nli"
    )


def test_a_task_is_named_at_one_of_its_points_and_its_seeds_have_one_mark():
    table = map_of(4, 3)
    figure = prompt_map(table)
    named = {t.get_text(): t.xy for t in figure.axes[0].texts}
    for task, group in table.groupby("task"):
        assert named[task] in set(map(tuple, group[["x", "y"]].to_numpy()))
    assert len([c for c in figure.axes[0].collections if len(c.get_offsets()) == 12]) == 1


def test_the_medoid_is_the_point_nearest_to_all_others():
    assert medoid(np.array([[0.0, 0], [1, 0], [1.2, 0], [9, 0]])) == 1


def test_a_map_of_thousands_of_prompts_names_none_and_stays_small():
    figure = prompt_map(map_of(3000, 1))
    assert "t1" not in texts(figure) and len(figure_bytes(figure, "svg")) < 1_000_000


def test_prompts_of_several_seeds_are_placed_by_what_training_added():
    vectors = np.array([[1.0, 2], [11, 12]])
    starts = [np.array([0.0, 0]), np.array([10.0, 10])]
    np.testing.assert_array_equal(learned(vectors, starts, [0, 1]), [[1, 2], [1, 2]])
    assert learned(vectors, starts, [0, 0]) is None and learned(vectors, [starts[0], None], [0, 1]) is None


def test_pca_of_few_long_vectors_is_that_of_the_singular_values():
    vectors = np.random.default_rng(0).normal(size=(5, 40))
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    left, values, _ = np.linalg.svd(units - units.mean(0), full_matrices=False)
    np.testing.assert_allclose(
        np.abs(coordinates(vectors, "pca")), np.abs(left[:, :2] * values[:2]), atol=1e-9
    )


def test_runs_of_two_recipes_are_two_lines_and_the_legend_says_which():
    table = pd.concat([curves().assign(recipe=""), curves().assign(recipe="lr 0.1", score=0.2)])
    figure = learning_curves(table)
    named = [t.get_text() for t in figure.legends[0].get_texts()]
    assert named == [
        "from scratch (2 seeds)",
        "from scratch, lr 0.1 (2 seeds)",
        "from mnli (2 seeds)",
        "from mnli, lr 0.1 (2 seeds)",
    ]
    means = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_allclose(means["from scratch (2 seeds)"], [0.5, 0.6, 0.7])
    np.testing.assert_allclose(means["from scratch, lr 0.1 (2 seeds)"], 0.2)


def test_two_runs_that_nothing_tells_apart_are_never_averaged():
    with pytest.raises(UserError, match="two scores at step 0: tell the runs apart by a column recipe"):
        learning_curves(pd.concat([curves(), curves().assign(score=0.1)]))


def test_curves_of_very_many_tasks_and_sources_are_bounded():
    rows = [(f"t{i}", f"s{j}", 0, step, 0.5) for i in range(60) for j in range(30) for step in (0, 1)]
    figure = learning_curves(pd.DataFrame(rows, columns=["task", "start", "seed", "step", "score"]))
    assert len(figure.axes) == 48 and "48 of 60 tasks" in figure.get_suptitle()
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["from 30 other prompts (30 runs)"]


def test_a_projector_table_that_no_figure_holds_is_refused():
    with pytest.raises(UserError, match="100 rows"):
        projector_table(large(100, 2))


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


def test_curves_of_more_tasks_than_a_figure_shows_say_how_many_are_shown():
    rows = [
        {"panel": f"task {task}", "line": "lr 0.1", "seed": 0, "step": step, "score": 0.5, "stopped": False, "chosen": task > 3}
        for task in range(30)
        for step in (0, 10)
    ]  # fmt: skip
    figure = sweep_curves(pd.DataFrame(rows), title="small: prompt")
    assert "small: prompt (24 of 30 panels)" in [text.get_text() for text in figure.texts]
    assert len(figure.axes) == 24 and figure.axes[0].get_title(loc="left") == "task 4"
