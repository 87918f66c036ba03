"""The embedded world: what its generator promises, each rule on a value worked by hand."""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from tasks.errors import UserError
from tasks.microworld import BUILDERS, WORLD_TASKS, generate, texts
from tasks.microworld.answers import BOOK
from tasks.microworld.ethics import BAD_DEEDS, DUTIES, GOOD_DEEDS, HARSH_ACTS, KIND_ACTS
from tasks.microworld.inference import Scene, changed, question
from tasks.microworld.words import CATEGORY, DEEDS, NAMES, THINGS, a, other

LABELLED = [name for name, task in WORLD_TASKS.items() if not task.generates]


def test_every_type_of_the_paper_has_its_tasks():
    types = Counter(task.type for task in WORLD_TASKS.values())
    assert types == {"sentiment": 6, "nli": 3, "ethics": 2, "paraphrase": 2, "qa": 2, "summarisation": 2}


def test_names_cannot_be_mistaken_for_the_real_data_sets():
    assert all(name.startswith("microworld-") and task.world == name for name, task in WORLD_TASKS.items())


@pytest.mark.parametrize("name", WORLD_TASKS)
def test_no_row_occurs_twice_and_no_test_row_in_train(name):
    train = [texts(row) for row in generate(name, "train", rows=300)]
    test = [texts(row) for row in generate(name, "test")]
    assert len(set(train)) == 300
    assert len(set(test)) == len(test)
    assert not set(train) & set(test)


@pytest.mark.parametrize("name", WORLD_TASKS)
def test_the_same_seed_gives_the_same_rows_and_another_seed_others(name):
    assert generate(name, "train", rows=20) == generate(name, "train", rows=20)
    assert generate(name, "train", rows=20, seed=1) != generate(name, "train", rows=20, seed=2)


def test_rows_are_the_same_on_every_machine():
    assert generate("microworld-justice", "test", rows=1)[0].first == (
        "because rosa protected iris on monday , paul trusted clara ."
    )


@pytest.mark.parametrize("name", LABELLED)
def test_labels_are_nearly_balanced(name):
    counts = Counter(row.label for row in generate(name, "test"))
    classes = len(WORLD_TASKS[name].labels)
    assert set(counts) == set(range(classes))
    assert max(counts.values()) < 1.25 * 400 / classes


@pytest.mark.parametrize("name", WORLD_TASKS)
def test_rows_fill_the_fields_of_their_kind(name):
    task = WORLD_TASKS[name]
    for row in generate(name, "test")[:50]:
        assert (row.second is not None) == (task.kind in ("pair", "extractive-qa"))
        assert bool(row.references) == task.generates
        assert (row.label is None) == task.generates


def test_an_unknown_task_or_split_is_a_clear_error():
    with pytest.raises(UserError, match="microworld-imdb"):
        generate("microworld-imbd", "train")
    with pytest.raises(UserError, match="train"):
        generate("microworld-imdb", "trian")
    with pytest.raises(UserError, match="at least 1"):
        generate("microworld-imdb", "train", rows=-1)


def test_more_rows_than_a_task_has_is_a_clear_error():
    with pytest.raises(UserError, match="fewer than"):
        generate("microworld-nq-open", "train", rows=100_000)


def test_changing_a_thing_takes_one_of_another_category():
    rng = random.Random(0)
    base = Scene("anna", 0, "dog", colour="red")
    for _ in range(50):
        assert CATEGORY[changed(rng, base, "thing", NAMES).thing] != "animal"
        assert changed(rng, base, "colour", NAMES).colour not in ("red", "")


def test_a_question_asks_for_its_slot():
    buy = next(i for i, group in enumerate(DEEDS) if group[0].base == "buy")
    told = Scene("anna", buy, "dog", colour="red", place="park", day="monday")
    rng = random.Random(0)
    assert question(rng, told, "colour") == "what colour was the dog of anna ?"
    assert question(rng, told, "place").startswith("where did anna ")
    assert question(rng, told, "day").startswith("when did anna ")
    assert question(rng, told, "who").startswith("who ")


