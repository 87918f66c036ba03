"""Statistics of a study: means and spread over seeds, paired differences, speed-ups, each with how sure one may be.

The unit of doubt is named: `over: tasks` takes tasks as the pairs (each value a mean over seeds), `over: seeds` seeds
(each a mean over tasks of one metric). p values come from flips of signs, corrected by Holm within a family; intervals
are what that test does not reject, so that the two never contradict each other (analysis/statistics.py). From one seed
no p value is given, whatever the tasks say. Fewer than six pairs cannot come out significant at 5 % whatever they are:
they have no interval, are left out of the correction, and the table says so. Speed-ups are ranges (transfers/speedups.py): they
have medians and sign tests instead.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from analysis.prediction import PREDICTION_COLUMNS
from analysis.statistics import (
    Interval,
    PairedDifference,
    holm,
    paired_difference,
    pairs_needed,
    refused_claim,
    smallest_p,
)
from prompttransfer.study.results import long_table as r
from prompttransfer.transfers.speedups import Range, median_interval, median_range, sign_test

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05

SUMMARY_KEYS = (
    "kind",
    "backbone",
    "method",
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
    "method": "what was trained",
    "comparison": "what is compared, as first minus second, or as a ratio of steps for speed-ups",
    "over": "what the pairs are: tasks (values are means over seeds) or seeds (means over tasks)",
    "value": "mean difference; for a speed-up the median ratio",
    "low": "lower end of the 95 % interval: the least mean that sign flips do not reject (of a speed-up the least median "
    "that a sign test does not); empty for fewer than six pairs",
    "high": "upper end",
    "p": "two-sided p value by sign flips, for other tasks or other seeds as `over` says; empty from one seed",
    "p_holm": "p corrected by Holm within the family and unit; empty where no p could be 0.05 or less",
    "smallest_p": "the smallest p that so many pairs can give: 0.25 of 3, 0.125 of 4, 0.031 of 6",
    "smallest_p_holm": "the smallest that p_holm could be; above 0.05 nothing can come out significant",
    "significant": "yes or no at 0.05 after correction; empty where it may not be claimed or cannot be shown",
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
    one = (
        r.with_methods(table)
        .groupby([*SUMMARY_KEYS, "seed"], sort=False, dropna=False)
        .agg(value=("value", "mean"), rows=("rows", "max"))
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
    method: str
    comparison: str
    over: str
    difference: PairedDifference
    tasks: int
    seeds: int
    notes: tuple[str, ...] = ()
    p_holm: float | None = None
    family_size: int = 0
    """Comparisons whose p values were corrected together; 0 where this one was not among them."""

    @property
    def smallest_p(self) -> float | None:
        """The smallest p value that its pairs can give."""
        return self.difference.smallest_p

    @property
    def can_be_significant(self) -> bool:
        """Whether so many pairs can give a p value of LEVEL or less before any correction."""
        return self.smallest_p is not None and self.smallest_p <= LEVEL

    def as_row(self) -> dict[str, object]:
        """With the columns of COMPARISON_COLUMNS."""
        refused = refused_claim(self.seeds)
        smallest = min(1.0, self.family_size * (self.smallest_p or 0)) if self.family_size else None
        claimed = self.p_holm is not None and smallest is not None and smallest <= LEVEL
        notes = [*self.notes, refused, self.difference.interval.reason]
        if smallest is not None and not claimed:
            notes.append(
                f"cannot come out significant: p of {self.difference.pairs} pairs, corrected for "
                f"{self.family_size} comparisons, is {smallest:.3g} at least"
            )
        return {
            "family": self.family,
            "backbone": self.backbone,
            "method": self.method,
            "comparison": self.comparison,
            "over": self.over,
            "value": self.difference.mean,
            "low": self.difference.interval.low,
            "high": self.difference.interval.high,
            "p": None if refused else self.difference.p_value,
            "p_holm": self.p_holm,
            "smallest_p": self.smallest_p,
            "smallest_p_holm": smallest,
            "significant": ("yes" if (self.p_holm or 0) <= LEVEL else "no") if claimed else "",
            "pairs": self.difference.pairs,
            "tasks": self.tasks,
            "seeds": self.seeds,
            "note": "; ".join(filter(None, notes)),
        }


def comparisons(table: pd.DataFrame) -> pd.DataFrame:
    """All comparisons of a study, corrected by Holm within each family and unit of doubt."""
    import pandas as pd

    table = r.with_methods(table)
    found = [*_transfer(table), *_tuned(table), *_projected(table), *_methods(table)]
    return pd.DataFrame([one.as_row() for one in corrected(found)], columns=list(COMPARISON_COLUMNS))


def corrected(found: Sequence[Comparison]) -> list[Comparison]:
    """Holm's correction within families, over the comparisons of several seeds that could come out significant at all."""
    families: dict[tuple[str, str], dict[str, float]] = {}
    for index, one in enumerate(found):
        if one.difference.p_value is not None and one.can_be_significant and not refused_claim(one.seeds):
            families.setdefault((one.family, one.over), {})[str(index)] = one.difference.p_value
    values = {
        int(index): (p, len(family)) for family in families.values() for index, p in holm(family).items()
    }
    return [
        replace(one, p_holm=values[index][0], family_size=values[index][1]) if index in values else one
        for index, one in enumerate(found)
    ]


