"""Text, JSON and YAML from outside: plain values, or one line that names the place; and never a long wait."""

import errno
import json
import os
import time

import pytest

from tasks.documents import (
    DEEPEST,
    parse_json,
    parse_json_lines,
    parse_yaml,
    read_json,
    read_json_object,
    read_text,
    read_yaml,
)
from tasks.errors import MissingError, UnreadableError, UserError


def nested(levels):
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' stands twice"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": -Infinity}', "-Infinity is no number"),
        ('{"a": 1e999}', "too large"),
        ('{"a": 18446744073709551616}', "too large"),
        ("9" * 5000, "not JSON that can be read"),
        (nested(DEEPEST + 2), "nested more than 100 deep"),
        (nested(100_000), "nested more than 100 deep"),
        ('{"a":' * 100_000, "nested more than 100 deep"),
        (r'{"a": "\ud800"}', "surrogate"),
        ('{"a": 1', "line 1|column 8"),
        ("", "column 1"),
        ('{"a": 1}\x00', "Extra data"),
    ],
)
def test_json_that_is_not_plain_is_one_line(text, problem):
    with pytest.raises(UserError, match=problem) as caught:
        parse_json(text, "here")
    assert str(caught.value).startswith("here: ") and len(str(caught.value)) < 200


def test_plain_json_is_read_with_every_digit_and_without_a_mark():
    value = {"a": [1, 2.5, None, True, "é"], "b": {"c": 0.1 + 0.2, "d": 2**64 - 1}}
    assert parse_json(json.dumps(value), "here") == value
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(value).encode(), "here") == value
    assert parse_json(nested(DEEPEST), "here")


def test_rows_of_people_may_hold_any_number():
    lines = b'{"id": 123456789012345678901234567890, "x": NaN}\n\n{"id": 2}\r\n'
    (first, row), (second, other) = parse_json_lines(lines, "in.jsonl")
    assert (first, row["id"], second, other) == (1, 123456789012345678901234567890, 3, {"id": 2})
    with pytest.raises(UserError, match=r"in.jsonl:2: .*key 'a' stands twice"):
        list(parse_json_lines(b'{"a": 1}\n{"a": 1, "a": 2}\n', "in.jsonl"))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: 1\nb: 2\na: 3\n", ":3: key 'a' stands here a second time .first in line 1"),
        ("a: {b: 1, b: 2}", ":1: key 'b' stands here a second time"),
        ("x: 1\na: 2026-02-30\n", ":2: '2026-02-30' cannot be read"),
        ("a: 0x_\n", ":1: '0x_'"),
        ("x:\n  - !!bool maybe\n", ":2: 'maybe'"),
        ("a: !!timestamp x\n", ":1: 'x'"),
        ("a: !!int x\n", ":1: 'x'"),
        ("a: !!float x\n", ":1: 'x'"),
        ("a: !!binary é\n", ":1: "),
        ("a: !!python/object:os.system x\n", ":1: not YAML"),
        ("? [a]\n: b\n", "unhashable key"),
        ("a: " + "9" * 5000, ":1: "),
        ("a: 0x" + "f" * 20_000, "80000 bits is too large"),
        ('a: "\\ud800"\n', "surrogate"),
        ("a: &x {b: *x}\n", "stands inside what it names"),
        ("a: &x\n  <<: *x\n", "stands inside what it names"),
        ("a: " + nested(DEEPEST + 2), "nested more than 100 deep"),
        ("[" * 100_000, "nested more than 100 deep"),
        ("{a: " * 100_000, "nested more than 100 deep"),
        ("- " * 5_000, "nested more than 100 deep"),
        ("a: \x00", "not YAML"),
        ("a: 1\n---\nb: 1\n", "not YAML"),
        ("x" * 600_000, "too many"),
    ],
)
def test_yaml_that_cannot_be_read_is_one_line_at_once(text, place):
    begun = time.perf_counter()
    with pytest.raises(UserError, match=place) as caught:
        parse_yaml(text, "here.yaml")
    assert time.perf_counter() - begun < 2
    assert str(caught.value).startswith("here.yaml") and len(str(caught.value)) < 300


def bomb(item, first):
    """Nine aliases of nine aliases, ten times: 400 bytes that would unfold to 3 thousand million values."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{n}: &a{n} {item.format(aliases=', '.join([f'*a{n - 1}'] * 9), n=n)}" for n in range(1, 11)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        bomb("[{aliases}]", "[x, x, x]"),
        bomb("{{<<: [{aliases}], y{n}: 1}}", "{x: 1}"),
        "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 1500))]),
    ],
)
def test_aliases_that_unfold_to_much_are_refused_before_they_unfold(text):
    begun = time.perf_counter()
    with pytest.raises(UserError, match=r"aliases unfold to more|nested more than 100 deep"):
        parse_yaml(text, "here.yaml")
    assert time.perf_counter() - begun < 2


def test_plain_aliases_and_merges_are_read():
    text = "common: &c {steps: 3, lr: 1e-3}\na: {<<: *c, steps: 4}\nb: *c\n"
    assert parse_yaml(text, "here")["a"] == {"steps": 4, "lr": 1e-3}


def test_what_is_no_file_is_refused_at_once(tmp_path):
    with pytest.raises(MissingError, match="no thing"):
        read_text(tmp_path / "none", "thing")
    with pytest.raises(UserError, match="is a folder"):
        read_json(tmp_path, "thing")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="no regular file"):
        read_yaml(tmp_path / "pipe", "thing")
    with pytest.raises(UserError, match="cannot be a file's name"):
        read_text(tmp_path / "a\x00b", "thing")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(UserError, match="must be a JSON object"):
        read_json_object(tmp_path / "list.json", "thing")
    (tmp_path / "latin").write_bytes(b"one\ntw\xe9")
    with pytest.raises(UserError, match=r"latin:2: not UTF-8 \(byte 0xe9 at column 3\)"):
        read_text(tmp_path / "latin", "thing")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
def test_a_file_that_cannot_be_read_now_is_the_machines_fault(tmp_path, monkeypatch, code):
    path = tmp_path / "a.json"
    path.write_text("{}")

    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(type(path), "read_bytes", refuse)
    with pytest.raises(UnreadableError, match="cannot be read"):
        read_json(path, "thing")
