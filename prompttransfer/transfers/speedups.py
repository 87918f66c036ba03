"""Speed-ups of training from a source over training from scratch, with what is and what is not known of them.

One idea: a run is looked at every few steps, so that the step at which it reached a score is known to lie between two
looks, or to be 0, or beyond the last look. A ratio of two such steps is a range, never a number, and a run that never
got there is a range too (below some value). Medians of ranges are ranges that hold the median of what is not seen,
whatever that is, so nothing has to be left out and no distribution is assumed (docs/transfer-statistics.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Range:
    """A ratio of steps that is known to lie above `low` and at or below `high` (infinity where nothing bounds it)."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high:
            raise ValueError(f"a range of ratios has 0 <= low <= high, given {self.low} and {self.high}")

    def __str__(self) -> str:
        if self.high == math.inf and self.low == 0:
            return "not known"
        if self.high == math.inf:
            return f"above {self.low:.1f}x"
        return f"below {self.high:.1f}x" if self.low == 0 else f"{self.low:.1f}x to {self.high:.1f}x"


def speed_up(scratch: int, steps: int | None, *, every: int, last: int) -> Range | None:
    """The range of the ratio of the steps from scratch to those from a source, to the same or each to its own score.

    scratch, steps: the first looked-at steps that had the score, `every` steps after the look before. `steps` None
    means that the score was not there at the last look, step `last`. None where scratch was there at step 0: it
    learned nothing that could be sped up.
    """
    if scratch == 0:
        return None
    if steps is None:
        return Range(0.0, scratch / last if last else math.inf)
    if steps == 0:  # no step was needed, so the ratio has no upper end; the lower one counts a look
        return Range(scratch / every, math.inf)
    before = look_before(steps, every)
    return Range(look_before(scratch, every) / steps, scratch / before if before else math.inf)


def look_before(step: int, every: int) -> int:
    """The step of the look before the one at `step`; looks are at multiples of `every`, and at the last step."""
    return (step - 1) // every * every


def median_range(ranges: Sequence[Range]) -> Range | None:
    """Where the median lies: between the median of the low ends and that of the high ends; None of no ranges."""
    if not ranges:
        return None
    return Range(median(r.low for r in ranges), median(r.high for r in ranges))


def median_interval(ranges: Sequence[Range], level: float = 0.95) -> Range | None:
    """Interval of the median of what the ranges are a sample of; None where so few have none (fewer than 6 at 95 %).

    From the k-th smallest low end to the k-th largest high end, k the largest number whose binomial tail is at most
    (1 - level) / 2: the sign test turned round, which holds the median that often from any distribution.
    """
    count, tail, rank = len(ranges), 0.0, 0
    for k in range(count):
        tail += math.comb(count, k) / 2**count
        if tail > (1 - level) / 2:
            break
        rank = k + 1
    if rank == 0:
        return None
    lows, highs = sorted(r.low for r in ranges), sorted(r.high for r in ranges)
    return Range(lows[rank - 1], highs[-rank])


def sign_test(ranges: Sequence[Range], value: float = 1.0) -> float | None:
    """Two-sided p that the median is `value`; None of no ranges.

    A range that holds the value counts against either side, so that p is at most .05 only if `median_interval` leaves
    the value out.
    """
    if not ranges:
        return None
    count = len(ranges)
    most = max(sum(r.low >= value for r in ranges), sum(r.high < value for r in ranges))
    return min(1.0, 2 * sum(math.comb(count, k) for k in range(most, count + 1)) / 2**count)
