"""What a study comes down to: the transfer matrix of each model and method, and who is ahead in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.matrices import shared_prefix
from prompttransfer.study.methods import called
from prompttransfer.study.results.long_table import OWN, ZERO_SHOT, raw_scores, with_methods
from prompttransfer.transfers.matrix import NO_PROMPT, REFERENCE_ROWS

if TYPE_CHECKING:
    import pandas as pd

EQUAL = 0.0005
"""Means that are closer look the same where three decimals are shown."""


def mean_matrices(results: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """(backbone, method) -> test scores, rows sources and then references, columns targets; mean over seeds."""
    import pandas as pd

    scores = raw_scores(with_methods(results))
    found = {}
    for (backbone, method), part in scores.groupby(["backbone", "method"], sort=False):
        shots = part[part["condition"].isin([OWN, ZERO_SHOT])]
        if shots.empty:
            continue
        targets = list(dict.fromkeys(shots["target"]))
        sources = list(dict.fromkeys(shots["source"]))
        matrix = shots.pivot_table(index="source", columns="target", values="value", aggfunc="mean")
        below = part[part["condition"].isin(REFERENCE_ROWS)].pivot_table(
            index="condition", columns="target", values="value", aggfunc="mean"
        )
        order = [row for row in REFERENCE_ROWS if row in below.index]
        # Tasks that are both come first and in one order: own prompts then stand on the diagonal.
        columns = [task for task in sources if task in targets] + [t for t in targets if t not in sources]
        parts = [matrix.reindex(index=sources, columns=columns), below.reindex(index=order, columns=columns)]
        found[str(backbone), str(method)] = pd.concat([each for each in parts if len(each)])
    return found


def shown(matrix: pd.DataFrame) -> tuple[list[str], list[tuple[str, list[str], bool]]]:
    """Columns, and rows as (name, cells, whether it is a reference), for people: what all names begin with is left out."""
    prefix = shared_prefix([str(column) for column in matrix.columns])
    rows = []
    for name, values in zip(matrix.index, matrix.to_numpy(dtype=float), strict=True):
        cells = ["\N{EN DASH}" if value != value else f"{value:.3f}" for value in values]
        rows.append((str(name).removeprefix(prefix), cells, name in REFERENCE_ROWS))
    return [str(column).removeprefix(prefix) for column in matrix.columns], rows


def winners(results: pd.DataFrame) -> list[str]:
    """Lines on who is ahead: of several models or methods, and of the sources of each. Metrics are not averaged together."""
    return [
        *best_own(results),
        *(
            f"Best source on {called(backbone, method)}: {best}, {gain:+.3f} {metric} against no prompt, mean over "
            f"the other tasks."
            for (backbone, method, metric), (best, gain) in best_sources(results).items()
        ),
    ]


def best_own(results: pd.DataFrame) -> list[str]:
    """Of several models or methods the one with the best mean of own prompts, over the tasks that all have."""
    scores = raw_scores(with_methods(results))
    lines = []
    for metric, part in scores[scores["condition"] == OWN].groupby("measure", sort=False):
        table = part.pivot_table(
            index=["backbone", "method"], columns="target", values="value", aggfunc="mean"
        )
        common = table.dropna(axis="columns")
        if len(table) < 2 or not len(common.columns):
            continue
        means = common.mean(axis="columns").sort_values(ascending=False)
        first, second = (called(*means.index[place]) for place in (0, 1))
        seeds = part["seed"].nunique()
        over = f"mean over {len(common.columns)} task{'s' * (len(common.columns) > 1)} and {seeds} seed{'s' * (seeds > 1)}"
        if means.iloc[0] - means.iloc[1] < EQUAL:
            lines.append(f"Highest own {metric}: {first} and {second} alike, {means.iloc[0]:.3f} ({over}).")
        else:
            values = f"{first} {means.iloc[0]:.3f}, then {second} {means.iloc[1]:.3f}"
            lines.append(f"Highest own {metric}: {values} ({over}).")
    return lines


def best_sources(results: pd.DataFrame) -> dict[tuple[str, str, str], tuple[str, float]]:
    """(backbone, method, metric) -> the source that does best on tasks of others, and its mean gain over no prompt there."""
    scores = raw_scores(with_methods(results))
    found = {}
    for (backbone, method, metric), part in scores.groupby(["backbone", "method", "measure"], sort=False):
        shots = part[part["condition"] == ZERO_SHOT]
        if shots["source"].nunique() < 2:
            continue
        none = part[part["condition"] == NO_PROMPT].groupby("target")["value"].mean()
        # Over no prompt, target by target: sources are not scored on the same targets, each lacks its own.
        gains = shots.groupby(["source", "target"])["value"].mean().sub(none, level="target")
        means = gains.dropna().groupby("source").mean()
        if means.empty:
            continue
        found[str(backbone), str(method), str(metric)] = (str(means.idxmax()), float(means.max()))
    return found
