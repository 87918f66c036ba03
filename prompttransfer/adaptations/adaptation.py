"""Soft prompts: the [length, width] arrays that are trained, kept, compared and carried across models.

A prompt knows where it came from (task, backbone, seed, initial vectors). How it joins an input is a layout
(backbones/layouts.py); how it is learned is training (training/train.py). After Lester et al. 2021, arXiv 2104.08691.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from prompttransfer.backbones.layouts import find_layout
from prompttransfer.backbones.revisions import DECIDING, differing, is_commit
from tasks.errors import UserError


@dataclass(frozen=True)
class CurvePoint:
    """One evaluation on the validation split during training."""

    step: int
    loss: float | None
    """Mean training loss since the evaluation before; None at step 0."""
    score: float
    """The task's metric on the validation split, 0 to 1."""
    validation_loss: float | None = None


@dataclass(frozen=True, eq=False)
class Prompt:
    """A soft prompt and where it came from; it cannot be built with a wrong shape or values."""

    vectors: Tensor
    """[length, width] float32 on the CPU."""
    task: str
    backbone: str
    revision: str = ""
    """Which backbone exactly (backbones/revisions.py); empty where it is unknown."""
    family: str = "masked-lm"
    layout: str = "prompt-first"
    name: str = ""
    """Name among other prompts; the task's name if not given."""
    seed: int | None = None
    initialiser: str = "unknown"
    initial: Tensor | None = None
    """[length, width] the vectors before the first step."""
    words: Mapping[str, str] = field(default_factory=dict)
    """label -> label word that the prompt was trained with."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    """Source and revision of the rows, and how many each split had."""
    scores: Mapping[str, Any] = field(default_factory=dict)
    curve: tuple[CurvePoint, ...] = ()

    def __post_init__(self) -> None:
        check_vectors(self.vectors, f"prompt {self.name or self.task!r}")
        if self.initial is not None and self.initial.shape != self.vectors.shape:
            raise UserError(
                f"prompt {self.name or self.task!r}: initial vectors are {list(self.initial.shape)}, "
                f"the vectors {list(self.vectors.shape)}"
            )
        find_layout(self.layout, self.family)
        if not self.name:
            object.__setattr__(self, "name", self.task)

    @property
    def length(self) -> int:
        """Number of vectors."""
        return int(self.vectors.shape[0])

    @property
    def width(self) -> int:
        """Size of each vector, the backbone's embedding width."""
        return int(self.vectors.shape[1])

    @property
    def digest(self) -> str:
        """sha256 of the vectors' bytes."""
        return digest_vectors(self.vectors)


def check_vectors(vectors: Tensor, what: str) -> None:
    """Raise UserError unless `vectors` is a finite float32 array of two dimensions."""
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise UserError(f"{what} has shape {list(vectors.shape)}: a soft prompt is [length, width]")
    if vectors.dtype != torch.float32:
        raise UserError(f"{what} is {vectors.dtype}: soft prompts are kept in float32")
    if not torch.isfinite(vectors).all():
        raise UserError(f"{what} has values that are not finite: train it again with a lower --lr")


def digest_vectors(vectors: Tensor) -> str:
    """sha256 of a float32 array's bytes, in row order."""
    return hashlib.sha256(vectors.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def bank(prompts: Sequence[Prompt]) -> Tensor:
    """Several prompts that run together, [prompts, length, width]; UserError if their shapes differ."""
    shapes = {tuple(prompt.vectors.shape): prompt.name for prompt in prompts}
    if len(shapes) > 1:
        (shape, name), (other, second) = list(shapes.items())[:2]
        raise UserError(
            f"prompts of different shape cannot run together: {name!r} is {list(shape)}, {second!r} is {list(other)}"
        )
    return torch.stack([prompt.vectors for prompt in prompts])


def check_runs_on(
    prompt: Prompt,
    *,
    backbone: str,
    revision: str | None = None,
    width: int,
    family: str,
    layout: str,
    other_layout: bool = False,
    other_backbone: bool = False,
) -> None:
    """Raise UserError when a prompt cannot be used on a backbone, or was trained on another one or in another layout.

    The revision decides which backbone is meant, the name only where no revision is known. Another one of the same
    width and family can be asked for with `other_backbone`, another layout with `other_layout`. Without a `revision`
    only width, layout and family are compared.
    """
    if prompt.width != width:
        raise UserError(
            f"prompt {prompt.name!r} has width {prompt.width} (trained on {prompt.backbone}), but {backbone} has width "
            f"{width}: carry it across with `prompttransfer project`, or evaluate on {prompt.backbone}"
        )
    if prompt.layout != layout and not other_layout:
        raise UserError(
            f"prompt {prompt.name!r} was trained under layout {prompt.layout!r}, not {layout!r}: "
            f"use --layout {prompt.layout}, or ask for it with --other-layout"
        )
    if prompt.family != family and not other_layout:
        raise UserError(
            f"prompt {prompt.name!r} was trained on a {prompt.family} backbone ({prompt.backbone}), "
            f"{backbone} is {family}: carry it across with `prompttransfer project`"
        )
    if revision is None or other_backbone:
        return
    if line := another_backbone(prompt, backbone, revision):
        raise UserError(line)


def another_backbone(prompt: Prompt, backbone: str, revision: str) -> str | None:
    """What differs between a prompt's own backbone and this one, and what to do; None where nothing that counts does.

    Generation settings do not count: texts are written with settings of our own.
    """
    asked = "or ask for it as it is with --other-backbone"
    if not (prompt.revision and revision):
        if prompt.backbone == backbone:
            return None
        return f"prompt {prompt.name!r} was trained on {prompt.backbone}, not on {backbone}: name that one, {asked}"
    parts = differing(prompt.revision, revision, DECIDING)
    if not parts:
        return None
    pin = f"give --revision {prompt.revision}, " if is_commit(prompt.revision) else "bring that one, "
    if "weights" in parts or parts == ("revision",):
        pin = pin if prompt.backbone == backbone else "carry it across with `prompttransfer project`, "
    return (
        f"prompt {prompt.name!r} was trained on {prompt.backbone} at {prompt.revision}; {backbone} is at {revision}, "
        f"which has another {' and '.join(parts)}: {pin}{asked}"
    )
