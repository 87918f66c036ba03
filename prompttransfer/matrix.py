"""Transfer matrices: rows are source prompts, columns target tasks, each cell what the source's vectors score there.

Beside the sources stand reference rows, without which a score means little: no prompt, a random prompt at matched
norm, the majority class. A cell that cannot be (a masked LM asked to summarise) is NaN and its reason is kept.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

NO_PROMPT, RANDOM_PROMPT, MAJORITY = "no prompt", "random prompt", "majority"
REFERENCE_ROWS = (NO_PROMPT, RANDOM_PROMPT, MAJORITY)
MEANINGS = {
    "raw": "the target's metric, 0 to 1",
    "relative": "the target's metric over that of the target's own prompt",
}


@dataclass(frozen=True)
class TransferMatrix:
    """Scores with labels; `values` is [sources, targets] float64, NaN where a cell cannot be."""

    sources: tuple[str, ...]
    source_tasks: tuple[str, ...]
    """The task that each row was trained on; a reference row's own name."""
    targets: tuple[str, ...]
    values: Tensor
    meaning: str = "raw"
    metrics: tuple[str, ...] = ()
    """The metric of each target."""
    rows: tuple[int, ...] = ()
    """Number of test rows of each target."""
    impossible: Mapping[str, str] = field(default_factory=dict)
    """target -> why no cell of its column could be computed."""

    def __post_init__(self) -> None:
        if tuple(self.values.shape) != (len(self.sources), len(self.targets)):
            raise ValueError(
                f"matrix is {list(self.values.shape)}, labels are {len(self.sources)} x {len(self.targets)}"
            )

    def own(self) -> Tensor:
        """The score of each target's own prompt (mean over its seeds), [targets]; NaN where there is none."""
        columns = []
        for column, target in enumerate(self.targets):
            rows = [row for row, task in enumerate(self.source_tasks) if task == target]
            columns.append(self.values[rows, column].mean() if rows else torch.tensor(float("nan")))
        return torch.stack([column.double() for column in columns])

    def relative(self) -> TransferMatrix:
        """Each cell over the target's own prompt (Su et al. 2022, section 4).

        NaN where there is no own prompt, or one that scores 0, of which nothing is a share.
        """
        from dataclasses import replace

        own = self.own()
        return replace(self, values=self.values / own.where(own > 0, float("nan")), meaning="relative")

    def summary(self, types: Mapping[str, str]) -> dict[str, float]:
        """Mean cell by kind of pair (self left out), `types` being task -> type; NaN where there is no such pair.

        Scores of different metrics have no mean: where targets have several, every kind is one entry a metric
        (`same type, accuracy`).
        """
        metrics = self.metrics if len(set(self.metrics)) > 1 else [""] * len(self.targets)
        ends = {metric: f", {metric}" if metric else "" for metric in metrics}
        groups: dict[str, list[float]] = {
            kind + end: [] for end in ends.values() for kind in ("same type", "different type")
        }
        for row, task in enumerate(self.source_tasks):
            for column, target in enumerate(self.targets):
                value = float(self.values[row, column])
                if math.isnan(value) or task == target:
                    continue
                if task in REFERENCE_ROWS:
                    kind = task
                else:
                    kind = "same type" if types[task] == types[target] else "different type"
                groups.setdefault(kind + ends[metrics[column]], []).append(value)
        return {name: sum(found) / len(found) if found else float("nan") for name, found in groups.items()}

    def to_csv(self) -> str:
        """Labelled CSV: an empty corner, targets in the first line, an empty cell where there is no value."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["", *self.targets])
        for name, row in zip(self.sources, self.values.tolist(), strict=True):
            writer.writerow([name, *("" if math.isnan(value) else f"{value:.6f}" for value in row)])
        return stream.getvalue()

    def as_dict(self) -> dict[str, Any]:
        """For JSON; NaN becomes null."""
        return {
            "meaning": self.meaning,
            "explained": MEANINGS[self.meaning],
            "sources": list(self.sources),
            "source_tasks": list(self.source_tasks),
            "targets": list(self.targets),
            "metrics": list(self.metrics),
            "rows": list(self.rows),
            "impossible": dict(self.impossible),
            "values": [[None if math.isnan(v) else v for v in row] for row in self.values.tolist()],
        }


def random_like(vectors: Sequence[Tensor], *, draws: int, seed: int) -> Tensor:
    """Random prompts at the norm of the given ones, [draws, length, width].

    Normal vectors whose Frobenius norm is the mean norm of `vectors`: the control for what any prompt of that size
    does.
    """
    generator = torch.Generator().manual_seed(seed)
    norm = torch.stack([v.norm() for v in vectors]).mean()
    noise = torch.randn(draws, *vectors[0].shape, generator=generator)
    return noise * (norm / noise.flatten(1).norm(dim=1))[:, None, None]
