"""Showing a model where to look: what attends to what is late to be found and easy to show.

Two ways: the attention maps of a backbone that has found it (Wang et al. 2020, MiniLM), and the positions themselves where the
world knows them: from a key to where it stands again, from a value to what it is told of. Maps share no basis between
models, so two backbones that were shown the same maps still need a projector between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from microworld_text import ADJECTIVES, FEELINGS, SLOT_VALUES

from tasks.microworld.words import DOMAINS, NAMES, THING_LIST

_PARTS = frozenset(part for domain in DOMAINS.values() for part in domain.parts)
_KEYS = _PARTS | frozenset((*NAMES, *THING_LIST))
_HOLDERS = _PARTS | frozenset(NAMES)


def keys_and_holders(words: Sequence[str]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(from, to) positions: a name, thing or part and where it stands again; a value and the holder it is told of."""
    keys = [
        (i, j)
        for i, word in enumerate(words)
        if word in _KEYS
        for j, again in enumerate(words)
        if again == word and i != j
    ]
    holders, holder = [], None
    for i, word in enumerate(words):
        if word in _HOLDERS:
            holder = i
        elif word in FEELINGS and words[i + 2 : i + 3] and words[i + 2] in _PARTS:
            holders.append((i, i + 2))
        elif (word in SLOT_VALUES or word in ADJECTIVES) and holder is not None:
            holders.append((i, holder))
    return keys, holders


def look_loss(given, wanted, real) -> torch.Tensor:
    """Cross-entropy of a student's attention maps under a teacher's, mean over layers, heads and real positions.

    Wang et al. 2020 (MiniLM): what looks where is hard to find and easy to show, and shares no basis between models.
    """
    shares = real.float() / real.sum().clamp(min=1)
    losses = [
        -(there.float() * (here.float() + 1e-6).log()).sum(-1).mean(1).mul(shares).sum()
        for here, there in zip(given, wanted, strict=True)
    ]
    return torch.stack(losses).mean()


def finding_loss(looks, lines, layers: tuple[int, int]) -> torch.Tensor:
    """How little the first head of two layers looks from a key to where it stands again, and from a value to its holder.

    Minus log of the attention there, mean over such positions of the lines that are `shown`.
    """
    losses = []
    for i, line in enumerate(lines):
        for layer, pairs in zip(
            layers, keys_and_holders(line.words) if line.shown else ((), ()), strict=True
        ):
            if not pairs:
                continue
            wanted = torch.zeros(looks[layer].shape[-2:])
            for here, there in pairs:
                wanted[here, there] = 1.0
            asked = wanted.any(1)
            found = (looks[layer][i, 0].float() * wanted).sum(1)[asked]
            losses.append(-(found + 1e-6).log().mean())
    return torch.stack(losses).mean() if losses else torch.zeros(())