def metrics_of(table: pd.DataFrame) -> dict[str, str]:
    """Target -> its metric, as the scores say."""
    scores = r.raw_scores(table)
    return dict(zip(map(str, scores["target"]), map(str, scores["measure"]), strict=True))


def by_metric(rows: pd.DataFrame, metrics: Mapping[str, str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """(", " and the metric, its rows) for every metric of the targets; one part without a name where there is one.

    Scores of different metrics have no mean.
    """
    known = rows["target"].map(lambda target: metrics.get(str(target), ""))
    if known.nunique() < 2:
        yield "", rows
        return
    for metric, part in rows.groupby(known, sort=False):
        yield f", {metric or 'unknown metric'}", part


def compare(
    family: str,
    of: tuple[str, str],
    name: str,
    first: pd.DataFrame,
    second: pd.DataFrame,
) -> Iterator[Comparison]:
    """Differences of two tables [targets, seeds] of one backbone and method, over tasks and over seeds.

    Nothing where they share no place.
    """
    difference = (first - second).dropna(how="all").dropna(how="all", axis=1)
    if difference.empty:
        return
    tasks, seeds = difference.shape
    drawn = [("tasks", difference.mean(axis=1)), ("seeds", difference.mean(axis=0))]
    for over, values in drawn[: 1 + (seeds > 1)]:
        paired = paired_difference(values.to_numpy(dtype=float), [0.0] * len(values))
        yield Comparison(family, *of, name, over, paired, tasks, seeds)


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """[targets, seeds], mean over sources and draws."""
    return table.pivot_table(index="target", columns="seed", values="value", aggfunc="mean").astype(float)


REFERENCES = ("random prompt", "random adaptation", "no prompt")
PAIRS_OF_CONDITIONS = (
    (r.SAME, r.DIFFERENT),
    (r.SAME, "random prompt"),
    (r.SAME, "random adaptation"),
    (r.SAME, "no prompt"),
    (r.DIFFERENT, "random prompt"),
    (r.DIFFERENT, "random adaptation"),
    (r.SAME, r.OWN),
)
"""What zero-shot transfer is compared with."""


def _transfer(table: pd.DataFrame) -> Iterator[Comparison]:
    """Zero-shot transfer by relation of source and target, against one another and the references."""
    scores, metrics = r.raw_scores(table), metrics_of(table)
    for (backbone, method), rows in scores.groupby(["backbone", "method"], sort=False):
        of = (str(backbone), str(method))
        for metric, own in by_metric(rows, metrics):
            shots = own[own["condition"] == r.ZERO_SHOT]
            tables = {
                relation: wide(shots[shots["relation"] == relation]) for relation in (r.SAME, r.DIFFERENT)
            }
            tables |= {
                condition: wide(own[own["condition"] == condition]) for condition in (r.OWN, *REFERENCES)
            }
            for first, second in PAIRS_OF_CONDITIONS:
                name = f"{first} minus {second}{metric}"
                yield from compare("zero-shot", of, name, tables[first], tables[second])


def gains_over_no_prompt(table: pd.DataFrame) -> Iterator[tuple[str, str, str, dict[str, float]]]:
    """(model, method, metric, relation -> mean gain), each target a mean over seeds.

    The gain is zero-shot transfer less no prompt, a mean over targets.
    """
    table = r.with_methods(table)
    scores = table[table["kind"] == "score"]
    for (backbone, method, metric), own in scores.groupby(["backbone", "method", "measure"], sort=False):
        none = wide(own[own["condition"] == "no prompt"]).mean(axis=1)
        shots = own[own["condition"] == r.ZERO_SHOT]
        gains = {
            relation: (wide(shots[shots["relation"] == relation]).mean(axis=1) - none).dropna()
            for relation in (r.SAME, r.DIFFERENT)
        }
        yield (
            str(backbone),
            str(method),
            str(metric),
            {relation: float(g.mean()) for relation, g in gains.items() if len(g)},
        )


def _tuned(table: pd.DataFrame) -> Iterator[Comparison]:
    """Training from prompts against training from scratch: test score and both speed-ups."""
    for condition, family in ((r.FROM_SOURCE, "TPT_task"), (r.FROM_PROJECTED, "TPT_model")):
        runs = table[(table["kind"] == "tuned") & (table["condition"] == condition)]
        keys = ["backbone", "method", "by"]
        for (backbone, method, by), group in runs.groupby(keys, sort=False, dropna=False):
            of = (str(by) or str(backbone), str(method))
            for relation, part in [
                ("", group),
                *((f", {k}", p) for k, p in group.groupby("relation", sort=False)),
            ]:
                if relation and group["relation"].nunique() < 2:
                    continue
                yield from _one_tuned(family, of, relation, part, metrics_of(table))


def _one_tuned(
    family: str, of: tuple[str, str], relation: str, runs: pd.DataFrame, metrics: Mapping[str, str]
) -> Iterator[Comparison]:
    for metric, part in by_metric(runs, metrics):
        tested, beside = (wide(part[part["measure"] == measure]) for measure in ("test", "test from scratch"))
        yield from compare(family, of, f"test score minus scratch{relation}{metric}", tested, beside)
    for measure in ("convergence speed-up", "comparable speed-up"):
        ratios = runs[runs["measure"] == measure]
        if len(ratios):
            yield from _speed_up(family, of, f"{measure}{relation}", ratios)


def _speed_up(family: str, of: tuple[str, str], name: str, runs: pd.DataFrame) -> Iterator[Comparison]:
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
            *of,
            name,
            over,
            _difference(values, known),
            counted["target"].nunique(),
            counted["seed"].nunique(),
            notes=(*said, *notes),
        )


def _difference(values: Sequence[float], ranges: Sequence[Range]) -> PairedDifference:
    """The median with the sign test's interval and p value, in the form that every comparison has."""
    found, count = median_interval(ranges), len(ranges)
    reason = (
        ""
        if found
        else (
            f"no 95% interval: a sign test of {count} pairs cannot give a p below {smallest_p(count):.3g}, at least "
            f"{pairs_needed()} pairs are needed"
        )
    )
    low, high = (found.low, found.high) if found else (None, None)
    middle = statistics.median(values) if values else None
    return PairedDifference(middle, Interval(low, high, reason), sign_test(ranges), count, smallest_p(count))


def _projected(table: pd.DataFrame) -> Iterator[Comparison]:
    """Projected prompts against every control of their report, by group of tasks."""
    cells = table[table["kind"] == "projector"]
    metrics = dict(zip(map(str, cells["target"]), map(str, cells["measure"]), strict=True))
    for (by, method, group), rows in cells.groupby(["by", "method", "relation"], sort=False):
        for metric, part in by_metric(rows, metrics):
            tables = {condition: wide(found) for condition, found in part.groupby("condition", sort=False)}
            for control in ("random source", "mean constant", "tuned constant", "own prompt", "no prompt"):
                if "projected" in tables and control in tables:
                    name = f"projected minus {control}, {group}{metric}"
                    of = (str(by), str(method))
                    yield from compare("projectors", of, name, tables["projected"], tables[control])


def _methods(table: pd.DataFrame) -> Iterator[Comparison]:
    """Every method against the study's first on the same backbone, tasks and seeds: own score, and zero-shot by relation."""
    scores, metrics = r.raw_scores(table), metrics_of(table)
    wanted = {
        r.OWN: ("condition", r.OWN),
        r.SAME: ("relation", r.SAME),
        r.DIFFERENT: ("relation", r.DIFFERENT),
    }
    scores = scores[scores["condition"].isin([r.OWN, r.ZERO_SHOT])]
    for backbone, rows in scores.groupby("backbone", sort=False):
        first, *others = dict.fromkeys(map(str, rows["method"]))
        for other in others:
            for metric, part in by_metric(rows, metrics):
                for name, (column, value) in wanted.items():
                    chosen = part[part[column] == value]
                    one, two = (wide(chosen[chosen["method"] == method]) for method in (other, first))
                    if not (one.empty or two.empty):
                        what = "own score" if name == r.OWN else name
                        yield from compare(
                            "methods",
                            (str(backbone), other),
                            f"{what}, {other} minus {first}{metric}",
                            one,
                            two,
                        )


INDICATOR_COLUMNS = {
    "backbone": "the model that was run",
    "method": "what was trained",
    "indicator": "the indicator; same-type is the flag that it has to beat",
    **PREDICTION_COLUMNS,
    "seeds": "number of seeds behind the scores",
    "note": "why there is no p value, and which cannot come out significant",
}
"""Column of indicators.csv -> what it is."""


def predictions(table: pd.DataFrame, types: dict[str, str]) -> pd.DataFrame:
    """Whether indicators predict zero-shot transfer, one row an indicator, backbone and method (`correlate` in a table).

    Means over seeds; p values are left out of a study of one seed, as `correlate` leaves them out.
    """
    import pandas as pd

    from analysis.prediction import predict_transfer, prediction_table, smallest_p_values

    found = []
    table = r.with_methods(table)
    indicators, metrics = table[table["kind"] == "indicator"], metrics_of(table)
    for (backbone, method), own in r.raw_scores(table).groupby(["backbone", "method"], sort=False):
        shots = own[own["condition"].isin([r.OWN, r.ZERO_SHOT])]
        transfer = shots.pivot_table(index="source", columns="target", values="value", aggfunc="mean")
        measured = indicators[(indicators["backbone"] == backbone) & (indicators["method"] == method)]
        tables = {
            str(by): part.pivot_table(index="source", columns="target", values="value", aggfunc="mean")
            for by, part in measured.groupby("by", sort=False)
        }
        if not tables or len(transfer) < 2:
            continue
        transfer = transfer.div(
            [transfer.loc[t, t] if transfer.loc[t, t] > 0 else float("nan") for t in transfer.columns]
        )
        seeds = int(shots["seed"].nunique())
        answers = predict_transfer(transfer, tables, types, metrics=metrics, seeds=seeds, common=True)
        notes = [refused_claim(seeds), *smallest_p_values(answers)]
        rows = prediction_table(answers)
        rows.insert(0, "backbone", str(backbone))
        rows.insert(1, "method", str(method))
        rows.insert(2, "indicator", rows.index)
        found.append(rows.assign(seeds=seeds, note="; ".join(filter(None, notes))))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(INDICATOR_COLUMNS))
