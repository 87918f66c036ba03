"""Coverage and level of what `correlate` prints, by simulation: before and after.

    python scripts/simulate_correlate.py [--repeats 200] [--truth 8000]

Tables of tasks are drawn from a known law. First: how often the 95 % interval of a mean rho holds its true value (the
mean of many other tables), for the task bootstrap that this project once used and for the jackknife of
analysis.resampling. Second: how often `minus same type` has p <= .05 although the true difference is 0, for flips of
the targets' signs (before) and for the task bootstrap with the same draws (now), with the coverage of its interval.
Third: how often an indicator that only repeats the task types has p <= .05, when all tasks or those within a type
are shuffled. Prints Markdown (docs/statistics.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.matrices import Aligned
from analysis.resampling import (
    bootstrap_difference,
    jackknife_interval,
    permutation_test,
    rank_correlations,
)
from analysis.statistics import paired_difference

Floats = NDArray[np.float64]
Law = Callable[[np.random.Generator, int], tuple[Floats, Floats]]
DRAWS = 299


def hub(rng: np.random.Generator, tasks: int, strength: float) -> Floats:
    """Noise, and sources that are better than others for every target, [tasks, tasks]."""
    return rng.normal(size=(tasks, tasks)) + strength * rng.normal(size=tasks)[:, None]


def blocks(tasks: int) -> Floats:
    """1 where two tasks are of one of three types."""
    kind = np.arange(tasks) % 3
    return (kind[:, None] == kind).astype(float)


def unrelated(strength: float) -> Law:
    """Transfer and indicator that have nothing to do with each other."""
    return lambda rng, n: (hub(rng, n, strength), hub(rng, n, strength))


def related(strength: float) -> Law:
    """An indicator that is transfer with as much noise again."""

    def draw(rng: np.random.Generator, tasks: int) -> tuple[Floats, Floats]:
        transfer = hub(rng, tasks, strength)
        return transfer, transfer + hub(rng, tasks, strength)

    return draw


def typed(strength: float) -> Law:
    """Transfer and a symmetric indicator that both know the task types and nothing more of each other."""

    def draw(rng: np.random.Generator, tasks: int) -> tuple[Floats, Floats]:
        noise = hub(rng, tasks, strength)
        return 1.5 * blocks(tasks) + hub(rng, tasks, strength), 1.5 * blocks(tasks) + (noise + noise.T) / 2

    return draw


LAWS: dict[str, Law] = {
    "unrelated, no hubs": unrelated(0.0),
    "unrelated, hubs": unrelated(1.5),
    "related, no hubs": related(0.0),
    "related, hubs": related(1.0),
    "types only, no hubs": typed(0.0),
    "types only, hubs": typed(1.0),
}


def aligned(transfer: Floats, indicator: Floats) -> Aligned:
    """The pair with names."""
    names = [f"t{i}" for i in range(len(transfer))]
    return Aligned(
        pd.DataFrame(transfer, index=names, columns=names),
        pd.DataFrame(indicator, index=names, columns=names),
    )


def mean_rho(transfer: Floats, indicator: Floats) -> float:
    """Mean over targets, without the target itself (fast: no names)."""
    return float(np.nanmean(rhos(transfer, indicator)))


def rhos(transfer: Floats, indicator: Floats) -> Floats:
    """Rho of every target, [tasks]."""
    once = np.ones((1, len(transfer)), dtype=np.int64)
    return rank_correlations(aligned(transfer, indicator), once)[0]


def task_bootstrap(pair: Aligned, rng: np.random.Generator) -> tuple[float, float]:
    """The interval of the mean rho that was printed before: tasks drawn again, moved back to the observed mean."""
    count = len(pair.transfer)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=DRAWS)
    found = rank_correlations(pair, weights)
    counted = np.where(np.isfinite(found), weights, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (counted * np.nan_to_num(found)).sum(1) / counted.sum(1)
    means = means[np.isfinite(means)]
    observed = np.nanmean(rank_correlations(pair, np.ones((1, count), dtype=np.int64))[0])
    low, high = np.quantile(np.clip(means + observed - means.mean(), -1, 1), [0.025, 0.975])
    return float(low), float(high)


def coverage(law: Law, tasks: int, repeats: int, truth: int) -> list[float]:
    """True mean (of `truth` tables, over tasks), then coverage and mean length of the bootstrap (before) and the jackknife (now)."""
    rng = np.random.default_rng(tasks)
    true = float(np.mean([mean_rho(*law(rng, tasks)) for _ in range(truth // tasks)]))
    held, length = np.zeros(2), np.zeros(2)
    for _ in range(repeats):
        pair = aligned(*law(rng, tasks))
        now = jackknife_interval(pair)
        ends = [task_bootstrap(pair, rng), (now.low or 0.0, now.high or 0.0)]
        for place, (low, high) in enumerate(ends):
            held[place] += low <= true <= high
            length[place] += high - low
    return [true, *(held / repeats), *(length / repeats)]


def level(strength: float, tasks: int, repeats: int) -> list[float]:
    """P <= .05 of the sign flips (before) and of the bootstrap (now), and the coverage of the bootstrap's interval."""
    rng = np.random.default_rng(tasks)
    flips = rejected = held = 0
    for seed in range(repeats):
        transfer, indicator = unrelated(strength)(rng, tasks)
        before = paired_difference(rhos(transfer, indicator), rhos(transfer, blocks(tasks)), draws=2048)
        now = bootstrap_difference(
            aligned(transfer, indicator), aligned(transfer, blocks(tasks)), draws=DRAWS, seed=seed
        )
        flips += before.p_value is not None and before.p_value <= 0.05
        rejected += now.p_value is not None and now.p_value <= 0.05
        held += (now.interval.low or 0.0) <= 0 <= (now.interval.high or 0.0)
    return [flips / repeats, rejected / repeats, held / repeats]


