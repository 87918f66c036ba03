"""Kept adaptations on a backbone: whether they belong to it, and the bank that runs them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.bank import Bank
from prompttransfer.adaptations.heads import mismatch, with_heads
from prompttransfer.adaptations.method import Method
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding
from prompttransfer.backbones.revisions import DECIDING, differing, is_commit
from tasks.errors import UserError
from tasks.task import Task


def bank_of(backbone: Backbone, adaptations: Sequence[Adaptation]) -> Bank:
    """`adaptations` as one bank. Raises UserError unless they are of one method and shape."""
    first = adaptations[0]
    for other in adaptations[1:]:
        if not together(first, other):
            raise UserError(
                f"adaptations of different method or shape cannot run in one bank: {first.name!r} is {_shape(first)}, "
                f"{other.name!r} is {_shape(other)}"
            )
    method = first.method
    bank = method.bank(backbone, [method.restored(each.tensors) for each in adaptations])
    return with_heads(bank, heads_of(adaptations), backbone)


def heads_of(adaptations: Sequence[Adaptation]) -> list[tuple[Tensor, Tensor] | None]:
    """The heads of adaptations as a bank takes them."""
    return [None if each.head is None else (each.head.weight, each.head.bias) for each in adaptations]


def impossible(adaptation: Adaptation, task: Task) -> str:
    """Why an adaptation cannot answer a task at all (a probe or head of other classes); empty where it can."""
    head = adaptation.head
    if reason := mismatch(adaptation.method, None if head is None else head.classes, task):
        return reason
    try:
        adaptation.method.check_cell(adaptation.tensors, task)
    except UserError as error:
        return str(error)
    return ""


def other_words(
    backbone: Backbone, adaptations: Sequence[Adaptation], tasks: Sequence[Task], encoding: Encoding = USUAL
) -> list[str]:
    """A line for each task on which its own adaptations are read with other label words than they were trained with."""
    lines = []
    for task in tasks:
        answers = backbone.answers(task, encoding)
        own = [each for each in adaptations if each.task == task.name and each.origin.words]
        other = next((each for each in own if answers and each.origin.words != answers.mapping), None)
        if other is not None and answers is not None:
            learned = " ".join(f"{label}={word}" for label, word in other.origin.words.items())
            read = " ".join(f"{label}={word}" for label, word in answers.mapping.items())
            lines.append(
                f"{other.name!r} learned {task.name} with the label words {learned} and is read with {read}: --label-words gives "
                "it its own"
            )
    return lines


def called(adaptations: Sequence[Adaptation]) -> str:
    """What these are called together, in messages."""
    names = {each.method.called for each in adaptations}
    return f"{names.pop()}s" if len(names) == 1 else "adaptations"


def _shape(adaptation: Adaptation) -> str:
    if adaptation.has_vectors:
        return f"{adaptation.method.name} {list(adaptation.vectors.shape)}{_headed(adaptation)}"
    return f"{adaptation.method}{_headed(adaptation)}"


def _headed(adaptation: Adaptation) -> str:
    return "" if adaptation.head is None else f" with a head of {adaptation.head.told}"


def stacked(prompts: Sequence[Adaptation], done: str = "compared") -> Tensor:
    """The vectors of soft prompts, [prompts, length, width]. Raises UserError for others, and where shapes differ.

    `done` is what is done with all of them, for messages.
    """
    shapes: dict[tuple[int, ...], list[str]] = {}
    for prompt in prompts:
        shapes.setdefault(tuple(prompt.vectors.shape), []).append(prompt.name)
    if len(shapes) > 1:
        told = "; ".join(f"{list(shape)}: {_few(names)}" for shape, names in shapes.items())
        raise UserError(f"prompts of different shape cannot be {done} ({told}): give those of one shape")
    return torch.stack([prompt.vectors for prompt in prompts])


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def together(one: Adaptation, other: Adaptation) -> bool:
    """Whether two adaptations can run in one bank: vectors of one shape, however learned, or one method and one shape.

    The shape does not matter where members run one after another; heads have to tell the same classes apart.
    """
    if (one.head and one.head.classes) != (other.head and other.head.classes):
        return False
    shapes = [{name: tensor.shape for name, tensor in each.tensors.items()} for each in (one, other)]
    alike = one.method == other.method or (one.has_vectors and other.has_vectors)
    return alike and (one.method.apart or shapes[0] == shapes[1])


@dataclass(frozen=True, eq=False)
class Group:
    """Adaptations that run in one bank, and where they stand among all."""

    places: tuple[int, ...]
    adaptations: tuple[Adaptation, ...]

    @property
    def reserved(self) -> int:
        """Positions that each takes in front of the text."""
        first = self.adaptations[0]
        return first.length if first.has_vectors else first.method.reserved


def groups_of(adaptations: Sequence[Adaptation]) -> list[Group]:
    """The fewest groups that can each run in one bank, in the order in which they come first.

    What would run one after another even in a bank is a group each.
    """
    found: list[list[int]] = []
    for place, each in enumerate(adaptations):
        for group in found:
            if not each.method.apart and together(adaptations[group[0]], each):
                group.append(place)
                break
        else:
            found.append([place])
    return [Group(tuple(group), tuple(adaptations[place] for place in group)) for group in found]


def common_method(adaptations: Sequence[Adaptation]) -> Method:
    """The method that all share, to train from them. Raises UserError where they are of several, or none is trained."""
    first = adaptations[0]
    if not first.method.trains:
        raise UserError(
            f"{first.name!r} is of method {first.method.name}, of which nothing is trained: train from it with `train "
            f"--method prompt --init from:PATH`"
        )
    for each in adaptations:
        if each.method.name != first.method.name:
            raise UserError(
                f"{first.name!r} is of method {first.method}, {each.name!r} of {each.method}: train from sources of one "
                f"method at a time"
            )
    return first.method


def common_encoding(
    backbone: Backbone,
    adaptations: Sequence[Adaptation],
    wanted: Encoding = USUAL,
    *,
    other_layout: bool = False,
) -> Encoding:
    """`wanted` with the layout and the template that all share, unless it names another template.

    Raises UserError if they differ, or one does not run on the backbone.
    """
    if not adaptations:
        raise UserError("no prompt given: name at least one prompt folder")
    names = [each.name for each in adaptations]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two prompts are called {twice!r}: rename one folder's prompt, or give one of them")
    layout = adaptations[0].layout
    template = wanted.template or adaptations[0].encoding.template
    for each in adaptations:
        check_on(
            each,
            backbone,
            layout=layout,
            other_layout=other_layout,
            other_backbone=backbone.takes_any,
        )
        check_reads(each, backbone, template, other_layout=other_layout)
        each.method.check_fits(backbone, each.tensors, each.name)
        each.method.check_place(replace(wanted, layout=layout).place(backbone.family), backbone.family)
    return replace(wanted, layout=layout, template=template)


def check_on(
    adaptation: Adaptation,
    backbone: Backbone,
    *,
    layout: str,
    other_layout: bool = False,
    other_backbone: bool = False,
) -> None:
    """`check_runs_on` for a backbone that is there."""
    check_runs_on(
        adaptation,
        backbone=backbone.name,
        revision=backbone.revision,
        width=backbone.width,
        family=backbone.family,
        layout=layout,
        other_layout=other_layout,
        other_backbone=other_backbone,
    )


def check_runs_on(
    adaptation: Adaptation,
    *,
    backbone: str,
    revision: str | None = None,
    width: int,
    family: str,
    layout: str,
    other_layout: bool = False,
    other_backbone: bool = False,
) -> None:
    """Raise UserError when an adaptation cannot be used on a backbone, or was trained on another one or in another layout.

    The revision decides which backbone is meant, the name only where no revision is known. Another one of the same
    width and family can be asked for with `other_backbone`, another layout with `other_layout`. Without a `revision`
    only width, layout and family are compared.
    """
    name, what = adaptation.name, adaptation.method.called
    if adaptation.has_vectors and adaptation.width != width:
        raise UserError(
            f"prompt {name!r} has width {adaptation.width} (trained on {adaptation.backbone}), but {backbone} has "
            f"width {width}: carry it across with `prompttransfer project`, or evaluate on {adaptation.backbone}"
        )
    if adaptation.layout != layout and not other_layout:
        raise UserError(
            f"{what} {name!r} was trained under layout {adaptation.layout!r}, not {layout!r}: "
            f"use --layout {adaptation.layout}, or ask for it with --other-layout"
        )
    if adaptation.family != family and not other_layout:
        raise UserError(
            f"{what} {name!r} was trained on a {adaptation.family} backbone ({adaptation.backbone}), "
            f"{backbone} is {family}: carry it across with `prompttransfer project`"
        )
    if revision is None or other_backbone:
        return
    if line := another_backbone(adaptation, backbone, revision):
        raise UserError(line)


def check_reads(
    adaptation: Adaptation, backbone: Backbone, template: str | None, *, other_layout: bool = False
) -> None:
    """Raise UserError where an adaptation of a decoder was trained on rows that begin or are put together otherwise.

    `template` is what rows are read by, None for each task's own; another than its own can be asked for with
    `other_layout`.
    """
    what, own = f"{adaptation.method.called} {adaptation.name!r}", adaptation.encoding.template
    if template != own and not other_layout:
        named = [repr(each) if each else "each task's own template" for each in (own, template)]
        raise UserError(
            f"{what} was trained with {named[0]}, not with {named[1]}: leave --template out and use one template at a time, or "
            f"ask for it with --other-layout"
        )
    before, now = adaptation.origin.opening, backbone.opening
    if before is not None and now is not None and before != now and not backbone.takes_any:
        said = [" ".join(tokens) or "nothing" for tokens in (before, now)]
        raise UserError(
            f"{what} was trained on rows that begin with {said[0]} behind the prompt, here {backbone.name} begins them with "
            f"{said[1]}: bring the tokenizer that it was trained with, or ask for it as it is with --other-backbone"
        )


def another_backbone(adaptation: Adaptation, backbone: str, revision: str) -> str | None:
    """What differs between an adaptation's own backbone and this one, and what to do; None where nothing that counts does.

    Generation settings do not count: texts are written with settings of our own.
    """
    asked = "or ask for it as it is with --other-backbone"
    what = f"{adaptation.method.called} {adaptation.name!r}"
    if not (adaptation.revision and revision):
        if adaptation.backbone == backbone:
            return None
        return f"{what} was trained on {adaptation.backbone}, not on {backbone}: name that one, {asked}"
    parts = differing(adaptation.revision, revision, DECIDING)
    if not parts:
        return None
    pin = f"give --revision {adaptation.revision}, " if is_commit(adaptation.revision) else "bring that one, "
    if "weights" in parts or parts == ("revision",):
        pin = pin if adaptation.backbone == backbone else "carry it across with `prompttransfer project`, "
    return (
        f"{what} was trained on {adaptation.backbone} at {adaptation.revision}; {backbone} is at {revision}, "
        f"which has another {' and '.join(parts)}: {pin}{asked}"
    )
