"""Measure `recommend` by leaving each task out in turn: `python scripts/measure_recommend.py PROMPTS TRANSFER.csv`.

One idea: for every task its own prompt is taken out of the folder, the others are ranked from a few training rows,
and what the first choice loses against the best source of the measured matrix (regret) is set beside a random source
and the same-type flag. Wanted: at most half of the random source's, and less than the flag's.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean

from analysis.choice import ChoiceSummary
from analysis.prediction import BASELINE
from prompttransfer.adaptations.artifacts import find_adaptations, load_adaptation
from prompttransfer.backbones.loading import load_backbone
from prompttransfer.cli.tables import read_matrix, task_types
from prompttransfer.transfers.recommendation import ADVICE, leave_one_out, recommend
from prompttransfer.transfers.zero_shot import Target
from tasks.catalog import find_task
from tasks.loading import load_splits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompts", type=Path, help="folder of prompts, one a task")
    parser.add_argument("transfer", type=Path, help="their zero-shot matrix on the test rows, CSV")
    parser.add_argument("--rows", type=int, nargs="*", default=[32], help="numbers of labelled rows to try")
    parser.add_argument("--draws", type=int, default=3, help="draws of those rows")
    parser.add_argument("--probe-steps", type=int, help="0: no probe")
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    prompts = [load_adaptation(folder) for folder in find_adaptations(given.prompts)]
    matrix = read_matrix(given.transfer)
    backbone = load_backbone(prompts[0].backbone)
    types = task_types([p.task for p in prompts])
    for rows in given.rows:
        measured = []
        for draw in range(given.draws):
            tasks = [find_task(p.task) for p in prompts]
            targets = [Target(t, load_splits(t, data=given.data, limit_train=rows, seed=draw)) for t in tasks]
            found = recommend(
                backbone,
                prompts,
                targets,
                types,
                rows=rows,
                probe_steps=given.probe_steps,
                leave_own_out=True,
            )
            measured.append(leave_one_out(found, prompts, matrix))
        show(measured, rows, len(prompts))


def show(measured: list[dict[str, ChoiceSummary]], rows: int, tasks: int) -> None:
    """Mean regret over the draws with its range, indicators by it, then the two targets."""
    print(f"\n{tasks} tasks left out in turn, {rows} rows each, {len(measured)} draws of the rows")
    print(f"{'indicator':24s} regret (lowest to highest draw)   NDCG")
    names = [name for name in measured[0] if all(name in summaries for summaries in measured)]
    regrets = {name: [summaries[name].regret for summaries in measured] for name in names}
    for name in sorted(names, key=lambda n: fmean(regrets[n])):
        mine = regrets[name]
        ndcg = fmean(summaries[name].ndcg or 0.0 for summaries in measured)
        print(f"{name:24s} {fmean(mine):.4f} ({min(mine):.4f} to {max(mine):.4f})          {ndcg:.4f}")
    random, advice = measured[0][ADVICE].random_regret, fmean(regrets[ADVICE])
    print(f"{'random source':24s} {random:.4f}")
    print(
        f"at most half of the random source's, {random / 2:.4f}: {'reached' if advice <= random / 2 else 'MISSED'}"
    )
    if BASELINE in regrets:
        flag = fmean(regrets[BASELINE])
        print(f"below the same-type flag's, {flag:.4f}: {'reached' if advice < flag else 'MISSED'}")


if __name__ == "__main__":
    main()
