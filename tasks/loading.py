"""Three disjoint splits of a task, wherever its rows come from.

By rule: official validation data is the **test** split and is never used to choose anything; a seeded part of train
is the **validation** split, which selects checkpoints. A run of another seed has another validation split, so that a
spread over seeds is not that of one lucky draw; the test rows are the same for all. Sources: a local folder (`data`), a task's own folder, the
embedded world, the hub. What was loaded, and which revision, is part of the value.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from tasks.errors import UserError
from tasks.folder import USUAL, describe_place, read_folder
from tasks.hub import read_hub
from tasks.tables import FORMATS
from tasks.task import Example, Task, describe_source

VALIDATION_SHARE = 0.1
VALIDATION_ROWS = 500
"""The validation split has a tenth of train, at most this many rows, at least one."""
LEAST_VALIDATION = 32
"""A limit of training rows makes the validation split smaller too: a ninth of the limit (a tenth of all labels that
are seen), but not less than this, below which it chooses almost at random, and never more than the limit."""


class Rows(Protocol):
    """Rows of a source in its own order; None is a row to leave out."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example | None: ...


@dataclass(frozen=True)
class Splits:
    """Train, validation (a part of the source's train) and test (the source's validation), and where they are from."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    source: str
    revision: str
    seed: int = 0
    """What drew the validation rows, and the training rows under a limit."""
    shots: int | None = None
    """Rows of each label in train and in validation, where that is what was drawn."""
    empty: int = 0
    """Rows of the source that were left out on request, because a text of theirs is empty."""

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            if not getattr(self, name):
                raise UserError(
                    f"the {name} split of {self.source} is empty; give at least one row for each split"
                )


def load_splits(
    task: Task,
    *,
    data: Path | None = None,
    seed: int = 0,
    limit_train: int | None = None,
    limit_test: int | None = None,
    shots: int | None = None,
) -> Splits:
    """Load the three splits of a task.

    `data` is a folder that holds `<task>/train.jsonl` and `<task>/validation.jsonl` (or other files of rows, or these
    themselves; folder.py) or one file; it goes before every other source but a folder of the task's own that is there. `seed` chooses the validation rows, and the training rows that a
    limit keeps; limits are drawn at random because many data sets are sorted by label. Limited test rows do not depend
    on it. With `shots` train and validation have so many rows of each label (`divide_shots`). Order within a split is the
    source's.
    """
    return load_seeded(task, [seed], data=data, limit_train=limit_train, limit_test=limit_test, shots=shots)[
        seed
    ]


def load_seeded(
    task: Task,
    seeds: Sequence[int],
    *,
    data: Path | None = None,
    limit_train: int | None = None,
    limit_test: int | None = None,
    shots: int | None = None,
) -> dict[int, Splits]:
    """Seed -> the splits that it draws; the source is read once, and all have the same test rows."""
    for name, limit in (("train", limit_train), ("test", limit_test)):
        if limit is not None and limit < 1:
            raise UserError(f"limit of {limit} {name} rows: give at least 1, or no limit")
    if shots is not None:
        check_shots(task, shots, limit_train)
    source = _read(task, Path(data) if data is not None else None)
    rows, test = source.rows, sample(source.rows["test"], 0, limit_test)
    found = {}
    for seed in dict.fromkeys(seeds):
        if shots is None:
            validation, train = divide(rows["train"], seed, limit_train, source.source)
        else:
            validation, train = divide_shots(rows["train"], task.labels, seed, shots, source.source)
        found[seed] = Splits(
            train, validation, test, source.source, source.revision, seed, shots, source.empty
        )
    return found


def validation_size(rows: int, limit: int | None = None) -> int:
    """How many of the training rows become the validation split: a tenth, at most 500, at least 1.

    With a limit of n training rows: a ninth of n, at least 32, at most n, and never more than without a limit.
    """
    whole = max(1, min(int(rows * VALIDATION_SHARE), VALIDATION_ROWS))
    if limit is None:
        return whole
    return min(whole, limit, max(LEAST_VALIDATION, limit // 9))


def divide(
    rows: Rows, seed: int, limit: int | None, source: str
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """The validation and the train split of the training rows, disjoint, by one seeded shuffle.

    The rows of a smaller limit are among those of a larger one, in both splits, and no row is ever in both.
    """
    size = validation_size(len(rows))
    wanted = None if limit is None else size + limit
    order = list(_shuffled(rows, seed, wanted))
    if len(order) < 2:
        raise UserError(
            f"{source} has {len(order)} training row(s): at least 2 are needed, since a part becomes the validation split"
        )
    return _in_order(order[: validation_size(len(rows), limit)]), _in_order(order[size:])


def check_shots(task: Task, shots: int, limit_train: int | None = None) -> None:
    """Raise UserError where so many rows of each label cannot be drawn for a task, whatever its rows are."""
    if shots < 1:
        raise UserError(f"{shots} shots: give at least 1 row of each label")
    if limit_train is not None:
        raise UserError(
            f"{shots} shots and a limit of {limit_train} training rows: both say which rows are trained on; give one"
        )
    if task.generates:
        raise UserError(
            f"task {task.name!r} writes its answers and has no labels to draw shots of: limit its training rows instead"
        )
    if not task.one_label:
        raise UserError(
            f"task {task.name!r} has no one label a row to draw shots of: limit its training rows instead, as by --limit-train 32"
        )


def divide_shots(
    rows: Rows, labels: Sequence[str], seed: int, shots: int, source: str
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """A validation and a train split of `shots` rows of each label, drawn by seed from the training rows.

    As in few-shot work since Gao et al. 2021 (LM-BFF, arXiv 2012.15723, section 3): validation is as small as train, so that
    a setting is not chosen on rows that a few-shot learner would not have. Of each label the rows go to train and
    validation by turns, so those of fewer shots are among those of more, in both splits, and no row is ever in both.
    """
    kept = _of_each_label(rows, labels, seed, 2 * shots)
    few = _too_few(kept, labels, 2 * shots)
    if few is not None:
        label, there = few
        raise UserError(
            f"{source} has {there} training row(s) of label {label!r}: {shots} shots need {2 * shots}, half of them to "
            f"validate; give at most {there // 2} shots, or more rows"
        )
    train = [drawn for own in kept for drawn in own[::2]]
    validation = [drawn for own in kept for drawn in own[1::2]]
    return _in_order(validation), _in_order(train)


def drawn_by_label(
    rows: Rows, labels: Sequence[str], seed: int, count: int, source: str
) -> tuple[Example, ...]:
    """`count` rows of each label, drawn by seed, in the order of the source."""
    kept = _of_each_label(rows, labels, seed, count)
    few = _too_few(kept, labels, count)
    if few is not None:
        label, there = few
        raise UserError(
            f"{source} has {there} training row(s) of label {label!r}, and {count} were asked for"
        )
    return _in_order([drawn for own in kept for drawn in own])


def _of_each_label(
    rows: Rows, labels: Sequence[str], seed: int, count: int
) -> list[list[tuple[int, Example]]]:
    """For each label the first `count` of its rows in a seeded order, each with its place."""
    kept: list[list[tuple[int, Example]]] = [[] for _ in labels]
    missing = len(labels)
    for place, example in _in_random_order(rows, seed):
        if example.label is None or len(own := kept[example.label]) == count:
            continue
        own.append((place, example))
        missing -= len(own) == count
        if not missing:
            break
    return kept


def _too_few(kept: Sequence[Sequence[object]], labels: Sequence[str], count: int) -> tuple[str, int] | None:
    """The label with the fewest rows and how many it has, where that is less than `count`."""
    label, own = min(zip(labels, kept, strict=True), key=lambda pair: len(pair[1]))
    return (label, len(own)) if len(own) < count else None


def sample(rows: Rows, seed: int, limit: int | None) -> tuple[Example, ...]:
    """At most `limit` rows drawn by seed, in the order of the source."""
    return _in_order(_shuffled(rows, seed, limit))


def _shuffled(rows: Rows, seed: int, wanted: int | None) -> list[tuple[int, Example]]:
    """The first `wanted` usable rows (all, for None) of a seeded shuffle, each with its place in the source."""
    return list(islice(_in_random_order(rows, seed), wanted))


def _in_random_order(rows: Rows, seed: int) -> Iterator[tuple[int, Example]]:
    """The usable rows in a seeded order, each with its place in the source; made one by one, as they are asked for."""
    places = list(range(len(rows)))
    random.Random(f"split|{seed}").shuffle(places)
    for place in places:
        example = rows[place]
        if example is not None:
            yield place, example


def _in_order(drawn: Sequence[tuple[int, Example]]) -> tuple[Example, ...]:
    return tuple(example for _, example in sorted(drawn, key=lambda pair: pair[0]))


@dataclass(frozen=True)
class _Found:
    """The rows of `train` and `test`, where they are from in words, and what there is to say of them."""

    rows: Mapping[str, Rows]
    source: str
    revision: str
    empty: int = 0


def _read(task: Task, data: Path | None) -> _Found:
    if data is not None:
        if not data.exists():
            raise UserError(
                f"--data {data} is not a folder: it must hold {task.name}/{USUAL}, or these themselves, or be one file"
            )
        if task.folder is None or not Path(task.folder).exists():
            return _from_files(task, place_of(task.name, task.splits, data))
    if task.folder is not None:
        return _from_files(task, Path(task.folder))
    if task.world is not None:
        return _from_world(task.world)
    splits, revision = read_hub(task)
    return _Found(splits, describe_source(task), revision)


def place_of(task: str, splits: Mapping[str, str], data: Path) -> Path:
    """Where under `data` the rows of a task are: in a folder of its name, in a file of its name, or there."""
    if data.is_file() or (data / task).is_dir():
        return data if data.is_file() else data / task
    own = [path for suffix in FORMATS if (path := data / f"{task}{suffix}").is_file()]
    if own:
        return own[0]
    holds_rows = any(path.suffix.lower() in FORMATS for path in data.iterdir())
    return data if holds_rows or splits else data / task


def _from_files(task: Task, place: Path) -> _Found:
    found = read_folder(task, place)
    return _Found(found.splits, describe_place(place), found.revision, found.empty)


def _from_world(name: str) -> _Found:
    from tasks.microworld import generate

    splits = {split: generate(name, split) for split in ("train", "test")}
    digest = hashlib.sha256(repr(splits).encode()).hexdigest()
    return _Found(splits, f"embedded world, {name}", f"sha256:{digest[:16]}")
