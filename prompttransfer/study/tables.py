"""Statistics of a study: means and spread over seeds, paired differences, speed-ups, each with how sure one may be.

The unit of doubt is named: `over: tasks` draws tasks (each value a mean over seeds), `over: seeds` draws seeds (each a
mean over tasks). Intervals are bootstrap intervals, p values come from flips of signs and are corrected by Holm within a
family (analysis/statistics.py). Speed-ups are ranges, so they have medians and sign tests (speedups.py). From one seed nothing is called significant, whatever the tasks say, and the table says
so; from fewer than four pairs there is no interval.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from analysis.statistics import Interval, PairedDifference, holm, paired_difference
from prompttransfer.speedups import Range, median_interval, median_range, sign_test
from prompttransfer.study import results as r

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05

SUMMARY_KEYS = (
    "kind",
    "backbone",
    "source_backbone",
    "source",
    "target",
    "relation",
    "condition",
    "by",
    "measure",
)

COMPARISON_COLUMNS = {
    "family": "comparisons whose p values are corrected together",
    "backbone": "the model that was run; for a projector what it joins and how it was fitted",
    "comparison": "what is compared, as first minus second, or as a ratio of steps for speed-ups",
    "over": "what is drawn in the bootstrap: tasks (values are means over seeds) or seeds (means over tasks)",
    "value": "mean difference; for a speed-up the median ratio",
    "low": "lower end of the 95 % bootstrap interval",
    "high": "upper end",
    "p": "two-sided p value by sign flips; empty from one seed",
    "p_holm": "p corrected by Holm within the family",
    "significant": "yes or no at 0.05 after correction; empty where it may not be claimed",
    "pairs": "number of pairs behind the value",
    "tasks": "number of target tasks",
    "seeds": "number of seeds",
    "note": "why there is no interval or claim, and which values are bounds or missing",
}
"""Column of comparisons.csv -> what it is."""


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread (standard deviation) over seeds of every value, with least, most, seeds and test rows.

    The spread of one seed is empty, not 0.
    """
    one = table.groupby([*SUMMARY_KEYS, "seed"], sort=False, dropna=False).agg(
        value=("value", "mean"), rows=("rows", "max")
    )
    groups = one.reset_index().groupby(list(SUMMARY_KEYS), sort=False, dropna=False)
    found = groups.agg(
        mean=("value", "mean"),
        spread=("value", "std"),
        least=("value", "min"),
        most=("value", "max"),
        seeds=("value", "count"),
        rows=("rows", "max"),
    )
    return found.reset_index()


@dataclass(frozen=True)
class Comparison:
    """One comparison over one unit of doubt."""

    family: str
    backbone: str
    comparison: str
    over: str
    difference: PairedDifference
    tasks: int
    seeds: int
    ratio: bool = False
    notes: tuple[str, ...] = ()
    p_holm: float | None = None

    def as_row(self) -> dict[str, object]:
        """With the columns of COMPARISON_COLUMNS."""
        show: Callable[[float | None], float | None] = _exp if self.ratio else _same
        claimed = self.p_holm is not None
        notes = [*self.notes]
        if self.seeds < 2:
            notes.append("one seed: no significance is claimed")
        if self.difference.interval.reason:
            notes.append(self.difference.interval.reason)
        return {
            "family": self.family,
            "backbone": self.backbone,
            "comparison": self.comparison,
            "over": self.over,
            "value": show(self.difference.mean),
            "low": show(self.difference.interval.low),
            "high": show(self.difference.interval.high),
            "p": self.difference.p_value if claimed else None,
            "p_holm": self.p_holm,
            "significant": ("yes" if (self.p_holm or 0) < LEVEL else "no") if claimed else "",
            "pairs": self.difference.pairs,
            "tasks": self.tasks,
            "seeds": self.seeds,
            "note": "; ".join(notes),
        }


def _exp(value: float | None) -> float | None:
    return None if value is None else math.exp(value)


def _same(value: float | None) -> float | None:
    return value


