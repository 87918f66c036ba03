"""Indicators from rows of the target, for every method alike: what is observed is what the model gives, and gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from method_texts import LACKS, TEXTS
from toys import adapted, label_task, pair_task, prompt_on, question_task, splits

from analysis.transferability import leep, logme
from prompttransfer.adaptations.adaptation import PROMPT_KEY
from prompttransfer.adaptations.methods import METHODS, parse_method
from prompttransfer.adaptations.running import bank_of
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.transfers.compared import Compared
from prompttransfer.transfers.gradients import (
    cosine,
    fisher_diagonal,
    loss_gradients,
    parameters_of,
    task2vec_cosine,
)
from prompttransfer.transfers.indicators import (
    AT_START,
    ESTIMATES,
    FISHER,
    OF_ROWS,
    cost,
    gaps,
    indicator_table,
    low_rank_of,
    missing,
)
from prompttransfer.transfers.observations import observe
from prompttransfer.transfers.zero_shot import Target
from tasks.errors import UserError

ROWS = splits().train
TASKS = {name: label_task(name) for name in ("one", "two", "three")}
FAMILIES = ("roberta", "t5", "llama")
EVERY = [
    (kind, text)
    for kind in FAMILIES
    for name in METHODS
    for text in TEXTS[name][:1]
    if (kind, name) not in LACKS
]


def compared(backbone, texts):
    """An adaptation a task, each with a start of its own, and the rows of their tasks."""
    made = []
    for seed, (text, task) in enumerate(zip(texts, TASKS.values(), strict=False)):
        start = adapted(backbone, text, task=task, seed=seed + 10).tensors
        each = adapted(backbone, text, task=task, seed=seed, name=task.name)
        made.append(replace(each, initial=start) if each.method.has_gradients else each)
    targets = {name: Target(task, splits()) for name, task in TASKS.items()}
    return Compared(
        tuple(made), dict.fromkeys(TASKS, "sentiment"), lambda: backbone, lambda names: [targets[n] for n in names]
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "text"), EVERY)
def test_every_method_has_every_indicator_of_rows_or_says_why_not(tiny, kind, text):
    group = compared(tiny(kind), [text] * 3)
    for name in OF_ROWS:
        if reason := missing(name, group.prompts):
            probe = text == "probe" and "reads changes inside the model" in reason
            assert probe or (not parse_method(text).has_gradients and "parameters that train" in reason)
            continue
        assert np.isfinite(indicator_table(name, group).to_numpy()).all()
        assert gaps(name, group) == []
        assert "3" in cost(name, group)


@pytest.mark.parametrize(("kind", "text"), [(k, t) for k in FAMILIES for t in ("prompt:length=3", "lora:rank=2", "probe")])  # fmt: skip
def test_what_is_observed_is_what_each_gives_alone(tiny, kind, text):
    backbone = tiny(kind)
    sources = [adapted(backbone, text, seed=seed) for seed in (0, 1)]
    seen = observe(backbone, sources, label_task(), ROWS)
    assert seen.labels.tolist() == [row.label for row in ROWS]
    for place, source in enumerate(sources):
        encoded = encode_task(backbone, label_task(), ROWS, reserved=source.method.reserved)
        batch = backbone.batch(encoded.rows, layout=encoded.layout)
        own = bank_of(backbone, [source]).rows(torch.zeros(len(ROWS), dtype=torch.long))
        with torch.no_grad():
            scores = backbone.label_scores(own, batch).exp().numpy()
        np.testing.assert_allclose(seen.probabilities[place], scores, atol=1e-5)


def test_the_state_is_that_of_the_modules_of_transformers(tiny):
    backbone = tiny("roberta")
    seen = observe(backbone, [adapted(backbone, "probe")], label_task(), ROWS)
    encoded = encode_task(backbone, label_task(), ROWS, reserved=0)
    batch = backbone.batch(encoded.rows, layout=encoded.layout)
    with torch.no_grad():
        hidden = backbone.model.base_model(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
    np.testing.assert_allclose(seen.features[0], hidden[:, 1].numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_words_of_several_pieces_leave_the_state_as_it_is(tiny, kind):
    backbone = tiny(kind)
    long = label_task(negative="terrible", positive="so-so")
    short, longer = (
        adapted(backbone, "lora:rank=2", task=task, name=name)
        for name, task in (("short", label_task()), ("longer", long))
    )
    states = [observe(backbone, [each], label_task(), ROWS).features[0] for each in (short, longer)]
    np.testing.assert_allclose(states[0], states[1], atol=1e-5)
    both = observe(backbone, [short, longer], label_task(), ROWS)
    np.testing.assert_allclose(both.features[1], states[1], atol=1e-5)
    np.testing.assert_allclose(both.probabilities[1].sum(1), 1, atol=1e-5)


def test_a_source_speaks_with_its_own_words_on_the_targets_text(tiny):
    backbone = tiny("roberta")
    nli = adapted(backbone, "lora:rank=2", task=pair_task(), name="nli")
    silent = replace(prompt_on(backbone), name="silent")
    seen = observe(backbone, [nli, silent], label_task(), ROWS)
    assert seen.probabilities[0].shape == (len(ROWS), 3) and seen.probabilities[1] is None
    own = encode_task(backbone, pair_task(), [replace(row, label=0) for row in ROWS], reserved=0)
    with torch.no_grad():
        bank = bank_of(backbone, [nli]).rows(torch.zeros(len(ROWS), dtype=torch.long))
        scores = backbone.label_scores(bank, backbone.batch(own.rows, layout=own.layout))
    np.testing.assert_allclose(seen.probabilities[0], scores.exp().numpy(), atol=1e-5)


def test_tables_are_the_estimates_of_what_was_observed(tiny):
    group = compared(tiny("roberta"), ["lora:rank=2", "prompt:length=3", "pfeiffer:reduction=4"])
    seen = observe(group.model(""), group.prompts, TASKS["two"], ROWS)
    table = indicator_table("LogME", group)["two"]
    assert table.tolist() == pytest.approx([logme(own, seen.labels) for own in seen.features], abs=1e-6)
    table = indicator_table("LEEP", group)["two"]
    assert table.tolist() == pytest.approx([leep(own, seen.labels) for own in seen.probabilities], abs=1e-6)


def test_all_estimates_of_a_task_come_from_one_pass(tiny, monkeypatch):
    group, passes = compared(tiny("roberta"), ["lora:rank=2"] * 3), []
    scored = group.model("").label_scores
    monkeypatch.setattr(group.model(""), "label_scores", lambda *given: passes.append(1) or scored(*given))
    indicator_table("LEEP", group)
    once = len(passes)
    for name in ESTIMATES:
        indicator_table(name, group)
    assert len(passes) == once


def test_cells_that_cannot_be_are_empty_and_named(tiny):
    backbone = tiny("roberta")
    group = compared(backbone, ["lora:rank=2", "probe", "lora:rank=3"])
    mute = replace(group.prompts[2], origin=replace(group.prompts[2].origin, words={}), initial=None)
    group = replace(group, prompts=(*group.prompts[:2], mute))
    empty = {name: np.isnan(indicator_table(name, group)).sum(axis=1).tolist() for name in OF_ROWS}
    assert empty["few-shot"] == [0, 0, 0] and empty["LEEP"] == [0, 0, 3] and empty["LogME"] == [0, 3, 0]
    assert empty["gradient-cosine"] == [0, 0, 3] and empty["task2vec"] == [2, 2, 3]
    assert gaps("LEEP", group) == ["LEEP reads the label words of a source; none for three"]
    assert gaps("step-cosine", group) == [
        "step-cosine needs a known start and parameters that train; none for three"
    ]
    assert "one method and shape" in gaps("task2vec", group)[-1]


def test_gradients_of_a_probe_by_hand(tiny):
    backbone = tiny("roberta")
    source = adapted(backbone, "probe")
    states = observe(backbone, [source], label_task(), ROWS).features[0].astype(float)
    weight, bias = (source.tensors[name].double().numpy() for name in ("head.weight", "head.bias"))
    shares = np.exp(states @ weight.T + bias)
    shares /= shares.sum(1, keepdims=True)
    wrong = shares - np.eye(2)[[row.label for row in ROWS]]
    by_hand = np.concatenate([(wrong.T @ states / len(ROWS)).ravel(), wrong.mean(0)])
    found = loss_gradients(backbone, source.method, [source.tensors, source.tensors], label_task(), ROWS, reserved=0)  # fmt: skip
    np.testing.assert_allclose(found[1].numpy(), by_hand, atol=1e-5)
    # E over y of (p - onehot y)^2 is p (1 - p), each weight times its input squared
    spread = shares * (1 - shares)
    by_hand = np.concatenate([(spread.T @ states**2 / len(ROWS)).ravel(), spread.mean(0)])
    np.testing.assert_allclose(fisher_diagonal(backbone, source, label_task(), ROWS).numpy(), by_hand, atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("text", ["prompt:length=3", "lora:rank=2", "prefix:length=3,hidden=8"])
def test_gradients_are_those_of_differences_of_the_loss(tiny, text):
    backbone, method = tiny("roberta"), parse_method(text)
    source = adapted(backbone, text)
    gradient = loss_gradients(backbone, method, [source.tensors], label_task(), ROWS, reserved=method.reserved)[0]  # fmt: skip
    encoded = encode_task(backbone, label_task(), ROWS, reserved=method.reserved)
    batch = backbone.batch(encoded.rows, layout=encoded.layout)
    member = method.restored(source.tensors)
    flat = parameters_of(method, source.tensors)
    direction = gradient / gradient.norm()

    def loss(step):
        moved = flat + step * direction
        torch.nn.utils.vector_to_parameters(moved.float(), member.parameters())
        with torch.no_grad():
            own = method.bank(backbone, [member]).rows(torch.zeros(len(ROWS), dtype=torch.long))
            return float(backbone.row_losses(own, batch).double().mean())

    slope = (loss(1e-2) - loss(-1e-2)) / 2e-2
    assert slope == pytest.approx(float(gradient.norm()), rel=0.02)


def test_cosines_at_the_start_by_hand(tiny):
    group = compared(tiny("roberta"), ["lora:rank=2"] * 3)
    first, backbone = group.prompts[0], group.model("")
    here, start = loss_gradients(backbone, first.method, [first.tensors, first.initial], TASKS["two"], ROWS, reserved=0)  # fmt: skip
    step = parameters_of(first.method, first.tensors) - parameters_of(first.method, first.initial)
    table = {name: indicator_table(name, group).loc["one", "two"] for name in AT_START}
    assert table["gradient-cosine"] == pytest.approx(
        float(here @ start / here.norm() / start.norm()), abs=1e-6
    )
    assert table["step-cosine"] == pytest.approx(float(-step @ start / step.norm() / start.norm()), abs=1e-6)


def test_fisher_cosines_by_hand():
    one, other = torch.tensor([1.0, 3.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])
    assert cosine(one, other) == pytest.approx(4 / 10**0.5 / 2**0.5)
    shares = np.array([[0.5, 0.75, 0], [0.5, 0.25, 0]])
    assert task2vec_cosine(one, other) == pytest.approx(float(shares[0] @ shares[1] / np.prod(np.linalg.norm(shares, axis=1))))  # fmt: skip
    assert cosine(one, 0 * one) == task2vec_cosine(0 * one, 0 * one) == 0


@pytest.mark.parametrize("text", ["lora:rank=2", "prompt:length=3", "p-tuning-v2:length=3"])
def test_an_adaptation_is_like_itself(tiny, text):
    group = compared(tiny("roberta"), [text] * 3)
    for name in FISHER:
        table = indicator_table(name, group).to_numpy()
        np.testing.assert_allclose(np.diag(table), 1, atol=1e-9)
        np.testing.assert_allclose(table, table.T)


def test_what_no_estimate_can_be_made_of_is_one_line(tiny):
    backbone = tiny("roberta")
    group = compared(backbone, ["lora:rank=2"] * 3)
    with pytest.raises(UserError, match=r"task 'toy-question' \(extractive-qa\) has no one label a row"):
        observe(backbone, group.prompts, question_task(), ROWS)
    same = replace(splits(), train=tuple(replace(row, label=1) for row in ROWS))
    bad = replace(group, rows=lambda names: [Target(TASKS[n], same) for n in names])
    with pytest.raises(UserError, match="LogME on one: all 12 rows are of one class"):
        indicator_table("LogME", bad)
    other = replace(group.prompts[0].origin, words={"good": "blorp"})
    with pytest.raises(UserError, match="label word 'blorp' of 'one' is not in the vocabulary"):
        observe(backbone, [replace(group.prompts[0], origin=other)], TASKS["one"], ROWS)


def test_the_bare_model_is_not_changed_by_looking(tiny):
    backbone = tiny("roberta")
    before = backbone.digest()
    group = compared(backbone, ["lora:rank=2"] * 3)
    for name in OF_ROWS:
        indicator_table(name, group)
    assert backbone.digest() == before
    assert all(parameter.grad is None for parameter in backbone.model.parameters())


@pytest.mark.parametrize("text", [texts[0] for texts in TEXTS.values()])
def test_what_a_method_is_compared_by_is_what_its_adaptations_hold(tiny, text):
    made = adapted(tiny("roberta"), text)
    assert bool(low_rank_of(made)) == (made.method.compared_by == "products")
    assert (PROMPT_KEY in made.tensors and not made.has_vectors) == (made.method.compared_by == "prefixes")
    states = [observe(tiny("roberta"), [each], label_task(), ROWS).features for each in (made, adapted(tiny("roberta"), "probe"))]  # fmt: skip
    assert (np.abs(states[0] - states[1]).max() > 1e-4) == made.method.changes_states
