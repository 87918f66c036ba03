"""Collecting a run's folder into the report: what is found, how seeds are merged, and one line for what cannot be."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from toys import noise

from analysis.neurons import pack
from projectors.public_report import CONDITIONS, Entry, to_csv
from prompttransfer.adaptations.adaptation import CurvePoint
from prompttransfer.adaptations.artifacts import save_adaptation
from prompttransfer.adaptations.prompts import soft_prompt
from prompttransfer.neurons.states import Captured, save_states
from prompttransfer.reports.page import collect, write_report
from prompttransfer.reports.run_folder import find_run, read_transfer
from prompttransfer.transfers.matrix import TransferMatrix
from prompttransfer.transfers.tuned_pairs import TunedPair, TunedScores
from tasks.errors import UserError

TASKS = ("sst2", "imdb", "mnli")
TYPES = {"sst2": "sentiment", "imdb": "sentiment", "mnli": "nli"}
SETTINGS = {"optimizer": "adamw", "lr": 0.03, "weight_decay": 0.0, "steps": 40, "batch": 8, "length": 3, "evaluate_every": 20, "patience": 0, "precision": "float32"}  # fmt: skip


def matrix(sources, tasks, values):
    return TransferMatrix(
        sources=(*sources, "no prompt"),
        source_tasks=(*tasks, "no prompt"),
        targets=TASKS,
        values=torch.tensor([*values, [0.5, 0.5, 0.33]], dtype=torch.float64),
        metrics=("accuracy",) * 3,
        rows=(100, 100, 90),
    )


def write_matrix(folder, made, **more):
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "backbone": "tiny", "revision": "sha256:1", "types": TYPES, "split": "test",
        "data": {t: {"source": "rows", "revision": "r"} for t in TASKS}, "raw": made.as_dict(), "tuned": [],
        "versions": {"torch": "2"}, **more,
    }  # fmt: skip
    (folder / "transfer.json").write_text(json.dumps(record))


def save_prompts(folder, seed=0, **fields):
    points = (CurvePoint(0, None, 0.5), CurvePoint(20, 1.0, 0.8))
    for index, task in enumerate(TASKS):
        prompt = soft_prompt(noise(3, 4, seed=index), task=task, backbone="tiny", seed=seed, start="random",
                        recipe=SETTINGS, curve=points, words={"negative": "bad"}, **fields)  # fmt: skip
        save_adaptation(prompt, folder / task)


VALUES = [[0.9, 0.8, 0.3], [0.7, 0.8, 0.4], [0.5, 0.5, 0.6]]


@pytest.fixture
def run(tmp_path):
    """A run in the demo's layout, with everything that the page can show."""
    write_matrix(tmp_path / "transfer", matrix(TASKS, TASKS, VALUES))
    save_prompts(tmp_path / "prompts")
    alike = pd.DataFrame([[1, 0.9, 0.1], [0.9, 1, 0.2], [0.1, 0.2, 1]], index=TASKS, columns=TASKS)
    (tmp_path / "compare").mkdir()
    alike.to_csv(tmp_path / "compare" / "similarity_E_concat.csv")
    alike.to_csv(tmp_path / "compare" / "similarity_ON_layers-0.csv")
    active = np.random.default_rng(0).random((3, 2, 40)) > 0.5
    save_states(
        Captured(pack(active, TASKS, "tiny"), TASKS, "x"), tmp_path / "neurons" / "states.safetensors"
    )
    (tmp_path / "neurons" / "masking.csv").write_text(
        "share,kind,draw,score\n0,specific,0,1\n0.5,specific,0,0.4\n"
    )
    return tmp_path


def test_the_page_has_the_matrix_indicators_pictures_facts_and_commands(run):
    data = collect(run)
    assert [view.name for view in data.views] == ["relative", "raw"]
    # imdb's prompt on sst2 over sst2's own, and the reference row beneath
    assert data.views[0].table.loc["imdb", "sst2"] == pytest.approx(0.7 / 0.9)
    assert data.views[0].table.loc["no prompt", "mnli"] == pytest.approx(0.33 / 0.6)
    assert data.types == TYPES and data.seeds is None
    assert {p.indicator for p in data.predictions} == {"E_concat", "same-type"}
    assert [p.title for p in data.pictures] == [
        "Map of prompts", "Learning curves", "Activated neurons", "Overlap by layer", "Without neurons"
    ]  # fmt: skip
    assert data.facts["recipe"].startswith("adamw lr 0.03, 40 steps of 8 rows, 3 vectors")
    assert data.facts["test rows"] == "sst2 100, imdb 100, mnli 90" and data.environment == {"torch": "2"}
    assert any("One seed" in note for note in data.notes)
    assert any(note.startswith("1 overlaps over some layers") for note in data.notes)


