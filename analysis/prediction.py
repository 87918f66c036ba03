"""Does an indicator predict transfer? One answer per indicator: rank correlation, doubt, and the choice it makes.

A same-type flag is always answered beside the indicators that are asked about (where types are known): it is free,
and an indicator that does not beat it tells nothing that the names of the tasks do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.choice import ChoiceSummary, TargetChoice, choose_sources, summarise
from analysis.matrices import Aligned, align, same_type
from analysis.statistics import (
    Interval,
    PairedDifference,
    PermutationTest,
    TargetCorrelation,
    bootstrap_interval,
    correlate_targets,
    holm,
    mean_rho,
    paired_difference,
    permutation_test,
)

BASELINE = "same-type"


@dataclass(frozen=True)
class Prediction:
    """What one indicator says about transfer; `against_baseline` is its rho minus the same-type flag's, by target."""

    indicator: str
    targets: tuple[TargetCorrelation, ...]
    mean: float | None
    interval: Interval
    test: PermutationTest
    choices: tuple[TargetChoice, ...]
    choice: ChoiceSummary | None
    against_baseline: PairedDifference | None = None
    p_corrected: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def unranked(self) -> tuple[TargetCorrelation, ...]:
        """Targets without a rank, each with its reason."""
        return tuple(t for t in self.targets if t.rho is None)


def predict(
    transfer: pd.DataFrame,
    indicators: Mapping[str, pd.DataFrame],
    types: Mapping[str, str] | None = None,
    *,
    include_self: bool = False,
    common: bool = False,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[Prediction, ...]:
    """Answer for every indicator, and for the same-type flag if `types` (task -> type) is given; best mean first."""
    pairs = {name: align(transfer, table, name, common=common) for name, table in indicators.items()}
    if types is not None and BASELINE not in pairs:
        tasks = [t for t in transfer.columns if all(t in pair.transfer.columns for pair in pairs.values())]
        table = same_type(tasks, types)
        pairs[BASELINE] = align(
            transfer.loc[[r for r in transfer.index if r in tasks], tasks], table, BASELINE
        )
    answers = [_answer(name, pair, include_self, draws, seed) for name, pair in pairs.items()]
    return tuple(
        sorted(_compare(answers, seed), key=lambda p: -np.inf if p.mean is None else p.mean, reverse=True)
    )


def _answer(name: str, pair: Aligned, include_self: bool, draws: int, seed: int) -> Prediction:
    targets = correlate_targets(pair, include_self=include_self)
    choices = choose_sources(pair)
    return Prediction(
        indicator=name,
        targets=targets,
        mean=mean_rho(targets),
        interval=bootstrap_interval(pair, include_self=include_self, draws=draws, seed=seed),
        test=permutation_test(pair, include_self=include_self, shuffles=draws, seed=seed),
        choices=choices,
        choice=summarise(choices),
        notes=pair.notes,
    )


def _compare(answers: list[Prediction], seed: int) -> list[Prediction]:
    """Add to each answer the paired difference from the same-type flag, p values corrected by Holm."""
    baseline = next((a for a in answers if a.indicator == BASELINE), None)
    if baseline is None:
        return answers
    known = {t.target: np.nan if t.rho is None else t.rho for t in baseline.targets}
    differences = {}
    for answer in answers:
        if answer is not baseline:
            ours = [np.nan if t.rho is None else t.rho for t in answer.targets]
            theirs = [known.get(t.target, np.nan) for t in answer.targets]
            differences[answer.indicator] = paired_difference(ours, theirs, seed=seed)
    corrected = holm({name: d.p_value for name, d in differences.items() if d.p_value is not None})
    return [
        replace(a, against_baseline=differences.get(a.indicator), p_corrected=corrected.get(a.indicator))
        for a in answers
    ]


def prediction_table(predictions: tuple[Prediction, ...]) -> pd.DataFrame:
    """One row an indicator, NaN where there is no value (the reasons are in the predictions)."""
    rows = {}
    for p in predictions:
        rows[p.indicator] = {
            "mean_spearman": p.mean,
            "low": p.interval.low,
            "high": p.interval.high,
            "p_permutation": p.test.p_value,
            "targets": len(p.targets) - len(p.unranked),
            "chosen": p.choice.chosen_score if p.choice else None,
            "best": p.choice.best_score if p.choice else None,
            "regret": p.choice.regret if p.choice else None,
            "random_regret": p.choice.random_regret if p.choice else None,
            "ndcg_first": p.choice.ndcg_first if p.choice else None,
            "ndcg": p.choice.ndcg if p.choice else None,
            "minus_same_type": p.against_baseline.mean if p.against_baseline else None,
            "p_minus_same_type": p.p_corrected,
        }
    return pd.DataFrame.from_dict(rows, orient="index").astype(float)


def per_target_table(predictions: tuple[Prediction, ...]) -> pd.DataFrame:
    """Rows indicators, columns targets: Spearman's rho, NaN where there is no rank."""
    return pd.DataFrame(
        {p.indicator: {t.target: np.nan if t.rho is None else t.rho for t in p.targets} for p in predictions}
    ).T
