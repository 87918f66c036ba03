"""Task vectors and mixtures, against sums by hand; an adaptation that is folded into its model's folder."""

from dataclasses import replace

import pytest
import torch
from scoring import scores, scores_of_bank
from toys import adapted

from prompttransfer.adaptations.arithmetic import added, check_alike, made_of, parts_of, task_vector
from prompttransfer.adaptations.artifacts import card, load_adaptation, save_adaptation
from prompttransfer.adaptations.composition import weighted_sum
from prompttransfer.adaptations.folding import save_folded
from prompttransfer.adaptations.mixtures import mixture_bank
from prompttransfer.adaptations.prompts import soft_prompt
from prompttransfer.backbones.layouts import Encoding
from prompttransfer.backbones.loading import load_backbone
from prompttransfer.backbones.revisions import differing
from tasks.errors import UserError

KEY = "prompt_embeddings"


def prompt(values, start, name="a", **changed):
    return replace(
        soft_prompt(
            torch.tensor(values),
            task=name,
            name=name,
            backbone="model",
            initial=torch.tensor(start),
            words={"bad": name},
        ),
        **changed,
    )


A = prompt([[2.0, 3.0]], [[1.0, 1.0]])  # tau (1, 2)
B = prompt([[0.0, 5.0]], [[0.0, 1.0]], "b")  # tau (0, 4)


@pytest.mark.parametrize(
    ("weights", "onto", "wanted"),
    [
        ((1.0, 1.0), None, [2.0, 7.0]),  # (1, 1) + (1, 2) + (0, 4)
        ((1.0, -1.0), None, [2.0, -1.0]),
        ((0.5, 0.5), B, [0.5, 4.0]),  # (0, 1) + half of both
        ((-1.0, 0.0), None, [0.0, -1.0]),
    ],
)
def test_task_vectors_by_hand(weights, onto, wanted):
    method, tensors = added([A, B], weights, onto)
    assert tensors[KEY].tolist() == [wanted]
    assert method == A.method


def test_scaling_by_one_is_the_prompt():
    assert torch.equal(added([A], [1.0])[1][KEY], A.vectors)


def test_task_vectors_of_loras_are_the_loras(tiny):
    backbone = tiny("roberta")
    first, second = (adapted(backbone, "lora:rank=2", seed=seed) for seed in (0, 1))
    method, tensors = added([first, second], [1.0, -1.0])
    assert method.rank == 4
    made = replace(first, method=method, tensors=tensors, initial=None)
    away = replace(first, method=second.method, tensors=added([second], [-1.0])[1])
    parts = parts_of([made, second], [1.0, 1.0])
    back = mixture_bank(backbone, parts, torch.tensor([[1.0, 1.0]]))
    own = mixture_bank(backbone, parts_of([first], [1.0]), torch.tensor([[1.0]]))
    torch.testing.assert_close(
        scores_of_bank(backbone, back), scores_of_bank(backbone, own), atol=1e-4, rtol=1e-4
    )
    assert away.method == first.method


@pytest.mark.parametrize("kind", ["roberta", "t5"])
@pytest.mark.parametrize("text", ["prompt:length=3", "lora:rank=2"])
def test_a_mixture_is_the_adaptation_of_the_weighted_sum(tiny, kind, text):
    """Each of many mixtures in a bank, and of weight one each adaptation itself."""
    backbone = tiny(kind)
    two = [adapted(backbone, text, seed=seed) for seed in (0, 1)]
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.3, -0.8]])
    together = scores_of_bank(backbone, mixture_bank(backbone, parts_of(two, [1, 1]), weights))
    method, tensors = weighted_sum(parts_of(two, [0.3, -0.8]))
    summed = replace(two[0], method=method, tensors=tensors, initial=None)
    for found, alone in zip(together, [*two, summed], strict=True):
        torch.testing.assert_close(found, scores(backbone, alone)[0], atol=1e-4, rtol=1e-4)


def test_what_it_is_made_of_is_kept(tmp_path):
    made = made_of([A, B], [1.0, 0.5], added([A, B], [1.0, 0.5]), how="add", name="sum", initial=A)
    again = load_adaptation(save_adaptation(made, tmp_path / "sum"))
    assert (again.task, again.origin.start) == ("a+b", "made:add")
    assert [(part["name"], part["weight"]) for part in again.origin.recipe["made_of"]] == [
        ("a", 1.0),
        ("b", 0.5),
    ]
    assert again.origin.recipe["made_of"][0]["digest"] == A.digest
    assert again.origin.words == {}  # they disagree
    assert torch.equal(again.first_vectors, A.first_vectors)
    assert "made of: 0.5 x `b`" in card(made)


def test_a_folded_lora_is_a_model_that_answers_alike(backbone_folder, tmp_path):
    from transformers import AutoModelForMaskedLM

    home = backbone_folder("roberta")
    before = {path.name: path.read_bytes() for path in home.iterdir()}
    backbone = load_backbone(str(home), precision="fp32", engine="plain")
    own = adapted(backbone, "lora:rank=2,targets=query+value+dense")
    folder = save_folded(backbone, own, tmp_path / "folded")
    folded = load_backbone(str(folder), precision="fp32")
    torch.testing.assert_close(scores(folded), scores(backbone, own), atol=1e-5, rtol=1e-5)
    assert differing(folded.revision, backbone.revision) == ("weights",)
    assert {path.name: path.read_bytes() for path in home.iterdir()} == before
    ids = torch.tensor([[0, 5, 6, 7, 2]])
    ours = folded.model(input_ids=ids).logits
    theirs = AutoModelForMaskedLM.from_pretrained(folder).eval()(input_ids=ids).logits
    torch.testing.assert_close(theirs, ours)


def test_a_fold_leaves_the_weights_in_memory(tiny, tmp_path):
    backbone = tiny("t5", engine="plain")
    before = backbone.digest()
    save_folded(backbone, adapted(backbone, "dora:rank=2"), tmp_path / "folded")
    assert backbone.digest() == before


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: task_vector(replace(A, initial=None)), "does not say what it started from"),
        (lambda: check_alike([A, other(backbone="elsewhere")]), "of backbone model, 'b' of elsewhere"),
        (lambda: check_alike([A, replace(B, encoding=Encoding("after-bos"))]), "reads texts as prompt-first"),
        (lambda: parts_of([A, prompt([[1.0]], [[1.0]])], [1, 1]), "prompts of different shapes"),
    ],
)
def test_a_mistake_is_one_line(act, message):
    with pytest.raises(UserError, match=message):
        act()


def other(**origin):
    return replace(B, origin=replace(B.origin, **origin))
