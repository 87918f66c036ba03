"""Adaptations: what was learned on a frozen backbone, as a value. A soft prompt is one, a LoRA another.

An adaptation knows its method, where it came from (origin) and how rows have to meet the backbone (encoding). What a
method does to a pass is in method.py; how it is learned is training (training/train.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prompttransfer.backbones.layouts import USUAL, Encoding
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.adaptations.heads import Head
    from prompttransfer.adaptations.method import Method

PROMPT_KEY = "prompt_embeddings"
"""peft's name for the vectors of a soft prompt, [length, width]."""


@dataclass(frozen=True)
class CurvePoint:
    """One evaluation on the validation split during training."""

    step: int
    loss: float | None
    """Mean training loss since the evaluation before; None at step 0."""
    score: float
    """The task's metric on the validation split, 0 to 1."""
    validation_loss: float | None = None


@dataclass(frozen=True)
class Origin:
    """Where an adaptation comes from, known before its first step."""

    task: str
    backbone: str
    revision: str = ""
    """Which backbone exactly (backbones/revisions.py); empty where it is unknown."""
    family: str = "masked-lm"
    seed: int | None = None
    start: str = "unknown"
    """What it started from (adaptations/starts.py)."""
    words: Mapping[str, str] = field(default_factory=dict)
    """label -> label word that it was trained with."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained: the values of a recipe, the precision, with how many others at once."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Source and revision of the rows, and how many each split had."""
    opening: tuple[str, ...] | None = None
    """The tokens that a decoder's rows began with behind the prompt; None for the other families, and where it is unknown."""


@dataclass(frozen=True, eq=False)
class Adaptation:
    """What was learned on a frozen backbone; it cannot be built with values that are not finite."""

    method: Method
    tensors: Mapping[str, Tensor]
    """float32 on the CPU, under peft's names where peft has the method."""
    origin: Origin
    encoding: Encoding = USUAL
    name: str = ""
    """Name among others; the task's name if not given."""
    initial: Mapping[str, Tensor] | None = None
    """The tensors before the first step."""
    encoder: Mapping[str, Tensor] = field(default_factory=dict)
    """What a method needs to train on and is no part of what runs (`Member.encoder`)."""
    embedding: Mapping[str, Tensor] | None = None
    """The tensors at an early step of the run, by which tasks are told alike (SPoT, Vu et al. 2022)."""
    scores: Mapping[str, Any] = field(default_factory=dict)
    curve: tuple[CurvePoint, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What there is to say of it in words (`Member.notes`): the text that a hard prompt is."""
    head: Head | None = None
    """What was trained beside it in place of label words, where its task asks for that."""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.origin.task)
        check_tensors(self.tensors, f"{self.method.name} {self.name!r}")
        for what, others in (("initial", self.initial), ("embedding", self.embedding)):
            if others is not None and not self.method.apart and shapes_of(others) != shapes_of(self.tensors):
                raise UserError(
                    f"{self.method.name} {self.name!r}: {what} tensors are {shapes_of(others)}, the tensors "
                    f"{shapes_of(self.tensors)}"
                )
        if self.head is not None:
            check_tensors(self.head.tensors(), f"the head of {self.name!r}")
        self.encoding.place(self.origin.family)

    def __repr__(self) -> str:
        return f"<Adaptation {self.name!r}: {self.method} for {self.task} on {self.backbone}>"

    # What is asked of it most, by shorter names ----------------------------------------------------------------

    @property
    def task(self) -> str:
        """The task that it was trained on."""
        return self.origin.task

    def knows(self, task: str) -> bool:
        """Whether it was trained on a task, be it one of several (`a+b`, whose names hold no plus)."""
        return task in self.task.split("+")

    @property
    def backbone(self) -> str:
        """Name of the backbone that it was trained on."""
        return self.origin.backbone

    @property
    def revision(self) -> str:
        """Which backbone exactly."""
        return self.origin.revision

    @property
    def family(self) -> str:
        """The backbone's family."""
        return self.origin.family

    @property
    def seed(self) -> int | None:
        """The seed of its run."""
        return self.origin.seed

    @property
    def embedded_at(self) -> int | None:
        """The step that the embedding is of; None where there is none."""
        return None if self.embedding is None else int(self.origin.recipe.get("embed_at", 0))

    @property
    def layout(self) -> str:
        """The layout under which it was trained."""
        return self.encoding.layout

    @property
    def settings(self) -> dict[str, Any]:
        """How it was made, in one table: recipe, method, length of texts."""
        rest = {"max_length": self.encoding.max_length, "aggregation": self.encoding.aggregation}
        return {**self.origin.recipe, **self.method.settings(), **rest}

    # As vectors ------------------------------------------------------------------------------------------------

    @property
    def has_vectors(self) -> bool:
        """Whether it is a soft prompt, however it was learned."""
        return self.method.is_prompt and self.tensors.keys() == {PROMPT_KEY}

    @property
    def vectors(self) -> Tensor:
        """[length, width] of a soft prompt. Raises UserError for a method without vectors."""
        if not self.has_vectors:
            raise UserError(
                f"{self.name!r} is of method {self.method}, which has no vectors in front of the text: this is for soft "
                f"prompts; give adaptations of method prompt or p-tuning"
            )
        return self.tensors[PROMPT_KEY]

    @property
    def first_vectors(self) -> Tensor | None:
        """[length, width] of a soft prompt before its first step, where they are known."""
        return None if self.initial is None else self.initial[PROMPT_KEY]

    @property
    def length(self) -> int:
        """Number of vectors of a soft prompt."""
        return int(self.vectors.shape[0])

    @property
    def width(self) -> int:
        """Size of each vector of a soft prompt, the backbone's embedding width."""
        return int(self.vectors.shape[1])

    @property
    def size(self) -> str:
        """In few words, what it is."""
        return f"{self.length} vectors" if self.has_vectors else str(self.method)

    @property
    def digest(self) -> str:
        """sha256 of the tensors, those of a head among them; of a soft prompt without one, of its vectors' bytes."""
        head = {} if self.head is None else self.head.tensors()
        return digest_tensors({**self.tensors, **head})


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Name -> shape."""
    return {name: list(tensor.shape) for name, tensor in sorted(tensors.items())}


def same_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether both hold the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def check_tensors(tensors: Mapping[str, Tensor], what: str) -> None:
    """Raise UserError unless these are finite float32 tensors, and at least one."""
    if not tensors:
        raise UserError(f"{what} holds no tensor")
    if PROMPT_KEY in tensors and (tensors[PROMPT_KEY].ndim != 2 or 0 in tensors[PROMPT_KEY].shape):
        raise UserError(
            f"{what} has shape {list(tensors[PROMPT_KEY].shape)}: a soft prompt is [length, width]"
        )
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            raise UserError(f"{what} is {tensor.dtype} ({name}): adaptations are kept in float32")
        if not torch.isfinite(tensor).all():
            raise UserError(
                f"{what} has values that are not finite ({name}): train it again with a lower --lr"
            )


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of float32 tensors in the order of their names; of a soft prompt alone, of its vectors' bytes."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        if tensors.keys() != {PROMPT_KEY}:  # names and shapes of a prompt's digest are implied
            sha.update(f"{name} {list(tensor.shape)}\n".encode())
        sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()
