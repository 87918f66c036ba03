"""Calibrated label words: the value by hand, what is removed exactly, and what may never be looked at."""

import math
from dataclasses import replace

import pytest
import torch
from toys import label_task, noise, pair_task, prompt_on, question_task, sentences, splits

from prompttransfer.adaptations.bank import VectorBank
from prompttransfer.backbones.layouts import find_layout
from prompttransfer.evaluation.calibration import (
    CONTENT_FREE,
    TRAIN_MEAN,
    Calibration,
    bare_calibrated,
    calibration_of,
    content_free,
    encode_inputs,
    evaluate_both,
    label_bias,
)
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import evaluate_bank
from prompttransfer.transfers.matrix import MAJORITY, NO_PROMPT, NO_PROMPT_CALIBRATED
from prompttransfer.transfers.zero_shot import Target, zero_shot
from tasks.errors import UserError
from tasks.loading import Splits
from tasks.task import Example

FIRST = find_layout("prompt-first")
METHODS = [Calibration(CONTENT_FREE), Calibration(TRAIN_MEAN, rows=6)]


def encoded(backbone, examples, task=None):
    return encode_task(backbone, task or label_task(), examples, reserved=3)


def rows_of_length(*lengths, label=1):
    return tuple(Example(" ".join(["kind"] * length), label=label) for length in lengths)


def answering(backbone, monkeypatch, by_length):
    """Let the backbone give known probabilities of its label words, by the number of words of a row."""
    fixed = backbone.batch(backbone.encode(label_task(), rows_of_length(1), reserved=3), layout=FIRST)
    special = int(fixed.mask.sum()) - 1

    def scores(prompts, batch):
        lengths = (batch.mask.sum(dim=1) - special).tolist()
        return torch.tensor([by_length[length] for length in lengths]).log()

    monkeypatch.setattr(backbone, "label_scores", scores)


def leaning(backbone, monkeypatch, lean):
    """Let the backbone's label words have `lean` more of a logit each, whatever the text."""
    own = backbone.label_scores
    monkeypatch.setattr(
        backbone, "label_scores", lambda p, b: torch.log_softmax(own(p, b) + torch.tensor(lean), dim=-1)
    )


def test_the_calibrated_answer_by_hand(tiny, monkeypatch):
    # Training rows: (.8, .2) and (.6, .4), so the bias is the log of sqrt(.48) and sqrt(.08). The test row (.65, .35)
    # has .65 / sqrt(.48) = .93819 and .35 / sqrt(.08) = 1.23744: the second word, with 1.23744 / 2.17563 = .56877.
    backbone = tiny("roberta")
    answering(backbone, monkeypatch, {1: (0.8, 0.2), 2: (0.6, 0.4), 3: (0.65, 0.35)})
    bank = noise(1, 3, 16)
    inputs = encoded(backbone, rows_of_length(1, 2))
    assert label_bias(backbone, VectorBank(bank), inputs)[0].exp().tolist() == pytest.approx(
        [0.48**0.5, 0.08**0.5], rel=1e-6
    )
    raw, calibrated = evaluate_both(backbone, VectorBank(bank), encoded(backbone, rows_of_length(3)), inputs)
    assert (raw[0].value, calibrated[0].value) == (0, 1)
    assert raw[0].loss == pytest.approx(-math.log(0.35), rel=1e-6)
    assert calibrated[0].loss == pytest.approx(-math.log(1.2374369 / (1.2374369 + 0.9381942)), rel=1e-6)


@pytest.mark.parametrize("kind", ["roberta", "t5"])
@pytest.mark.parametrize("calibration", METHODS, ids=lambda c: c.method)
def test_what_a_label_word_always_has_more_is_removed_exactly(tiny, monkeypatch, kind, calibration):
    backbone, bank, rows = tiny(kind), noise(2, 3, 16), splits()
    on = encoded(backbone, rows.test)
    inputs = encode_inputs(backbone, calibration, on, rows)
    plain, before = evaluate_both(backbone, VectorBank(bank), on, inputs)
    leaning(backbone, monkeypatch, (7.0, -2.0))
    leant, after = evaluate_both(backbone, VectorBank(bank), on, inputs)
    assert [s.value for s in leant] == [0.5, 0.5] and leant[0].loss > plain[0].loss + 1
    assert [s.value for s in after] == [s.value for s in before]
    assert [s.loss for s in after] == pytest.approx([s.loss for s in before], abs=1e-5)


def test_calibrating_changes_no_raw_score_and_a_bank_is_its_prompts(tiny):
    backbone, bank, rows = tiny("roberta"), noise(3, 3, 16), splits()
    on = encoded(backbone, rows.test)
    inputs = encode_inputs(backbone, Calibration(), on, rows)
    raw, _ = evaluate_both(backbone, VectorBank(bank), on, inputs)
    assert raw == evaluate_bank(backbone, VectorBank(bank), on)
    together = label_bias(backbone, VectorBank(bank), inputs)
    for index in range(3):
        assert torch.allclose(
            together[index], label_bias(backbone, VectorBank(bank[index : index + 1]), inputs)[0], atol=1e-5
        )


