"""Distillation: the distances by hand, gradients of the student alone, banks, resuming, and what cannot teach."""

from __future__ import annotations

import math

import pytest
import torch
from toys import (
    Watcher,
    adapted,
    changed,
    label_task,
    noise,
    pair_task,
    prompt_on,
    question_task,
    recipe,
    splits,
    stop,
)

from prompttransfer.adaptations.adaptation import same_tensors
from prompttransfer.adaptations.bank import VectorBank
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.backbones.interventions import Vectors
from prompttransfer.backbones.layouts import USUAL
from prompttransfer.training.distillation import (
    Answered,
    Distance,
    Teacher,
    Teaching,
    answered,
    divergence,
    squared_difference,
)
from prompttransfer.training.train import Job, TrainingOptions, train_adaptations
from tasks.errors import UserError
from tasks.loading import Splits
from tasks.task import Example

TASK = label_task()
NONE = -math.inf


def log(*shares):
    return torch.tensor([[math.log(share) if share else NONE for share in shares]])


def job(backbone, seed=0, weight: float | None = 0.5, teacher=None, distance=None, **fields):
    own = teacher or prompt_on(backbone, seed=100 + seed)
    given = None if weight is None else Teacher(own, weight, distance or Distance("both"))
    return Job(TASK, splits(), seed, name=f"toy-s{seed}", teacher=given, **fields)


def test_the_squared_difference_is_the_mean_over_the_words_of_a_row():
    student, teacher = torch.tensor([[0.0, -1.0, NONE]]), torch.tensor([[-2.0, -4.0, NONE]])
    assert squared_difference(student, teacher).tolist() == [(4 + 9) / 2]


def test_the_divergence_is_that_of_the_teacher_from_the_student():
    found = divergence(log(0.5, 0.5, 0), log(0.8, 0.2, 0))
    assert found.item() == pytest.approx(0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5))
    # At T = 2 the shares go as the square root: 2 to 1 of 4 to 1.
    warm = divergence(log(0.5, 0.5), log(0.8, 0.2), 2.0)
    assert warm.item() == pytest.approx(4 * (2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)))


def test_states_count_by_the_mean_of_their_squares_and_both_is_the_sum():
    one = Answered(log(0.5, 0.5), torch.tensor([[1.0, 2.0]]))
    other = Answered(log(0.8, 0.2), torch.tensor([[0.0, 4.0]]))
    states = Distance("states").of_rows(one, other)
    assert states.tolist() == [2.5]
    assert Distance("both").of_rows(one, other) == states + Distance("logits").of_rows(one, other)


def test_words_that_a_row_does_not_have_give_no_gradient_and_no_nan():
    raw = torch.tensor([[0.3, -0.2, NONE]], requires_grad=True)
    scores = torch.log_softmax(raw, dim=-1)
    (
        divergence(scores, log(0.8, 0.2, 0), 2.0) + squared_difference(scores, log(0.8, 0.2, 0))
    ).sum().backward()
    assert raw.grad.isfinite().all() and raw.grad[0, 2] == 0


@pytest.mark.parametrize("kind", ["roberta", "t5", "llama"])
@pytest.mark.parametrize("on", ["logits", "states", "both"])
def test_the_loss_of_a_row_is_its_cross_entropy_and_its_weight_times_its_distance(tiny, kind, on):
    backbone = tiny(kind)
    rows = backbone.encode(TASK, splits().train, reserved=3)
    batch = backbone.batch(rows[:4], layout=USUAL.place(backbone.family))
    student = torch.randn(2, 3, backbone.width, requires_grad=True)
    teacher = prompt_on(backbone, seed=7)
    owners = torch.tensor([0, 1, 0, 1])
    teaching = Teaching(backbone, [Teacher(teacher, 0.7, Distance(on)), None])
    losses = teaching.losses(VectorBank(student).rows(owners), batch, owners)
    plain = backbone.loss(VectorBank(student).rows(owners), batch)
    torch.testing.assert_close(losses[1::2], plain[1::2])
    assert (losses[::2] > plain[::2]).all()
    (gradient,) = torch.autograd.grad(losses.sum(), student)
    if on == "logits":
        scores = backbone.label_scores(student[owners], batch)
        with torch.no_grad():
            others = backbone.label_scores(teacher.vectors.expand(4, -1, -1), batch)
        by_hand = plain + torch.tensor([0.7, 0, 0.7, 0]) * (others.exp() * (others - scores)).sum(dim=-1)
        torch.testing.assert_close(losses, by_hand)
        torch.testing.assert_close(gradient, torch.autograd.grad(by_hand.sum(), student)[0])
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("kind", ["roberta", "bert", "t5", "t5-v1.1", "llama", "distilbert"])
def test_scores_of_words_are_those_of_label_words_before_they_are_compared(tiny, kind):
    backbone = tiny(kind)
    rows = backbone.encode(TASK, splits().train, reserved=3)
    batch = backbone.batch(rows[:4], layout=USUAL.place(backbone.family))
    found = answered(backbone, Vectors(noise(4, 3, backbone.width)), batch)
    ids = torch.tensor([pieces[0] for pieces in rows[0].answers.scored])
    logits = backbone.word_logits(found.states, ids)
    torch.testing.assert_close(torch.log_softmax(logits, dim=-1), found.scores, atol=1e-5, rtol=1e-5)


