"""Settings tried in an ordinary study: what the file says, which cells there are, what is kept and what is told of the rest."""

import pandas as pd
import pytest
from small_study import write_study

from prompttransfer.adaptations.artifacts import load_adaptation
from prompttransfer.study.contents import read_tried
from prompttransfer.study.engine.engine import run_study
from prompttransfer.study.engine.store import read_graph
from prompttransfer.study.engine.stores import open_store
from prompttransfer.study.plan.document import MistakesError
from prompttransfer.study.plan.estimate import estimate
from prompttransfer.study.plan.plan import make_plan
from prompttransfer.study.plan.reading import parse_study, read_study
from prompttransfer.study.results.report import write_study_report
from prompttransfer.study.tuning import plans_of
from prompttransfer.training.grids import most_steps
from prompttransfer.training.recipes import recipe_for_size

PLAIN = """
study: small
backbones: [near]
tasks: [films.yaml, songs.yaml, pairs.yaml]
data: data
limit-test: 12
recipe: {steps: 8, batch: 4, length: 3, evaluate-every: 2}
transfers:
  random-draws: 2
  initialisation: {sources: same-type, steps: 2, evaluate-every: 1}
indicators: {similarity: [C_average], neurons: [ON]}
"""
METHODS = """
methods:
  - {name: prompt, label: tuned prompt, tune: {lr: [0.001, 0.1, 0.3], length: [2, 4], halving: true}}
  - {name: prompt}
  - {name: lora, tune: {lr: [0.001, 0.03], rank: [1, 2]}}
"""
TUNED, LORA = "tuned prompt", "lora, tuned over lr and rank"
MINIMAL = "study: one\nbackbones: [microworld-roberta]\ntasks: [microworld-imdb, microworld-mnli]\n"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, backbone_folder):
    """The plan, the store and the report of the study, run once."""
    folder = tmp_path_factory.mktemp("tuned")
    plan, store = whole(folder, backbone_folder, PLAIN + METHODS)
    return plan, store, write_study_report(read_graph(store), store, folder / "report")


def whole(folder, backbone_folder, text):
    """The plan of a study and the store with all its cells, made in `folder`."""
    plan = make_plan(read_study(write_study(folder, backbone_folder, text)))
    store = open_store(folder / "run", new=True)
    local = {**plan.local, "device": "cpu"}
    assert [f.line for f in run_study(plan.graph, store, local=local, say=lambda line: None).failed] == []
    return plan, store


def cells(plan, begun):
    """Cells of prompts by how their label begins."""
    return [c for c in plan.graph.cells.values() if c.kind == "prompt" and c.label.startswith(begun)]


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ("{name: prompt, tune: {lr: [0.1]}}", "my.yaml:4: methods.0.tune.lr is"),
        ("{name: prompt, tune: {length: 5}}", "length is 5: give a list of two values or more"),
        ("{name: prompt, tune: {length: [5, 5]}}", "a value of length is given twice"),
        ("{name: prompt, tune: {halving: true}}", "nothing to try: give the values of an axis"),
        ("{name: prompt, tune: {lenght: [5, 20]}}", "unknown axis of a sweep of method prompt 'lenght': did you mean 'length'?"),
        ("{name: lora, rank: 2, tune: {rank: [1, 2]}}", "rank is given and swept over"),
        ("{name: lora, tune: {rank: [1, 0]}}", "lora: rank 0: it must be at least 1"),
        ("{name: prompt, tune: {steps: [many, 2]}}", "tune: steps=many: give a whole number"),
        ("{name: prompt, tune: {steps: [4, 8]}, recipe: {steps: 4}}", "steps is tuned: leave it out of `recipe`"),
        ("{name: prompt, tune: {weight-decay: [0, 1], weight_decay: [0, 2]}}", "weight_decay and weight-decay are one axis"),
        ("{name: prompt, tune: {warm-up: [2, 9], steps: [4, 12]}}", "warm-up 9: it is longer than the 4 steps"),
        ("{name: prompt, recipe: {warm-up: 9, steps: 4}}", "my.yaml:4: recipe: warm-up 9: it is longer than the 4 steps"),
        ("{name: lora, target_words: 1, target-words: 1}", "target_words and target-words are one setting"),
        ("{name: text, tune: {lr: [1, 2]}}", "method text has no rate to tune"),
        ("{name: p-tuning, tune: {shared: [false, true]}}", "'p-tuning:shared=True' shares what it learns among"),
        ("prompt, {name: lora, label: prompt}", "two methods are called 'prompt'"),
        ("{name: prompt, label: a b}, {name: lora, label: a-b}", "'a b' and 'a-b' are one name of files: give each a `label`"),
        ("{name: prompt, label: \u63d0\u793a}", "has no letter a to z and no digit"),
    ],
)  # fmt: skip
def test_a_mistake_in_what_is_tuned_is_told_by_its_line(methods, said):
    with pytest.raises(MistakesError) as caught:
        parse_study(f"{MINIMAL}methods: [{methods}]\n", "my.yaml")
    assert any(said in line for line in caught.value.lines), caught.value.lines