def test_the_inputs_are_training_rows_without_labels_drawn_by_seed_and_no_test_row(tiny):
    rows = splits()
    first = Calibration(TRAIN_MEAN, rows=6).inputs(label_task(), rows)
    assert len(first) == 6 and all(row.label is None for row in first)
    assert {row.first for row in first} <= {row.first for row in rows.train}
    others = replace(rows, test=sentences(("plot",)), validation=sentences(("song",)))
    assert Calibration(TRAIN_MEAN, rows=6).inputs(label_task(), others) == first
    assert Calibration(TRAIN_MEAN, rows=6, seed=1).inputs(label_task(), rows) != first


@pytest.mark.parametrize("calibration", METHODS, ids=lambda c: c.method)
def test_a_test_row_is_answered_the_same_whatever_test_rows_stand_beside_it(tiny, calibration):
    backbone, prompt, rows = tiny("roberta"), prompt_on(tiny("roberta")), splits()

    def calibrated(test):
        aim = Target(label_task("other"), replace(rows, test=tuple(test)))
        return zero_shot(backbone, [prompt], [aim], calibration=calibration).calibrated.values[:2, 0]

    alone = [calibrated([row]) for row in rows.test]
    assert torch.equal(calibrated(rows.test), torch.stack(alone).mean(dim=0))
    assert torch.equal(calibrated(reversed(rows.test)), calibrated(rows.test))


def test_content_free_inputs_have_the_format_of_the_task():
    assert content_free(label_task()) == (Example(""), Example("N/A"))
    assert content_free(pair_task()) == (Example("", ""), Example("N/A", "N/A"))
    assert content_free(replace(label_task(), aspect=True)) == (Example(""), Example("N/A N/A"))


def test_zero_shot_has_no_prompt_calibrated_and_by_option_a_second_matrix(tiny):
    backbone, rows = tiny("t5"), splits()
    prompts = [prompt_on(backbone, seed=seed, name=f"p{seed}") for seed in range(2)]
    asked = Splits(*[(Example("who", "the actor", references=("the actor",)),)] * 3, "toy rows", "1")
    targets = [Target(label_task("other"), rows), Target(question_task("ask"), asked)]
    plain = zero_shot(backbone, prompts, targets)
    place = plain.sources.index(NO_PROMPT_CALIBRATED)
    assert plain.calibrated is None and not plain.values[place, 0].isnan() and plain.values[place, 1].isnan()
    assert plain.written == ("ask",)

    both = zero_shot(backbone, prompts, targets, calibration=Calibration())
    assert torch.equal(both.values.nan_to_num(-1), plain.values.nan_to_num(-1))
    second = both.calibrated
    assert second.sources == both.sources and second.meaning == "calibrated"
    on = encoded(backbone, rows.test, label_task("other"))
    inputs = encode_inputs(backbone, Calibration(), on, rows)
    _, by_hand = evaluate_both(backbone, VectorBank(torch.stack([p.vectors for p in prompts])), on, inputs)
    assert second.values[:2, 0].tolist() == [score.value for score in by_hand]
    alone = bare_calibrated(backbone, on, inputs)
    assert [
        second.values[second.sources.index(row), 0] for row in (NO_PROMPT, NO_PROMPT_CALIBRATED, MAJORITY)
    ] == [
        alone[0].value,
        alone[1].value,
        0.5,
    ]
    assert "no label words to calibrate" in second.impossible["ask"] and not both.impossible
    assert second.values[:2, 1].isnan().all()


def test_an_unknown_calibration_is_named():
    assert calibration_of("none") is None and calibration_of("train-mean") == Calibration(TRAIN_MEAN)
    with pytest.raises(UserError, match="unknown calibration 'train-maen': did you mean 'train-mean'"):
        calibration_of("train-maen")


def test_calibration_tells_a_prompt_that_leans_from_one_that_knows_nothing(monkeypatch, tiny):
    # Logit differences of a row: signal +-1 by label with unit noise, and a lean of 3 that has nothing to do with it.
    backbone, generator = tiny("roberta"), torch.Generator().manual_seed(0)
    signal = {n: (1.0 if n % 2 else -1.0) + float(torch.randn((), generator=generator)) for n in range(1, 41)}
    table = {n: torch.sigmoid(torch.tensor([-(d + 3.0), d + 3.0])).tolist() for n, d in signal.items()}
    answering(backbone, monkeypatch, table)
    test = tuple(rows_of_length(n, label=n % 2)[0] for n in range(1, 21))
    inputs = encoded(backbone, rows_of_length(*range(21, 41)))
    raw, calibrated = evaluate_both(backbone, VectorBank(noise(1, 3, 16)), encoded(backbone, test), inputs)
    known = sum((d > 0) == bool(n % 2) for n, d in signal.items() if n <= 20) / 20
    assert raw[0].value <= 0.6 and abs(calibrated[0].value - known) <= 0.1 and known >= 0.8
