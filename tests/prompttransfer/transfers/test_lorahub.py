"""LoraHub's weights and the landscape between adaptations."""

import pytest
import torch
from scoring import ROWS
from toys import adapted, label_task

from analysis.figures import figure_bytes
from analysis.figures import landscape as draw
from prompttransfer.adaptations.running import bank_of
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import evaluate_bank
from prompttransfer.transfers.landscape import landscape
from prompttransfer.transfers.lorahub import Search, find_weights
from tasks.errors import UserError

FEW = Search(rounds=4, candidates=8)


def two(backbone, text):
    return [adapted(backbone, text, seed=seed, name=f"toy{seed}") for seed in (0, 1)]


def losses(backbone, adaptations):
    reserved = adaptations[0].length if adaptations[0].has_vectors else 0
    encoded = encode_task(backbone, label_task(), ROWS, reserved=reserved)
    return [score.loss for score in evaluate_bank(backbone, bank_of(backbone, adaptations), encoded)]


@pytest.mark.parametrize("text", ["prompt:length=3", "lora:rank=2"])
def test_the_objective_is_the_loss_and_the_price_of_the_weights(tiny, text):
    backbone = tiny("roberta")
    sources = two(backbone, text)
    found = find_weights(backbone, sources, label_task(), ROWS, FEW)
    for value, loss in zip(found.alone, losses(backbone, sources), strict=True):
        assert value == pytest.approx(loss + 0.05 * 0.5, abs=1e-5)
    assert found.objective <= min(*found.alone, found.nothing, found.mean) + 1e-9
    assert all(abs(weight) <= 1.5 for weight in found.weights)


def test_the_same_seed_finds_the_same_weights(tiny):
    backbone = tiny("roberta")
    sources = two(backbone, "lora:rank=2")
    once, again, other = (
        find_weights(backbone, sources, label_task(), ROWS, Search(4, 8, seed=seed)) for seed in (0, 0, 1)
    )
    assert once.weights == again.weights != other.weights


def test_a_high_price_leaves_nothing(tiny):
    backbone = tiny("roberta")
    found = find_weights(backbone, two(backbone, "lora:rank=2"), label_task(), ROWS, Search(4, 8, l1=1e4))
    assert found.weights == (0.0, 0.0) and found.objective == found.nothing


@pytest.mark.parametrize("text", ["prompt:length=3", "lora:rank=2"])
def test_the_corners_of_a_landscape_are_the_adaptations(tiny, text):
    backbone = tiny("roberta")
    sources = two(backbone, text)
    line = landscape(backbone, sources, label_task(), ROWS, points=5, margin=0.5)
    ends = line[line["a"].isin([0.0, 1.0])]
    torch.testing.assert_close(
        torch.tensor(ends["loss"].to_list()), torch.tensor(losses(backbone, sources)), atol=1e-5, rtol=1e-5
    )
    third = adapted(backbone, text, seed=2, name="toy2")
    plane = landscape(backbone, [*sources, third], label_task(), ROWS, points=3, margin=0)
    corner = plane[(plane["a"] == 0) & (plane["b"] == 1)]["loss"].item()
    assert corner == pytest.approx(losses(backbone, [third])[0], abs=1e-5)
    for table in (line, plane):
        assert figure_bytes(draw(table)) == figure_bytes(draw(table))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda b: find_weights(b, two(b, "lora:rank=2"), label_task(), []), "no labelled row of toy"),
        (lambda b: Search(rounds=0), "at least 1 round"),
        (lambda b: Search(l1=-1), "l1 is 0 or more"),
        (lambda b: landscape(b, two(b, "lora:rank=2")[:1], label_task(), ROWS), "a line is through two"),
        (lambda b: draw(landscape(b, two(b, "ia3"), label_task(), ROWS)), "ia3 cannot be composed"),
    ],
)
def test_a_mistake_is_one_line(tiny, act, message):
    with pytest.raises(UserError, match=message):
        act(tiny("roberta"))