def test_one_method_in_two_lengths_needs_no_label():
    parse_study(f"{MINIMAL}methods: [{{name: prompt, length: 5}}, {{name: prompt, length: 20}}]\n", "my.yaml")


def test_what_is_not_tuned_has_the_cells_of_a_study_that_tunes_nothing(tuned, tmp_path, backbone_folder):
    plan, _, _ = tuned
    plain = make_plan(read_study(write_study(tmp_path, backbone_folder, PLAIN)))
    prompts = {name for name, cell in plain.graph.cells.items() if cell.kind != "figure"}
    assert prompts <= set(plan.graph.cells)


def test_all_steps_of_all_settings_are_counted(tuned):
    plan, _, _ = tuned
    (one, *_) = cells(plan, f"{TUNED} films")
    # six settings: all to 2 of 8 steps, three of them to 4, two of these to the end
    assert sorted(run["steps"] for run in plans_of(one)) == [2, 2, 2, 4, 8, 8]
    (lora, *_) = cells(plan, f"{LORA} films")
    assert [run["steps"] for run in plans_of(lora)] == [8] * 4
    costs = estimate(plan).kinds["prompt"]
    of_a_task = sum(
        sum(run["steps"] for run in plans_of(cell))
        for cell in plan.graph.cells.values()
        if cell.kind == "prompt"
    )
    assert costs.steps == of_a_task


def test_tokens_are_counted_by_the_length_that_each_setting_has(tuned):
    plan, store, _ = tuned
    (prompt, *_), (lora, *_) = cells(plan, f"{TUNED} films"), cells(plan, f"{LORA} films")
    plain = store.record(lora.id).cost
    of_a_row = plain["tokens"] / plain["rows"]  # a LoRA has no vectors in front of the text
    tried = read_tried(store.folder(prompt.id))
    expected = sum(run.steps * 4 * (of_a_row + int(run.setting["length"])) for run in tried)
    assert store.record(prompt.id).cost["tokens"] == pytest.approx(expected, abs=len(tried))


def test_steps_under_halving_are_those_of_the_longest_that_may_go_on():
    assert most_steps([(8, 2), (16, 2)], halving=True) == [2, 16]
    assert most_steps([(8, 2), (16, 2)], halving=False) == [8, 16]


@pytest.mark.parametrize("method", [TUNED, LORA])
def test_the_setting_that_is_best_on_validation_rows_is_kept(tuned, method):
    plan, store, _ = tuned
    for task in ("films", "songs", "pairs"):
        (cell, *_) = cells(plan, f"{method} {task}")
        tried, kept = read_tried(store.folder(cell.id)), load_adaptation(store.folder(cell.id) / "prompt")
        (chosen,) = (run for run in tried if run.chosen)
        assert chosen.validation == max(run.validation for run in tried if run.ended == "steps")
        assert float(chosen.setting["lr"]) == kept.origin.recipe["lr"]
        own = {axis: str(value) for axis, value in kept.method.settings().items()}
        assert all(own[axis] == value for axis, value in chosen.setting.items() if axis != "lr")


def test_halving_stops_losers(tuned):
    plan, store, _ = tuned
    (cell, *_) = cells(plan, f"{TUNED} films")
    ended = [run.ended for run in read_tried(store.folder(cell.id))]
    assert sorted(ended) == ["steps"] * 2 + ["stopped early"] * 4


def test_a_run_from_a_tuned_source_has_its_length_and_a_rate_of_its_own(tuned):
    plan, store, _ = tuned
    started = [cell for cell in cells(plan, TUNED) if "source" in cell.inputs]
    assert started
    for cell in started:
        kept = load_adaptation(store.folder(cell.id) / "prompt")
        source = load_adaptation(store.folder(cell.inputs["source"]) / "prompt")
        assert kept.length == source.length
        assert [set(run.setting) for run in read_tried(store.folder(cell.id))] == [{"lr"}] * 3


def test_each_optimizer_brings_its_usual_values_as_in_a_sweep_and_those_of_runs_from_a_source_too(
    tmp_path, backbone_folder
):
    (tmp_path / "tee").symlink_to(backbone_folder("t5", 16))
    text = PLAIN.partition("transfers:")[0].replace("near", "tee").replace(", pairs.yaml", "")
    text += "transfers: {zero-shot: false, initialisation: {steps: 2, evaluate-every: 1}}\n"
    text += "methods: [{name: prompt, tune: {optimizer: [adafactor, adamw]}}]\n"
    plan, store = whole(tmp_path, backbone_folder, text)
    usual = {name: recipe_for_size("t5", 16, None, optimizer=name) for name in ("adafactor", "adamw")}
    assert usual["adafactor"].weight_decay > usual["adamw"].weight_decay
    for cell in cells(plan, "prompt"):
        tried = read_tried(store.folder(cell.id))
        assert [run.setting["optimizer"] for run in tried] == ["adafactor", "adamw"]
        kept = load_adaptation(store.folder(cell.id) / "prompt").origin.recipe
        own = usual[kept["optimizer"]]
        assert (kept["lr"], kept["weight_decay"], kept["batch"]) == (own.lr, own.weight_decay, 4)


