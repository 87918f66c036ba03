"""Other encoders and encoder-decoders: scores are transformers' own, with and without a prompt, and every method that a
family can have trains, runs with others and is read by peft."""

import json
import re

import pytest
import torch
from conftest import ENCODERS, T5_LIKE
from method_texts import TEXTS
from safetensors.torch import save_file
from toys import label_task, noise, pair_task, question_task, recipe, splits
from transformers import AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from prompttransfer.adaptations.bank import VectorBank
from prompttransfer.adaptations.methods import METHODS, parse_method
from prompttransfer.adaptations.starts import RANDOM
from prompttransfer.backbones.interventions import BARE, Vectors
from prompttransfer.backbones.layouts import LAYOUTS, Encoding
from prompttransfer.backbones.loading import FAMILIES, load_backbone, outline_backbone
from prompttransfer.neurons.capture import capture, find_site
from prompttransfer.training.memory import kept_bytes
from prompttransfer.training.train import Job, train_adaptations
from tasks.errors import UserError
from tasks.task import Example

FIRST = LAYOUTS["prompt-first"]
TASK = label_task()
LENGTH = 3
ROWS = (
    Example("the film was dull and the room was very cold and the song was sour", label=0),
    Example("the room was very bright", label=1),
    Example("fresh", label=1),
)
SHOWN = (Example("fresh", label=0), Example("fresh", label=1))
"""What is drawn of these is as long in either order, so that members that show them can share a bank."""
EVERY = (*ENCODERS, *T5_LIKE)
CANNOT = {
    **dict.fromkeys((("modernbert", "ia3"),), "ia3 knows no keys, values and second feed-forward maps"),
    **dict.fromkeys(
        (("modernbert", "bitfit"), *((kind, "bitfit") for kind in T5_LIKE)), "bitfit trains biases"
    ),
    **{
        (kind, name): f"{name} is not for a .* backbone"
        for kind in ("albert", "deberta-v2", "deberta-v3", "mpnet", "longt5", "longt5-global")
        for name in ("prefix", "p-tuning-v2")
    },
}
"""What a family cannot do, and the line that says so."""
CASES = [(kind, TEXTS[name][0]) for kind in EVERY for name in METHODS if (kind, name) not in CANNOT]
OFFSET = {"xlm-roberta": 2, "mpnet": 2}
"""Where positions begin."""


def hugging_face(backbone, backbone_folder, kind):
    """The same weights in the class of transformers, with the settings that they were loaded under."""
    auto = AutoModelForMaskedLM if kind in ENCODERS else AutoModelForSeq2SeqLM
    return auto.from_pretrained(backbone_folder(kind), attn_implementation="eager").eval()


def batch_of(backbone, rows=ROWS, *, reserved=0, task=TASK, **encoding):
    encoded = backbone.encode(task, rows, Encoding(**encoding), reserved=reserved)
    return backbone.batch(encoded, layout=LAYOUTS[encoding.get("layout", "prompt-first")])


def their_logits(model, kind, ids, prompt):
    """Logits [vocabulary] at the answer of one row without padding, behind a prompt [length, width] at its front."""
    words = torch.cat([prompt, model.get_input_embeddings()(ids)])[None]
    if kind in T5_LIKE:
        return model(inputs_embeds=words, decoder_input_ids=torch.zeros(1, 1, dtype=torch.long)).logits[0, 0]
    first = OFFSET.get(kind, 0)
    positions = torch.arange(first, first + words.shape[1])[None]
    return model(inputs_embeds=words, position_ids=positions).logits[0, len(prompt) + 1]


def real(batch, row):
    return batch.ids[row][batch.mask[row] > 0]


