"""Hard prompts, the search for them, and labelled rows in front of the text: tokens as vectors, found and kept."""

import json

import pytest
import torch
from toys import adapted, label_task, pair_task, question_task, recipe, sentences, splits
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from prompttransfer.adaptations.artifacts import card, load_adaptation, save_adaptation
from prompttransfer.adaptations.bank import on_the_same
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.adaptations.methods.in_context import drawn
from prompttransfer.adaptations.methods.text_search import Vocabulary
from prompttransfer.adaptations.running import bank_of, common_method
from prompttransfer.adaptations.starts import RANDOM, start_from
from prompttransfer.backbones.layouts import Encoding, find_layout
from prompttransfer.training.train import Job, train_adaptations
from prompttransfer.training.trials import RowTrial
from tasks.errors import UserError
from tasks.task import Example

TASK, FIRST = label_task(), find_layout("prompt-first")
PROMPT = 'text:prompt="is it good and bad"'
WORDS = "is it good and bad"
ROW = Example("the film was dull and the room was very cold", label=0)
PLACES = [(kind, "prompt-first") for kind in ("roberta", "bert", "t5", "llama", "gpt2")]
PLACES += [(kind, "after-bos") for kind in ("roberta", "bert", "llama", "gpt2", "gemma3_text", "opt")]


# Settings in quotes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("text:prompt=good or bad?", "good or bad?"),
        ("text:prompt=a: b = c", "a: b = c"),
        ('text:prompt="good, or bad?"', "good, or bad?"),
        (r'text:prompt="he said \"no\", twice\n"', 'he said "no", twice\n'),
        ('text: prompt = "a, b" ', "a, b"),
        ("text:prompt=it's", "it's"),
    ],
)
def test_a_prompt_is_read_as_it_stands_or_in_quotes_and_spelled_as_it_is_read(text, prompt):
    method = parse_method(text)
    assert method.prompt == prompt
    assert parse_method(str(method)) == method


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('text:prompt="good, bad', "are not closed"),
        ('text:prompt="good" bad', "a comma must follow the quotes, not 'bad'"),
        ("text:prompt=good, bad", "a prompt with a comma stands in quotes"),
        ("text:promt=good", "did you mean 'prompt'"),
        ("lora:rank=2,alpha", "'alpha' is no setting"),
    ],
)
def test_what_is_no_setting_is_one_line(text, said):
    with pytest.raises(UserError, match=said) as caught:
        parse_method(text)
    assert "\n" not in str(caught.value)


# Tokens as vectors -----------------------------------------------------------------------------------------------


def transformers_model(kind, backbone_folder):
    auto = AutoModelForMaskedLM if kind in ("roberta", "bert") else AutoModelForCausalLM
    auto = AutoModelForSeq2SeqLM if kind == "t5" else auto
    return auto.from_pretrained(backbone_folder(kind)).eval()


def tokens_in_front(backbone, layout, text):
    """The whole input as a user would tokenise it, and where the answer is read."""
    tokenizer = backbone.tokenizer
    plain = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    if backbone.family == "masked-lm":
        opening, rest = [tokenizer.cls_token_id], [tokenizer.mask_token_id, *plain(ROW.first)]
        head = [*plain(text), *opening] if layout == "prompt-first" else [*opening, *plain(text)]
        return [*head, *rest, tokenizer.sep_token_id], len(head)
    if backbone.family == "t5":
        return tokenizer(f"{text} {ROW.first}")["input_ids"], 0
    line = f"Review: {ROW.first}\nSentiment:"
    if layout == "after-bos":
        ids = tokenizer(f"{text}\n{line}")["input_ids"]
    else:
        ids = [*plain(f"{text}\n"), *tokenizer(line)["input_ids"]]
    return ids, len(ids) - 1


