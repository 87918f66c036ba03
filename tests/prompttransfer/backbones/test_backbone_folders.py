"""A backbone's folder as people have it: its own tokenizer counts, its settings do not steer, what is wrong is one line."""

import copy
import json
import os
import random
import shutil

import pytest
import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram, WordLevel, WordPiece
from toys import label_task, noise, question_task
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerFast

from prompttransfer.backbones.interventions import Vectors
from prompttransfer.backbones.layouts import LAYOUTS
from prompttransfer.backbones.loading import load_backbone, read_otherwise
from prompttransfer.backbones.locating import EMBEDDED_FOLDER
from prompttransfer.backbones.tokens import first_ids
from tasks.errors import UserError
from tasks.task import Example

FIRST = LAYOUTS["prompt-first"]
TASK = label_task("toy")
ROWS = (Example("the film was dull", label=0), Example("it was very fresh", label=1))


@pytest.fixture
def folder(backbone_folder, tmp_path):
    """`folder(kind)`: a copy of a tiny backbone's folder, to be changed."""
    return lambda kind="roberta": shutil.copytree(backbone_folder(kind), tmp_path / kind)


def change(path, **values):
    """Set keys of a JSON file; None takes a key away."""
    content = json.loads(path.read_text()) if path.exists() else {}
    content.update(values)
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def load(place):
    return load_backbone(str(place), precision="fp32", device="cpu")


def ids_of(backbone, text):
    return backbone.tokenizer(text, add_special_tokens=False)["input_ids"]


def scores(backbone, rows=ROWS):
    batch = backbone.batch(backbone.encode(TASK, rows, reserved=3), layout=FIRST)
    return backbone.label_scores(Vectors(noise(3, backbone.width).expand(len(rows), -1, -1)), batch)


