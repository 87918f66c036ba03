"""Landscapes: loss and score between adaptations, along the line through two or over the plane through three.

A place is the weighted sum of the adaptations, (1 - t, t) on a line and (1 - a - b, a, b) on a plane, so the corners are the
adaptations themselves; every place is a member of one bank (adaptations/mixtures.py). Between LoRAs it is their products
that are summed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import torch

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.arithmetic import parts_of
from prompttransfer.adaptations.mixtures import mixture_bank
from prompttransfer.adaptations.running import common_encoding
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import evaluate_bank
from tasks.errors import UserError
from tasks.task import Example, Task

MARGIN = 0.25
"""How far beyond the adaptations a line or plane goes, in units of their distance."""


def landscape(
    backbone: Backbone,
    adaptations: Sequence[Adaptation],
    task: Task,
    examples: Sequence[Example],
    *,
    points: int = 13,
    margin: float = MARGIN,
    encoding: Encoding = USUAL,
    advance: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """One line a place: `a` (and `b` on a plane), the weights by name, `score` and `loss` (NaN where text is written).

    `points` is how many places lie along each side. Raises UserError unless two or three adaptations that can be composed are
    given.
    """
    if len(adaptations) not in (2, 3):
        raise UserError(
            f"a line is through two adaptations and a plane through three; given {len(adaptations)}"
        )
    used = common_encoding(backbone, adaptations, encoding)
    parts = parts_of(adaptations, [1.0] * len(adaptations))
    steps = torch.linspace(-margin, 1 + margin, points, dtype=torch.float64)
    grid = torch.cartesian_prod(*[steps] * (len(adaptations) - 1)).reshape(-1, len(adaptations) - 1)
    weights = torch.cat([1 - grid.sum(dim=1, keepdim=True), grid], dim=1)
    reserved = adaptations[0].length if adaptations[0].has_vectors else 0
    encoded = encode_task(backbone, task, examples, used, reserved=reserved)
    bank = mixture_bank(backbone, parts, weights)
    scores = evaluate_bank(backbone, bank, encoded, advance=advance)
    table = pd.DataFrame(grid.numpy(), columns=["a", "b"][: grid.shape[1]])
    for place, each in enumerate(adaptations):
        table[each.name] = weights[:, place].numpy()
    table["score"] = [score.value for score in scores]
    table["loss"] = [float("nan") if score.loss is None else score.loss for score in scores]
    return table
