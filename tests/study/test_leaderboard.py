"""The leaderboard: what counts as one row, which means may stand beside each other, and that the page fetches nothing."""

import json
import re
from dataclasses import replace

import pandas as pd
import pytest
from toys import adapted, changed, prompt_on

from analysis.report.board import Line, Value, render_board
from prompttransfer.adaptations.artifacts import save_adaptation
from prompttransfer.cli import main
from prompttransfer.study.results.leaderboard import Score, leaderboard, lines_of
from prompttransfer.study.results.long_table import COLUMNS
from tasks.errors import UserError


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(list(map(str, arguments)))
    return stopped.value.code, *capsys.readouterr()


def write_study(folder, *rows):
    folder.mkdir(parents=True)
    common = {
        "kind": "score",
        "backbone": "tiny",
        "method": "lora",
        "measure": "accuracy",
        "condition": "own prompt",
    }
    table = pd.DataFrame([{**common, **row} for row in rows]).reindex(columns=list(COLUMNS))
    table.to_parquet(folder / "results.parquet", index=False)


def keep(adaptation, folder, value, **origin):
    scores = {"validation": {"accuracy": 0.5, "step": 2}, "test": {"accuracy": value, "rows": 9}}
    save_adaptation(changed(adaptation, scores=scores, **origin), folder)


def test_seeds_are_one_score_and_sources_are_averaged_within_a_seed() -> None:
    values = {0: (0.4, 0.6), 1: (0.8, 0.8)}
    scores = [
        Score("run", "tiny", "prompt", "zero-shot", "a", "accuracy", value, seed)
        for seed, own in values.items()
        for value in own
    ]
    (line,) = lines_of(scores)
    found = line.values["accuracy", "a"]
    assert (found.mean, found.seeds) == (pytest.approx(0.65), 2)
    assert found.spread == pytest.approx(((0.5 - 0.65) ** 2 + (0.8 - 0.65) ** 2) ** 0.5)


def test_a_mean_is_of_all_tasks_or_is_none() -> None:
    line = Line("r", "b", "prompt", "own prompt", {("accuracy", "a"): Value(0.5, None, 1)})
    assert line.over("accuracy", ["a"]) == 0.5 and line.over("accuracy", ["a", "b"]) is None


def test_studies_and_folders_of_adaptations_stand_in_one_table(tiny, tmp_path) -> None:
    write_study(
        tmp_path / "study",
        {"target": "toy", "source": "toy", "seed": 0, "value": 0.7},
        {"target": "toy", "source": "toy", "seed": 1, "value": 0.9},
        {"target": "toy", "seed": 0, "value": 0.5, "condition": "no prompt"},
        {"target": "toy", "seed": 0, "value": 0.6, "condition": "no prompt, calibrated"},
        {"target": "toy", "seed": 0, "value": 0.1, "measure": "calibrated accuracy"},
    )
    keep(prompt_on(tiny("roberta"), seed=0), tmp_path / "own" / "p0", 0.6)
    keep(prompt_on(tiny("roberta"), seed=1), tmp_path / "own" / "p1", 0.8)
    keep(prompt_on(tiny("roberta"), seed=1, start="from:x"), tmp_path / "own" / "p2", 0.9)
    keep(adapted(tiny("roberta"), "lora:rank=2", name="low"), tmp_path / "own" / "low", 0.3)
    lines = {
        (one.run, one.method, one.how): one for one in leaderboard([tmp_path / "study", tmp_path / "own"])
    }
    assert lines["study", "lora", "own prompt"].values["accuracy", "toy"].mean == pytest.approx(0.8)
    assert lines["study", "", "no prompt"].reference
    assert lines["own", "prompt:length=3", "own prompt"].values["accuracy", "toy"].seeds == 2
    assert lines["own", "prompt:length=3", "from source"].values["accuracy", "toy"].mean == 0.9
    assert lines["own", "lora:rank=2", "own prompt"].values["accuracy", "toy"].mean == 0.3
    assert len(lines) == 5


def test_what_a_sweep_chose_is_one_row_whatever_it_chose_for_each_task(tiny, tmp_path) -> None:
    for task, length in (("a", 2), ("b", 3)):
        own = prompt_on(tiny("roberta"), task=task, length=length)
        own = replace(own, notes={"sweep": {"chosen": {"length": str(length)}}})
        keep(own, tmp_path / "own" / task, 0.6)
    (line,) = leaderboard([tmp_path / "own"])
    assert line.method == "prompt, settings swept" and line.over("accuracy", ["a", "b"]) == 0.6


