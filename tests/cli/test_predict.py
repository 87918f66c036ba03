"""`predict`: rows of a file answered by the adaptations that they name, kept in order, resumed, refused in one line."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from test_core_loop import run, train, world  # noqa: F401

from prompttransfer.cli import predict as command

ROWS = [{"task": "toy-film", "text": f"the {noun} was {word}", "id": i} for i, (noun, word) in enumerate(
    [("film", "dull"), ("room", "bright"), ("plot", "cold"), ("actor", "kind"), ("song", "slow")]
)]  # fmt: skip


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def adapted(world: Path) -> Path:  # noqa: F811
    """Two adaptations of one task: a prompt and a LoRA."""
    assert train("--output", "made/a") == 0
    lora = ("--task", "toy-film.yaml", "--backbone", "model", "--data", "data", "--method", "lora:rank=2", "--steps", "2", "--batch", "4")  # fmt: skip
    assert run("train", *lora, "--evaluate-every", "2", "--precision", "fp32", "--output", "made/b") == 0
    write(world / "rows.jsonl", ROWS)
    return world


def predict(*more: str) -> int:
    return run("predict", "--from", *more, "--precision", "fp32")


def test_rows_and_their_order_are_kept_and_each_has_label_probabilities_and_text(
    adapted: Path, capsys
) -> None:
    assert predict("made/a", "--input", "rows.jsonl", "--output", "out.jsonl") == 0
    found = lines(adapted / "out.jsonl")
    assert [{key: row[key] for key in ("task", "text", "id")} for row in found] == ROWS
    for row in found:
        answer = row["prediction"]
        assert answer["adaptation"] == "toy-film" and set(answer["probabilities"]) == {"negative", "positive"}
        assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
        assert answer["text"] in ("terrible", "great")
    assert "5 rows; " in (said := capsys.readouterr().err) and "rows a second" in said
    assert predict("made/a", "--input", "rows.jsonl", "--output", "out.jsonl") == 0
    assert "nothing is left to do" in capsys.readouterr().err
    write(adapted / "rows.jsonl", ROWS[:2])
    assert predict("made/a", "--input", "rows.jsonl", "--output", "out.jsonl") == 2
    assert "out.jsonl of other settings" in capsys.readouterr().err


def test_rows_of_several_methods_name_them(adapted: Path, capsys) -> None:
    assert predict("made/a", "made/b", "--input", "rows.jsonl", "--output", "out.jsonl") == 2
    assert "rows.jsonl:1: task 'toy-film' has 2 adaptations: write \"adaptation\" with one of toy-film@prompt, toy-film@lora" in capsys.readouterr().err  # fmt: skip
    assert not (adapted / "out.jsonl").exists()
    named = [{**row, "adaptation": f"toy-film@{('prompt', 'lora')[i % 2]}"} for i, row in enumerate(ROWS)]
    write(adapted / "named.jsonl", named)
    assert predict("made/a", "made/b", "--input", "named.jsonl", "--output", "out.jsonl") == 0
    assert [row["prediction"]["adaptation"] for row in lines(adapted / "out.jsonl")] == [row["adaptation"] for row in named]  # fmt: skip
    assert (
        predict("made/a", "made/b", "--method", "lora", "--input", "rows.jsonl", "--output", "l.jsonl") == 0
    )
    assert predict("made/a", "--method", "lora", "--input", "rows.jsonl", "--output", "m.jsonl") == 2
    assert "--method lora: nothing here is of it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"adaptation": "toy-flim", "text": "a"}, "in.jsonl:6: unknown adaptation 'toy-flim': did you mean 'toy-film'"),
        ({"task": "toy-room", "text": "a"}, "in.jsonl:6: no adaptation of task 'toy-room'"),
        ({"text": "a"}, "in.jsonl:6: the row names neither task nor adaptation"),
        ({"task": 3, "text": "a"}, "in.jsonl:6: 'task' is 3: it must be a name"),
        ({"task": "toy-film"}, "in.jsonl:6: no 'text'; task 'toy-film' needs text"),
        ([], "in.jsonl:6: this is a list; each line must be a JSON object"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_before_any_is_answered(adapted: Path, capsys, row, words) -> None:
    write(adapted / "in.jsonl", [*ROWS, row])
    assert predict("made/a", "--input", "in.jsonl", "--output", "out.jsonl") == 2
    assert words in capsys.readouterr().err and not (adapted / "out.jsonl").exists()


def test_a_killed_run_goes_on_from_its_last_whole_window_to_the_same_bytes(adapted: Path, capsys, monkeypatch) -> None:  # fmt: skip
    monkeypatch.setattr(sys.modules[command.__module__], "WINDOW", 2)
    assert predict("made/a", "--input", "rows.jsonl", "--output", "whole.jsonl") == 0

    asked = []

    def killed(self, lines):
        if asked:
            self.file.write(b'{"half')
            raise KeyboardInterrupt
        asked.append(lines)
        self.file.write("".join(f"{line}\n" for line in lines).encode())
        self.file.flush()

    part = sys.modules[command.__module__].Part
    with monkeypatch.context() as patch:
        patch.setattr(part, "write", killed)
        assert predict("made/a", "--input", "rows.jsonl", "--output", "out.jsonl") != 0
    assert not (adapted / "out.jsonl").exists()
    capsys.readouterr()
    assert predict("made/a", "--input", "rows.jsonl", "--output", "out.jsonl") == 0
    assert "5 rows, 2 of an earlier run" in capsys.readouterr().err
    assert (adapted / "out.jsonl").read_bytes() == (adapted / "whole.jsonl").read_bytes()
    assert not list(adapted.glob("out.jsonl.part*"))


def test_standard_input_is_answered_on_standard_output(adapted: Path, capsys, monkeypatch) -> None:
    text = (adapted / "rows.jsonl").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    capsys.readouterr()
    assert predict("made/a", "--input", "-") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in found] == [0, 1, 2, 3, 4]
