"""Measure masking over a folder of prompts: `python scripts/measure_masking.py PROMPTS`.

One idea: every prompt's neurons are switched off by steps, on its own task, and what is left is set beside random
neurons in equal number, layer by layer. Wanted: the prompt's specific neurons carry more of its score than random ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean

from prompttransfer.adaptations.artifacts import find_adaptations, load_adaptation
from prompttransfer.backbones.loading import load_backbone
from prompttransfer.cli.common import load_targets, resolve_tasks
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.neurons.capture import read_activations
from prompttransfer.neurons.masking import ORDERS, RANDOM, RANDOM_ACTIVE, masking_curve, mean_scores

SHARES = (0.0, 0.05, 0.1, 0.15, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompts", type=Path, help="folder of prompts of one backbone")
    parser.add_argument("--draws", type=int, default=5, help="draws of random neurons")
    parser.add_argument("--rows", type=int, default=200, help="test rows of each task")
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    prompts = [load_adaptation(folder) for folder in find_adaptations(given.prompts)]
    backbone = load_backbone(prompts[0].backbone)
    reading = read_activations(backbone, prompts)
    states = reading.states().states
    print(f"mean score over {', '.join(f'{100 * s:g} %' for s in SHARES[1:])} of all neurons switched off")
    for order in ORDERS:
        faster = {RANDOM: 0, RANDOM_ACTIVE: 0}
        found: dict[str, list[float]] = {}
        print(
            f"\n{'prompt':28s} {order:>10s} {RANDOM:>10s} {RANDOM_ACTIVE:>14s}   by share, {order} / {RANDOM}"
        )
        for prompt in prompts:
            tasks = resolve_tasks([prompt.task], prompts=prompts)
            target = load_targets(tasks, data=given.data, limit_test=given.rows)[0]
            encoded = encode_task(backbone, target.task, target.splits.test, reserved=prompt.length)
            curve = masking_curve(
                backbone,
                prompt,
                encoded,
                states,
                reading.values,
                order=order,
                shares=SHARES,
                draws=given.draws,
            )
            means = mean_scores(curve)
            for kind in means:
                found.setdefault(kind, []).append(means[kind])
            for kind in faster:
                faster[kind] += means[order] < means[kind]
            steps = " ".join(
                f"{fmean(p.score for p in curve if p.share == share and p.kind == order):.2f}/"
                f"{fmean(p.score for p in curve if p.share == share and p.kind == RANDOM):.2f}"
                for share in SHARES
            )
            print(f"{prompt.name:28s} {means[order]:10.3f} {means[RANDOM]:10.3f} {means[RANDOM_ACTIVE]:14.3f}   {steps}", flush=True)  # fmt: skip
        print(f"{'mean':28s} " + " ".join(f"{fmean(found[k]):{w}.3f}" for k, w in ((order, 10), (RANDOM, 10), (RANDOM_ACTIVE, 14))))  # fmt: skip
        for kind, count in faster.items():
            print(f"{order} falls faster than {kind} for {count} of {len(prompts)} prompts")


if __name__ == "__main__":
    main()