# Tokenizers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer_class", ["RobertaTokenizer", "BertTokenizer", "TokenizersBackend", None])
def test_the_ids_are_those_of_the_file_whatever_class_the_folder_names(folder, tokenizer_class):
    place = folder()
    change(place / "tokenizer_config.json", tokenizer_class=tokenizer_class, backend=None)
    text = " The film was GREAT, so-so."
    wanted = Tokenizer.from_file(str(place / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    assert ids_of(load(place), text) == wanted


def test_what_transformers_reads_otherwise_is_counted(folder):
    place = folder()
    assert read_otherwise(load(place), ["the film"]) == 0
    change(place / "tokenizer_config.json", tokenizer_class="RobertaTokenizer", backend=None)
    assert read_otherwise(load(place), ["the film", "was great"]) == 2


def test_truncation_padding_and_dropout_of_the_file_do_not_count(folder):
    place = folder()
    content = json.loads((place / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {"strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None,
                          "pad_id": 1, "pad_type_id": 0, "pad_token": "<pad>"}  # fmt: skip
    (place / "tokenizer.json").write_text(json.dumps(content))
    backbone = load(place)
    assert backbone.tokenizer.convert_ids_to_tokens(ids_of(backbone, "the film was dull")) == [
        *("the", "film", "was", "dull")
    ]


def test_a_folder_from_before_tokens_were_named_takes_those_of_its_family(folder):
    place = folder()
    (place / "tokenizer_config.json").write_text('{"model_max_length": 512}')
    assert torch.equal(scores(load(place)), scores(load(folder("bert").parent / "roberta")))
    assert load(place).tokenizer.mask_token == "<mask>"


def test_the_lengths_that_transformers_writes_are_read(folder):
    place = folder()
    change(place / "tokenizer_config.json", model_max_length=1000000000000000019884624838656)
    assert load(place).tokenizer.mask_token == "<mask>"


def test_a_folder_without_a_tokenizer_is_refused(folder):
    place = folder("t5")
    (place / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="holds no tokenizer"):
        load(place)


def test_a_tokenizer_larger_than_the_table_is_another_models(folder):
    place = folder()
    content = json.loads((place / "tokenizer.json").read_text())
    content["added_tokens"].append({**content["added_tokens"][0], "id": 900, "content": "<new>"})
    content["model"]["vocab"]["beyond"] = 901
    (place / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="token 'beyond' has id 901, but the model has"):
        load(place)


def test_a_small_tokenizer_and_other_special_ids_are_said(folder):
    place = folder()
    change(place / "config.json", bos_token_id=7)
    assert load(place).remarks == ("config.json says bos_token_id 7, the tokenizer 0 (<s>)",)
    assert load("microworld-roberta").remarks == ()


@pytest.mark.parametrize("token", ["mask_token", "pad_token", "cls_token", "sep_token"])
def test_a_special_token_that_a_row_needs_must_be_there(folder, token):
    place = folder()
    change(place / "tokenizer_config.json", **{token: "<nowhere>"})
    with pytest.raises(UserError, match=f"no {token.replace('_', ' ')}.*'<nowhere>' is not in its vocab"):
        load(place)


def test_unknown_words_are_counted_and_a_task_of_nothing_else_is_refused(tiny):
    backbone = tiny("roberta")
    rows = (Example("the film was дождь .", label=0), Example("zyx film", label=1))
    assert backbone.unknown_share(rows) == pytest.approx(2 / 6)
    assert backbone.unknown_share([Example("... !", label=0)]) is None
    with pytest.raises(UserError, match="all words of task 'toy' are unknown to the tokenizer"):
        backbone.encode(TASK, [Example("фильм очень хорош - - .", label=1)], reserved=3)


# Long texts ------------------------------------------------------------------------------------------------------


def tokenizer_of(kind):
    """A tokenizer of each model and way to cut words, of the letters a to d and the words of two of them."""
    letters = "abcd"
    pairs = [x + y for x in letters for y in letters]
    if kind in ("bpe", "bpe-whole"):
        vocab = {token: i for i, token in enumerate(["<unk>", " ", *letters, *pairs])}
        made = Tokenizer(BPE(vocab, [(x, y) for x in letters for y in letters], unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.Split(" ", "isolated") if kind == "bpe" else None
    elif kind == "unigram":
        made = Tokenizer(Unigram([("<unk>", 0.0), ("▁", -2.0), *((t, -len(t) / 3 - i / 50) for i, t in enumerate([*letters, *pairs]))], unk_id=0))  # fmt: skip
        made.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    elif kind == "wordpiece":
        pieces = ["[UNK]", *letters, *(f"##{x}" for x in letters), *pairs]
        made = Tokenizer(WordPiece({t: i for i, t in enumerate(pieces)}, unk_token="[UNK]"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
    else:
        made = Tokenizer(
            WordLevel({t: i for i, t in enumerate(["<unk>", *letters, *pairs])}, unk_token="<unk>")
        )
        made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.normalizer = normalizers.Lowercase()
    return PreTrainedTokenizerFast(tokenizer_object=made)


@pytest.mark.parametrize("spaces", [0.3, 0.02, 0.0])
@pytest.mark.parametrize("kind", ["bpe", "bpe-whole", "unigram", "wordpiece", "wordlevel"])
def test_the_first_ids_of_a_long_text_are_those_of_the_whole(kind, spaces):
    generator, tokenizer = random.Random(f"{kind} {spaces}"), tokenizer_of(kind)
    texts = [
        "".join(" " if generator.random() < spaces else generator.choice("abcdAB") for _ in range(size))
        for size in (30_000, 7, 3_000)
    ]
    for keep in (1, 5, 40):
        whole = [tuple(ids[:keep]) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
        assert first_ids(tokenizer, texts, keep) == whole


def test_a_document_of_ten_megabytes_is_not_tokenised_whole(tiny, monkeypatch):
    backbone, seen = tiny("roberta"), []
    run = backbone.tokenizer.__class__._encode_plus

    def watched(self, text, *args, **kwargs):
        seen.append(sum(map(len, text)) if isinstance(text, list) else len(text))
        return run(self, text, *args, **kwargs)

    monkeypatch.setattr(backbone.tokenizer.__class__, "_encode_plus", watched)
    document = "the film was very dull " * 450_000
    (row,) = backbone.encode(TASK, [Example(document, label=0)], reserved=3)
    assert row.cut and max(seen) < 100_000
    assert backbone.tokenizer.convert_ids_to_tokens(list(row.first)) == document[:1000].split()[: row.size]


# Settings that must not steer ------------------------------------------------------------------------------------


def written(place):
    backbone = load(place)
    rows = backbone.encode(question_task(), [Example("who was kind", "the actor", references=("a",))] * 2, reserved=3)  # fmt: skip
    prompts = noise(2, 3, backbone.width)
    return backbone.generate(Vectors(prompts), backbone.batch(rows, layout=FIRST), max_new_tokens=9)


@pytest.mark.parametrize(
    "settings",
    [
        {"min_length": 8, "no_repeat_ngram_size": 1},
        {"num_beams": 4, "length_penalty": 3.0},
        {"do_sample": True, "temperature": 9.0},
        {"forced_bos_token_id": 7, "forced_eos_token_id": 9},
        {"suppress_tokens": list(range(3, 30)), "repetition_penalty": 5.0},
        {"max_length": 2, "eos_token_id": 12, "pad_token_id": 5},
    ],
)
def test_generation_settings_of_a_folder_change_no_answer(folder, backbone_folder, settings):
    place = folder("t5")
    change(place / "generation_config.json", decoder_start_token_id=0, **settings)
    assert written(place) == written(backbone_folder("t5"))


@pytest.mark.parametrize(
    "settings",
    [
        {"attn_implementation": "flash_attention_2", "return_dict": False, "output_hidden_states": True},
        {"hidden_dropout_prob": 0.9, "attention_probs_dropout_prob": 0.9, "classifier_dropout": 0.5},
        {"chunk_size_feed_forward": 1, "problem_type": "regression", "num_labels": 7, "dtype": "float16"},
        {"auto_map": {"AutoModelForMaskedLM": "evil.Model", "AutoConfig": "evil.Config"}},
    ],
)
def test_settings_of_how_a_model_runs_change_no_score(folder, tiny, settings):
    place = folder()
    change(place / "config.json", **settings)
    assert torch.equal(scores(load(place)), scores(tiny("roberta")))


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_an_untied_output_layer_is_read_with_its_own_bias(folder, kind):
    place = folder(kind)
    change(place / "config.json", tie_word_embeddings=False)
    model = AutoModelForMaskedLM.from_pretrained(place)
    output = model.get_output_embeddings()
    with torch.no_grad():
        output.weight.copy_(noise(*output.weight.shape))
        output.bias.copy_(noise(len(output.bias), seed=1))
    model.save_pretrained(place)
    backbone = load(place)
    (row,) = backbone.encode(TASK, ROWS[:1], reserved=0)
    batch = backbone.batch([row], layout=FIRST)
    slot, words = backbone.answer_slot(0, FIRST), [piece[0] for piece in row.answers.pieces]
    with torch.no_grad():
        theirs = model.eval()(input_ids=batch.ids, attention_mask=batch.mask).logits[:, slot, words]
    ours = backbone.label_scores(Vectors(torch.zeros(1, 0, backbone.width)), batch)
    torch.testing.assert_close(ours, theirs.log_softmax(-1), atol=1e-5, rtol=0)


# Damage ----------------------------------------------------------------------------------------------------------


def pointer(place):
    (place / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")


def sharded(place):
    (place / "model.safetensors").rename(place / "model-00001-of-00002.safetensors")
    change(place / "model.safetensors.index.json", weight_map={"x": "model-00002-of-00002.safetensors"})


def pickled(place):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(place / "pwned"),)

    (place / "model.safetensors").unlink()
    torch.save({"x": Evil(), "y": torch.zeros(100_000)}, place / "pytorch_model.bin")


def future(place):
    content = json.loads((place / "tokenizer.json").read_text())
    content["model"]["type"] = "FutureBPE"
    (place / "tokenizer.json").write_text(json.dumps(content))


def pipe(place):
    (place / "tokenizer.json").unlink()
    os.mkfifo(place / "tokenizer.json")


DAMAGE = {
    "pointer of git-lfs": pointer,
    "lacks model-00002-of-00002.safetensors": sharded,
    "its weights": pickled,
    "its tokenizer.json": future,
    "no regular file": pipe,
    "one of peft": lambda place: change(place / "adapter_config.json", peft_type="LORA"),
    "is quantised": lambda place: change(place / "config.json", quantization_config={"quant_method": "x"}),
    "num_attention_heads is 0": lambda place: change(place / "config.json", num_attention_heads=0),
    "num_hidden_layers is -2": lambda place: change(place / "config.json", num_hidden_layers=-2),
    "has no place for": lambda place: change(place / "config.json", num_hidden_layers=1),
    "describes a model of more than": lambda place: change(place / "config.json", hidden_size=10**9),
    r"lm_head.bias is \[\d+\] in its weights, \[10\] by its config.json": lambda place: change(
        place / "config.json", vocab_size=10
    ),
    "is_decoder is True": lambda place: change(place / "config.json", is_decoder=True),
    "names no model_type": lambda place: change(place / "config.json", model_type=None),
    "holds a list": lambda place: (place / "config.json").write_text("[]"),
    "nested more than": lambda place: (place / "config.json").write_text('{"a":' * 100_000),
    "mask_token is 5": lambda place: change(place / "tokenizer_config.json", mask_token=5),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_a_damaged_folder_is_one_line(folder, message):
    place = folder()
    DAMAGE[message](place)
    with pytest.raises(UserError, match=message) as raised:
        load(place)
    assert "\n" not in str(raised.value) and not (place / "pwned").exists()


def test_a_t5_must_say_what_answers_begin_with(folder):
    place = folder("t5")
    change(place / "config.json", decoder_start_token_id=None)
    with pytest.raises(UserError, match="decoder_start_token_id is None"):
        load(place)
    change(place / "generation_config.json", decoder_start_token_id=0)
    assert load(place).model.config.decoder_start_token_id == 0


STRANGE = (None, -1, 0, 2**40, 1.5, "x", "", True, [], {}, [1], {"a": 1})


def mutant(value, generator):
    """A copy of JSON with one key, up to three levels deep, taken away or given a strange value."""
    value = copy.deepcopy(value)
    inner, key = value, generator.choice(list(value))
    while isinstance(inner[key], dict | list) and inner[key] and generator.random() < 0.6 and key != "vocab":
        inner = inner[key]
        key = generator.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
    if generator.random() < 0.3:
        del inner[key]
    else:
        inner[key] = generator.choice(STRANGE)
    return value


@pytest.mark.parametrize("kind", ["roberta", "t5"])
def test_no_mutant_of_a_folder_is_a_traceback(folder, kind):
    generator, place = random.Random(kind), folder(kind)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        whole = (place / name).read_text()
        for _ in range(25):
            (place / name).write_text(json.dumps(mutant(json.loads(whole), generator)))
            try:
                scores(load(place))
            except UserError as error:
                assert "\n" not in str(error)
        (place / name).write_text(whole)


def test_embedded_backbones_read_what_their_files_say():
    for name in ("microworld-roberta", "microworld-t5"):
        raw = Tokenizer.from_file(str(EMBEDDED_FOLDER / name / "tokenizer.json"))
        text = " the film was great, and the cook was not ."
        assert (
            ids_of(load_backbone(name, device="cpu"), text) == raw.encode(text, add_special_tokens=False).ids
        )
