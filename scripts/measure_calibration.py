"""Measure calibrated label words: `python scripts/measure_calibration.py`; docs/calibration.md has its tables.

First a simulation with known logits: two label words, a row's difference of logits is `strength` for the right one plus
normal noise of deviation 1, and the words lean by a normal draw of deviation `lean` that has nothing to do with the text.
Then the embedded backbones without a prompt, on every task with labels. Everything is seeded; about a minute on one core.
"""

from __future__ import annotations

import argparse

import numpy as np

from prompttransfer.backbones.loading import load_backbone
from prompttransfer.evaluation.calibration import METHODS, Calibration, bare_calibrated, encode_inputs
from prompttransfer.evaluation.encoding import encode_task
from tasks.loading import load_splits
from tasks.microworld import WORLD_TASKS

BACKBONES = ("microworld-roberta", "microworld-roberta-wide", "microworld-t5")
CONTENT_FREE_NOISE = 1.0
"""Deviation of what a content-free input says, as large as a row's noise."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=500, help="draws of the simulation")
    parser.add_argument("--backbones", nargs="*", default=list(BACKBONES), help="none leaves them out")
    parser.add_argument("--limit-test", type=int, default=300, help="test rows of a task")
    given = parser.parse_args()
    print("| strength | lean | share of word 2 | raw | content-free | train-mean | without a lean |")
    print("|---|---|---|---|---|---|---|")
    for strength, lean, share in (
        (0.0, 2.0, 0.5),
        (1.0, 0.0, 0.5),
        (1.0, 2.0, 0.5),
        (1.0, 2.0, 0.8),
        (1.0, 0.0, 0.8),
    ):
        found = simulate(strength, lean, share, given.draws)
        print(
            f"| {strength:g} | {lean:g} | {share:g} | " + " | ".join(f"{value:.3f}" for value in found) + " |"
        )
    for name in given.backbones:
        measure(name, given.limit_test)


def simulate(
    strength: float,
    lean: float,
    share: float,
    draws: int,
    *,
    test: int = 500,
    train: int = 128,
    seed: int = 0,
) -> tuple[float, float, float, float]:
    """Mean accuracy over draws: raw, by two content-free inputs, by the training mean, and of a model that does not lean.

    `share` of the rows, in training as in the test, are of the second label.
    """
    generator = np.random.default_rng(seed)

    def rows(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = generator.random((draws, count)) < share
        return labels, strength * (2 * labels - 1) + generator.standard_normal((draws, count))

    biases = lean * generator.standard_normal((draws, 1))
    (labels, clean), (_, seen) = rows(test), rows(train)
    nothing = biases + CONTENT_FREE_NOISE * generator.standard_normal((draws, 2))

    # The mean log-probability of each word: of its difference the lean is a summand, as in evaluation/calibration.py.
    def accuracy(difference: np.ndarray) -> float:
        return float(((difference > 0) == labels).mean())

    raw = clean + biases
    return (
        accuracy(raw),
        accuracy(raw - nothing.mean(axis=1, keepdims=True)),
        accuracy(raw - (seen + biases).mean(axis=1, keepdims=True)),
        accuracy(clean),
    )


def measure(name: str, limit: int) -> None:
    """The table of one backbone without a prompt, raw and by each calibration."""
    backbone = load_backbone(name, precision="fp32", device="cpu")
    print(f"\n{name} without a prompt, {limit} test rows\n")
    print("| task | majority | raw | " + " | ".join(METHODS) + " | loss raw | " + " | ".join(METHODS) + " |")
    print("|---|" + "---|" * (3 + 2 * len(METHODS)))
    found = []
    for task in WORLD_TASKS.values():
        if task.generates:
            continue
        splits = load_splits(task, limit_test=limit)
        encoded = encode_task(backbone, task, splits.test, reserved=0)
        pairs = [
            bare_calibrated(backbone, encoded, encode_inputs(backbone, Calibration(method), encoded, splits))
            for method in METHODS
        ]
        raw = pairs[0][0]
        assert raw is not None  # these tasks have label words
        scores = [raw, *(less for _, less in pairs if less is not None)]
        found.append([raw.chance, *(s.value for s in scores), *(s.loss or 0.0 for s in scores)])
        print(
            f"| {task.name.removeprefix('microworld-')} | " + " | ".join(f"{v:.3f}" for v in found[-1]) + " |"
        )
    print("| mean | " + " | ".join(f"{v:.3f}" for v in np.mean(found, axis=0)) + " |")


if __name__ == "__main__":
    main()
