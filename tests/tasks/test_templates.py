"""Templates: what a decoder reads of a row, and what is no template."""

import re

import pytest

from tasks.catalog import TASKS, all_tasks
from tasks.custom import read_task_file
from tasks.errors import UserError
from tasks.task import KINDS, Task, with_words
from tasks.templates import TEXTS, USUAL, Frame, read_template

WORDS = {"bad": ("poor",), "good": ("great",)}
YAML = 'name: mine\ntype: sentiment\nkind: sentence\nwords: {bad: poor, good: [great, "yes"]}\n'


def test_the_texts_of_every_kind_are_fields_of_its_rows():
    assert TEXTS.keys() == USUAL.keys() == KINDS.keys()
    assert all(set(texts) <= set(KINDS[kind]) for kind, texts in TEXTS.items())


@pytest.mark.parametrize("task", all_tasks().values(), ids=lambda task: task.name)
def test_every_shipped_task_has_a_cue_and_words_for_decoders(task):
    assert task.frame.after.endswith(":")
    assert set(task.words_of("causal-lm")) == set(task.labels)


def test_a_space_before_a_text_is_the_texts_own():
    assert TASKS["sst2"].frame == Frame("Review:", None, "\nSentiment:", False)
    assert TASKS["snli"].frame == Frame("", "\nQuestion:", " True?\nAnswer:", False)
    assert TASKS["squad"].frame == Frame("", "\nQuestion:", "\nAnswer:", True)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("Review: {txt} Sentiment:", "'txt': did you mean 'text'?"),
        ("Sentiment:", "must name {text} once, as in '{text}\\nAnswer:'"),
        ("{text} {text} Sentiment:", "must name {text} once"),
        ("{{text} Sentiment:", "has a brace that belongs to no field"),
        ("Review:{text} Sentiment:", "a text stands behind a space or a new line"),
        ("Review: {text}", "must end in a cue that is no space"),
        ("Review: {text} ", "must end in a cue that is no space"),
    ],
)
def test_a_text_that_is_no_template_is_one_line(template, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read_template(template, "sentence", "mine")


def test_texts_that_stand_side_by_side_need_something_between():
    with pytest.raises(UserError, match="a text stands behind a space"):
        read_template("{text_a}{text_b} Answer:", "pair", "mine")


def test_a_task_file_of_today_is_valid_and_one_with_a_template_has_it(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(YAML)
    task = read_task_file(file)
    assert task.template == "Review: {text}\nSentiment:"
    assert task.words_of("causal-lm") == task.words["masked-lm"]
    file.write_text(YAML + 'template: "{text} It was"\n')
    assert read_task_file(file).frame == Frame("", None, " It was", False)
    file.write_text(YAML + 'template: "{text}"\n')
    with pytest.raises(UserError, match=r"mine\.yaml: template .* must end in a cue"):
        read_task_file(file)


def test_words_of_a_task_file_may_be_given_for_decoders_alone(tmp_path):
    file = tmp_path / "mine.yaml"
    same = "{bad: poor, good: great}"
    given = f"words: {{masked-lm: {same}, t5: {same}, causal-lm: {{bad: awful, good: fine}}}}\n"
    file.write_text("name: mine\ntype: sentiment\nkind: sentence\n" + given)
    assert read_task_file(file).words_of("causal-lm") == {"bad": ("awful",), "good": ("fine",)}


def test_a_word_chosen_for_a_run_counts_for_decoders_beside_the_words_that_they_have():
    words = {"masked-lm": WORDS, "t5": WORDS}
    task = Task("mine", "sentiment", "sentence", labels=("bad", "good"), words=words)
    assert with_words(task, {"bad": "dull"}).words_of("causal-lm") == {"bad": ("dull",), "good": ("great",)}
    assert with_words(TASKS["snli"], {"neutral": "so"}).words_of("causal-lm")["entailment"] == ("yes",)
