"""Decoders: label scores, losses and written text are Hugging Face's own, whatever the padding and whichever engine."""

from dataclasses import replace

import pytest
import torch
from conftest import DECODERS
from toys import label_task, noise, pair_task, question_task
from transformers import AutoModelForCausalLM, GenerationConfig

from prompttransfer.adaptations.bank import VectorBank
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.backbones.decoder_layers import LAYERS
from prompttransfer.backbones.interventions import BARE, Vectors
from prompttransfer.backbones.layouts import LAYOUTS, Encoding
from prompttransfer.backbones.rows import repeat
from tasks.errors import UserError
from tasks.task import Example

FIRST = LAYOUTS["prompt-first"]
LENGTH = 3
ROWS = (
    Example("the film was dull", label=0),
    Example("it was fresh and warm and sweet and the actor was kind and the song was sour", label=1),
    Example("good", label=1),
)
QUESTIONS = (
    Example(
        "who was kind", "the actor in the film was kind and the song was sour", references=("the actor",)
    ),
    Example("where", "in the room", references=("in the room",)),
)


@pytest.fixture(params=DECODERS)
def kind(request):
    return request.param


def encoded(backbone, task, examples, **encoding):
    return backbone.batch(
        backbone.encode(task, examples, Encoding(**encoding), reserved=LENGTH), layout=FIRST
    )


def hugging_face(backbone_folder, kind):
    return AutoModelForCausalLM.from_pretrained(backbone_folder(kind)).eval()


def alone(model, prompt, ids):
    """Logits [time, vocabulary] of one row without padding behind a prompt."""
    vectors = torch.cat([prompt, model.get_input_embeddings()(torch.tensor(ids))])[None]
    return model(inputs_embeds=vectors).logits[0, len(prompt) :]


def ids_of(batch, row):
    return batch.ids[row][batch.mask[row] > 0].tolist()


def test_label_scores_are_hugging_faces_at_the_last_position_of_a_row_alone(tiny, backbone_folder, kind):
    backbone, prompt, model = tiny(kind), noise(LENGTH, 16), hugging_face(backbone_folder, kind)
    batch = encoded(backbone, label_task(), ROWS)
    assert batch.mask.sum(dim=1).unique().numel() == 3
    with torch.no_grad():
        got = backbone.label_scores(Vectors(prompt.expand(3, -1, -1)), batch)
        for row in range(3):
            logits = alone(model, prompt, ids_of(batch, row))[-1]
            wanted = logits[batch.candidates[row, :, 0]].log_softmax(-1)
            torch.testing.assert_close(got[row], wanted, atol=1e-5, rtol=1e-5)


def test_padding_on_the_left_gives_the_same_scores(tiny, backbone_folder, kind):
    backbone, prompt, model = tiny(kind), noise(LENGTH, 16), hugging_face(backbone_folder, kind)
    batch = encoded(backbone, label_task(), ROWS)
    words = torch.cat([prompt.expand(3, -1, -1), model.get_input_embeddings()(batch.ids)], dim=1)
    present = torch.cat([torch.ones(3, LENGTH, dtype=torch.long), batch.mask], dim=1)
    count = present.sum(dim=1)
    words = torch.stack([row.roll(len(row) - int(n), 0) for row, n in zip(words, count, strict=True)])
    present = torch.stack([row.roll(len(row) - int(n)) for row, n in zip(present, count, strict=True)])
    places = (present.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(inputs_embeds=words, attention_mask=present, position_ids=places).logits[:, -1]
        got = backbone.label_scores(Vectors(prompt.expand(3, -1, -1)), batch)
    wanted = logits.gather(1, batch.candidates[..., 0]).log_softmax(-1)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_words_of_several_tokens_are_scored_as_sequences(tiny, backbone_folder, kind):
    backbone, prompt, model = tiny(kind), noise(LENGTH, 16), hugging_face(backbone_folder, kind)
    words = {"negative": "not good", "neutral": "okay", "positive": "very very good"}
    batch = encoded(backbone, label_task(**words), ROWS)
    with torch.no_grad():
        got = backbone.label_scores(Vectors(prompt.expand(3, -1, -1)), batch)
        for row in range(3):
            scores = []
            for word in words.values():
                pieces = backbone.tokenizer(word, add_special_tokens=False)["input_ids"]
                ids = ids_of(batch, row)
                logits = alone(model, prompt, [*ids, *pieces[:-1]])[len(ids) - 1 :].log_softmax(-1)
                scores.append(logits.gather(1, torch.tensor(pieces)[:, None]).sum())
            wanted = torch.stack(scores).log_softmax(-1)
            torch.testing.assert_close(got[row], wanted, atol=1e-5, rtol=1e-5)


def test_the_loss_of_written_text_is_the_mean_over_its_own_tokens(tiny, backbone_folder, kind):
    backbone, prompt, model = tiny(kind), noise(LENGTH, 16), hugging_face(backbone_folder, kind)
    batch = encoded(backbone, question_task(), QUESTIONS)
    newline = backbone.tokenizer.convert_tokens_to_ids("\n")
    with torch.no_grad():
        losses = backbone.loss(Vectors(prompt.expand(2, -1, -1)), batch)
        for row, example in enumerate(QUESTIONS):
            answer = backbone.tokenizer(example.references[0], add_special_tokens=False)["input_ids"]
            target = torch.tensor([*answer, newline])
            ids = ids_of(batch, row)
            logits = alone(model, prompt, [*ids, *target[:-1].tolist()])[len(ids) - 1 :]
            wanted = torch.nn.functional.cross_entropy(logits, target)
            torch.testing.assert_close(losses[row], wanted, atol=1e-5, rtol=1e-5)


def test_what_is_written_is_hugging_faces_for_each_row_alone(tiny, backbone_folder, kind):
    backbone, model = tiny(kind), hugging_face(backbone_folder, kind)
    batch = encoded(backbone, question_task(), QUESTIONS)
    newline = backbone.tokenizer.convert_tokens_to_ids("\n")
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=8,
        eos_token_id=[newline, backbone.tokenizer.eos_token_id],
        pad_token_id=0,
    )
    found = []
    for seed in range(4):
        prompt = noise(LENGTH, 16, seed=seed)
        got = backbone.generate(Vectors(prompt.expand(2, -1, -1)), batch, max_new_tokens=8)
        for row in range(2):
            words = torch.cat([prompt, model.get_input_embeddings()(torch.tensor(ids_of(batch, row)))])[None]
            present = torch.ones(words.shape[:2], dtype=torch.long)
            ids = model.generate(inputs_embeds=words, attention_mask=present, generation_config=settings)[0]
            text = backbone.tokenizer.decode(ids, skip_special_tokens=True)
            assert got[row] == text.split("\n")[0].strip()
        found += got
    assert any(found)


