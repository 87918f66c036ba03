"""Evaluation: a bank scores as its prompts do one at a time, and every row is answered once."""

from dataclasses import replace

import pytest
import torch
from toys import label_task, noise, pair_task, question_task, sentences

from prompttransfer.adaptations.bank import BareBank, VectorBank
from prompttransfer.backbones.interventions import Vectors
from prompttransfer.backbones.layouts import LAYOUTS, Encoding
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import batches, evaluate_bank, predict
from tasks.task import Example

FIRST = LAYOUTS["prompt-first"]
ROWS = sentences(("film", "food", "room"))


def encoded(backbone, task=None, rows=ROWS, layout=FIRST, length=3):
    return encode_task(backbone, task or label_task(), rows, Encoding(layout.name), reserved=length)


@pytest.mark.parametrize("kind", ["roberta", "bert", "t5"])
@pytest.mark.parametrize("layout", ["prompt-first", "su2022"])
def test_a_bank_scores_as_its_prompts_one_at_a_time(tiny, kind, layout):
    backbone, bank = tiny(kind), noise(3, 3, 16)
    rows = encoded(backbone, layout=LAYOUTS[layout])
    together = evaluate_bank(backbone, VectorBank(bank), rows)
    apart = [evaluate_bank(backbone, VectorBank(prompt[None]), rows)[0] for prompt in bank]
    assert [s.values for s in together] == [s.values for s in apart]
    assert [s.loss for s in together] == pytest.approx([s.loss for s in apart], abs=1e-5)
    assert len({round(s.loss, 4) for s in together}) == 3


def test_a_bank_writes_as_its_prompts_one_at_a_time(tiny):
    rows = tuple(
        Example(f"who was {w}", f"the {w} actor", references=("the actor",)) for w in ("kind", "dull", "so")
    )
    backbone, bank = tiny("t5"), noise(2, 3, 16)
    task = encoded(backbone, question_task(), rows)
    together, losses = predict(backbone, VectorBank(bank), task)
    assert losses is None
    assert together == [predict(backbone, VectorBank(prompt[None]), task)[0][0] for prompt in bank]


def test_answers_come_back_in_the_order_of_the_rows(tiny, monkeypatch):
    # Words and prompts for which both answers occur, so that an answer in a wrong place would show.
    backbone, bank = tiny("bert"), 0.3 * noise(2, 3, 16, seed=2)
    task = label_task(negative="terrible", positive="true")
    whole, _ = predict(backbone, VectorBank(bank), encoded(backbone, task))
    monkeypatch.setattr(backbone, "tokens_at_once", 40)  # many small batches, sorted by length
    small, _ = predict(backbone, VectorBank(bank), encoded(backbone, task))
    single = [
        [predict(backbone, VectorBank(p[None]), encoded(backbone, task, (r,)))[0][0][0] for r in ROWS]
        for p in bank
    ]
    assert whole == small == single
    assert all(6 < sum(answers) < 30 for answers in whole) and whole[0] != whole[1]


def test_batches_hold_every_row_once_within_the_budget(tiny, monkeypatch):
    backbone = tiny("roberta")
    monkeypatch.setattr(backbone, "tokens_at_once", 200)
    task = encoded(backbone)
    parts = list(batches(backbone, task, prompts=2))
    assert sorted(index for indices, _ in parts for index in indices) == list(range(len(ROWS)))
    assert len(parts) > 1
    for indices, batch in parts:
        assert len(indices) == 1 or 2 * batch.rows * (batch.ids.shape[1] + 3) <= 200


def test_the_loss_is_the_mean_over_rows_of_the_right_labels_log_probability(tiny):
    backbone, prompt = tiny("roberta"), noise(1, 3, 16)
    task = encoded(backbone)
    batch = backbone.batch(task.rows, layout=FIRST)
    with torch.no_grad():
        rows = backbone.loss(Vectors(prompt.expand(len(ROWS), -1, -1)), batch)
    score = evaluate_bank(backbone, VectorBank(prompt), task)[0]
    assert score.loss == pytest.approx(rows.mean().item(), abs=1e-5)


def test_a_score_says_what_is_needed_to_read_it(tiny):
    rows = (*ROWS, Example("the film was warm", label=1))
    score = evaluate_bank(tiny("roberta"), VectorBank(noise(1, 3, 16)), encoded(tiny("roberta"), rows=rows))[
        0
    ]
    assert (score.task, score.metric, score.rows, score.cut) == ("toy", "accuracy", 37, 0.0)
    assert score.chance == pytest.approx(19 / 37)
    assert score.value == score.values["accuracy"]
    assert score.as_dict()["rows"] == 37


def test_the_share_of_cut_rows_is_reported(tiny):
    rows = (*ROWS[:3], Example("the film was dull " * 100, label=0))
    assert (
        encode_task(tiny("roberta"), label_task(), rows, encoding=Encoding(max_length=20), reserved=3).cut
        == 0.25
    )


def test_without_a_prompt_a_bank_of_length_0_scores(tiny):
    for kind in ("roberta", "t5"):
        score = evaluate_bank(tiny(kind), BareBank(), encoded(tiny(kind)))[0]
        assert 0 <= score.value <= 1 and score.loss is not None


def test_evaluation_asks_for_no_gradient_and_changes_nothing(tiny):
    backbone = tiny("roberta")
    before, bank = backbone.digest(), noise(1, 3, 16).requires_grad_()
    evaluate_bank(backbone, VectorBank(bank), encoded(backbone))
    assert bank.grad is None and backbone.digest() == before


def test_the_aggregation_of_a_run_reaches_the_rows(tiny):
    task = label_task(negative="so-so", positive="great")
    got = {
        name: evaluate_bank(
            tiny("roberta"),
            VectorBank(noise(1, 3, 16)),
            encode_task(tiny("roberta"), task, ROWS, encoding=Encoding(aggregation=name), reserved=3),
        )[0].loss
        for name in ("mean", "sum", "first")
    }
    assert len({round(value, 6) for value in got.values()}) == 3


def test_pairs_and_their_labels_are_scored(tiny):
    rows = tuple(
        Example("the film was dull", f"it was {w}", label=i) for i, w in enumerate(("warm", "so", "dull"))
    )
    score = evaluate_bank(
        tiny("bert"), VectorBank(noise(1, 3, 16)), encoded(tiny("bert"), pair_task(), rows)
    )[0]
    assert score.chance == pytest.approx(1 / 3)
    unlabelled = tuple(replace(row, label=0) for row in rows)
    other = evaluate_bank(
        tiny("bert"), VectorBank(noise(1, 3, 16)), encoded(tiny("bert"), pair_task(), unlabelled)
    )[0]
    assert other.loss != score.loss
