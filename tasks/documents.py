"""Text, JSON and YAML from outside: the one place that reads them, so that what is wrong with a file is one line.

Reading costs little whatever stands in the file: nesting, aliases and numbers have limits, nothing is constructed but
plain values, and a key that stands twice is an error, not a choice. Tensors are read by prompttransfer/tensor_files.py.
"""

from __future__ import annotations

import errno
import json
import math
import re
import stat
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from tasks.errors import MissingError, UnreadableError, UserError

DEEPEST = 100
"""Levels of lists and mappings in each other; no file of ours or of the hub's has more than a dozen."""

MOST_NODES = 200_000
"""Values of a YAML file, those behind aliases counted each time that they are named."""

MOST_LETTERS = 500_000
"""Length of a YAML text, whose parser is slow; the longest study that was written here has 4,000."""

LARGEST = 2**64
"""Whole numbers of records are smaller: what is larger fits no tensor, no seed and no step."""

Model = TypeVar("Model", bound=BaseModel)

_HALF = re.compile("[\ud800-\udfff]")

_MISSING = {errno.ENOENT, errno.ENOTDIR}


def read_bytes(path: Path, what: str) -> bytes:
    """The content of the regular file `path`; `what` names its kind in messages, as in 'task file'.

    Raises MissingError if there is none, UserError if it is no regular file, UnreadableError if it cannot be read now.
    """
    path = Path(path)
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise UserError(f"{what} {path} is a folder: give the file")
        if not stat.S_ISREG(kind):  # a pipe would be waited for, a device never ends
            raise UserError(f"{what} {path} is no regular file (a pipe, socket or device): give a file")
        return path.read_bytes()
    except UserError:
        raise
    except OSError as error:
        raise cannot_read(path, what, error) from None
    except ValueError:  # a NUL in the name
        raise UserError(f"{what} {str(path)!r} cannot be a file's name") from None


def cannot_read(path: Path, what: str, error: OSError) -> UserError | UnreadableError:
    """The error for a file that is not there (MissingError) or cannot be read (UnreadableError)."""
    if error.errno in _MISSING:
        return MissingError(f"no {what} {path}")
    if error.errno in {errno.ENAMETOOLONG, errno.ELOOP}:
        return UserError(f"{what} {path} cannot be opened: {error.strerror}")
    return UnreadableError(f"{what} {path} cannot be read: {error.strerror or error}; it was left as it is")


def read_text(path: Path, what: str) -> str:
    """The UTF-8 text of `path`, without a byte-order mark."""
    return decode(read_bytes(path, what), str(path))


def decode(data: bytes, source: str) -> str:
    """`data` as UTF-8 text; UserError with the place of the first byte that is not."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = f":{data.count(bytes([10]), 0, error.start) + 1}" if b"\n" in data else ""
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise UserError(
            f"{source}{line}: not UTF-8 (byte {data[error.start]:#04x} at column {column}): save the file as UTF-8"
        ) from None


# JSON ------------------------------------------------------------------------------------------------------------


def read_json(path: Path, what: str, *, any_number: bool = False) -> Any:
    """The value of a JSON file; see `parse_json` for `any_number`."""
    return parse_json(read_bytes(path, what), f"{what} {path}", any_number=any_number)


def read_json_object(path: Path, what: str, *, any_number: bool = False) -> dict[str, Any]:
    """The value of a JSON file that must be an object."""
    value = read_json(path, what, any_number=any_number)
    if not isinstance(value, dict):
        raise UserError(f"{what} {path} holds a {type(value).__name__}: it must be a JSON object {{...}}")
    return value


def parse_json(data: bytes | str, source: str, *, any_number: bool = False) -> Any:
    """The value of JSON text; UserError for anything but plain JSON: NaN, a key twice, nesting beyond DEEPEST.

    With `any_number` also NaN, infinity and whole numbers beyond LARGEST, which people's rows, the settings of models and our own losses have.
    """
    text = decode(data, source) if isinstance(data, bytes) else data

    def refuse(problem: str) -> UserError:
        return UserError(f"{source}: not JSON that can be read ({problem})")

    try:
        value = (_ANY_NUMBER if any_number else _PLAIN).decode(text)
    except _WrongJSONError as error:
        raise refuse(str(error)) from None
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text else ""
        raise refuse(f"{error.msg}: {line}column {error.colno}") from None
    except RecursionError:
        raise refuse(f"nested more than {DEEPEST} deep") from None
    except ValueError as error:  # a whole number of thousands of digits
        raise refuse(str(error).split(";")[0]) from None
    _check_depth(value, refuse)
    if "\\u" in text:
        _check_letters(value, refuse)
    return value


def parse_json_lines(data: bytes, source: str) -> Iterator[tuple[int, Any]]:
    """Number and value of every line that is not empty; numbers may be any."""
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            yield number, parse_json(line, f"{source}:{number}", any_number=True)


def checked(model: type[Model], value: Any, source: str) -> Model:
    """`value` as a record; UserError with the first place that is not as the record says."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "the whole"
        raise UserError(f"{source} is damaged: {shortened(place)}: {shortened(first['msg'])}") from None