def test_an_optimizer_that_initialisation_gives_brings_its_usual_values(tmp_path, backbone_folder):
    (tmp_path / "tee").symlink_to(backbone_folder("t5", 16))
    text = PLAIN.partition("transfers:")[0].replace("near", "tee").replace(", pairs.yaml", "")
    text += "transfers: {zero-shot: false, initialisation: {optimizer: adamw}}\n"
    plan = make_plan(read_study(write_study(tmp_path, backbone_folder, text)))
    (own, *_), started = (
        cells(plan, "prompt films"),
        [c for c in cells(plan, "prompt") if "source" in c.inputs],
    )
    usual = recipe_for_size("t5", 16, None, optimizer="adamw")
    assert own.settings["recipe"]["optimizer"] == "adafactor" and started
    for cell in started:
        recipe = cell.settings["recipe"]
        assert (recipe["lr"], recipe["weight_decay"]) == (usual.lr, usual.weight_decay)


def test_what_needs_one_shape_is_impossible_and_all_else_is_there(tuned):
    plan, _, report = tuned
    said = [one.line for one in plan.graph.impossible if "one shape" in one.line]
    assert len(said) == 1 and said[0].startswith("C_average on near, tuned prompt")
    results = report.tables["results"]
    matrix = results[
        (results["method"] == TUNED) & (results["kind"] == "score") & (results["condition"] == "zero-shot")
    ]
    assert len(matrix) == 6
    assert set(results[results["kind"] == "indicator"]["method"]) >= {TUNED, LORA}


def test_what_was_tried_is_in_the_results_and_on_the_page(tuned):
    _, _, report = tuned
    folder = report.page.parent
    table = pd.read_csv(folder / "tuning.csv")
    own = table[(table["method"] == TUNED) & (table["condition"] == "own prompt")]
    assert len(own) == 3 * 6 and own.groupby("target")["chosen"].sum().tolist() == [1, 1, 1]
    assert {path.name for path in (folder / "tuning").iterdir()} >= {
        "near-tuned-prompt.png",
        "near-tuned-prompt.svg",
    }
    page = report.page.read_text()
    assert "Settings tried" in page and "length 2, lr 0.1" in page
    tried = report.tables["results"].query("condition == 'own prompt, tried' and method == @TUNED")
    assert len(tried) == 18 and "length 4, lr 0.3" in set(tried["by"])


def test_runs_from_a_source_that_try_nothing_of_their_own_are_no_earlier_version_s(tmp_path, backbone_folder):
    text = PLAIN.partition("indicators:")[0].replace(", pairs.yaml", "")
    text += "methods: [{name: prompt, tune: {length: [2, 4]}}]\n"
    plan, store = whole(tmp_path, backbone_folder, text)
    started = [cell for cell in cells(plan, "prompt") if "source" in cell.inputs]
    assert started and not any(read_tried(store.folder(cell.id)) for cell in started)
    notes = write_study_report(read_graph(store), store, tmp_path / "report").notes
    assert not [note for note in notes if "earlier version" in note]


def test_a_study_that_is_stopped_between_two_rungs_keeps_the_same_bit_for_bit(
    tuned, tmp_path, backbone_folder
):
    plan, store, _ = tuned
    only = PLAIN.partition("transfers:")[0] + "transfers: {zero-shot: false, random-draws: 2}\n"
    alone = make_plan(
        read_study(write_study(tmp_path, backbone_folder, only + "".join(METHODS.splitlines(True)[:3])))
    )
    again, local = open_store(tmp_path / "run", new=True), {**alone.local, "device": "cpu"}
    halted: list[str] = []

    def stop(line: str) -> None:
        if "settings go on" in line and not halted:
            halted.append(line)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(alone.graph, again, local=local, say=stop)
    assert not run_study(alone.graph, again, local=local, say=lambda line: None).failed
    trained = [cell for cell in alone.graph.cells.values() if cell.kind == "prompt"]
    assert halted and len(trained) == 3 and {cell.id for cell in trained} <= set(plan.graph.cells)
    for cell in trained:
        one, other = (load_adaptation(each.folder(cell.id) / "prompt") for each in (store, again))
        assert one.digest == other.digest and one.curve == other.curve
        assert read_tried(store.folder(cell.id)) == read_tried(again.folder(cell.id))
