"""Decoders at the command line: templates, the beginning of a row, the answer's place, neurons, and a schedule in transfers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import save_backbone
from test_core_loop import run, world  # noqa: F401

LIMITS = ("--data", "data", "--precision", "fp32")
SHORT = ("--steps", "2", "--batch", "4", "--evaluate-every", "2", "--length", "3")
ASKED = r"{text}\nit was"


@pytest.fixture
def place(world: Path) -> Path:  # noqa: F811
    """The world of test_core_loop with a decoder in it, and a prompt that was trained with a template of its own."""
    save_backbone(world / "decoder", "llama")
    assert train("own", "--template", ASKED) == 0
    return world


def train(name: str, *more: str) -> int:
    given = ("--task", "toy-film.yaml", "--backbone", "decoder", *LIMITS, *SHORT)
    return run("train", *given, "--output", f"made/{name}", *more)


def test_a_template_is_kept_and_used_again_and_another_is_refused(place: Path, capsys) -> None:
    record = json.loads((place / "made/own/toy-film/adaptation.json").read_text())
    assert record["encoding"]["template"] == "{text}\nit was"
    assert record["origin"]["opening"] == ["<s>"]
    ends = {}
    for name, more in (
        ("own", ()),
        ("same", ("--template", ASKED)),
        ("other", ("--template", "{text} it is")),
    ):
        asked = ("--other-layout",) if name == "other" else ()
        found = ("--output", f"{name}.json", *more, *asked)
        assert run("evaluate", "made/own", *LIMITS, *found) == 0
        ends[name] = json.loads((place / f"{name}.json").read_text())[0]["value"]
    assert ends["own"] == ends["same"]
    capsys.readouterr()
    for verb in (
        ("evaluate", "made/own", *LIMITS),
        ("transfer", "made/own", "--to", "toy-room.yaml", *LIMITS),
    ):
        assert run(*verb, "--template", "{text} it is") == 2
        said = capsys.readouterr().err
        assert r"was trained with '{text}\nit was', not with '{text} it is'" in said
        assert "--other-layout" in said and said.count("\n") == 1


def test_predict_reads_rows_by_the_prompts_own_template(place: Path, capsys) -> None:
    (place / "rows.jsonl").write_text('{"task": "toy-film", "text": "the film was dull"}\n')
    given = ("predict", "--from", "made/own", "--input", "rows.jsonl", "--precision", "fp32")
    found = []
    for more in ((), ("--template", ASKED), ("--template", "{text} it is", "--other-layout")):
        capsys.readouterr()
        assert run(*given, *more) == 0
        found.append(json.loads(capsys.readouterr().out)["prediction"]["probabilities"])
    assert found[0] == found[1] != found[2]
    assert run(*given, "--template", "{text} it is") == 2
    assert "was trained with" in capsys.readouterr().err


def test_a_template_is_for_decoders(place: Path, capsys) -> None:
    given = ("--task", "toy-film.yaml", "--backbone", "model", *LIMITS, *SHORT)
    assert run("train", *given, "--template", ASKED, "--output", "made/no") == 2
    assert (
        "a template is what decoders read; a masked-lm backbone reads texts alone" in capsys.readouterr().err
    )
    assert train("no", "--template", "{text}") == 2
    assert "must end in a cue" in capsys.readouterr().err


def test_rows_that_begin_otherwise_are_another_models(place: Path, capsys) -> None:
    record = place / "made/own/toy-film/adaptation.json"
    values = json.loads(record.read_text())
    values["origin"] |= {"opening": [], "revision": ""}
    record.write_text(json.dumps(values))
    assert run("evaluate", "made/own", *LIMITS) == 2
    said = capsys.readouterr().err
    assert "was trained on rows that begin with nothing behind the prompt" in said and "<s>" in said
    values["origin"]["opening"] = None  # of a version that did not say
    record.write_text(json.dumps(values))
    assert run("evaluate", "made/own", *LIMITS) == 0


def test_a_finished_prompt_that_says_nothing_of_its_beginning_is_finished(place: Path, capsys) -> None:
    record = place / "made/own/toy-film/adaptation.json"
    values = json.loads(record.read_text())
    del values["origin"]["opening"]
    record.write_text(json.dumps(values))
    assert train("own", "--template", ASKED) == 0
    assert "nothing is left to do" in capsys.readouterr().out


def test_check_marks_where_a_decoder_answers(place: Path, capsys) -> None:
    given = ("tasks", "check", "toy-film.yaml", "--backbone", "decoder", "--data", "data", "--length", "3")
    assert run(*given) == 0
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if line.startswith("row 1"))
    assert row.rstrip().endswith(": <- answer") or "<- answer" in said.split("row 2")[0].rstrip()[-12:]
    assert run(*given, "--template", ASKED) == 0
    assert "was <- answer" in " ".join(capsys.readouterr().out.split())


def test_neurons_of_a_decoder_are_captured_and_masked(place: Path, capsys) -> None:
    assert run("neurons", "capture", "made/own", "--precision", "fp32", "--output", "s.safetensors") == 0
    assert "gate silu(gate_proj)" in capsys.readouterr().out
    more = ("--task", "toy-film.yaml", "--data", "data", "--overwrite")
    assert (
        run("neurons", "capture", "made/own", *more, "--precision", "fp32", "--output", "s.safetensors") == 0
    )
    assert train("second", "--template", ASKED, "--seeds", "1") == 0
    (place / "made/second/toy-film").rename(place / "made/second/other")
    mask = ("neurons", "mask", "made/own/toy-film", "--others", "made/second/other", *LIMITS)
    mask = (*mask, "--shares", "0", "1", "--draws", "1", "--output", "m")
    assert run(*mask) == 0


def test_transfer_tunes_under_a_schedule(place: Path, capsys) -> None:
    given = ("transfer", "made/own", "--to", "toy-room.yaml", *LIMITS, "--tune", *SHORT[:-2])
    assert run(*given, "--schedule", "linear", "--warm-up", "1", "--output", "moved") == 0
    found = list((place / "moved").rglob("adaptation.json"))
    assert len(found) == 2
    for path in found:
        recipe = json.loads(path.read_text())["origin"]["recipe"]
        assert (recipe["schedule"], recipe["warm_up"]) == ("linear", 1)
