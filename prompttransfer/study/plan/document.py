"""A YAML file with the place of everything in it: mistakes are told by line, and all of them together.

Composing keeps a mark at every node; `Document.line` finds the line of a key or an item by its path, or of the
nearest thing above it that is there. What the file may say is spec.py's business.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tasks.documents import compose_yaml, construct_yaml, read_text, repeated_keys
from tasks.errors import UserError

Path_ = tuple[str | int, ...]
"""Keys and item numbers from the top of the file to a place in it."""


@dataclass(frozen=True, order=True)
class Mistake:
    """One thing that is wrong, and where."""

    line: int
    text: str


@dataclass(frozen=True)
class Document:
    """The values of a file and its nodes."""

    name: str
    values: dict[str, Any]
    root: yaml.MappingNode

    def line(self, path: Path_) -> int:
        """The line of what `path` leads to: of its key in a mapping, of the item in a list."""
        node: yaml.Node = self.root
        line = 1
        for step in path:
            found = _child(node, step)
            if found is None:
                break
            line, node = found
        return line

    def repeated(self) -> list[Mistake]:
        """Keys that stand twice in one mapping; YAML would keep the last one silently."""
        return [Mistake(line, text) for line, text in repeated_keys(self.root)]

    def raise_all(self, mistakes: Iterable[Mistake]) -> None:
        """Raise one UserError with every mistake, in the order of the file; nothing for none."""
        found = sorted(set(mistakes))
        if found:
            lines = [f"{self.name}:{mistake.line}: {mistake.text}" for mistake in found]
            raise MistakesError(lines)


class MistakesError(UserError):
    """All mistakes of a file, one a line."""

    def __init__(self, lines: list[str]):
        count = f"{len(lines)} mistakes: " if len(lines) > 1 else ""
        super().__init__(count + "\n".join(lines))
        self.lines = lines


def read_document(path: Path) -> Document:
    """The values and nodes of a YAML file; a UserError for one that cannot be read or is no mapping."""
    return parse_document(read_text(path, "study file"), str(path))


def parse_document(text: str, name: str) -> Document:
    """The same from text."""
    root = compose_yaml(text, name)
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{name}: a study file is a YAML mapping with study, backbones and tasks")
    used = compose_yaml(text, name)
    assert used is not None
    values = construct_yaml(used, name)
    if not isinstance(values, dict):  # `!!set` and its like
        raise UserError(f"{name}: a study file is a plain YAML mapping with study, backbones and tasks")
    return Document(name, values, root)


def _child(node: yaml.Node, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        item = node.value[step]
        return item.start_mark.line + 1, item
    return None
