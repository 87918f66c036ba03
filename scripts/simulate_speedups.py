"""Speed-ups where some runs do not learn, before and after, by simulation.

    python scripts/simulate_speedups.py [--repeats 1000]

A run from scratch reaches its score after 60 to 280 steps; one from a source needs that over a true ratio, with scatter,
or (a share of them) stays at chance. Runs are looked at every 25 steps and end at 300. Truth is the median ratio of the
population, in which a run that never gets there has ratio 0. `before` is what this project once printed: convergence as
the geometric mean with flat runs counted as "at least", comparable as the geometric mean of those that got there with a
percentile bootstrap. Prints Markdown (docs/transfer-statistics.md).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prompttransfer.transfers.speedups import Range, median_interval, median_range, speed_up

Floats = NDArray[np.float64]
EVERY, LAST, SCATTER = 25, 300, 0.5


@dataclass(frozen=True)
class Runs:
    """True steps [repeats, tasks] from scratch and from the source (infinite where it does not learn)."""

    scratch: Floats
    source: Floats


def draw(rng: np.random.Generator, repeats: int, tasks: int, ratio: float, flat: float) -> Runs:
    """Steps of the runs of many tasks."""
    scratch = rng.uniform(60, 280, size=(repeats, tasks))
    source = scratch / ratio * np.exp(SCATTER * rng.normal(size=scratch.shape))
    return Runs(scratch, np.where(rng.random(scratch.shape) < flat, np.inf, source))


def before_convergence(runs: Runs) -> Floats:
    """Geometric mean over tasks, where a flat run has its best score at step 0 and so counts as one look, [repeats]."""
    looked = np.ceil(runs.scratch / EVERY) * EVERY
    steps = np.where(np.isinf(runs.source), 0, np.minimum(np.ceil(runs.source / EVERY) * EVERY, LAST))
    return np.exp(np.log(looked / np.maximum(steps, EVERY)).mean(1))


def before_comparable(runs: Runs, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Geometric mean of those that got there, and the ends of its percentile bootstrap, [repeats] each."""
    found = []
    for scratch, source in zip(runs.scratch, runs.source, strict=True):
        there = source <= LAST
        if not there.any():
            found.append((np.nan,) * 3)
            continue
        logs = np.log(np.ceil(scratch[there] / EVERY) / np.ceil(source[there] / EVERY))
        means = logs[rng.integers(0, len(logs), size=(500, len(logs)))].mean(1)
        found.append((logs.mean(), *np.quantile(means, [0.025, 0.975])))
    mean, low, high = np.exp(np.array(found)).T
    return mean, low, high


def ranges(scratch: Floats, source: Floats) -> list[Range]:
    """What is known of the ratios of one repeat."""
    found = []
    for beside, steps in zip(scratch, source, strict=True):
        looked = int(np.ceil(steps / EVERY)) * EVERY if steps <= LAST else None
        made = speed_up(int(np.ceil(beside / EVERY)) * EVERY, looked, every=EVERY, last=LAST)
        assert made is not None
        found.append(made)
    return found


def simulate(ratio: float, flat: float, tasks: int, repeats: int) -> list[str]:
    """The cells of one line."""
    rng = np.random.default_rng(tasks)
    large = draw(rng, 1, 200_000, ratio, flat)
    truth = float(np.median(large.scratch / large.source))
    runs = draw(rng, repeats, tasks, ratio, flat)
    mean, low, high = before_comparable(runs, rng)
    seen = [ranges(*pair) for pair in zip(runs.scratch, runs.source, strict=True)]
    middles, spans = [median_range(each) for each in seen], [median_interval(each) for each in seen]
    sample = np.median(runs.scratch / runs.source, axis=1)
    right = np.mean([m.low <= s <= m.high for m, s in zip(middles, sample, strict=True) if m is not None])
    held = np.mean([s.low <= truth <= s.high for s in spans if s is not None]) if spans[0] else np.nan
    ends = [np.median([getattr(m, side) for m in middles if m is not None]) for side in ("low", "high")]
    return [
        f"{ratio:g}",
        f"{flat:.0%}",
        str(tasks),
        f"{truth:.2f}",
        f"{before_convergence(runs).mean():.2f}",
        f"{np.nanmean(mean):.2f}",
        f"{np.mean((low <= truth) & (truth <= high)):.2f}",
        f"{ends[0]:.2f} to {ends[1]:.2f}",
        f"{right:.2f}",
        "refused" if np.isnan(held) else f"{held:.2f}",
    ]


HEAD = (
    "ratio of those that learn",
    "flat",
    "tasks",
    "true median",
    "convergence, before",
    "comparable, before",
    "its interval holds the truth",
    "median range, now (typical)",
    "it holds the sample's median",
    "its 95 % interval holds the truth",
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1000)
    repeats = parser.parse_args().repeats
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for ratio in (1.0, 2.0):
        for flat in (0.0, 0.3, 0.6):
            for tasks in (5, 8, 13):
                print(f"| {' | '.join(simulate(ratio, flat, tasks, repeats))} |")


if __name__ == "__main__":
    main()
