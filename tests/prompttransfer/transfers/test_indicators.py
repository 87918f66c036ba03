"""Indicators in one dict: each a square table over the same prompts, and what one lacks is said by name."""

import numpy as np
import pytest
from toys import changed, label_task, noise, prompt_on, splits

from analysis.low_rank import SIMILARITIES
from analysis.prefixes import SIMILARITIES as PREFIXES
from prompttransfer.adaptations.running import bank_of
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import evaluate_bank
from prompttransfer.transfers.compared import Compared
from prompttransfer.transfers.indicators import INDICATORS, LATENTS, indicator_table, of_vectors
from prompttransfer.transfers.zero_shot import Target
from tasks.errors import UserError

TYPES = {"one": "sentiment", "two": "sentiment", "three": "nli"}


@pytest.fixture
def group(tiny):
    backbone = tiny("roberta")
    start = noise(3, 16, seed=9)
    words = {"negative": "terrible", "positive": "great"}
    prompts = [changed(prompt_on(backbone, task=t, seed=i, name=f"{t}-p"), initial=start, words=words) for i, t in enumerate(TYPES)]  # fmt: skip
    rows = [Target(label_task(name), splits()) for name in TYPES]
    return Compared(
        tuple(prompts), TYPES, lambda: backbone, lambda names: [rows[list(TYPES).index(n)] for n in names]
    )


@pytest.mark.parametrize(
    "name", [n for n in INDICATORS if n not in {**SIMILARITIES, **PREFIXES, **dict.fromkeys(LATENTS)}]
)
def test_every_indicator_is_a_finite_table_over_the_prompts(name, group):
    table = indicator_table(name, group)
    assert list(table.index) == list(table.columns) == ["one-p", "two-p", "three-p"]
    assert np.isfinite(table.to_numpy()).all()


def test_the_flag_is_one_within_a_type(group):
    assert indicator_table("same-type", group).to_numpy().tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_few_shot_is_the_score_of_each_source_on_the_targets_rows(group):
    backbone = group.model("few-shot")
    rows = encode_task(backbone, label_task("two"), splits().train, reserved=3)
    by_hand = [score.value for score in evaluate_bank(backbone, bank_of(backbone, group.prompts), rows)]
    assert indicator_table("few-shot", group)["two-p"].tolist() == by_hand


def test_what_is_missing_is_named(group):
    bare = Compared(group.prompts)
    for name, words in (("ON", "ON runs the backbone"), ("few-shot", "labelled rows"), ("same-type", "no type is known for one-p")):  # fmt: skip
        with pytest.raises(UserError, match=words):
            indicator_table(name, bare)
    with pytest.raises(UserError, match="unknown indicator 'on'"):
        indicator_table("on", bare)
    with pytest.raises(UserError, match="at least two prompts; given 1"):
        indicator_table("ON", Compared(group.prompts[:1]))


def test_without_initial_vectors_or_a_mean_their_indicators_are_not_offered(group):
    names = of_vectors(group.prompts)
    assert "C_concat-minus-initial" in names and "C_concat-minus-mean" in names
    plain = [changed(prompt, initial=None) for prompt in group.prompts]
    assert not any(name.endswith("-minus-initial") for name in of_vectors(plain))
    assert not any(name.endswith("-minus-mean") for name in of_vectors(plain[:2]))
