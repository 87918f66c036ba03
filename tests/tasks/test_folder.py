"""Rows from a local folder: the neutral fields, and every way in which a file can be bad."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.catalog import TASKS
from tasks.errors import UserError
from tasks.folder import read_folder, read_lines
from tasks.loading import load_splits
from tasks.task import Example

SST2 = TASKS["sst2"]
FINE = b'{"text": "a fine film", "label": "positive"}\n'


def read(task: str, *rows: dict) -> list[Example]:
    return read_lines(TASKS[task], "\n".join(map(json.dumps, rows)).encode(), Path("f.jsonl"))


def test_each_kind_has_its_neutral_fields():
    assert read("sst2", {"text": " a film ", "label": "negative"}) == [Example("a film", label=0)]
    assert read("qnli", {"text_a": "q?", "text_b": "s", "label": "entailment"}) == [Example("q?", "s", 1)]
    squad = {"question": "q", "context": "c", "answers": ["a", "b"]}
    assert read("squad", squad) == [Example("q", "c", references=("a", "b"))]
    assert read("nq_open", {"question": "q", "context": "", "answers": ["a"]}) == [
        Example("q", references=("a",))
    ]
    assert read("scitldr", {"document": "d", "summary": "s"}) == [Example("d", references=("s",))]


def test_an_aspect_stands_behind_its_sentence():
    row = {"text": "the screen is dim", "aspect": "screen", "label": "neutral"}
    assert read("laptop", row) == [Example("the screen is dim screen", label=1)]


def test_windows_line_ends_a_byte_order_mark_and_blank_lines_do_no_harm():
    content = b"\xef\xbb\xbf" + FINE.replace(b"\n", b"\r\n") + b"\r\n\n" + FINE.strip()
    assert len(read_lines(SST2, content, Path("f"))) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "half', "not JSON that can be read .* column 10"),
        (b"[1, 2]", "this is a list"),
        (b'"text"', "this is a str"),
        (b'{"text": "caf\xe9", "label": "positive"}', r"not UTF-8 \(byte 0xe9 at column 14\)"),
        (
            b'{"txt": "a", "label": "positive"}',
            "no 'text'; task 'sst2' needs text, label, this row has txt, label",
        ),
        (b'{"text": "a"}', "no 'label'"),
        (b'{"text": 3, "label": "positive"}', r"'text' is 3 \(a number\); it must be text"),
        (b'{"text": null, "label": "positive"}', "'text' is null"),
        (b'{"text": " ", "label": "positive"}', "'text' is empty"),
        (b'{"text": "\\ud800", "label": "positive"}', "half of a surrogate"),
        (
            b'{"text": "a", "label": "positve"}',
            "unknown label for task 'sst2' 'positve': did you mean 'positive'",
        ),
        (
            b'{"text": "a", "label": 1}',
            r"label is 1 \(a number\); write the name of the label: negative, positive",
        ),
        (b'{"text": "a", "label": true}', r"label is True \(true/false\)"),
        (b'{"text": ' + b"9" * 5000 + b"}", "not JSON that can be read"),
        (b"[" * 100_000, "not JSON that can be read"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(line, message):
    with pytest.raises(UserError, match=message) as caught:
        read_lines(SST2, FINE + b"\n" + line + b"\n" + FINE, Path("in/train.jsonl"))
    assert str(caught.value).startswith(f"{Path('in/train.jsonl')}:3: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ("Paris", "must be a list"),
        ([], "empty list"),
        (["a", 3], "must be text"),
        ([""], "empty"),
        (None, "null"),
    ],
)
def test_answers_must_be_a_list_of_texts(answers, message):
    with pytest.raises(UserError, match=message):
        read("nq_open", {"question": "q", "answers": answers})


def test_missing_folder_missing_file_and_empty_file_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        read_folder(SST2, tmp_path / "sst2")
    with pytest.raises(UserError, match=r"no file .*train\.jsonl"):
        read_folder(SST2, tmp_path)
    (tmp_path / "train.jsonl").write_bytes(b"\n \n")
    with pytest.raises(UserError, match=r"train\.jsonl holds no rows"):
        read_folder(SST2, tmp_path)
    (tmp_path / "train.jsonl").write_bytes(FINE)
    (tmp_path / "validation.jsonl").mkdir()
    with pytest.raises(UserError, match="is a folder: give the file"):
        read_folder(SST2, tmp_path)


def test_the_revision_is_a_digest_of_both_files(tmp_path):
    for name in ("train", "validation"):
        (tmp_path / f"{name}.jsonl").write_bytes(FINE * 2)
    _, first = read_folder(SST2, tmp_path)
    assert read_folder(SST2, tmp_path)[1] == first and first.startswith("sha256:")
    (tmp_path / "train.jsonl").write_bytes(FINE * 3)
    (tmp_path / "validation.jsonl").write_bytes(FINE)
    assert read_folder(SST2, tmp_path)[1] != first, "rows that move between the files change it"


SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real data at {SHARED}")
def test_every_folder_of_real_data_loads_whole():
    folders = sorted(folder.name for folder in SHARED.iterdir() if folder.is_dir())
    for name in folders:
        splits = load_splits(TASKS[name], data=SHARED)
        lines = [
            len((SHARED / name / f).read_bytes().splitlines()) for f in ("train.jsonl", "validation.jsonl")
        ]
        assert [len(splits.train) + len(splits.validation), len(splits.test)] == lines, name
