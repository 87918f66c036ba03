"""Every method in training, on every family: alone and together, stopped and resumed, kept and read again."""

import os
import signal
from functools import cache

import pytest
import torch
from conftest import KINDS
from method_texts import LACKS, TEXTS
from toys import Watcher, label_task, recipe, splits, stop

from prompttransfer.adaptations.adaptation import same_tensors
from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from prompttransfer.adaptations.methods import METHODS, parse_method
from prompttransfer.adaptations.running import bank_of
from prompttransfer.adaptations.starts import start_from
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import evaluate_bank
from prompttransfer.training.train import Job, TrainingOptions, train_adaptations

TASK = label_task()
TRAINED = [name for name, method in METHODS.items() if method.trains]
CASES = [
    (kind, text) for kind in KINDS for name in TRAINED for text in TEXTS[name] if (kind, name) not in LACKS
]
ONCE = [
    (next(kind for kind in (*KINDS[i % 4 :], *KINDS) if (kind, name) not in LACKS), TEXTS[name][0])
    for i, name in enumerate(TRAINED)
]
"""Each method on one family."""
TOGETHER = ("particles",)
"""Methods in which seeds of one task learn from each other."""


def kill(bank):
    os.kill(os.getpid(), signal.SIGKILL)


def jobs(*seeds, **fields):
    return [Job(TASK, splits(), seed, name=f"toy-s{seed}", **fields) for seed in seeds]


def train(backbone, text, *seeds, options=None, plan=None, **fields):
    return train_adaptations(
        backbone, jobs(*seeds, **fields), plan or recipe(), method=parse_method(text), options=options
    )


@pytest.fixture(scope="module")
def trained(tiny):
    """`trained(kind, text, *seeds)`: the runs of a training, made once, and whether the backbone is as it was before."""

    @cache
    def made(kind, text, *seeds):
        before = tiny(kind).digest()
        return train(tiny(kind), text, *seeds), tiny(kind).digest() == before

    return made


def same(first, second):
    return all(
        same_tensors(a.adaptation.tensors, b.adaptation.tensors)
        and same_tensors(a.adaptation.encoder, b.adaptation.encoder)
        and a.adaptation.curve == b.adaptation.curve
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize(("kind", "text"), CASES)
def test_training_moves_every_member_and_leaves_the_backbone_as_it_was(trained, kind, text):
    runs, as_it_was = trained(kind, text, 0, 1)
    for run in runs:
        moved = run.adaptation.initial
        assert not same_tensors(run.adaptation.tensors, moved) or run.adaptation.curve[0].score == max(
            point.score for point in run.adaptation.curve
        )
        assert run.adaptation.method == parse_method(text)
    assert as_it_was


@pytest.mark.parametrize(
    ("kind", "text"), [case for case in CASES if case[1].partition(":")[0] not in TOGETHER]
)
def test_a_bank_trains_each_member_as_if_it_were_alone(trained, kind, text):
    together, _ = trained(kind, text, 0, 1)
    for seed, run in enumerate(together):
        (alone,), _ = trained(kind, text, seed)
        for name, tensor in alone.adaptation.tensors.items():
            torch.testing.assert_close(run.adaptation.tensors[name], tensor, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "text"), ONCE)
@pytest.mark.parametrize("at", [1, 3])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(tiny, trained, tmp_path, kind, text, at):
    whole, _ = trained(kind, text, 0, 1)
    with pytest.raises(RuntimeError):
        train(tiny(kind), text, 0, 1, options=TrainingOptions(tmp_path, progress=Watcher(at, stop)))
    assert same(whole, train(tiny(kind), text, 0, 1, options=TrainingOptions(tmp_path)))


@pytest.mark.parametrize("name", ["ulpt", "residual", "dtvg"])
def test_adafactor_goes_on_with_what_it_keeps_of_parameters_of_any_shape(tiny, tmp_path, name):
    plan, text = recipe(optimizer="adafactor", lr=0.3), TEXTS[name][0]
    whole = train(tiny("t5"), text, 0, plan=plan)
    with pytest.raises(RuntimeError):
        train(tiny("t5"), text, 0, plan=plan, options=TrainingOptions(tmp_path, progress=Watcher(3, stop)))
    assert same(whole, train(tiny("t5"), text, 0, plan=plan, options=TrainingOptions(tmp_path)))


