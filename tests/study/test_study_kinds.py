"""Every kind of cell, really made: a tiny study is run, reported, and run again to the same tables, bit for bit."""

import html
import json
import os
import shlex
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from small_study import write_rows, write_study

from prompttransfer.adaptations.artifacts import load_adaptation
from prompttransfer.adaptations.bank import VectorBank
from prompttransfer.backbones.loading import load_backbone
from prompttransfer.reports.calls import Call
from prompttransfer.study.cell import Graph, Unit
from prompttransfer.study.engine.engine import run_study
from prompttransfer.study.engine.stores import open_store
from prompttransfer.study.kinds import KINDS
from prompttransfer.study.kinds.versions import VERSIONS
from prompttransfer.study.plan.checks import find_any_task
from prompttransfer.study.plan.lookup import load_rows
from prompttransfer.study.plan.plan import make_plan
from prompttransfer.study.plan.reading import read_study
from prompttransfer.study.results.long_table import COLUMNS, open_results
from prompttransfer.study.results.report import RUN_CALL, make_tables, write_study_report
from prompttransfer.study.results.run_folders import sides_scored, write_run_folder
from prompttransfer.study.results.statistics import COMPARISON_COLUMNS
from prompttransfer.transfers.in_context import Shown, with_in_context
from prompttransfer.transfers.zero_shot import Target, zero_shot
from tasks.errors import UserError
from tasks.loading import load_splits


def run(plan, folder, **local):
    store = open_store(folder, new=True)
    summary = run_study(
        plan.graph, store, local={**plan.local, "device": "cpu", **local}, say=lambda line: None
    )
    return store, summary


@pytest.fixture(scope="module")
def small(tmp_path_factory, backbone_folder):
    """The small study, run once: its plan, its store and its folder."""
    folder = tmp_path_factory.mktemp("study")
    plan = make_plan(read_study(write_study(folder, backbone_folder)))
    store, summary = run(plan, folder / "run")
    assert [failure.line for failure in summary.failed] == []
    assert summary.complete
    return plan, store, folder / "run"


@pytest.fixture(scope="module")
def tables(small):
    plan, store, _ = small
    return make_tables(open_results(plan.graph, store))


def only(table, **wanted):
    for column, value in wanted.items():
        table = table[table[column] == value]
    return table


def test_every_kind_has_a_version():
    assert KINDS.keys() == VERSIONS.keys()
    assert all(kind.version == VERSIONS[name] for name, kind in KINDS.items())


def test_prompts_are_artifacts_that_every_command_reads(small):
    plan, store, _ = small
    cell = next(cell for cell in plan.graph.cells.values() if cell.kind == "prompt")
    prompt = load_adaptation(store.folder(cell.id) / "prompt")
    assert (prompt.name, prompt.backbone, prompt.length, prompt.seed) == ("films-s0", "near", 3, 0)
    assert [point.step for point in prompt.curve] == [0, 2, 4]
    assert store.record(cell.id).cost["steps"] == 4


CALIBRATED = """
study: calibrated
backbones: [near]
tasks: [films.yaml, pairs.yaml]
data: data
limit-test: 12
recipe: {steps: 2, batch: 4, length: 3, evaluate-every: 2}
"""


def test_calibrated_scores_are_measures_and_a_matrix_of_their_own(tmp_path, backbone_folder):
    asked = make_plan(
        read_study(
            write_study(tmp_path, backbone_folder, CALIBRATED + "transfers: {calibrate: content-free}\n")
        )
    )
    plain = make_plan(read_study(write_study(tmp_path, backbone_folder, CALIBRATED)))
    scores = {kind: {c.id for c in plan.graph.cells.values() if c.kind == "score"} for kind, plan in (("asked", asked), ("plain", plain))}  # fmt: skip
    assert not scores["asked"] & scores["plain"]
    assert not [c for c in plain.graph.cells.values() if "calibrate" in c.settings]
    assert {c.id for c in plain.graph.cells.values() if c.kind == "prompt"} <= set(asked.graph.cells)
    store, summary = run(asked, tmp_path / "run")
    assert summary.complete
    results = open_results(asked.graph, store)
    table = make_tables(results)["results"]
    own = only(table, kind="score", measure="calibrated accuracy")
    assert sorted(own["condition"].unique()) == [
        "majority",
        "no prompt",
        "no prompt, calibrated",
        "own prompt",
        "random prompt",
        "zero-shot",
    ]
    raw = only(table, kind="score", measure="accuracy", condition="no prompt, calibrated")
    again = only(own, condition="no prompt, calibrated")
    assert raw["value"].tolist() == again["value"].tolist()
    folder = write_run_folder(results, sides_scored(results)[0], tmp_path / "shown")
    record = json.loads((folder / "transfer" / "transfer.json").read_text())
    assert record["calibrated"]["calibration"] == "content-free"
    assert (folder / "transfer" / "transfer_calibrated.csv").exists()


