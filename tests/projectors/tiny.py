"""A masked LM of two thousand parameters with a word-level tokenizer, made in memory: enough to run a projector on."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.prompts import soft_prompt
from prompttransfer.backbones.masked_lm import MaskedLM
from tasks.task import Example, Task

WORDS = [
    "good",
    "bad",
    "great",
    "terrible",
    "film",
    "food",
    "plot",
    "taste",
    "very",
    "not",
    "the",
    "was",
    "a",
    "dull",
    "fresh",
    "warm",
    "cold",
    "rude",
    "kind",
]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def tiny_backbone(
    width: int = 16, seed: int = 0, name: str = "tiny", words: list[str] | None = None
) -> MaskedLM:
    """A RoBERTa of one layer with random weights."""
    entries = SPECIAL + (words or WORDS)
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(entries)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
    )
    config = RobertaConfig(
        vocab_size=len(entries),
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=66,
        type_vocab_size=1,
        pad_token_id=1,
        initializer_range=0.3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RobertaForMaskedLM(config)
    return MaskedLM(model, fast, name=name, revision=f"{name}-{seed}", device=torch.device("cpu"))


def task(name: str, type_: str = "sentiment") -> Task:
    """A two-label task on the tiny vocabulary."""
    words = {"negative": ("terrible",), "positive": ("great",)}
    return Task(
        name=name,
        type=type_,
        kind="sentence",
        labels=("negative", "positive"),
        words={"masked-lm": words, "t5": words},
    )


def examples(noun: str) -> list[Example]:
    """Eight labelled rows about `noun`."""
    bad, good = ["bad", "dull", "cold", "rude"], ["good", "fresh", "warm", "kind"]
    return [Example(f"the {noun} was {word}", label=0) for word in bad] + [
        Example(f"the {noun} was {word}", label=1) for word in good
    ]


def prompt(backbone: MaskedLM, task_name: str, seed: int = 0, length: int = 4) -> Adaptation:
    """A random prompt that says it was trained for a task on a backbone."""
    generator = torch.Generator().manual_seed(100 * seed + sum(map(ord, task_name)))
    return soft_prompt(
        vectors=torch.randn(length, backbone.width, generator=generator),
        initial=torch.zeros(length, backbone.width),
        task=task_name,
        name=f"{task_name}-s{seed}",
        backbone=backbone.name,
        revision=backbone.revision,
        family=backbone.family,
        seed=seed,
    )
