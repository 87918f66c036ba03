"""DTVG (Zhang et al. 2025, arXiv 2503.18063): task vectors of sources regrouped while a target's own is learned.

A task vector is what training added to a start, T = P - P_init (sources keep their starts). Here

    P = P_init + a_t T_t + sum over s in S' of a_s T_s,        sim(T_1, T_2) = mean row of T_1 . mean row of T_2

P_init is the target's own start, T_t begins at 0, and S' is chosen anew behind every step by two criteria, target
similarity and knowledge consistency. What we have read of the paper does not say how these decide, so we chose: sources come in
the order of sim(T_s, T_t); one whose similarity is not above 0 stays out; one that is not above 0 towards the sum of those
in the group already, which it would work against, stays out too. So S' is empty at the first step, and nothing is weighed
by hand. The a are learned, a_t from 1 and each a_s from one over the number of sources, at `ratio` times the prompt's rate. What is
kept is P, a plain prompt, and beside it the parts for training on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from prompttransfer.adaptations.adaptation import PROMPT_KEY, Adaptation
from prompttransfer.adaptations.initialisers import initial_vectors
from prompttransfer.adaptations.method import Member
from prompttransfer.adaptations.methods.made import MadeMember, taken_up
from prompttransfer.adaptations.methods.prompt import PromptTuning
from prompttransfer.adaptations.methods.sourced import (
    Sourced,
    check_not_of_a_study,
    check_sources,
    counted,
)
from prompttransfer.adaptations.starts import From, Source, Start
from tasks.errors import UserError
from tasks.task import Example

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task


def grouped(similar: Sequence[float], among: Sequence[Sequence[float]]) -> list[int]:
    """Numbers of the sources of S', in the order in which they are taken.

    `similar` is the similarity of each source to the target, `among` that of each two sources.
    """
    group: list[int] = []
    for place in sorted(range(len(similar)), key=lambda place: -similar[place]):
        consistent = not group or sum(among[place][other] for other in group) > 0
        if similar[place] > 0 and consistent:
            group.append(place)
    return group


def added_by(library: Iterable[Source]) -> Tensor:
    """What training added to each source, [sources, length, width]; all must have kept their starts."""
    return torch.stack([vectors - first for vectors, first in library if first is not None])


class GroupingMember(MadeMember):
    """P_init, T_t, T_s [sources, length, width], their coefficients, and which sources are in the group."""

    begin: Tensor
    sources: Tensor
    means: Tensor
    group: Tensor
    counted: Tensor

    def __init__(self, begin: Tensor, sources: Tensor, ratio: float, names: Sequence[str] = ()):
        super().__init__()
        self.ratio, self.names = ratio, tuple(names)
        count = len(sources)
        self.own = nn.Parameter(torch.zeros_like(begin))
        self.own_weight = nn.Parameter(begin.new_ones(1, 1))
        self.weights = nn.Parameter(begin.new_full((1, count), 1 / count))
        self.register_buffer("begin", begin.detach().clone())
        self.register_buffer("sources", sources.detach().clone())
        self.register_buffer("group", begin.new_zeros(count))
        """[sources] 1 for those in the group."""
        self.register_buffer("counted", begin.new_zeros(count + 1))
        """Steps behind which each source was in the group, and all steps."""
        means = self.sources.mean(dim=1)
        self.register_buffer("means", means, persistent=False)
        self.among = [] if means.is_meta else (means.double() @ means.double().T).tolist()

    def vectors(self) -> Tensor:
        mixed = (self.weights * self.group) @ self.sources.flatten(1)
        return self.begin + self.own_weight * self.own + mixed.view_as(self.begin)

    def rates(self) -> dict[str, float]:
        return {"own_weight": self.ratio, "weights": self.ratio}

    @torch.no_grad()
    def after_step(self, step: int, steps: int) -> None:
        """Choose the group anew."""
        similar = (self.means @ self.own.mean(dim=0)).tolist()
        chosen = grouped(similar, self.among)
        inside = [float(place in chosen) for place in range(len(similar))]
        self.group.copy_(torch.tensor(inside))
        self.counted.add_(torch.tensor([*inside, 1.0], device=self.counted.device))

    def notes(self) -> dict[str, Any]:
        """Coefficients of those in the group, and in which share of the steps each source was in it."""
        names = self.names or tuple(f"source {place}" for place in range(1, len(self.sources) + 1))
        inside, weights, counted = (
            part.detach().flatten().tolist() for part in (self.group, self.weights, self.counted)
        )
        return {
            "group": {name: weights[place] for place, name in enumerate(names) if inside[place]},
            "target_weight": self.own_weight.item(),
            "share_of_steps": {name: counted[n] / max(counted[-1], 1.0) for n, name in enumerate(names)},
        }


@dataclass(frozen=True)
class Grouping(Sourced, PromptTuning):
    """`length` vectors, made of a start, the target's task vector and those of the sources that go with it."""

    name: ClassVar[str] = "dtvg"
    summary: ClassVar[str] = "task vectors of sources regrouped at every step (Zhang et al. 2025)"

    sources: str = ""
    """A folder of prompts with their starts, `random:COUNT` for task vectors that know nothing, the control, or
    `library:COUNT` for those that a study's library gives to `among`."""
    ratio: float = 0.1
    """The rate of the coefficients over that of the prompt."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.ratio < 1e6:
            raise UserError(f"dtvg: ratio {self.ratio:g}: it must be a number above 0, such as 0.1")
        check_sources(self.name, self.sources)

    def settled(
        self, member: Member, backbone: Backbone, task: Task, start: Start, rows: Sequence[Example]
    ) -> Member:
        """From a plain prompt the member around it as P_init."""
        if isinstance(start, From) and not start.encoder:
            return self._around(start.tensors[PROMPT_KEY], backbone, task, seed=0)
        return member

    def library(self, backbone: Backbone, task: Task, layout: str | None = None) -> list[Adaptation]:
        """The sources; none where they are drawn. Raises UserError for those that do not fit or whose start is not known."""
        found = super().library(backbone, task, layout)
        lacking = next((each.name for each in found if each.initial is None), None)
        if lacking is not None:
            raise UserError(
                f"dtvg needs what training added to each source: the start of {lacking!r} in {self.sources} is not known; "
                f"train it again, or leave it out"
            )
        return found

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        vectors = initial_vectors(start, backbone, task, length=self.length, seed=seed)
        return self._around(vectors, backbone, task, seed=seed)

    def _around(self, vectors: Tensor, backbone: Backbone, task: Task, *, seed: int) -> GroupingMember:
        """A member with `vectors` as P_init; random task vectors are as large as a prompt's random start."""
        check_not_of_a_study(self.name, self.sources)
        library = self.library(backbone, task)
        if library:
            sources = added_by(Source(each.vectors, each.first_vectors) for each in library)
        else:
            shape = (counted(self.sources), *vectors.shape)
            drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
            sources = drawn * backbone.embedding_table().std().to(drawn)
        return GroupingMember(vectors, sources.to(vectors), self.ratio, [each.name for each in library])

    def outline(self, backbone: Backbone, task: Task) -> Member:
        count = len(self.library(backbone, task)) or counted(self.sources)
        with torch.device(backbone.device):
            shape = self.length, backbone.width
            return GroupingMember(torch.empty(shape), torch.empty(count, *shape), self.ratio)

    def among(
        self, library: Mapping[str, Source], backbone: Backbone, task: Task, *, start: str, seed: int
    ) -> GroupingMember:
        vectors = initial_vectors(start, backbone, task, length=self.length, seed=seed)
        return GroupingMember(vectors, added_by(library.values()).to(vectors), self.ratio, list(library))

    def continued(self, start: From, backbone: Backbone) -> Member:
        """From an adaptation of its own kind with its parts, sources too; from any other prompt its vectors, for `settled`."""
        if not start.encoder:
            return super().continued(start, backbone)
        shape = self.length, backbone.width
        count = len(start.encoder.get("sources", (0,)))
        return taken_up(
            GroupingMember(torch.zeros(shape), torch.zeros(count, *shape), self.ratio), start, self.name
        )