def shuffles(strength: float, tasks: int, repeats: int) -> list[float]:
    """P <= .05 of an indicator that knows the types alone: all tasks shuffled, and within types."""
    rng = np.random.default_rng(tasks)
    types = {f"t{i}": str(i % 3) for i in range(tasks)}
    found = np.zeros(2)
    for seed in range(repeats):
        pair = aligned(*typed(strength)(rng, tasks))
        for place, kinds in enumerate((None, types)):
            test = permutation_test(pair, types=kinds, shuffles=DRAWS, seed=seed)
            found[place] += test.p_value is not None and test.p_value <= 0.05
    return list(found / repeats)


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--truth", type=int, default=8000, help="tables behind a true mean, times tasks")
    given = parser.parse_args()
    repeats = given.repeats
    table(
        ("tables", "tasks", "true mean rho", "covered by bootstrap (before)", "by jackknife", "length before", "now"),
        ((name, n, *coverage(law, n, repeats, given.truth)) for name, law in LAWS.items() for n in (5, 8, 13)),
    )  # fmt: skip
    table(
        ("unrelated, strength of hubs", "tasks", "p <= .05 by sign flips (before)", "by bootstrap", "covered by bootstrap"),
        ((f"{s:g}", n, *level(s, n, repeats)) for s in (0.0, 1.5, 3.0) for n in (5, 8, 13)),
    )  # fmt: skip
    table(
        ("types only, strength of hubs", "tasks", "p <= .05, all tasks shuffled", "shuffled within types"),
        ((f"{s:g}", n, *shuffles(s, n, repeats)) for s in (0.0, 1.0) for n in (6, 8, 13)),
    )


def table(headings: tuple[str, ...], rows: Iterator[tuple[object, ...]]) -> None:
    """A Markdown table, numbers to two or three decimals."""
    print(f"| {' | '.join(headings)} |\n|{'---|' * len(headings)}")
    for row in rows:
        cells = [
            f"{cell + 0.0:.3f}".replace("-0.000", "0.000") if isinstance(cell, float) else str(cell)
            for cell in row
        ]
        print(f"| {' | '.join(cells)} |", flush=True)
    print()


if __name__ == "__main__":
    main()
