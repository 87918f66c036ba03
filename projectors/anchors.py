"""Anchors: carry a prompt by its relative place among shared words, searched for in the target's space.

Zero-shot continuous prompt transfer (PTfer; Wu et al., ICLR 2024, arXiv 2310.01691). r(v) = [cos(v, a_1) .. cos(v, a_k)]
over anchor words that both vocabularies hold whole; the target prompt is searched so that its r agrees with the
source prompt's on the entries where that is largest. The last step needs no label; the authors pick the best of the
steps on the target's validation data, which does, so both are returned and told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from projectors.architectures import Shape, same_place
from projectors.closed_form import SharedWords
from tasks.errors import UserError


@dataclass(frozen=True)
class AnchorSettings:
    """The authors' settings: the 8192 largest entries, Adam 5e-3, 2000 steps, a look at validation every 50."""

    keep: int = 8192
    steps: int = 2000
    lr: float = 5e-3
    every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.keep, self.steps, self.every) < 1 or self.lr <= 0:
            raise UserError(f"keep, steps and every must be at least 1 and lr above 0, given {self}")


@dataclass(frozen=True)
class Search:
    """What a search found: the last step's prompts, and those picked on validation data if there was a look."""

    last: Tensor
    """[n, L_t, d_t]"""
    losses: tuple[float, ...]
    """Last loss of each prompt."""
    picked: Tensor | None = None
    picked_steps: tuple[int, ...] = ()


def relative(vectors: Tensor, anchors: Tensor) -> Tensor:
    """[.., d] and anchors [k, d] -> cosines [.., k]."""
    return functional.normalize(vectors, dim=-1) @ functional.normalize(anchors, dim=-1).T


def largest(values: Tensor, keep: int) -> Tensor:
    """A mask [.., k] of the `keep` largest entries of each row."""
    keep = min(keep, values.shape[-1])
    return torch.zeros_like(values).scatter(-1, values.topk(keep, dim=-1).indices, 1.0)


def regularise(vectors: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Give each whole prompt [.., L, d] the scalar mean and standard deviation of the target's embedding table."""
    own_mean = vectors.mean((-2, -1), keepdim=True)
    own_deviation = vectors.std((-2, -1), keepdim=True).clamp_min(1e-12)
    return (vectors - own_mean) / own_deviation * deviation + mean


class AnchorSearch(nn.Module):
    """The projector: keeps the anchors' embeddings of both models and searches when it is applied."""

    source_words: Tensor
    target_words: Tensor
    target_mean: Tensor
    target_deviation: Tensor

    def __init__(self, shape: Shape, words: int, settings: AnchorSettings) -> None:
        super().__init__()
        self.shape, self.settings = shape, settings
        self.register_buffer("source_words", torch.zeros(words, shape.source_width))
        self.register_buffer("target_words", torch.zeros(words, shape.target_width))
        self.register_buffer("target_mean", torch.zeros(()))
        self.register_buffer("target_deviation", torch.ones(()))

    def forward(self, source: Tensor) -> Tensor:
        found = self.search(source.reshape(-1, *source.shape[-2:])).last
        return found.reshape(*source.shape[:-2], *found.shape[-2:])

    def search(self, source: Tensor, watch: Callable[[Tensor], Sequence[float]] | None = None) -> Search:
        """Search for the prompts whose place among the target's anchors is that of `source` [n, L_s, d_s].

        `watch` scores the candidates [n, L_t, d_t] on validation data, every `every` steps; only `picked` depends on
        it. The n searches do not see each other: Adam steps each number by its own gradient.
        """
        with torch.no_grad():
            wanted = relative(same_place(source, self.shape.target_length), self.source_words)
            mask = largest(wanted, self.settings.keep)
        free = self._start(len(source))
        optimiser = torch.optim.Adam([free], lr=self.settings.lr)
        picks = Picks(len(source))
        loss = torch.zeros(len(source))
        with torch.enable_grad():
            for step in range(1, self.settings.steps + 1):
                candidate = regularise(free, self.target_mean, self.target_deviation)
                found = relative(candidate, self.target_words)
                loss = (1 - functional.cosine_similarity(mask * found, mask * wanted, dim=-1)).mean(-1)
                optimiser.zero_grad()
                loss.sum().backward()
                optimiser.step()
                if watch is not None and step % self.settings.every == 0:
                    seen = regularise(free.detach(), self.target_mean, self.target_deviation)
                    picks.see(step, seen, watch(seen))
        last = regularise(free.detach(), self.target_mean, self.target_deviation)
        return Search(last, tuple(loss.tolist()), picks.vectors, tuple(picks.steps))

    def _start(self, count: int) -> Tensor:
        """[count, L_t, d_t] Xavier-normal, the same start for every prompt."""
        free = torch.empty(self.shape.target_length, self.shape.target_width)
        nn.init.xavier_normal_(free, generator=torch.Generator().manual_seed(self.settings.seed))
        return free.repeat(count, 1, 1).requires_grad_(True)


class Picks:
    """The best candidate of each prompt so far, by what `watch` said of it."""

    def __init__(self, count: int) -> None:
        self.best = [float("-inf")] * count
        self.steps: list[int] = [0] * count
        self.vectors: Tensor | None = None

    def see(self, step: int, candidates: Tensor, scores: Sequence[float]) -> None:
        """Keep each candidate [n, L_t, d_t] that scores above the best before it."""
        if self.vectors is None:
            self.vectors = candidates.clone()
        for index, score in enumerate(scores):
            if score > self.best[index]:
                self.best[index], self.steps[index] = score, step
                self.vectors[index] = candidates[index]


def anchors(
    shared: SharedWords, shape: Shape, target_table: Tensor, settings: AnchorSettings | None = None
) -> AnchorSearch:
    """The module of `anchors` over these shared words; `target_table` [vocabulary, d_t] gives mean and deviation."""
    module = AnchorSearch(shape, len(shared.words), settings or AnchorSettings())
    module.source_words.copy_(shared.source)
    module.target_words.copy_(shared.target)
    module.target_mean.copy_(target_table.float().mean())
    module.target_deviation.copy_(target_table.float().std())
    return module
