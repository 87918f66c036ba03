"""Tiny backbones with random weights, saved as real folders, so that every test runs the code that loads real ones.

Dropout is on in their configurations: a backbone that is not put into eval mode fails every test of exact values.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["COLUMNS"] = "160"  # tables are as wide wherever the tests run; what is narrow says so itself

WORDS = (
    *("great", "terrible", "okay", "good", "bad", "fine", "wrong", "yes", "no", "maybe", "true", "false"),
    *(
        "the",
        "a",
        "was",
        "is",
        "very",
        "not",
        "and",
        "it",
        "that",
        "this",
        "in",
        "of",
        "who",
        "where",
        "so",
        "-",
    ),
    *("film", "food", "plot", "room", "actor", "song", "book", "phone", "screen", "price", "story", "scene"),
    *("dull", "fresh", "warm", "cold", "rude", "kind", "slow", "quick", "bright", "grim", "sweet", "sour"),
)
KINDS = ("roberta", "bert", "t5", "t5-v1.1")
DECODERS = ("llama", "mistral", "qwen2", "gpt2", "qwen3", "gemma3_text", "phi", "opt", "gpt_neox")
OTHER_DECODERS = ("olmo2", "granite")
"""Decoders that the house does not name."""
ENCODERS = (
    "xlm-roberta",
    "distilbert",
    "albert",
    "electra",
    "deberta-v2",
    "deberta-v3",
    "modernbert",
    "mpnet",
)
"""Masked language models beside RoBERTa and BERT; `deberta-v3` has the other of DeBERTa's heads."""
T5_LIKE = ("mt5", "flan-t5", "byt5", "longt5", "longt5-global")
CUES = ("\n", "Review", "Sentiment", ":", "Question", "Answer", "True", "?")
"""What templates are made of, for the tokenizers of decoders."""
SPELLED = {
    **dict.fromkeys(("xlm-roberta", "mpnet"), "roberta"),
    **dict.fromkeys(("distilbert", "albert", "electra", "deberta-v2", "deberta-v3", "modernbert"), "bert"),
    **dict.fromkeys(("mt5", "flan-t5", "longt5", "longt5-global"), "t5"),
}
"""Kind -> whose special tokens the tests give it."""
WIDTH = 16


