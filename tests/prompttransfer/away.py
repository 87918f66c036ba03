"""Adaptations of the tiny backbones that are away from their start, and what they answer, for tests of what is done with them."""

from __future__ import annotations

import torch
from torch import Tensor
from toys import label_task, noise

from prompttransfer.adaptations.adaptation import Adaptation, Origin
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.adaptations.running import bank_of
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import LAYOUTS
from tasks.task import Example

ROWS = (
    Example("the film was dull and the room was very cold", label=0),
    Example("the room was very bright", label=1),
    Example("fresh", label=1),
)


def adaptation(
    backbone: Backbone, text: str, *, seed: int = 0, name: str = "toy", by: float = 0.2
) -> Adaptation:
    """One of the method that `text` says, each parameter moved by noise from its start, which is kept."""
    method, task = parse_method(text), label_task(name)
    member = method.member(backbone, task, start="random", seed=seed)
    start = member.tensors()
    with torch.no_grad():
        for index, parameter in enumerate(member.parameters()):
            parameter += by * noise(*parameter.shape, seed=100 * seed + index)
    origin = Origin(name, backbone.name, backbone.revision, family=backbone.family, seed=seed)
    return Adaptation(method, member.tensors(), origin, initial=start)


def scores(backbone: Backbone, *adaptations: Adaptation) -> Tensor:
    """What each gives for ROWS in one bank, [adaptations, rows, classes]; the bare backbone where none is given."""
    from prompttransfer.adaptations.bank import BareBank, on_the_same

    bank = bank_of(backbone, adaptations) if adaptations else BareBank()
    reserved = bank.reserved
    rows = backbone.encode(label_task(), ROWS, reserved=reserved)
    with torch.no_grad():
        found = backbone.label_scores(
            *on_the_same(bank, backbone.batch(rows, layout=LAYOUTS["prompt-first"]))
        )
    return found.unflatten(0, (bank.members, len(ROWS)))
