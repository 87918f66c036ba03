"""Coverage of intervals and level of p values for paired differences, by simulation: before and after.

    python scripts/simulate_intervals.py [--repeats 2000]

For differences of four shapes and n pairs: how often the 95 % interval holds the true mean, and how often p <= .05
although the true mean is 0. `percentile` is the bootstrap that this project once used, kept here to be compared;
`t` is Student's; `sign flips` is analysis.statistics.paired_interval. Prints Markdown (docs/statistics.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from analysis.statistics import paired_difference

Floats = NDArray[np.float64]
PAIRS = (4, 6, 8, 12, 20)

SHAPES: dict[str, tuple[Callable[[np.random.Generator, int], Floats], float]] = {
    "normal": (lambda rng, n: rng.normal(size=n), 0.0),
    "skewed (gamma, shape 2)": (lambda rng, n: rng.gamma(2.0, size=n), 2.0),
    "very skewed (exponential)": (lambda rng, n: rng.exponential(size=n), 1.0),
    "bounded (difference of two accuracies of 50 rows)": (
        lambda rng, n: (rng.binomial(50, 0.8, size=n) - rng.binomial(50, 0.8, size=n)) / 50,
        0.0,
    ),
    "heavy tails (t, 3 degrees)": (lambda rng, n: rng.standard_t(3, size=n), 0.0),
}
"""Name -> how n differences are drawn, and their true mean."""


def percentile(values: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """The percentile bootstrap of the mean."""
    means = values[rng.integers(0, len(values), size=(2000, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def student_interval(values: Floats) -> tuple[float, float]:
    """Mean plus and minus Student's quantile times the standard error."""
    reach = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - reach), float(values.mean() + reach)


def simulate(draw: Callable[[np.random.Generator, int], Floats], true: float, pairs: int, repeats: int) -> dict[str, float]:  # fmt: skip
    """Coverage of the three intervals, and the level of the sign-flip p value."""
    rng = np.random.default_rng(pairs)
    held = {"percentile": 0, "t": 0, "sign flips": 0}
    rejected = said = 0
    for _ in range(repeats):
        values = draw(rng, pairs)
        ends = {"percentile": percentile(values, rng), "t": student_interval(values)}
        ours = paired_difference(values - true, np.zeros(pairs), draws=2048)
        rejected += ours.p_value is not None and ours.p_value <= 0.05
        if ours.interval.low is not None and ours.interval.high is not None:
            said += 1
            ends["sign flips"] = ours.interval.low + true, ours.interval.high + true
        for name, (low, high) in ends.items():
            held[name] += low <= true <= high
    shares = {name: count / repeats for name, count in held.items()}
    if not said:
        shares["sign flips"] = float("nan")
    return {**shares, "level": rejected / repeats}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2000)
    repeats = parser.parse_args().repeats
    print(
        "| differences | pairs | percentile | t | sign flips | p <= .05 by sign flips |\n|---|---|---|---|---|---|"
    )
    for name, (draw, true) in SHAPES.items():
        for pairs in PAIRS:
            found = simulate(draw, true, pairs, repeats)
            cells = ["refused" if np.isnan(value) else f"{value:.3f}".lstrip("0") for value in found.values()]
            print(f"| {name} | {pairs} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