def make_tokenizer(kind: str):  # type: ignore[no-untyped-def]
    """A tokenizer of whole words; `so-so` is three tokens, an unknown word is the unknown token."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split, Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    if kind in (*DECODERS, *OTHER_DECODERS):
        begins = kind not in ("gpt2", "qwen2")
        named = {"eos_token": "</s>", "unk_token": "<unk>", **({"bos_token": "<s>"} if begins else {})}
        entries = [*dict.fromkeys([*named.values(), *WORDS, *CUES])]
        model = WordLevel({word: index for index, word in enumerate(entries)}, unk_token="<unk>")
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = Split(Regex(r"\n|\w+|[^\w\s]+"), "removed", invert=True)
        if begins:
            tokenizer.post_processor = TemplateProcessing(
                single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", entries.index("<s>"))]
            )
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)
    if kind == "byt5":
        from transformers import ByT5Tokenizer

        return ByT5Tokenizer(extra_ids=5)
    kind = SPELLED.get(kind, kind)
    specials = {
        "roberta": {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
        "bert": {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"},
        "t5": {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
    }[kind.split("-")[0]]
    mask = {"roberta": "<mask>", "bert": "[MASK]"}.get(kind)
    entries = [*specials.values(), *WORDS, *([mask] if mask else ["<extra_id_0>"])]
    model = WordLevel({word: index for index, word in enumerate(entries)}, unk_token=specials["unk_token"])
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = Whitespace()
    single, pair = {
        "roberta": ("<s> $A </s>", "<s> $A </s> </s> $B </s>"),
        "bert": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
        "t5": ("$A </s>", "$A </s> $B </s>"),
    }[kind.split("-")[0]]
    tokenizer.post_processor = TemplateProcessing(
        single=single, pair=pair, special_tokens=[(token, index) for index, token in enumerate(entries)]
    )
    more = {"cls_token": "<s>", "sep_token": "</s>"} if kind == "roberta" else {}
    if mask:
        more["mask_token"] = mask
    else:
        more["additional_special_tokens"] = ["<extra_id_0>"]  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials, **more)


def make_model(kind: str, vocabulary: int, width: int):  # type: ignore[no-untyped-def]
    """Two layers with random weights large enough that every token matters."""
    import torch
    import transformers
    from torch import nn

    if kind in ENCODERS:
        return make_encoder(kind, vocabulary, width)
    if kind in T5_LIKE:
        return make_encoder_decoder(kind, vocabulary, width)
    if kind.startswith("t5"):
        config = transformers.T5Config(
            vocab_size=vocabulary,
            d_model=width,
            d_kv=8,
            d_ff=2 * width,
            num_layers=2,
            num_heads=2,
            relative_attention_num_buckets=8,
            relative_attention_max_distance=16,
            feed_forward_proj="gated-gelu" if kind == "t5-v1.1" else "relu",
            decoder_start_token_id=0,
            tie_word_embeddings=kind == "t5",
        )
        model = transformers.T5ForConditionalGeneration(config)
        if kind == "t5-v1.1":
            model.lm_head.weight = nn.Parameter(0.5 * torch.randn(vocabulary, width))
        return model
    if kind in (*DECODERS, *OTHER_DECODERS):
        return make_decoder(kind, vocabulary, width)
    common = dict(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * width,
        initializer_range=0.3,
    )
    if kind == "bert":
        return transformers.BertForMaskedLM(
            transformers.BertConfig(**common, max_position_embeddings=64, pad_token_id=0)
        )
    config = transformers.RobertaConfig(
        **common,
        max_position_embeddings=66,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    return transformers.RobertaForMaskedLM(config)


def make_encoder(kind: str, vocabulary: int, width: int):  # type: ignore[no-untyped-def]
    """Two layers of an encoder (ALBERT: one, run three times); narrow embeddings, windows, relative positions where it has them."""
    import transformers
    from torch import nn

    sizes = dict(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=64,
        pad_token_id=0,
        initializer_range=0.3,
    )
    relative = dict(
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        position_biased_input=False,
        type_vocab_size=0,
    )
    more = {
        "xlm-roberta": dict(max_position_embeddings=66, type_vocab_size=1, pad_token_id=1),
        "distilbert": dict(dim=width, n_layers=2, n_heads=2, hidden_dim=2 * width),
        "albert": dict(embedding_size=width // 2, num_hidden_layers=3),
        "electra": dict(embedding_size=width // 2),
        "deberta-v2": relative,
        "deberta-v3": relative | dict(legacy=False),
        "modernbert": dict(local_attention=8, global_attn_every_n_layers=2, num_hidden_layers=3),
        "mpnet": dict(max_position_embeddings=66, pad_token_id=1),
    }[kind]
    if kind == "distilbert":
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
            del sizes[name]
    config = transformers.AutoConfig.for_model(kind.replace("deberta-v3", "deberta-v2"), **sizes | more)
    model = transformers.AutoModelForMaskedLM.from_config(config)
    for name, parameter in model.named_parameters():  # biases and norms that show whether they are used
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=float("norm" in name.lower() and "weight" in name), std=0.2)
    return model


def make_encoder_decoder(kind: str, vocabulary: int, width: int):  # type: ignore[no-untyped-def]
    """Two layers a stack of what is like a T5; ByT5's encoder is deeper than its decoder."""
    import torch
    import transformers
    from torch import nn

    config = transformers.AutoConfig.for_model(
        {"mt5": "mt5", "longt5": "longt5", "longt5-global": "longt5"}.get(kind, "t5"),
        vocab_size=vocabulary,
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=3 if kind == "byt5" else 2,
        num_decoder_layers=2,
        num_heads=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
        tie_word_embeddings=False,
        **(
            dict(
                encoder_attention_type="transient-global" if kind == "longt5-global" else "local",
                local_radius=5,
                global_block_size=4,
            )
            if kind.startswith("longt5")
            else {}
        ),
    )
    model = transformers.AutoModelForSeq2SeqLM.from_config(config)
    model.lm_head.weight = nn.Parameter(0.5 * torch.randn(vocabulary, width))
    return model


