"""Transfer matrices: rows are source prompts, columns target tasks, each cell what the source's vectors score there.

Beside the sources stand reference rows, without which a score means little: no prompt, as it is and with its label
words calibrated (evaluation/calibration.py), a random prompt at matched norm (adaptations/random_prompts.py), the
majority class. A cell that cannot be (a masked LM asked to summarise, a probe of other classes) is NaN and its reason
is kept.
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

from prompttransfer.adaptations.adaptation import Adaptation
from tasks.errors import UserError
from tasks.metrics import is_of_texts

NO_PROMPT, RANDOM_PROMPT, MAJORITY = "no prompt", "random prompt", "majority"
NO_PROMPT_CALIBRATED = "no prompt, calibrated"
RANDOM_ADAPTATION = "random adaptation"
"""The row of random ones where the sources are not all soft prompts."""
RANDOM_ROWS = (RANDOM_PROMPT, RANDOM_ADAPTATION)
IN_CONTEXT = "in-context"
"""The row of labelled rows in front of the text (transfers/in_context.py), where it was asked for."""
REFERENCE_ROWS = (NO_PROMPT, NO_PROMPT_CALIBRATED, *RANDOM_ROWS, IN_CONTEXT, MAJORITY)
OPTIONAL_ROWS = (*RANDOM_ROWS, IN_CONTEXT)
"""Those that not every matrix has."""
MEANINGS = {
    "raw": "the target's metric, 0 to 1",
    "relative": "the target's metric over that of the target's own prompt",
    "calibrated": "the target's metric, 0 to 1, once the bias of the label words is taken off; `no prompt` is as it is",
}


def reference_rows(sources: Sequence[Adaptation]) -> tuple[str, ...]:
    """The rows that stand beneath those of the sources."""
    prompts = all(source.has_vectors for source in sources)
    return NO_PROMPT, NO_PROMPT_CALIBRATED, RANDOM_PROMPT if prompts else RANDOM_ADAPTATION, MAJORITY


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
    impossible_cells: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """source -> target -> why this cell could not be (a probe where classes differ)."""
    methods: tuple[str, ...] = ()
    """The method of each source; there are none for the reference rows behind them."""
    random_spread: tuple[float, ...] = ()
    """Of each target, the standard deviation over random draws of what the random row is the mean of."""
    random_draws: int = 0
    """How many random prompts those are."""
    in_context: str = ""
    """What the row `in-context` is the mean of, in words; empty where there is no such row."""
    in_context_spread: tuple[float, ...] = ()
    """Of each target, the standard deviation over its draws."""
    calibrated: TransferMatrix | None = None
    """The same cells with calibrated label words, where they were asked for."""
    calibration: str = ""
    """How label words were calibrated, in words."""

    def __post_init__(self) -> None:
        if tuple(self.values.shape) != (len(self.sources), len(self.targets)):
            raise ValueError(
                f"matrix is {list(self.values.shape)}, labels are {len(self.sources)} x {len(self.targets)}"
            )
        for spread in (self.random_spread, self.in_context_spread):
            if spread and len(spread) != len(self.targets):
                raise ValueError(f"{len(spread)} spreads for {len(self.targets)} targets")

    def own(self) -> Tensor:
        """The score of each target's own prompt (mean over its seeds), [targets]; NaN where there is none."""
        columns = []
        for column, target in enumerate(self.targets):
            rows = [row for row, task in enumerate(self.source_tasks) if task == target]
            columns.append(self.values[rows, column].mean() if rows else torch.tensor(float("nan")))
        return torch.stack([column.double() for column in columns])

    @property
    def written(self) -> tuple[str, ...]:
        """Targets whose answer is written, so that there are no label words to calibrate."""
        return tuple(
            target
            for target, metric in zip(self.targets, self.metrics, strict=False)
            if target not in self.impossible and is_of_texts(metric)
        )

    @property
    def headed(self) -> tuple[str, ...]:
        """Targets that a trained head answers, of which the model alone has none."""
        if NO_PROMPT not in self.sources:
            return ()
        alone = self.values[self.sources.index(NO_PROMPT)].tolist()
        return tuple(
            target
            for target, value in zip(self.targets, alone, strict=True)
            if math.isnan(value) and target not in self.impossible
        )

    @property
    def has_own(self) -> bool:
        """Whether some target has an own prompt that scores above 0, so that something is relative to it."""
        return bool((self.own() > 0).any())

    def relative(self) -> TransferMatrix:
        """Each cell over the target's own prompt (Su et al. 2022, section 4).

        NaN where there is no own prompt, or one that scores 0, of which nothing is a share. UserError where that holds
        for all targets.
        """
        from dataclasses import replace

        own = self.own()
        if not self.has_own:
            raise UserError(
                f"no score is relative to an own prompt here: none of the sources was trained on {', '.join(self.targets)} "
                "and scores above 0 there; give the targets' own prompts among the sources, or read the raw matrix"
            )
        own = own.where(own > 0, float("nan"))
        random, in_context = (
            tuple(s / o for s, o in zip(spread, own.tolist(), strict=False))
            for spread in (self.random_spread, self.in_context_spread)
        )
        return replace(
            self,
            values=self.values / own,
            meaning="relative",
            random_spread=random,
            in_context_spread=in_context,
            calibrated=None,
        )

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
            "impossible_cells": {source: dict(cells) for source, cells in self.impossible_cells.items()},
            "methods": list(self.methods),
            "calibration": self.calibration,
            "values": [_nulls(row) for row in self.values.tolist()],
            "random_draws": self.random_draws,
            "random_spread": _nulls(self.random_spread),
            **(
                {"in_context": self.in_context, "in_context_spread": _nulls(self.in_context_spread)}
                if self.in_context
                else {}
            ),
        }

    def random_csv(self) -> str:
        """The random row for itself: targets in the first line, then mean, spread and number of draws."""
        drawn = next(name for name in RANDOM_ROWS if name in self.sources)
        means = self.values[self.sources.index(drawn)].tolist()
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["", *self.targets])
        for name, row in (("mean", means), ("spread", self.random_spread)):
            writer.writerow([name, *("" if math.isnan(value) else f"{value:.6f}" for value in row)])
        writer.writerow(["draws", *([self.random_draws] * len(self.targets))])
        return stream.getvalue()


def _nulls(values: Sequence[float]) -> list[float | None]:
    """For JSON."""
    return [None if math.isnan(value) else value for value in values]
