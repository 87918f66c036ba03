"""Files of rows as people have them: JSON lines, CSV and TSV of any dialect, Parquet. A row is a dict, and says where it stands.

What a delimited file is made of is found by reading it whole under each dialect: one under which every record has as
many fields as the first line names columns. Sampling a few lines, as `csv.Sniffer` does, takes a comma of the text for a
delimiter, and a quote that opens in line 5,000 for none.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tasks.documents import decode, parse_json, parse_json_lines, shortened
from tasks.errors import UserError

DELIMITERS = (",", "\t", ";", "|")
QUOTING: tuple[dict[str, Any], ...] = (
    {"quoting": csv.QUOTE_MINIMAL, "doublequote": True},
    {"quoting": csv.QUOTE_MINIMAL, "doublequote": False, "escapechar": "\\"},
    {"quoting": csv.QUOTE_NONE},
)
"""How a field may hold the delimiter: in quotes, a quote there being written twice or behind a backslash; or not at all."""
WIDEST_FIELD = 2**30
"""Characters of a field; Python's own limit is shorter than documents are."""

Row = tuple[str, dict[str, Any]]
"""Where a row stands (file:line), and its columns."""

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""What a file begins with that is not UTF-8; the first two come first, as UTF-16's mark begins UTF-32's."""


def rows_in(content: bytes, path: Path) -> Iterator[Row]:
    """The rows in the bytes of a file, which is read as its name ends; UserError, with file and line, for a bad one."""
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(
            f"{path}: rows are read from files whose names end in {', '.join(FORMATS)}: save it as one of them"
        )
    return FORMATS[suffix](content, path)


def is_data_file(name: str) -> bool:
    """Whether a name ends as files of rows do."""
    return Path(name).suffix.lower() in FORMATS


def _json_lines(content: bytes, path: Path) -> Iterator[Row]:
    if content.startswith(tuple(mark for mark, _ in BYTE_ORDER_MARKS)):
        content = text_of(content, path).encode()
    for number, row in parse_json_lines(content, str(path)):
        yield f"{path}:{number}", _object(row, f"{path}:{number}")


def _json(content: bytes, path: Path) -> Iterator[Row]:
    """A list of objects, or JSON lines under that name."""
    text = text_of(content, path)
    if not text.lstrip().startswith("["):
        yield from _json_lines(text.encode(), path)
        return
    for number, row in enumerate(parse_json(text, str(path), any_number=True), 1):
        yield f"{path}, row {number}", _object(row, f"{path}, row {number}")


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UserError(
            f"{where}: this is a {type(row).__name__}; each line must be one JSON object like {{...}}"
        )
    return row


def _parquet(content: bytes, path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(content))
        rows = table.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: not Parquet that can be read ({shortened(str(error))})") from None
    for number, row in enumerate(rows, 1):
        yield f"{path}, row {number}", row


# Delimited text --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reading:
    """A delimited text under one dialect, up to the first record that does not fit."""

    columns: list[str]
    records: list[tuple[int, list[str]]]
    """Line that a record begins in, and its fields."""
    problem: str = ""
    """What is wrong with the next record; nothing where all fit."""


def _delimited(content: bytes, path: Path, *, delimiters: Iterable[str] = DELIMITERS) -> Iterator[Row]:
    text = text_of(content, path)
    with _wide_fields():
        readings = [_read(text, mark, style, path) for mark in delimiters for style in QUOTING]
    readings = [reading for reading in readings if len(reading.columns) > 1] or readings
    fitting = [reading for reading in readings if not reading.problem]
    # Quotes that are part of the text swallow delimiters and line ends until the next one: the reading of more is right.
    best = max(fitting or readings, key=lambda reading: (len(reading.columns), len(reading.records)))
    if best.problem:
        raise UserError(best.problem)
    _check_columns(best.columns, path)
    for line, fields in best.records:
        yield f"{path}:{line}", dict(zip(best.columns, fields, strict=True))


def _read(text: str, delimiter: str, style: dict[str, Any], path: Path) -> _Reading:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, **style)
    columns: list[str] = []
    records: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for fields in reader:
            begun, line = line, reader.line_num + 1
            if not fields:
                continue
            if not columns:
                columns = [name.strip() for name in fields]
            elif len(fields) != len(columns):
                return _Reading(columns, records, _wrong_width(f"{path}:{begun}", fields, columns, delimiter))
            else:
                records.append((begun, fields))
    except csv.Error as error:
        return _Reading(columns, records, f"{path}:{line}: not a table that can be read ({error})")
    return _Reading(columns, records)


def _wrong_width(where: str, fields: list[str], columns: list[str], delimiter: str) -> str:
    called = "tab" if delimiter == "\t" else repr(delimiter)
    return (
        f"{where}: {len(fields)} field(s) where the first line names {len(columns)} column(s) "
        f"({shortened(', '.join(columns))}): put a text that holds a {called} or a line end in double quotes"
    )


def _check_columns(columns: list[str], path: Path) -> None:
    twice = [name for name in columns if name and columns.count(name) > 1]
    if twice:
        raise UserError(f"{path}:1: column {twice[0]!r} stands there twice: give each its own name")


@contextmanager
def _wide_fields() -> Iterator[None]:
    before = csv.field_size_limit(WIDEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def text_of(content: bytes, path: Path) -> str:
    """The text in the bytes of a file: in the encoding that its byte-order mark names, else UTF-8."""
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if content.startswith(mark)), None)
    if encoding is None:
        return decode(content, str(path))
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not {encoding.upper()}, as its first bytes say ({error.reason} at byte {error.start}): save the "
            f"file as UTF-8"
        ) from None


FORMATS: dict[str, Callable[[bytes, Path], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _delimited,
    ".tsv": partial(_delimited, delimiters=("\t",)),
    ".parquet": _parquet,
}
"""How a name ends -> how its rows are read."""
TEXT_ALONE = (".csv", ".tsv")
"""Where every value is text: no lists, no numbers."""
