"""Search for a hard prompt (HotFlip, Ebrahimi et al. 2018, arXiv 1712.06751; AutoPrompt, Shin et al. 2020, arXiv 2010.15980).

Swapping the word at a position for word v changes the loss, to first order, by (E_v - e) . g: e the embedding that stands
there, E the table of embeddings, g the gradient of the loss. At every step the words with the most negative change at each
position are tried exactly on a few rows, beside the prompts that there are, and the best `beam` of all stay. Label words
are no candidates, as in AutoPrompt, and a prompt whose text has other tokens is none either: what is found can be read,
and typed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from prompttransfer.adaptations.adaptation import PROMPT_KEY
from prompttransfer.adaptations.initialisers import COMMON_TOKENS
from prompttransfer.adaptations.method import Member, Trial
from prompttransfer.adaptations.methods.prompt import VectorMember
from prompttransfer.adaptations.methods.text import Words, WordsMember, check_known
from prompttransfer.adaptations.starts import From, Mixture, Start
from prompttransfer.backbones.layouts import USUAL, Encoding
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Example, Task

Ids = tuple[int, ...]
WIDER = 4
"""Words looked at for each that is tried: of some the text has other tokens."""


class Vocabulary:
    """The words that a prompt may have on a backbone, and which sequences of them are texts."""

    def __init__(self, backbone: Backbone, task: Task):
        answers = backbone.answers(task)
        spoken = {piece for pieces in answers.pieces for piece in pieces} if answers else set()
        self.backbone = backbone
        self.ids = torch.tensor([index for index in backbone.ordinary_tokens if index not in spoken])

    def vectors(self, ids: Ids) -> Tensor:
        """Their embeddings, [length, width] float32 on the CPU."""
        return self.backbone.word_vectors(torch.tensor(ids))

    def first_order(self, ids: Ids, gradient: Tensor) -> Tensor:
        """What the loss changes by where a token is swapped for a word, [length, words]; `gradient` [length, width]."""
        here = (gradient * self.vectors(ids)).sum(dim=1, keepdim=True)
        return gradient @ self.backbone.word_vectors(self.ids).T - here

    def is_text(self, ids: Ids) -> bool:
        """Whether the text of these tokens has just these."""
        return self.backbone.prompt_ids(self.text(ids)) == ids

    def text(self, ids: Ids) -> str:
        """The text."""
        return self.backbone.prompt_text(ids)

    def drawn(self, length: int, seed: int) -> Ids:
        """A text of common words in random order."""
        end = self.backbone.prompt_end
        generator = torch.Generator().manual_seed(seed)
        common = self.ids[:COMMON_TOKENS]
        found: Ids = ()
        for index in common[torch.randperm(len(common), generator=generator)].tolist():
            if len(found) + len(end) < length and self.is_text((*found, index, *end)):
                found = (*found, index)
        if len(found) + len(end) != length:
            raise UserError(f"{self.backbone.name} has too few words for a text of {length} tokens")
        return (*found, *end)

    def of_vectors(self, vectors: Tensor, name: str) -> Ids:
        """The tokens whose embeddings these are. Raises UserError where they are of none."""
        table = self.backbone.embedding_table()
        found = [(table == vector).all(dim=1).nonzero().flatten().tolist() for vector in vectors]
        if not all(found):
            raise UserError(
                f"text-search goes on from a text, which {name} is not: its vectors are no words of {self.backbone.name}"
            )
        return tuple(own[0] for own in found)


class SearchMember(VectorMember):
    """The best prompt so far as vectors, which only the search moves, and the beam that it is the first of."""

    searches = True

    def __init__(self, search: TextSearch, vocabulary: Vocabulary, ids: Ids):
        super().__init__(vocabulary.vectors(ids))
        self.search, self.vocabulary = search, vocabulary
        self.register_buffer("beam", torch.tensor([ids] * search.beam))
        self.register_buffer("passes", torch.zeros(2, dtype=torch.long))

    @property
    def texts(self) -> list[Ids]:
        """The different prompts of the beam, the best first."""
        return list(dict.fromkeys(map(tuple, self.get_buffer("beam").tolist())))

    def rates(self) -> dict[str, float]:
        return {"prompt": 0.0}

    def choose(self, trials: Callable[[int], Trial]) -> None:
        own = self.prompt.grad
        if own is None:
            return
        trial, texts = trials(self.search.rows), self.texts
        others = [VectorMember(self.vocabulary.vectors(ids)) for ids in texts[1:]]
        gradients = [own.detach().float().cpu(), *(trial.gradients(others) if others else ())]
        swaps = (self.swaps(ids, gradient) for ids, gradient in zip(texts, gradients, strict=True))
        tried = list(dict.fromkeys([*texts, *(ids for found in swaps for ids in found)]))
        losses = trial.losses([WordsMember(self.vocabulary.vectors(ids)) for ids in tried])
        order = torch.argsort(losses.nan_to_num(nan=float("inf")), stable=True)
        best = [tried[i] for i in order[: self.search.beam].tolist()]
        self._take(best)
        forward = trial.trained + trial.rows * (len(tried) + len(others))
        self.get_buffer("passes").add_(torch.tensor([forward, trial.trained + trial.rows * len(others)]))

    def swaps(self, ids: Ids, gradient: Tensor) -> list[Ids]:
        """The texts with one other word that promise most, as many as are to be tried; as many for each position."""
        places = len(ids) - len(self.vocabulary.backbone.prompt_end)
        each = -(-self.search.candidates // places)
        change = self.vocabulary.first_order(ids, gradient)[:places]
        values, words = change.topk(min(WIDER * each, change.shape[1]), dim=1, largest=False)
        found: list[tuple[float, Ids]] = []
        for place in range(places):
            swapped = [
                (value, (*ids[:place], int(self.vocabulary.ids[word]), *ids[place + 1 :]))
                for value, word in zip(values[place].tolist(), words[place].tolist(), strict=True)
            ]
            found += _first(each, (pair for pair in swapped if pair[1] != ids), self.vocabulary)
        found.sort(key=lambda pair: pair[0])
        return [swapped for _, swapped in found[: self.search.candidates]]

    def _take(self, best: Sequence[Ids]) -> None:
        beam = self.get_buffer("beam")
        filled = [*best, *[best[0]] * (len(beam) - len(best))]
        beam.copy_(torch.tensor(filled))
        with torch.no_grad():
            self.prompt.copy_(self.vocabulary.vectors(best[0]))

    def notes(self) -> dict[str, Any]:
        return {"text": self.vocabulary.text(self.texts[0])}

    def spent(self) -> dict[str, Any]:
        forward, backward = self.get_buffer("passes").tolist()
        return {"forward_passes": forward, "backward_passes": backward}


def _first(count: int, pairs: Iterable[tuple[float, Ids]], vocabulary: Vocabulary) -> list[tuple[float, Ids]]:
    """The first of `pairs` that are texts."""
    found: list[tuple[float, Ids]] = []
    for pair in pairs:
        if len(found) == count:
            break
        if vocabulary.is_text(pair[1]):
            found.append(pair)
    return found


@dataclass(frozen=True)
class TextSearch(Words):
    """A text of `length` tokens, found by its effect on the loss."""

    name: ClassVar[str] = "text-search"
    summary: ClassVar[str] = "a text that is searched for (HotFlip 2018, AutoPrompt 2020)"
    trains: ClassVar[bool] = True
    searches: ClassVar[bool] = True

    length: int = 5
    candidates: int = 32
    """Prompts that are tried exactly for each of the beam at a step."""
    beam: int = 2
    """Prompts that are kept and swapped words in at a step."""
    rows: int = 32
    """Training rows that prompts are tried on, others at each step."""

    def __post_init__(self) -> None:
        for setting, value in self.settings().items():
            if value < 1:
                raise UserError(f"text-search: {setting} {value}: it must be at least 1")

    @property
    def reserved(self) -> int:
        return self.length

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        kind, _, words = start.partition(":")
        self._check_length(backbone)
        vocabulary = Vocabulary(backbone, task)
        if kind in ("random", "vocabulary"):
            return SearchMember(self, vocabulary, vocabulary.drawn(self.length, seed))
        if kind != "text":
            raise UserError(
                f"text-search starts at 'random' or 'text:WORDS', not {start!r}: label words are no candidates"
            )
        check_known(backbone, words)
        ids = backbone.prompt_ids(words)
        if len(ids) != self.length:
            raise UserError(
                f"{words!r} is {len(ids)} tokens on {backbone.name}: give text-search:length={len(ids)}"
            )
        return SearchMember(self, vocabulary, ids)

    def started(
        self,
        backbone: Backbone,
        task: Task,
        start: Start,
        *,
        seed: int,
        rows: Sequence[Example] = (),
        encoding: Encoding = USUAL,
    ) -> Member:
        if isinstance(start, Mixture):
            start = start.summed()
        if not isinstance(start, From):
            return self.member(backbone, task, start=str(start), seed=seed)
        vectors = start.tensors.get(PROMPT_KEY)
        wanted = [self.length, backbone.width]
        if vectors is None or list(vectors.shape) != wanted:
            raise UserError(f"{start} is not {wanted}, which text-search goes on from: give --method prompt")
        vocabulary = Vocabulary(backbone, task)
        return SearchMember(self, vocabulary, vocabulary.of_vectors(vectors, str(start)))

    def outline(self, backbone: Backbone, task: Task) -> Member:
        self._check_length(backbone)
        return VectorMember(torch.empty(self.length, backbone.width, device=backbone.device))

    def _check_length(self, backbone: Backbone) -> None:
        end = len(backbone.prompt_end)
        if self.length <= end:
            raise UserError(
                f"text-search: length {self.length}: a text on {backbone.name} has {end} tokens for its end alone"
            )