def comparisons(table: pd.DataFrame) -> pd.DataFrame:
    """All comparisons of a study, corrected by Holm within each family and unit of doubt."""
    import pandas as pd

    found = [*_transfer(table), *_tuned(table), *_projected(table)]
    return pd.DataFrame([one.as_row() for one in corrected(found)], columns=list(COMPARISON_COLUMNS))


def corrected(found: Sequence[Comparison]) -> list[Comparison]:
    """Holm's correction within families; one seed has no p value that may be claimed."""
    families: dict[tuple[str, str], dict[str, float]] = {}
    for index, one in enumerate(found):
        if one.difference.p_value is not None and one.seeds > 1:
            families.setdefault((one.family, one.over), {})[str(index)] = one.difference.p_value
    values = {int(index): p for family in families.values() for index, p in holm(family).items()}
    return [replace(one, p_holm=values.get(index)) for index, one in enumerate(found)]


def compare(
    family: str,
    backbone: str,
    name: str,
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    ratio: bool = False,
    notes: tuple[str, ...] = (),
) -> Iterator[Comparison]:
    """Differences of two tables [targets, seeds], over tasks and over seeds; nothing where they share no place."""
    difference = (first - second).dropna(how="all").dropna(how="all", axis=1)
    if difference.empty:
        return
    tasks, seeds = difference.shape
    drawn = [("tasks", difference.mean(axis=1)), ("seeds", difference.mean(axis=0))]
    for over, values in drawn[: 1 + (seeds > 1)]:
        paired = paired_difference(values.to_numpy(dtype=float), [0.0] * len(values))
        yield Comparison(family, backbone, name, over, paired, tasks, seeds, ratio, notes)


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """[targets, seeds], mean over sources and draws."""
    return table.pivot_table(index="target", columns="seed", values="value", aggfunc="mean").astype(float)


PAIRS_OF_CONDITIONS = (
    (r.SAME, r.DIFFERENT),
    (r.SAME, "random prompt"),
    (r.SAME, "no prompt"),
    (r.DIFFERENT, "random prompt"),
    (r.SAME, r.OWN),
)
"""What zero-shot transfer is compared with."""


def _transfer(table: pd.DataFrame) -> Iterator[Comparison]:
    """Zero-shot transfer by relation of source and target, against one another and the references."""
    scores = table[table["kind"] == "score"]
    for backbone, own in scores.groupby("backbone", sort=False):
        shots = own[own["condition"] == r.ZERO_SHOT]
        tables = {relation: wide(shots[shots["relation"] == relation]) for relation in (r.SAME, r.DIFFERENT)}
        tables |= {
            condition: wide(own[own["condition"] == condition])
            for condition in (r.OWN, "random prompt", "no prompt")
        }
        for first, second in PAIRS_OF_CONDITIONS:
            yield from compare(
                "zero-shot", str(backbone), f"{first} minus {second}", tables[first], tables[second]
            )


def _tuned(table: pd.DataFrame) -> Iterator[Comparison]:
    """Training from prompts against training from scratch: test score and both speed-ups."""
    for condition, family in ((r.FROM_SOURCE, "TPT_task"), (r.FROM_PROJECTED, "TPT_model")):
        runs = table[(table["kind"] == "tuned") & (table["condition"] == condition)]
        for (backbone, by), group in runs.groupby(["backbone", "by"], sort=False, dropna=False):
            name = str(by) or str(backbone)
            for relation, part in [
                ("", group),
                *((f", {k}", p) for k, p in group.groupby("relation", sort=False)),
            ]:
                if relation and group["relation"].nunique() < 2:
                    continue
                yield from _one_tuned(family, name, relation, part)


def _one_tuned(family: str, name: str, relation: str, runs: pd.DataFrame) -> Iterator[Comparison]:
    tested, beside = (wide(runs[runs["measure"] == measure]) for measure in ("test", "test from scratch"))
    yield from compare(family, name, f"test score minus scratch{relation}", tested, beside)
    for measure in ("convergence speed-up", "comparable speed-up"):
        ratios = runs[runs["measure"] == measure]
        if len(ratios):
            yield from _speed_up(family, name, f"{measure}{relation}", ratios)


