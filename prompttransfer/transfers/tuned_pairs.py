"""A run from a source beside the run from scratch (TPT_task), and what the two say; also as CSV and JSON have it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prompttransfer.training.curves import CONVERGED
from prompttransfer.transfers.speedups import Range, speed_up

LEARNED, DID_NOT_LEARN, NOTHING_TO_LEARN = "learned", "did not learn", "scratch learned nothing"

OUTCOMES = (LEARNED, DID_NOT_LEARN, NOTHING_TO_LEARN)
"""A run from a source has learned if its best validation score is at least 99 % of that of the run from scratch."""
RECORDED = {
    "source": "source",
    "target": "target",
    "seed": "seed",
    "step0": "step0_validation",
    "tuned": "test_from_source",
    "scratch": "test_from_scratch",
    "chance": "chance",
    "tuned_steps": "steps_to_converge_from_source",
    "scratch_steps": "steps_to_converge_from_scratch",
    "reach_steps": "steps_to_scratch_score",
    "tuned_best": "best_validation_from_source",
    "scratch_best": "best_validation_from_scratch",
    "tuned_last": "last_step_from_source",
    "evaluate_every": "evaluate_every",
}
"""Field of a pair -> what it is called in CSV and JSON."""


@dataclass(frozen=True)
class TunedScores:
    """The scores of a pair: all that the first versions wrote of one."""

    source: str
    target: str
    seed: int
    step0: float
    """Validation score of the source's vectors before the first step."""
    tuned: float
    """Test score after training from the source."""
    scratch: float
    """Test score after training from the scratch start."""


@dataclass(frozen=True)
class TunedPair(TunedScores):
    """One source as initialisation for one target, and the target's run from scratch beside it."""

    chance: float
    """Test score of the majority answer."""
    tuned_steps: int
    """Steps to convergence (99 % of the run's best validation score) from the source."""
    scratch_steps: int
    reach_steps: int | None
    """Steps from the source to 99 % of the scratch run's best validation score; None if never."""
    evaluate_every: int
    tuned_best: float
    """Best validation score from the source."""
    scratch_best: float
    tuned_last: int
    """The last step at which the run from the source was evaluated."""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> TunedPair:
        """The pair that `as_dict` has written."""
        return cls(**by_fields(record))

    @property
    def outcome(self) -> str:
        """What came of the pair: one of OUTCOMES; only runs that learned have a convergence speed-up."""
        if self.scratch_steps == 0:
            return NOTHING_TO_LEARN
        return LEARNED if self.tuned_best >= CONVERGED * self.scratch_best else DID_NOT_LEARN

    @property
    def convergence(self) -> Range | None:
        """What is known of the scratch steps over the tuned steps to convergence (Su et al. 2022, section 5).

        None unless the run learned: one that is flat has its best score at step 0, and has not sped anything up.
        """
        if self.outcome != LEARNED:
            return None
        return self._range(self.tuned_steps)

    @property
    def comparable(self) -> Range | None:
        """What is known of the scratch steps over the steps from the source to the same score; None as `outcome` says.

        A run that never gets there is a range as well: it would have needed more steps than it had.
        """
        return self._range(self.reach_steps)

    def _range(self, steps: int | None) -> Range | None:
        return speed_up(self.scratch_steps, steps, every=self.evaluate_every, last=self.tuned_last)

    @property
    def convergence_speedup(self) -> float | None:
        """Scratch steps over tuned steps to convergence, as they were looked at; one number within `convergence`.

        A tuned run that has converged at step 0 counts as one evaluation interval, so the value is then a lower bound.
        """
        if self.convergence is None:
            return None
        return self.scratch_steps / max(self.tuned_steps, self.evaluate_every)

    @property
    def comparable_speedup(self) -> float | None:
        """Scratch steps over the steps from the source to the same score; None if it was never reached."""
        if self.reach_steps is None or self.comparable is None:
            return None
        return self.scratch_steps / max(self.reach_steps, self.evaluate_every)

    def as_dict(self) -> dict[str, Any]:
        """For CSV and JSON; an end of a range that is infinite is None."""
        return {
            **{called: getattr(self, name) for name, called in RECORDED.items()},
            "outcome": self.outcome,
            **_ends("convergence", self.convergence),
            **_ends("comparable", self.comparable),
            "convergence_speedup": self.convergence_speedup,
            "comparable_speedup": self.comparable_speedup,
        }


def by_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a pair in CSV or JSON under the names of its fields; what else stands there is left out."""
    return {name: record[called] for name, called in RECORDED.items() if called in record}


def _ends(name: str, found: Range | None) -> dict[str, float | None]:
    low, high = (found.low, found.high) if found else (None, None)
    return {f"{name}_low": low, f"{name}_high": None if high == math.inf else high}