@pytest.mark.parametrize(
    "text", ["prompt:length=2", "lora:rank=2", "p-tuning-v2:length=3", "houlsby:bottleneck=4"]
)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_what_a_method_writes_is_what_its_loss_is_smallest_for(tiny, kind, text):
    backbone, method = tiny(kind), parse_method(text)
    member = method.member(backbone, question_task(), start="random", seed=0)
    with torch.no_grad():
        for index, parameter in enumerate(member.parameters()):
            parameter += 0.3 * noise(*parameter.shape, seed=index)
    bank = method.bank(backbone, [member])
    ends = set(backbone.reader.ends)
    batch = encoded(backbone, question_task(), QUESTIONS)
    written = backbone.generate(bank.rows(torch.tensor([0, 0])), batch, max_new_tokens=3)
    for row, texts in enumerate(written):
        found: list[int] = []
        for _ in range(3):
            each = torch.tensor([[*found, token] for token in range(len(backbone.tokenizer))])
            alone = encoded(backbone, question_task(), [QUESTIONS[row]])
            many = replace(repeat(alone, len(each)), targets=each)
            with torch.no_grad():
                losses = backbone.loss(bank.rows(torch.zeros(len(each), dtype=torch.long)), many)
            found.append(int(losses.argmin()))
            if found[-1] in ends:
                break
        wanted = backbone.tokenizer.decode(found, skip_special_tokens=True).split("\n")[0].strip()
        assert texts == wanted


def test_a_prompt_that_rows_share_is_each_rows_own(tiny, kind):
    """Keys and values of a prompt once for its rows: scores and gradients are those of the plain way."""
    backbone, prompts = tiny(kind), torch.stack([noise(LENGTH, 16, seed=seed) for seed in (0, 1, 2)])
    batch, owners = encoded(backbone, label_task(), ROWS), torch.tensor([2, 0, 2])
    found = []
    for bind in (VectorBank, lambda bank: None):
        given = prompts.clone().requires_grad_()
        bank = bind(given)
        own = bank.rows(owners) if bank else Vectors(given[owners])
        loss = backbone.loss(own, batch)
        loss.sum().backward()
        found.append((loss.detach(), given.grad))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)
    assert found[0][1][1].abs().max() == 0 and found[0][1][2].abs().max() > 0


@pytest.mark.parametrize("kind", LAYERS)
def test_the_modules_of_transformers_agree_with_the_frozen_layers(tiny, kind):
    found = []
    for engine in ("frozen", "plain"):
        backbone = tiny(kind, engine=engine)
        before = backbone.digest()
        prompt = noise(1, LENGTH, 16).requires_grad_()
        batch = encoded(backbone, label_task(), ROWS)
        loss = backbone.loss(VectorBank(prompt).rows(torch.tensor([0, 0, 0])), batch)
        loss.sum().backward()
        found.append((loss.detach(), prompt.grad))
        assert all(parameter.grad is None for parameter in backbone.model.parameters())
        assert backbone.digest() == before
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)


