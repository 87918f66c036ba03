"""What the vectors of a soft prompt lie next to: the words of the backbone's vocabulary by cosine.

A vector of a trained prompt is rarely a word (Lester et al. 2021, section 7), so each cosine stands beside what a random
direction gets: among tens of thousands of words the nearest one is never far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from prompttransfer.backbones.base import Backbone

DRAWS = 200
"""Random directions that the control is the mean of."""


@dataclass(frozen=True)
class Near:
    """A word of the vocabulary near a vector."""

    word: str
    id: int
    cosine: float


def nearest_words(backbone: Backbone, vectors: Tensor, top: int = 3) -> list[list[Near]]:
    """The `top` words nearest to each of `vectors` [length, width], the nearest first."""
    known = torch.tensor(sorted(set(_known(backbone))))
    cosines = _cosines(vectors, backbone.embedding_table()[known])
    values, places = cosines.topk(min(top, len(known)), dim=1)
    return [
        [
            Near(spelled(backbone, int(known[place])), int(known[place]), float(value))
            for value, place in zip(row, at, strict=True)
        ]
        for row, at in zip(values, places, strict=True)
    ]


def by_chance(backbone: Backbone, seed: int = 0) -> float:
    """The cosine of a random direction and the word nearest to it, on average."""
    directions = torch.randn(DRAWS, backbone.width, generator=torch.Generator().manual_seed(seed))
    known = torch.tensor(sorted(set(_known(backbone))))
    return float(_cosines(directions, backbone.embedding_table()[known]).max(dim=1).values.mean())


def spelled(backbone: Backbone, index: int) -> str:
    """A token as it is read; a special one by its name."""
    text: str = backbone.tokenizer.decode([index]).strip()
    return text or str(backbone.tokenizer.convert_ids_to_tokens(index))


def _known(backbone: Backbone) -> Sequence[int]:
    """Ids of the vocabulary that the table has rows for; tables are often longer."""
    rows = backbone.word_embeddings.num_embeddings
    return [index for index in backbone.tokenizer.get_vocab().values() if index < rows]


def _cosines(vectors: Tensor, words: Tensor) -> Tensor:
    return F.normalize(vectors.float(), dim=1) @ F.normalize(words, dim=1).T