def one_piece(kind):
    """A task whose label words are one token."""
    return label_task(negative="b", positive="g") if kind == "byt5" else TASK


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("length", [0, LENGTH])
def test_scores_are_those_of_transformers_with_and_without_a_prompt(tiny, backbone_folder, kind, length):
    backbone, model = tiny(kind), hugging_face(tiny(kind), backbone_folder, kind)
    prompt = noise(length, backbone.width)
    batch = batch_of(backbone, reserved=length, task=one_piece(kind))
    assert batch.candidates.shape[2] == 1
    with torch.no_grad():
        got = backbone.label_scores(Vectors(prompt.expand(len(ROWS), -1, -1)), batch)
        for row in range(len(ROWS)):
            logits = their_logits(model, kind, real(batch, row), prompt)
            wanted = logits[batch.candidates[row, :, 0]].log_softmax(-1)
            torch.testing.assert_close(got[row], wanted, atol=1e-5, rtol=1e-5)
    assert (got[0] - got[1]).abs().max() > 1e-3  # rows differ, so that agreement means something


@pytest.mark.parametrize("kind", ENCODERS)
def test_ids_alone_give_the_logits_that_are_scored(tiny, backbone_folder, kind):
    """Without a prompt transformers numbers positions itself, from the ids."""
    backbone, model = tiny(kind), hugging_face(tiny(kind), backbone_folder, kind)
    batch = batch_of(backbone, task=pair_task(), rows=[Example("it was dull", "the film was grim", label=0)])
    with torch.no_grad():
        logits = model(input_ids=batch.ids, attention_mask=batch.mask).logits[:, 1]
        got = backbone.label_scores(BARE, batch)
    wanted = logits.gather(1, batch.candidates[..., 0]).log_softmax(-1)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", EVERY)
def test_a_row_scores_the_same_alone_and_beside_longer_rows(tiny, kind):
    backbone = tiny(kind)
    own = Vectors(noise(LENGTH, backbone.width)[None])
    with torch.no_grad():
        together = backbone.label_scores(own.repeat(3), batch_of(backbone, reserved=LENGTH))
        alone = [backbone.label_scores(own, batch_of(backbone, [row], reserved=LENGTH)) for row in ROWS]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_prompt_may_stand_behind_the_beginning(tiny, backbone_folder, kind):
    backbone, model = tiny(kind), hugging_face(tiny(kind), backbone_folder, kind)
    prompt = noise(LENGTH, backbone.width)
    batch = batch_of(backbone, ROWS[:1], reserved=LENGTH, layout="after-bos")
    words = model.get_input_embeddings()(batch.ids[0])
    vectors = torch.cat([words[:1], prompt, words[1:]])[None]
    first = OFFSET.get(kind, 0)
    with torch.no_grad():
        got = backbone.label_scores(Vectors(prompt[None]), batch)
        positions = torch.arange(first, first + vectors.shape[1])[None]
        logits = model(inputs_embeds=vectors, position_ids=positions).logits[0, LENGTH + 1]
    wanted = logits[batch.candidates[0, :, 0]].log_softmax(-1)
    torch.testing.assert_close(got[0], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in ENCODERS if kind != "xlm-roberta"])
def test_a_layout_that_changes_positions_inside_a_model_is_refused(tiny, kind):
    with pytest.raises(UserError, match=r"layout 'su2022' is not for .*: choose prompt-first or after-bos"):
        batch_of(tiny(kind), reserved=LENGTH, layout="su2022")


@pytest.mark.parametrize("kind", T5_LIKE)
def test_labels_and_texts_of_several_tokens_are_scored_as_transformers_scores_them(
    tiny, backbone_folder, kind
):
    backbone, model = tiny(kind), hugging_face(tiny(kind), backbone_folder, kind)
    words = {"negative": "very bad", "positive": "great film"}
    batch = batch_of(backbone, ROWS[:1], task=label_task(**words))
    with torch.no_grad():
        got = backbone.label_scores(BARE, batch)[0]
        wanted = []
        for word in words.values():
            ids = backbone.tokenizer(word, add_special_tokens=False, return_tensors="pt")["input_ids"]
            output = model(input_ids=batch.ids, attention_mask=batch.mask, labels=ids)
            wanted.append(-output.loss * ids.shape[1])
    torch.testing.assert_close(got, torch.stack(wanted).log_softmax(-1), atol=1e-5, rtol=1e-5)
    question = [Example("who", "the actor was kind", references=("the actor",))]
    written = backbone.generate(BARE, batch_of(backbone, question, task=question_task()), max_new_tokens=3)
    assert len(written) == 1


# Methods -----------------------------------------------------------------------------------------------------------