def _claimed(text: str, values: set[str]) -> set[str]:
    return set(text.split()) & values


def test_a_paraphrase_keeps_every_slot_and_its_opposite_changes_one():
    group = {form: i for i, verbs in enumerate(DEEDS) for verb in verbs for form in (verb.base, verb.past)}
    for row in generate("microworld-qqp", "test")[:100]:
        assert row.second is not None
        start = {
            "how",
            "can",
            "i",
            "what",
            "is",
            "the",
            "best",
            "way",
            "to",
            "do",
            "people",
            "there",
            "a",
            "an",
        }
        first = {group.get(word, word) for word in row.first.split()} - start
        second = {group.get(word, word) for word in row.second.split()} - start
        assert len(first ^ second) == (0 if row.label == 1 else 2)


def test_an_entailed_category_is_that_of_the_thing():
    for row in generate("microworld-snli", "test"):
        assert row.second is not None
        named = _claimed(row.second, set(THINGS))
        if named and row.label == 2:
            assert any(thing in row.first.split() for thing in THINGS[named.pop()])


def test_justice_is_fine_only_if_treatment_and_deed_agree():
    for row in generate("microworld-justice", "test"):
        words = set(row.first.split())
        kind, harsh = bool(words & set(KIND_ACTS)), bool(words & set(HARSH_ACTS))
        good, bad = bool(words & set(GOOD_DEEDS)), bool(words & set(BAD_DEEDS))
        assert kind != harsh and good != bad
        if row.label == 1:
            assert kind == good


def test_an_excuse_holds_if_the_thing_is_already_as_it_should_be():
    feed = [row for row in generate("microworld-deontology", "train") if " feed the " in f" {row.first}"]
    assert DUTIES["feed"][0] == "full"
    for row in feed:
        assert row.second is not None
        if row.label == 1 and " is " in row.second and "house" not in row.second and "son" not in row.second:
            assert row.second.split()[-2] == "full"


def test_the_answer_to_a_question_stands_in_its_context():
    for row in generate("microworld-squad", "test"):
        assert row.second is not None and row.references[0] in row.second.split()


def test_the_closed_book_answers_alike_however_it_is_asked():
    asked: dict[str, set[str]] = {}
    for row in generate("microworld-nq-open", "train"):
        country, what = next(
            key for key in BOOK if key[0] in row.first.split() and key[1] in row.first.split()
        )
        asked.setdefault(f"{country} {what}", set()).update(row.references)
        assert row.references == (BOOK[country, what],)
    assert all(len(answers) == 1 for answers in asked.values())


@pytest.mark.parametrize("name", ["microworld-samsum", "microworld-multi-news"])
def test_a_summary_is_not_the_first_sentence(name):
    for row in generate(name, "test")[:50]:
        first = set(row.first.split(" . ")[0].split())
        summary = row.references[0].split()
        assert sum(word in first for word in summary) < len(summary) / 2


def test_every_label_has_a_builder_for_each_of_its_labels():
    for name in LABELLED:
        for label in range(len(WORLD_TASKS[name].labels)):
            assert BUILDERS[name](random.Random(label), label).label == label


def test_articles_and_alternatives():
    assert a("apple") == "an apple"
    assert a("pear") == "a pear"
    assert other(random.Random(0), ("one", "two"), "one") == "two"


def test_no_row_of_a_task_is_drawn_for_the_pretraining_text(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    import microworld_text

    rng, name = random.Random(0), "microworld-justice"
    forbidden = {texts(row) for row in generate(name, "train")} | {
        texts(row) for row in generate(name, "test")
    }
    drawn = [texts(microworld_text.draw(rng, name, forbidden)) for _ in range(2000)]
    assert not forbidden & set(drawn)
    sys.modules.pop("microworld_text")
