"""`compare`, `plot` and `correlate`: what they write, and one clear line for what cannot be."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner

from prompttransfer.adaptations.adaptation import CurvePoint
from prompttransfer.adaptations.prompts import soft_prompt
from prompttransfer.cli.common import shortened
from prompttransfer.cli.compare import compare, nearest_pairs
from prompttransfer.cli.correlate import correlate
from prompttransfer.cli.plot import meaning_of, plot_app, projector_scores, told_apart
from prompttransfer.cli.tables import read_matrix, task_types
from prompttransfer.reports.pictures import curve_table
from tasks.errors import UserError

TASKS = ["sst2", "imdb", "mnli", "snli", "qqp"]
app = typer.Typer()
app.command()(compare)
app.command()(correlate)
app.add_typer(plot_app, name="plot")


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def saved(folder, task, length=4, width=6, seed=0, **fields):
    from prompttransfer.adaptations.artifacts import save_adaptation

    vectors = torch.randn(length, width, generator=torch.Generator().manual_seed(seed))
    return save_adaptation(soft_prompt(vectors=vectors, task=task, backbone="tiny", **fields), folder / task)


@pytest.fixture
def matrices(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("transfer", "similarity_ON"):
        pd.DataFrame(rng.random((5, 5)), index=TASKS, columns=TASKS).to_csv(tmp_path / f"{name}.csv")
    return tmp_path


def test_compare_writes_one_csv_a_metric_and_says_where(tmp_path):
    prompts = [saved(tmp_path, task, seed=i) for i, task in enumerate(TASKS[:3])]
    output = run("compare", *prompts, "--output", tmp_path / "out")
    for metric in ("E_concat", "E_average", "C_concat", "C_average"):
        path = tmp_path / "out" / f"similarity_{metric}.csv"
        assert path.name in output.replace("\n", "")
        assert list(read_matrix(path).index) == TASKS[:3]


def test_compare_of_a_file_equals_compare_of_folders(tmp_path):
    vectors = {
        t: torch.randn(4, 6, generator=torch.Generator().manual_seed(i)) for i, t in enumerate(TASKS[:3])
    }
    save_file(vectors, tmp_path / "all.safetensors")
    folders = [saved(tmp_path, task, seed=i) for i, task in enumerate(TASKS[:3])]
    run("compare", tmp_path / "all.safetensors", "--output", tmp_path / "file")
    run("compare", *folders, "--output", tmp_path / "folders")
    one, two = (read_matrix(tmp_path / side / "similarity_C_concat.csv") for side in ("file", "folders"))
    pd.testing.assert_frame_equal(one.loc[two.index, two.columns], two)


def test_compare_speaks_json(tmp_path):
    prompts = [saved(tmp_path, task, seed=i) for i, task in enumerate(TASKS[:2])]
    record = json.loads(
        run("compare", *prompts, "--metric", "C_concat", "--output", tmp_path / "out", "--json")
    )
    assert record["prompts"] == TASKS[:2] and record["metrics"]["C_concat"][0][0] == pytest.approx(1)


def test_prompts_of_different_shape_are_named_with_what_can_be_compared(tmp_path):
    prompts = [saved(tmp_path, "sst2"), saved(tmp_path, "imdb"), saved(tmp_path, "mnli", length=5)]
    with pytest.raises(UserError, match=r"sst2, imdb \(tiny, 4 x 6\); mnli \(tiny, 5 x 6\)"):
        run("compare", *prompts, "--output", tmp_path / "out")


def test_two_prompts_of_one_name_are_told_apart_by_their_folders(tmp_path):
    prompts = [saved(tmp_path / side, "sst2", seed=i) for i, side in enumerate(("one", "two"))]
    record = json.loads(run("compare", *prompts, "--output", tmp_path / "out", "--json"))
    assert record["prompts"] == ["sst2@one", "sst2@two"]
    assert task_types(record["prompts"]) == {"sst2@one": "sentiment", "sst2@two": "sentiment"}


def test_a_file_cut_short_is_named(tmp_path):
    save_file({"a": torch.ones(2, 2)}, tmp_path / "p.safetensors")
    (tmp_path / "p.safetensors").write_bytes((tmp_path / "p.safetensors").read_bytes()[:-3])
    with pytest.raises(UserError, match=r"p\.safetensors is damaged or cut short"):
        run("compare", tmp_path / "p.safetensors")


def test_heatmap_writes_png_and_svg_beside_each_other_and_the_same_again(matrices):
    run("plot", "heatmap", matrices / "transfer.csv", "--output", matrices / "h.png", "--title", "x")
    first = [(matrices / f"h.{kind}").read_bytes() for kind in ("png", "svg")]
    run("plot", "heatmap", matrices / "transfer.csv", "--output", matrices / "h.png", "--title", "x")
    assert first == [(matrices / f"h.{kind}").read_bytes() for kind in ("png", "svg")]


def test_heatmap_takes_types_for_unknown_names_and_leaves_tasks_out(matrices):
    run(
        "plot", "heatmap", matrices / "transfer.csv", "--types", "qqp=own", "--leave-out", "imdb", "--cluster"
    )
    assert (matrices / "transfer.svg").exists()


def test_a_picture_of_another_format_is_refused(matrices):
    with pytest.raises(UserError, match="png, svg, pdf"):
        run("plot", "heatmap", matrices / "transfer.csv", "--output", matrices / "h.gif")


def test_map_scatter_and_curves_are_drawn_from_files(matrices):
    points = (CurvePoint(0, None, 0.5), CurvePoint(10, 1.0, 0.8))
    folders = [
        saved(matrices, t, seed=i, curve=points, start="from:a/imdb" if i else "random")
        for i, t in enumerate(TASKS)
    ]
    run("plot", "map", *folders, "--output", matrices / "map.png")
    run(
        "plot",
        "scatter",
        "--transfer",
        matrices / "transfer.csv",
        "--indicator",
        matrices / "similarity_ON.csv",
    )
    run("plot", "curves", *folders, "--output", matrices / "curves.png")
    for name in ("map", "scatter_ON", "curves"):
        assert (matrices / f"{name}.png").stat().st_size > 1000


def test_masking_and_projector_figures_are_drawn_from_files(matrices):
    (matrices / "mask.csv").write_text(
        "share,kind,draw,score\n0,specific,0,1\n0.5,specific,0,0.4\n0,random,0,1\n0.5,random,0,0.9\n"
    )
    (matrices / "proj.csv").write_text(",a,b\nlinear,1,2\nrandom prompt,0.5,\n")
    run("plot", "masking", matrices / "mask.csv")
    run("plot", "projectors", matrices / "proj.csv")
    assert (matrices / "mask.svg").exists() and (matrices / "proj.png").exists()


def test_correlate_writes_tables_and_prints_every_indicator(matrices):
    output = run("correlate", "--transfer", matrices / "transfer.csv", "--indicator", matrices / "similarity_ON.csv",
                 "--draws", 50, "--output", matrices / "out")  # fmt: skip
    assert "ON" in output and "same-type" in output and "regret" in output
    assert list(read_matrix(matrices / "out" / "summary.csv").index)
    assert list(read_matrix(matrices / "out" / "per_target.csv").columns) == TASKS


def test_correlate_gives_no_p_value_from_one_seed_and_says_so(matrices):
    arguments = ["correlate", "--transfer", matrices / "transfer.csv", "--indicator", matrices / "similarity_ON.csv",
                 "--draws", 50]  # fmt: skip
    one, three = (json.loads(run(*arguments, "--json", *more)) for more in ((), ("--seeds", 3)))
    assert (one["seeds"], three["seeds"]) == (1, 3)
    for record, there in ((one, False), (three, True)):
        found = next(a for a in record["indicators"] if a["indicator"] == "ON")
        assert found["interval"]["low"] is not None
        p_values = [found[name]["p_value"] for name in ("permutation_test", "permutation_test_within_types", "minus_same_type")]  # fmt: skip
        assert [p is not None for p in p_values] == [there] * 3
    assert "one seed: no p value is given" in run(*arguments)
    assert "one-sided" in run(*arguments)


def test_correlate_counts_the_seeds_that_rows_are_named_after(matrices):
    table = read_matrix(matrices / "transfer.csv").loc[TASKS]
    table.index = [f"{task}-s0" for task in TASKS]
    both = pd.concat([table, table.rename(index=lambda name: name.replace("-s0", "-s1"))])
    both.to_csv(matrices / "seeds.csv")
    record = json.loads(run("correlate", "--transfer", matrices / "seeds.csv", "--indicator",
                            matrices / "similarity_ON.csv", "--draws", 50, "--json"))  # fmt: skip
    assert record["seeds"] == 2
    assert record["indicators"][0]["permutation_test"]["p_value"] is not None
    assert any(
        "cannot come out significant" in note for note in record["notes"]
    )  # sst2, imdb and mnli, snli: 4 orders


def test_correlate_says_why_a_number_is_missing(matrices):
    (matrices / "flat.csv").write_text(",sst2,imdb,mnli\nsst2,1,1,1\nimdb,1,1,1\nmnli,1,1,1\n")
    arguments = [
        "correlate",
        "--transfer",
        matrices / "transfer.csv",
        "--indicator",
        matrices / "flat.csv",
        "--common",
    ]
    record = json.loads(run(*arguments, "--json"))
    flat = next(a for a in record["indicators"] if a["indicator"] == "flat")
    assert flat["mean_spearman"] is None and "3 tasks" in flat["interval"]["reason"]


def test_correlate_names_the_labels_that_do_not_match(matrices):
    (matrices / "other.csv").write_text(",sst2,x\nsst2,1,1\nx,1,1\n")
    with pytest.raises(
        UserError, match=r"only in the transfer table: imdb, mnli, snli, qqp; only in the indicator: x"
    ):
        run("correlate", "--transfer", matrices / "transfer.csv", "--indicator", matrices / "other.csv")


def test_types_come_from_the_longest_task_name_that_a_label_begins_with():
    types = task_types(["sst2-seed1", "microworld-imdb", "IMDB", "nothing known"], ["own=mine"])
    assert types == {
        "sst2-seed1": "sentiment",
        "microworld-imdb": "sentiment",
        "IMDB": "sentiment",
        "own": "mine",
    }


def test_a_types_line_that_is_no_pair_is_named(tmp_path):
    (tmp_path / "types.txt").write_text("a=b\nbad line\n")
    with pytest.raises(UserError, match="line 2"):
        task_types(["a"], [str(tmp_path / "types.txt")])


def test_the_nearest_pairs_of_very_many_prompts_are_printed_and_not_all_of_them(tmp_path):
    vectors = {f"p{i:03}": torch.randn(2, 3, generator=torch.Generator().manual_seed(i)) for i in range(120)}
    vectors["twin"] = vectors["p007"] * 2
    save_file(vectors, tmp_path / "all.safetensors")
    output = run(
        "compare", tmp_path / "all.safetensors", "--metric", "C_concat", "--output", tmp_path / "out"
    )
    assert "121 prompts, 7,260 pairs" in output and len(output) < 1500
    assert next(line for line in output.splitlines() if line.startswith("C_concat")).split() == [
        "C_concat",
        "p007",
        "twin",
        "1.0000",
    ]
    assert len(read_matrix(tmp_path / "out" / "similarity_C_concat.csv")) == 121


def test_the_nearest_pairs_are_those_with_the_largest_values_each_once():
    table = pd.DataFrame(
        [[1, 0.2, 0.9], [0.2, 1, 0.4], [0.9, 0.4, 1]], index=list("abc"), columns=list("abc")
    )
    assert nearest_pairs(table, 2) == [("a", "c", 0.9), ("b", "c", 0.4)]
    assert nearest_pairs(table.iloc[:1, :1], 2) == []


def test_of_a_large_table_the_beginning_and_the_end_are_printed():
    rows = [[f"row {i}", *map(str, range(50))] for i in range(500)]
    columns, shown, said = shortened(["", *map(str, range(50))], rows, 1)
    assert len(columns) == 25 and len(shown) == 61 and shown[0][0] == "row 0" and shown[-1][0] == "row 499"
    assert said.startswith("500 rows and 50 columns; a part of them is shown")
    assert shortened(["", "a"], [["row", "1"]], 1) == (["", "a"], [["row", "1"]], "")


SETTINGS = {"optimizer": "adamw", "lr": 0.1, "steps": 10, "bank": 3}
POINTS = (CurvePoint(0, None, 0.5), CurvePoint(10, 1.0, 0.8))


def prompt_of(task="sst2", seed=0, curve=POINTS, start="random", **settings):
    return soft_prompt(torch.ones(1, 2), task=task, backbone="tiny", seed=seed, curve=curve, start=start,
                  recipe={**SETTINGS, **settings})  # fmt: skip


def test_curves_of_prompts_are_grouped_by_what_their_recipes_differ_in():
    table = curve_table(
        [prompt_of(seed=0), prompt_of(seed=1), prompt_of(seed=0, lr=0.2), prompt_of("imdb", lr=0.3, bank=1)]
    )
    assert list(table["recipe"]) == ["lr 0.1"] * 4 + ["lr 0.2"] * 2 + ["lr 0.3"] * 2
    assert set(curve_table([prompt_of(), prompt_of("imdb", lr=0.3)])["recipe"]) == {""}  # no task has two
    assert len(curve_table([prompt_of(), prompt_of()])) == 2  # the same run twice
    other = (CurvePoint(0, None, 0.1),)
    assert list(curve_table([prompt_of(), prompt_of(curve=other)])["recipe"]) == ["", "", "run 2 (sst2)"]


def test_the_figure_of_projectors_is_drawn_from_what_project_fit_writes(tmp_path):
    (tmp_path / "report.csv").write_text(
        "task,group,condition,seed,value\na,fitted,own prompt,0,0.9\na,fitted,projected,0,0.5\na,fitted,projected,1,0.7\n"
        'a,fitted,random source,0,0.4\nb,"unseen, fitted type",projected,0,0.3\n'
    )
    table, controls = projector_scores([tmp_path / "report.csv"])
    assert table.loc["projected", "fitted"] == pytest.approx(0.6) and controls == [
        "own prompt",
        "random source",
    ]
    assert list(table.columns) == ["fitted", "unseen, fitted type"]
    run("plot", "projectors", tmp_path / "report.csv", "--output", tmp_path / "p.png")
    assert (tmp_path / "p.svg").exists()


def test_a_colour_bar_says_what_it_measures_as_far_as_the_files_tell(tmp_path):
    raw = {
        "sources": ["a"],
        "source_tasks": ["a"],
        "targets": ["a"],
        "values": [[1]],
        "metrics": ["accuracy"],
    }
    (tmp_path / "transfer.json").write_text(json.dumps({"raw": raw}))
    assert meaning_of(tmp_path / "transfer.csv") == "accuracy, raw"
    assert meaning_of(tmp_path / "transfer_relative.csv") == "accuracy, relative to own prompt"
    assert meaning_of(tmp_path / "similarity_E_concat.csv") == "E_concat"
    assert meaning_of(tmp_path / "elsewhere" / "transfer.csv") == "score, raw"


def test_a_scatter_of_several_seeds_is_of_their_means(tmp_path):
    names = [f"{task}-s{seed}" for task in TASKS for seed in (0, 1)]
    values = np.random.default_rng(0).random((10, 10))
    pd.DataFrame(values[:, :5], index=names, columns=TASKS).to_csv(tmp_path / "transfer.csv")
    pd.DataFrame(values, index=names, columns=names).to_csv(tmp_path / "similarity_ON.csv")
    run(
        "plot",
        "scatter",
        "--transfer",
        tmp_path / "transfer.csv",
        "--indicator",
        tmp_path / "similarity_ON.csv",
    )
    assert (tmp_path / "scatter_ON.png").stat().st_size > 1000


def test_the_figure_of_projectors_is_drawn_from_their_folders(tmp_path):
    from projectors.architectures import Architecture, Shape, build
    from projectors.artifacts import save_projector
    from projectors.projector import Projector, Side

    shape, architecture = Shape(2, 3, 2, 4), Architecture("linear")
    entry = {"mean": 0.5, "spread": 0.0, "seeds": 1, "tasks": 2}
    made = Projector(
        build(architecture, shape), Side("small", "", "masked-lm", "prompt-first", 2, 3),
        Side("wide", "", "masked-lm", "prompt-first", 2, 4), method="task", architecture=architecture,
        scores={"fitted": {"projected": entry, "no prompt": {**entry, "mean": 0.25}}},
    )  # fmt: skip
    for name in ("one", "two"):
        save_projector(made, tmp_path / name)
    table, controls = projector_scores([tmp_path / "one", tmp_path / "two"])
    assert list(table.columns) == ["one: fitted", "two: fitted"] and controls == ["no prompt"]
    assert table.loc["projected", "two: fitted"] == 0.5


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["prompt.csv", "lora.csv"], ["prompt", "lora"]),
        (["a/transfer.csv"], ["transfer"]),
        (["a/transfer.csv", "b/transfer.csv"], ["a/transfer", "b/transfer"]),
        (["a/out/transfer.csv", "b/out/transfer.csv"], ["a/out/transfer", "b/out/transfer"]),
    ],
)
def test_heatmaps_beside_one_another_are_called_by_what_tells_them_apart(files, names):
    assert told_apart([Path(file) for file in files]) == names
