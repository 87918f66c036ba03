"""Adaptations of any methods on the same rows: those that can run together do, in one bank a group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.running import Group, bank_of, groups_of
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import Score, evaluate_bank
from tasks.task import Example, Task


def evaluate_all(
    backbone: Backbone,
    adaptations: Sequence[Adaptation],
    task: Task,
    examples: Sequence[Example],
    encoding: Encoding = USUAL,
    *,
    keep: bool = False,
) -> list[Score]:
    """The score of every adaptation on these rows, in their order; with `keep` they have the answers."""
    scores: list[Any] = [None] * len(adaptations)
    for group in groups_of(adaptations):
        encoded = encode_task(backbone, task, examples, encoding, reserved=group.reserved)
        found = evaluate_bank(backbone, bank_of(backbone, group.adaptations), encoded, keep=keep)
        for place, score in zip(group.places, found, strict=True):
            scores[place] = score
    return scores


def alike(
    adaptations: Sequence[Adaptation], layout: str | None = None, template: str | None = None
) -> list[tuple[Group, Encoding]]:
    """Those that can run in one bank on the same rows, with the layout and template of these: the given, or their own."""
    read = [
        Encoding(layout or each.layout, template=template or each.encoding.template) for each in adaptations
    ]
    found = []
    for chosen in dict.fromkeys(read):
        places = [place for place, own in enumerate(read) if own == chosen]
        for group in groups_of([adaptations[place] for place in places]):
            found.append((Group(tuple(places[i] for i in group.places), group.adaptations), chosen))
    return found
