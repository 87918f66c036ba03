"""How far what training adds to a prompt depends on its random start: task vectors of several seeds, measured.

    prompttransfer train --task microworld-imdb microworld-laptop microworld-snli --seeds 0 1 2 --steps 100 -o runs/tau
    python scripts/measure_task_vectors.py runs/tau

Prints cosines between task vectors tau = tuned - initial (docs/composition.md), and what a task vector is worth on the start of
another seed beside its own: test score of start' + tau, of the prompt itself, of start' alone, and of start' with a random
tau of the same norms.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, permutations
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from prompttransfer.adaptations.adaptation import PROMPT_KEY, Adaptation
from prompttransfer.adaptations.arithmetic import task_vector
from prompttransfer.adaptations.artifacts import find_adaptations, load_adaptation
from prompttransfer.adaptations.random_prompts import scrambled
from prompttransfer.backbones.loading import load_backbone
from prompttransfer.evaluation.grouped import evaluate_all
from tasks.catalog import find_task
from tasks.loading import load_splits


def cosine(one: Tensor, other: Tensor) -> float:
    """Of all vectors in one row."""
    return float(torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0))


def mean_cosine(one: Tensor, other: Tensor) -> float:
    """Of the mean vectors, which do not depend on the order of the vectors of a prompt."""
    return cosine(one.mean(0), other.mean(0))


def alike(prompts: Sequence[Adaptation], *, same_task: bool, same_seed: bool) -> list[tuple[Tensor, Tensor]]:
    """Task vectors of all pairs of the given kind."""
    return [
        (task_vector(one), task_vector(other))
        for one, other in combinations(prompts, 2)
        if (one.task == other.task) is same_task and (one.seed == other.seed) is same_seed
    ]


def moved(tau: Tensor, onto: Adaptation) -> Adaptation:
    """The prompt that stands on the start of another."""
    assert onto.first_vectors is not None
    return replace(onto, tensors={PROMPT_KEY: onto.first_vectors + tau}, initial=None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit-test", type=int, help="test rows of a task; all if not given")
    given = parser.parse_args()
    prompts = [load_adaptation(path) for path in find_adaptations(given.folder)]
    for name, kind in {
        "same task, other start": {"same_task": True, "same_seed": False},
        "other task, same start": {"same_task": False, "same_seed": True},
        "other task, other start": {"same_task": False, "same_seed": False},
    }.items():
        pairs = alike(prompts, **kind)
        whole, means = (fmean(f(a, b) for a, b in pairs) for f in (cosine, mean_cosine))
        print(f"{name}: cosine of tau {whole:.3f}, of its mean vector {means:.3f} ({len(pairs)} pairs)")
    backbone = load_backbone(prompts[0].backbone)
    generator = torch.Generator().manual_seed(0)
    for task in dict.fromkeys(prompt.task for prompt in prompts):
        own = [prompt for prompt in prompts if prompt.task == task]
        others = list(permutations(own, 2))
        groups = {
            "the prompt itself": own,
            "its tau on another start": [moved(task_vector(one), other) for one, other in others],
            "a start alone": [moved(torch.zeros_like(one.vectors), one) for one in own],
            "a random tau on a start": [moved(scrambled(task_vector(one), generator), one) for one in own],
        }
        rows = load_splits(find_task(task), limit_test=given.limit_test).test
        scores = {
            name: evaluate_all(backbone, found, find_task(task), rows) for name, found in groups.items()
        }
        said = ", ".join(f"{name} {fmean(s.value for s in found):.3f}" for name, found in scores.items())
        print(f"{task}: {said}")


if __name__ == "__main__":
    main()
