"""What sources make of the labelled rows of a target, from one pass: the input of estimates of transferability.

Of every row the state that the answer is read from (at the mask, the decoder's first output, a decoder's last token),
and the probabilities of the source's own label words, though the text is the target's. Sources that can run in one bank
do, on the same rows. `analysis/transferability.py` makes numbers of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.bank import on_the_same
from prompttransfer.adaptations.running import Group, bank_of, groups_of
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.interventions import Interventions, Watched
from prompttransfer.backbones.label_words import WRITING, Answers
from prompttransfer.backbones.layouts import USUAL, Encoding
from prompttransfer.backbones.rows import _candidates
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import batches
from tasks.errors import UserError
from tasks.task import Example, Task

NO_WORDS = Answers(("",), ("",), ((0,),), "first")
"""Stands for the label words of a source that has none; what it says of them is thrown away."""


@dataclass(frozen=True, eq=False)
class Observed:
    """Sources on the same rows of one target."""

    features: NDArray[np.float32]
    """[sources, rows, width]."""
    probabilities: tuple[NDArray[np.float32] | None, ...]
    """Of each source [rows, its classes]; None where it has no label words."""
    labels: NDArray[np.int64]
    """[rows] of the target."""


@torch.no_grad()
def observe(
    backbone: Backbone,
    sources: Sequence[Adaptation],
    task: Task,
    examples: Sequence[Example],
    encoding: Encoding = USUAL,
) -> Observed:
    """One pass of all sources over `examples`. Raises UserError for a task or rows without labels."""
    if not task.one_label or any(example.label is None for example in examples):
        raise UserError(
            f"task {task.name!r} ({task.kind}) has no one label a row, which estimates of transferability are made of: leave it out"
        )
    features = np.zeros((len(sources), len(examples), backbone.width), dtype=np.float32)
    said: list[NDArray[np.float32] | None] = [None] * len(sources)
    for group in groups_of(sources):
        answers = [words_of(backbone, each) for each in group.adaptations]
        states, scores = _pass(backbone, group, answers, task, examples, encoding)
        features[list(group.places)] = states.numpy()
        for place, own, found in zip(group.places, scores.exp().numpy(), answers, strict=True):
            said[place] = None if found is None else own[:, : len(found.words)]
    return Observed(features, tuple(said), np.array([example.label for example in examples], dtype=np.int64))


def words_of(backbone: Backbone, adaptation: Adaptation) -> Answers | None:
    """The label words that an adaptation was trained with; None where it keeps none, as one that writes its answer."""
    words = adaptation.origin.words
    if not words:
        return None
    pieces = {word: backbone.word_pieces(word) for word in words.values()}
    lost = next((word for word, piece in pieces.items() if piece is None), None)
    if lost is not None:
        raise UserError(
            f"label word {lost!r} of {adaptation.name!r} is not in the vocabulary of {backbone.name}: use the backbone "
            f"that it was trained on"
        )
    ids = tuple(piece[0] for word in words.values() if (piece := pieces[word]) is not None)
    aggregation = adaptation.encoding.aggregation or ("sum" if backbone.family in WRITING else "first")
    return Answers(tuple(words), tuple(words.values()), ids, aggregation)


def _pass(
    backbone: Backbone,
    group: Group,
    answers: Sequence[Answers | None],
    task: Task,
    examples: Sequence[Example],
    encoding: Encoding,
) -> tuple[Tensor, Tensor]:
    """States [members, rows, width] and log-probabilities of each one's own words [members, rows, most classes]."""
    bank, count = bank_of(backbone, group.adaptations), len(group.adaptations)
    encoded = encode_task(backbone, task, examples, encoding, reserved=group.reserved)
    candidates, averaged = (
        part.to(backbone.device) for part in _candidates([each or NO_WORDS for each in answers])
    )
    states = torch.zeros(count, len(examples), backbone.width)
    scores = torch.zeros(count, len(examples), candidates.shape[1])
    for indices, batch in batches(backbone, encoded, prompts=count):
        own, wide = on_the_same(bank, batch)
        wide = replace(
            wide,
            candidates=candidates.repeat_interleave(batch.rows, dim=0),
            averaged=averaged.repeat_interleave(batch.rows, dim=0),
        )
        watched = Watched(own)
        found = backbone.label_scores(cast(Interventions, watched), wide)
        states[:, indices] = watched.state.float().cpu().unflatten(0, (count, batch.rows))
        scores[:, indices] = found.cpu().unflatten(0, (count, batch.rows))
    return states, scores