def test_students_stand_beside_their_controls_in_words(run):
    pair = {
        "source": "sst2", "target": "imdb", "seed": 0, "similarity": 0.02, "weight": 0.002, "chance": 0.5, "scratch": 0.7,
        "transferred": 0.8, "distilled": 0.6, "scratch_steps": 40, "transferred_steps": 40, "distilled_steps": 40,
        "source_steps": 40, "distilled_all_steps": 120,
    }  # fmt: skip
    other = {**pair, "seed": 1, "distilled": 0.9}
    write_matrix(run / "transfer", matrix(TASKS, TASKS, VALUES), distilled=[pair, other])
    (run / "distilled").mkdir()
    (run / "distilled" / "public-text.csv").write_text(
        to_csv([Entry("imdb", "carried", 0.6, None), Entry("mnli", "carried", 0.4, None), Entry("imdb", "random prompt", 0.5, 0.01)])
    )  # fmt: skip
    panda, post = collect(run).taught
    assert panda.table.loc["sst2 → imdb"].to_dict() == pytest.approx(
        {"chance": 0.5, "scratch": 0.7, "from source": 0.8, "distilled": 0.75, "weight": 0.002, "steps": 120}
    )
    assert (
        panda.words["scratch"].startswith("control: trained on the target alone") and "2 seeds" in panda.about
    )
    assert post.table.loc["carried"].to_dict() == pytest.approx({"imdb": 0.6, "mnli": 0.4, "mean": 0.5})
    assert post.controls == ("random prompt",) and post.words["random prompt"] in CONDITIONS.values()
    page = write_report(run).read_text()
    assert "From a teacher" in page and "random vectors at the target" in page and "<td>120</td>" in page
    (run / "distilled" / "public-text.csv").write_text("task,condition,score\nimdb,magic,0.5\n")
    with pytest.raises(UserError, match="condition 'magic' is none of `project distil`"):
        collect(run)


def test_prompts_of_the_model_that_a_projector_goes_to_are_left_out(run):
    before = collect(run)
    vectors = torch.zeros(3, 9)
    save_adaptation(
        soft_prompt(vectors=vectors, task="sst2", name="sst2", backbone="wide"), run / "other" / "sst2"
    )
    after = collect(run)
    assert after.facts == before.facts and after.commands == before.commands
    assert [p.title for p in after.pictures] == [p.title for p in before.pictures]


def test_the_commands_run_it_again(run):
    train, transfer, compare, *_, last = collect(run).commands
    assert train.startswith("prompttransfer train --task imdb mnli sst2 --backbone tiny --init random")
    assert "--steps 40" in train and train.endswith(f"--output {run / 'prompts'} --seeds 0")
    assert (
        transfer
        == f"prompttransfer transfer {run / 'prompts'} --to sst2 imdb mnli --output {run / 'transfer'}"
    )
    assert compare.endswith(f"--output {run / 'compare'}") and last == f"prompttransfer report {run}"


def test_the_commands_are_understood_by_the_command_line(run):
    """Each is parsed by the real command line: a renamed option would make the page lie."""
    import shlex

    import typer.main

    from prompttransfer.cli import app, spread

    for line in collect(run).commands:
        command = typer.main.get_command(app)
        arguments = spread(command, shlex.split(line)[1:])
        context = command.make_context("prompttransfer", arguments[:], resilient_parsing=False)
        name, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        inner.make_context(name, rest, parent=context)


def test_prompts_of_several_seeds_become_one_row_with_seeds_and_spread(tmp_path):
    sources = [f"{task}-s{seed}" for task in TASKS for seed in (0, 1)]
    tasks = [task for task in TASKS for _ in (0, 1)]
    values = [[0.9, 0.8, 0.3], [0.7, 0.6, 0.3], *VALUES[1:2] * 2, *VALUES[2:] * 2]
    write_matrix(tmp_path, matrix(sources, tasks, values))
    data = collect(tmp_path)
    raw = data.views[1].table
    assert list(raw.index) == ["sst2", "imdb", "mnli", "no prompt"]
    assert raw.loc["sst2", "imdb"] == pytest.approx(0.7)
    assert data.seeds.loc["sst2", "imdb"] == 2 and data.seeds.loc["no prompt", "imdb"] == 1
    assert data.spread.loc["sst2", "imdb"] == pytest.approx(0.2)
    assert not any("One seed" in note for note in data.notes)


