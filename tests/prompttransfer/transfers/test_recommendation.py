"""Recommending a source: the order, what it may look at, its reasons, and how the advice is measured."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from toys import changed, label_task, noise, pair_task, prompt_on, sentences, splits

from prompttransfer.adaptations.running import bank_of
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import evaluate_bank
from prompttransfer.transfers.recommendation import (
    ADVICE,
    Candidate,
    Evidence,
    Recommendation,
    in_order,
    indicator_tables,
    leave_one_out,
    recommend,
)
from prompttransfer.transfers.zero_shot import Target
from tasks.errors import UserError
from tasks.loading import sample
from tasks.task import Example

TYPES = {"one": "sentiment", "two": "sentiment", "three": "nli"}


def sources(backbone):
    return [prompt_on(backbone, task=name, seed=i, name=name) for i, name in enumerate(TYPES)]


def target(task=None, **fields):
    return Target(task or label_task("new"), replace(splits(), **fields))


def candidate(source, score, loss=0.5, same_type=True, task=None):
    return Candidate(source, task or source, score, loss, same_type)


def made(*candidates, task="new", rows=16, evidence=(), bare=0.5):
    return Recommendation(task, "accuracy", rows, candidates, bare, 0.5, evidence)


def test_sources_stand_by_rows_right_with_two_more_for_the_type_and_then_their_loss(tiny):
    backbone = tiny("roberta")
    found = recommend(backbone, sources(backbone), [target()], TYPES, rows=8, probe_steps=0)[0]
    rows = encode_task(
        backbone,
        label_task("new"),
        sample(splits().train, 0, 8),
        reserved=3,
    )
    scores = dict(
        zip(TYPES, evaluate_bank(backbone, bank_of(backbone, sources(backbone)), rows), strict=True)
    )
    by_hand = sorted(
        TYPES,
        key=lambda n: (round(8 * scores[n].value, 6) + (0 if n == "three" else 2), -scores[n].loss),
        reverse=True,
    )
    assert [c.source for c in found.candidates] == by_hand
    assert {c.source: c.score for c in found.candidates} == {n: s.value for n, s in scores.items()}
    assert found.rows == 8 and {c.source: c.same_type for c in found.candidates}["three"] is False


def test_two_rows_of_evidence_outweigh_no_type_three_do_and_equals_go_by_overlap():
    def order(*given, rows=10):
        return [c.source for c in in_order(given, rows)]

    assert order(candidate("a", 0.9, same_type=False), candidate("b", 0.8)) == ["b", "a"]
    assert order(candidate("a", 1.0, same_type=False), candidate("b", 0.7)) == ["a", "b"]
    equal = candidate("a", 0.9, loss=0.1), candidate("b", 0.9, loss=0.2)
    assert order(*equal) == ["a", "b"]
    assert order(replace(equal[0], overlap=0.5), replace(equal[1], overlap=0.6)) == ["b", "a"]
    assert order(candidate("a", 0.8, same_type=None), candidate("b", 0.9, same_type=None)) == ["b", "a"]


def test_only_the_drawn_training_rows_are_looked_at(tiny):
    backbone = tiny("roberta")
    poison = Example("a text", label=7)  # a label that the task does not have: looking at it would fail
    clean = recommend(backbone, sources(backbone), [target()], TYPES, rows=6, probe_steps=2)[0]
    drawn = sample(tuple(range(len(splits().train))), 0, 6)
    train = tuple(row if place in drawn else poison for place, row in enumerate(splits().train))
    given = target(test=(poison,), validation=(poison,), train=train)
    again = recommend(backbone, sources(backbone), [given], TYPES, rows=6, probe_steps=2)[0]
    assert [replace(e, seconds=0.0) for e in again.evidence] == [
        replace(e, seconds=0.0) for e in clean.evidence
    ]


def test_rows_that_are_sorted_by_label_are_drawn_from_all_labels(tiny):
    backbone = tiny("roberta")
    # The first twelve rows of forty-eight have one label: taken in order they would be one class alone.
    train = tuple(sorted(splits().train * 4, key=lambda row: row.label))
    found = recommend(backbone, sources(backbone), [target(train=train)], TYPES, rows=12, probe_steps=0)[0]
    assert found.chance < 1
    other = recommend(
        backbone, sources(backbone), [target(train=train)], TYPES, rows=12, probe_steps=0, seed=3
    )
    assert other[0].chance < 1 and other[0].candidates != found.candidates


def test_the_probe_brings_similarity_and_overlap_with_their_cost(tiny):
    backbone = tiny("roberta")
    start = noise(3, 16, seed=9)
    shared = [changed(p, initial=start, start="random") for p in sources(backbone)]
    found = recommend(backbone, shared, [target()], TYPES, rows=12, probe_steps=5)[0]
    evidence = {e.indicator: e for e in found.evidence}
    assert {"few-shot", "few-shot-loss", "same-type", "C_concat", "C_concat-minus-initial", "ON"} <= set(
        evidence
    )
    assert all(set(e.values) == set(TYPES) for e in found.evidence)
    assert evidence["few-shot"].cost == "3 prompts x 12 rows forward"
    assert evidence["E_concat"].cost == "a probe of 5 steps on 12 rows" and evidence["E_concat"].seconds > 0
    assert evidence["ON"].cost == "the same probe, and 4 prompts forward once"
    assert {c.source: c.overlap for c in found.candidates} == evidence["ON"].values
    assert f"ON {found.best.overlap:.2f}" in found.reason(found.best)


def test_a_probe_of_no_use_is_said_and_left_out(tiny, monkeypatch):
    backbone = tiny("roberta")
    probe = prompt_on(backbone, scores={"validation": {"accuracy": 0.5, "step": 0}})
    from prompttransfer.adaptations.adaptation import CurvePoint

    probe = replace(probe, curve=(CurvePoint(0, None, 0.5), CurvePoint(4, 1.0, 0.4)))
    trained = [SimpleNamespace(adaptation=probe)]
    monkeypatch.setattr(
        "prompttransfer.transfers.recommendation.train_adaptations", lambda *given, **more: trained
    )
    found = recommend(backbone, sources(backbone), [target()], TYPES, rows=8)[0]
    assert "learned nothing in 4 steps" in found.notes[-1]
    assert {e.indicator for e in found.evidence} == {"few-shot", "few-shot-loss", "same-type"}


def test_a_target_can_be_left_out_of_its_own_sources(tiny):
    backbone = tiny("roberta")
    own = target(label_task("one"))
    kept, left = (
        recommend(backbone, sources(backbone), [own], TYPES, rows=4, probe_steps=0, leave_own_out=leave)[0]
        for leave in (False, True)
    )
    assert {c.source for c in kept.candidates} == set(TYPES)
    assert {c.source for c in left.candidates} == {"two", "three"}


def test_no_source_and_no_row_are_one_clear_line(tiny):
    backbone = tiny("roberta")
    with pytest.raises(UserError, match="no source prompt is left for one"):
        recommend(backbone, sources(backbone)[:1], [target(label_task("one"))], TYPES, leave_own_out=True)
    with pytest.raises(UserError, match="--rows 0"):
        recommend(backbone, sources(backbone), [target()], TYPES, rows=0)


def test_rows_that_cannot_tell_sources_apart_are_admitted():
    # sqrt(0.75 * 0.25 / 16) = 0.108
    found = made(candidate("a", 0.75), candidate("b", 0.65), candidate("c", 0.64))
    assert [c.source for c in found.undecided] == ["b"]


def test_sources_no_better_than_no_prompt_are_not_praised(tiny):
    backbone = tiny("roberta")
    same = [changed(p, vectors=torch.zeros(3, 16) + 1e-3 * i) for i, p in enumerate(sources(backbone))]
    rows = tuple(row for row in sentences(("film",)) if row.label == 0)
    found = recommend(backbone, same, [target(train=rows)], TYPES, rows=6, probe_steps=0)[0]
    assert found.chance == 1 and "training from scratch may be as good" in found.notes[0]


def test_the_reason_names_score_type_and_what_the_probe_saw():
    on = Evidence("ON", {"a": 0.8, "b": 0.9}, "", 0.0)
    found = made(candidate("a", 0.75), candidate("b", 0.5, same_type=False), evidence=(on,))
    assert found.reason(found.candidates[0]) == "accuracy 0.75 on 16 rows, loss 0.50, same type"
    assert found.reason(found.candidates[1]).endswith("another type, nearest to the probe by ON")
    assert "this very task" in found.reason(candidate("x", 0.9, task="new"))


def test_indicators_become_tables_of_sources_by_targets():
    one = made(candidate("b", 0.9), candidate("c", 0.4), task="a", evidence=(Evidence("few-shot", {"b": 0.9, "c": 0.4}, "", 0),))  # fmt: skip
    two = made(candidate("a", 0.8), candidate("c", 0.7), task="b", evidence=(Evidence("few-shot", {"a": 0.8, "c": 0.7}, "", 0),))  # fmt: skip
    tables = indicator_tables([one, two])
    assert tables["few-shot"].loc["c", "a"] == 0.4 and tables[ADVICE].loc["c", "b"] == -1
    assert pd.isna(tables["few-shot"].loc["b", "b"])


def test_regret_is_what_the_first_choice_loses_in_the_measured_matrix(tiny):
    backbone = tiny("roberta")
    prompts = [prompt_on(backbone, task=t, seed=i, name=f"{t}-p") for i, t in enumerate("abc")]
    transfer = pd.DataFrame(
        [[1.0, 0.6, 0.2], [0.9, 1.0, 0.4], [0.5, 0.8, 1.0]], index=list("abc"), columns=list("abc")
    )

    def advice(task, first, second):
        flag = Evidence("same-type", {f"{first}-p": 1.0, f"{second}-p": 1.0}, "", 0)
        both = candidate(f"{first}-p", 0.9), candidate(f"{second}-p", 0.5)
        return made(*both, task=task, evidence=(flag,))

    found = [advice("a", "b", "c"), advice("b", "a", "c"), advice("c", "b", "a")]
    summary = leave_one_out(found, prompts, transfer)[ADVICE]
    # a: 0.9 - 0.9, b: 0.8 - 0.6, c: 0.4 - 0.4; at random 0.2, 0.1, 0.1
    assert summary.regret == pytest.approx(0.2 / 3) and summary.random_regret == pytest.approx(0.4 / 3)
    assert leave_one_out(found, prompts, transfer)["same-type"].regret == pytest.approx(0.4 / 3)


def test_measuring_needs_one_prompt_a_task(tiny):
    prompts = [prompt_on(tiny("roberta"), task="a", seed=seed) for seed in range(2)]
    with pytest.raises(UserError, match="one prompt a task"):
        leave_one_out([], prompts, pd.DataFrame())


def test_several_targets_share_one_bank_of_probes(tiny):
    backbone = tiny("roberta")
    pairs = tuple(
        Example(row.first, second="the film was fine", label=i % 3)
        for i, row in enumerate(sentences(("film",)))
    )
    targets = [target(), target(pair_task("other"), train=pairs)]
    found = recommend(backbone, sources(backbone), targets, TYPES, rows=6, probe_steps=2)
    assert [item.task for item in found] == ["new", "other"]
    assert found[1].candidates[0].same_type is not None


def worded(backbone):
    words = {"negative": "terrible", "positive": "great"}
    return [changed(source, words=words, initial=noise(3, 16, seed=9)) for source in sources(backbone)]


@pytest.mark.parametrize("by", ["LEEP", "H-score", "step-cosine"])
def test_sources_are_ranked_by_the_indicator_that_is_asked_for(tiny, by):
    backbone = tiny("roberta")
    found = recommend(backbone, worded(backbone), [target()], TYPES, rows=12, probe_steps=0, by=(by, "PARC"))[
        0
    ]
    usual = recommend(backbone, worded(backbone), [target()], TYPES, rows=12, probe_steps=0)[0]
    values = {item.indicator: item.values for item in found.evidence}
    assert {item.indicator for item in usual.evidence} == values.keys() - {by, "PARC"}
    own = [values[by][each.source] for each in found.candidates]
    assert own == sorted(own, reverse=True) and usual.ranked_by == ""
    assert found.ranked_by == found.as_dict()["ranked_by"] == by and found.undecided == ()
    assert found.reason(found.best).startswith(f"{by} {own[0]:.3g}, accuracy")
    assert set(indicator_tables([found])) >= {by, "PARC", ADVICE}


def test_sources_without_a_value_stand_last_and_are_named(tiny):
    backbone = tiny("roberta")
    first, *others = worded(backbone)
    mute = changed(first, words={})
    found = recommend(backbone, [mute, *others], [target()], TYPES, rows=12, probe_steps=0, by=["NCE"])[0]
    assert found.candidates[-1].source == "one"
    assert "NCE says nothing of one, which stand last" in found.notes


@pytest.mark.parametrize(
    ("by", "words"),
    [
        ("LogMe", "unknown indicator to rank by 'LogMe': did you mean 'LogME'"),
        ("task2vec", "unknown indicator to rank by 'task2vec'"),
        ("ON", "--by ON compares sources with a probe: give --probe-steps"),
        ("LEEP", "LEEP reads the label words of a source, and 'one' .* has none"),
    ],
)
def test_what_sources_cannot_be_ranked_by_is_one_line(tiny, by, words):
    backbone = tiny("roberta")
    with pytest.raises(UserError, match=words):
        recommend(backbone, sources(backbone), [target()], TYPES, rows=8, probe_steps=0, by=[by])
