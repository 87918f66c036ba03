"""Projectors: a fitted map from the prompts of one backbone to those of another, and what is known of it.

A projector knows both backbones, with revision, prompt length and layout, and refuses a prompt that is not of its
source side. What comes out is an ordinary prompt of the target backbone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from projectors.architectures import Architecture, Shape
from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.prompts import soft_prompt
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.revisions import DECIDING, differing
from tasks.errors import UserError


@dataclass(frozen=True)
class Side:
    """One end of a projector: prompts of `length` under `layout` on a backbone of `width`."""

    backbone: str
    revision: str
    family: str
    layout: str
    length: int
    width: int

    def __str__(self) -> str:
        return f"{self.backbone} ({self.length} x {self.width}, layout {self.layout})"


@dataclass(frozen=True, eq=False)
class Projector:
    """A module with the two backbones it joins, how it was fitted, and what the controls say of it."""

    module: nn.Module
    source: Side
    target: Side
    method: str
    architecture: Architecture
    settings: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    """The tasks it was fitted on; empty for the label-free methods."""
    seed: int = 0
    curve: tuple[float, ...] = ()
    """Loss at every step of the fit."""
    scores: Mapping[str, Any] = field(default_factory=dict)
    """The report's table: group of tasks -> condition -> mean and spread."""
    sensitivity: Mapping[str, float] = field(default_factory=dict)
    collapsed: bool | None = None
    """Whether it ignores its input; None before the controls were run."""
    verdict: str = "controls not run"

    @property
    def shape(self) -> Shape:
        """Lengths and widths of both sides."""
        return Shape(self.source.length, self.source.width, self.target.length, self.target.width)


def side_of_prompt(prompt: Adaptation) -> Side:
    """The side that a prompt stands on."""
    return Side(prompt.backbone, prompt.revision, prompt.family, prompt.layout, prompt.length, prompt.width)


def side_of_backbone(backbone: Backbone, *, length: int, layout: str) -> Side:
    """The side of prompts of `length` under `layout` on a backbone."""
    return Side(backbone.name, backbone.revision, backbone.family, layout, length, backbone.width)


def common_side(prompts: Sequence[Adaptation], what: str) -> Side:
    """The one side that all prompts stand on; a UserError names the first two that do not agree."""
    sides = [side_of_prompt(prompt) for prompt in prompts]
    for prompt, side in zip(prompts, sides, strict=True):
        if not same_side(side, sides[0]):
            raise UserError(
                f"{what} prompts must be of one backbone, length and layout: {prompts[0].name!r} is of {sides[0]}, "
                f"{prompt.name!r} of {side}"
            )
    return sides[0]


def same_backbone(first: Side, second: Side) -> bool:
    """Equal revisions are one model, whatever the folder is called; without revisions the names decide."""
    if first.revision and second.revision:
        return not differing(first.revision, second.revision, DECIDING)
    return first.backbone == second.backbone


def same_side(first: Side, second: Side) -> bool:
    """Whether prompts of both sides can stand in for each other."""
    shape = (first.length, first.width, first.layout, first.family)
    return same_backbone(first, second) and shape == (
        second.length,
        second.width,
        second.layout,
        second.family,
    )


def check_source(projector: Projector, prompt: Adaptation) -> None:
    """Raise UserError, naming both, unless `prompt` is of the projector's source backbone, length and layout."""
    side = side_of_prompt(prompt)
    if same_side(side, projector.source):
        return
    if not same_backbone(side, projector.source):
        other = (
            ""
            if side.backbone != projector.source.backbone
            else f" (revision {side.revision or 'unknown'}, not {projector.source.revision})"
        )
        wrong = f"backbone {side.backbone!r}{other}"
    elif (side.length, side.width) != (projector.source.length, projector.source.width):
        wrong = f"size {side.length} x {side.width}"
    else:
        wrong = f"layout {side.layout!r}"
    raise UserError(
        f"prompt {prompt.name!r} has {wrong}: it is of {side}, but the projector takes prompts of {projector.source}; "
        "fit one for this prompt with `prompttransfer project fit`"
    )


def project_vectors(projector: Projector, vectors: Tensor) -> Tensor:
    """[.., length_s, width_s] -> [.., length_t, width_t], float32, no gradient."""
    with torch.no_grad():
        made: Tensor = projector.module(vectors.float())
    return made.detach().float().contiguous()


def project(projector: Projector, prompt: Adaptation, *, name: str = "") -> Adaptation:
    """Carry one prompt across: an ordinary prompt of the target backbone for the same task.

    Label words are left open: they are the target's own when it is used. Raises UserError for a prompt of another
    backbone, length or layout than the projector was fitted for.
    """
    check_source(projector, prompt)
    target = projector.target
    return soft_prompt(
        vectors=project_vectors(projector, prompt.vectors),
        task=prompt.task,
        name=name or prompt.name,
        backbone=target.backbone,
        revision=target.revision,
        family=target.family,
        layout=target.layout,
        seed=prompt.seed,
        start=f"projected:{projector.method}",
        data=prompt.origin.data,
        recipe={
            "projected_from": prompt.backbone,
            "source_digest": prompt.digest,
            "method": projector.method,
            "architecture": projector.architecture.name,
            "fitting_tasks": list(projector.tasks),
            "collapsed": projector.collapsed,
        },
    )
