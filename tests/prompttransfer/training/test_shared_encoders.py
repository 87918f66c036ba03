"""P-tuning with one encoder for several tasks, and with vectors beside the encoded ones."""

from __future__ import annotations

import pytest
import torch
from toys import Watcher, label_task, recipe, splits, stop

from prompttransfer.adaptations.adaptation import PROMPT_KEY, same_tensors
from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.adaptations.starts import start_from
from prompttransfer.training.train import Job, TrainingOptions, train_adaptations
from tasks.errors import UserError

SHARED = "p-tuning:length=3,hidden=8,shared=true"
TASKS = {"one": label_task(name="one"), "two": label_task(name="two", negative="bad", positive="good")}


def poison(bank):
    with torch.no_grad():
        bank.members[0].embedding.fill_(float("nan"))


def train(backbone, *names, text=SHARED, plan=None, options=None, seeds=(0,), **fields):
    jobs = [
        Job(TASKS[name], splits(), seed, name=f"{name}-s{seed}", **fields) for name in names for seed in seeds
    ]
    return train_adaptations(backbone, jobs, plan or recipe(), method=parse_method(text), options=options)


def encoder_of(run):
    return {name: value for name, value in run.adaptation.encoder.items() if "." in name}


def last_point(run):
    return run.adaptation.curve[-1]


@pytest.mark.parametrize("kind", ["roberta", "t5"])
@pytest.mark.parametrize("text", [SHARED, f"{SHARED},encoder=mlp", f"{SHARED},free=1"])
def test_the_encoder_learns_from_the_sum_of_the_losses_of_its_tasks(tiny, kind, text):
    """The gradients of the first step, before AdamW makes steps of one size of them."""
    seen = {}

    def look(bank):
        members = list(bank.members)
        seen["one"] = members[0].head[0].weight.grad.clone()
        assert members[0].head is members[1].head and members[0].lstm is members[1].lstm
        assert members[0].embedding is not members[1].embedding

    alone = []
    for name in TASKS:

        def keep(bank):
            alone.append(bank.members[0].head[0].weight.grad.clone())

        train(tiny(kind), name, text=text, options=TrainingOptions(progress=Watcher(1, keep)))
    train(tiny(kind), *TASKS, text=text, options=TrainingOptions(progress=Watcher(1, look)))
    torch.testing.assert_close(seen["one"], alone[0] + alone[1], atol=1e-6, rtol=1e-4)


def test_a_shared_encoder_that_was_stopped_goes_on_bit_for_bit(tiny, tmp_path):
    whole = train(tiny("roberta"), *TASKS)
    with pytest.raises(RuntimeError):
        train(tiny("roberta"), *TASKS, options=TrainingOptions(tmp_path, progress=Watcher(5, stop)))
    again = train(tiny("roberta"), *TASKS, options=TrainingOptions(tmp_path))
    for first, second in zip(whole, again, strict=True):
        assert same_tensors(first.adaptation.tensors, second.adaptation.tensors)
        assert same_tensors(first.adaptation.encoder, second.adaptation.encoder)
        assert first.adaptation.curve == second.adaptation.curve


def test_tasks_of_another_seed_or_rate_have_an_encoder_of_their_own(tiny):
    def shares(bank):
        groups.extend(sorted(map(sorted, set(bank.together))))

    groups = []
    train(tiny("roberta"), *TASKS, seeds=(0, 1), options=TrainingOptions(progress=Watcher(1, shares)))
    assert groups == [[0, 2], [1, 3]]
    groups.clear()
    train(
        tiny("roberta"),
        "one",
        text="p-tuning:length=3,hidden=8",
        options=TrainingOptions(progress=Watcher(1, shares)),
    )
    assert groups == [[0]]


def test_who_shares_an_encoder_ends_when_all_have_waited(tiny):
    plan = recipe(steps=40, evaluate_every=2, patience=2)
    runs = train(tiny("roberta"), *TASKS, plan=plan)
    assert len({run.steps for run in runs}) == 1
    if runs[0].ended == "patience":
        best = [run.adaptation.scores["validation"]["step"] for run in runs]
        assert runs[0].steps >= max(best) + 2 * plan.evaluate_every


def test_a_loss_that_is_not_finite_ends_all_who_share(tiny):
    runs = train(tiny("roberta"), *TASKS, options=TrainingOptions(progress=Watcher(3, poison)))
    assert [run.ended for run in runs] == ["not finite", "not finite"]
    assert all(run.adaptation.vectors.isfinite().all() for run in runs)


def test_what_is_kept_is_whole_without_the_others(tiny, tmp_path):
    backbone = tiny("roberta")
    (first, second) = train(backbone, *TASKS)
    assert first.adaptation.origin.recipe["shared_by"] == ["one-s0", "two-s0"]
    source = load_adaptation(save_adaptation(second.adaptation, tmp_path / "a"))
    assert set(encoder_of(second)) == {name for name in source.encoder if "." in name}
    (again,) = train(backbone, "one", start=start_from(source))
    assert same_tensors(again.adaptation.initial, source.tensors)


def test_free_vectors_are_kept_behind_the_encoded_ones(tiny):
    method = parse_method("p-tuning:length=3,hidden=8,free=2")
    member = method.member(tiny("roberta"), TASKS["one"], start="random", seed=0)
    plain = parse_method("prompt:length=3").member(tiny("roberta"), TASKS["one"], start="random", seed=0)
    vectors = member.tensors()[PROMPT_KEY]
    assert vectors.shape == (3, 16) and member.embedding.shape == (1, 16)
    assert torch.equal(vectors[1:], plain.tensors()[PROMPT_KEY][1:])


def test_more_free_vectors_than_there_are_is_one_line(tiny):
    method = parse_method("p-tuning:free=3", length=3)
    with pytest.raises(UserError, match=r"p-tuning: free 3 of length 3: give at most 2"):
        method.member(tiny("roberta"), TASKS["one"], start="random", seed=0)
    with pytest.raises(UserError, match=r"p-tuning: free -1: it must be 0 or more"):
        parse_method("p-tuning:free=-1")