def test_a_decoder_without_layers_of_ours_runs_plain(tiny):
    assert (tiny("llama").engine, tiny("phi").engine) == ("frozen", "plain")
    with pytest.raises(UserError, match="unknown engine of a causal-lm backbone 'frozen'"):
        tiny("phi", engine="frozen")


def test_bf16_scores_are_those_of_float32_to_the_precision_of_bf16(tiny, kind):
    found = []
    for precision in ("fp32", "bf16"):
        backbone = tiny(kind, precision)
        own = VectorBank(noise(1, LENGTH, 16)).rows(torch.tensor([0, 0, 0]))
        with torch.no_grad():
            found.append(backbone.label_scores(own, encoded(backbone, label_task(), ROWS)))
    assert found[0].dtype == found[1].dtype == torch.float32
    torch.testing.assert_close(found[1], found[0], atol=0.25, rtol=0.15)


def test_the_input_is_prompt_beginning_template_and_cue(tiny):
    row = tiny("llama").encode(pair_task(), [Example("it was dull", "it was grim", label=0)], reserved=2)[0]
    shown = tiny("llama").describe(row, length=2, layout=FIRST)
    assert shown == [
        *"[P1] [P2] <s> it was dull".split(),
        "\n",
        "Question",
        ":",
        *"it was grim True ?".split(),
        "\n",
        "Answer",
        ":",
    ]
    row = tiny("gpt2").encode(label_task(), [Example("fresh", label=0)], reserved=0)[0]
    assert tiny("gpt2").describe(row, length=0, layout=FIRST) == [
        "Review", ":", "fresh", "\n", "Sentiment", ":",
    ]  # fmt: skip
    assert (tiny("llama").opening, tiny("gpt2").opening) == (("<s>",), ())


def test_a_run_may_read_rows_by_a_template_of_its_own(tiny):
    batch = encoded(tiny("gpt2"), label_task(), ROWS[2:], template="{text} it was")
    assert tiny("gpt2").tokenizer.decode(batch.ids[0]) == "good it was"
    with pytest.raises(UserError, match="must end in a cue"):
        encoded(tiny("gpt2"), label_task(), ROWS, template="{text}")


def test_only_text_is_cut_and_the_cue_stays(tiny, kind):
    long = Example("the film was dull and slow " * 60, label=0)
    row = tiny(kind).encode(label_task(), [long], reserved=LENGTH)[0]
    batch = tiny(kind).batch([row], layout=FIRST)
    assert row.cut and batch.ids.shape[1] + LENGTH <= 128
    assert tiny(kind).tokenizer.decode(batch.ids[0])[-2 - len("Sentiment") :].split() == ["Sentiment", ":"]
    with pytest.raises(UserError, match=r"a prompt or prefix of 120 vectors leaves \d of the 128 positions"):
        tiny(kind).encode(label_task(), [long], reserved=120)


def test_a_decoder_that_is_not_named_runs_if_its_logits_are_those_scored(tiny, backbone_folder):
    backbone, model = tiny("olmo2"), hugging_face(backbone_folder, "olmo2")
    batch = encoded(backbone, label_task(), ROWS[:1])
    with torch.no_grad():
        got = backbone.label_scores(BARE, batch)[0]
        logits = model(input_ids=batch.ids).logits[0, -1]
    torch.testing.assert_close(got, logits[batch.candidates[0, :, 0]].log_softmax(-1), atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match=r"\(granite\) makes its logits in a way that is not known here"):
        tiny("granite")


@pytest.mark.parametrize(
    "text", ["houlsby:bottleneck=4", "lora:rank=2", "lora:rank=2,targets=fc1+fc2", "bitfit"]
)
def test_maps_that_are_given_all_rows_in_one_line_know_their_rows(tiny, text):
    """OPT's feed-forward; members together are members alone."""
    backbone, method, task = tiny("opt"), parse_method(text), label_task()
    members = [method.member(backbone, task, start="random", seed=seed) for seed in (0, 1)]
    with torch.no_grad():
        for seed, member in enumerate(members):
            for index, parameter in enumerate(member.parameters()):
                parameter += 0.2 * noise(*parameter.shape, seed=10 * seed + index)
        together = backbone.label_scores(
            method.bank(backbone, members).rows(torch.tensor([1, 0, 1])), encoded(backbone, task, ROWS)
        )
        for row, owner in enumerate((1, 0, 1)):
            own = method.bank(backbone, [members[owner]]).rows(torch.tensor([0]))
            alone = backbone.label_scores(own, encoded(backbone, task, ROWS[row : row + 1]))
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_the_bare_model_answers_too(tiny, backbone_folder, kind):
    backbone, model = tiny(kind), hugging_face(backbone_folder, kind)
    batch = encoded(backbone, label_task(), ROWS)
    with torch.no_grad():
        got = backbone.label_scores(BARE, batch)[1]
        logits = model(input_ids=batch.ids[1:2]).logits[0, -1]
    torch.testing.assert_close(got, logits[batch.candidates[1, :, 0]].log_softmax(-1), atol=1e-5, rtol=1e-5)
