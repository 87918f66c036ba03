"""Tracking: what TensorBoard, MLflow and CSV files are told about cells is what the cells hold."""

import json
import sys

import pytest
from small_study import TEXT, write_study
from toy_kinds import NAME, layers
from typer.testing import CliRunner

from prompttransfer.adaptations.artifacts import load_adaptation
from prompttransfer.cli import app
from prompttransfer.study.engine.engine import run_study
from prompttransfer.study.engine.store import LocalStore, read_graph
from prompttransfer.study.results import tracking
from prompttransfer.study.results.tracking import check_tracking, open_tracker
from tasks.errors import MachineError, UserError

SMALLER = TEXT[: TEXT.index("transfers:")].replace("[near, far]", "[near]").replace("songs.yaml, ", "")


@pytest.fixture(scope="module")
def tracked(tmp_path_factory, backbone_folder):
    """A small study run by the command with TensorBoard: its folder and what was said."""
    folder = tmp_path_factory.mktemp("tracked")
    path = write_study(folder, backbone_folder, SMALLER)
    command = ["study", "run", str(path), "--output", str(folder / "run"), "--device", "cpu"]
    done = CliRunner().invoke(app, [*command, "--track", "tensorboard"])
    assert done.exit_code == 0, (done.output, done.exception)
    return folder / "run", done.output


def events(folder):
    """Scalar -> its (step, value) pairs in the one event file of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    read = EventAccumulator(str(folder))
    read.Reload()
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def test_tensorboard_has_the_curve_of_every_prompt(tracked):
    folder, said = tracked
    assert "tracking" not in said
    store = LocalStore(folder)
    prompts = [cell for cell in read_graph(store).cells.values() if cell.kind == "prompt"]
    runs = {path.name for path in (folder / "logs" / "prompt").iterdir()}
    assert runs == {cell.id for cell in prompts} and len(runs) == 4
    for cell in prompts:
        found = events(folder / "logs" / "prompt" / cell.id)
        curve = load_adaptation(store.folder(cell.id) / "prompt").curve
        assert found["validation"] == [(p.step, pytest.approx(p.score)) for p in curve]
        assert found["loss"] == [(p.step, pytest.approx(p.loss)) for p in curve if p.loss is not None]
        assert found["cost/steps"] == [(curve[-1].step, 4.0)]
        assert "hp_metric" not in found


def test_tensorboard_has_the_numbers_of_every_other_cell(tracked):
    folder, _ = tracked
    store = LocalStore(folder)
    scores = [cell for cell in read_graph(store).cells.values() if cell.kind == "score"]
    for cell in scores:
        found = events(folder / "logs" / "score" / cell.id)
        record = json.loads((store.folder(cell.id) / "score.json").read_text())
        if "references" in cell.settings:
            assert "score/references/majority" in found
        else:
            assert found["score/value"] == [(0, pytest.approx(record["value"]))]


def test_mlflow_has_a_run_a_cell_with_curve_and_settings(tracked, tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    folder, said = tracked[0], []
    store, where = LocalStore(folder), f"file:{tmp_path / 'runs'}"
    tracker = open_tracker("mlflow", where, said.append)
    cells = list(read_graph(store).cells.values())
    for cell in cells:
        tracker.log(store.record(cell.id), store.folder(cell.id))
    assert said == []
    client = mlflow.tracking.MlflowClient(where)
    (experiment,) = [e for e in client.search_experiments() if e.name == tracking.PROJECT]
    runs = {run.data.tags["cell"]: run for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == {cell.id for cell in cells}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for cell in (cell for cell in cells if cell.kind == "prompt"):
        run = runs[cell.id]
        history = client.get_metric_history(run.info.run_id, "validation")
        curve = load_adaptation(store.folder(cell.id) / "prompt").curve
        assert [(p.step, p.value) for p in history] == [(p.step, p.score) for p in curve]
        assert run.data.params["recipe/lr"] == str(cell.settings["recipe"]["lr"])
        assert run.data.params["task"] == cell.settings["task"]


def test_csv_files_have_the_numbers_of_a_cell(tmp_path):
    store, where, said = LocalStore(tmp_path / "study"), tmp_path / "logs", []
    tracker = open_tracker("csv", str(where), said.append)

    def watch(record):
        tracker.log(record, store.folder(record.id))

    (unit,) = graph = layers([1])
    run_study(graph, store, kinds=NAME, say=said.append, watch=watch)
    header, values = (where / "toy" / unit.id / "metrics.csv").read_text().splitlines()
    logged = dict(zip(header.split(","), values.split(","), strict=True))
    assert (
        float(logged["number/number"])
        == json.loads((store.path(unit.id) / "number.json").read_text())["number"]
    )
    assert float(logged["cost/steps"]) == 1


def test_a_tracker_that_fails_says_so_once_and_costs_no_cell(tmp_path, monkeypatch):
    def broken(where, cell):
        raise ConnectionError("the server went away\nat once")

    store, said = LocalStore(tmp_path / "study"), []
    tracker = open_tracker("csv", str(tmp_path / "logs"), said.append)
    monkeypatch.setitem(tracking.LOGGERS, "csv", broken)

    def watch(record):
        tracker.log(record, store.folder(record.id))

    found = run_study(layers([3]), store, kinds=NAME, say=lambda line: None, watch=watch)
    assert found.complete
    assert said == ["tracking by csv stopped at '0-0': the server went away; the study goes on without it"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--track", "mlflow"], "tracking by mlflow needs the package mlflow: pip install 'prompttransfer[mlflow]'"),
        (["--track", "tensorbord"], "did you mean 'tensorboard'"),
        (["--track-to", "somewhere"], "--track-to somewhere needs --track: tensorboard, csv, mlflow"),
    ],
)  # fmt: skip
def test_what_cannot_be_tracked_is_one_line_before_anything_runs(
    tmp_path, backbone_folder, monkeypatch, options, line
):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    path = write_study(tmp_path, backbone_folder, SMALLER)
    done = CliRunner().invoke(app, ["study", "run", str(path), "--output", str(tmp_path / "run"), *options])
    assert isinstance(done.exception, UserError) and line in str(done.exception)
    assert "\n" not in str(done.exception) and not (tmp_path / "run").exists()


def test_a_tracker_whose_place_does_not_work_is_one_line_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="tracking by csv does not work at"):
        open_tracker("csv", str(tmp_path / "file"), print)
    check_tracking(None)


def test_names_are_such_as_every_tracker_takes(tmp_path):
    numbers = tracking._numbers("a", {"b>c (d)": 1, "e f": {"g/h": 2.5}, "list": [1], "flag": True})
    assert dict(numbers) == {"a/b_c__d_": 1.0, "a/e_f/g_h": 2.5}


def test_a_run_ends_with_the_matrix_and_last_with_where_the_page_is(tracked):
    _, said = tracked
    assert "zero-shot transfer on" in said and "no prompt" in said and "pairs" in said
    assert said.rstrip().splitlines()[-1].endswith("report/report.html")
