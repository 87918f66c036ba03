"""LoRA-FA (Zhang et al. 2023, arXiv 2308.03303): LoRA whose A stays as it was drawn, so that only A x has to be kept.

The gradient of the whole update then lies in the rows of A. Version 2 of the paper steps along its best approximation
there (theorem on the corrected gradient): g_B = G_B (A A^T)^-1 / s^2, the minimiser of |s g A - G|_F over g, where G is the
gradient of the update and G_B = s G A^T that of B. Version 1 takes G_B as it is.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from prompttransfer.adaptations.methods.low_rank import Lora, LowRankMember
from prompttransfer.adaptations.methods.maps import MapMember, Table


class FrozenAMember(LowRankMember):
    """A as a buffer, B trained, with the scale that corrects its gradient, or none."""

    frozen: ClassVar[Collection[str]] = ("into",)

    def __init__(self, into: Table, out: Table, corrected_for: float | None):
        super().__init__(into, out)
        self.corrected_for = corrected_for
        self._inverses: list[Tensor] | None = None

    def before_step(self, step: int, steps: int) -> None:
        if self.corrected_for is None:
            return
        for out, inverse in zip(self.stacks("out"), self._corrections(), strict=True):
            if out.grad is not None:
                out.grad = out.grad @ inverse

    def _corrections(self) -> list[Tensor]:
        """(A A^T)^-1 / s^2 of every map, which is the same in all steps; worked out in float64."""
        if self._inverses is None:
            assert self.corrected_for is not None
            wide = [into.double() for into in self.stacks("into")]
            inverses = [torch.linalg.inv(a @ a.mT) / self.corrected_for**2 for a in wide]
            self._inverses = [inverse.float() for inverse in inverses]
        return self._inverses


@dataclass(frozen=True)
class LoraFA(Lora):
    """LoRA with A frozen; `corrected` for the gradient of version 2."""

    name: ClassVar[str] = "lora-fa"
    summary: ClassVar[str] = "LoRA whose A stays as drawn, which keeps less memory (Zhang et al. 2023)"

    corrected: bool = True

    def made(self, into: Table, out: Table) -> MapMember:
        return FrozenAMember(into, out, self.scale if self.corrected else None)
