"""Transfer matrices from the scores of a study: one row a source prompt and seed, one column a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from prompttransfer.transfers.matrix import OPTIONAL_ROWS, REFERENCE_ROWS, TransferMatrix

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


def transfer_matrix(scores: Sequence[dict[str, Any]]) -> TransferMatrix:
    """The matrix of the contents of `score.json` files, those of prompts and of references; NaN where there is none.

    The reference rows are means over seeds; sources keep a row a seed. The spread of random prompts is that within
    seeds. Calibrated scores are a second matrix.
    """
    from dataclasses import replace

    targets = list(dict.fromkeys(score["task"] for score in scores))
    prompts = {score["prompt"]: score["prompt_task"] for score in scores if "prompt" in score}
    by_target = {score["task"]: score for score in scores}
    drawn = [
        score["random_draws"] for score in scores if score.get("random_draws") and score["task"] == targets[0]
    ]
    known = {row for score in scores for row in score.get("references", ())}
    references = [row for row in REFERENCE_ROWS if row in known or row not in OPTIONAL_ROWS]
    matrix = TransferMatrix(
        sources=(*prompts, *references),
        source_tasks=(*prompts.values(), *references),
        targets=tuple(targets),
        values=_values(scores, [*prompts, *references], targets, ""),
        metrics=tuple(by_target[target]["metric"] for target in targets),
        rows=tuple(by_target[target]["rows"] for target in targets),
        random_spread=_spreads(scores, targets, "random_spread"),
        random_draws=sum(drawn),
    )
    if not any("calibrated" in score or "calibrated references" in score for score in scores):
        return matrix
    values = _values(scores, [*prompts, *references], targets, "calibrated")
    how = next((score["calibration"] for score in scores if "calibration" in score), "")
    spread = _spreads(scores, targets, "calibrated random_spread")
    second = replace(matrix, values=values, meaning="calibrated", calibration=how, random_spread=spread)
    return replace(matrix, calibration=how, calibrated=second)


def _values(
    scores: Sequence[dict[str, Any]], sources: Sequence[str], targets: Sequence[str], kind: str
) -> Tensor:
    """[sources, targets] of one kind of score ("" or `calibrated`), means where a place has several; NaN where it has none."""
    import torch

    found: dict[tuple[int, int], list[float]] = {}
    for score in scores:
        column = targets.index(score["task"])
        if "prompt" in score:
            named = {score["prompt"]: score.get(kind or "value")}
        else:
            named = score.get(f"{kind} references".strip(), {})
        for name, value in named.items():
            if value is not None:
                found.setdefault((sources.index(name), column), []).append(value)
    values = torch.full((len(sources), len(targets)), float("nan"), dtype=torch.float64)
    for place, each in found.items():
        values[place] = sum(each) / len(each)
    return values


def _spreads(scores: Sequence[dict[str, Any]], targets: Sequence[str], name: str) -> tuple[float, ...]:
    """The spread of random prompts of each target, pooled over seeds; NaN where there is none."""
    found = [
        [s[name] for s in scores if s["task"] == target and s.get(name) is not None] for target in targets
    ]
    return tuple(math.sqrt(fmean(x**2 for x in each)) if each else float("nan") for each in found)


def mean_table(matrix: TransferMatrix) -> pd.DataFrame:
    """Rows source tasks (mean over seeds) and references, columns targets."""
    import pandas as pd

    table = pd.DataFrame(matrix.values.numpy(), index=list(matrix.source_tasks), columns=list(matrix.targets))
    return table.groupby(level=0, sort=False).mean()
