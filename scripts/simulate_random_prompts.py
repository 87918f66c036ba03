"""What a random prompt scores at its source's own norms, and what two former controls said, on an embedded backbone.

    python scripts/simulate_random_prompts.py [--rows 40] [--repeats 6]

Six sources have vectors of random direction whose norms differ by a factor of 45, as those of trained prompts do (11 to
492 were seen), about the norm of this backbone's words, and half of each one's squared norm lies in one vector. Truth: the mean score of many random prompts at the sources' own vector
norms. `before`: three draws at the mean Frobenius norm (matrices), or with every vector at the mean vector norm
(projectors). `now`: prompttransfer.adaptations.random_prompts. Prints Markdown (docs/transfer-statistics.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prompttransfer.adaptations.bank import VectorBank
from prompttransfer.adaptations.random_prompts import random_draws, random_like
from prompttransfer.backbones.loading import load_backbone
from prompttransfer.evaluation.encoding import EncodedTask, encode_task
from prompttransfer.evaluation.evaluate import evaluate_bank
from tasks.catalog import find_task
from tasks.loading import load_splits

TASKS = ("microworld-imdb", "microworld-mnli", "microworld-qqp")
LENGTH, TRUE_DRAWS = 20, 96
NORMS = (0.25, 0.45, 0.9, 2.0, 4.5, 11.2)
"""Root mean square norm of each source's vectors, in units of the mean norm of a word's."""


def sources(width: int, word: float) -> Tensor:
    """Prompts [6, length, width] of very different norms, each with one vector that has half of it."""
    generator = torch.Generator().manual_seed(0)
    made = functional.normalize(torch.randn(len(NORMS), LENGTH, width, generator=generator), dim=-1)
    made[:, 0] *= LENGTH**0.5
    made = made / made.square().sum(-1).mean(-1).sqrt()[:, None, None]
    return made * word * torch.tensor(NORMS)[:, None, None]


def whole_norm(prompts: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """The matrices' former control: normal vectors whose Frobenius norm is the mean of the sources'."""
    noise = torch.randn(draws, *prompts.shape[1:], generator=generator)
    norm = prompts.flatten(1).norm(dim=1).mean()
    return noise * (norm / noise.flatten(1).norm(dim=1))[:, None, None]


def mean_vector_norm(prompts: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """The projectors' former control: random directions, every vector at the mean norm of all vectors."""
    noise = torch.randn(draws, *prompts.shape[1:], generator=generator)
    return functional.normalize(noise, dim=-1) * prompts.norm(dim=-1).mean()


CONTROLS: dict[str, tuple[Callable[[Tensor, int, torch.Generator], Tensor], int]] = {
    "before, matrices": (whole_norm, 3),
    "before, projectors": (mean_vector_norm, 3),
    "now": (random_like, random_draws(len(NORMS))),
}
"""Name -> how it is drawn, and how often."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=6)
    given = parser.parse_args()
    backbone = load_backbone("microworld-roberta", precision="fp32", device="cpu")
    prompts = sources(backbone.width, float(backbone.embedding_table().norm(dim=1).mean()))

    def scores(encoded: EncodedTask, bank: Tensor) -> list[float]:
        return [score.value for score in evaluate_bank(backbone, VectorBank(bank), encoded)]

    print(
        "| task | true mean | true spread | control | draws | mean | bias | spread it says |\n|---|---|---|---|---|---|---|---|"
    )
    for name in TASKS:
        task = find_task(name)
        rows = load_splits(task, limit_test=given.rows).test
        encoded = encode_task(backbone, task, rows, reserved=LENGTH)
        truth = scores(encoded, random_like(prompts, TRUE_DRAWS, torch.Generator().manual_seed(99)))
        for control, (draw, draws) in CONTROLS.items():
            generators = [torch.Generator().manual_seed(seed) for seed in range(given.repeats)]
            found = scores(encoded, torch.cat([draw(prompts, draws, generator) for generator in generators]))
            each = np.array(found).reshape(given.repeats, draws)
            print(
                f"| {name} | {np.mean(truth):.3f} | {np.std(truth, ddof=1):.3f} | {control} | {draws} | {each.mean():.3f} | "
                f"{each.mean() - np.mean(truth):+.3f} | {each.std(1, ddof=1).mean():.3f} |"
            )


if __name__ == "__main__":
    main()
