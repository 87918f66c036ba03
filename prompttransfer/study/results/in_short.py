"""What a study comes down to, as the first section of its page: sentences for few models and methods, a table for many."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from analysis.report.sections import highest_of
from analysis.report.tables import all_rows, stacked
from prompttransfer.study.methods import PROMPT, called
from prompttransfer.study.results.in_words import listed, number, p_value
from prompttransfer.study.results.long_table import DIFFERENT, OWN, SAME, raw_scores, with_methods
from prompttransfer.study.results.outcome import best_own, best_sources, winners
from prompttransfer.study.results.statistics import gains_over_no_prompt

if TYPE_CHECKING:
    import pandas as pd

MOST_SAID = 3
"""Models and methods of which a sentence each is said; of more the same is a table."""


def in_short(results: pd.DataFrame, indicators: pd.DataFrame) -> str:
    """The section, HTML; empty where nothing was scored."""
    methods = raw_scores(with_methods(results))[["backbone", "method"]].drop_duplicates()
    if len(methods) <= MOST_SAID:
        return listed([*winners(results), *headlines(results, indicators)])
    rows = _rows(results, indicators)
    if not rows:
        return listed(best_own(results))
    words = (
        "<p>Scores are means over tasks and seeds. A gain is a zero-shot score less that of no prompt, mean over targets and "
        "seeds; the best source is the one with the highest gain. p is that of the indicator with the highest mean Spearman "
        "\u03c1, one-sided, tasks shuffled, corrected for the number of indicators.</p>"
    )
    said, headings, kept = all_rows(HEADINGS, rows)
    return listed(best_own(results)) + words + said + stacked(headings, kept)


HEADINGS = (
    "method", "backbone", "metric", "own score", "gain, same type", "gain, different type", "best source", "its gain",
    "highest indicator", "mean \u03c1", "p, corrected"
)  # fmt: skip


def _rows(results: pd.DataFrame, indicators: pd.DataFrame) -> list[list[str]]:
    """A row a method, backbone and metric that has scores of own prompts or of transfer."""
    scores = raw_scores(with_methods(results))
    own = scores[scores["condition"] == OWN].groupby(["backbone", "method", "measure"])["value"].mean()
    sources, highest = best_sources(results), _highest(indicators)
    rows = []
    for backbone, method, metric, gains in gains_over_no_prompt(results):
        key = (backbone, method, metric)
        if key not in own.index and not gains:
            continue
        source, gain = sources.get(key, ("", None))
        by_type = [_gain(gains.get(relation)) for relation in (SAME, DIFFERENT)]
        told = _indicator(highest.get((backbone, method)))
        rows.append([method, backbone, metric, number(own.get(key)), *by_type, source, _gain(gain), *told])
    return rows


def _indicator(best: pd.Series | None) -> list[str]:
    """Its name, mean and p value; empty where there is none."""
    if best is None:
        return ["", "", ""]
    return [str(best["indicator"]), number(best["mean_spearman"]), p_value(best["p_permutation_holm"])]


def _gain(value: float | None) -> str:
    """A difference with its sign."""
    return "" if value is None else f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def headlines(results: pd.DataFrame, indicators: pd.DataFrame) -> list[str]:
    """What the numbers come down to: where transfer is worth less than no prompt, and whether an indicator predicts it."""
    return [*_transfer_headlines(results), *_indicator_headlines(indicators)]


def titles(table: pd.DataFrame) -> Callable[[str, str], str]:
    """What backbone and method are called: by both where a table has several methods."""
    several = "method" in table and table["method"].nunique() > 1
    return lambda backbone, method: f"{backbone}, {method}" if several else called(backbone, method)


def _transfer_headlines(results: pd.DataFrame) -> list[str]:
    lines = []
    name = titles(results)
    for backbone, method, metric, gains in gains_over_no_prompt(results):
        worse = [relation for relation, gain in gains.items() if gain < 0]
        told = ", ".join(f"{relation} {gain:+.3f}" for relation, gain in gains.items())
        if not gains:
            continue
        what = "prompts" if method == PROMPT else "adaptations"
        if not any(round(gain, 3) for gain in gains.values()):
            verdict = f"transfer changes nothing: {what} of other tasks score as no prompt does"
        elif len(worse) == len(gains):
            verdict = f"transfer does not help: {what} of other tasks score below no prompt"
        elif worse:
            verdict = f"{what} of tasks of {worse[0]} score below no prompt"
        else:
            verdict = f"{what} of other tasks score above no prompt"
        lines.append(
            f"{name(backbone, method)}, {metric}: {verdict} (zero-shot minus no prompt, mean over targets: {told})."
        )
    return lines


def _indicator_headlines(indicators: pd.DataFrame) -> list[str]:
    """One line a backbone and method: the indicator with the highest mean, only where it is more than chance is it said to predict."""
    from analysis.prediction import BASELINE, LEVEL

    lines = []
    name = titles(indicators)
    table = with_methods(indicators)
    for (backbone, method), best in _highest(indicators).items():
        part = table[(table["backbone"] == backbone) & (table["method"] == method)]
        ranked = ((part["indicator"] != BASELINE) & part["mean_spearman"].notna()).sum()
        mean, p = best["mean_spearman"], best["p_permutation_holm"]
        highest = f"{highest_of(best['indicator'], ranked)} {mean:.2f}"
        sure = f"(p {p_value(p)}, corrected)"
        if mean <= 0:
            said = f"no indicator predicts transfer: {highest}"
        elif p != p:
            said = f"whether an indicator predicts transfer is not shown: {highest}"
        elif p > LEVEL:
            said = f"no indicator is shown to predict transfer: {highest} {sure}"
        else:
            said = f"{best['indicator']} predicts transfer better than chance does: {highest} {sure}"
        lines.append(f"{name(backbone, method)}: {said}.")
    return lines


def _highest(indicators: pd.DataFrame) -> dict[tuple[str, str], pd.Series]:
    """(backbone, method) -> the row of the indicator with the highest mean, the flag of types left out."""
    from analysis.prediction import BASELINE

    found = {}
    for (backbone, method), part in with_methods(indicators).groupby(["backbone", "method"], sort=False):
        ranked = part[(part["indicator"] != BASELINE) & part["mean_spearman"].notna()]
        if not ranked.empty:
            found[str(backbone), str(method)] = ranked.loc[ranked["mean_spearman"].idxmax()]
    return found
