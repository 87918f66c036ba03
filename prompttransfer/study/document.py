"""A YAML file with the place of everything in it: mistakes are told by line, and all of them together.

`yaml.compose` keeps a mark at every node; `Document.line` finds the line of a key or an item by its path, or of the
nearest thing above it that is there. What the file may say is spec.py's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tasks.errors import UserError


class Loader(yaml.SafeLoader):
    """YAML as people expect it (1.2): ON, yes and no are words, only true and false are not; 1e-3 is a number."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(?:true|false)$"), list("tf"))
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\d+\.\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+)$"),
    list("-+.0123456789"),
)

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
        return sorted(_repeated(self.root))

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
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"no study file {path}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; a study file is YAML") from None
    except OSError as error:
        raise UserError(f"cannot read study file {path}: {error.strerror or error}") from None
    return parse_document(text, str(path))


def parse_document(text: str, name: str) -> Document:
    """The same from text."""
    try:
        root = yaml.compose(text, Loader=Loader)
        values = yaml.load(text, Loader=Loader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise UserError(
            f"{name}{where}: not YAML ({getattr(error, 'problem', None) or 'unreadable'})"
        ) from None
    if not isinstance(root, yaml.MappingNode) or not isinstance(values, dict):
        raise UserError(f"{name}: a study file is a YAML mapping with study, backbones and tasks")
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


def _repeated(node: yaml.Node) -> list[Mistake]:
    found: list[Mistake] = []
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                found.append(
                    Mistake(
                        line,
                        f"key {key.value!r} stands here a second time (first in line {seen[key.value]}): keep one",
                    )
                )
            elif isinstance(key, yaml.ScalarNode):
                seen[key.value] = line
            found += _repeated(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            found += _repeated(item)
    return found