def test_rows_in_context_stand_among_the_references_and_each_seed_draws_others(tmp_path, backbone_folder):
    more = "seeds: [0, 1]\ntransfers: {calibrate: content-free"
    asked, plain = (
        make_plan(read_study(write_study(tmp_path, backbone_folder, f"{CALIBRATED}{more}{what}}}\n")))
        for what in (", in-context: 2", "")
    )
    new = [asked.graph.cells[name] for name in asked.graph.cells.keys() - plain.graph.cells.keys()]
    assert new and all("references" in cell.settings or cell.kind == "figure" for cell in new)
    store, summary = run(asked, tmp_path / "run")
    assert summary.complete
    results = open_results(asked.graph, store)
    table = only(make_tables(results)["results"], kind="score", condition="in-context")
    assert set(zip(table["target"], table["seed"], table["measure"], strict=True)) == {
        (task, seed, measure)
        for task in ("films", "pairs")
        for seed in (0, 1)
        for measure in ("accuracy", "calibrated accuracy")
    }
    backbone = load_backbone(str(tmp_path / "near"), device="cpu")
    task = find_any_task("films.yaml", tmp_path)
    target = Target(task, load_splits(task, data=tmp_path / "data", limit_test=12))
    trained = load_adaptation(store.folder(next(c.id for c in results.of_kind("prompt"))) / "prompt")
    matrix = zero_shot(backbone, [trained], [target])
    alone = with_in_context(backbone, matrix, [target], Shown(2, draws=2))
    drawn = only(table, target="films", measure="accuracy")["value"]
    assert drawn.mean() == pytest.approx(float(alone.values[alone.sources.index("in-context"), 0]))


def test_more_rows_in_context_than_there_are_are_refused_before_anything_runs(tmp_path, backbone_folder):
    study = write_study(tmp_path, backbone_folder, CALIBRATED + "transfers: {in-context: 99}\n")
    with pytest.raises(UserError, match=r"99 rows of films.yaml in context: it has \d+ training rows"):
        make_plan(read_study(study))


def test_no_prompt_calibrated_is_among_the_references_and_looks_at_the_training_rows(small):
    plan, store, _ = small
    cell = next(cell for cell in plan.graph.cells.values() if "references" in cell.settings)
    found = json.loads((store.folder(cell.id) / "score.json").read_text())["references"]
    assert list(found) == ["no prompt", "no prompt, calibrated", "random prompt", "majority"]
    assert cell.settings["unlabelled"]["learned"] == next(
        c.settings["rows"]
        for c in plan.graph.cells.values()
        if c.kind == "prompt" and c.settings["task"] == cell.settings["task"]
    )


def test_a_prompt_from_a_source_starts_at_the_sources_vectors(small):
    plan, store, _ = small
    runs = [cell for cell in plan.graph.cells.values() if cell.kind == "prompt" and "source" in cell.inputs]
    kinds = {plan.graph.cells[cell.inputs["source"]].kind for cell in runs}
    assert kinds == {"prompt", "carried"}
    for cell in runs:
        start = load_adaptation(store.folder(cell.inputs["source"]) / "prompt")
        prompt = load_adaptation(store.folder(cell.id) / "prompt")
        assert prompt.first_vectors.equal(start.vectors)
        assert prompt.origin.start == f"from:{start.name}"


def test_a_score_is_that_of_evaluating_the_prompt_alone(small):
    from prompttransfer.backbones.loading import load_backbone
    from prompttransfer.evaluation.encoding import encode_task
    from prompttransfer.evaluation.evaluate import evaluate_bank

    plan, store, _ = small
    near = plan.facts.backbones["near"]
    backbone = load_backbone(near.place, precision="fp32", device="cpu")
    task = near.tasks["songs.yaml"].task
    splits = load_rows(task, plan.file.folder / "data", None, 12)[0]
    encoded = encode_task(backbone, task, splits.test, reserved=3)
    cell = next(
        c for c in plan.graph.cells.values() if c.label == "score on songs of prompt films seed 1 on near"
    )
    prompt = load_adaptation(store.folder(cell.inputs["prompt"]) / "prompt")
    score = evaluate_bank(backbone, VectorBank(prompt.vectors[None]), encoded)[0]
    record = json.loads((store.folder(cell.id) / "score.json").read_text())
    assert (record["value"], record["chance"], record["rows"]) == (score.value, score.chance, 12)


