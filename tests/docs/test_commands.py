"""Every command in the README and in docs/ is one that the program knows; those of README, quickstart and own data are run."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pages import EVERY_BLOCK, OWN_DATA, PAGES, QUICKSTART, README, ROOT, Block, blocks
from typer.main import get_command

from prompttransfer.adaptations.methods import parse_method
from prompttransfer.cli import app, main, spread
from prompttransfer.cli.common import resolve_tasks
from tasks.proposing import is_proposed

SMALL = {
    "--steps": "2",
    "--evaluate-every": "1",
    "--batch": "4",
    "--limit-train": "24",
    "--limit-test": "8",
    "--rows": "4",
    "--probe-steps": "1",
    "--words": "60",
    "--precision": "fp32",
}
"""What is put behind a command that is run, as far as it has the option."""
OURS = [
    (block, words)
    for block in EVERY_BLOCK
    for words in block.commands()
    if words[0] == "prompttransfer" or ("prompttransfer" in words[:12] and words[0] in ("torchrun", "srun"))
]


def parsed(words: Sequence[str]) -> tuple[Any, list[str], dict[str, Any]]:
    """The command that `words` call, its arguments, and the values that it is given; raises for what it does not know."""
    command: Any = get_command(app)
    arguments = list(words[words.index("prompttransfer") + 1 :])
    spread_out = spread(command, arguments)
    while spread_out and spread_out[0] in getattr(command, "commands", {}):
        command = command.commands[spread_out.pop(0)]
    if spread_out in (["--version"], ["--help"]):
        return command, spread_out, {}
    return command, spread_out, command.make_context("prompttransfer", list(spread_out)).params


@pytest.mark.parametrize(
    ("block", "words"), OURS, ids=lambda value: str(value) if isinstance(value, Block) else ""
)
def test_a_command_has_the_verb_the_options_and_the_values(block: Block, words: list[str]) -> None:
    _, _, values = parsed(words)
    if "--method" in words and not {"project", "plot"} & set(words):  # which have methods of their own
        given = values["method"]
        for text in [given] if isinstance(given, str) else given:
            parse_method(text)
    for name in ("task",) if "push" in words else ("task", "to"):  # what is pushed goes to a repository
        given = values.get(name) or ()
        named = [given] if isinstance(given, str) else list(given)
        resolve_tasks([task for task in named if not task.endswith(".yaml") and not is_proposed(task)])


def test_there_are_commands_of_every_verb_in_the_pages() -> None:
    shown = {words[words.index("prompttransfer") + 1] for _, words in OURS}
    assert {"train", "evaluate", "transfer", "project", "compare", "correlate", "recommend"} <= shown
    assert {"neurons", "plot", "predict", "study", "tasks", "import", "export", "report"} <= shown


@pytest.mark.parametrize("page", [README, QUICKSTART, OWN_DATA], ids=lambda page: page.name)
def test_the_commands_of_a_page_run_one_after_another(page: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    _write_reviews(tmp_path)
    said = io.StringIO()
    for block in blocks(page):
        if not block.runs:
            continue
        for words in block.commands():
            if words[0] == "prompttransfer":
                _run(words, said)
        if block.language == "python":
            with contextlib.redirect_stdout(said):
                exec(compile(block.text, str(block), "exec"), {})


def _write_reviews(place: Path) -> None:
    """What the page on data of one's own takes for granted: CSV files, and a folder with files of other names."""
    names = ("reviews", "folder/learn", "folder/dev")
    (place / "folder").mkdir()
    for name in names:
        rows = [f"{name} {i}: the plot was {('dull', 'fresh')[i % 2]},{1 + 4 * (i % 2)}" for i in range(60)]
        (place / f"{name}.csv").write_text("\n".join(["body,stars", *rows]) + "\n")
    (place / "stars.csv").write_text((place / "reviews.csv").read_text())
    for name, marks in (("intents", "abcdef"), ("topics", ("a", "a;b", "c"))):
        rows = [f"the plot {i} was {mark},{mark}" for i in range(15) for mark in marks]
        (place / f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n")


def _run(words: list[str], said: io.StringIO) -> None:
    """Run a command with small settings, in this process."""
    command, arguments, _ = parsed(words)
    has = {option for parameter in command.params for option in parameter.opts}
    small = [word for option, value in SMALL.items() if option in has for word in (option, value)]
    only_asks = arguments in (["--version"], ["--help"])
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as ended:
        main([*words[1:], *([] if only_asks else small)])
    assert ended.value.code == 0, " ".join(words)


def test_scripts_that_pages_name_are_there_and_have_the_options() -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "scripts").glob("*.py")}
    options = "\n".join(sources.values())
    for page in PAGES:
        for name, rest in re.findall(
            r"python\s+scripts/([\w-]+\.py)([^`\n]*)", page.read_text(encoding="utf-8")
        ):
            assert name in sources, f"{page.name}: no scripts/{name}"
            for option in re.findall(r"--[a-z][a-z-]+", rest):
                assert f'"{option}"' in options, f"{page.name}: scripts/{name} has no {option}"


def test_names_of_a_python_block_can_be_imported() -> None:
    for block in EVERY_BLOCK:
        if block.language == "python":
            compile(block.text, str(block), "exec")
            for line in re.findall(
                r"^from (?:prompttransfer|tasks|projectors|analysis)\S* import .+$", block.text, re.M
            ):
                exec(line, {})
