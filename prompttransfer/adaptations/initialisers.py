"""Initialisers: the vectors that a prompt starts from. One signature, one dict; other starts are in starts.py.

    random               normal, with the standard deviation of the backbone's token embeddings
    vocabulary           embeddings of tokens drawn from the 5,000 most common ordinary ones (Lester 2021; Vu 2022)
    label-words          embeddings of the task's label words first, the rest as `vocabulary` (Lester 2021)
    text:WORDS           embeddings of the given text, repeated to the length, without special tokens

The same seed gives the same vectors for every task, so that prompts of one seed share their start and differences
from it can be compared.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from prompttransfer.backbones.base import Backbone
from tasks.errors import UserError, unknown
from tasks.task import Task

COMMON_TOKENS = 5000

Initialiser = Callable[[Backbone, Task, int, torch.Generator, str], Tensor]


def initial_vectors(spec: str, backbone: Backbone, task: Task, *, length: int, seed: int) -> Tensor:
    """The vectors that `spec` (`name` or `name:argument`) stands for, [length, width] float32.

    Raises UserError for an unknown name or a missing argument.
    """
    name, _, argument = spec.partition(":")
    if name not in INITIALISERS:
        raise unknown("initialiser", name, INITIALISERS)
    if length < 1:
        raise UserError(f"prompt length {length}: a prompt has at least 1 vector")
    if name in NEED_ARGUMENT and not argument:
        raise UserError(f"initialiser {name!r} needs an argument, as in {name}:{NEED_ARGUMENT[name]}")
    generator = torch.Generator().manual_seed(seed)
    return INITIALISERS[name](backbone, task, length, generator, argument).float().contiguous()


def random(backbone: Backbone, task: Task, length: int, generator: torch.Generator, argument: str) -> Tensor:
    """N(0, s) with s the standard deviation of the ordinary token embeddings."""
    table = backbone.embedding_table()[list(backbone.ordinary_tokens)]
    return torch.randn(length, backbone.width, generator=generator) * table.std()


def vocabulary(
    backbone: Backbone, task: Task, length: int, generator: torch.Generator, argument: str
) -> Tensor:
    """Embeddings of distinct common tokens; a vocabulary's order is its order of frequency."""
    common = torch.tensor(backbone.ordinary_tokens[:COMMON_TOKENS])
    if length > len(common):
        raise UserError(
            f"{backbone.name} has {len(common)} ordinary tokens, fewer than a prompt of {length} vectors"
        )
    chosen = common[torch.randperm(len(common), generator=generator)[:length]]
    return backbone.embedding_table()[chosen]


def label_words(
    backbone: Backbone, task: Task, length: int, generator: torch.Generator, argument: str
) -> Tensor:
    """Each label word's pieces first, then vocabulary."""
    answers = backbone.answers(task)
    if answers is None:
        raise UserError(f"task {task.name!r} has no label words: use the initialiser 'vocabulary'")
    ids = [piece for pieces in answers.pieces for piece in pieces][:length]
    words = backbone.embedding_table()[ids]
    if len(ids) == length:
        return words
    return torch.cat([words, vocabulary(backbone, task, length - len(ids), generator, "")])


def text(backbone: Backbone, task: Task, length: int, generator: torch.Generator, argument: str) -> Tensor:
    """The text's tokens, repeated or cut to the length."""
    ids = backbone.tokenizer(" " + argument.strip(), add_special_tokens=False)["input_ids"]
    if not ids:
        raise UserError("initialiser 'text' got no words, as in text:the verdict is")
    repeated = (ids * (length // len(ids) + 1))[:length]
    return backbone.embedding_table()[repeated]


INITIALISERS: dict[str, Initialiser] = {
    "random": random,
    "vocabulary": vocabulary,
    "label-words": label_words,
    "text": text,
}
NEED_ARGUMENT = {"text": "the verdict is"}