def shortened(text: str, letters: int = 120) -> str:
    """`text` as it may stand in a message: one line of no more than so many letters."""
    line = " ".join(text.split())
    return line if len(line) <= letters else line[: letters - 3] + "..."


class _WrongJSONError(Exception):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _WrongJSONError(f"key {shortened(twice)!r} stands twice in one object: keep one")
    return found


def _no_constant(name: str) -> Any:
    raise _WrongJSONError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _WrongJSONError(f"{digits[:20]} is too large a number")
    return value


def _whole(digits: str) -> int:
    value = int(digits)
    if abs(value) >= LARGEST:
        raise _WrongJSONError(f"{digits[:20]} is too large a number")
    return value


_PLAIN = json.JSONDecoder(
    object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole
)
_ANY_NUMBER = json.JSONDecoder(object_pairs_hook=_once)


def _check_depth(value: Any, refuse: Callable[[str], UserError]) -> None:
    level, depth = [value], 0
    while level := [inner for outer in level for inner in _inner(outer)]:
        depth += 1
        if depth > DEEPEST:
            raise refuse(f"nested more than {DEEPEST} deep")


def _inner(value: Any) -> list[Any]:
    found = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [inner for inner in found if isinstance(inner, dict | list)]


def _check_letters(value: Any, refuse: Callable[[str], UserError]) -> None:
    """Half of a surrogate pair is no letter: nothing that holds one can be written or printed."""
    todo = [value]
    while todo:
        part = todo.pop()
        if isinstance(part, str):
            if _HALF.search(part):
                raise refuse("half of a surrogate pair, which is no letter")
        elif isinstance(part, dict):
            todo += [*part, *part.values()]
        elif isinstance(part, list):
            todo += part


# YAML ------------------------------------------------------------------------------------------------------------


class PlainLoader(yaml.SafeLoader):
    """PyYAML's (1.1: a bare yes or no is a truth value) with a limit to nesting, told before Python's own is reached."""

    depth = 0
    flow_level: int

    def fetch_flow_collection_start(self, token: Any) -> None:
        """The scanner looks far ahead of what is composed, in a time that grows with the square of the levels."""
        if self.flow_level > DEEPEST:
            mark = self.get_mark()
            raise yaml.scanner.ScannerError(None, None, f"nested more than {DEEPEST} deep", mark)
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """A node with all that is in it."""
        self.depth += 1
        try:
            if self.depth > DEEPEST:
                mark = self.peek_event().start_mark
                raise yaml.composer.ComposerError(None, None, f"nested more than {DEEPEST} deep", mark)
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class Loader(PlainLoader):
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


def read_yaml(path: Path, what: str, loader: type[PlainLoader] = Loader) -> Any:
    """The value of a YAML file."""
    return parse_yaml(read_text(path, what), str(path), loader)


def parse_yaml(text: str, source: str, loader: type[PlainLoader] = Loader) -> Any:
    """The value of YAML text; UserError with the line for a key given twice or a scalar that is not what it says."""
    root = compose_yaml(text, source, loader)
    if root is None:
        return None
    if twice := repeated_keys(root):
        line, problem = twice[0]
        raise UserError(f"{source}:{line}: {problem}")
    return construct_yaml(root, source, loader)


