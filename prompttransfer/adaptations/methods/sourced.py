"""Source prompts of methods that mix them: what stands behind `sources=`.

A folder of prompts, `random:COUNT` for prompts that know nothing, or `library:COUNT` for those of a study's library. Prompts of
the target's own task in a folder are left out: they would say how well the task can be learned, not what others know of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.initialisers import initial_vectors
from prompttransfer.adaptations.method import Member, Method
from prompttransfer.adaptations.starts import From, Start
from prompttransfer.backbones.layouts import USUAL, Encoding
from tasks.errors import UserError
from tasks.task import Example

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task

RANDOM, LIBRARY = "random", "library"
COUNTED = (RANDOM, LIBRARY)
"""Sources that lie in no folder, of which the setting says how many."""


def check_sources(method: str, sources: str) -> None:
    """Raise UserError for a text that is neither empty, a folder's name, nor a number of random ones."""
    kind, _, count = sources.partition(":")
    wrong = not (count.isdecimal() and 0 < int(count) < 1000)
    if wrong and (kind == RANDOM or sources.startswith(f"{LIBRARY}:")):
        raise UserError(f"{method}: sources {sources!r}: say how many, as in sources={kind}:3")


def check_given(method: str, sources: str) -> None:
    """Raise UserError where there are no sources."""
    if not sources:
        raise UserError(
            f"{method} needs source prompts: write {method}:sources=DIR with a folder of prompts of this backbone, or "
            "sources=random:3 for the control"
        )


def counted(sources: str) -> int:
    """How many there are that lie in no folder; 0 for a folder."""
    kind, sign, count = sources.partition(":")
    return int(count) if sign and kind in COUNTED else 0


def check_not_of_a_study(method: str, sources: str) -> None:
    """Raise UserError for sources that only a study can hand over."""
    if sources.startswith(f"{LIBRARY}:"):
        raise UserError(
            f"{method}: sources=library:COUNT is of a study's library: write sources=DIR with a folder of prompts"
        )


def read_sources(
    method: str, sources: str, backbone: Backbone, length: int, layout: str | None = None
) -> list[Adaptation]:
    """The prompts of the folder `sources`, each under a name of its own.

    Raises UserError for those of another backbone or layout, and of another `length` than the target's own.
    """
    from prompttransfer.adaptations.artifacts import find_adaptations, load_adaptation
    from prompttransfer.adaptations.running import check_on, stacked

    found = [load_adaptation(folder) for folder in find_adaptations(Path(sources))]
    for each in found:
        check_on(
            each,
            backbone,
            layout=layout or each.layout,
            other_backbone=backbone.takes_any,
        )
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        raise UserError(f"{method}: two of the sources in {sources} have one name: rename one")
    there = stacked(found, "mixed").shape[1]
    if there != length:
        raise UserError(
            f"{method} mixes prompts of one length: the sources in {sources} have {there} vectors, the target's own "
            f"{length}: use --length {there}"
        )
    return found


def randomly_drawn(count: int, backbone: Backbone, task: Task, length: int, seed: int) -> dict[str, Tensor]:
    """Name -> vectors [length, width] of `count` random prompts, which know nothing."""
    return {
        f"random {place}": initial_vectors(
            RANDOM, backbone, task, length=length, seed=seed + 1_000_003 * place
        )
        for place in range(1, count + 1)
    }


class Sourced(Method):
    """A method with the settings `sources` and `length`, whose member is made with sources of other tasks."""

    sources: str
    length: int

    def check_complete(self) -> None:
        check_given(self.name, self.sources)

    def brings_sources(self, start: Start) -> bool:
        """Whether what training goes on from holds its sources, so that none are read."""
        return isinstance(start, From) and bool(start.encoder)

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
        if not self.brings_sources(start):
            self.library(backbone, task, encoding.layout)
        return super().started(backbone, task, start, seed=seed, rows=rows, encoding=encoding)

    def library(self, backbone: Backbone, task: Task, layout: str | None = None) -> list[Adaptation]:
        """The sources of other tasks than `task`; none where they lie in no folder.

        Raises UserError for those of another backbone, shape or layout, or where all are of that task.
        """
        found = self._read(backbone, layout)
        others = [each for each in found if not each.knows(task.name)]
        if found and not others:
            raise UserError(
                f"{self.name}: every source in {self.sources} is of {task.name} itself: give prompts of other tasks"
            )
        return others

    def left_out(self, backbone: Backbone, tasks: Sequence[str]) -> list[str]:
        """The names of sources that are of one of `tasks` itself."""
        return [each.name for each in self._read(backbone) if any(map(each.knows, tasks))]

    def remarks(self, backbone: Backbone, tasks: Sequence[str] = ()) -> list[str]:
        own = self.left_out(backbone, tasks)
        return [f"left out of the sources where the task is their own: {', '.join(own)}"] if own else []

    def _read(self, backbone: Backbone, layout: str | None = None) -> list[Adaptation]:
        self.check_complete()
        if counted(self.sources):
            return []
        return read_sources(self.name, self.sources, backbone, self.length, layout)
