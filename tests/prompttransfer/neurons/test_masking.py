"""Masking: which neurons go first, what stands beside them, and that the order is by what it says."""

import numpy as np
import pytest
from toys import label_task, prompt_on, sentences

from prompttransfer.adaptations.bank import VectorBank
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import evaluate_bank
from prompttransfer.neurons.capture import read_activations
from prompttransfer.neurons.masking import Masked, masking_curve, mean_scores, score_without
from tasks.errors import UserError


def encoded(backbone):
    return encode_task(backbone, label_task(), sentences(("film",)), reserved=3)


def prompts_of(backbone, count=3):
    return [prompt_on(backbone, seed=seed, name=f"p{seed}") for seed in range(count)]


def curve_of(backbone, prompts, **options):
    reading = read_activations(backbone, prompts)
    return masking_curve(
        backbone, prompts[0], encoded(backbone), reading.states().states, reading.values, **options
    )


@pytest.fixture
def tried(monkeypatch):
    """What was switched off, in order; no model is run."""
    found = []

    def remember(backbone, prompt, rows, neurons):
        found.append(neurons)
        return 0.5

    monkeypatch.setattr("prompttransfer.neurons.masking.score_without", remember)
    return found


def test_random_draws_switch_off_as_many_neurons_in_each_layer(tiny, tried):
    backbone = tiny("roberta")
    prompts = prompts_of(backbone)
    curve = curve_of(backbone, prompts, shares=(0.1, 0, 0.25), draws=2)
    assert [p.share for p in curve] == [0] * 5 + [0.1] * 5 + [0.25] * 5
    assert [p.kind for p in curve[:5]] == ["specific", "random", "random", "random active", "random active"]
    assert [p.neurons for p in curve[::5]] == [0, 6, 16]
    assert len(tried) == 1 + 5 + 5  # nothing off is scored once
    for block in (tried[1:6], tried[6:]):
        per_layer = [neurons.sum(1).tolist() for neurons in block]
        assert per_layer == per_layer[:1] * 5
    for small, large in zip(tried[1:6], tried[6:], strict=True):
        assert (large | ~small).all()  # a larger share holds the smaller one
    active = read_activations(backbone, prompts).values[0] > 0
    assert active[tried[4]].all() and active[tried[1]].all()
    assert not np.array_equal(tried[2], tried[3])


def test_the_largest_go_first_when_asked_even_without_other_prompts(tiny, tried):
    backbone = tiny("roberta")
    prompts = prompts_of(backbone, 1)
    curve = curve_of(backbone, prompts, order="largest", shares=(0.25,), draws=1)
    values = read_activations(backbone, prompts).values[0]
    assert curve[0].kind == "largest" and values[tried[0]].min() > values[~tried[0]].max()


def test_no_neuron_off_changes_no_score(tiny):
    backbone = tiny("roberta")
    prompt = prompt_on(backbone)
    plain = evaluate_bank(backbone, VectorBank(prompt.vectors[None]), encoded(backbone))[0]
    assert score_without(backbone, prompt, encoded(backbone), np.zeros((2, 32), dtype=bool)) == plain.value


def test_specific_needs_prompts_to_be_specific_against(tiny):
    with pytest.raises(UserError, match="--others"):
        curve_of(tiny("roberta"), prompts_of(tiny("roberta"), 1))


def test_an_unknown_order_is_named(tiny):
    with pytest.raises(UserError, match="unknown order of neurons 'specifik': did you mean 'specific'"):
        curve_of(tiny("roberta"), prompts_of(tiny("roberta")), order="specifik")


def test_the_mean_leaves_out_the_step_without_any_neuron_off():
    points = [Masked(0.0, "specific", 0, 0, 1.0), Masked(0.1, "specific", 0, 5, 0.6), Masked(0.2, "specific", 0, 10, 0.4)]  # fmt: skip
    assert mean_scores(points) == {"specific": pytest.approx(0.5)}
