"""Three disjoint splits: sizes, seeds, limits, order, sources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.catalog import TASKS, find_task
from tasks.errors import UserError
from tasks.loading import Splits, divide, divide_shots, load_seeded, load_splits, sample, validation_size
from tasks.task import Example

ROWS = [Example(f"row {i}", label=i % 2) for i in range(100)]


def write_folder(folder: Path, task: str, train: int, test: int) -> Path:
    (folder / task).mkdir(parents=True)
    for name, rows in (("train", train), ("validation", test)):
        lines = [json.dumps({"text": f"{name} {i}", "label": "positive"}) for i in range(rows)]
        (folder / task / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize(
    ("rows", "size"), [(2, 1), (19, 1), (20, 2), (4999, 499), (5000, 500), (393_000, 500)]
)
def test_validation_is_a_tenth_of_train_at_least_1_at_most_500(rows, size):
    assert validation_size(rows) == size


def test_validation_and_train_are_disjoint_and_together_the_whole():
    validation, train = divide(ROWS, 0, None, "here")
    assert len(validation) == 10 and not set(validation) & set(train)
    assert set(validation) | set(train) == set(ROWS)


def test_the_seed_chooses_the_validation_rows():
    assert divide(ROWS, 0, None, "here") == divide(ROWS, 0, None, "here")
    assert divide(ROWS, 0, None, "here")[0] != divide(ROWS, 1, None, "here")[0]


@pytest.mark.parametrize(
    ("limit", "size"), [(10, 10), (64, 32), (288, 32), (900, 100), (4500, 500), (50_000, 500), (None, 500)]
)
def test_a_limit_of_train_limits_validation_in_proportion(limit, size):
    assert validation_size(60_000, limit) == size


def test_a_limit_never_makes_validation_larger():
    assert validation_size(100, 64) == 10 and validation_size(100, 5) == 5


def test_limited_rows_are_among_those_of_a_larger_limit_and_never_in_both_splits():
    rows = [Example(f"row {i}", label=i % 2) for i in range(2000)]
    whole = divide(rows, 0, None, "here")
    drawn = [divide(rows, 0, limit, "here") for limit in (900, 400, 64, 10)]
    assert [(len(v), len(t)) for v, t in drawn] == [(100, 900), (44, 400), (32, 64), (10, 10)]
    for (validation, train), (more, larger) in zip(drawn, [whole, *drawn], strict=False):
        assert set(validation) <= set(more) and set(train) <= set(larger)
        assert not set(validation) & set(train)


def test_seeds_draw_their_own_validation_rows_and_share_the_test_rows(tmp_path):
    folder = write_folder(tmp_path, "sst2", 100, 20)
    found = load_seeded(TASKS["sst2"], [0, 1, 0], data=folder, limit_train=30, limit_test=5)
    assert list(found) == [0, 1] and [splits.seed for splits in found.values()] == [0, 1]
    assert found[0].validation != found[1].validation and found[0].train != found[1].train
    assert found[0].test == found[1].test
    assert found[1] == load_splits(TASKS["sst2"], data=folder, seed=1, limit_train=30, limit_test=5)


def test_a_limit_draws_from_the_whole_split_in_the_order_of_the_source():
    drawn = sample(ROWS, 0, 20)
    places = [ROWS.index(example) for example in drawn]
    assert len(drawn) == 20 and places == sorted(places) and max(places) > 50, "not the head of a sorted file"
    assert sample(ROWS, 0, None) == tuple(ROWS)
    assert sample(ROWS, 0, 1000) == tuple(ROWS)


def test_rows_that_are_left_out_do_not_count_against_a_limit():
    rows = [None if i % 3 else example for i, example in enumerate(ROWS)]
    assert len(sample(rows, 0, 30)) == 30 and None not in sample(rows, 0, None)


def test_test_rows_are_the_validation_file_and_train_rows_are_not_among_them(tmp_path):
    splits = load_splits(TASKS["sst2"], data=write_folder(tmp_path, "sst2", 40, 7))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (36, 4, 7)
    assert all(example.first.startswith("validation") for example in splits.test)
    assert all(example.first.startswith("train") for example in splits.train + splits.validation)
    assert splits.source == f"folder {tmp_path / 'sst2'}" and splits.revision.startswith("sha256:")


def test_one_training_row_is_too_few(tmp_path):
    with pytest.raises(UserError, match="1 training row"):
        load_splits(TASKS["sst2"], data=write_folder(tmp_path, "sst2", 1, 1))


def test_a_data_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--data .*nowhere is not a folder"):
        load_splits(TASKS["sst2"], data=tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no folder .*sst2.* train\.jsonl and validation\.jsonl"):
        load_splits(TASKS["sst2"], data=tmp_path)


@pytest.mark.parametrize("limits", [{"limit_train": 0}, {"limit_test": -1}])
def test_a_limit_below_one_is_refused(limits):
    with pytest.raises(UserError, match="give at least 1"):
        load_splits(find_task("microworld-imdb"), **limits)


def test_splits_cannot_be_empty():
    with pytest.raises(UserError, match="the test split of here is empty"):
        Splits(tuple(ROWS), tuple(ROWS), (), "here", "1")


def test_the_embedded_world_needs_no_disk_and_gives_the_same_rows_each_time():
    first = load_splits(find_task("microworld-imdb"), limit_train=30, limit_test=10)
    assert first == load_splits(find_task("microworld-imdb"), limit_train=30, limit_test=10)
    assert (len(first.train), len(first.test)) == (30, 10)
    assert first.source == "embedded world, microworld-imdb"


LABELS = ("negative", "positive")


def of_label(rows, label):
    return [example for example in rows if example.label == label]


def test_shots_are_so_many_rows_of_each_label_to_train_and_as_many_to_validate():
    validation, train = divide_shots(ROWS, LABELS, 0, 16, "here")
    for split in (validation, train):
        assert [len(of_label(split, label)) for label in (0, 1)] == [16, 16]
        places = [ROWS.index(example) for example in split]
        assert places == sorted(places), "in the order of the source"
    assert not set(validation) & set(train)


def test_shots_are_drawn_by_seed_and_fewer_are_among_more_in_both_splits():
    assert divide_shots(ROWS, LABELS, 1, 4, "here") == divide_shots(ROWS, LABELS, 1, 4, "here")
    assert divide_shots(ROWS, LABELS, 1, 4, "here")[1] != divide_shots(ROWS, LABELS, 0, 4, "here")[1]
    (fewer_held, fewer), (held, more) = (divide_shots(ROWS, LABELS, 0, shots, "here") for shots in (4, 16))
    assert set(fewer) <= set(more) and set(fewer_held) <= set(held)


def test_shots_pass_over_rows_that_are_left_out_and_name_the_label_that_has_too_few():
    rows = [None if i % 3 else example for i, example in enumerate(ROWS)]
    assert None not in divide_shots(rows, LABELS, 0, 8, "here")[1]
    with pytest.raises(UserError, match=r"here has 17 .*'negative': 9 shots need 18, .* at most 8 shots"):
        divide_shots(rows, LABELS, 0, 9, "here")


def test_shots_are_a_property_of_the_splits_and_exclude_a_limit_and_tasks_that_write():
    task = find_task("microworld-imdb")
    splits = load_splits(task, shots=2, seed=3, limit_test=5)
    assert (len(splits.train), len(splits.validation), len(splits.test), splits.shots) == (4, 4, 5, 2)
    with pytest.raises(UserError, match="both say which rows are trained on"):
        load_splits(task, shots=2, limit_train=10)
    with pytest.raises(UserError, match="give at least 1 row of each label"):
        load_splits(task, shots=0)
    with pytest.raises(UserError, match="'microworld-squad' writes its answers and has no labels"):
        load_splits(find_task("microworld-squad"), shots=2)