def test_indicators_of_several_seeds_are_averaged_over_the_same_rows(tmp_path):
    sources = [f"{task}-s{seed}" for task in TASKS for seed in (0, 1)]
    write_matrix(
        tmp_path, matrix(sources, [t for t in TASKS for _ in (0, 1)], [v for v in VALUES for _ in (0, 1)])
    )
    square = pd.DataFrame(np.arange(36.0).reshape(6, 6), index=sources, columns=sources)
    square.to_csv(tmp_path / "similarity_x.csv")
    prediction = next(p for p in collect(tmp_path).predictions if p.indicator == "x")
    # for target sst2: imdb is the mean of rows 2, 3 and columns 0, 1, mnli that of rows 4, 5: mnli is chosen
    assert prediction.choices[0].chosen == ("mnli",)


def test_tuned_pairs_add_step_0_tuned_and_gain(tmp_path):
    pairs = [
        {"source": "imdb", "target": "sst2", "seed": seed, "step0_validation": 0.7, "test_from_source": score,
         "test_from_scratch": 0.8, "convergence_speedup": 2.0, "comparable_speedup": None}
        for seed, score in ((0, 0.9), (1, 0.8))
    ]  # fmt: skip
    write_matrix(tmp_path, matrix(TASKS, TASKS, VALUES), tuned=pairs)
    data = collect(tmp_path)
    views = {view.name: view.table for view in data.views}
    assert views["tuned"].loc["imdb", "sst2"] == pytest.approx(0.85)
    assert views["gain"].loc["imdb", "sst2"] == pytest.approx(0.05)
    assert views["step 0"].loc["imdb", "sst2"] == 0.7 and pd.isna(views["tuned"].loc["sst2", "imdb"])
    assert data.facts["seeds of tuned runs"] == "0, 1" and "--tune" in data.commands[0]


def test_a_tuned_pair_is_read_as_it_was_written_and_one_of_an_earlier_version_as_its_scores(tmp_path):
    whole = TunedPair("imdb", "sst2", 0, 0.7, 0.9, 0.8, 0.5, 40, 200, None, 10, 0.9, 0.8, 200)
    written = whole.as_dict()
    early = {key: value for key, value in written.items() if not key.startswith(("last", "chance", "best"))}
    write_matrix(tmp_path, matrix(TASKS, TASKS, VALUES), tuned=[written, early])
    first, second = read_transfer(tmp_path / "transfer.json").tuned
    assert first == whole == TunedPair.of(written)
    assert type(second) is TunedScores and (second.tuned, second.scratch) == (0.9, 0.8)
    write_matrix(tmp_path, matrix(TASKS, TASKS, VALUES), tuned=[{**written, "seed": "none"}])
    with pytest.raises(UserError, match=r"transfer.json is damaged: tuned.0.*seed"):
        read_transfer(tmp_path / "transfer.json")


def test_a_cell_that_cannot_be_stays_empty_with_its_reason(tmp_path):
    values = [[*row[:2], float("nan")] for row in VALUES]
    made = matrix(TASKS, TASKS, values)
    record = {**made.as_dict(), "impossible": {"mnli": "cannot write"}}
    write_matrix(tmp_path, made, raw=record)
    data = collect(tmp_path)
    assert data.impossible == {"mnli": "cannot write"} and pd.isna(data.views[0].table.loc["sst2", "mnli"])


def test_an_indicator_of_other_tasks_is_left_out_and_named(run):
    (run / "similarity_other.csv").write_text(",x,y\nx,1,0\ny,0,1\n")
    assert any(note.endswith("of the matrix on both sides: other.") for note in collect(run).notes)


def test_the_best_indicator_is_drawn_against_transfer(tmp_path):
    names = ["sst2", "imdb", "mnli", "snli", "qqp"]
    table = pd.DataFrame(np.random.default_rng(0).random((5, 5)), index=names, columns=names)
    table.to_csv(tmp_path / "transfer.csv")
    (1 - table).to_csv(tmp_path / "similarity_bad.csv")
    relative = table / np.diag(table)
    relative.to_csv(tmp_path / "similarity_good.csv")
    data = collect(tmp_path)
    assert data.pictures[0].title == "good against transfer" and data.predictions[0].mean == pytest.approx(1)


