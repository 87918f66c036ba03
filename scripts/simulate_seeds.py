"""What seeds must vary, how few validation rows are enough, and rows that always meet, by simulation.

    python scripts/simulate_seeds.py [--repeats 4000]

Three tables in Markdown (docs/transfer-statistics.md). Coverage of Student's 95 % interval over seeds for the score that a
task would give on average over splits, starts and orders: `before` all seeds share one split, `now` each draws its own.
The checkpoint that so many validation rows choose among 12, with 64 training rows. The share of pairs
of rows in one batch that were in one batch in the pass before: `before` rows are always sorted by length within windows
of 8 batches, `now` only where there are several windows, `chance` for batches that know nothing of one another.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import torch
from scipy.stats import t as student

from prompttransfer.backbones.kernels.token_batching import WINDOW
from prompttransfer.training.batches import RowOrder


def coverage(seeds: int, split: float, shared: bool, repeats: int) -> tuple[float, float]:
    """How often the interval over seeds holds the mean, and its width; starts and orders have spread 1, splits `split`."""
    rng = np.random.default_rng(seeds)
    splits = rng.normal(size=(repeats, 1 if shared else seeds)) * split
    scores = splits + rng.normal(size=(repeats, seeds))
    reach = student.ppf(0.975, seeds - 1) * scores.std(1, ddof=1) / np.sqrt(seeds)
    return float(np.mean(np.abs(scores.mean(1)) <= reach)), float(2 * reach.mean())


def selection(rows: int, repeats: int) -> tuple[float, float, float]:
    """Of 12 checkpoints: the test score of the one chosen, what is lost to the best, and how much validation flatters."""
    rng = np.random.default_rng(rows)
    steps = np.arange(12)
    truth = 0.5 + 0.25 * (1 - np.exp(-steps / 3)) + 0.03 * rng.normal(size=(repeats, 12))
    seen = rng.binomial(rows, np.clip(truth, 0, 1)) / rows
    chosen = seen.argmax(1)[:, None]
    got = np.take_along_axis(truth, chosen, 1).mean()
    return float(got), float(truth.max(1).mean() - got), float(seen.max(1).mean() - got)


def always_sorted(sizes: Sequence[int], batch: int, epoch: int) -> list[frozenset[int]]:
    """The batches of a pass as they were: sorted within windows, also where there is one window only."""
    generator = torch.Generator().manual_seed(epoch)
    whole = torch.randperm(len(sizes), generator=generator).tolist()[: len(sizes) - len(sizes) % batch]
    ordered: list[int] = []
    for start in range(0, len(whole), batch * WINDOW):
        ordered += sorted(whole[start : start + batch * WINDOW], key=lambda row: sizes[row])
    return [frozenset(ordered[start : start + batch]) for start in range(0, len(ordered), batch)]


def meet_again(passes: Sequence[Sequence[frozenset[int]]]) -> float:
    """The share of pairs of rows of a batch that were in one batch in the pass before."""
    pairs = [{pair for batch in batches for pair in combinations(sorted(batch), 2)} for batches in passes]
    return float(np.mean([len(old & new) / len(new) for old, new in pairwise(pairs)]))


def repeated(count: int, batch: int, passes: int = 20) -> tuple[float, float, float]:
    """How often pairs meet again before, now and by chance; lengths are spread as those of one-sentence tasks."""
    sizes = tuple(np.random.default_rng(count).poisson(25, count).tolist())
    order, each = RowOrder(sizes, batch, seed=0), count // batch
    before = [always_sorted(sizes, batch, epoch) for epoch in range(passes)]
    now = [[frozenset(order.step(each * epoch + step)) for step in range(each)] for epoch in range(passes)]
    return meet_again(before), meet_again(now), (batch - 1) / (count - 1)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=4000)
    repeats = parser.parse_args().repeats
    print(
        "| spread of splits over that of starts | seeds | one split: coverage | width | own splits: coverage | width |"
    )
    print("|---|---|---|---|---|---|")
    for split in (0.0, 0.5, 1.0, 2.0):
        for seeds in (3, 5, 10):
            cells = [
                f"{value:.2f}"
                for shared in (True, False)
                for value in coverage(seeds, split, shared, repeats)
            ]
            print(f"| {split:g} | {seeds} | {' | '.join(cells)} |")
    print(
        "\n| validation rows | test score of the chosen | lost to the best | validation minus test |\n|---|---|---|---|"
    )
    for rows in (7, 16, 32, 64, 500):
        print(f"| {rows} | {' | '.join(f'{value:.3f}' for value in selection(rows, repeats))} |")
    print("\n| training rows | batch | pairs that meet again, before | now | chance |\n|---|---|---|---|---|")
    for count, batch in ((64, 16), (128, 16), (144, 16), (256, 16), (64, 32), (500, 32)):
        print(f"| {count} | {batch} | {' | '.join(f'{share:.2f}' for share in repeated(count, batch))} |")


if __name__ == "__main__":
    main()
