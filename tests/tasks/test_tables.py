"""Files of rows of every kind: dialects, encodings, and the line of what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tasks.errors import UserError
from tasks.tables import FORMATS, rows_in

ROWS = [
    {"text": "plain words", "label": "good"},
    {"text": 'he said "no", twice; or | not', "label": "bad"},
    {"text": "two\nlines\tand a tab", "label": "good"},
    {"text": "naïve Ärger", "label": "bad"},
]


def read(content: bytes | str, name: str) -> list[dict]:
    data = content.encode() if isinstance(content, str) else content
    return [row for _, row in rows_in(data, Path(name))]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_delimited_file_of_any_dialect_and_encoding_gives_its_rows(delimiter, line, encoding):
    text = pd.DataFrame(ROWS).to_csv(index=False, sep=delimiter, lineterminator=line)
    assert read(text.encode(encoding), "f.csv") == ROWS


def test_a_quote_behind_a_backslash_is_read_as_one():
    text = pd.DataFrame(ROWS).to_csv(index=False, doublequote=False, escapechar="\\")
    assert read(text, "f.csv") == ROWS


def test_quotes_of_a_file_without_quoting_are_letters():
    text = 'text\tlabel\n"a fine film" , it says\tgood\n"and\tbad\nno end" here\tgood\n'
    assert [row["text"] for row in read(text, "f.tsv")] == ['"a fine film" , it says', '"and', 'no end" here']
    assert [row["text"] for row in read('text\tlabel\n"a\tbad\nb"\tgood\n', "f.tsv")] == ['"a', 'b"']


def test_commas_of_the_text_are_no_delimiters_of_a_file_of_semicolons():
    text = "text;label\none, two;a\nthree, four;b\nfive, six;a\n"
    assert [row["text"] for row in read(text, "f.csv")] == ["one, two", "three, four", "five, six"]


def test_a_long_document_is_one_field():
    long = "word " * 40_000
    assert read(f'text,label\n"{long}",a\n', "f.csv") == [{"text": long, "label": "a"}]


def test_rows_of_json_lines_a_list_and_parquet_are_the_same(tmp_path):
    lines = "\n".join(map(json.dumps, ROWS))
    assert read(lines, "f.jsonl") == read(lines, "f.ndjson") == read(lines, "f.json") == ROWS
    assert read(lines.encode("utf-16"), "f.jsonl") == ROWS
    assert read(json.dumps(ROWS), "f.json") == ROWS
    pd.DataFrame(ROWS).to_parquet(tmp_path / "f.parquet")
    assert read((tmp_path / "f.parquet").read_bytes(), "f.parquet") == ROWS


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("text,label\na,b\nc,d,e\n", "f.csv", r"f.csv:3: 3 field\(s\) where the first line names 2 column\(s\)"),
        ('text,label\n"a\nb",c\nd\n', "f.csv", r"f.csv:4: 1 field\(s\) where the first line names 2"),
        ("text,text,label\na,b,c\n", "f.csv", "f.csv:1: column 'text' stands there twice"),
        (b"text,label\ncaf\xe9,a\n", "f.csv", r"f.csv:2: not UTF-8 \(byte 0xe9 at column 4\)"),
        (b"\xff\xfea", "f.csv", "f.csv: not UTF-16, as its first bytes say"),
        ("[1, 2]", "f.json", "f.json, row 1: this is a int"),
        ("{}", "f.parquet", "f.parquet: not Parquet that can be read"),
        ("", "f.xlsx", "f.xlsx: rows are read from files whose names end in .jsonl"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_its_place(content, name, message):
    with pytest.raises(UserError, match=message) as caught:
        read(content, name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_any_bytes_are_rows_or_one_line(name):
    import random

    draw = random.Random(0)
    for _ in range(50):
        content = bytes(draw.choice(b'ab,;\t|"\\\n\r\x00\xff{}[]') for _ in range(60))
        try:
            read(content, f"f{name}")
        except UserError as error:
            assert "\n" not in str(error)
