"""Every command in README and docs/ runs, a page after the other, each in a folder of its own and on small settings.

A block below `<!-- not run: WHY -->` is only held against the command line (test_commands.py).
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest
from commands import LARGER, prepare, run, small_study
from pages import PAGES, ROOT, blocks

from projectors import public_report
from prompttransfer.study.plan.shipped import shipped_studies

WITH_COMMANDS = [
    page
    for page in PAGES
    if any(block.runs and (block.ours() or block.language == "python") for block in blocks(page))
]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.name)
def test_the_commands_of_a_page_run_one_after_another(page: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(public_report, "CONSTANT_STEPS", 2)  # of a control, which no option shortens
    _write_files_of_a_user(tmp_path)
    found = [block for block in blocks(page) if block.runs]
    prepare([words for block in found for words in block.ours()], [block.text for block in found])
    for block in found:
        for words in block.ours():
            run(_as_can_be_run(words, tmp_path), **LARGER.get(page.name, {}))
        if block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block.text, str(block), "exec"), {})


def _as_can_be_run(words: list[str], place: Path) -> list[str]:
    """A small copy in place of a shipped study that is run, and a cell that is there in place of the page's."""
    if words[1:3] == ["study", "run"] and words[3] in shipped_studies():
        return [*words[:3], str(small_study(words[3], place)), *words[4:]]
    if words[1:3] == ["study", "explain"]:
        return [*words[:4], next(Path(words[3], "cells").glob("*/*/cell.json")).parent.name]
    return words


def _write_files_of_a_user(place: Path) -> None:
    """What pages take for granted: CSV files, a folder with files of other names, rows to answer, public text."""
    names = ("reviews", "folder/learn", "folder/dev")
    (place / "folder").mkdir()
    for name in names:
        rows = [f"{name} {i}: the plot was {('dull', 'fresh')[i % 2]},{1 + 4 * (i % 2)}" for i in range(60)]
        (place / f"{name}.csv").write_text("\n".join(["body,stars", *rows]) + "\n")
    (place / "stars.csv").write_text((place / "reviews.csv").read_text())
    for name, marks in (("intents", "abcdef"), ("topics", ("a", "a;b", "c"))):
        rows = [f"the plot {i} was {mark},{mark}" for i in range(15) for mark in marks]
        (place / f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    answered = [block for block in blocks(ROOT / "docs" / "predict.md") if block.language == "json"]
    (place / "rows.jsonl").write_text(answered[0].text + "\n")
    public = [{"text": f"the plot {i} was {('dull', 'fresh')[i % 2]}"} for i in range(40)]
    (place / "public.jsonl").write_text("".join(json.dumps(row) + "\n" for row in public))