def test_a_student_comes_nearer_to_its_teacher(tiny):
    backbone = tiny("roberta")
    teacher = prompt_on(backbone, seed=5)
    plan = recipe(steps=60, lr=0.05, evaluate_every=60, batch=12)
    near, free = (
        train_adaptations(backbone, [job(backbone, weight=w, teacher=teacher, distance=Distance())], plan)[0]
        for w in (50.0, None)
    )
    rows = backbone.encode(TASK, splits().train, reserved=3)
    batch = backbone.batch(rows, layout=USUAL.place(backbone.family))

    def scores(vectors):
        return backbone.label_scores(vectors.expand(batch.rows, -1, -1), batch)

    apart = [
        divergence(scores(run.adaptation.vectors), scores(teacher.vectors)).mean() for run in (near, free)
    ]
    assert apart[0] < 0.5 * apart[1]


def test_a_bank_of_taught_and_untaught_members_learns_what_each_learns_alone(tiny):
    backbone = tiny("roberta")
    all_jobs = [job(backbone, 0, 0.5), job(backbone, 1, None), job(backbone, 2, 2.0)]
    together = train_adaptations(backbone, all_jobs, recipe())
    for one, run in zip(all_jobs, together, strict=True):
        (alone,) = train_adaptations(backbone, [one], recipe())
        torch.testing.assert_close(run.adaptation.vectors, alone.adaptation.vectors, atol=1e-4, rtol=1e-3)


def test_a_distilled_run_that_was_stopped_goes_on_bit_for_bit(tiny, tmp_path):
    backbone = tiny("roberta")
    plan, all_jobs = recipe(steps=7), [job(backbone, 0), job(backbone, 1, None)]
    whole = train_adaptations(backbone, all_jobs, plan)
    with pytest.raises(RuntimeError):
        train_adaptations(
            backbone, all_jobs, plan, options=TrainingOptions(tmp_path, progress=Watcher(5, stop))
        )
    watcher = Watcher()
    resumed = train_adaptations(backbone, all_jobs, plan, options=TrainingOptions(tmp_path, progress=watcher))
    assert watcher.resumed_at == 4
    for one, other in zip(whole, resumed, strict=True):
        assert same_tensors(one.adaptation.tensors, other.adaptation.tensors)
        assert one.adaptation.curve == other.adaptation.curve


def test_another_weight_does_not_go_on_from_the_state_of_this_one(tiny, tmp_path):
    backbone = tiny("roberta")
    with pytest.raises(RuntimeError):
        train_adaptations(
            backbone, [job(backbone)], recipe(), options=TrainingOptions(tmp_path, progress=Watcher(3, stop))
        )
    watcher = Watcher()
    options = TrainingOptions(tmp_path, progress=watcher)
    (run,) = train_adaptations(backbone, [job(backbone, weight=0.25)], recipe(), options=options)
    assert watcher.resumed_at is None
    assert run.adaptation.origin.recipe["distil"]["weight"] == 0.25


@pytest.mark.parametrize("text", ["lora:rank=2", "probe", "prefix:length=2", "mpt:length=3"])
def test_other_methods_learn_from_a_prompt_and_a_prompt_from_them(tiny, text):
    backbone, plan = tiny("roberta"), recipe(steps=2)
    own = job(backbone, distance=Distance("logits"))
    assert train_adaptations(backbone, [own], plan, method=parse_method(text))[0].steps == 2
    taught = job(backbone, teacher=adapted(backbone, text), distance=Distance("logits"))
    assert train_adaptations(backbone, [taught], plan)[0].steps == 2


def with_teacher(backbone, teacher, task=TASK, own=None, **fields):
    rows = own or splits()
    return lambda: train_adaptations(
        backbone, [Job(task, rows, teacher=Teacher(teacher, 1.0, **fields))], recipe()
    )


QUESTIONS = tuple(Example("who", f"the {noun}", references=("the actor",)) for noun in ("film", "food"))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda b: with_teacher(b, changed(prompt_on(b), backbone="other", revision="weights=1")),
            "trained on other",
        ),
        (lambda b: with_teacher(b, prompt_on(b, task="other")), "was trained on 'other'"),
        (lambda b: with_teacher(b, changed(prompt_on(b), layout="after-bos")), "layout 'after-bos'"),
        (lambda b: lambda: Teacher(prompt_on(b), -0.1), "weight -0.1 of teacher 'toy-s0'"),
        (lambda b: lambda: Teacher(prompt_on(b), math.nan), "give a number of 0 or more"),
        (lambda b: lambda: Distance("words"), "unknown part to distil 'words'"),
        (lambda b: lambda: Distance(of_logits="l1"), "unknown distance to a teacher 'l1'"),
        (lambda b: lambda: Distance(temperature=0), "a number above 0"),
        (
            lambda b: (
                lambda: train_adaptations(b, [job(b, 0), job(b, 1, distance=Distance("logits"))], recipe())
            ),
            "by one distance",
        ),
        (
            lambda b: (
                lambda: train_adaptations(b, [job(b, 0), job(b, 1, teacher=prompt_on(b, length=5))], recipe())
            ),
            "cannot run in one bank",
        ),
        (
            lambda b: lambda: train_adaptations(b, [job(b)], recipe(), method=parse_method("text-search")),
            "follows no gradient",
        ),
        (
            lambda b: with_teacher(b, adapted(b, "probe", task=pair_task("toy")), splits() and TASK),
            "classes",
        ),
    ],
)
def test_mistakes_are_one_line(tiny, act, message):
    with pytest.raises(UserError, match=message) as error:
        act(tiny("roberta"))()
    assert "\n" not in str(error.value)


def test_a_task_whose_answer_is_written_has_no_teacher(tiny):
    backbone, task = tiny("t5"), question_task()
    rows = Splits(QUESTIONS, QUESTIONS, QUESTIONS, "toy rows", "1")
    with pytest.raises(UserError, match="no label words to distil"):
        with_teacher(backbone, prompt_on(backbone, task=task.name), task, rows)()
