"""Ultra-low-dimensional prompt tuning (Wu et al. 2026, arXiv 2502.04501, eq. 4): e_i = diag(s) P^T z_i + b.

P [rank, width] is frozen, N(0, 1), and made of a seed whenever it is needed; z [length, rank], s and b [width] are
trained. So a prompt is kept in length x rank + 2 x width numbers and the seed. The vectors are folded by products and sums
of single float32 numbers in a fixed order, which every machine rounds alike: what is made again has the same digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from prompttransfer.adaptations.adaptation import PROMPT_KEY
from prompttransfer.adaptations.method import Member, Stored
from prompttransfer.adaptations.methods.made import MadeMember, MadePrompt
from prompttransfer.adaptations.starts import From
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task

PARTS = ("latent", "scale", "shift")
"""z, s and b."""


@lru_cache(maxsize=8)
def frozen_matrix(seed: int, rank: int, width: int) -> Tensor:
    """P [rank, width] float32. numpy keeps the numbers of RandomState the same in all its versions (NEP 19)."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal((rank, width)).astype(np.float32))


def folded(latent: Tensor, scale: Tensor, shift: Tensor, basis: Tensor) -> Tensor:
    """The vectors [length, width], the same bits on every machine."""
    total = torch.zeros(len(latent), basis.shape[1])
    for column, row in zip(latent.T, basis, strict=True):
        total = total + column[:, None] * row
    return total * scale + shift


class LowDimensionalMember(MadeMember):
    """z, s and b, and as buffers what they were at the start."""

    latent: nn.Parameter
    scale: nn.Parameter
    shift: nn.Parameter
    basis: Tensor

    def __init__(self, latent: Tensor, basis: Tensor):
        super().__init__()
        scale, shift = torch.ones_like(latent[0, :1]).repeat(basis.shape[1]), latent.new_zeros(basis.shape[1])
        for name, value in zip(PARTS, (latent, scale, shift), strict=True):
            setattr(self, name, nn.Parameter(value.clone()))
            self.register_buffer(f"first_{name}", value.clone())
        self.register_buffer("basis", basis.to(latent.device), persistent=False)

    def vectors(self) -> Tensor:
        return (self.latent @ self.basis) * self.scale + self.shift

    def tensors(self) -> dict[str, Tensor]:
        latent, scale, shift, basis = (getattr(self, name).detach().cpu() for name in (*PARTS, "basis"))
        return {PROMPT_KEY: folded(latent, scale, shift, basis)}

    @torch.no_grad()
    def begin(self) -> None:
        """Take what there is for the start."""
        for name in PARTS:
            getattr(self, f"first_{name}").copy_(getattr(self, name))


@dataclass(frozen=True)
class LowDimensional(MadePrompt):
    """`length` vectors of `rank` numbers each, blown up by a frozen random matrix; kept as these numbers."""

    name: ClassVar[str] = "ulpt"
    summary: ClassVar[str] = "vectors of few numbers, blown up by a frozen matrix (Wu et al. 2026)"

    rank: int = 64
    basis: int = 0
    """The seed of the frozen matrix; prompts of one have numbers that can be compared."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise UserError(f"ulpt: rank {self.rank}: it must be at least 1")
        if not 0 <= self.basis < 2**32:
            raise UserError(f"ulpt: basis {self.basis}: the matrix's seed is from 0 to 2^32 - 1")

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        """z is drawn so that the vectors have the deviation of those of a prompt's random start."""
        if start != "random":
            raise UserError(
                f"start {start!r}: the vectors of ulpt cannot be chosen, only their {self.rank} numbers; start at random, "
                f"or from an adaptation of ulpt"
            )
        return super().member(backbone, task, start=start, seed=seed)

    def made(self, vectors: Tensor, backbone: Backbone) -> LowDimensionalMember:
        basis = frozen_matrix(self.basis, self.rank, backbone.width)
        deviation = vectors.std() / self.rank**0.5
        return LowDimensionalMember(torch.randn(self.length, self.rank).to(vectors) * deviation, basis)

    def continued(self, start: From, backbone: Backbone) -> Member:
        member = super().continued(start, backbone)
        assert isinstance(member, LowDimensionalMember)
        member.begin()
        return member

    def stored(self, encoder: Mapping[str, Tensor]) -> Stored | None:
        if not encoder:
            return None
        return Stored(
            {name: encoder[name] for name in PARTS}, {name: encoder[f"first_{name}"] for name in PARTS}
        )

    def read(self, stored: Stored) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        first = stored.tensors if stored.initial is None else stored.initial
        try:
            made = [
                folded(part["latent"], part["scale"], part["shift"], self._basis(part))
                for part in (stored.tensors, first)
            ]
        except (KeyError, RuntimeError, ValueError, IndexError):
            raise UserError(f"ulpt holds {', '.join(PARTS)} of rank {self.rank}, not what is there") from None
        encoder = {**stored.tensors, **{f"first_{name}": first[name] for name in PARTS}}
        return {PROMPT_KEY: made[0]}, {PROMPT_KEY: made[1]}, encoder

    def _basis(self, part: Mapping[str, Tensor]) -> Tensor:
        return frozen_matrix(self.basis, self.rank, int(part["scale"].shape[0]))
