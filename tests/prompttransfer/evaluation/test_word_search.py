"""Label words searched for in the vocabulary of an embedded backbone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prompttransfer.adaptations.bank import BareBank
from prompttransfer.backbones.loading import load_backbone
from prompttransfer.evaluation import word_search
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import evaluate_bank
from prompttransfer.evaluation.word_search import search_words, whole_words, word_scores
from tasks.catalog import find_task
from tasks.errors import UserError
from tasks.loading import load_splits
from tasks.task import with_head, with_words

SST2 = find_task("microworld-sst2")


@pytest.fixture(scope="module", params=["microworld-roberta", "microworld-t5"])
def backbone(request):
    return load_backbone(request.param, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def splits():
    return load_splits(SST2, limit_train=600, limit_test=200)


def alone(backbone, task, rows):
    (score,) = evaluate_bank(backbone, BareBank(), encode_task(backbone, task, rows, reserved=0), keep=True)
    return score


def test_words_are_whole_and_lower_case(backbone):
    words = whole_words(backbone, 100)
    assert len(words) == len(set(words)) == 100 and {"great"} <= set(whole_words(backbone, 10_000))
    assert all(word.islower() and len(backbone.word_pieces(word)[0]) == 1 for word in words)


def test_scores_over_words_are_those_of_labels_however_many_are_asked_about_together(
    backbone, splits, monkeypatch
):
    words = whole_words(backbone, 40)
    at_once = word_scores(backbone, SST2, words, splits.test[:9])
    monkeypatch.setattr(word_search, "TOGETHER", 7)
    assert word_scores(backbone, SST2, words, splits.test[:9]) == pytest.approx(at_once, abs=1e-4)
    assert np.exp(at_once).sum(axis=1) == pytest.approx(np.ones(9))
    two = word_scores(backbone, SST2, ["terrible", "great"], splits.test[:9])
    own = alone(backbone, SST2, splits.test[:9]).answered.probabilities
    assert np.exp(two) == pytest.approx(np.array(own), abs=1e-5)


def test_what_is_found_is_better_on_test_rows_too_and_test_rows_are_not_looked_at(backbone, splits):
    found = search_words(backbone, SST2, splits, shots=16, candidates=10)
    best = found.found[0]
    assert found.default.validation == alone(backbone, SST2, splits.validation).value
    chosen = with_words(SST2, best.words)
    assert best.validation == pytest.approx(alone(backbone, chosen, splits.validation).value)
    assert alone(backbone, chosen, splits.test).value > alone(backbone, SST2, splits.test).value + 0.1
    assert search_words(backbone, SST2, replace(splits, test=splits.train), shots=16, candidates=10) == found
    assert [w.validation for w in found.found] == sorted((w.validation for w in found.found), reverse=True)


def test_many_labels_are_searched_label_by_label(backbone, monkeypatch):
    mnli = find_task("microworld-mnli")
    splits = load_splits(mnli, limit_train=300, limit_test=10)
    whole = search_words(backbone, mnli, splits, shots=8, candidates=6).found[0]
    monkeypatch.setattr(word_search, "MOST_COMBINATIONS", 10)
    found = search_words(backbone, mnli, splits, shots=8, candidates=6)
    assert len(set(found.found[0].words.values())) == 3
    assert found.default.validation <= found.found[0].validation <= whole.validation


def test_what_cannot_be_searched_is_one_clear_line(backbone, splits):
    squad = find_task("microworld-squad")
    with pytest.raises(UserError, match="it has no label words to search for"):
        search_words(backbone, squad, load_splits(squad, limit_train=10, limit_test=5))
    with pytest.raises(UserError, match="answered by a trained head: it has no label words to search for"):
        search_words(backbone, with_head(SST2), splits)
    with pytest.raises(UserError, match="and 5000 were asked for"):
        search_words(backbone, SST2, splits, shots=5000)
