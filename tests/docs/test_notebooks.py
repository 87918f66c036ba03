"""The notebooks under docs/notebooks run from the first cell to the last, on small settings; they hold no outputs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
SMALL = "STEPS, ROWS = 6, 60"
"""What stands in place of the settings of a notebook where a test runs it."""


def cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_its_first_cell_to_its_last(path: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    changed = 0
    for number, cell in enumerate(cells(path)):
        if cell["cell_type"] != "code":
            continue
        code, count = re.subn(r"STEPS, ROWS = \d+, \d+", SMALL, "".join(cell["source"]))
        changed += count
        exec(compile(code, f"{path.name}, cell {number}", "exec"), names)
    assert changed == 1
    assert (
        names["figure"]._repr_png_().startswith(b"\x89PNG")
    )  # what Jupyter asks for, with no pyplot behind it


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_outputs_and_links_that_lead_somewhere(path: Path) -> None:
    for cell in cells(path):
        assert not cell.get("outputs") and cell.get("execution_count") is None
        for target in re.findall(r"\]\(([^)\s]+)\)", "".join(cell["source"])):
            assert (path.parent / target).exists(), target


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["first-transfer-matrix", "which-prompt"]