def test_an_own_score_of_a_transfer_counts_once(tiny, tmp_path) -> None:
    backbone = tiny("roberta")
    keep(prompt_on(backbone, name="toy"), tmp_path / "run" / "prompts" / "toy", 0.6)
    record = {
        "backbone": backbone.name,
        "raw": {
            "sources": ["toy", "no prompt"], "source_tasks": ["toy", "no prompt"], "targets": ["toy", "other"],
            "values": [[0.6, 0.4], [0.5, None]], "metrics": ["accuracy", "accuracy"], "methods": ["prompt:length=3"],
        },
    }  # fmt: skip
    (tmp_path / "run" / "transfer").mkdir()
    (tmp_path / "run" / "transfer" / "transfer.json").write_text(json.dumps(record))
    lines = {(one.method, one.how): one for one in leaderboard([tmp_path / "run"])}
    assert lines["prompt:length=3", "own prompt"].values["accuracy", "toy"] == Value(0.6, None, 1)
    assert lines["prompt:length=3", "zero-shot"].values["accuracy", "other"].mean == 0.4
    assert ("", "no prompt") in lines and len(lines) == 3


def test_the_page_is_one_file_that_fetches_nothing_and_escapes_what_it_shows(tiny, tmp_path, capsys) -> None:
    write_study(
        tmp_path / "study",
        {"target": "a<b", "source": "a<b", "seed": 0, "value": 0.7},
        {"target": "c", "source": "c", "seed": 0, "value": 0.6, "measure": "macro-f1"},
    )
    code, out, _ = call(capsys, "leaderboard", tmp_path / "study", "--output", tmp_path / "board.html")
    assert code == 0 and "written: " in out
    page = (tmp_path / "board.html").read_text(encoding="utf-8")
    assert (
        "a&lt;b" in page and "a<b" not in page and page.count("<table") == 2
    )  # metrics are never in one table
    assert "<script src" not in page and "http" not in page.replace("http-equiv", "")
    assert (
        re.search(r"script-src 'sha256-[^']+'", page) and 'name="viewport"' in page and "of one seed" in page
    )
    code, out, _ = call(
        capsys, "leaderboard", tmp_path / "study", "--output", tmp_path / "board.html", "--json"
    )
    assert json.loads(out)["lines"][0]["scores"][0]["mean"] == 0.7


def test_the_best_comes_first_and_what_lacks_a_task_behind_it() -> None:
    def line(name, **values):
        return Line(
            "r", "b", name, "own prompt", {("accuracy", t): Value(v, None, 1) for t, v in values.items()}
        )

    page = render_board([line("low", a=0.1, b=0.2), line("half", a=0.9), line("high", a=0.5, b=0.6)])
    assert [page.index(f">{name}, own prompt<") for name in ("high", "low", "half")] == sorted(
        page.index(f">{name}, own prompt<") for name in ("high", "low", "half")
    )


def test_mistakes_are_one_line(tmp_path, capsys) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "results.parquet").write_bytes(b"PAR1")
    for folder, said in ((tmp_path / "bad", "is damaged"), (tmp_path / "none", "is not a folder")):
        code, _, err = call(capsys, "leaderboard", folder, "--output", tmp_path / "board.html")
        assert code == 2 and said in err and err.count("\n") == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no score in"):
        leaderboard([tmp_path / "empty"])


def test_a_long_name_of_a_method_can_go_on_behind_its_signs() -> None:
    line = Line("run", "tiny", "lora:rank=8,alpha=16", "", {("accuracy", "a"): Value(0.5, None, 1)})
    assert "lora:<wbr>rank=<wbr>8,<wbr>alpha=<wbr>16" in render_board([line])


def test_runs_that_share_no_task_stand_in_tables_of_their_own() -> None:
    def line(run, *tasks):
        return Line(run, "b", run, "", {("accuracy", task): Value(0.5, None, 1) for task in tasks})

    page = render_board([line("one", "a", "b"), line("two", "b", "c"), line("three", "d"), line("four", "c")])
    tables = [part.partition("</table>")[0] for part in page.split("<table")[1:]]
    found = [[name for name in ("one", "two", "three", "four") if f">{name}<" in table] for table in tables]
    assert sorted(found) == [["one", "two", "four"], ["three"]]


def test_a_table_in_which_nothing_has_all_tasks_has_no_mean() -> None:
    def line(run, *tasks):
        return Line(run, "b", run, "", {("accuracy", task): Value(0.5, None, 1) for task in tasks})

    assert ">mean<" not in render_board([line("one", "a", "b"), line("two", "b", "c")])
    assert ">mean<" in render_board([line("one", "a", "b"), line("two", "b")])
