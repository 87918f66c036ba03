"""Residual prompt tuning (Razdaibiedina et al. 2023, arXiv 2305.03937, eq. 4): P' = P + MLP(P).

MLP = Linear, ReLU, Linear, LayerNorm, as in the authors' code; one for all vectors, or one each. It shapes the way of the
vectors while they train and is folded into them when they are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prompttransfer.adaptations.adaptation import PROMPT_KEY
from prompttransfer.adaptations.method import Member
from prompttransfer.adaptations.methods.made import MadeMember, MadePrompt
from prompttransfer.adaptations.starts import From
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone


class ResidualMember(MadeMember):
    """P [length, width] and the MLP: as many as there are groups of vectors, one or `length`."""

    def __init__(self, vectors: Tensor, *, hidden: int, groups: int, norm: bool, ratio: float):
        super().__init__()
        width = int(vectors.shape[1])
        self.ratio = ratio
        self.prompt = nn.Parameter(vectors.detach().clone())
        self.down, self.down_bias = _linear(groups, width, hidden)
        self.up, self.up_bias = _linear(groups, hidden, width)
        self.scale = nn.Parameter(torch.ones(groups, 1, width)) if norm else None
        self.shift = nn.Parameter(torch.zeros(groups, 1, width)) if norm else None

    def vectors(self) -> Tensor:
        width = self.prompt.shape[1]
        states = self.prompt.view(len(self.down), -1, width)
        states = torch.baddbmm(self.down_bias, states, self.down).relu()
        states = torch.baddbmm(self.up_bias, states, self.up)
        if self.scale is not None and self.shift is not None:
            states = F.layer_norm(states, (width,)) * self.scale + self.shift
        return self.prompt + states.view_as(self.prompt)

    def rates(self) -> dict[str, float]:
        return {name: self.ratio for name, _ in self.named_parameters() if name != "prompt"}

    @torch.no_grad()
    def silence(self) -> None:
        """Let the MLP add nothing, until it has learned to."""
        for last in (self.up, self.up_bias) if self.scale is None else (self.scale,):
            last.zero_()


def _linear(groups: int, inside: int, out: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Weights [groups, in, out] and biases [groups, 1, out], drawn as those of nn.Linear."""
    bound = inside**-0.5
    weight = torch.empty(groups, inside, out).uniform_(-bound, bound)
    return nn.Parameter(weight), nn.Parameter(torch.empty(groups, 1, out).uniform_(-bound, bound))


@dataclass(frozen=True)
class Residual(MadePrompt):
    """`length` vectors and what an MLP adds to them; folded into a plain prompt when they are kept."""

    name: ClassVar[str] = "residual"
    summary: ClassVar[str] = "vectors plus an MLP of them while they train (Razdaibiedina et al. 2023)"

    hidden: int = 0
    """Width of the MLP's inner layer; 0 takes the backbone's width."""
    separate: bool = False
    """Whether every vector has an MLP of its own."""
    norm: bool = True
    """Whether the MLP ends with a layer norm."""
    ratio: float = 0.1
    """The MLP's learning rate over that of the vectors."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden < 0:
            raise UserError(
                f"residual: hidden {self.hidden}: it must be at least 1, or 0 for the backbone's width"
            )
        if not 0 < self.ratio < 1e6:
            raise UserError(
                f"residual: ratio {self.ratio:g}: the MLP's rate over that of the vectors must be above 0, such as 0.1"
            )

    def made(self, vectors: Tensor, backbone: Backbone) -> ResidualMember:
        return ResidualMember(
            vectors,
            hidden=self.hidden or backbone.width,
            groups=self.length if self.separate else 1,
            norm=self.norm,
            ratio=self.ratio,
        )

    def continued(self, start: From, backbone: Backbone) -> Member:
        """From an adaptation of its own kind with its MLP; from any other prompt with an MLP that adds nothing yet."""
        if start.encoder or start.tensors.keys() != {PROMPT_KEY}:
            return super().continued(start, backbone)
        self.check_start(start, backbone)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            member = self.made(start.tensors[PROMPT_KEY], backbone)
        member.silence()
        return member
