"""What is printed steers no terminal and fits every encoding; JSON stays exact."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from rich.text import Text

from prompttransfer.cli import common, main
from prompttransfer.cli.terminal import CleanConsole, clean, json_text

NASTY = "a\x1b[2J\x1b]0;t\x07b\x9b31m\u202ec\x7f"


def test_every_control_character_is_shown_instead_of_obeyed() -> None:
    assert clean(NASTY) == "a�[2J�]0;t�b�31m�c�"
    assert clean("two\nlines\tand é 漢") == "two\nlines\tand é 漢"


def test_a_console_keeps_its_own_styles_and_cleans_what_it_is_given() -> None:
    out = io.StringIO()
    console = CleanConsole(file=out, force_terminal=True, color_system="standard", width=80)
    console.print(Text(NASTY), style="bold")
    assert out.getvalue().startswith("\x1b[1ma�[2J") and "\x1b[2J" not in out.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_json_is_exact_in_every_encoding(monkeypatch, encoding) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    text = json_text({"name": NASTY + "é漢"})
    assert json.loads(text) == {"name": NASTY + "é漢"}
    assert clean(text) == text and text.encode(encoding)


def test_an_error_and_a_table_show_control_characters(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["tasks", "show", f"x{NASTY}"])
    (tmp_path / "t.yaml").write_text(
        'name: mine\ntype: sentiment\nkind: sentence\nnote: "see \\e[31m[/x] here"\nwords: {bad: terrible, good: great}\n'
    )
    with pytest.raises(SystemExit) as ended:
        main(["tasks", "show", str(tmp_path / "t.yaml")])
    said = capsys.readouterr()
    assert ended.value.code == 0 and "�[31m[/x] here" in said.out
    assert "\x1b" not in said.out + said.err


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)
def test_a_letter_that_the_output_lacks_is_replaced(tmp_path, environment) -> None:
    (tmp_path / "t.yaml").write_text(
        "name: avis\ntype: sentiment\nkind: sentence\nwords:\n  négatif: mauvais\n  positif: super\n",
        encoding="utf-8",
    )
    for more, shown in (((), "n?gatif"), (("--json",), "n\\u00e9gatif")):
        found = subprocess.run(
            [sys.executable, "-m", "prompttransfer", "tasks", "show", "t.yaml", *more],
            env={**os.environ, **environment},
            cwd=tmp_path,
            capture_output=True,
            check=True,
        )
        assert shown in found.stdout.decode("ascii")


def test_an_argument_of_bytes_that_are_no_text_is_one_line(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tasks", "show", "t\udce9.yaml"])
    assert ended.value.code == 2 and "LC_ALL=C.UTF-8" in capsys.readouterr().err


def test_the_version_is_said_in_one_line(capsys) -> None:
    from prompttransfer import __version__

    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"prompttransfer {__version__}\n"


COLUMNS = ["prompt", "metric", "chance", "no prompt", "step 0 (val.)", "validation", "test"]
ROWS = [["microworld-restaurant-s0", "accuracy", "0.540", "0.525", "0.477", "1.000", "1.000"]] * 2


def printed(monkeypatch, capsys, width, columns=COLUMNS, rows=ROWS, left=2):
    console = common.CleanConsole(highlight=False, width=width)
    monkeypatch.setattr(common, "console", console)
    common.table("scores", columns, rows, left=left)
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [30, 40, 60, 80, 160])
def test_no_table_breaks_inside_a_word_and_no_value_is_lost(width, monkeypatch, capsys):
    said = printed(monkeypatch, capsys, width)
    assert all(len(line) <= width for line in said.splitlines())
    words = said.replace(":", " ").split()
    assert {"microworld-restaurant-s0", "accuracy", "0.540", "validation", "0.477"} <= set(words)
    assert said.count("0.540") == 2


def test_a_table_that_fits_is_in_one_piece_and_a_wide_matrix_in_several(monkeypatch, capsys):
    assert printed(monkeypatch, capsys, 160).count("accuracy") == 2
    columns = ["", *(f"target-{i}" for i in range(12))]
    rows = [[f"source-{i}", *["50.0"] * 12] for i in range(3)]
    said = printed(monkeypatch, capsys, 40, columns, rows, left=1)
    assert (
        said.count("source-0") == 5 and said.count("target-11") == 1
    )  # three targets a piece, or two long ones


def test_long_text_wraps_between_words(monkeypatch, capsys):
    rows = [["start", "text: " + "the film was good and " * 6]]
    said = printed(monkeypatch, capsys, 40, ["field", "value"], rows, left=2)
    assert all(len(line) <= 40 for line in said.splitlines()) and said.count("good") == 6


def test_no_colour_is_no_colour(monkeypatch, capsys):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = common.CleanConsole(highlight=False, width=80)
    console.print("[red]scores[/red]")
    assert "\x1b[31m" not in capsys.readouterr().out


def test_a_shell_completes_verbs_tasks_and_methods():
    def completed(*words):
        said = {"_PROMPTTRANSFER_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words)}
        said["COMP_CWORD"] = str(len(words) - 1)
        code = "import sys; sys.argv = ['prompttransfer']; from prompttransfer.cli import main; main()"
        run = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **said}, capture_output=True, text=True
        )
        return run.stdout.split()

    assert {"train", "transfer"} <= set(completed("prompttransfer", "tra"))
    assert "microworld-imdb" in completed("prompttransfer", "train", "--task", "microworld-im")
    assert "lora" in completed("prompttransfer", "train", "--method", "lo")
