"""Does an indicator predict transfer? One answer per indicator: rank correlation, doubt, and the choice it makes.

A same-type flag is always answered beside the indicators that are asked about (where types are known): it is free,
and an indicator that does not beat it tells nothing that the names of the tasks do not. Two questions are about that:
is the mean rho larger than the flag's (`minus same type`), and does the indicator order the sources within a type
better than chance (`within types`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from analysis.choice import ChoiceSummary, TargetChoice, choose_sources, summarise
from analysis.matrices import Aligned, align, same_type
from analysis.resampling import (
    Difference,
    PermutationTest,
    bootstrap_difference,
    jackknife_interval,
    permutation_test,
)
from analysis.statistics import (
    Interval,
    TargetCorrelation,
    correlate_targets,
    holm,
    mean_rho,
    refused_claim,
)

BASELINE = "same-type"
LEVEL = 0.05

PREDICTION_COLUMNS = {
    "mean_spearman": "mean over targets of Spearman's rho between indicator and transfer over the sources",
    "low": "lower end of its 95 % interval over tasks (jackknife)",
    "high": "upper end",
    "p_permutation": "one-sided p over tasks: share of shuffles of the tasks' names that do as well; empty from one seed",
    "p_permutation_holm": "the same, corrected by Holm over the indicators of the table",
    "smallest_p_permutation_holm": "the smallest that p_permutation_holm could be in a table of this size",
    "p_within_types": "one-sided p of shuffles within types alone: what the indicator tells beyond the task types",
    "p_within_types_holm": "the same, corrected by Holm",
    "smallest_p_within_types_holm": "the smallest that p_within_types_holm could be; above 0.05 nothing can come out significant",
    "targets": "number of targets that have a rank",
    "chosen": "mean score of the source that the indicator ranks first; empty where targets have different metrics",
    "best": "mean score of the best source",
    "regret": "best minus chosen",
    "random_regret": "what a source drawn at random loses",
    "ndcg_first": "NDCG at 1",
    "ndcg": "NDCG of the whole order",
    "minus_same_type": "mean over targets of the indicator's rho minus that of the same-type flag",
    "minus_low": "lower end of its 95 % interval over tasks (bootstrap, the same draws for both)",
    "minus_high": "upper end",
    "p_minus_same_type": "two-sided p of the same draws: twice the share on the far side of 0; empty from one seed",
    "p_minus_same_type_holm": "the same, corrected by Holm",
    "smallest_p_minus_same_type_holm": "the smallest that p_minus_same_type_holm could be",
}
"""Column of `prediction_table` -> what it is."""


@dataclass(frozen=True)
class Corrected:
    """A p value corrected by Holm over the indicators of a table, and the smallest that it could be there."""

    p_value: float | None
    """None where p values are withheld."""
    smallest: float
    family: int

    @property
    def can_be_significant(self) -> bool:
        """Whether a table of this size could give p of 0.05 or less."""
        return self.smallest <= LEVEL


@dataclass(frozen=True)
class Prediction:
    """What one indicator says about transfer; `against_baseline` is its rho minus the same-type flag's, by target.

    The p values are `test` (all tasks shuffled), `within` (shuffled within types; None without types) and that of
    `against_baseline`; each has its Holm correction beside it, which the same-type flag has not.
    """

    indicator: str
    targets: tuple[TargetCorrelation, ...]
    mean: float | None
    interval: Interval
    test: PermutationTest
    choices: tuple[TargetChoice, ...]
    choice: ChoiceSummary | None
    """Means over all targets; None where they are scored by different metrics."""
    choice_by_metric: Mapping[str, ChoiceSummary] = field(default_factory=dict)
    within: PermutationTest | None = None
    against_baseline: Difference | None = None
    test_holm: Corrected | None = None
    within_holm: Corrected | None = None
    against_holm: Corrected | None = None
    notes: tuple[str, ...] = ()

    @property
    def unranked(self) -> tuple[TargetCorrelation, ...]:
        """Targets without a rank, each with its reason."""
        return tuple(t for t in self.targets if t.rho is None)

    @property
    def predicts(self) -> bool | None:
        """Whether more than chance is shown (corrected p at most 0.05, mean above 0); None where no p may be given."""
        if self.test_holm is None or self.test_holm.p_value is None or self.mean is None:
            return None
        return self.mean > 0 and self.test_holm.p_value <= LEVEL


def predict_transfer(
    transfer: pd.DataFrame,
    indicators: Mapping[str, pd.DataFrame],
    types: Mapping[str, str] | None = None,
    *,
    metrics: Mapping[str, str] | None = None,
    seeds: int | None = None,
    include_self: bool = False,
    common: bool = False,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[Prediction, ...]:
    """Answer for every indicator, and for the same-type flag if `types` (task -> type) is given; best mean first.

    `seeds` is the number of seeds behind the tables: from one, p values are withheld (`refused_claim`); None leaves
    that to the caller. `metrics` (target -> metric) keeps scores of different metrics out of one mean.
    """
    pairs = {name: align(transfer, table, name, common=common) for name, table in indicators.items()}
    if types is not None and BASELINE not in pairs:
        tasks = [t for t in transfer.columns if all(t in pair.transfer.columns for pair in pairs.values())]
        table = same_type(tasks, types)
        pairs[BASELINE] = align(
            transfer.loc[[r for r in transfer.index if r in tasks], tasks], table, BASELINE
        )

    def answer(name: str, pair: Aligned) -> Prediction:
        targets, choices = correlate_targets(pair, include_self=include_self), choose_sources(pair)
        by_metric = _by_metric(choices, metrics or {})
        shuffled = {"include_self": include_self, "shuffles": draws, "seed": seed}
        inside = types is not None and name != BASELINE
        return Prediction(
            indicator=name,
            targets=targets,
            mean=mean_rho(targets),
            interval=jackknife_interval(pair, include_self=include_self),
            test=permutation_test(pair, **shuffled),  # type: ignore[arg-type]
            within=permutation_test(pair, types=types, **shuffled) if inside else None,  # type: ignore[arg-type]
            against_baseline=_against(pair, pairs.get(BASELINE), include_self, draws, seed),
            choices=choices,
            choice=next(iter(by_metric.values())) if len(by_metric) == 1 else None,
            choice_by_metric=by_metric,
            notes=pair.notes,
        )

    answers = [answer(name, pair) for name, pair in pairs.items()]
    if refused := refused_claim(seeds):
        answers = [_withheld(a, refused) for a in answers]
    ranked = sorted(answers, key=lambda p: -np.inf if p.mean is None else p.mean, reverse=True)
    return tuple(_corrected(ranked))


def _by_metric(choices: tuple[TargetChoice, ...], metrics: Mapping[str, str]) -> dict[str, ChoiceSummary]:
    """Metric ("" where none is known) -> the means over its targets."""
    names = dict.fromkeys(metrics.get(c.target, "") for c in choices)
    found = {
        name: summarise(tuple(c for c in choices if metrics.get(c.target, "") == name)) for name in names
    }
    return {name: summary for name, summary in found.items() if summary is not None}


def _against(
    pair: Aligned, baseline: Aligned | None, include_self: bool, draws: int, seed: int
) -> Difference | None:
    """The paired difference from the same-type flag over the tasks that both have; None for the flag itself."""
    if baseline is None or baseline is pair:
        return None
    tasks = [t for t in pair.transfer.columns if t in baseline.transfer.columns]
    ours, theirs = (
        Aligned(side.transfer.loc[tasks, tasks], side.indicator.loc[tasks, tasks])
        for side in (pair, baseline)
    )
    return bootstrap_difference(ours, theirs, include_self=include_self, draws=draws, seed=seed)


def _withheld(answer: Prediction, reason: str) -> Prediction:
    """The answer without p values."""
    against, within = answer.against_baseline, answer.within
    return replace(
        answer,
        test=replace(answer.test, p_value=None, reason=answer.test.reason or reason),
        within=within and replace(within, p_value=None, reason=within.reason or reason),
        against_baseline=against and replace(against, p_value=None),
    )


def _corrected(answers: list[Prediction]) -> list[Prediction]:
    """Each kind of p value corrected by Holm over the indicators; the same-type flag is none of them."""
    tested = [a for a in answers if a.indicator != BASELINE]

    def family(part: Callable[[Prediction], PermutationTest | Difference | None]) -> dict[str, Corrected]:
        known = {a.indicator: found for a in tested if (found := part(a)) and found.smallest_p is not None}
        corrected = holm({name: found.p_value for name, found in known.items() if found.p_value is not None})
        return {
            name: Corrected(corrected.get(name), min(1.0, len(known) * (found.smallest_p or 0.0)), len(known))
            for name, found in known.items()
        }

    test, within, against = (
        family(lambda a: a.test),
        family(lambda a: a.within),
        family(lambda a: a.against_baseline),
    )
    return [
        replace(
            a,
            test_holm=test.get(a.indicator),
            within_holm=within.get(a.indicator),
            against_holm=against.get(a.indicator),
        )
        for a in answers
    ]


def smallest_p_values(predictions: tuple[Prediction, ...]) -> tuple[str, ...]:
    """What the p values of a table could be at best, a line each, and which of them cannot come out significant."""
    lines: dict[str, None] = {}
    for p in predictions:
        tasks = f"{len(p.targets)} tasks"
        within = p.within.shuffles if p.within else 0
        for name, found, source in (
            ("p of all tasks shuffled", p.test_holm, f"{p.test.shuffles} orders of {tasks}"),
            ("p of shuffles within types", p.within_holm, f"{within} orders of {tasks}"),
            ("p of minus same type", p.against_holm, f"the draws of {tasks}"),
        ):
            if found is not None:
                lines[_at_best(name, found, source)] = None
    return tuple(lines)


def _at_best(name: str, found: Corrected, source: str) -> str:
    over = f", {found.smallest:.2g} corrected over {found.family} indicators" if found.family > 1 else ""
    cannot = "" if found.can_be_significant else ": it cannot come out significant"
    return f"{name}: the smallest that {source} can give is {found.smallest / found.family:.2g}{over}{cannot}"


def prediction_table(predictions: tuple[Prediction, ...]) -> pd.DataFrame:
    """One row an indicator, columns PREDICTION_COLUMNS, NaN where there is no value (reasons are in the predictions)."""
    rows = {}
    for p in predictions:
        against = p.against_baseline
        rows[p.indicator] = {
            "mean_spearman": p.mean,
            "low": p.interval.low,
            "high": p.interval.high,
            "p_permutation": p.test.p_value,
            **_corrected_columns("p_permutation", p.test_holm),
            "p_within_types": p.within.p_value if p.within else None,
            **_corrected_columns("p_within_types", p.within_holm),
            "targets": len(p.targets) - len(p.unranked),
            "chosen": p.choice.chosen_score if p.choice else None,
            "best": p.choice.best_score if p.choice else None,
            "regret": p.choice.regret if p.choice else None,
            "random_regret": p.choice.random_regret if p.choice else None,
            "ndcg_first": p.choice.ndcg_first if p.choice else None,
            "ndcg": p.choice.ndcg if p.choice else None,
            "minus_same_type": against.mean if against else None,
            "minus_low": against.interval.low if against else None,
            "minus_high": against.interval.high if against else None,
            "p_minus_same_type": against.p_value if against else None,
            **_corrected_columns("p_minus_same_type", p.against_holm),
        }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(PREDICTION_COLUMNS)).astype(float)


def _corrected_columns(name: str, found: Corrected | None) -> dict[str, float | None]:
    return {
        f"{name}_holm": found.p_value if found else None,
        f"smallest_{name}_holm": found.smallest if found else None,
    }


def per_target_table(predictions: tuple[Prediction, ...]) -> pd.DataFrame:
    """Rows indicators, columns targets: Spearman's rho, NaN where there is no rank."""
    return pd.DataFrame(
        {p.indicator: {t.target: np.nan if t.rho is None else t.rho for t in p.targets} for p in predictions}
    ).T