def _speed_up(family: str, backbone: str, name: str, runs: pd.DataFrame) -> Iterator[Comparison]:
    """Medians of speed-ups over tasks and over seeds, each the median of its runs; runs that never got there count."""
    counted = runs[runs["low"].notna()]
    counts = runs["bound"].value_counts()
    notes = [
        f"{counts[bound]} of {len(runs)} runs: {bound}"
        for bound in ("did not learn", "never reached", "scratch learned nothing", "at least")
        if bound in counts
    ]
    for over, key in [("tasks", "target"), ("seeds", "seed")][: 1 + (runs["seed"].nunique() > 1)]:
        groups = [group for _, group in counted.groupby(key, sort=False)]
        ranges = [
            median_range([Range(low, high) for low, high in zip(group["low"], group["high"], strict=True)])
            for group in groups
        ]
        known = [found for found in ranges if found is not None]
        # A run that never got there stands at its upper bound, which is right for the median while most runs got there.
        values = [float(group["value"].fillna(group["high"]).median()) for group in groups]
        said = [f"median lies in {middle}"] if (middle := median_range(known)) else []
        yield Comparison(
            family,
            backbone,
            name,
            over,
            _difference(values, known),
            counted["target"].nunique(),
            counted["seed"].nunique(),
            notes=(*said, *notes),
        )


def _difference(values: Sequence[float], ranges: Sequence[Range]) -> PairedDifference:
    """The median with the sign test's interval and p value, in the form that every comparison has."""
    found = median_interval(ranges)
    reason = "" if found else f"no interval of the median from {len(ranges)}: at least 6 are needed"
    low, high = (found.low, found.high) if found else (None, None)
    mean = statistics.median(values) if values else None
    p_value = sign_test(ranges) if found else None
    return PairedDifference(mean, Interval(low, high, reason), p_value, len(ranges))


def _projected(table: pd.DataFrame) -> Iterator[Comparison]:
    """Projected prompts against every control of their report, by group of tasks."""
    cells = table[table["kind"] == "projector"]
    for (by, group), part in cells.groupby(["by", "relation"], sort=False):
        tables = {condition: wide(rows) for condition, rows in part.groupby("condition", sort=False)}
        for control in ("random source", "mean constant", "tuned constant", "own prompt", "no prompt"):
            if "projected" in tables and control in tables:
                name = f"projected minus {control}, {group}"
                yield from compare("projectors", str(by), name, tables["projected"], tables[control])


def predictions(table: pd.DataFrame, types: dict[str, str]) -> pd.DataFrame:
    """Whether indicators predict zero-shot transfer, one row an indicator and backbone (`correlate` in a table).

    Means over seeds; p values are left out of a study of one seed.
    """
    import pandas as pd

    from analysis.prediction import predict, prediction_table

    found = []
    indicators = table[table["kind"] == "indicator"]
    for backbone, own in table[table["kind"] == "score"].groupby("backbone", sort=False):
        shots = own[own["condition"].isin([r.OWN, r.ZERO_SHOT])]
        transfer = shots.pivot_table(index="source", columns="target", values="value", aggfunc="mean")
        measured = indicators[indicators["backbone"] == backbone]
        tables = {
            str(by): part.pivot_table(index="source", columns="target", values="value", aggfunc="mean")
            for by, part in measured.groupby("by", sort=False)
        }
        if not tables or len(transfer) < 2:
            continue
        transfer = transfer.div(
            [transfer.loc[t, t] if transfer.loc[t, t] > 0 else float("nan") for t in transfer.columns]
        )
        answers = prediction_table(predict(transfer, tables, types, common=True))
        seeds = int(shots["seed"].nunique())
        if seeds < 2:
            answers[["p_permutation", "p_minus_same_type"]] = float("nan")
        answers.insert(0, "backbone", str(backbone))
        answers.insert(1, "indicator", answers.index)
        found.append(
            answers.assign(seeds=seeds, note="one seed: no significance is claimed" if seeds < 2 else "")
        )
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["backbone", "indicator"])
