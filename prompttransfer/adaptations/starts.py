"""Starts: where training begins. Transfer as initialisation is one of them.

    random               as the method has it; for vectors normal, with the deviation of the token embeddings
    vocabulary           embeddings of tokens drawn from the 5,000 most common ordinary ones (Lester 2021; Vu 2022)
    label-words          embeddings of the task's label words first, the rest as `vocabulary` (Lester 2021)
    text:WORDS           embeddings of the given text, repeated to the length, without special tokens
    from:PATH            another adaptation (TPT, Su et al. 2022; SPoT, Vu et al. 2022)
    mixture:PATH=WEIGHT,...   the weighted sum of several prompts (SPoT's mixture)
    retrieve:DIR,top=3,by=C_average   the same of those in a library that are most like the target, by their similarity

`Random`, `Words`, `From`, `Mixture` and `Retrieve` are those as values; `prompt:PATH` is an older name of `from:PATH`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

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
    "retrieve": "retrieve:runs/prompts,top=3",
}
"""Names that need an argument."""
NAMES = ("random", *WORDS, "from", "mixture", "retrieve", "prompt")


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


class Source(NamedTuple):
    """A prompt that a method takes beside its own, as it is and as its training began."""

    vectors: Tensor
    """[length, width]"""
    first: Tensor | None
    """The same; None where it is not known."""


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
        """The sum as a start; one part of weight 1 is itself. Raises UserError unless all parts are prompts of one shape."""
        if self.weights == (1.0,):
            return From(self.parts[0].tensors, str(self), self.parts[0].encoder)
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


@dataclass(frozen=True)
class Retrieve:
    """The sources in a library that are most like the target (SPoT, Vu et al. 2022, section 3.2).

    What that is needs rows of the target: transfers/retrieval.py makes a `From` or `Mixture` of it before training.
    """

    folder: Path
    top: int = 3
    by: str = ""
    """The similarity; the usual one of the sources' method if not given."""

    def __post_init__(self) -> None:
        if self.top < 1:
            raise UserError(f"{self}: top is how many sources to mix, at least 1")

    def __str__(self) -> str:
        return f"retrieve:{self.folder},top={self.top}" + (f",by={self.by}" if self.by else "")


Start = Random | Words | From | Mixture | Retrieve
RANDOM = Random()


def start_from(adaptation: Adaptation, said: str = "") -> From:
    """Training from `adaptation`; `said` is kept of it instead of its name."""
    return From(adaptation.tensors, f"from:{said or adaptation.name}", adaptation.encoder)


def mixture_of(
    adaptations: Sequence[Adaptation], weights: Sequence[float], said: Sequence[str] = ()
) -> Mixture:
    """Training from the weighted sum of `adaptations`; `said` is kept of each instead of its name."""
    names = said or [each.name for each in adaptations]
    parts = (start_from(each, name) for each, name in zip(adaptations, names, strict=True))
    return Mixture(tuple(parts), tuple(weights))


def source_of(start: str) -> str | None:
    """What stands behind `from:` (or `prompt:`, as it was called before) in what is kept of a start; None for others."""
    name, sign, rest = start.partition(":")
    return rest if sign and name in ("from", "prompt") else None


def on_folders(start: str, change: Callable[[str], str]) -> str:
    """A start's text with every folder that it names changed; others as they are."""
    if (source := source_of(start)) is not None:
        return f"from:{change(source)}"
    name, _, argument = start.partition(":")
    if name == "mixture":
        return "mixture:" + ",".join(f"{change(path)}={weight:g}" for path, weight in _parts(argument))
    if name == "retrieve":
        folder, *settings = argument.split(",")
        return ",".join([f"retrieve:{change(folder)}", *settings])
    return start


def folders_of(start: str) -> list[Path]:
    """The folders that a start's text names."""
    found: list[str] = []
    on_folders(start, lambda folder: found.append(folder) or folder)  # type: ignore[func-returns-value]
    return [Path(folder) for folder in found]


def check_start(text: str) -> None:
    """Raise UserError for a start that cannot be, before any row, model or file is read."""
    name, _, argument = text.partition(":")
    if name not in NAMES:
        raise unknown("start", name, NAMES[:-1])
    if name in EXAMPLES and not argument.strip():
        raise UserError(f"start {name!r} needs an argument, as in {EXAMPLES[name]}")
    if name == "mixture":
        _parts(argument)
    if name == "retrieve":
        _retrieve(argument)


def parse_start(text: str) -> Start:
    """The start that a text stands for; adaptations are read from their folders. Raises UserError."""
    from prompttransfer.adaptations.artifacts import load_adaptation

    check_start(text)
    name, _, argument = text.partition(":")
    if name == "random":
        return Random()
    if name in WORDS:
        return Words(name, argument)
    if name == "retrieve":
        return _retrieve(argument)
    if name == "mixture":
        from prompttransfer.adaptations.arithmetic import check_alike

        parts = _parts(argument)
        found = [load_adaptation(Path(path)) for path, _ in parts]
        check_alike(found)
        return mixture_of(found, [weight for _, weight in parts], [path for path, _ in parts])
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
        if not (sign and path) or not 0 <= found[-1][1] < 1e6:
            raise UserError(
                f"mixture part {part!r}: write PATH=WEIGHT with a weight of 0 or more, as in {EXAMPLES['mixture']}"
            )
    return found


def _retrieve(argument: str) -> Retrieve:
    """What stands behind `retrieve:`."""
    folder, *settings = argument.split(",")
    given = dict(part.partition("=")[::2] for part in settings)
    strange = [part for part in settings if part.partition("=")[0] not in ("top", "by") or "=" not in part]
    if strange or len(given) < len(settings) or not folder:
        raise UserError(f"start 'retrieve:{argument}': write it as in {EXAMPLES['retrieve']},by=C_average")
    if not given.get("top", "3").isdigit():
        raise UserError(f"start 'retrieve:{argument}': top is {given['top']!r}, not a whole number")
    return Retrieve(Path(folder), int(given.get("top", "3")), given.get("by", ""))
