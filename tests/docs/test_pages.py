"""Links of the README and of docs/ lead somewhere, files that they name are there, messages are the program's own."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from pages import EVERY_BLOCK, PAGES, README, ROOT, blocks

TOP = r"(?:docs|scripts|tests|tasks|projectors|analysis|prompttransfer)"


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as mkdocs and code hosts make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    heads = re.findall(r"^#+ (.+)$", text, re.M)
    return frozenset(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", head.lower()).strip()) for head in heads)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{page.name}: no {target}"
        if anchor and there.name != "command-line.md":  # its headings are made when the pages are built
            assert anchor in anchors(there), f"{page.name}: no heading {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_the_project_that_is_named_is_there(page: Path) -> None:
    for path in re.findall(
        rf"(?<![\w/.-]){TOP}/[\w/.-]+\.(?:py|md|yaml|png)\b", page.read_text(encoding="utf-8")
    ):
        assert (ROOT / path).exists(), f"{page.name}: no {path}"


def test_messages_in_troubleshooting_are_the_programs_own() -> None:
    sources = [
        path for top in ("prompttransfer", "tasks", "projectors") for path in (ROOT / top).rglob("*.py")
    ]
    said = {
        node.value
        for path in sources
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    for block in blocks(ROOT / "docs" / "troubleshooting.md"):
        for part in filter(None, (part.strip(" ,.:`") for part in block.text.split("..."))):
            assert any(part in text for text in said), f"{block}: nothing says {part!r}"


def test_the_readme_is_short_and_every_fence_has_a_language() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150
    assert [str(block) for block in EVERY_BLOCK if not block.language] == []
