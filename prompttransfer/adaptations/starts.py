"""Starts: where training begins. Transfer as initialisation is one of them.

    random               as the method has it; for vectors normal, with the deviation of the token embeddings
    vocabulary           embeddings of tokens drawn from the 5,000 most common ordinary ones (Lester 2021; Vu 2022)
    label-words          embeddings of the task's label words first, the rest as `vocabulary` (Lester 2021)
    text:WORDS           embeddings of the given text, repeated to the length, without special tokens
    from:PATH            another adaptation (TPT, Su et al. 2022; SPoT, Vu et al. 2022)
    mixture:PATH=WEIGHT,...   the weighted sum of several prompts (SPoT's mixture)

`Random`, `Words`, `From` and `Mixture` are those as values; `prompt:PATH` is an older name of `from:PATH`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from prompttransfer.adaptations.adaptation import PROMPT_KEY
from tasks.errors import UserError, unknown

if TYPE_CHECKING:
    from prompttransfer.adaptations.adaptation import Adaptation

WORDS = ("vocabulary", "label-words", "text")
EXAMPLES = {
    "text": "text:the verdict is",
    "from": "from:runs/prompts/sst2",
    "prompt": "from:runs/prompts/sst2",
    "mixture": "mixture:runs/prompts/sst2=.6,runs/prompts/imdb=.4",
}
"""Names that need an argument."""
NAMES = ("random", *WORDS, "from", "mixture", "prompt")


@dataclass(frozen=True)
class Random:
    """The method's own random start."""

    def __str__(self) -> str:
        return "random"


@dataclass(frozen=True)
class Words:
    """Embeddings of words; for methods with vectors in front of the text."""

    kind: str
    text: str = ""

    def __post_init__(self) -> None:
        if self.kind not in WORDS:
            raise unknown("start of words", self.kind, WORDS)

    def __str__(self) -> str:
        return f"{self.kind}:{self.text}" if self.text else self.kind


@dataclass(frozen=True, eq=False)
class From:
    """Another adaptation's tensors, unchanged."""

    tensors: Mapping[str, Tensor]
    said: str
    """What is kept of it: `from:` and a name or a path; whatever else a caller has to say."""
    encoder: Mapping[str, Tensor] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.said


@dataclass(frozen=True, eq=False)
class Mixture:
    """The sum of several prompts, each times its weight."""

    parts: tuple[From, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.parts or len(self.parts) != len(self.weights):
            raise UserError(
                f"a mixture of {len(self.parts)} adaptations with {len(self.weights)} weights: give one weight each"
            )

    def summed(self) -> From:
        """The sum as a start. Raises UserError unless all parts are prompts of one shape."""
        shapes = {tuple(part.tensors[PROMPT_KEY].shape) for part in self.parts if PROMPT_KEY in part.tensors}
        if len(shapes) != 1 or any(part.tensors.keys() != {PROMPT_KEY} for part in self.parts):
            raise UserError(
                f"{self}: a mixture is of soft prompts of one shape, here are "
                f"{', '.join(map(str, sorted(shapes))) or 'no vectors'}"
            )
        total: Tensor = sum(
            weight * part.tensors[PROMPT_KEY] for part, weight in zip(self.parts, self.weights, strict=True)
        )  # type: ignore[assignment]
        return From({PROMPT_KEY: total}, str(self))

    def __str__(self) -> str:
        said = (
            f"{part.said.removeprefix('from:')}={weight:g}"
            for part, weight in zip(self.parts, self.weights, strict=True)
        )
        return "mixture:" + ",".join(said)


Start = Random | Words | From | Mixture
RANDOM = Random()


def start_from(adaptation: Adaptation, said: str = "") -> From:
    """Training from `adaptation`; `said` is kept of it instead of its name."""
    return From(adaptation.tensors, f"from:{said or adaptation.name}", adaptation.encoder)


def source_of(start: str) -> str | None:
    """What stands behind `from:` (or `prompt:`, as it was called before) in what is kept of a start; None for others."""
    name, sign, rest = start.partition(":")
    return rest if sign and name in ("from", "prompt") else None


def check_start(text: str) -> None:
    """Raise UserError for a start that cannot be, before any row, model or file is read."""
    name, _, argument = text.partition(":")
    if name not in NAMES:
        raise unknown("start", name, NAMES[:-1])
    if name in EXAMPLES and not argument.strip():
        raise UserError(f"start {name!r} needs an argument, as in {EXAMPLES[name]}")
    if name == "mixture":
        _parts(argument)


def parse_start(text: str) -> Start:
    """The start that a text stands for; adaptations are read from their folders. Raises UserError."""
    from prompttransfer.adaptations.artifacts import load_adaptation

    check_start(text)
    name, _, argument = text.partition(":")
    if name == "random":
        return Random()
    if name in WORDS:
        return Words(name, argument)
    if name == "mixture":
        parts = _parts(argument)
        return Mixture(
            tuple(start_from(load_adaptation(Path(path)), path) for path, _ in parts),
            tuple(weight for _, weight in parts),
        )
    return start_from(load_adaptation(Path(argument)), argument)


def _parts(argument: str) -> list[tuple[str, float]]:
    """Paths and weights of a mixture's text."""
    found = []
    for part in argument.split(","):
        path, sign, weight = part.rpartition("=")
        try:
            found.append((path, float(weight)))
        except ValueError:
            sign = ""
        if not (sign and path) or not abs(found[-1][1]) < 1e6:
            raise UserError(f"mixture part {part!r}: write PATH=WEIGHT, as in {EXAMPLES['mixture']}")
    return found
