"""A task's rows in the tokens of one backbone, made once for all adaptations that share an encoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding, Layout
from prompttransfer.backbones.rows import Row
from tasks.task import Example, Task


@dataclass(frozen=True, eq=False)
class EncodedTask:
    """The rows of a task in the tokens of one backbone, made once and used by every prompt."""

    task: Task
    examples: tuple[Example, ...]
    rows: tuple[Row, ...]
    reserved: int
    """Positions in front of the text."""
    encoding: Encoding
    layout: Layout

    @property
    def cut(self) -> float:
        """Share of rows whose text was cut."""
        return sum(row.cut for row in self.rows) / len(self.rows)


def encode_task(
    backbone: Backbone,
    task: Task,
    examples: Sequence[Example],
    encoding: Encoding = USUAL,
    *,
    reserved: int,
) -> EncodedTask:
    """Tokenise the rows of a task for adaptations that take `reserved` positions in front of the text."""
    layout = encoding.place(backbone.family)
    rows = backbone.encode(task, examples, encoding, reserved=reserved)
    return EncodedTask(task, tuple(examples), tuple(rows), reserved, encoding, layout)
