"""Indicators of tensors and of labelled rows in a study: what each method has, and that the tables are those of `compare`."""

import pandas as pd
import pytest
from small_study import write_study

from prompttransfer.adaptations.artifacts import load_adaptation
from prompttransfer.study.engine.engine import run_study
from prompttransfer.study.engine.stores import open_store
from prompttransfer.study.plan.document import MistakesError
from prompttransfer.study.plan.estimate import COUNTERS, sides_of
from prompttransfer.study.plan.plan import make_plan
from prompttransfer.study.plan.reading import read_study
from prompttransfer.study.results.long_table import open_results
from prompttransfer.study.results.report import make_tables
from prompttransfer.transfers.compared import Compared
from prompttransfer.transfers.indicators import indicator_table

STUDY = """
study: small
backbones: [near]
tasks: [films.yaml, songs.yaml, pairs.yaml]
data: data
limit-test: 12
recipe: {steps: 2, batch: 4, length: 3, evaluate-every: 2}
methods: [prompt, 'lora:rank=2', 'p-tuning-v2:length=3', probe]
"""
SIMILARITY = "indicators: {similarity: [C_average, BA-cosine, keys-average], estimates: {measures: [LEEP, LogME, step-cosine, task2vec], rows: 8}}\n"  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory, backbone_folder):
    folder = tmp_path_factory.mktemp("estimates")
    plan = make_plan(read_study(write_study(folder, backbone_folder, STUDY + SIMILARITY)))
    store = open_store(folder / "run", new=True)
    found = run_study(plan.graph, store, local={**plan.local, "device": "cpu"}, say=lambda line: None)
    assert [failure.line for failure in found.failed] == []
    return plan, store


def test_each_method_has_the_indicators_that_it_can_have_and_the_rest_is_said(finished):
    plan, store = finished
    table = make_tables(open_results(plan.graph, store))["indicators"]
    rows = {"LEEP", "LogME", "step-cosine", "task2vec", "same-type"}
    assert {method: set(part["indicator"]) for method, part in table.groupby("method")} == {
        "prompt": rows | {"C_average"},
        "lora:rank=2": rows | {"BA-cosine"},
        "p-tuning-v2": rows | {"keys-average"},
        "probe": rows - {"LogME"},
    }
    assert ("LogME on near, probe", "it reads changes inside the model, and probe has none") in {
        (each.label, each.reason) for each in plan.graph.impossible
    }


def cells(plan, kind):
    return [cell for cell in plan.graph.cells.values() if kind in cell.settings]


def test_a_table_is_that_of_the_indicator_over_the_same_adaptations(finished):
    plan, store = finished
    cell = next(each for each in cells(plan, "similarity") if each.settings["similarity"] == "BA-cosine")
    loras = tuple(load_adaptation(store.folder(made) / "prompt") for made in cell.inputs.values())
    found = pd.read_csv(store.folder(cell.id) / "similarity_BA-cosine.csv", index_col=0)
    pd.testing.assert_frame_equal(found, indicator_table("BA-cosine", Compared(loras)), check_names=False)


def test_cells_that_share_a_pass_cost_it_once(finished):
    plan, _ = finished
    one = next(unit for unit in plan.graph.units if "estimate" in unit.cells[0].settings)
    names = [cell.settings["estimate"] for cell in one.cells]
    assert names == ["LEEP", "LogME", "step-cosine", "task2vec"]
    costs = [
        COUNTERS["indicator"](cell, one, sides_of(plan), plan.graph.cells).operations for cell in one.cells
    ]
    assert costs[0] > 0 == costs[1] and costs[2] > costs[0]


def test_a_list_of_measures_stands_for_the_usual_rows(tmp_path, backbone_folder):
    path = write_study(tmp_path, backbone_folder, STUDY + "indicators: {estimates: [LEEP, GBC]}\n")
    given = read_study(path).spec.indicators.estimates
    assert (given.measures, given.rows) == (["LEEP", "GBC"], 32)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("{estimates: [LEPP]}", "unknown indicator of labelled rows 'LEPP': did you mean 'LEEP'?"),
        ("{similarity: [BA-cosin]}", "unknown similarity metric 'BA-cosin': did you mean 'BA-cosine'?"),
        ("{estimates: {measures: [LEEP], rows: 0}}", "rows"),
    ],
)
def test_a_wrong_name_is_one_line(tmp_path, backbone_folder, given, words):
    with pytest.raises(MistakesError, match=words.replace("?", r"\?")):
        make_plan(read_study(write_study(tmp_path, backbone_folder, f"{STUDY}indicators: {given}\n")))
