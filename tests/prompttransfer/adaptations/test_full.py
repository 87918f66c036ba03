"""Full fine-tuning: what is changed, what is kept of it, and that the backbone is not."""

from __future__ import annotations

import re

import pytest
import torch
from conftest import KINDS
from safetensors.torch import load_file
from toys import label_task, recipe, splits
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from prompttransfer.adaptations.bank import BareBank
from prompttransfer.adaptations.merging import merged
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.adaptations.running import bank_of, groups_of
from prompttransfer.backbones.layouts import LAYOUTS
from prompttransfer.training.train import Job, train_adaptations
from tasks.errors import UserError
from tasks.task import Example

FIRST = LAYOUTS["prompt-first"]
TASK = label_task()
ROWS = (Example("the film was dull", label=0), Example("the room was very bright", label=1))
MODELS = {"t5": AutoModelForSeq2SeqLM, "causal-lm": AutoModelForCausalLM, "masked-lm": AutoModelForMaskedLM}
FULL = parse_method("full")


def batch_of(backbone, rows=ROWS):
    return backbone.batch(backbone.encode(TASK, rows, reserved=0), layout=FIRST)


def scores(backbone, bank):
    with torch.no_grad():
        return backbone.label_scores(bank.rows(torch.zeros(2, dtype=torch.long)), batch_of(backbone))


def train(backbone, text="full", **plan):
    (run,) = train_adaptations(
        backbone, [Job(TASK, splits(), 0)], recipe(lr=0.01, **plan), method=parse_method(text)
    )
    return run.adaptation


def changed(backbone, *names, by=0.1):
    """A member in which only the parameters of these names moved."""
    member = FULL.member(backbone, TASK, start="random", seed=0)
    with torch.no_grad():
        for name, parameter in zip(member.names, member.change, strict=True):
            if name in names:
                parameter += by
    return member


@pytest.mark.parametrize("kind", [*KINDS, "llama", "gpt2"])
@pytest.mark.parametrize("engine", ["frozen", "plain"])
def test_what_runs_is_the_model_with_those_weights(tiny, backbone_folder, kind, engine):
    """Beside a model of transformers whose weights were changed in place, tied ones once."""
    backbone = tiny(kind, engine=engine)
    member = FULL.member(backbone, TASK, start="random", seed=0)
    generator = torch.Generator().manual_seed(0)
    model = MODELS[backbone.family].from_pretrained(backbone_folder(kind)).eval()
    theirs = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in zip(member.names, member.change, strict=True):
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
            theirs[name] += parameter
    for row in ROWS:
        batch = batch_of(backbone, (row,))
        inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
        with torch.no_grad():
            if backbone.family == "t5":
                logits = model(**inputs, decoder_input_ids=torch.zeros(1, 1, dtype=torch.long)).logits[0, 0]
            else:
                logits = model(**inputs).logits[0, 1 if backbone.family == "masked-lm" else -1]
            own = backbone.label_scores(FULL.bank(backbone, [member]).rows(torch.zeros(1).long()), batch)
        expected = logits[batch.candidates[0, :, 0]].log_softmax(-1)
        torch.testing.assert_close(own[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["roberta", "t5", "gpt2"])
def test_twenty_steps_are_those_of_the_model_itself(tiny, backbone_folder, kind):
    """AdamW on a model of transformers: the loss falls by the same."""
    backbone = tiny(kind)
    member = FULL.member(backbone, TASK, start="random", seed=0)
    bank, batch = FULL.bank(backbone, [member]), batch_of(backbone)
    reference = tiny(kind, engine="plain")
    model = MODELS[backbone.family].from_pretrained(backbone_folder(kind)).eval()
    weights = dict(model.named_parameters())
    places = [(reference.model.get_submodule(n.rpartition(".")[0]), n.rpartition(".")[2]) for n in weights]
    assert len(places) == len(member.names)

    def losses(parameters, loss):
        optimizer, found = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0), []
        for _ in range(20):
            optimizer.zero_grad()
            value = loss()
            value.backward()
            optimizer.step()
            found.append(value.item())
        return found

    def theirs():
        inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
        if backbone.family == "t5":
            logits = model(**inputs, decoder_input_ids=torch.zeros(2, 1, dtype=torch.long)).logits[:, 0]
        elif backbone.family == "masked-lm":
            logits = model(**inputs).logits[:, 1]
        else:
            logits = model(**inputs).logits[torch.arange(2), batch.mask.sum(1) - 1]
        words = logits.gather(1, batch.candidates[..., 0])
        return torch.nn.functional.cross_entropy(words, batch.labels)

    ours = losses(
        list(member.parameters()), lambda: backbone.loss(bank.rows(torch.zeros(2).long()), batch).mean()
    )
    assert ours == pytest.approx(losses(list(model.parameters()), theirs), abs=1e-4)


@pytest.mark.parametrize("kind", [*KINDS, "llama"])
def test_what_was_written_gives_the_same_scores_bit_for_bit(tiny, tmp_path, kind):
    backbone = tiny(kind)
    for text in ("full", "full:keep=all"):
        own = train(backbone, text)
        again = load_adaptation(save_adaptation(own, tmp_path / text.replace(":", "-")))
        both = [scores(backbone, bank_of(backbone, [each])) for each in (own, again)]
        assert torch.equal(*both)
        assert not torch.equal(both[0], scores(backbone, BareBank()))


