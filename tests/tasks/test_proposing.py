"""Tasks that are made from data: a CSV file, a data set as on the hub, and what is said where that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.catalog import NLI, POLARITY
from tasks.errors import UserError
from tasks.loading import load_splits
from tasks.proposing import free_name, guess_columns, see_files, task_of_data, words_for
from tasks.reading import Reading, parse_reading
from tasks.records import task_of_record, task_record


def csv(path: Path, header: str, *rows: str) -> str:
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


@pytest.fixture
def reviews(tmp_path) -> str:
    return csv(
        tmp_path / "my reviews.csv", "id,body,stars", *(f"{i},film {i},{1 + 4 * (i % 2)}" for i in range(20))
    )


def test_a_file_is_a_task_whose_labels_are_its_values(reviews):
    task = task_of_data(reviews, Reading({"text": "body", "label": "stars"}))
    assert (task.name, task.kind, task.type, task.labels) == ("my-reviews", "sentence", "own", ("1", "5"))
    splits = load_splits(task)
    assert (len(splits.train) + len(splits.validation), len(splits.test)) == (16, 4)
    assert all(row.label == int(row.first.split()[1]) % 2 for row in splits.test)
    assert task_of_record(task_record(task), "here") == task, "what is trained on it keeps it"


def test_values_may_be_given_names_whose_words_are_those_of_the_shipped_tasks(reviews):
    reading = parse_reading(["text=body", "label=stars"], ["1=negative", "5=positive"])
    task = task_of_data(reviews, reading)
    assert (task.type, task.labels) == ("sentiment", ("negative", "positive"))
    assert task.words["masked-lm"]["negative"] == POLARITY["negative"]
    assert {row.label for row in load_splits(task).train} == {0, 1}


def test_words_are_those_of_the_type_that_the_labels_tell_else_the_labels_own_names():
    type_, words = words_for(["entailment", "neutral", "contradiction"])
    assert type_ == "nli" and words["t5"]["neutral"] == NLI["t5"]["neutral"]
    assert words_for(["Strong_Favor", "against"]) == (
        "own",
        {f: {"Strong_Favor": ("strong favor",), "against": ("against",)} for f in ("masked-lm", "t5")},
    )


@pytest.mark.parametrize(
    ("header", "row", "columns", "kind"),
    [
        ("text,label", "a,b", [], "sentence"),
        ("q1,q2,same", "a,b,c", ["text_a=q1", "text_b=q2", "label=same"], "pair"),
        ("question,context,answers,text,label", "a,b,c,d,e", [], "extractive-qa"),
        ("question,context,answers,text,label", "a,b,c,d,e", ["text=question"], "sentence"),
        ("article,short", "a,b", ["document=article", "summary=short"], "summarisation"),
    ],
)
def test_the_kind_is_that_whose_fields_are_there(tmp_path, header, row, columns, kind):
    rows = (row, row.replace("a", "x").replace("c", "y").replace(",b", ",z").replace("e", "w"))
    path = csv(tmp_path / "f.csv", header, *rows)
    assert task_of_data(path, parse_reading(columns)).kind == kind


def test_columns_are_guessed_from_what_people_call_them(tmp_path):
    path = csv(tmp_path / "f.csv", "Id,Sentence1,Sentence2,Label", "1,a,b,c")
    assert guess_columns(see_files(Path(path))) == {
        "text_a": "Sentence1", "text_b": "Sentence2", "label": "Label",
    }  # fmt: skip
    assert guess_columns(see_files(Path(csv(tmp_path / "g.csv", "tweet,label", "a,b")))) == {"text": "tweet"}


@pytest.fixture
def hub(tmp_path) -> str:
    """A folder as `datasets` reads one from the hub."""
    import datasets

    for split, rows in (("train", 20), ("validation", 6)):
        table = {
            "sentence": [f"{split} {i}" for i in range(rows)],
            "stance": [-1 if i == 3 else i % 2 for i in range(rows)],
            "kind": ["for" if i % 2 else "against" for i in range(rows)],
        }
        features = datasets.Features(
            sentence=datasets.Value("string"),
            stance=datasets.ClassLabel(names=["negative", "positive"]),
            kind=datasets.Value("string"),
        )
        datasets.Dataset.from_dict(table, features=features).to_parquet(tmp_path / "set" / f"{split}.parquet")
    return f"hub:{tmp_path / 'set'}"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def test_a_data_set_of_the_hub_has_the_names_of_its_classes(hub):
    task = task_of_data(hub, Reading({"text": "sentence", "label": "stance"}))
    assert (task.name, task.type, task.labels) == ("set", "sentiment", ("negative", "positive"))
    splits = load_splits(task)
    assert len(splits.train) + len(splits.validation) == 19, "-1 is a row without a label"
    assert (splits.test[0].first, splits.test[0].label) == ("validation 0", 0)
    assert task_of_record(task_record(task), "here") == task


def test_its_labels_may_be_text_and_its_splits_be_said(hub):
    reading = Reading({"text": "sentence", "label": "kind"}, splits={"train": "validation", "test": "train"})
    task = task_of_data(hub, reading)
    assert task.labels == ("against", "for") and load_splits(task).test[1].label == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["text=sentnce", "label=kind"], "has no column 'sentnce', only sentence, stance, kind"),
        (["text=sentence"], "has the columns sentence, stance, kind: say which is which, as in --columns"),
    ],
)
def test_columns_that_are_not_there_are_named(hub, columns, message):
    with pytest.raises(UserError, match=message):
        task_of_data(hub, parse_reading(columns))


def test_a_split_or_a_data_set_that_is_not_there_is_named(hub):
    with pytest.raises(UserError, match="has no split 'dev', only train, validation"):
        task_of_data(hub, parse_reading(["text=sentence", "label=kind"], splits=["test=dev"]))
    with pytest.raises(UserError, match="'hub:' names no data set"):
        task_of_data("hub:")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a,b", "c,b"], r"has 1 different value\(s\), as b; labels are 2 to 100"),
        ([f"a,{i}" for i in range(200)], r"has 200 different value\(s\), as 0, 1, 2"),
        (["a,b", "c,"], r"1 row\(s\) have no label in column 'label'"),
        ([], "holds no rows"),
    ],
)
def test_a_column_that_holds_no_labels_is_said_to(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        task_of_data(csv(tmp_path / "f.csv", "text,label", *rows))


def test_a_fraction_is_no_label(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_text('{"text": "a", "label": 0.5}\n{"text": "b", "label": 1}\n')
    with pytest.raises(UserError, match="holds numbers with a fraction"):
        task_of_data(str(path))


def test_truth_values_are_labels_and_lists_are_none(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_text("".join(f'{{"text": "t {i}", "label": {("true", "false")[i % 2]}}}\n' for i in range(9)))
    task = task_of_data(str(path))
    assert task.labels == ("False", "True") and {row.label for row in load_splits(task).train} == {0, 1}
    path.write_text('{"text": "a", "label": ["x"]}\n{"text": "b", "label": ["y"]}\n')
    with pytest.raises(UserError, match="column 'label' holds lists or objects"):
        task_of_data(str(path))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({"columns": ["text"]}, "--columns 'text' is not of the form text=body"),
        ({"labels": ["0=a", "0=b"]}, "--labels names '0' twice"),
        ({"splits": ["=x"]}, "--splits '=x' is not of the form test=dev"),
    ],
)
def test_pairs_that_are_none_are_named(pairs, message):
    with pytest.raises(UserError, match=message):
        parse_reading(**pairs)


def test_a_name_is_free_and_safe():
    assert [free_name(name) for name in ("sst2", "a b/c..d", "...")] == ["own-sst2", "a-b-c-d", "task"]
