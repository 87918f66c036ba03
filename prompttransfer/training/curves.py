"""What a learning curve says: when a run converged, and when it first reached a score."""

from __future__ import annotations

from collections.abc import Sequence

from prompttransfer.adaptations.adaptation import CurvePoint

CONVERGED = 0.99
"""The share of its best validation score at which a run counts as converged."""


def convergence_step(curve: Sequence[CurvePoint], share: float = CONVERGED) -> int:
    """First evaluated step whose validation score is at least `share` of the run's best.

    The paper's criterion was not published; this one is ours and is named wherever a speed-up is shown.
    """
    best = max(point.score for point in curve)
    return next(point.step for point in curve if point.score >= share * best)


def first_step_at(curve: Sequence[CurvePoint], score: float) -> int | None:
    """First evaluated step with at least `score` on the validation split; None if it is never reached."""
    return next((point.step for point in curve if point.score >= score), None)
