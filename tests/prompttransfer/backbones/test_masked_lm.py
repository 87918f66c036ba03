"""RoBERTa and BERT with a prompt: the same numbers as Hugging Face's own forward pass, whatever stands beside a row."""

import pytest
import torch
from toys import label_task, noise, pair_task
from transformers import AutoModelForMaskedLM

from prompttransfer.backbones.interventions import Vectors
from prompttransfer.backbones.layouts import LAYOUTS, Encoding, find_layout
from tasks.errors import UserError
from tasks.task import Example

FIRST = LAYOUTS["prompt-first"]
ROWS = (
    Example("the film was dull", label=0),
    Example("it was fresh and warm and sweet and the actor was kind", label=1),
    Example("good", label=1),
)
LENGTH = 3


def scores(backbone, examples, prompt, layout=FIRST, task=None):
    """Label scores of rows that run together, all with the same prompt."""
    task = task or label_task()
    rows = backbone.encode(task, examples, Encoding(layout.name), reserved=prompt.shape[0])
    batch = backbone.batch(rows, layout=layout)
    with torch.no_grad():
        return backbone.label_scores(Vectors(prompt.expand(len(rows), -1, -1)), batch)


def hugging_face(backbone, backbone_folder, kind):
    """The same weights in Hugging Face's own class."""
    return AutoModelForMaskedLM.from_pretrained(backbone_folder(kind)).eval()


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_without_a_prompt_scores_are_hugging_faces_logits_on_input_ids(tiny, backbone_folder, kind):
    backbone = tiny(kind)
    rows = backbone.encode(label_task(), ROWS, reserved=0)
    batch = backbone.batch(rows, layout=FIRST)
    with torch.no_grad():
        logits = hugging_face(backbone, backbone_folder, kind)(
            input_ids=batch.ids, attention_mask=batch.mask
        ).logits
    slots = (batch.ids == backbone.tokenizer.mask_token_id).nonzero()
    assert slots[:, 0].tolist() == [0, 1, 2]
    ids = backbone.tokenizer.convert_tokens_to_ids(["terrible", "great"])
    wanted = logits[slots[:, 0], slots[:, 1]][:, ids].log_softmax(dim=-1)
    torch.testing.assert_close(
        scores(backbone, ROWS, torch.zeros(0, backbone.width)), wanted, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("kind", ["roberta", "bert"])
@pytest.mark.parametrize("layout", ["prompt-first", "after-bos"])
def test_with_a_prompt_scores_are_hugging_faces_logits_on_the_same_vectors(
    tiny, backbone_folder, kind, layout
):
    backbone, prompt = tiny(kind), noise(LENGTH, 16)
    model = hugging_face(backbone, backbone_folder, kind)
    tokenizer = backbone.tokenizer
    text = tokenizer.convert_tokens_to_ids("the film was dull".split())
    opening, mask = tokenizer.cls_token_id, tokenizer.mask_token_id
    embed = model.get_input_embeddings()
    before, after = ([], [opening, mask]) if layout == "prompt-first" else ([opening], [mask])
    ids = torch.tensor([*before, *after, *text, tokenizer.sep_token_id])
    words = embed(ids)
    vectors = torch.cat([words[: len(before)], prompt, words[len(before) :]])[None]
    first = 2 if kind == "roberta" else 0
    positions = torch.arange(first, first + vectors.shape[1])[None]
    with torch.no_grad():
        logits = model(inputs_embeds=vectors, position_ids=positions).logits
    chosen = tokenizer.convert_tokens_to_ids(["terrible", "great"])
    wanted = logits[0, LENGTH + 1, chosen].log_softmax(dim=-1)
    got = scores(backbone, ROWS[:1], prompt, LAYOUTS[layout])[0]
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["roberta", "bert"])
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 2e-2)])
def test_a_row_scores_the_same_alone_and_beside_longer_rows(tiny, kind, layout, precision, tolerance):
    backbone, prompt = tiny(kind, precision), noise(LENGTH, 16)
    together = scores(backbone, ROWS, prompt, LAYOUTS[layout])
    alone = torch.cat([scores(backbone, [row], prompt, LAYOUTS[layout]) for row in ROWS])
    torch.testing.assert_close(together, alone, atol=tolerance, rtol=tolerance)
    # The rows do differ, so that agreement means something.
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_padding_on_the_left_in_hugging_face_gives_what_padding_on_the_right_gives_here(
    tiny, backbone_folder
):
    backbone = tiny("roberta")
    model = hugging_face(backbone, backbone_folder, "roberta")
    rows = backbone.encode(label_task(), ROWS, reserved=0)
    batch = backbone.batch(rows, layout=FIRST)
    left = torch.stack(
        [torch.cat([ids[mask == 0], ids[mask == 1]]) for ids, mask in zip(batch.ids, batch.mask, strict=True)]
    )
    assert not torch.equal(left, batch.ids)
    with torch.no_grad():
        logits = model(input_ids=left, attention_mask=(left != backbone.tokenizer.pad_token_id).long()).logits
    slots = (left == backbone.tokenizer.mask_token_id).nonzero()
    chosen = backbone.tokenizer.convert_tokens_to_ids(["terrible", "great"])
    wanted = logits[slots[:, 0], slots[:, 1]][:, chosen].log_softmax(dim=-1)
    torch.testing.assert_close(scores(backbone, ROWS, torch.zeros(0, 16)), wanted, atol=1e-5, rtol=1e-5)


