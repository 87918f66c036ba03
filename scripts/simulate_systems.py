"""How often the intervals of `analysis.crossed` hold the true mean difference of two systems, and how often its tests err.

    python scripts/simulate_systems.py [--studies 500]

A study has 14 systems and three numbers of rows, six targets and five seeds, and none of its systems differs from the first, which
all 42 comparisons have in common. `share` is the part of the variance that a seed has in common over targets. Beside `crossed`:
Student's t over the means of seeds alone, and sign flips of all differences as if they were independent
(analysis/statistics.py; of one comparison a study). Near the ceiling scores are accuracies of 200 rows, most of which are 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_1samp

from analysis.crossed import common_part, seed_difference
from analysis.statistics import holm, paired_difference

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, float], Floats]
SHAPE, SYSTEMS, SHOTS = (6, 5), 14, 3
NOISE, LEVEL = 0.05, 0.05


def normal(generator: np.random.Generator, share: float) -> Floats:
    """Scores less their mean, of whose variance a share is the seed's."""
    seeds = generator.normal(size=(1, SHAPE[1])) * np.sqrt(share)
    return NOISE * (seeds + generator.normal(size=SHAPE) * np.sqrt(1 - share))


def unequal(generator: np.random.Generator, share: float) -> Floats:
    """The same with targets of very different spread."""
    return normal(generator, share) * np.geomspace(0.1, 3, SHAPE[0])[:, None]


def ceiling(generator: np.random.Generator, share: float) -> Floats:
    """Accuracies of 200 rows, each 1 less what a run failed to learn, which few runs do."""
    together = generator.random((1, SHAPE[1])) < share
    luck = np.where(together, generator.random((1, SHAPE[1])), generator.random(SHAPE))
    missed = np.where(luck < 0.25, generator.beta(1, 3, size=SHAPE) * 0.5, 0.01)
    return generator.binomial(200, 1 - missed) / 200


DRAWS: dict[str, Draw] = {"normal": normal, "unequal spread": unequal, "near the ceiling": ceiling}


def study(draw: Draw, generator: np.random.Generator, share: float) -> list[Floats]:
    """The differences of a whole study, [targets, seeds] each."""
    firsts = [draw(generator, share) for _ in range(SHOTS)]
    return [draw(generator, share) - first for first in firsts for _ in range(SYSTEMS)]


def checked(draw: Draw, share: float, studies: int) -> list[float]:
    """Covered and p <= .05 by `crossed`, the latter by t over seeds and by sign flips; any significant by the first two."""
    generator = np.random.default_rng(11)
    covered, errs, errs_of_seeds, errs_of_flips, any_, any_of_seeds = [], [], [], [], [], []
    for _ in range(studies):
        differences = study(draw, generator, share)
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
    studies = parser.parse_args().studies
    print(
        "| differences | share | covered | p <= .05 | by t over seeds | by sign flips | any of 42 significant | by t over seeds |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name, draw in DRAWS.items():
        for share in (0.0, 0.1, 0.3):
            told = " | ".join(f"{value:.3f}" for value in checked(draw, share, studies))
            print(f"| {name} | {share:g} | {told} |", flush=True)


if __name__ == "__main__":
    main()