@pytest.mark.parametrize(("kind", "layout"), PLACES)
def test_a_hard_prompt_gives_the_logits_of_its_tokens(tiny, backbone_folder, kind, layout):
    backbone = tiny(kind)
    own = bank_of(backbone, [adapted(backbone, PROMPT)])
    batch = backbone.batch(
        backbone.encode(TASK, [ROW], reserved=own.reserved), layout=find_layout(layout, backbone.family)
    )
    ids, slot = tokens_in_front(backbone, layout, WORDS)
    model = transformers_model(kind, backbone_folder)
    more = {"decoder_input_ids": torch.zeros(1, 1, dtype=torch.long)} if kind == "t5" else {}
    with torch.no_grad():
        ours = backbone.label_scores(own.rows(torch.zeros(1, dtype=torch.long)), batch)
        logits = model(input_ids=torch.tensor([ids]), **more).logits[0, slot]
    theirs = logits[batch.candidates[0, :, 0]].log_softmax(-1)
    torch.testing.assert_close(ours[0], theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
def test_behind_the_beginning_of_sequence_both_engines_and_writing_agree(tiny, kind):
    place, rows = find_layout("after-bos", "causal-lm"), sentences()[:3]
    scores, texts = [], []
    for engine in ("frozen", "plain"):
        backbone = tiny(kind, engine=engine)
        pair = [adapted(backbone, "prompt:length=3", seed=seed) for seed in (0, 1)]
        bank = bank_of(backbone, pair)
        batch = backbone.batch(backbone.encode(TASK, rows, reserved=3), layout=place)
        with torch.no_grad():
            scores.append(backbone.label_scores(bank.rows(torch.tensor([1, 0, 1])), batch))
            texts.append(backbone.generate(bank.rows(torch.tensor([1, 0, 1])), batch, max_new_tokens=4))
    torch.testing.assert_close(*scores, atol=1e-5, rtol=1e-5)
    assert texts[0] == texts[1]


def test_a_hard_prompt_runs_in_one_bank_with_soft_prompts_of_its_length(tiny):
    backbone = tiny("roberta")
    bank = bank_of(backbone, [adapted(backbone, PROMPT), adapted(backbone, "prompt:length=5")])
    assert (bank.members, bank.reserved) == (2, 5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("text", "text needs its words"),
        ("text:prompt=is it zebra good", "does not know 'zebra'"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_one_line(tiny, text, said):
    with pytest.raises(UserError, match=said):
        train(tiny("roberta"), text)


def test_what_is_not_trained_has_no_start_and_no_place_where_it_would_lose_a_word(tiny):
    backbone = tiny("roberta")
    with pytest.raises(UserError, match="has no start"):
        parse_method(PROMPT).member(backbone, TASK, start="vocabulary", seed=0)
    with pytest.raises(UserError, match="does not go on from"):
        train(backbone, PROMPT, start=start_from(adapted(backbone, PROMPT)))
    with pytest.raises(UserError, match="nothing is trained"):
        common_method([adapted(backbone, PROMPT)])
    with pytest.raises(UserError, match="the first word of text would be lost"):
        train(backbone, PROMPT, encoding=Encoding("su2022"))


# Runs ------------------------------------------------------------------------------------------------------------


def train(backbone, text, *seeds, start=RANDOM, encoding=Encoding(), task=TASK, plan=None):  # noqa: B008
    jobs = [Job(task, splits(), seed, start, name=f"toy-s{seed}") for seed in seeds or (0,)]
    return train_adaptations(backbone, jobs, plan or recipe(), encoding, method=parse_method(text))


@pytest.mark.parametrize("text", [PROMPT, "in-context:k=3"])
@pytest.mark.parametrize("kind", ["roberta", "t5", "llama"])
def test_what_is_not_trained_takes_no_step_and_is_scored_kept_and_read_again(tiny, tmp_path, kind, text):
    (run,) = train(tiny(kind), text)
    own = run.adaptation
    assert (run.steps, run.ended, run.failure) == (0, "steps", None)
    assert own.scores["validation"] == {"accuracy": own.curve[0].score, "step": 0}
    assert own.origin.recipe["steps"] == 0 and len(own.curve) == 1
    again = load_adaptation(save_adaptation(own, tmp_path / "a"))
    assert torch.equal(again.vectors, own.vectors) and again.notes == own.notes
    assert own.notes["text"] in card(own).replace("\\n", "\n")


def test_an_adaptation_without_notes_is_written_as_before(tiny, tmp_path):
    folder = save_adaptation(adapted(tiny("roberta"), "prompt:length=3"), tmp_path / "a")
    assert "notes" not in json.loads((folder / "adaptation.json").read_text())


# The search ------------------------------------------------------------------------------------------------------


def losses_of(backbone, vectors, rows=(ROW,)):
    batch = backbone.batch(backbone.encode(TASK, rows, reserved=vectors.shape[1]), layout=FIRST)
    own = parse_method("prompt").bank(
        backbone, [parse_method("prompt").restored({"prompt_embeddings": each}) for each in vectors]
    )
    return backbone.loss(*on_the_same(own, batch)).unflatten(0, (len(vectors), -1)).mean(dim=1)


def test_first_order_is_how_fast_the_loss_changes_on_the_way_to_another_word(tiny):
    backbone, vocabulary = tiny("roberta"), Vocabulary(tiny("roberta"), TASK)
    ids = backbone.prompt_ids("film room")
    here = vocabulary.vectors(ids).requires_grad_()
    own = backbone.batch(backbone.encode(TASK, [ROW], reserved=2), layout=find_layout("prompt-first"))
    (gradient,) = torch.autograd.grad(backbone.loss(here[None], own).sum(), here)
    change = vocabulary.first_order(ids, gradient)
    step, moved = 1e-2, []
    for place, word in ((0, 3), (1, 20)):
        for sign in (1, -1):
            vectors = here.detach().clone()
            vectors[place] += (
                sign * step * (vocabulary.vectors((int(vocabulary.ids[word]),))[0] - vectors[place])
            )
            moved.append(vectors)
        with torch.no_grad():
            up, down = losses_of(backbone, torch.stack(moved[-2:]))
        assert float(change[place, word]) == pytest.approx(float(up - down) / (2 * step), rel=0.02, abs=1e-4)


@pytest.mark.parametrize("kind", ["roberta", "t5", "llama"])
def test_a_search_that_tries_every_word_finds_the_best_one(tiny, kind):
    backbone, rows = tiny(kind), splits().train
    length = 1 + len(backbone.prompt_end)
    method = parse_method(f"text-search:length={length},candidates=500,beam=3,rows=99")
    member = method.member(backbone, TASK, start="random", seed=0)
    batch = backbone.batch(backbone.encode(TASK, rows, reserved=length), layout=FIRST)
    backbone.loss(
        method.bank(backbone, [member]).rows(torch.zeros(12, dtype=torch.long)), batch
    ).sum().backward()
    encoded = backbone.encode(TASK, rows, reserved=length)
    member.choose(lambda count: RowTrial(backbone, method, encoded[:count], FIRST, trained=12))
    vocabulary = Vocabulary(backbone, TASK)
    every = [(int(word), *backbone.prompt_end) for word in vocabulary.ids]
    with torch.no_grad():
        losses = losses_of(backbone, torch.stack([vocabulary.vectors(ids) for ids in every]), rows)
    assert member.texts == [every[i] for i in losses.argsort()[:3].tolist()]
    assert member.notes()["text"] == vocabulary.text(member.texts[0])
    assert torch.equal(member.vectors(), vocabulary.vectors(member.texts[0]))
    assert member.spent() == {"forward_passes": 12 + 12 * len(every), "backward_passes": 12}


@pytest.mark.parametrize("kind", ["roberta", "bert", "t5", "llama", "gpt2"])
def test_what_a_search_finds_is_a_text_whose_tokens_are_its_vectors(tiny, kind):
    backbone = tiny(kind)
    (run,) = train(backbone, "text-search:length=4,candidates=8,rows=12", plan=recipe(steps=4))
    text = run.adaptation.notes["text"]
    ids = backbone.prompt_ids(text)
    assert torch.equal(run.adaptation.vectors, backbone.word_vectors(torch.tensor(ids)))
    spoken = {"terrible", "great"}
    assert not spoken & set(text.split())


def test_a_search_lowers_the_loss_on_the_rows_that_it_has_seen(tiny):
    backbone = tiny("t5")
    (run,) = train(
        backbone, "text-search:length=3,candidates=30,beam=3,rows=12", plan=recipe(steps=8, batch=12)
    )
    curve = run.adaptation.curve
    assert curve[-1].loss < curve[1].loss


def test_a_search_starts_where_it_is_told_and_goes_on_from_a_text_alone(tiny):
    backbone = tiny("roberta")
    (run,) = train(backbone, "text-search:length=2", plan=recipe(steps=0), start=RANDOM)
    member = parse_method("text-search:length=2").member(backbone, TASK, start="text:film room", seed=0)
    assert member.notes() == {"text": "film room"}
    with pytest.raises(UserError, match="give text-search:length=3"):
        parse_method("text-search").member(backbone, TASK, start="text:the film room", seed=0)
    with pytest.raises(UserError, match="label words are no candidates"):
        parse_method("text-search").member(backbone, TASK, start="label-words", seed=0)
    with pytest.raises(UserError, match="its vectors are no words"):
        train(backbone, "text-search:length=3", start=start_from(adapted(backbone, "prompt:length=3")))
    (again,) = train(backbone, "text-search:length=2", plan=recipe(steps=0), start=start_from(run.adaptation))
    assert again.adaptation.notes["text"] == run.adaptation.notes["text"]


# Rows in front ---------------------------------------------------------------------------------------------------


def shown_ids(backbone, rows, layout="prompt-first", task=TASK, seed=0):
    method = parse_method(f"in-context:k={len(rows)}")
    member = method.started(backbone, task, RANDOM, seed=seed, rows=rows, encoding=Encoding(layout))
    table = backbone.embedding_table()
    return [int((table == vector).all(dim=1).nonzero()[0]) for vector in member.vectors()]


@pytest.mark.parametrize(
    ("kind", "layout", "expected"),
    [
        ("roberta", "prompt-first", "<s> great the room was warm </s>"),
        ("roberta", "after-bos", "great the room was warm </s>"),
        ("t5", "prompt-first", "the room was warm great </s>"),
        ("gpt2", "prompt-first", "Review: the room was warm\nSentiment: great\n"),
        ("llama", "after-bos", "Review: the room was warm\nSentiment: great\n"),
    ],
)
def test_a_row_is_shown_as_a_row_stands_with_its_answer_filled_in(tiny, kind, layout, expected):
    backbone = tiny(kind)
    ids = shown_ids(backbone, [Example("the room was warm", label=1)], layout)
    assert ids == backbone.tokenizer(expected, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_rows_shown_to_a_decoder_are_the_tokens_of_one_text(tiny, backbone_folder, kind):
    backbone, method = tiny(kind), parse_method("in-context:k=2")
    rows = [Example("the room was warm", label=1), Example("the film was dull", label=0)]
    encoding = Encoding("after-bos")
    member = method.started(backbone, TASK, RANDOM, seed=0, rows=rows, encoding=encoding)
    bank = method.bank(backbone, [member])
    asked = [ROW, Example("the song was fresh", label=1)]
    batch = backbone.batch(
        backbone.encode(TASK, asked, encoding, reserved=bank.reserved),
        layout=encoding.place("causal-lm"),
    )
    order = [rows[i] for i in ((0, 1) if member.notes()["text"].startswith("Review: the room") else (1, 0))]
    lines = "".join(f"Review: {r.first}\nSentiment: {('terrible', 'great')[r.label]}\n" for r in order)
    model = transformers_model(kind, backbone_folder)
    with torch.no_grad():
        ours = backbone.label_scores(bank.rows(torch.zeros(2, dtype=torch.long)), batch)
        for row, example in enumerate(asked):
            ids = backbone.tokenizer(f"{lines}Review: {example.first}\nSentiment:")["input_ids"]
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
            theirs = logits[batch.candidates[row, :, 0]].log_softmax(-1)
            torch.testing.assert_close(ours[row], theirs, atol=1e-5, rtol=1e-5)


def test_rows_shown_stand_in_front_of_every_row_once(tiny):
    own = bank_of(tiny("gpt2"), [adapted(tiny("gpt2"), "in-context:k=2")])
    shared, owners = own.rows(torch.zeros(3, dtype=torch.long)).distinct()
    assert shared.vectors().shape[0] == 1 and owners.tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", ["roberta", "t5", "gpt2"])
def test_pairs_and_written_answers_are_shown_too(tiny, kind):
    backbone = tiny(kind)
    pair = [Example("the film was dull", "the film was grim", label=2)]
    text = backbone.tokenizer.decode(shown_ids(backbone, pair, task=pair_task()))
    assert "dull" in text and "grim" in text and "yes" in text
    if backbone.generates:
        question = [Example("who was kind", "the actor was kind", references=("the actor",))]
        text = backbone.tokenizer.decode(shown_ids(backbone, question, task=question_task()))
        assert text.count("the actor") == 2


def test_a_draw_is_that_of_its_seed_and_has_labels_in_equal_shares():
    rows = sentences()
    first, again, other = (drawn(rows, 6, seed, TASK) for seed in (0, 0, 1))
    assert first == again != other
    assert sum(row.label for row in first) == 3
    assert len({row.first for row in first}) == 6
    assert sorted(r.first for r in drawn(rows, len(rows), 0, TASK)) == sorted(r.first for r in rows)
    with pytest.raises(UserError, match="in-context:k=12"):
        drawn(rows[:12], 13, 0, TASK)
    with pytest.raises(UserError, match="without training rows"):
        drawn((), 1, 0, TASK)


def test_rows_that_do_not_fit_are_one_line_that_says_how_many_do(tiny):
    with pytest.raises(UserError, match=r"take \d+ positions, but only \d+ of the 64 .* use in-context:k=\d"):
        train(tiny("roberta"), "in-context:k=12")


def test_label_words_in_front_are_those_of_the_source_and_behind_those_of_the_target(tiny):
    backbone = tiny("roberta")
    source = adapted(backbone, "in-context:k=2", rows=sentences()[:2])
    assert "terrible" in source.notes["text"]
    other = label_task("other", bad=("wrong",), fine=("fine",))
    batch = backbone.batch(backbone.encode(other, [ROW], reserved=source.length), layout=FIRST)
    words = backbone.tokenizer.convert_ids_to_tokens(batch.candidates[0, :, 0].tolist())
    assert words == ["wrong", "fine"]