def test_the_long_table_has_its_documented_columns_and_every_result(tables, small):
    plan = small[0]
    table = tables["results"]
    assert list(table.columns) == list(COLUMNS)
    cells = {
        cell.id
        for cell in plan.graph.cells.values()
        if cell.kind in ("prompt", "score", "tuned", "projector", "indicator")
    }
    assert set(table["cell"]) == cells
    assert not table[["cell", "kind", "backbone", "measure"]].eq("").any().any()


def test_speed_ups_follow_from_the_curves(tables, small):
    plan, store, _ = small
    for cell in (cell for cell in plan.graph.cells.values() if cell.kind == "tuned"):
        run, scratch = (
            load_adaptation(store.folder(cell.inputs[role]) / "prompt") for role in ("run", "scratch")
        )
        best, own = (max(point.score for point in prompt.curve) for prompt in (scratch, run))
        found = only(tables["results"], cell=cell.id).set_index("measure")
        value, bound = found["value"], found["bound"]
        steps, beside = value["steps to converge"], value["steps to converge from scratch"]
        learned = beside > 0 and own >= 0.99 * best
        expected = beside / max(steps, 1) if learned else float("nan")
        assert value["convergence speed-up"] == pytest.approx(expected, nan_ok=True)
        if beside > 0 and not learned:
            assert bound["convergence speed-up"] == "did not learn"
            assert bound["comparable speed-up"] == "never reached"
            assert found["high"]["comparable speed-up"] == beside / run.curve[-1].step


def test_a_projected_run_names_where_its_prompt_is_from(tables):
    runs = only(tables["results"], kind="tuned", condition="from projected")
    assert set(zip(runs["source_backbone"], runs["backbone"], strict=True)) == {("near", "far")}
    assert set(runs["relation"]) == {"own"}
    assert runs["by"].str.startswith("near to far, task on films").all()


def test_means_and_spread_over_seeds_are_those_of_the_values(tables):
    scores = only(
        tables["results"],
        kind="score",
        backbone="near",
        source="films",
        target="songs",
        condition="zero-shot",
    )
    found = only(
        tables["summary"],
        kind="score",
        backbone="near",
        source="films",
        target="songs",
        condition="zero-shot",
    ).iloc[0]
    first, second = scores["value"]
    assert (found["seeds"], found["rows"]) == (2, 12)
    assert found["mean"] == pytest.approx((first + second) / 2)
    assert found["spread"] == pytest.approx(abs(first - second) / 2**0.5)


def test_comparisons_say_what_they_are_over(tables):
    found = tables["comparisons"]
    assert list(found.columns) == list(COMPARISON_COLUMNS)
    assert set(found["family"]) == {"zero-shot", "TPT_task", "TPT_model", "projectors"}
    assert set(found["over"]) == {"tasks", "seeds"}
    assert (found["significant"] == "").all()  # two seeds and three tasks are too few for any interval
    assert found["note"].str.contains("at least 6 pairs are needed").all()
    assert found["note"].str.contains("cannot give a p below").all()
    # a speed-up that no run has comes from no pair
    assert (found["smallest_p"] == (2.0 ** (1 - found["pairs"])).clip(upper=1)).all()


def test_the_report_is_pages_and_tables(small, tmp_path):
    plan, store, _ = small
    written = write_study_report(plan.graph, store, tmp_path, title="A small study")
    names = {path.relative_to(tmp_path).as_posix() for path in written.files}
    assert names == {
        *("results.csv", "results.parquet"),
        *(
            f"report/{name}"
            for name in ("summary.csv", "comparisons.csv", "indicators.csv", "columns.csv", "report.html")
        ),
        *("report/near/report.html", "report/far/report.html"),
    }
    page = (tmp_path / "report/report.html").read_text()
    assert "A small study" in page and 'href="near/report.html"' in page and "TPT_model" in page
    assert "Across models" in (tmp_path / "report/far/report.html").read_text()
    again = f"prompttransfer study run {store.place}/study.yaml --output {store.place}"
    assert all(
        again in (tmp_path / f"report/{place}report.html").read_text() for place in ("", "near/", "far/")
    )
    assert written.missing == 0
    csv = pd.read_csv(tmp_path / "results.csv")
    parquet = pd.read_parquet(tmp_path / "results.parquet")
    assert len(csv) == len(parquet) and list(csv.columns) == list(parquet.columns)


