"""T5 v1.0 and v1.1 with a prompt: label scores and generation are Hugging Face's own."""

import pytest
import torch
from toys import label_task, noise, pair_task, question_task
from transformers import AutoModelForSeq2SeqLM

from prompttransfer.backbones.interventions import Vectors
from prompttransfer.backbones.layouts import LAYOUTS, Encoding
from tasks.task import Example

FIRST = LAYOUTS["prompt-first"]
ROWS = (
    Example("the film was dull", label=0),
    Example("it was fresh and warm and sweet and the actor was kind", label=1),
    Example("good", label=1),
)
QUESTIONS = (
    Example(
        "who was kind", "the actor in the film was kind and the song was sour", references=("the actor",)
    ),
    Example("where", "in the room", references=("in the room",)),
)
LENGTH = 3


@pytest.fixture(params=["t5", "t5-v1.1"])
def kind(request):
    return request.param


def encoded(backbone, task, examples, layout=FIRST):
    return backbone.batch(
        backbone.encode(task, examples, Encoding(layout.name), reserved=LENGTH), layout=layout
    )


def hugging_face(backbone_folder, kind):
    """The same weights in Hugging Face's own class."""
    return AutoModelForSeq2SeqLM.from_pretrained(backbone_folder(kind)).eval()


def inputs_of(model, prompt, batch):
    """What the encoder gets: prompt, then text; and its mask."""
    vectors = torch.cat([prompt.expand(batch.rows, -1, -1), model.get_input_embeddings()(batch.ids)], dim=1)
    mask = torch.cat([torch.ones(batch.rows, len(prompt), dtype=torch.long), batch.mask], dim=1)
    return {"inputs_embeds": vectors, "attention_mask": mask}


def test_the_two_output_matrices_of_v1_1_are_kept_apart_and_not_rescaled(tiny):
    old, new = tiny("t5").model, tiny("t5-v1.1").model
    assert torch.equal(old.lm_head.weight, old.shared.weight)
    assert not torch.equal(new.lm_head.weight, new.shared.weight)


@pytest.mark.parametrize(
    "words",
    [
        {"negative": "terrible", "positive": "great"},
        {"negative": "so bad", "positive": "great"},
        {"negative": "not good", "neutral": "okay", "positive": "very very good"},
    ],
    ids=["one piece", "one and two pieces", "up to three pieces"],
)
def test_label_scores_are_hugging_faces_sequence_log_probabilities(tiny, backbone_folder, kind, words):
    backbone, prompt, task = tiny(kind), noise(LENGTH, 16), label_task(**words)
    batch = encoded(backbone, task, ROWS)
    with torch.no_grad():
        got = backbone.label_scores(Vectors(prompt.expand(3, -1, -1)), batch)
        model = hugging_face(backbone_folder, kind)
        columns = []
        for word in words.values():
            target = torch.tensor([backbone.tokenizer(word, add_special_tokens=False)["input_ids"]]).expand(
                3, -1
            )
            logits = model(**inputs_of(model, prompt, batch), labels=target.contiguous()).logits
            columns.append(logits.log_softmax(-1).gather(-1, target[..., None]).sum(dim=(1, 2)))
        wanted = torch.stack(columns, dim=1).log_softmax(dim=1)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 5e-2)])
def test_a_row_scores_the_same_alone_and_beside_longer_rows(tiny, kind, precision, tolerance):
    backbone, prompt, task = tiny(kind, precision), noise(LENGTH, 16), label_task()
    with torch.no_grad():
        together = backbone.label_scores(Vectors(prompt.expand(3, -1, -1)), encoded(backbone, task, ROWS))
        alone = [backbone.label_scores(Vectors(prompt[None]), encoded(backbone, task, [row])) for row in ROWS]
    torch.testing.assert_close(together, torch.cat(alone), atol=tolerance, rtol=tolerance)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_rows_of_tasks_with_words_of_different_length_can_share_a_batch(tiny, kind):
    backbone, prompt = tiny(kind), noise(LENGTH, 16)
    short, long = label_task(), label_task(no="not good", maybe="so so", yes="very very good")
    rows = [backbone.encode(task, ROWS[:1], reserved=LENGTH)[0] for task in (short, long)]
    with torch.no_grad():
        both = backbone.label_scores(Vectors(prompt.expand(2, -1, -1)), backbone.batch(rows, layout=FIRST))
        apart = [
            backbone.label_scores(Vectors(prompt[None]), backbone.batch([row], layout=FIRST))[0]
            for row in rows
        ]
    torch.testing.assert_close(both[0, :2], apart[0], atol=1e-5, rtol=1e-5)
    assert both[0, 2] == float("-inf")
    torch.testing.assert_close(both[1], apart[1], atol=1e-5, rtol=1e-5)


