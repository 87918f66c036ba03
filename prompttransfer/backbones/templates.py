"""Templates in the tokens of one decoder: what stands around the texts of a row, read as the middle of a longer text.

Parts of a row are tokenised apart, so that a template has the same tokens in every row and only texts are cut. Tokenizers
that put a space in front of whatever they read (Llama 2, Mistral) would do so at every part; here a space is read where
the template or a text has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from prompttransfer.backbones.tokens import first_ids
from tasks.templates import Frame

BEFORE = "x"
"""What a part is read behind where the tokenizer would begin it with a space."""
SPACES = ("▁", "Ġ")
"""How vocabularies write a space."""


@dataclass(frozen=True)
class TokenFrame:
    """What stands around the texts of a row, in tokens."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    swapped: bool
    """Whether the second text stands first."""

    @property
    def size(self) -> int:
        """Tokens that are no text."""
        return len(self.before) + len(self.between) + len(self.after)

    def around(self, first: tuple[int, ...], second: tuple[int, ...] | None) -> list[int]:
        """A whole row."""
        texts = (second or (), first) if self.swapped else (first, second or ())
        return [*self.before, *texts[0], *self.between, *texts[1], *self.after]


class TextReader:
    """A decoder's tokenizer, for texts that stand behind others."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    @cached_property
    def opening(self) -> tuple[int, ...]:
        """The tokens that this tokenizer puts in front of a text: the beginning of sequence, or none."""
        whole = self.tokenizer(BEFORE)["input_ids"]
        bare = self._plain(BEFORE)
        ends = [i for i in range(len(whole)) if tuple(whole[i : i + len(bare)]) == bare]
        return tuple(whole[: ends[0]]) if ends else ()

    @cached_property
    def adds_space(self) -> bool:
        """Whether a text gets a space in front."""
        return str(self.tokenizer.convert_ids_to_tokens(self._plain(BEFORE)[0])).startswith(SPACES)

    def ids(self, part: str) -> tuple[int, ...]:
        """The tokens of a part that stands behind another; a space at its beginning is read."""
        if not part or not self.adds_space:
            return self._plain(part)
        if part[0] == " ":
            return self._plain(part[1:])
        known, both = self._plain(BEFORE), self._plain(BEFORE + part)
        return both[len(known) :] if both[: len(known)] == known else self._plain(part)

    def texts(self, texts: Sequence[str], keep: int) -> list[tuple[int, ...]]:
        """The first `keep` tokens of each text behind a space; none of an empty one."""
        space = "" if self.adds_space else " "
        known = {text: space + text.strip() for text in texts if text.strip()}
        ids = dict(zip(known, first_ids(self.tokenizer, list(known.values()), keep), strict=True))
        return [ids.get(text, ()) for text in texts]

    def line(self, text: str) -> tuple[int, ...]:
        """The tokens of a text that others stand behind, as a line of its own."""
        text = text.lstrip()
        return self._plain(text if text[-1:].isspace() else text + "\n")

    def frame(self, frame: Frame) -> TokenFrame:
        """A template in tokens; what it begins with is the beginning of the whole text."""
        return TokenFrame(
            (*self.opening, *self._plain(frame.before)),
            self.ids(frame.between or ""),
            self.ids(frame.after),
            frame.swapped,
        )

    def _plain(self, text: str) -> tuple[int, ...]:
        if not text:
            return ()
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def line_end(self) -> int | None:
        """The token that ends a line; the end of sequence where none does, None where there is none of both."""
        ids = self.ids("\n")
        if len(ids) == 1 and "\n" in self.tokenizer.decode(ids):
            return ids[0]
        end: int | None = self.tokenizer.eos_token_id
        return end

    @cached_property
    def ends(self) -> list[int]:
        """Every token behind which an answer of one line is over."""
        vocabulary: dict[str, int] = self.tokenizer.get_vocab()
        likely = [
            i for token, i in vocabulary.items() if any(sign in token for sign in ("\n", "Ċ", "<0x0A>"))
        ]
        found = {i for i in likely if "\n" in self.tokenizer.decode([i])}
        return sorted(
            found | {end for end in (self.line_end, self.tokenizer.eos_token_id) if end is not None}
        )