def test_a_lora_that_was_killed_goes_on_bit_for_bit(tiny, tmp_path):
    child = os.fork()
    if child == 0:
        train(
            tiny("roberta"), "lora:rank=2", 0, 1, options=TrainingOptions(tmp_path, progress=Watcher(5, kill))
        )
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    whole = train(tiny("roberta"), "lora:rank=2", 0, 1)
    assert same(whole, train(tiny("roberta"), "lora:rank=2", 0, 1, options=TrainingOptions(tmp_path)))


@pytest.mark.parametrize(("kind", "text"), ONCE)
def test_what_was_trained_is_read_as_it_was_kept(trained, tmp_path, kind, text):
    (run,), _ = trained(kind, text, 0)
    again = load_adaptation(save_adaptation(run.adaptation, tmp_path / "a"))
    assert same_tensors(again.tensors, run.adaptation.tensors)
    assert same_tensors(again.encoder, run.adaptation.encoder)
    assert again.digest == run.adaptation.digest
    for field in ("method", "origin", "encoding", "scores", "curve", "name"):
        assert getattr(again, field) == getattr(run.adaptation, field)


@pytest.mark.parametrize(("kind", "text"), CASES)
def test_the_score_that_was_kept_is_that_of_the_bank_that_is_made_of_it(tiny, trained, kind, text):
    backbone = tiny(kind)
    own = [run.adaptation for run in trained(kind, text, 0, 1)[0]]
    bank = bank_of(backbone, own)
    encoded = encode_task(backbone, TASK, splits().validation, reserved=bank.reserved)
    for adaptation, score in zip(own, evaluate_bank(backbone, bank, encoded), strict=True):
        best = max(adaptation.curve, key=lambda point: (point.score, -(point.validation_loss or 0)))
        assert score.value == best.score
        assert score.loss == pytest.approx(best.validation_loss, abs=1e-5)


@pytest.mark.parametrize(("kind", "text"), ONCE)
def test_training_goes_on_from_what_was_kept(tiny, trained, tmp_path, kind, text):
    (run,), _ = trained(kind, text, 0)
    source = load_adaptation(save_adaptation(run.adaptation, tmp_path / "a"))
    (again,) = train(tiny(kind), text, 5, start=start_from(source))
    assert same_tensors(again.adaptation.initial, source.tensors)
    assert again.adaptation.origin.start == "from:toy-s0"
    assert again.adaptation.curve[0].score == max(point.score for point in source.curve)


@pytest.mark.parametrize(("kind", "text"), ONCE)
def test_values_that_are_not_finite_end_their_own_member_only(tiny, trained, kind, text):
    def poison(bank):
        with torch.no_grad():
            next(bank.members[0].parameters()).fill_(float("nan"))

    clean, _ = trained(kind, text, 0, 1)
    hurt = train(tiny(kind), text, 0, 1, options=TrainingOptions(progress=Watcher(3, poison)))
    assert hurt[0].ended == "not finite" and "not finite at step" in hurt[0].failure
    assert hurt[1].failure is None
    if text.partition(":")[0] in TOGETHER:
        assert all(tensor.isfinite().all() for tensor in hurt[1].adaptation.tensors.values())
        return
    for name, tensor in clean[1].adaptation.tensors.items():
        torch.testing.assert_close(hurt[1].adaptation.tensors[name], tensor, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "text"), CASES)
def test_random_ones_have_the_norms_they_claim(trained, kind, text):
    method = parse_method(text)
    own = [run.adaptation.tensors for run in trained(kind, text, 0, 1)[0]]
    neutral = 1.0 if method.name == "ia3" else 0.0  # scales, of which what they differ from 1 by is learned
    for drawn in method.random_like(own, 4, torch.Generator().manual_seed(0)):
        assert drawn.keys() == own[0].keys()
        fits = [
            all(
                torch.allclose((drawn[n] - neutral).norm(), (given[n] - neutral).norm(), rtol=1e-3)
                for n in drawn
            )
            for given in own
        ]
        assert any(fits) or method.name.startswith("lora")
        method.restored(drawn)
