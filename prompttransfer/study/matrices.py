"""Transfer matrices from the scores of a study: one row a source prompt and seed, one column a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prompttransfer.matrix import REFERENCE_ROWS, TransferMatrix

if TYPE_CHECKING:
    import pandas as pd


def transfer_matrix(scores: Sequence[dict[str, Any]]) -> TransferMatrix:
    """The matrix of the contents of `score.json` files, those of prompts and of references; NaN where there is none.

    The reference rows are means over seeds; sources keep a row a seed. The spread of random prompts is that within
    seeds.
    """
    import torch

    targets = list(dict.fromkeys(score["task"] for score in scores))
    prompts = {score["prompt"]: score["prompt_task"] for score in scores if "prompt" in score}
    values = torch.full((len(prompts) + len(REFERENCE_ROWS), len(targets)), float("nan"), dtype=torch.float64)
    rows = {name: index for index, name in enumerate([*prompts, *REFERENCE_ROWS])}
    found: dict[tuple[int, int], list[float]] = {}
    for score in scores:
        column = targets.index(score["task"])
        named = {score["prompt"]: score["value"]} if "prompt" in score else score["references"]
        for name, value in named.items():
            found.setdefault((rows[name], column), []).append(value)
    for place, each in found.items():
        values[place] = sum(each) / len(each)
    by_target = {score["task"]: score for score in scores}
    drawn = [score for score in scores if "random_spread" in score]
    return TransferMatrix(
        sources=(*prompts, *REFERENCE_ROWS),
        source_tasks=(*prompts.values(), *REFERENCE_ROWS),
        targets=tuple(targets),
        values=values,
        metrics=tuple(by_target[target]["metric"] for target in targets),
        rows=tuple(by_target[target]["rows"] for target in targets),
        random_spread=tuple(
            _pooled([score["random_spread"] for score in drawn if score["task"] == target])
            for target in targets
            if drawn
        ),
        random_draws=sum(score["random_draws"] for score in drawn if score["task"] == targets[0]),
    )


def _pooled(spreads: Sequence[float]) -> float:
    """The standard deviation within groups of equal size; NaN where there is no group."""
    return math.sqrt(sum(spread**2 for spread in spreads) / len(spreads)) if spreads else float("nan")


def mean_table(matrix: TransferMatrix) -> pd.DataFrame:
    """Rows source tasks (mean over seeds) and references, columns targets."""
    import pandas as pd

    table = pd.DataFrame(matrix.values.numpy(), index=list(matrix.source_tasks), columns=list(matrix.targets))
    return table.groupby(level=0, sort=False).mean()