def test_only_what_moved_is_kept(tiny, tmp_path):
    backbone = tiny("roberta")
    words = "roberta.embeddings.word_embeddings.weight"
    positions = "roberta.embeddings.position_embeddings.weight"
    own = train(backbone)
    table = own.tensors[f"change.{words}"]
    assert len(table) == len(own.tensors[f"rows.{words}"]) < backbone.word_embeddings.num_embeddings
    assert len(own.tensors[f"change.{positions}"]) < 66
    everything = train(backbone, "full:keep=all")
    assert everything.tensors[f"change.{words}"].shape == backbone.word_embeddings.weight.shape
    sizes = [
        (save_adaptation(each, tmp_path / name) / "adapter_model.safetensors").stat().st_size
        for name, each in (("a", own), ("b", everything))
    ]
    assert sizes[0] < sizes[1]
    only = changed(backbone, "lm_head.bias").tensors()
    assert list(only) == ["change.lm_head.bias"]
    assert set(load_file(tmp_path / "a" / "adapter_model.safetensors")) == set(own.tensors)


def test_of_a_member_that_did_not_move_one_small_tensor_is_kept(tiny):
    backbone = tiny("roberta")
    own = train(backbone, steps=0)
    (only,) = own.tensors.values()
    assert not only.any()
    torch.testing.assert_close(scores(backbone, bank_of(backbone, [own])), scores(backbone, BareBank()))


def test_a_pass_that_is_interrupted_leaves_the_backbone_as_it_was(tiny):
    backbone = tiny("roberta")
    before, own = backbone.digest(), dict(backbone.model.named_parameters())
    bank = FULL.bank(backbone, [changed(backbone, *own)])

    def interrupt(*_):
        raise KeyboardInterrupt

    handle = backbone.model.lm_head.dense.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        scores(backbone, bank)
    handle.remove()
    assert backbone.digest() == before and backbone.engine == "frozen"
    assert all(parameter is own[name] for name, parameter in backbone.model.named_parameters())
    scores(backbone, BareBank())


def test_rows_of_several_members_come_back_in_their_order(tiny):
    backbone = tiny("roberta")
    members = [changed(backbone, "lm_head.layer_norm.bias", by=by) for by in (0.0, 0.5, 1.0)]
    batch = batch_of(backbone, ROWS * 2)
    with torch.no_grad():
        owners = torch.tensor([2, 0, 1, 0])
        together = backbone.label_scores(FULL.bank(backbone, members).rows(owners), batch)
        for row, owner in enumerate(owners.tolist()):
            one = FULL.bank(backbone, [members[owner]]).rows(torch.zeros(4).long())
            torch.testing.assert_close(together[row], backbone.label_scores(one, batch)[row])


def test_each_runs_in_a_group_of_its_own_whatever_its_rows(tiny):
    backbone = tiny("roberta")
    first, second = train(backbone), train(backbone, steps=0)
    assert [group.places for group in groups_of([first, second])] == [(0,), (1,)]
    assert bank_of(backbone, [first, second]).members == 2


def test_a_random_one_changes_the_same_rows_by_as_much(tiny):
    own = train(tiny("roberta")).tensors
    (drawn,) = FULL.random_like([own], 1, torch.Generator().manual_seed(0))
    for name, tensor in own.items():
        if name.startswith("rows."):
            assert torch.equal(drawn[name], tensor)
            continue
        norms = [torch.sort(t.reshape(-1, t.shape[-1]).norm(dim=-1)).values for t in (drawn[name], tensor)]
        torch.testing.assert_close(*norms)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": torch.zeros(2)}, "a tensor 'weight' is no part of full, which holds change.NAME"),
        (
            {"change.w": torch.zeros(2, 3), "rows.w": torch.tensor([0.0, 0.0])},
            "full: rows.w are not the numbers of the 2 rows that changed",
        ),
        (
            {"change.w": torch.zeros(2, 3), "rows.w": torch.tensor([0.5, 1.0])},
            "full: rows.w are not the numbers of the 2 rows",
        ),
    ],
)
def test_tensors_that_are_none_of_it_are_one_line(tensors, message):
    with pytest.raises(UserError, match=re.escape(message)):
        FULL.restored(tensors)


def test_another_model_is_one_line(tiny):
    own = train(tiny("bert"))
    with pytest.raises(UserError, match=r"changes the weight bert\..* has none of that name"):
        FULL.check_fits(tiny("roberta"), own.tensors, "toy")
    with pytest.raises(UserError, match=r"'x' changes the weight lm_head.bias \[3\]; .* has one of \["):
        FULL.check_fits(tiny("roberta"), {"change.lm_head.bias": torch.zeros(3)}, "x")


def test_what_it_cannot_do_is_one_line(tiny):
    backbone = tiny("roberta")
    with (
        pytest.raises(UserError, match="only what changes linear maps can be merged"),
        merged(backbone, FULL.bank(backbone, [changed(backbone)])),
    ):
        pass
    with pytest.raises(UserError, match="unknown keep of full 'some'"):
        parse_method("full:keep=some")
    with pytest.raises(UserError, match="full starts at 'random'"):
        FULL.member(backbone, TASK, start="vocabulary", seed=0)


def test_how_large_a_file_gets_is_said_before(tiny):
    backbone = tiny("roberta")
    (line,) = FULL.remarks(backbone)
    count = sum(parameter.numel() for parameter in backbone.model.parameters())
    assert f"{count:,} numbers train, on engine plain; a file takes at most" in line
