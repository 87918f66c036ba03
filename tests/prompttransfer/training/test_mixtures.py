"""One prompt for several tasks together: how often each comes, by what it is read, and what it is worth."""

from collections import Counter
from dataclasses import replace

import pytest
from toys import Watcher, label_task, pair_task, question_task, recipe, splits, stop

from prompttransfer.adaptations.adaptation import same_tensors
from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.adaptations.running import bank_of
from prompttransfer.backbones.layouts import LAYOUTS, USUAL
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import evaluate_bank
from prompttransfer.training.train import Job, RowEncoder, TrainingOptions, bank_data, train_adaptations
from prompttransfer.transfers.tuning import with_mixture_scores
from tasks.errors import UserError
from tasks.task import Example

PROMPT = parse_method("prompt:length=3")
ONE, OTHER = label_task("one"), label_task("other", bad="bad", good="good")


def mixed(first=12, second=4, seed=0):
    """A job over two tasks with so many training rows, whose texts and words differ."""
    rows, more = splits("film", "food", "room"), splits("dog", "cat", "cold")
    return Job(
        ONE,
        replace(rows, train=rows.train[:first]),
        seed,
        beside=((OTHER, replace(more, train=more.train[:second])),),
    )


def trained(backbone, *jobs, options=None, method=PROMPT, **values):
    return train_adaptations(backbone, jobs, recipe(**values), method=method, options=options)


def test_each_task_comes_as_often_as_it_has_rows_with_its_own_words(tiny):
    backbone, job, plan = tiny("roberta"), mixed(12, 4), recipe(batch=4, steps=8)
    encoder = RowEncoder(backbone, 3, USUAL)
    rows = encoder.train(job)
    assert Counter(row.answers.labels for row in rows) == {ONE.labels: 12, OTHER.labels: 4}
    data = bank_data(backbone, [rows], [job], plan, PROMPT, LAYOUTS["prompt-first"])
    seen = Counter()
    for step in range(plan.steps):  # 32 rows, two passes over 16
        planned = [row for part in data.plan(step, [0]) for _, row, _ in part]
        seen += Counter(row.answers.labels for row in planned)
    assert seen == {ONE.labels: 24, OTHER.labels: 8}


def test_a_mixture_is_chosen_by_the_mean_score_of_its_tasks(tiny):
    backbone, job = tiny("roberta"), mixed()
    (run,) = trained(backbone, job)
    own = run.adaptation
    assert own.task == own.name == "one+other"
    last = max(own.curve, key=lambda point: (point.score, -point.validation_loss))
    scores = []
    for task, rows in job.parts:
        encoded = encode_task(backbone, task, rows.validation, reserved=3)
        scores += evaluate_bank(backbone, bank_of(backbone, [own]), encoded)
    assert last.score == pytest.approx(sum(score.value for score in scores) / 2)
    assert last.validation_loss == pytest.approx(sum(score.loss for score in scores) / 2, abs=1e-5)
    assert own.origin.data["train"] == 16
    assert [part["train"] for part in own.origin.data["mixture"]] == [12, 4]


def test_a_mixture_has_a_test_score_on_each_task(tiny, tmp_path):
    backbone, job = tiny("roberta"), mixed()
    (run,) = trained(backbone, job)
    own = with_mixture_scores(backbone, run, job.parts, USUAL).adaptation
    test = own.scores["test"]
    assert test["accuracy"] == pytest.approx(sum(test["tasks"].values()) / 2)
    assert test["tasks"].keys() == {"one", "other"} and test["rows"] == 24
    again = load_adaptation(save_adaptation(own, tmp_path / "a"))
    assert again.scores == own.scores and again.origin == own.origin


def test_a_mixture_that_was_stopped_goes_on_bit_for_bit(tiny, tmp_path):
    backbone = tiny("roberta")
    (whole,) = trained(backbone, mixed())
    with pytest.raises(RuntimeError):
        trained(backbone, mixed(), options=TrainingOptions(tmp_path, progress=Watcher(3, stop)))
    (again,) = trained(backbone, mixed(), options=TrainingOptions(tmp_path))
    assert same_tensors(whole.adaptation.tensors, again.adaptation.tensors)
    assert whole.adaptation.curve == again.adaptation.curve


def test_a_mixture_beside_a_single_task_leaves_it_as_it_is(tiny):
    backbone = tiny("roberta")
    single = Job(ONE, splits(), 0, name="single")
    (alone,) = trained(backbone, single)
    together, _ = trained(backbone, single, mixed())
    assert together.adaptation.curve[-1].score == alone.adaptation.curve[-1].score


def test_tasks_that_are_written_and_tasks_with_labels_mix(tiny):
    question = question_task()
    asked = tuple(
        Example(f"who was {word}", "the film was " + word, references=(word,)) for word in ("dull", "fresh")
    )
    rows = replace(splits(), train=asked, validation=asked, test=asked)
    (run,) = trained(tiny("t5"), replace(mixed(), beside=((question, rows),)), steps=2)
    assert run.adaptation.scores["validation"].keys() == {"mean", "step"}
    assert run.adaptation.origin.words == {"negative": "terrible", "positive": "great"}


def test_a_probe_cannot_learn_other_classes_beside_its_own(tiny):
    three = replace(mixed(), beside=((pair_task(), splits()),))
    with pytest.raises(UserError, match="probe"):
        trained(tiny("roberta"), three, method=parse_method("probe"))
