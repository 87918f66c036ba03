"""Soft prompts (Lester et al. 2021, arXiv 2104.08691): free vectors in front of the word embeddings, [length, width]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from prompttransfer.adaptations.adaptation import PROMPT_KEY
from prompttransfer.adaptations.bank import VectorBank
from prompttransfer.adaptations.initialisers import initial_vectors
from prompttransfer.adaptations.method import Member, Method
from prompttransfer.adaptations.random_prompts import random_like
from prompttransfer.adaptations.starts import From
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task


class VectorMember(Member):
    """The vectors themselves."""

    def __init__(self, vectors: Tensor):
        super().__init__()
        self.prompt = nn.Parameter(vectors.detach().clone())

    def vectors(self) -> Tensor:
        """[length, width], differentiable."""
        return self.prompt

    def tensors(self) -> dict[str, Tensor]:
        return {PROMPT_KEY: self.vectors().detach().cpu().clone()}


@dataclass(frozen=True)
class Vectors(Method):
    """What is kept as vectors in front of the text, however they were found."""

    called: ClassVar[str] = "prompt"
    is_prompt: ClassVar[bool] = True

    def random_like(
        self, given: Sequence[Mapping[str, Tensor]], draws: int, generator: torch.Generator
    ) -> list[dict[str, Tensor]]:
        found = random_like([tensors[PROMPT_KEY] for tensors in given], draws, generator)
        return [{PROMPT_KEY: vectors} for vectors in found]

    def restored(self, tensors: Mapping[str, Tensor]) -> Member:
        if tensors.keys() != {PROMPT_KEY}:
            raise UserError(f"a prompt holds {PROMPT_KEY!r}, not {', '.join(sorted(tensors)) or 'nothing'}")
        return VectorMember(tensors[PROMPT_KEY])

    def bank(self, backbone: Backbone, members: Sequence[Member]) -> VectorBank:
        vectors = [member.vectors().to(backbone.device) for member in members]  # type: ignore[operator]
        return VectorBank(torch.stack(vectors))

    def peft_config(self, *, family: str, tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
        length, width = tensors[PROMPT_KEY].shape
        return {
            "peft_type": "PROMPT_TUNING",
            "num_virtual_tokens": length,
            "token_dim": width,
            "num_transformer_submodules": 1,
            "num_attention_heads": 1,
            "num_layers": 1,
            "prompt_tuning_init": "RANDOM",
        }


@dataclass(frozen=True)
class PromptTuning(Vectors):
    """`length` vectors in front of the text."""

    name: ClassVar[str] = "prompt"
    summary: ClassVar[str] = "vectors in front of the text (Lester et al. 2021)"

    length: int = 100

    def __post_init__(self) -> None:
        if self.length < 1:
            raise UserError(f"{self.name}: length {self.length}: a prompt has at least 1 vector")

    @property
    def reserved(self) -> int:
        return self.length

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        return VectorMember(initial_vectors(start, backbone, task, length=self.length, seed=seed))

    def outline(self, backbone: Backbone, task: Task) -> Member:
        return VectorMember(torch.empty(self.length, backbone.width, device=backbone.device))

    def continued(self, start: From, backbone: Backbone) -> Member:
        self.check_start(start, backbone)
        return super().continued(start, backbone)

    def check_start(self, start: From, backbone: Backbone) -> None:
        """Raise UserError where the vectors of a start are of another shape than is needed."""
        vectors = start.tensors.get(PROMPT_KEY)
        wanted = [self.length, backbone.width]
        if vectors is not None and list(vectors.shape) != wanted:
            raise UserError(
                f"{start} is {list(vectors.shape)}, but {wanted} is needed on {backbone.name}: use --length "
                f"{len(vectors)}, or carry it across with `prompttransfer project`"
            )
