"""The README and the pages of docs/ as values: fenced blocks, and the commands in them.

A block whose fence stands below a line `<!-- not run: WHY -->` is held against the command line but not run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README, QUICKSTART = ROOT / "README.md", ROOT / "docs" / "quickstart.md"
OWN_DATA = ROOT / "docs" / "own-data.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = re.compile(r"<!-- not run: .+ -->")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: Path
    line: int
    language: str
    text: str
    runs: bool

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    def commands(self) -> list[list[str]]:
        """Words of each command of a shell; variables that the block sets are put in, comments and output left out."""
        if self.language == "console":
            lines = _prompted(self.text)
        elif self.language in ("bash", "sh"):
            lines = iter(self.text.replace("\\\n", " ").splitlines())
        else:
            return []
        found, variables = [], {}
        for line in lines:
            if given := re.fullmatch(r'([A-Z]+)="(.*)"', line.strip()):
                variables[given[1]] = given[2]
                continue
            for name, value in variables.items():
                line = re.sub(rf"\${name}\b", value, line)
            if words := shlex.split(line, comments=True):
                found.append(words)
        return found

    def ours(self) -> list[list[str]]:
        """Those of its commands that call this program."""
        return [words for words in self.commands() if words[0] == "prompttransfer"]


def _prompted(text: str) -> Iterator[str]:
    """What stands behind each `$ `, with the lines that it goes on in."""
    for command in re.findall(r"^\$ ((?:.*\\\n)*.*)$", text, flags=re.MULTILINE):
        yield command.replace("\\\n", " ")


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    opened, language, kept, before = 0, "", [], ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("```"):
            kept.append(line)
        elif opened:
            found.append(Block(page, opened, language, "\n".join(kept), not NOT_RUN.fullmatch(before)))
            opened = 0
        else:
            before, opened, language, kept = (kept[-1] if kept else ""), number, line[3:].strip(), []
    return found


EVERY_BLOCK = [block for page in PAGES for block in blocks(page)]