def test_a_bare_matrix_as_csv_is_enough(tmp_path):
    (tmp_path / "transfer.csv").write_text(matrix(TASKS, TASKS, VALUES).to_csv())
    data = collect(tmp_path)
    assert data.views[1].table.loc["mnli", "mnli"] == 0.6 and data.types["mnli"] == "nli"


def test_the_page_is_written_whole_and_holds_the_title(run):
    path = write_report(run, title="A <title>")
    text = path.read_text(encoding="utf-8")
    assert path == run / "report.html" and "A &lt;title&gt;" in text and text.rstrip().endswith("</html>")
    assert [p.name for p in run.iterdir() if p.name.startswith(".")] == []


def test_hidden_folders_are_no_part_of_the_run(run):
    save_prompts(run / ".work" / "prompts")
    assert len(find_run(run).prompts) == 3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: root.rmdir(), "is not a folder"),
        (lambda root: None, "no transfer matrix"),
        (lambda root: (root / "transfer.json").write_text("{"), "not JSON that can be read"),
        (
            lambda root: (root / "transfer.json").write_text('{"raw": {"sources": []}}'),
            "is damaged: raw.source_tasks",
        ),
        (
            lambda root: (root / "transfer.json").write_text(
                '{"raw": {"sources": ["a", "b"], "source_tasks": ["a", "b"], "targets": ["a", "a"], "values": [[1, 2], [3, 4]]}}'
            ),
            "target 'a' stands twice",
        ),
    ],
)
def test_a_bad_folder_is_one_line(tmp_path, make, said):
    root = tmp_path / "run"
    root.mkdir()
    make(root)
    with pytest.raises(UserError, match=said):
        collect(root)


def test_values_that_do_not_fit_their_labels_are_refused(tmp_path):
    record = matrix(TASKS, TASKS, VALUES).as_dict()
    write_matrix(tmp_path, matrix(TASKS, TASKS, VALUES), raw={**record, "values": record["values"][:-1]})
    with pytest.raises(UserError, match="4 sources x 3 targets"):
        read_transfer(tmp_path / "transfer.json")


def test_indicators_are_named_after_their_metric_and_by_place_where_two_share_it(run):
    (run / "recommend").mkdir()
    (run / "recommend" / "recommend.json").write_text("[]")
    for place in ("recommend/E_concat.csv", "neurons/similarity_x.csv", "compare/similarity_x.csv"):
        (run / place).write_text("")
    found = find_run(run).indicators
    assert set(found) == {
        "E_concat",
        "recommend: E_concat",
        "neurons/similarity_x.csv",
        "compare/similarity_x.csv",
    }


def test_two_matrices_need_a_choice(tmp_path):
    for name in ("a", "b"):
        write_matrix(tmp_path / name, matrix(TASKS, TASKS, VALUES))
    with pytest.raises(UserError, match="holds 2 transfer matrices"):
        find_run(tmp_path)


def test_a_prefix_of_all_names_is_left_out_of_the_page_but_not_of_the_commands(tmp_path):
    long = tuple(f"microworld-{name}" for name in ("imdb", "sst2", "mnli"))
    made = TransferMatrix(
        sources=(*long, "no prompt"),
        source_tasks=(*long, "no prompt"),
        targets=long,
        values=torch.tensor([*VALUES, [0.5, 0.5, 0.33]], dtype=torch.float64),
        metrics=("accuracy",) * 3,
        rows=(100,) * 3,
    )
    pair = TunedPair(long[0], long[1], 0, 0.7, 0.9, 0.8, 0.5, 40, 200, None, 10, 0.9, 0.8, 200)
    write_matrix(tmp_path / "transfer", made, types={}, data={}, tuned=[pair.as_dict()])
    alike = pd.DataFrame(np.eye(3), index=long, columns=long)
    alike.to_csv(tmp_path / "similarity_ON.csv")
    data = collect(tmp_path)
    assert list(data.views[0].table.index) == ["imdb", "sst2", "mnli", "no prompt"]
    assert {view.name: view.table for view in data.views}["tuned"].loc["imdb", "sst2"] == 0.9
    assert data.types == {"imdb": "sentiment", "sst2": "sentiment", "mnli": "nli"}
    assert {p.indicator for p in data.predictions} == {"ON", "same-type"}
    assert data.notes[0] == "'microworld-' is left out of all names on this page."
    assert data.facts["test rows"] == "100 of each target"
    assert "--to microworld-imdb microworld-sst2 microworld-mnli" in data.commands[0]