def test_prompts_of_a_batch_do_not_see_each_other(tiny):
    backbone = tiny("roberta")
    rows = backbone.encode(label_task(), ROWS[:2], reserved=LENGTH)
    batch = backbone.batch([*rows, *rows], layout=FIRST)
    first, second = noise(LENGTH, 16, seed=1), noise(LENGTH, 16, seed=2)
    with torch.no_grad():
        mixed = backbone.label_scores(Vectors(torch.stack([first, first, second, second])), batch)
    torch.testing.assert_close(mixed[:2], scores(backbone, ROWS[:2], first), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mixed[2:], scores(backbone, ROWS[:2], second), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_su2022_never_reads_the_first_row_of_a_prompt(tiny, kind):
    backbone, prompt = tiny(kind), noise(LENGTH, 16)
    other = prompt.clone()
    other[0] = 7.0
    layout = LAYOUTS["su2022"]
    assert torch.equal(scores(backbone, ROWS, prompt, layout), scores(backbone, ROWS, other, layout))
    other[1] = 7.0
    assert not torch.allclose(scores(backbone, ROWS, prompt, layout), scores(backbone, ROWS, other, layout))


def test_su2022_is_the_mask_then_the_prompt_without_positions_read_at_slot_0(tiny):
    backbone, prompt = tiny("roberta"), noise(LENGTH, 16)
    table, tokenizer = backbone.model.roberta.embeddings, backbone.tokenizer
    text = tokenizer.convert_tokens_to_ids("the film was dull".split())
    ids = torch.tensor([tokenizer.cls_token_id, *text, tokenizer.sep_token_id])
    with torch.no_grad():
        words = table.word_embeddings(torch.cat([torch.tensor([tokenizer.mask_token_id]), ids]))
        vectors = torch.cat([words[:1], prompt[1:], words[1:]])
        # Zero positions on the prompt; the text keeps 2 + 3, 2 + 4, ... (thunlp 1.0, modelling_roberta.py).
        positions = table.position_embeddings.weight[2 : 2 + len(vectors)].clone()
        positions[:LENGTH] = 0
        hidden = table.LayerNorm(vectors + positions + table.token_type_embeddings.weight[0])[None]
        states = backbone.model.roberta.encoder(hidden).last_hidden_state
        logits = backbone.model.lm_head(states)[0, 0]
    chosen = tokenizer.convert_tokens_to_ids(["terrible", "great"])
    got = scores(backbone, ROWS[:1], prompt, LAYOUTS["su2022"])[0]
    torch.testing.assert_close(got, logits[chosen].log_softmax(dim=-1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("layout", "wanted"),
    [
        ("prompt-first", "[P1] [P2] [P3] <s> <mask> the film was dull </s>"),
        ("after-bos", "<s> [P1] [P2] [P3] <mask> the film was dull </s>"),
        ("su2022", "<mask> [P2] [P3] <s> the film was dull </s>"),
    ],
)
def test_the_answer_slot_is_the_mask_of_every_layout(tiny, layout, wanted):
    backbone, place = tiny("roberta"), LAYOUTS[layout]
    row = backbone.encode(label_task(), ROWS[:1], Encoding(layout), reserved=LENGTH)[0]
    shown = backbone.describe(row, length=LENGTH, layout=place)
    assert shown == wanted.split()
    assert shown[backbone.answer_slot(LENGTH, place)] == "<mask>"


def test_a_pair_is_joined_as_each_model_was_pre_trained(tiny):
    example = Example("the film was dull", "it was grim", label=2)
    shown = {
        kind: backbone.describe(
            backbone.encode(pair_task(), [example], Encoding(layout), reserved=0)[0],
            length=0,
            layout=LAYOUTS[layout],
        )
        for kind, layout in (("roberta", "prompt-first"), ("bert", "prompt-first"))
        for backbone in [tiny(kind)]
    }
    assert shown["roberta"] == "<s> <mask> the film was dull </s> </s> it was grim </s>".split()
    assert shown["bert"] == "[CLS] [MASK] the film was dull [SEP] it was grim [SEP]".split()


@pytest.mark.parametrize("kind", ["roberta", "bert"])
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_truncation_cuts_text_only(tiny, kind, layout):
    backbone, place = tiny(kind), LAYOUTS[layout]
    long = Example("the film was dull " * 40, "it was grim " * 40, label=0)
    rows = backbone.encode(pair_task(), [long], Encoding(layout, max_length=500), reserved=20)
    assert rows[0].cut
    shown = backbone.describe(rows[0], length=20, layout=place)
    assert len(shown) <= 64
    assert shown.count(backbone.tokenizer.mask_token) == 1
    assert shown[-1] == backbone.tokenizer.sep_token
    with torch.no_grad():
        batch = backbone.batch(rows, layout=place)
        assert torch.isfinite(backbone.label_scores(Vectors(noise(1, 20, 16)), batch)).all()


def test_rows_that_fit_are_not_cut(tiny):
    rows = tiny("roberta").encode(label_task(), ROWS, encoding=Encoding(max_length=10), reserved=LENGTH)
    assert [row.cut for row in rows] == [False, True, False]
    assert [row.size for row in rows] == [4, 10, 1]


def test_a_prompt_that_leaves_no_room_for_text_is_refused(tiny):
    with pytest.raises(
        UserError, match=r"a prompt or prefix of 60 vectors leaves 0 of the 64 positions .* at most 51"
    ):
        tiny("roberta").encode(label_task(), ROWS, reserved=60)


def test_a_masked_lm_refuses_to_write(tiny):
    from toys import question_task

    with pytest.raises(UserError, match="use a T5 backbone"):
        tiny("roberta").encode(question_task(), [Example("who", "a film", references=("film",))], reserved=1)


def test_an_unknown_layout_is_named_with_the_nearest_one():
    with pytest.raises(UserError, match="did you mean 'prompt-first'"):
        find_layout("promt-first")
    with pytest.raises(UserError, match="choose one of prompt-first, su2022"):
        find_layout("after-bos", "t5")


def test_loss_is_the_cross_entropy_of_the_right_label_and_reaches_the_prompt_only(tiny):
    backbone = tiny("roberta")
    before = backbone.digest()
    prompt = noise(LENGTH, 16).requires_grad_()
    rows = backbone.encode(label_task(), ROWS, reserved=LENGTH)
    batch = backbone.batch(rows, layout=FIRST)
    losses = backbone.loss(Vectors(prompt.expand(3, -1, -1)), batch)
    wanted = [-scores(backbone, ROWS, prompt.detach())[i, row.label].item() for i, row in enumerate(ROWS)]
    assert losses.tolist() == pytest.approx(wanted, abs=1e-5)
    losses.sum().backward()
    assert prompt.grad is not None and prompt.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in backbone.model.parameters())
    assert backbone.digest() == before


def test_a_backbone_is_put_into_eval_mode_and_stays_there(backbone_folder, tiny):
    from prompttransfer.backbones.masked_lm import MaskedLM

    model = AutoModelForMaskedLM.from_pretrained(backbone_folder("roberta")).train()
    tokenizer = tiny("roberta").tokenizer
    backbone = MaskedLM(model, tokenizer, name="t", revision="", device=torch.device("cpu"))
    prompt = noise(LENGTH, 16)
    assert torch.equal(scores(backbone, ROWS, prompt), scores(backbone, ROWS, prompt))
    assert not any(module.training for module in backbone.model.modules())


def test_the_digest_sees_one_changed_weight(backbone_folder):
    from prompttransfer.backbones.loading import load_backbone

    backbone = load_backbone(str(backbone_folder("roberta")), precision="fp32", device="cpu")
    before = backbone.digest()
    with torch.no_grad():
        backbone.model.roberta.encoder.layer[1].output.dense.bias[0] += 1e-6
    assert backbone.digest() != before


def test_a_prompt_stays_float32_in_front_of_a_bf16_backbone(tiny):
    backbone = tiny("roberta", "bf16")
    assert backbone.dtype is torch.bfloat16
    prompt = noise(LENGTH, 16).requires_grad_()
    rows = backbone.encode(label_task(), ROWS, reserved=LENGTH)
    losses = backbone.loss(Vectors(prompt.expand(3, -1, -1)), backbone.batch(rows, layout=FIRST))
    losses.sum().backward()
    assert losses.dtype == torch.float32 and prompt.grad.dtype == torch.float32
    exact = scores(tiny("roberta"), ROWS, prompt.detach())
    torch.testing.assert_close(scores(backbone, ROWS, prompt.detach()), exact, atol=0.15, rtol=0.1)