def compose_yaml(text: str, source: str, loader: type[PlainLoader] = Loader) -> yaml.Node | None:
    """The nodes of YAML text, each with its line; None for an empty text. UserError for what is no YAML or too much."""
    if len(text) > MOST_LETTERS:
        raise UserError(
            f"{source}: {len(text)} letters are too many for a YAML file (at most {MOST_LETTERS})"
        )
    try:
        root: yaml.Node | None = yaml.compose(text, Loader=loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
        raise UserError(f"{source}{where}: not YAML ({shortened(str(problem))})") from None
    if root is not None:
        _check_size(root, source)
    return root


def construct_yaml(root: yaml.Node, source: str, loader: type[PlainLoader] = Loader) -> Any:
    """The plain values of nodes by `compose_yaml`, which are used up: what `<<` names is written into them."""
    maker = loader("")
    try:
        value = maker.construct_document(root)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or root.start_mark
        problem = getattr(error, "problem", None) or "unreadable"
        raise UserError(f"{source}:{mark.line + 1}: not YAML ({shortened(str(problem))})") from None
    except (ValueError, TypeError, OverflowError, KeyError, AttributeError, RecursionError):
        line, text = _refused_scalar(root, loader)
        raise UserError(
            f"{source}:{line}: {shortened(text)!r} cannot be read as what YAML takes it for: put it in quotes"
        ) from None
    finally:
        maker.dispose()
    _check_values(value, source)
    return value


def repeated_keys(root: yaml.Node) -> list[tuple[int, str]]:
    """Line and message of every key that stands twice in one mapping; YAML would keep the last one silently."""
    found = []
    for node in _nodes(root):
        if not isinstance(node, yaml.MappingNode):
            continue
        seen: dict[Hashable, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                first = seen[key.value]
                found.append(
                    (
                        line,
                        f"key {shortened(key.value)!r} stands here a second time (first in line {first}): keep one",
                    )
                )
            elif isinstance(key, yaml.ScalarNode):
                seen[key.value] = line
    return sorted(found)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _nodes(root: yaml.Node) -> Iterator[yaml.Node]:
    """Every node once, however many aliases name it."""
    seen, todo = {id(root)}, [root]
    while todo:
        node = todo.pop()
        yield node
        for child in _children(node):
            if id(child) not in seen:
                seen.add(id(child))
                todo.append(child)


def _check_size(root: yaml.Node, source: str) -> None:
    """Refuse what would unfold to too much: aliases of aliases (also in `<<`), a node inside itself, a deep nesting."""
    known: dict[int, tuple[int, int] | None] = {}

    def refuse(node: yaml.Node, problem: str) -> UserError:
        return UserError(f"{source}:{node.start_mark.line + 1}: {problem}")

    def measure(node: yaml.Node) -> tuple[int, int]:
        """Values and levels of a node; recursion ends, as composing bounds the nesting and aliases are known."""
        if id(node) in known:
            found = known[id(node)]
            if found is None:
                raise refuse(node, "an alias stands inside what it names: write it without")
            return found
        known[id(node)] = None
        inner = [measure(child) for child in _children(node)]
        size = 1 + sum(values for values, _ in inner)
        levels = 1 + max((below for _, below in inner), default=0)
        if size > MOST_NODES:
            raise refuse(node, f"aliases unfold to more than {MOST_NODES} values: write it without them")
        if levels > DEEPEST + 1:
            raise refuse(node, f"nested more than {DEEPEST} deep")
        known[id(node)] = size, levels
        return size, levels

    measure(root)


def _check_values(value: Any, source: str) -> None:
    """Refuse what no record can hold: huge whole numbers (hexadecimal ones could not even be printed), half a letter."""
    seen: set[int] = set()
    todo = [value]
    while todo:
        part = todo.pop()
        if isinstance(part, int) and abs(part) >= LARGEST:
            raise UserError(
                f"{source}: a whole number of {part.bit_length()} bits is too large: put it in quotes"
            )
        if isinstance(part, str) and _HALF.search(part):
            raise UserError(
                f"{source}: half of a surrogate pair, which is no letter, in {shortened(ascii(part))}"
            )
        if isinstance(part, dict | list) and id(part) not in seen:
            seen.add(id(part))
            todo += [*part, *part.values()] if isinstance(part, dict) else part


def _refused_scalar(root: yaml.Node, loader: type[PlainLoader]) -> tuple[int, str]:
    """Line and text of the first scalar that the loader's constructors refuse, else those of the document."""
    maker = loader("")
    for node in sorted(_nodes(root), key=lambda node: node.start_mark.index):
        if isinstance(node, yaml.ScalarNode):
            try:
                maker.construct_object(node)
            except Exception:
                return node.start_mark.line + 1, node.value
    return root.start_mark.line + 1, "this"