def moved(method, backbone, *, seed=0, by=0.2):
    """A member that is no longer at its start."""
    member = method.started(backbone, TASK, RANDOM, seed=seed, rows=SHOWN)
    with torch.no_grad():
        for index, parameter in enumerate(member.parameters()):
            parameter += by * noise(*parameter.shape, seed=100 * seed + index)
    return member


@pytest.mark.parametrize(("kind", "text"), CASES)
def test_members_of_every_method_learn_apart_run_together_and_are_kept(tiny, kind, text):
    backbone, method = tiny(kind), parse_method(text)
    members = [moved(method, backbone, seed=seed) for seed in (0, 1)]
    bank, batch = method.bank(backbone, members), batch_of(backbone, reserved=method.reserved)
    if method.trains:
        backbone.loss(bank.rows(torch.tensor([0, 0, 0])), batch).sum().backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in members[0].parameters())
        assert all(p.grad is None or p.grad.abs().sum() == 0 for p in members[1].parameters())
        assert all(p.grad is None for p in backbone.model.parameters())
    with torch.no_grad():
        together = backbone.loss(method.bank(backbone, members).rows(torch.tensor([1, 0, 1])), batch)
        for row, owner in enumerate((1, 0, 1)):
            again = method.restored(members[owner].tensors())
            method.check_fits(backbone, members[owner].tensors(), "it")
            own = method.bank(backbone, [again]).rows(torch.tensor([0]))
            alone = backbone.loss(own, batch_of(backbone, ROWS[row : row + 1], reserved=method.reserved))
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "name"), CANNOT)
def test_what_a_family_cannot_do_is_one_line(tiny, kind, name):
    with pytest.raises(UserError, match=CANNOT[kind, name]) as error:
        parse_method(TEXTS[name][0]).member(tiny(kind), TASK, start="random", seed=0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("text", ["lora:rank=2", "prompt:length=3"])
def test_peft_gives_the_same_scores(tiny, backbone_folder, tmp_path, kind, text):
    peft = pytest.importorskip("peft")
    backbone, method, task = tiny(kind), parse_method(text), one_piece(kind)
    if text.startswith("prompt") and kind in ENCODERS:
        pytest.skip("peft puts a prompt into FEATURE_EXTRACTION models by ids, without positions of its own")
    member = moved(method, backbone)
    tensors = member.tensors()
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    config = method.peft_config(family=backbone.family, tensors=tensors)
    kinds = {"masked-lm": "FEATURE_EXTRACTION", "t5": "SEQ_2_SEQ_LM"}
    config |= {"task_type": kinds[backbone.family], "base_model_name_or_path": kind, "inference_mode": True}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    model = peft.PeftModel.from_pretrained(hugging_face(backbone, backbone_folder, kind), tmp_path).eval()
    for row in ROWS:
        batch = batch_of(backbone, [row], reserved=method.reserved, task=task)
        with torch.no_grad():
            ours = backbone.label_scores(method.bank(backbone, [member]).rows(torch.tensor([0])), batch)
            given = {"input_ids": batch.ids, "attention_mask": batch.mask}
            if kind in T5_LIKE:
                logits = model(**given, decoder_input_ids=torch.zeros(1, 1, dtype=torch.long)).logits[:, 0]
            else:
                logits = model(**given).logits[:, 1]
        theirs = logits.gather(1, batch.candidates[..., 0]).log_softmax(-1)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", EVERY)
def test_what_is_trained_is_read_again_and_scores_the_same(tiny, kind, tmp_path):
    backbone = tiny(kind)
    run = train_adaptations(backbone, [Job(TASK, splits(), 0)], recipe(steps=2))[0]
    save_adaptation(run.adaptation, tmp_path / "it")
    again = load_adaptation(tmp_path / "it")
    assert torch.equal(again.vectors, run.adaptation.vectors) and again.width == backbone.width
    with torch.no_grad():
        scores = [
            backbone.label_scores(
                VectorBank(one.vectors[None]).rows(torch.tensor([0] * 3)), batch_of(backbone)
            )
            for one in (run.adaptation, again)
        ]
    assert torch.equal(*scores)


@pytest.mark.parametrize(
    "kind", ["distilbert", "electra", "deberta-v2", "modernbert", "mpnet", "xlm-roberta"]
)
def test_neurons_are_those_behind_the_activation(tiny, kind, tmp_path):
    backbone = tiny(kind)
    run = train_adaptations(backbone, [Job(TASK, splits(), 0)], recipe(steps=2))[0]
    states = capture(backbone, [run.adaptation]).states
    assert (states.layers, states.neurons) == (backbone.layers, 32)
    assert "after" in find_site(backbone).tensor


def test_albert_has_one_set_of_neurons_which_is_said(tiny):
    with pytest.raises(UserError, match="its layers share one set of them"):
        find_site(tiny("albert"))


# Folders -----------------------------------------------------------------------------------------------------------


def test_factorised_embeddings_are_the_width_of_a_prompt_and_not_of_the_layers(tiny):
    for kind in ("albert", "electra"):
        assert (tiny(kind).width, tiny(kind).state_width) == (8, 16)


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_entry_names_one_map_of_each_kind_a_layer(tiny, kind):
    backbone = tiny(kind)
    layers = 1 if kind == "albert" else backbone.layers
    parts = ("joint",) if kind == "modernbert" else ("query", "key", "value")
    assert [len(backbone.maps_of(part)) for part in (*parts, "narrow")] == [layers] * (len(parts) + 1)
    merge, narrow = backbone.outputs["attention"], backbone.outputs["feed-forward"]
    assert narrow == backbone.maps_of("narrow") and not set(merge) & set(narrow)
    assert {backbone.linear_maps[name] for name in narrow} == {(32, 16)}


@pytest.mark.parametrize("kind", [*EVERY, "phi", "qwen3"])
def test_memory_is_estimated_without_weights(backbone_folder, kind):
    outline = outline_backbone(str(backbone_folder(kind)))
    rows = outline.encode(TASK, ROWS, reserved=LENGTH)
    own = Vectors(torch.zeros(len(rows), LENGTH, outline.width, device="meta", requires_grad=True))
    kept, tokens = kept_bytes(outline, rows, own, layout=FIRST)
    assert kept > 0 and tokens >= 3 * (LENGTH + 1)


def test_the_head_of_a_deberta_is_the_one_that_its_weights_have(backbone_folder, tmp_path, tiny):
    import shutil

    place = shutil.copytree(backbone_folder("deberta-v3"), tmp_path / "d")
    config = json.loads((place / "config.json").read_text())
    del config["legacy"]  # as Microsoft's own folders
    (place / "config.json").write_text(json.dumps(config))
    backbone = load_backbone(str(place), precision="fp32", device="cpu")
    with torch.no_grad():
        found = [one.label_scores(BARE, batch_of(one)) for one in (backbone, tiny("deberta-v3"))]
    assert torch.equal(*found)


def test_bytes_need_no_tokenizer_file_and_words_no_space(tiny, backbone_folder):
    assert not (backbone_folder("byt5") / "tokenizer.json").exists()
    answers = tiny("byt5").answers(TASK)
    assert answers.pieces == (tuple(byte + 3 for byte in b"terrible"), tuple(byte + 3 for byte in b"great"))
    assert real(batch_of(tiny("byt5"), ROWS[2:]), 0).tolist() == [*(byte + 3 for byte in b"fresh"), 1]


def test_an_architecture_without_an_entry_is_refused_with_those_that_have_one(backbone_folder, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bart"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    wanted = "is a bart model: prompttransfer runs " + ", ".join(FAMILIES)
    with pytest.raises(UserError, match=re.escape(wanted)):
        load_backbone(str(tmp_path), device="cpu")


@pytest.mark.parametrize("kind", ["distilbert", "longt5"])
def test_what_runs_by_the_modules_of_transformers_alone_says_so(backbone_folder, kind, tiny):
    assert tiny(kind).engine == "plain"
    with pytest.raises(UserError, match=r"unknown engine of a .* backbone 'frozen'"):
        tiny(kind, engine="frozen")
    with pytest.raises(UserError, match=r"unknown linear map of .*'quary'"):
        parse_method("lora:targets=quary").member(tiny(kind), TASK, start="random", seed=0)
