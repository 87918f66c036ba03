"""The commands `study status` and `study explain` over a folder of toy cells, and what `study run` refuses."""

import json

import pytest
from toy_kinds import NAME, cell, layers
from typer.testing import CliRunner

from prompttransfer.cli import app
from prompttransfer.cli.study_run import which_executor
from prompttransfer.study.cell import Graph, Unit
from prompttransfer.study.engine.engine import run_study
from prompttransfer.study.engine.leases import lease
from prompttransfer.study.engine.store import LocalStore, write_graph
from prompttransfer.study.results.status import spoken
from tasks.errors import UserError


def call(*arguments):
    done = CliRunner().invoke(app, ["study", *map(str, arguments)])
    assert done.exception is None, (done.output, done.exception)
    return done.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two finished layers, a failed cell and one that waits for it."""
    place = tmp_path_factory.mktemp("study")
    bad = cell("bad", fault="error")
    graph = Graph((*layers([2, 2]), Unit((bad,)), Unit((cell("below", [bad]),))))
    run_study(graph, LocalStore(place), kinds=NAME, say=lambda line: None)
    return place


def test_status_counts_what_is_done_failed_blocked_and_left(folder):
    found = json.loads(call("status", folder, "--json"))
    counts = {name: found[name] for name in ("cells", "done", "running", "failed", "blocked", "left")}
    assert counts == {"cells": 6, "done": 4, "running": 0, "failed": 1, "blocked": 1, "left": 0}
    assert "ZeroDivisionError" in found["failures"][0]["line"]


def test_status_is_a_table_for_people(folder):
    output = call("status", folder)
    assert "6 cells: 4 done, 0 running, 1 failed, 1 blocked, 0 left" in output
    assert "failed: bad" in output


def test_watch_ends_when_nothing_is_left(folder):
    assert "4 done" in call("status", folder, "--watch")


def test_status_sees_who_is_at_work_and_how_long_it_will_take(tmp_path):
    graph, store = layers([4]), LocalStore(tmp_path)
    run_study(Graph(graph.units[:2]), store, kinds=NAME, say=lambda line: None)
    write_graph(store, graph)
    with lease(tmp_path / "leases", graph.units[2].id):
        found = json.loads(call("status", tmp_path, "--json"))
    assert (found["done"], found["running"], found["left"]) == (2, 1, 2)
    assert list(found["at_work"]) == ["0-2"]
    each = found["kinds"]["toy"]["seconds"]
    assert found["seconds_to_go"] == pytest.approx(2 * each)


def test_status_says_what_is_damaged(tmp_path):
    graph, store = layers([1]), LocalStore(tmp_path)
    run_study(graph, store, kinds=NAME, say=lambda line: None)
    (store.path(graph.units[0].id) / "number.json").unlink()
    assert "number.json is missing" in call("status", tmp_path)


def test_explain_shows_where_a_number_is_from(folder):
    output = call("explain", folder, "1-0")
    for part in ("finished", "versions: python", "cost: steps 1", 'name: "1-0"', "input0: 0-0 [toy "):
        assert part in output


def test_explain_shows_the_traceback_of_a_failed_cell(folder):
    output = call("explain", folder, "bad")
    assert "Traceback" in output and "ZeroDivisionError" in output
    assert ", blocked" in call("explain", folder, "below")


def test_options_that_contradict_each_other_are_refused():
    assert which_executor(None, None, None) == "embedded"
    assert which_executor(None, 2, None) == "workers"
    assert which_executor(None, None, "auto") == "ray"
    for given in (("ray", 2, None), ("embedded", None, "auto"), ("workers", None, None), (None, 0, None)):
        with pytest.raises(UserError):
            which_executor(*given)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.417, "0.42 s"), (37.2, "37 s"), (720, "12 min"), (12000, "3 h 20 min"), (187200, "2 d 4 h")],
)
def test_times_are_spoken(seconds, words):
    assert spoken(seconds) == words
