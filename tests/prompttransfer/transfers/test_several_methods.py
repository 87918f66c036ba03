"""Sources of several methods: one matrix, one ranking, one table of neurons; each says what it cannot do."""

import math
from dataclasses import replace

import numpy as np
import pytest
from toys import adapted, label_task, noise, pair_task, prompt_on, splits

from prompttransfer.neurons.capture import read_activations
from prompttransfer.transfers.compared import Compared
from prompttransfer.transfers.indicators import INDICATORS, indicator_table, missing, usual
from prompttransfer.transfers.recommendation import recommend
from prompttransfer.transfers.zero_shot import Target, zero_shot
from tasks.errors import UserError
from tasks.task import Example

PAIRS = tuple(Example("the film was dull", "the room was warm", label=label) for label in (0, 1, 2))
TEXTS = ("prompt:length=3", "lora:rank=2", "pfeiffer:reduction=4", "probe")


def pairs():
    return Target(pair_task(), replace(splits(), train=PAIRS, validation=PAIRS, test=PAIRS))


def sources(backbone, texts=TEXTS):
    return [adapted(backbone, text, seed=seed) for seed, text in enumerate(texts)]


def test_a_matrix_of_several_methods_has_each_cell_of_its_own_matrix(tiny):
    backbone, targets = tiny("roberta"), [Target(label_task(), splits())]
    together = zero_shot(backbone, sources(backbone), targets)
    assert together.methods == ("prompt:length=3", "lora:rank=2", "pfeiffer:reduction=4", "probe")
    for row, source in enumerate(sources(backbone)):
        alone = zero_shot(backbone, [source], targets)
        assert float(together.values[row, 0]) == float(alone.values[0, 0])


def test_a_probe_of_other_classes_is_a_cell_that_cannot_be_with_its_reason(tiny):
    backbone = tiny("roberta")
    matrix = zero_shot(backbone, sources(backbone), [pairs()])
    assert [math.isnan(value) for value in matrix.values[:4, 0].tolist()] == [False, False, False, True]
    probe = matrix.sources[3]
    assert "a probe of 2 classes cannot answer" in matrix.impossible_cells[probe]["toy-pair"]
    assert matrix.as_dict()["impossible_cells"] == {probe: dict(matrix.impossible_cells[probe])}
    alone = zero_shot(backbone, sources(backbone)[3:], [pairs()])
    assert math.isnan(alone.values[0, 0]) and not math.isnan(alone.values[1, 0])


def test_sources_of_several_methods_are_ranked_together_each_beside_a_probe_of_its_own(tiny):
    backbone = tiny("roberta")
    found = recommend(
        backbone, sources(backbone), [Target(label_task("new"), splits())], {}, rows=12, probe_steps=6
    )[0]
    assert {c.source for c in found.candidates} == {source.name for source in sources(backbone)}
    evidence = {item.indicator: item.values for item in found.evidence}
    named = {source.method.name: source.name for source in sources(backbone)}
    assert set(evidence["few-shot"]) == set(named.values())
    assert set(evidence.get("E_concat", {})) <= {named["prompt"]}
    assert set(evidence.get("BA-cosine", {})) <= {named["lora"]}
    assert any("which compare vectors in front of the text" in note for note in found.notes)


def test_a_source_that_cannot_answer_is_left_out_and_said_and_none_left_is_an_error(tiny):
    backbone = tiny("roberta")
    found = recommend(backbone, sources(backbone), [pairs()], {}, rows=3, probe_steps=0)[0]
    assert len(found.candidates) == 3
    assert any(note.startswith("left out toy-probe-s3: a probe of 2 classes") for note in found.notes)
    with pytest.raises(UserError, match="no source can be tried on toy-pair"):
        recommend(backbone, sources(backbone)[3:], [pairs()], {}, rows=3, probe_steps=0)


def test_neurons_of_several_methods_are_those_of_each_alone(tiny):
    backbone, given = tiny("roberta"), sources(backbone=tiny("roberta"))
    together = read_activations(backbone, given)
    assert together.shown == "P1 .. PL <s> <mask> </s>; or <s> <mask> </s>"
    for row, source in enumerate(given):
        np.testing.assert_allclose(
            together.values[row], read_activations(backbone, [source]).values[0], atol=1e-5
        )


def test_an_indicator_of_another_method_is_one_line_with_what_there_is_instead(tiny):
    backbone = tiny("roberta")
    loras = tuple(adapted(backbone, "lora:rank=2", seed=seed) for seed in (0, 1))
    with pytest.raises(UserError, match=r"E_average compares vectors .* compared by: BA-cosine, A-overlap"):
        indicator_table("E_average", Compared(loras))
    prompts = tuple(prompt_on(backbone, seed=seed) for seed in (0, 1))
    assert "E_average" in missing("BA-cosine", prompts)
    assert usual(prompts)[0] == "E_concat" and usual(loras)[0] == "BA-cosine"
    assert usual((*prompts, *loras)) == ("ON", "jaccard")
    prefixes = tuple(adapted(backbone, "p-tuning-v2:length=3", seed=seed) for seed in (0, 1))
    assert usual(prefixes)[0] == "keys-concat"
    groups = [tuple(replace(each, initial=each.tensors) for each in group) for group in (prompts, loras, prefixes)]  # fmt: skip
    low = [adapted(backbone, "ulpt:length=3,rank=4", seed=seed) for seed in (0, 1)]
    groups.append(tuple(replace(each, encoder={"latent": noise(3, 4)}) for each in low))
    assert all(any(missing(name, group) == "" for group in groups) for name in INDICATORS)


@pytest.mark.parametrize("text", ["lora:rank=2", "dora:rank=2", "adalora:rank=3,target=2"])
def test_the_cosine_of_products_is_that_of_the_products_laid_out(tiny, text):
    backbone = tiny("roberta")
    made = [adapted(backbone, text, seed=seed) for seed in (0, 1)]

    def flat(one):
        sites = sorted(name.split(".lora_A")[0] for name in one.tensors if ".lora_A" in name)
        parts = []
        for site in sites:
            of = {kind: next((t for n, t in one.tensors.items() if n.startswith(f"{site}.{kind}")), None) for kind in ("lora_A", "lora_B", "lora_E")}  # fmt: skip
            between = 1 if of["lora_E"] is None else of["lora_E"]
            parts.append((of["lora_B"] @ (of["lora_A"] * between)).flatten().double().numpy())
        return np.concatenate(parts)

    first, second = map(flat, made)
    expected = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    table = indicator_table("BA-cosine", Compared(tuple(made)))
    assert table.iloc[0, 1] == pytest.approx(expected, abs=1e-6) and table.iloc[0, 0] == pytest.approx(1)
