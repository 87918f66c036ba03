"""Particles of a posterior over prompts, by Stein variational gradient descent (Liu & Wang 2016, algorithm 1, arXiv 1608.04471).

BMTPT (Lee et al. 2023, arXiv 2402.08594) learns its sources in this way, so that tasks that work against each other have their say:
the posterior is over one prompt given the rows of all source tasks (a mixture of them here), and each seed is a particle of it.
With L the mean loss of a row, N rows, a flat prior and n particles, log p(x) = -N L(x) and a particle follows, in place of the gradient of L,

    g(x_i) = 1/n sum_j k(x_j, x_i) [grad L(x_j) + 2 / (h N) (x_j - x_i)],        k(x, y) = exp(-|x - y|^2 / h),   h = med^2 / log n,

which is -phi / N of the paper: the first part goes where prompts are good, the second keeps particles apart. med is the median distance
of two of them. One particle alone follows its gradient. What is kept of each is a plain prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prompttransfer.adaptations.method import Member
from prompttransfer.adaptations.methods.prompt import PromptTuning, VectorMember
from prompttransfer.adaptations.starts import Start
from tasks.errors import UserError
from tasks.task import Example

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task


def stein(points: Tensor, gradients: Tensor, rows: float) -> Tensor:
    """What the particles `points` [n, numbers] follow in place of the `gradients` of their losses [n, numbers]; `rows` is N."""
    count = len(points)
    if count < 2:
        return gradients
    apart = torch.cdist(points, points).square()
    pairs = apart[tuple(torch.triu_indices(count, count, offset=1))]
    width = float(pairs.sqrt().median() ** 2) / math.log(count)
    if not width > 0:  # all are in one place, where each sees all and none is pushed
        return gradients.mean(dim=0).expand_as(gradients)
    near = (-apart / width).exp()
    repelled = near @ points - near.sum(dim=1, keepdim=True) * points
    return (near @ gradients + 2 / (width * rows) * repelled) / count


class Particle(VectorMember):
    """A prompt that moves with the others of its task in a bank."""

    def __init__(self, vectors: Tensor, task: str, rows: int):
        super().__init__(vectors)
        self.task, self.rows = task, rows
        self.cloud: Cloud | None = None

    def before_step(self, step: int, steps: int) -> None:
        """Take the direction of this particle in place of its gradient."""
        if self.cloud is not None:
            self.cloud.look(step)
            if (direction := self.cloud.directions.get(id(self))) is not None:
                self.prompt.grad = direction


class Cloud:
    """Particles of one posterior, and where each goes in a step."""

    def __init__(self, particles: Sequence[Particle]):
        self.particles = tuple(particles)
        self.step: int | None = None
        self.directions: dict[int, Tensor] = {}

    def look(self, step: int) -> None:
        """Find the directions of a step, once: they are of the gradients as they were before any was replaced.

        A particle that has left the finite numbers touches no other; one that has ended stays, and is kept clear of.
        """
        if step == self.step:
            return
        self.step, self.directions = step, {}
        found = [
            (each, point, gradient)
            for each, point, gradient in map(_numbers, self.particles)
            if gradient is not None and bool(torch.isfinite(torch.cat([point, gradient])).all())
        ]
        if not found:
            return
        points = torch.stack([point for _, point, _ in found])
        gradients = torch.stack([gradient for _, _, gradient in found])
        for (each, *_), direction in zip(found, stein(points, gradients, found[0][0].rows), strict=True):
            self.directions[id(each)] = direction.view_as(each.prompt).contiguous()


def _numbers(particle: Particle) -> tuple[Particle, Tensor, Tensor | None]:
    """A particle with its vectors and their gradient, [numbers] each."""
    gradient = particle.prompt.grad
    return particle, particle.prompt.detach().flatten(), None if gradient is None else gradient.flatten()


@dataclass(frozen=True)
class Particles(PromptTuning):
    """`length` vectors; those of one task, or one mixture of tasks, in a bank are particles of one posterior."""

    name: ClassVar[str] = "particles"
    summary: ClassVar[str] = (
        "prompts of several seeds as samples of a posterior, for bmtpt (Liu & Wang 2016; Lee et al. 2023)"
    )

    rows: int = 1000
    """N, the rows that speak for the posterior: the more, the less particles are kept apart."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rows < 1:
            raise UserError(f"particles: rows {self.rows}: it must be at least 1")

    @property
    def shares(self) -> bool:
        return True

    @property
    def shares_among_tasks(self) -> bool:
        return False

    def settled(
        self, member: Member, backbone: Backbone, task: Task, start: Start, rows: Sequence[Example]
    ) -> Member:
        assert isinstance(member, VectorMember)
        return Particle(member.vectors(), task.name, self.rows)

    def join(self, members: Sequence[Member], rates: Sequence[float]) -> None:
        by_task: dict[str, list[Particle]] = {}
        for member in members:
            if isinstance(member, Particle):
                by_task.setdefault(member.task, []).append(member)
        for particles in by_task.values():
            cloud = Cloud(particles)
            for each in particles:
                each.cloud = cloud
