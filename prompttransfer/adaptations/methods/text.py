"""Hard prompts: a text in front of the rows, of which nothing is trained.

What is kept are the backbone's own embeddings of its tokens, [tokens, width] under peft's name for a soft prompt, and the
text in the method's settings. A pass over them gives what a pass over the tokens would, so a hard prompt is evaluated,
transferred, compared and read by peft as any soft prompt is. On decoders the text is a line of its own, as the parts of
templates are: what follows is the template.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from prompttransfer.adaptations.adaptation import PROMPT_KEY
from prompttransfer.adaptations.method import Member
from prompttransfer.adaptations.methods.prompt import Vectors
from prompttransfer.adaptations.starts import From
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.backbones.layouts import Layout
    from tasks.task import Task

EXAMPLE = """--method 'text:prompt="Is this review good or bad?"'"""


class WordsMember(Member):
    """Vectors that nothing changes, and what they are in words."""

    def __init__(self, vectors: Tensor, **notes: Any):
        super().__init__()
        self.register_buffer("prompt", vectors.detach().float().clone())
        self._notes = notes

    def vectors(self) -> Tensor:
        """[length, width]."""
        return self.get_buffer("prompt")

    def tensors(self) -> dict[str, Tensor]:
        return {PROMPT_KEY: self.vectors().cpu().clone()}

    def notes(self) -> dict[str, Any]:
        return self._notes


@dataclass(frozen=True)
class Words(Vectors):
    """What stands in front of the text as tokens of the backbone's vocabulary."""

    trains: ClassVar[bool] = False

    def restored(self, tensors: Mapping[str, Tensor]) -> Member:
        return WordsMember(super().restored(tensors).tensors()[PROMPT_KEY])

    def continued(self, start: From, backbone: Backbone) -> Member:
        raise UserError(
            f"nothing of {self.name} is trained, so it does not go on from {start}: give --method prompt, which starts at "
            f"its vectors"
        )

    def check_place(self, place: Layout, family: str) -> None:
        if place.mask_is_first_row and family == "masked-lm":
            raise UserError(
                f"layout {place.name!r} reads its first position as the mask, so the first word of {self.name} would be "
                f"lost: use --layout prompt-first or after-bos"
            )

    def check_start(self, start: str) -> None:
        """Raise UserError for a start, which what is not trained has none of."""
        if start != "random":
            raise UserError(
                f"nothing of {self.name} is trained, so it has no start: leave --init {start} out"
            )


@dataclass(frozen=True)
class TextPrompt(Words):
    """A text in front of the rows."""

    name: ClassVar[str] = "text"
    summary: ClassVar[str] = "a text in front of the rows, nothing is trained"

    prompt: str = ""

    def check_complete(self) -> None:
        if not self.prompt.strip():
            raise UserError(f"text needs its words, as in {EXAMPLE}")

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        self.check_start(start)
        ids = torch.tensor(self._ids(backbone))
        return WordsMember(backbone.word_vectors(ids), text=self.prompt)

    def outline(self, backbone: Backbone, task: Task) -> Member:
        return WordsMember(torch.empty(len(self._ids(backbone)), backbone.width, device=backbone.device))

    def _ids(self, backbone: Backbone) -> tuple[int, ...]:
        self.check_complete()
        check_known(backbone, self.prompt)
        return backbone.prompt_ids(self.prompt)


def check_known(backbone: Backbone, text: str) -> None:
    """Raise UserError where a text has words that the backbone's tokenizer does not know."""
    unknown = backbone.tokenizer.unk_token_id
    if unknown not in backbone.prompt_ids(text):
        return
    words = [word for word in text.split() if unknown in backbone.prompt_ids(word)]
    raise UserError(
        f"the tokenizer of {backbone.name} does not know {', '.join(map(repr, words)) or repr(text)}, which the prompt "
        f"holds: use words of its vocabulary"
    )
