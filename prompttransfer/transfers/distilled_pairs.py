"""What a target learned from a teacher came to, beside what it learned without; also as `transfer.json` has it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class DistilledPair:
    """One source and target: training from scratch, from the source, and from scratch with the second as its teacher."""

    source: str
    target: str
    seed: int
    similarity: float | None
    """Of the source and what the target's run from scratch ended as; None where it cannot be measured."""
    weight: float
    scratch: float
    """Test scores."""
    transferred: float
    distilled: float
    chance: float
    scratch_steps: int
    """Steps on the target."""
    transferred_steps: int
    distilled_steps: int
    source_steps: int | None
    """Steps that the source was trained for; None where it does not say."""

    @property
    def all_steps(self) -> tuple[int, int | None, int | None]:
        """Of scratch, transferred and distilled, those of the source and of the teacher counted."""
        if self.source_steps is None:
            return self.scratch_steps, None, None
        transferred = self.source_steps + self.transferred_steps
        return self.scratch_steps, transferred, transferred + self.distilled_steps

    def as_dict(self) -> dict[str, Any]:
        """For CSV and JSON."""
        names = ("scratch_all_steps", "transferred_all_steps", "distilled_all_steps")
        return {**asdict(self), **dict(zip(names, self.all_steps, strict=True))}
