"""Multitask prompt tuning (Wang et al. 2023, arXiv 2303.02861, eq. 1): P_k = P * (u_k v_k), elementwise.

P [length, width] is shared by the tasks that are trained together, u_k [length, rank] and v_k [rank, width] are a task's
own. They start with u_k v_k about 1, so that the start is that of a prompt; peft draws them around 0, where the vectors
nearly vanish. What is kept of each task is P_k, a plain prompt, and beside it P, u_k and v_k for training on. P_k of tasks
of one P add up as their parts do, so the paper's start for a new task, P * mean(u_k v_k), is the mean of the kept prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from prompttransfer.adaptations.adaptation import PROMPT_KEY
from prompttransfer.adaptations.method import Member
from prompttransfer.adaptations.methods.made import MadeMember, MadePrompt, join_alike
from prompttransfer.adaptations.starts import From
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone

SPREAD = 0.02
"""Deviation of the parts of a task at the start, as in peft."""


class MultitaskMember(MadeMember):
    """P, shared or not, and a task's part of it."""

    def __init__(self, vectors: Tensor, rank: int, ratio: float, spread: float):
        super().__init__()
        length, width = vectors.shape
        self.ratio = ratio
        self.shared = nn.Parameter(vectors.detach().clone())
        self.rows = nn.Parameter((1 + spread * torch.randn(length, rank)) / rank)
        self.columns = nn.Parameter(1 + spread * torch.randn(rank, width))

    def vectors(self) -> Tensor:
        return self.shared * (self.rows @ self.columns)

    def rates(self) -> dict[str, float]:
        return {"rows": self.ratio, "columns": self.ratio}

    def share(self, other: MultitaskMember) -> None:
        """Take the P of `other` for its own from here on."""
        self.shared = other.shared

    def shares_with(self, other: MultitaskMember) -> bool:
        """Whether both have the same P, bit for bit."""
        return torch.equal(self.shared, other.shared)


@dataclass(frozen=True)
class Multitask(MadePrompt):
    """`length` vectors, shared by the tasks of a bank, times a product of `rank` of each task's own."""

    name: ClassVar[str] = "mpt"
    summary: ClassVar[str] = "a prompt shared by tasks times a small part of each (Wang et al. 2023)"

    rank: int = 1
    ratio: float = 1.0
    """The rate of a task's part over that of the shared prompt."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise UserError(f"mpt: rank {self.rank}: it must be at least 1")
        if not 0 < self.ratio < 1e6:
            raise UserError(f"mpt: ratio {self.ratio:g}: it must be a number above 0, such as 1")

    @property
    def shares(self) -> bool:
        return True

    def made(self, vectors: Tensor, backbone: Backbone) -> MultitaskMember:
        return MultitaskMember(vectors, self.rank, self.ratio, SPREAD)

    def join(self, members: Sequence[Member], rates: Sequence[float]) -> None:
        join_alike([member for member in members if isinstance(member, MultitaskMember)], rates)

    def continued(self, start: From, backbone: Backbone) -> Member:
        """From an adaptation of its own kind with its part; from any other prompt, or a mixture, as P with parts of 1."""
        if start.encoder or start.tensors.keys() != {PROMPT_KEY}:
            return super().continued(start, backbone)
        if self.rank > 1:
            raise UserError(
                f"mpt: rank {self.rank} with {start}: parts that are all 1 would stay alike; use rank=1 from plain vectors"
            )
        self.check_start(start, backbone)
        return MultitaskMember(start.tensors[PROMPT_KEY], 1, self.ratio, 0.0)