def make_decoder(kind: str, vocabulary: int, width: int):  # type: ignore[no-untyped-def]
    """Three layers of a decoder; queries in groups, a sliding window, biases and tied tables where the kind has them."""
    import transformers
    from torch import nn

    sizes = dict(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=128,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        initializer_range=0.2,
        attention_dropout=0.1,
    )
    grouped = dict(num_key_value_heads=2, intermediate_size=2 * width, head_dim=width // 4)
    more = {
        "llama": grouped | dict(tie_word_embeddings=True),
        "mistral": grouped | dict(sliding_window=5),
        "qwen2": grouped,
        "qwen3": grouped,
        "gemma3_text": grouped
        | dict(sliding_window=4, layer_types=["sliding_attention"] * 2 + ["full_attention"]),
        "gpt2": dict(attn_pdrop=0.1, embd_pdrop=0.1, resid_pdrop=0.1),
        "phi": dict(intermediate_size=2 * width, num_key_value_heads=2),
        "opt": dict(ffn_dim=2 * width, word_embed_proj_dim=width, dropout=0.1),
        "gpt_neox": dict(intermediate_size=2 * width),
        "olmo2": grouped,
        "granite": grouped | dict(logits_scaling=4.0),
    }[kind]
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(kind, **sizes, **more)
    )
    for name, parameter in model.named_parameters():  # biases and norms that show whether they are used
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=float("norm" in name or "ln_" in name), std=0.2)
    return model


def save_backbone(folder: Path, kind: str, *, width: int = WIDTH, seed: int = 4) -> Path:
    """A folder such as `save_pretrained` makes, with the two output matrices of a T5 v1.1 kept apart."""
    import json

    import torch
    from safetensors.torch import save_file

    tokenizer = make_tokenizer(kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_model(kind, len(tokenizer), width)
    tokenizer.save_pretrained(folder)
    model.config.save_pretrained(folder)
    if kind == "t5-v1.1" or kind in T5_LIKE:
        # The real checkpoints say so in their configuration; transformers writes its own view of it.
        config = json.loads((folder / "config.json").read_text())
        config["tie_word_embeddings"] = False
        config.pop("scale_decoder_outputs", None)
        (folder / "config.json").write_text(json.dumps(config))
    aliases = (
        *("encoder.embed_tokens", "decoder.embed_tokens", "lm_head.decoder", "cls.predictions.decoder"),
        *("vocab_projector.weight", "predictions.decoder", "generator_lm_head.weight"),
    )
    if kind == "modernbert":
        aliases = (*aliases, "decoder.weight")
    ties = kind in (*DECODERS, *OTHER_DECODERS) and model.config.tie_word_embeddings
    tied = ("lm_head.weight",) if kind == "t5" or ties else ()
    state = {
        name: tensor.clone().contiguous()
        for name, tensor in model.state_dict().items()
        if not name.startswith(aliases) and name not in tied
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tests measure values, not speed; one thread keeps them the same on every machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`backbone_folder(kind, width=16)`: the folder of a tiny backbone, made once."""
    root = tmp_path_factory.mktemp("backbones")

    @cache
    def make(kind: str, width: int = WIDTH) -> Path:
        return save_backbone(root / f"{kind}-{width}", kind, width=width)

    return make


@pytest.fixture(scope="session")
def tiny(backbone_folder):  # type: ignore[no-untyped-def]
    """`tiny(kind, precision="fp32", width=16, engine="auto")`: a loaded tiny backbone, loaded once."""
    from prompttransfer.backbones.loading import load_backbone

    @cache
    def load(kind: str, precision: str = "fp32", width: int = WIDTH, engine: str = "auto"):  # type: ignore[no-untyped-def]
        folder = str(backbone_folder(kind, width))
        return load_backbone(folder, precision=precision, device="cpu", engine=engine)

    return load
