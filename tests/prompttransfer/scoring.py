"""What adaptations of the tiny backbones answer, for tests of what is done with them."""

from __future__ import annotations

import torch
from torch import Tensor
from toys import label_task

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.bank import Bank, BareBank, on_the_same
from prompttransfer.adaptations.running import bank_of
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import LAYOUTS
from tasks.task import Example

ROWS = (
    Example("the film was dull and the room was very cold", label=0),
    Example("the room was very bright", label=1),
    Example("fresh", label=1),
)


def scores(backbone: Backbone, *adaptations: Adaptation) -> Tensor:
    """What each gives for ROWS in one bank, [adaptations, rows, classes]; the bare backbone where none is given."""
    return scores_of_bank(backbone, bank_of(backbone, adaptations) if adaptations else BareBank())


def scores_of_bank(backbone: Backbone, bank: Bank) -> Tensor:
    """What each member gives for ROWS, [members, rows, classes]."""
    rows = backbone.encode(label_task(), ROWS, reserved=bank.reserved)
    batch = backbone.batch(rows, layout=LAYOUTS["prompt-first"])
    with torch.no_grad():
        return backbone.label_scores(*on_the_same(bank, batch)).unflatten(0, (bank.members, len(ROWS)))
