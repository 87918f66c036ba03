"""Rows from a local folder: the neutral fields, and every way in which a file can be bad."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.catalog import TASKS
from tasks.errors import UserError
from tasks.folder import read_folder, read_rows
from tasks.loading import load_splits
from tasks.task import Example, Task

SST2 = TASKS["sst2"]
FINE = b'{"text": "a fine film", "label": "positive"}\n'


def read(task: str, *rows: dict) -> list[Example]:
    return read_rows(TASKS[task], "\n".join(map(json.dumps, rows)).encode(), Path("f.jsonl"))[0]


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
    assert len(read_rows(SST2, content, Path("f.jsonl"))[0]) == 2


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
        read_rows(SST2, FINE + b"\n" + line + b"\n" + FINE, Path("in/train.jsonl"))
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
    (tmp_path / "validation.jsonl").write_bytes(FINE)
    with pytest.raises(UserError, match=r"train\.jsonl holds no rows"):
        read_folder(SST2, tmp_path)
    (tmp_path / "train.jsonl").write_bytes(FINE)
    (tmp_path / "validation.jsonl").unlink()
    (tmp_path / "validation.jsonl").mkdir()
    with pytest.raises(UserError, match="is a folder: give the file"):
        read_folder(SST2, tmp_path)


def test_the_revision_is_a_digest_of_both_files(tmp_path):
    for name in ("train", "validation"):
        (tmp_path / f"{name}.jsonl").write_bytes(FINE * 2)
    first = read_folder(SST2, tmp_path).revision
    assert read_folder(SST2, tmp_path).revision == first and first.startswith("sha256:")
    (tmp_path / "train.jsonl").write_bytes(FINE * 3)
    (tmp_path / "validation.jsonl").write_bytes(FINE)
    assert read_folder(SST2, tmp_path).revision != first, "rows that move between the files change it"


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


REVIEWS = Task(
    "reviews", "sentiment", "sentence", labels=("bad", "good"),
    words={family: {"bad": ("terrible",), "good": ("great",)} for family in ("masked-lm", "t5")},
)  # fmt: skip
CODED = replace(
    REVIEWS, columns={"text": "body", "label": "stars"}, label_values={1: "bad", 5: "good", 3: None}
)


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_folder_of_csv_files_with_columns_label_values_and_split_names_of_its_own(tmp_path):
    write(tmp_path / "learn.csv", "id;body;stars", "1;dull, cold;1", "2;so so;3", "3;fresh, kind;5")
    write(tmp_path / "dev.tsv", "body\tstars", "fine\t5")
    task = replace(CODED, splits={"train": "learn", "test": "dev.tsv"})
    assert read_folder(task, tmp_path).splits == {
        "train": [Example("dull, cold", label=0), Example("fresh, kind", label=1)],
        "test": [Example("fine", label=1)],
    }
    assert load_splits(REVIEWS, data=write_jsonl(tmp_path / "reviews", 20, 5)).source.startswith("folder ")


def write_jsonl(folder: Path, train: int, test: int) -> Path:
    for name, rows in (("train", train), ("validation", test)):
        write(
            folder / f"{name}.jsonl",
            *(json.dumps({"text": f"{name} {i}", "label": "good"}) for i in range(rows)),
        )
    return folder.parent


def test_parts_of_a_split_are_read_in_the_order_of_their_names(tmp_path):
    for number in (1, 0):
        write(tmp_path / f"train-{number}.csv", "text,label", f"part {number},good")
    write(tmp_path / "validation.csv", "text,label", "held,bad")
    found = read_folder(replace(REVIEWS, splits={"train": "train-*"}), tmp_path)
    assert [row.first for row in found.splits["train"]] == ["part 0", "part 1"]


def test_whole_numbers_are_names_of_labels_where_labels_are_called_so():
    words = {family: {"0": ("terrible",), "1": ("great",)} for family in ("masked-lm", "t5")}
    task = replace(REVIEWS, labels=("0", "1"), words=words)
    assert read_rows(task, b'{"text": "a", "label": 1}', Path("f.jsonl"))[0] == [Example("a", label=1)]
    assert read_rows(task, b"text,label\na,1\n", Path("f.csv"))[0] == [Example("a", label=1)]


def test_of_one_file_a_fifth_of_the_texts_is_the_test_split_whatever_stands_beside_them(tmp_path):
    lines = [f"text {i},{'good' if i % 2 else 'bad'}" for i in range(100)]
    path = write(tmp_path / "all.csv", "text,label", *lines, *lines[:10])
    found = read_folder(REVIEWS, path).splits
    train, test = ({row.first for row in found[split]} for split in ("train", "test"))
    assert len(test) == 20 and len(train) == 80 and not train & test, (
        "a text that stands twice is in one split"
    )
    fewer = read_folder(REVIEWS, write(tmp_path / "half.csv", "text,label", *lines[::2])).splits
    assert len({row.first for row in fewer["test"]} & test) > 6, "drawn by the texts, not by their places"
    splits = load_splits(REVIEWS, data=path)
    assert "one text in 5" in splits.source and len(splits.test) == len(found["test"])


def test_splits_of_one_file_are_refused(tmp_path):
    path = write(tmp_path / "all.csv", "text,label", "a,good", "b,bad")
    with pytest.raises(UserError, match="is one file, and splits name files of a folder"):
        read_folder(replace(REVIEWS, splits={"test": "dev"}), path)


def test_an_empty_text_is_an_error_that_names_the_row_or_is_left_out_and_counted(tmp_path):
    for name in ("train", "validation"):
        write(tmp_path / f"{name}.csv", "text,label", "a,good", " ,good", "b,bad")
    with pytest.raises(UserError, match=r"train\.csv:3: 'text' is empty; .*--skip-empty"):
        read_folder(REVIEWS, tmp_path)
    found = read_folder(replace(REVIEWS, skip_empty=True), tmp_path)
    assert (len(found.splits["train"]), found.empty) == (2, 2)
    assert load_splits(replace(REVIEWS, skip_empty=True), data=tmp_path).empty == 2


def test_one_answer_of_a_csv_file_is_a_list_of_one():
    rows = read_rows(TASKS["nq_open"], b"question,answers\nwhere?,Paris\n", Path("f.csv"))[0]
    assert rows == [Example("where?", references=("Paris",))]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ("train.csv", "dev.csv"),
            r"no file .*validation\.jsonl.*there are dev\.csv, train\.csv: .*--splits",
        ),
        (("all.csv",), r"no file .*train\.jsonl.*there is all\.csv: give that file itself"),
        (("train.csv", "train.jsonl", "validation.csv"), "holds both train.jsonl and train.csv: keep one"),
    ],
)
def test_files_that_are_not_what_was_expected_are_named_with_what_to_do(tmp_path, files, message):
    for name in files:
        write(tmp_path / name, "text,label", "a,good")
    with pytest.raises(UserError, match=message):
        load_splits(REVIEWS, data=tmp_path)


def test_a_label_value_that_the_task_does_not_map_is_named():
    with pytest.raises(UserError, match=r"f\.csv:2: unknown label value of task 'reviews' '2': .*1, 3, 5"):
        read_rows(CODED, b"body,stars\nok,2\n", Path("f.csv"))
    with pytest.raises(UserError, match=r"--labels 2=bad"):
        read_rows(REVIEWS, b'{"text": "a", "label": 2}', Path("f.jsonl"))
