"""What is printed steers no terminal and fits every encoding; JSON stays exact."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from rich.text import Text

from prompttransfer.cli import main
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
