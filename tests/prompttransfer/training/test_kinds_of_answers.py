"""Numbers, heads and several labels a row, on every family: losses by hand, in one bank, on both engines, kept and resumed."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from toys import BAD, GOOD, label_task, recipe, splits

from prompttransfer.adaptations.adaptation import same_tensors
from prompttransfer.adaptations.artifacts import HEAD, load_adaptation, save_adaptation
from prompttransfer.adaptations.bank import BareBank
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.adaptations.running import bank_of, impossible
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import bare_score, evaluate_bank
from prompttransfer.training.train import Job, TrainingOptions, begin_run, train_adaptations
from prompttransfer.training.trials import RowTrial
from prompttransfer.transfers.matrix import MAJORITY, NO_PROMPT, RANDOM_PROMPT
from prompttransfer.transfers.zero_shot import Target, zero_shot
from tasks.errors import UserError
from tasks.loading import Splits
from tasks.task import Example, Scale, Task, with_head

NOUNS = ("film", "food", "plot", "room", "actor", "song")
STARS = replace(label_task("stars", low="terrible", high="great"), metric="pearson", scale=Scale(0, 5))
TOPIC = Task("topic", "topic", "sentence", labels=NOUNS, head=True)
TOPICS = Task("topics", "topic", "sentence", labels=NOUNS[:4], separator=";")
TASKS = {"words": label_task(), "number": STARS, "head": TOPIC, "several": TOPICS}
FAMILIES = ("roberta", "t5", "llama")
PROMPT = parse_method("prompt:length=3")


def rows(kind: str, adjectives=(*BAD, *GOOD)) -> tuple[Example, ...]:
    """Rows about every noun, of unequal length."""
    found = []
    for place, noun in enumerate(NOUNS):
        for index, word in enumerate(adjectives):
            text, other = f"the {noun} was {word}", (place + index) % 4
            if kind == "number":
                found.append(
                    Example(
                        f"{text} {'and very ' + word if index % 2 else ''}",
                        value=5.0 * index / len(adjectives),
                    )
                )
            elif kind == "head":
                found.append(Example(text, label=place))
            elif place < 4:
                both = {place, other} if index % 3 else ()
                found.append(Example(f"{text} and the {NOUNS[other]} too", labels=tuple(sorted(both))))
    return tuple(found)


def rows_of(kind: str) -> Splits:
    if kind == "words":
        return splits()
    return Splits(
        rows(kind, (*BAD[:3], *GOOD[:3])),
        rows(kind, (BAD[4], GOOD[4])),
        rows(kind, (BAD[5], GOOD[5])),
        "toy",
        "1",
    )


def jobs(*kinds: str) -> list[Job]:
    return [Job(TASKS[kind], rows_of(kind), name=f"toy-{kind}") for kind in kinds]


def train(backbone, *kinds, method=PROMPT, **more):
    return train_adaptations(backbone, jobs(*kinds), recipe(**more), method=method)


def scores(backbone, adaptation, kind):
    encoded = encode_task(backbone, TASKS[kind], rows_of(kind).test, reserved=3)
    return evaluate_bank(backbone, bank_of(backbone, [adaptation]), encoded, keep=True)[0]


def same_head(one, other) -> bool:
    if one.head is None or other.head is None:
        return one.head is other.head
    return same_tensors(one.head.tensors(), other.head.tensors()) and one.head.labels == other.head.labels


def losses_of(backbone, kind, adaptation=None):
    """The losses of test rows, and the scores that they are made of."""
    encoded = encode_task(backbone, TASKS[kind], rows_of(kind).test, reserved=3 if adaptation else 0)
    batch = backbone.batch(encoded.rows, layout=encoded.layout)
    bank = bank_of(backbone, [adaptation]) if adaptation else BareBank()
    own = bank.rows(torch.zeros(batch.rows, dtype=torch.long))
    with torch.no_grad():
        return backbone.row_losses(own, batch), backbone.label_scores(own, batch)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_number_costs_the_divergence_of_two_words_from_its_shares(tiny, family):
    losses, scores = losses_of(tiny(family), "number")
    for loss, (low, high), row in zip(losses, scores.double(), rows_of("number").test, strict=True):
        share = torch.tensor(row.value / 5, dtype=torch.float64)
        by_hand = (
            torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share) - share * high - (1 - share) * low
        )
        assert loss.double() == pytest.approx(float(by_hand), abs=1e-6)


@pytest.mark.parametrize("kind", ["number", "several"])
def test_a_row_to_answer_costs_nothing(tiny, kind):
    backbone = tiny("roberta")
    (run,) = train(backbone, kind, steps=2)
    own = bank_of(backbone, [run.adaptation]).rows(torch.zeros(1, dtype=torch.long))
    encoded = encode_task(backbone, TASKS[kind], [Example("the film was dull")], reserved=3)
    assert backbone.row_losses(own, backbone.batch(encoded.rows, layout=encoded.layout)).item() == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_several_labels_cost_what_transformers_takes_for_them(tiny, family):
    backbone = tiny(family)
    (run,) = train(backbone, "several")
    losses, odds = losses_of(backbone, "several", run.adaptation)
    gold = torch.tensor([[float(i in row.labels) for i in range(4)] for row in rows_of("several").test])
    theirs = nn.BCEWithLogitsLoss()  # problem_type multi_label_classification
    torch.testing.assert_close(losses, torch.stack([theirs(o, g) for o, g in zip(odds, gold, strict=True)]))
    score = scores(backbone, run.adaptation, "several")
    assert score.answered.said == tuple(tuple(i for i in range(4) if row[i] > 0) for row in odds.tolist())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bank_of_all_kinds_trains_each_as_if_it_were_alone(tiny, family):
    backbone = tiny(family)
    before = backbone.digest()
    together = train(backbone, *TASKS)
    assert backbone.digest() == before
    for kind, run in zip(TASKS, together, strict=True):
        (alone,) = train(backbone, kind)
        own, other = run.adaptation, alone.adaptation
        torch.testing.assert_close(own.vectors, other.vectors, atol=2e-4, rtol=1e-3)
        assert (own.head is None) == (kind in ("words", "number"))
        if own.head is not None:
            assert own.head.labels == TASKS[kind].labels
            torch.testing.assert_close(own.head.weight, other.head.weight, atol=2e-3, rtol=1e-2)
            assert own.head.weight.abs().max() > 0 or own.scores["validation"]["step"] == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_kept_scores_the_same_on_both_engines_and_read_again(tiny, family, tmp_path):
    backbone = tiny(family)
    for kind, run in zip(TASKS, train(backbone, *TASKS), strict=True):
        own = run.adaptation
        again = load_adaptation(save_adaptation(own, tmp_path / kind))
        assert same_head(own, again) and (tmp_path / kind / HEAD).exists() == (own.head is not None)
        score = scores(backbone, again, kind)
        assert score == scores(backbone, own, kind) and score.value == score.value
        with backbone.on("plain"):
            plain = scores(backbone, own, kind)
        assert plain.loss == pytest.approx(score.loss, rel=1e-4)
        for ours, theirs in zip(score.answered.probabilities, plain.answered.probabilities, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4)


def test_a_stopped_run_goes_on_with_its_heads_bit_for_bit(tiny, tmp_path):
    backbone, plan = tiny("roberta"), recipe(evaluate_every=2)
    whole = train_adaptations(backbone, jobs(*TASKS), plan, method=PROMPT)
    options = TrainingOptions(tmp_path)
    begin_run(backbone, jobs(*TASKS), plan, method=PROMPT, options=options).advance(2)
    again = begin_run(backbone, jobs(*TASKS), plan, method=PROMPT, options=TrainingOptions(tmp_path))
    again.advance(plan.steps)
    for one, other in zip(whole, again.results(), strict=True):
        assert same_tensors(one.adaptation.tensors, other.adaptation.tensors)
        assert same_head(one.adaptation, other.adaptation)


@pytest.mark.parametrize(
    "text",
    ["lora:rank=2", "prefix:length=2", "pfeiffer:reduction=4", "full", "probe", "p-tuning:length=3"],
)
def test_other_methods_have_heads_too(tiny, text):
    method = parse_method(text)
    backbone = tiny("roberta")
    (run,) = train(backbone, "head", method=method)
    own = run.adaptation
    assert (own.head is None) == method.brings_head
    encoded = encode_task(backbone, TOPIC, rows_of("head").test, reserved=method.reserved)
    assert evaluate_bank(backbone, bank_of(backbone, [own, own]), encoded)[1].rows == 12


def test_zero_shot_needs_the_same_classes_and_the_controls_say_what_they_are(tiny):
    backbone = tiny("roberta")
    sources = [run.adaptation for run in train(backbone, "words", "head", "several")]
    other = replace(TOPIC, name="other", labels=NOUNS[:3])
    same = replace(TOPIC, name="same")
    targets = [Target(task, rows_of(kind)) for task, kind in ((TASKS["words"], "words"), (same, "head"))]
    matrix = zero_shot(backbone, sources, targets)
    assert matrix.impossible_cells.keys() == {"toy-words", "toy-several"}
    assert "train on it from there" in matrix.impossible_cells["toy-words"]["same"]
    at = matrix.sources.index
    assert matrix.values[at(NO_PROMPT), 1].isnan() and matrix.values[at(NO_PROMPT), 0] >= 0
    assert matrix.values[at(RANDOM_PROMPT), 1] >= 0 and matrix.values[at(MAJORITY), 1] == pytest.approx(1 / 6)
    assert "a head of 6 classes (film, food, plot, room, actor, song)" in impossible(sources[1], other)
    assert not impossible(sources[1], TASKS["words"]), "label words are read, whoever has a head"


def test_a_head_of_one_label_a_row_answers_none_of_several_though_the_classes_are_the_same(tiny):
    (run,) = train(tiny("roberta"), "head")
    own, several = run.adaptation, replace(TASKS["several"], labels=TOPIC.labels)
    assert (
        "answered by a head of 6 classes (film, food, plot, room, actor, song) of which several may be right"
        in impossible(own, several)
    )
    assert not impossible(own, replace(TOPIC, name="same"))


def test_the_digest_is_of_the_head_too(tiny):
    (run,) = train(tiny("roberta"), "head")
    head = run.adaptation.head
    other = replace(run.adaptation, head=replace(head, bias=head.bias + 1))
    assert other.digest != run.adaptation.digest != replace(run.adaptation, head=None).digest


def test_the_bare_model_has_no_head(tiny):
    backbone = tiny("roberta")
    encoded = encode_task(backbone, TOPIC, rows_of("head").test, reserved=0)
    assert bare_score(backbone, encoded) is None
    with pytest.raises(UserError, match="answered by a trained head, and there is none"):
        evaluate_bank(backbone, BareBank(), encoded)


@pytest.mark.parametrize("text", ["text-search:length=2", "in-context:k=2", "text:prompt=good"])
def test_what_follows_no_gradient_has_no_head(tiny, text):
    with pytest.raises(UserError, match="follows no gradient that could train it"):
        train(tiny("roberta"), "head", method=parse_method(text))


def test_a_mixture_has_one_head_or_none(tiny):
    (job,) = jobs("head")
    mixed = replace(job, beside=((TASKS["words"], splits()),))
    with pytest.raises(UserError, match="with one head, and their classes differ"):
        train_adaptations(tiny("roberta"), [mixed], recipe(), method=PROMPT)


def test_a_search_tries_rows_of_every_kind_of_a_mixture(tiny):
    backbone = tiny("roberta")
    member = Job(TASKS["words"], splits()).member(PROMPT, backbone)
    encoded = [
        encode_task(backbone, TASKS[kind], examples, reserved=3)
        for kind, examples in (("words", splits().test), ("number", rows_of("number").test))
    ]
    mixed = [row for pair in zip(*(each.rows for each in encoded), strict=False) for row in pair]
    both = RowTrial(backbone, PROMPT, mixed, encoded[0].layout, 1)
    alone = [
        RowTrial(backbone, PROMPT, [row for row in mixed if row.kind == each.rows[0].kind], each.layout, 1)
        for each in encoded
    ]
    torch.testing.assert_close(
        both.losses([member]), sum(trial.losses([member]) for trial in alone) / 2, atol=1e-6, rtol=1e-6
    )
    torch.testing.assert_close(
        both.gradients([member])[0],
        sum(trial.gradients([member])[0] for trial in alone) / 2,
        atol=1e-6,
        rtol=1e-5,
    )


def test_a_task_with_words_may_have_a_head_in_their_place():
    task = with_head(label_task())
    assert task.head and not task.words and not task.has_words and task.one_label
    with pytest.raises(UserError, match="a head stands in place of label words"):
        replace(label_task(), head=True)


def test_a_number_that_is_said_to_every_row_is_told(tiny):
    backbone = tiny("roberta")
    same = replace(STARS, name="same")
    examples = tuple(Example("the film was dull", value=value) for value in (1.0, 3.0, 4.0))
    (score,) = evaluate_bank(
        backbone, BareBank(), encode_task(backbone, same, examples, reserved=0), keep=True
    )
    assert score.value == 0 and score.values["constant"] == score.answered.said[0]
    assert "constant" not in scores(backbone, train(backbone, "number")[0].adaptation, "number").values
