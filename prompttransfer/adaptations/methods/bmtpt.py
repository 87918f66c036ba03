"""BMTPT's target stage (Lee et al. 2023, arXiv 2402.08594): the posterior of the sources is the start and the prior of a target.

Sources are samples of a posterior over prompts (method `particles`; any prompts of one shape may stand for it). Training begins at their
mean m and minimises, per row, - log of the posterior of the target under a normal prior around it:

    mean loss of a row + weight / (2 s^2 N) |P - m|^2

with N the target's training rows and s^2 the variance of one number over the sources, mean over all numbers of a prompt. We have read the paper's
abstract and summaries, which say that the mean initialises and the posterior regularises; that the prior is normal with one variance is our choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from prompttransfer.adaptations.initialisers import initial_vectors
from prompttransfer.adaptations.method import Member
from prompttransfer.adaptations.methods.prompt import PromptTuning, VectorMember
from prompttransfer.adaptations.methods.sourced import (
    RANDOM,
    Sourced,
    check_not_of_a_study,
    check_sources,
    counted,
    randomly_drawn,
)
from prompttransfer.adaptations.starts import From, Source, Start
from tasks.errors import UserError
from tasks.task import Example

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task


class PriorMember(VectorMember):
    """Vectors [length, width] that are drawn to the mean of the sources."""

    mean: Tensor
    variance: Tensor

    def __init__(self, vectors: Tensor, mean: Tensor, variance: Tensor, weight: float):
        super().__init__(vectors)
        self.weight = weight
        self.rows = 1
        """Training rows of the target."""
        self.names: tuple[str, ...] = ()
        self.register_buffer("mean", mean.detach().clone())
        self.register_buffer("variance", variance.detach().clone())

    def encoder(self) -> dict[str, Tensor]:
        return {"mean": self.mean.cpu().clone(), "variance": self.variance.cpu().clone()}

    def penalty(self) -> Tensor | None:
        if not self.weight:
            return None
        apart = (self.prompt - self.mean).square().sum()
        return self.weight / (2 * self.rows) * apart / self.variance

    def notes(self) -> dict[str, Any]:
        told = {"prior_deviation": float(self.variance.sqrt())}
        return {**told, "sources": list(self.names)} if self.names else told


@dataclass(frozen=True)
class BayesPrompt(Sourced, PromptTuning):
    """`length` vectors that begin at the mean of source prompts and are held near it."""

    name: ClassVar[str] = "bmtpt"
    summary: ClassVar[str] = "start and prior from the posterior of source prompts (Lee et al. 2023)"

    sources: str = ""
    """A folder of prompts, `random:COUNT` for prompts that know nothing, the control, or `library:COUNT` for those that a
    study's library gives to `among`."""
    deviation: float = 0.0
    """s; 0 takes that of the sources."""
    weight: float = 1.0
    """Of the prior; 0 leaves the start alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("deviation", "weight"):
            if not 0 <= getattr(self, name) < 1e9:
                raise UserError(f"bmtpt: {name} {getattr(self, name):g}: it must be a number of 0 or more")
        check_sources(self.name, self.sources)

    def settled(
        self, member: Member, backbone: Backbone, task: Task, start: Start, rows: Sequence[Example]
    ) -> Member:
        assert isinstance(member, VectorMember)
        if not isinstance(member, PriorMember):  # it goes on from a plain prompt
            member = self._around(self._vectors(backbone, task, seed=0), member.vectors())
        member.rows = max(1, len(rows))
        return member

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        """At the mean of the sources where the start is `random`, else at the start; the prior is around the mean in any case."""
        sources = self._vectors(backbone, task, seed=seed)
        begin = (
            None if start == RANDOM else initial_vectors(start, backbone, task, length=self.length, seed=seed)
        )
        return self._around(sources, begin)

    def among(
        self, library: Mapping[str, Source], backbone: Backbone, task: Task, *, start: str, seed: int
    ) -> PriorMember:
        return self._around({name: source.vectors for name, source in library.items()}, None)

    def continued(self, start: From, backbone: Backbone) -> Member:
        """From an adaptation of its own kind with its prior; from any other prompt the vectors, whose prior is yet to come."""
        made = super().continued(start, backbone)
        if not start.encoder:
            return made
        assert isinstance(made, VectorMember)
        if (
            start.encoder.keys() != {"mean", "variance"}
            or start.encoder["mean"].shape != made.vectors().shape
        ):
            raise UserError(
                f"bmtpt goes on from an adaptation of bmtpt of its length, or a plain prompt, which {start} is not"
            )
        return PriorMember(made.vectors(), start.encoder["mean"], start.encoder["variance"], self.weight)

    def outline(self, backbone: Backbone, task: Task) -> Member:
        vectors = torch.empty(self.length, backbone.width, device=backbone.device)
        return PriorMember(vectors, vectors, torch.ones((), device=backbone.device), self.weight)

    def _vectors(self, backbone: Backbone, task: Task, *, seed: int) -> dict[str, Tensor]:
        """Name -> vectors of the sources."""
        check_not_of_a_study(self.name, self.sources)
        found = {each.name: each.vectors for each in self.library(backbone, task)}
        return found or randomly_drawn(counted(self.sources), backbone, task, self.length, seed)

    def _around(self, sources: Mapping[str, Tensor], begin: Tensor | None) -> PriorMember:
        every = torch.stack([*sources.values()])
        if len(every) < 2 and not self.deviation:
            raise UserError(
                f"bmtpt: one source in {self.sources} has no variance: give several, or deviation=0.1"
            )
        mean = every.mean(dim=0)
        variance = torch.tensor(self.deviation**2) if self.deviation else every.var(dim=0).mean()
        if not float(variance) > 0 or not math.isfinite(float(variance)):
            raise UserError(
                f"bmtpt: the sources in {self.sources} are all the same: give others, or deviation=0.1"
            )
        made = PriorMember(mean if begin is None else begin, mean, variance, self.weight)
        made.names = tuple(sources)
        return made