def test_the_pages_of_a_study_say_how_it_was_run(small, tmp_path):
    plan, store, _ = small
    call = Call(verb="study run").with_options(file=Path("my study.yaml"), output=tmp_path, data=Path("rows"))
    store.write_text(RUN_CALL, call.model_dump_json())
    write_study_report(plan.graph, store, tmp_path)
    store.remove_text(RUN_CALL)
    said = f"study run {shlex.quote(os.path.abspath('my study.yaml'))} --output {tmp_path} --data {os.path.abspath('rows')}"
    pages = [
        html.unescape(path.read_text(encoding="utf-8")) for path in tmp_path.glob("report/**/report.html")
    ]
    assert len(pages) == 3 and all(said in page for page in pages)


def test_running_again_makes_nothing(small):
    plan, _, folder = small
    summary = run(plan, folder)[1]
    assert (summary.made, summary.there) == (0, len(plan.graph.cells))


def test_another_folder_gives_the_same_table_bit_for_bit(small, tables, tmp_path):
    plan, _, _ = small
    prompts = {
        cell.id
        for cell in plan.graph.cells.values()
        if cell.kind in ("prompt", "score") and "source" not in cell.inputs
    }
    first = [u for u in plan.graph if u.kind in ("prompt", "score", "states", "indicator")]
    units = [u for u in first if all(name in prompts for c in u.cells for name in c.inputs.values())]
    graph = Graph(tuple(units))
    store, summary = run(replace(plan, graph=graph), tmp_path)
    assert summary.complete
    mine = make_tables(open_results(graph, store))["results"]
    theirs = tables["results"][tables["results"]["cell"].isin(set(mine["cell"]))]
    columns = ["cell", "measure", "value", "seed", "rows"]
    assert mine[columns].to_csv() == theirs[columns].reset_index(drop=True).to_csv()


def test_an_unfinished_study_is_reported_as_such(small, tmp_path):
    plan, _, _ = small
    name, task = "near", "films"
    wanted = [
        u
        for u in plan.graph
        if u.kind == "prompt" and "from" not in u.label and f"seed 0 on {name}" in u.label
    ]
    scores = [
        u
        for u in plan.graph
        if u.kind == "score" and u.label.startswith(f"score on {task} of prompt {task} seed 0 on {name} and")
    ]
    part = Graph((wanted[0], scores[0]))
    store = run(replace(plan, graph=part), tmp_path)[0]
    written = write_study_report(plan.graph, store, tmp_path)
    assert written.missing == len(plan.graph.cells) - len(part.cells)
    assert "cells are not finished" in written.notes[0] and "One seed" in written.notes[1]
    assert (written.tables["comparisons"]["significant"] == "").all()


def test_a_study_without_scores_has_no_report(small, tmp_path):
    store = open_store(tmp_path, new=True)
    with pytest.raises(UserError, match="no score of this study is finished"):
        write_study_report(small[0].graph, store, tmp_path)


def test_rows_that_changed_since_the_plan_are_refused(tmp_path, backbone_folder):
    path = write_study(tmp_path, backbone_folder)
    plan = make_plan(read_study(path))
    write_rows(tmp_path, "films", seed=3)
    load_rows.cache_clear()
    unit = next(unit for unit in plan.graph if unit.kind == "prompt")
    summary = run(replace(plan, graph=Graph((Unit(unit.cells[:1]),))), tmp_path / "run")[1]
    assert "the rows of task 'films' are not those that the study was planned with" in summary.failed[0].line


def test_weights_that_changed_since_the_plan_are_refused(tmp_path, backbone_folder):
    plan = make_plan(read_study(write_study(tmp_path, backbone_folder)))
    unit = next(unit for unit in plan.graph if unit.kind == "prompt")
    places = {**plan.local["backbones"], "near": str(backbone_folder("bert", 16))}
    summary = run(replace(plan, graph=Graph((Unit(unit.cells[:1]),))), tmp_path / "run", backbones=places)[1]
    assert "backbone near is at revision" in summary.failed[0].line


def test_a_prompt_that_does_not_stay_finite_fails_alone(tmp_path, backbone_folder):
    from small_study import TEXT

    text = TEXT[: TEXT.index("transfers:")].replace("length: 3", "length: 3, lr: 1e29")
    plan = make_plan(read_study(write_study(tmp_path, backbone_folder, text)))
    summary = run(plan, tmp_path / "run")[1]
    assert summary.failed and all("not finite" in failure.line for failure in summary.failed)
