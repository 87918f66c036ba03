"""How often the intervals of `analysis.crossed` hold the true mean difference of two systems, and how often its tests err.

    python scripts/simulate_systems.py [--studies 500] [--systems 15 --shots 3 --targets 6]

A study has 15 systems beside the first and three numbers of rows, six targets and five seeds (or as many as are asked for), and none of its systems
differs from the first, which all 45 comparisons have in common. `share` is the part of the variance that a seed has in common over targets. Beside `crossed`:
Student's t over the means of seeds alone, and sign flips of all differences as if they were independent
(analysis/statistics.py; of one comparison a study). Near the ceiling scores are accuracies of 200 rows, most of which are 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_1samp

from analysis.crossed import common_part, seed_difference
from analysis.statistics import holm, paired_difference

Floats = NDArray[np.float64]
Shape = tuple[int, int]
Draw = Callable[[np.random.Generator, float, Shape], Floats]
NOISE, LEVEL = 0.05, 0.05


@dataclass(frozen=True)
class Size:
    """What a study has."""

    systems: int
    shots: int
    targets: int
    seeds: int = 5


def normal(generator: np.random.Generator, share: float, shape: Shape) -> Floats:
    """Scores less their mean, of whose variance a share is the seed's."""
    seeds = generator.normal(size=(1, shape[1])) * np.sqrt(share)
    return NOISE * (seeds + generator.normal(size=shape) * np.sqrt(1 - share))


def unequal(generator: np.random.Generator, share: float, shape: Shape) -> Floats:
    """The same with targets of very different spread."""
    return normal(generator, share, shape) * np.geomspace(0.1, 3, shape[0])[:, None]


def ceiling(generator: np.random.Generator, share: float, shape: Shape) -> Floats:
    """Accuracies of 200 rows, each 1 less what a run failed to learn, which few runs do."""
    together = generator.random((1, shape[1])) < share
    luck = np.where(together, generator.random((1, shape[1])), generator.random(shape))
    missed = np.where(luck < 0.25, generator.beta(1, 3, size=shape) * 0.5, 0.01)
    return generator.binomial(200, 1 - missed) / 200


DRAWS: dict[str, Draw] = {"normal": normal, "unequal spread": unequal, "near the ceiling": ceiling}


def study(draw: Draw, generator: np.random.Generator, share: float, size: Size) -> list[Floats]:
    """The differences of a whole study, [targets, seeds] each."""
    shape = (size.targets, size.seeds)
    firsts = [draw(generator, share, shape) for _ in range(size.shots)]
    return [draw(generator, share, shape) - first for first in firsts for _ in range(size.systems)]


def checked(draw: Draw, share: float, studies: int, size: Size) -> list[float]:
    """Covered and p <= .05 by `crossed`, the latter by t over seeds and by sign flips; any significant by the first two."""
    generator = np.random.default_rng(11)
    covered, errs, errs_of_seeds, errs_of_flips, any_, any_of_seeds = [], [], [], [], [], []
    for _ in range(studies):
        differences = study(draw, generator, share, size)
        common = common_part(differences)
        found = [seed_difference(values, common=common) for values in differences]
        p_values = [one.p_value for one in found if one.p_value is not None]
        of_seeds = [float(ttest_1samp(values.mean(axis=0), 0).pvalue) for values in differences]
        covered += [
            one.interval.low <= 0 <= one.interval.high
            for one in found
            if one.interval.low is not None and one.interval.high is not None
        ]
        errs += [p <= LEVEL for p in p_values]
        errs_of_seeds += [p <= LEVEL for p in of_seeds]
        flips = paired_difference(differences[0].ravel(), np.zeros(differences[0].size), draws=1000)
        errs_of_flips.append((flips.p_value or 1.0) <= LEVEL)
        any_.append(corrected(p_values) <= LEVEL)
        any_of_seeds.append(corrected(of_seeds) <= LEVEL)
    return [
        float(np.mean(values)) for values in (covered, errs, errs_of_seeds, errs_of_flips, any_, any_of_seeds)
    ]


def corrected(p_values: list[float]) -> float:
    """The least after Holm's correction."""
    return min(holm({str(place): p for place, p in enumerate(p_values)}).values())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--systems", type=int, default=15, help="beside the first")
    parser.add_argument("--shots", type=int, default=3, help="numbers of rows")
    parser.add_argument("--targets", type=int, default=6)
    options = parser.parse_args()
    size = Size(options.systems, options.shots, options.targets)
    comparisons = size.systems * size.shots
    print(
        "| differences | share | covered | p <= .05 | by t over seeds | by sign flips | "
        f"any of {comparisons} significant | by t over seeds |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name, draw in DRAWS.items():
        for share in (0.0, 0.1, 0.3):
            told = " | ".join(f"{value:.3f}" for value in checked(draw, share, options.studies, size))
            print(f"| {name} | {share:g} | {told} |", flush=True)


if __name__ == "__main__":
    main()
