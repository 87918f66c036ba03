"""How often the interval of `analysis.crossed` holds the true mean difference of two systems, and how often its test errs.

    python scripts/simulate_systems.py [--samples 2000]

Differences [tasks, seeds] = task + seed + noise, whose mean over the tasks is 0 for other seeds. `share` is the part of the
variance within a task that a seed has in common over tasks. Beside `crossed`: Student's t over the means of seeds alone, and sign
flips of all differences as if they were independent (analysis/statistics.py). Near the ceiling a difference is one of two
accuracies of 200 rows, most of which are 1. The second table is of whole studies in which no system differs from the first: how often
any of 14 x 3 comparisons is called significant after Holm's correction.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from analysis.crossed import seed_difference
from analysis.statistics import holm, paired_difference

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int], float], Floats]
NOISE = 0.05


def normal(generator: np.random.Generator, shape: tuple[int, int], share: float) -> Floats:
    """Noise of which a share is the seed's."""
    seeds = generator.normal(size=(1, shape[1])) * np.sqrt(share)
    return NOISE * (seeds + generator.normal(size=shape) * np.sqrt(1 - share))


def unequal(generator: np.random.Generator, shape: tuple[int, int], share: float) -> Floats:
    """The same with tasks of very different spread."""
    return normal(generator, shape, share) * np.geomspace(0.1, 3, shape[0])[:, None]


def ceiling(generator: np.random.Generator, shape: tuple[int, int], share: float) -> Floats:
    """Differences of two accuracies of 200 rows, each 1 less what a run failed to learn, which few runs do."""

    def accuracy() -> Floats:
        common = generator.random((1, shape[1]))
        own = generator.random(shape)
        luck = np.where(generator.random((1, shape[1])) < share, common, own)
        missed = np.where(luck < 0.25, generator.beta(1, 3, size=shape) * 0.5, 0.01)
        return generator.binomial(200, 1 - missed) / 200

    return accuracy() - accuracy()


DRAWS: dict[str, Draw] = {"normal": normal, "unequal spread": unequal, "near the ceiling": ceiling}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=2000)
    samples = parser.parse_args().samples
    print(
        "| differences | tasks differ | share of seeds | crossed | over seeds | sign flips | p <= .05, crossed | over seeds | sign flips |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name, draw in DRAWS.items():
        for spread in (0.0, 0.1):
            for share in (0.0, 0.1, 0.3):
                held = checked(draw, spread, share, samples)
                told = " | ".join(f"{value:.3f}" for value in held)
                print(f"| {name} | {spread:g} | {share:g} | {told} |", flush=True)

    print("\n| differences | share of seeds | any significant after Holm |")
    print("|---|--:|--:|")
    for name, draw in DRAWS.items():
        for share in (0.0, 0.1, 0.3):
            print(f"| {name} | {share:g} | {any_significant(draw, share, samples // 4):.3f} |", flush=True)


def any_significant(draw: Draw, share: float, studies: int, shape: tuple[int, int] = (6, 5)) -> float:
    """Share of studies with a system that is called different from the first, where none is; all have the first in common."""
    generator = np.random.default_rng(11)
    found = 0
    for _ in range(studies):
        p_values: dict[str, float] = {}
        for shots in range(3):
            first = draw(generator, shape, share)
            for system in range(14):
                difference = draw(generator, shape, share) - first
                p_value = seed_difference(difference).p_value
                p_values[f"{shots} {system}"] = 1.0 if p_value is None else p_value
        found += min(holm(p_values).values()) <= 0.05
    return found / studies


def checked(
    draw: Draw, spread: float, share: float, samples: int, shape: tuple[int, int] = (6, 5)
) -> list[float]:
    """Coverage of the three, then their level."""
    generator = np.random.default_rng(7)
    covered, refused = np.zeros(3), np.zeros(3)
    for _ in range(samples):
        tasks = generator.normal(size=(shape[0], 1)) * spread
        values = draw(generator, shape, share) + tasks - tasks.mean()
        means = values.mean(axis=0)
        error = means.std(ddof=1) / np.sqrt(shape[1])
        reach = student.ppf(0.975, shape[1] - 1) * error
        flips = paired_difference(values.ravel(), np.zeros(values.size), draws=1000)
        crossed = seed_difference(values)
        for place, found in enumerate((crossed, None, flips)):
            if found is None:
                covered[place] += abs(means.mean()) <= reach
                refused[place] += abs(means.mean()) > reach
            else:
                low, high = found.interval.low, found.interval.high
                covered[place] += low is None or high is None or low <= 0 <= high
                refused[place] += found.p_value is not None and found.p_value <= 0.05
    return [*covered / samples, *refused / samples]


if __name__ == "__main__":
    main()