def test_generation_is_hugging_faces_on_the_same_vectors(tiny, backbone_folder, kind):
    backbone, prompt = tiny(kind), noise(LENGTH, 16)
    batch = encoded(backbone, question_task(), QUESTIONS)
    got = backbone.generate(Vectors(prompt.expand(2, -1, -1)), batch, max_new_tokens=6)
    model = hugging_face(backbone_folder, kind)
    ids = model.generate(**inputs_of(model, prompt, batch), do_sample=False, num_beams=1, max_new_tokens=6)
    wanted = [text.strip() for text in backbone.tokenizer.batch_decode(ids, skip_special_tokens=True)]
    assert got == wanted
    assert any(got)


def test_the_loss_of_written_text_is_the_mean_over_its_own_tokens(tiny, backbone_folder, kind):
    backbone, prompt = tiny(kind), noise(LENGTH, 16)
    batch = encoded(backbone, question_task(), QUESTIONS)
    assert batch.targets.tolist()[0][-2:] == [1, -100]  # </s> behind "the actor", then nothing
    with torch.no_grad():
        losses = backbone.loss(Vectors(prompt.expand(2, -1, -1)), batch)
        model = hugging_face(backbone_folder, kind)
        for index, row in enumerate(QUESTIONS):
            single = encoded(backbone, question_task(), [row])
            wanted = model(**inputs_of(model, prompt, single), labels=single.targets).loss
            torch.testing.assert_close(losses[index], wanted, atol=1e-5, rtol=1e-5)


def test_the_prompt_gets_a_gradient_and_the_backbone_none(tiny, kind):
    backbone, prompt = tiny(kind), noise(LENGTH, 16).requires_grad_()
    before = backbone.digest()
    backbone.loss(Vectors(prompt.expand(3, -1, -1)), encoded(backbone, label_task(), ROWS)).sum().backward()
    assert prompt.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in backbone.model.parameters())
    assert backbone.digest() == before


def test_su2022_on_t5_is_prompt_first(tiny, kind):
    backbone, prompt = tiny(kind), noise(LENGTH, 16)
    with torch.no_grad():
        first, second = (
            backbone.label_scores(
                Vectors(prompt[None]), encoded(backbone, label_task(), ROWS[:1], LAYOUTS[name])
            )
            for name in ("prompt-first", "su2022")
        )
    assert torch.equal(first, second)


def test_the_input_is_prompt_text_end(tiny, kind):
    backbone = tiny(kind)
    row = backbone.encode(pair_task(), [Example("it was dull", "it was grim", label=0)], reserved=2)[0]
    assert (
        backbone.describe(row, length=2, layout=FIRST)
        == "[P1] [P2] it was dull </s> it was grim </s>".split()
    )


def test_a_long_context_is_cut_and_the_question_is_not(tiny, kind):
    backbone = tiny(kind)
    long = Example("who was kind in the film", "the actor was kind " * 50, references=("the actor",))
    row = backbone.encode(question_task(), [long], encoding=Encoding(max_length=20), reserved=2)[0]
    assert row.cut and row.size == 20
    assert backbone.tokenizer.convert_ids_to_tokens(list(row.first)) == long.first.split()


def test_bf16_scores_are_those_of_float32_to_the_precision_of_bf16(tiny, kind):
    found = []
    for precision in ("fp32", "bf16"):
        backbone = tiny(kind, precision)
        batch = encoded(backbone, label_task(), ROWS)
        prompts = noise(LENGTH, 16).expand(batch.rows, -1, -1)
        with torch.no_grad():
            found.append(backbone.label_scores(Vectors(prompts), batch))
    exact, rounded = found
    assert exact.dtype == rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(rounded, exact, atol=0.15, rtol=0.1)
