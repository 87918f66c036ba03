"""The sections of the page below the matrix: what the numbers say, indicators, pictures, cross-model table, recipe."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from html import escape

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.matrices import split_references
from analysis.prediction import BASELINE, LEVEL, Corrected, Prediction, smallest_p_values
from analysis.report.data import Picture, ReportData, Taught
from analysis.report.tables import scrolled, wide_picture
from analysis.statistics import Interval

NO_PROMPT = "no prompt"


def summary(data: ReportData) -> str:
    """What the matrix comes down to: its first view's means by metric, below a sentence that follows from them."""
    view = data.views[0]
    means = group_means(data)
    items = [
        _figures(f"{metric}, " if len(means) > 1 else "", groups, view.percent)
        for metric, groups in means.items()
    ]
    meaning = f", {escape(view.meaning)}" if view.meaning else ""
    apart = "; targets of different metrics are not averaged together" if len(means) > 1 else ""
    said = "".join(
        f"<p>{text}</p>" for text in (_against_no_prompt(gains_over_no_prompt(data)), _sentence(data)) if text
    )
    return (
        f"{said}<p>Mean over cells of the matrix ({escape(view.name)}{meaning}){apart}:</p>{''.join(items)}"
    )


def group_means(data: ReportData) -> dict[str, dict[str, float]]:
    """Metric -> own prompt, same type, different type and rows for reference -> mean cell of the first view.

    Scores of different metrics are never in one mean; all targets are one group where no metrics are known.
    """
    prompts, references = split_references(data.views[0].table)
    relations = _relations(prompts, data.types)
    metrics = np.array([data.metrics.get(str(column), "") for column in prompts.columns], dtype=object)
    found: dict[str, dict[str, float]] = {}
    for metric in dict.fromkeys(metrics):
        columns = metrics == metric
        values = prompts.to_numpy(dtype=float)[:, columns]
        groups = {name: values[mask[:, columns]] for name, mask in relations.items()}
        below = references.to_numpy(dtype=float)[:, columns]
        groups |= {str(name): row for name, row in zip(references.index, below, strict=True)}
        known = {name: scores[np.isfinite(scores)] for name, scores in groups.items()}
        means = {name: float(np.mean(scores)) for name, scores in known.items() if len(scores)}
        if means:
            found[metric] = means
    return found


def _relations(prompts: pd.DataFrame, types: Mapping[str, str]) -> dict[str, NDArray[np.bool_]]:
    """What the source of each cell [sources, targets] is to its target -> where it is that."""
    sources, targets = _objects(prompts.index), _objects(prompts.columns)
    stems = _objects([name.split("@")[0] for name in sources])
    own = (sources[:, None] == targets[None, :]) | (stems[:, None] == targets[None, :])
    kinds, theirs = (_objects([types.get(name, "") for name in names]) for names in (sources, targets))
    same = (kinds[:, None] == theirs[None, :]) & (kinds != "")[:, None]
    return {"own prompt": own, "same type": ~own & same, "different type": ~own & ~same}


def _figures(metric: str, groups: Mapping[str, float], percent: bool) -> str:
    items = "".join(
        f"<div><dt>{escape(metric + name)}</dt><dd>{_mean(value, percent)}</dd></div>"
        for name, value in groups.items()
    )
    return f'<dl class="figures">{items}</dl>'


def gains_over_no_prompt(data: ReportData) -> dict[str, dict[str, float]]:
    """Metric -> same type, different type -> mean over targets of the mean cell of the relation less that of no prompt.

    Target by target, since a target without a source of its type has no part in the mean of same type.
    """
    prompts, references = split_references(data.views[0].table)
    if NO_PROMPT not in references.index:
        return {}
    relations, values = _relations(prompts, data.types), prompts.to_numpy(dtype=float)
    found: dict[str, dict[str, list[float]]] = {}
    for place, (target, none) in enumerate(references.loc[NO_PROMPT].items()):
        for relation in ("same type", "different type"):
            cells = values[relations[relation][:, place], place]
            cells = cells[np.isfinite(cells)]
            if len(cells) and np.isfinite(none):
                groups = found.setdefault(data.metrics.get(str(target), ""), {})
                groups.setdefault(relation, []).append(float(np.mean(cells) - none))
    return {
        metric: {name: float(np.mean(v)) for name, v in groups.items()} for metric, groups in found.items()
    }


_OF = {"same type": "the same type", "different type": "another type"}


def _against_no_prompt(gains: Mapping[str, Mapping[str, float]]) -> str:
    """Where another task's prompt is worth less than none, that comes first, beside what is worth more."""
    lines = []
    for metric, groups in gains.items():
        where = f" ({escape(metric)})" if len(gains) > 1 else ""
        worse = [name for name, gain in groups.items() if gain < 0]
        if len(worse) == len(groups):
            lines.append(
                f"Transfer does not help here{where}: prompts of other tasks score below no prompt at all."
            )
        elif worse:
            better = next(name for name in groups if name not in worse)
            lines.append(
                f"Against no prompt, prompts of tasks of {_OF[better]} are worth {groups[better]:+.3f}, of {_OF[worse[0]]} "
                f"{groups[worse[0]]:+.3f}{where}."
            )
    return f"<b>{' '.join(lines)}</b>" if lines else ""


def _objects(names: Iterable[object]) -> NDArray[np.object_]:
    return np.array([str(name) for name in names], dtype=object)


def _mean(value: float, percent: bool) -> str:
    return f"{value * 100:.0f} %" if percent else f"{value:.3g}"


def _sentence(data: ReportData) -> str:
    """What the indicators come down to, in one sentence: which predicts, or that none does."""
    ranked = [p for p in data.predictions if p.mean is not None]
    found = [p for p in ranked if p.indicator != BASELINE]
    if not found:
        return ""
    best, flag = found[0], next((p for p in ranked if p.indicator == BASELINE), None)
    highest = f"{highest_of(escape(best.indicator), len(found))} {_rho(best)}"
    if best.mean is not None and best.mean <= 0:
        return f"No indicator predicts transfer here: {highest}."
    if best.predicts is None:
        return f"Whether an indicator predicts transfer is not shown here ({_why_not(best)}): {highest}{_flag(flag)}."
    if not best.predicts:
        return f"No indicator is shown to predict transfer here: {highest}{_p(best.test_holm)}{_flag(flag)}."
    against = f", {_against_flag(best)}" if flag is not None and flag.mean is not None else ""
    return (
        f"{escape(best.indicator)} predicts transfer better than chance does: mean Spearman {_rho(best)}, the highest "
        f"of {len(found)}{_p(best.test_holm)}{_flag(flag)}{against}."
    )


def highest_of(indicator: str, indicators: int) -> str:
    """What the number behind it is: the highest of several means, or the only one."""
    if indicators == 1:
        return f"{indicator}, the only indicator, has mean Spearman"
    return f"{indicator} has the highest mean Spearman of {indicators},"


def _why_not(best: Prediction) -> str:
    """Why there is no p value, up to the first colon."""
    return escape((best.test.reason or best.interval.reason).split(":")[0])


def _flag(flag: Prediction | None) -> str:
    """The same-type flag's mean, to be read beside."""
    if flag is None or flag.mean is None:
        return ""
    return f"; a plain same-type flag reaches {_rho(flag)}"


def _p(found: Corrected | None) -> str:
    if found is None or found.p_value is None:
        return ""
    cannot = "" if found.can_be_significant else f", which cannot be below {found.smallest:.2g} here"
    return f" (p {found.p_value:.3f} over tasks, one-sided, corrected{cannot})"


def _against_flag(best: Prediction) -> str:
    """Whether the indicator tells more than the names of the types: only where the difference is more than chance."""
    other, corrected = best.against_baseline, best.against_holm
    if other is None or other.mean is None or other.mean <= 0:
        return "so it tells no more than the names of the types do"
    if corrected is None or corrected.p_value is None:
        return "and whether it tells more than the names of the types do is not sure (no test)"
    if corrected.p_value <= LEVEL:
        return f"so it tells more than the names of the types do (p {corrected.p_value:.3f})"
    return f"and whether it tells more than the names of the types do is not sure (p {corrected.p_value:.3f})"


def _rho(prediction: Prediction) -> str:
    low, high = prediction.interval.low, prediction.interval.high
    span = f" (95 % {low:.2f} to {high:.2f})" if low is not None and high is not None else ""
    return f"{prediction.mean:.2f}{span}"


INDICATOR_HEADINGS = (
    "indicator",
    "mean ρ",
    "95 % interval over tasks, −1 to 1",
    "p, one-sided, tasks shuffled",
    "p, one-sided, within types",
    "regret",
    "random source's",
    "NDCG",
    "ρ minus same type",
    "its 95 % interval",
    "its p, two-sided",
)


def indicators(predictions: tuple[Prediction, ...]) -> str:
    """A row an indicator: rank correlation with its interval drawn, p values, regret, against the same-type flag."""
    head = "".join(f"<th scope=col>{h}</th>" for h in INDICATOR_HEADINGS)
    rows = []
    for p in predictions:
        other = p.against_baseline
        cells = [
            _number(p.mean, 3),
            _whisker(p)
            if p.mean is not None
            else escape("; ".join(dict.fromkeys(t.reason for t in p.unranked))),
            _p_value(p.test.p_value, p.test_holm),
            _p_value(p.within.p_value if p.within else None, p.within_holm),
            _by_metric(p, "regret"),
            _by_metric(p, "random_regret"),
            _by_metric(p, "ndcg"),
            _number(other.mean if other else None, 3),
            _span(other.interval) if other else "–",
            _p_value(other.p_value if other else None, p.against_holm),
        ]
        name = "<b>same-type flag</b> (baseline)" if p.indicator == BASELINE else escape(p.indicator)
        rows.append(f"<tr><th scope=row>{name}</th>{''.join(f'<td>{c}</td>' for c in cells)}</tr>")
    notes = dict.fromkeys(note for p in predictions for note in _notes(p) if note)
    said = "".join(f"<li>{escape(note)}</li>" for note in [*smallest_p_values(predictions), *notes])
    return f"""<p>Spearman's ρ between an indicator and transfer over the sources of a target, the target's own prompt left out,
averaged over targets. Intervals and p values are over tasks, for the prompts of this page; in brackets p is corrected by Holm
for the number of indicators. p, tasks shuffled: the share of new orders of all tasks that do as well; within types: of orders
that change places within a type alone, which is what the indicator tells beyond the types. ρ minus same type: tasks drawn with
replacement, the same for both. Regret is what the indicator's first choice loses against the best source, in the unit of the matrix.</p>
{scrolled(f'<table class="plain"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>')}
{f"<ul>{said}</ul>" if said else ""}"""


def _notes(p: Prediction) -> tuple[str, ...]:
    """Every reason for a number that is missing."""
    others = [part.reason for part in (p.interval, p.test, p.within) if part is not None]
    return (*others, p.against_baseline.interval.reason if p.against_baseline else "", *p.notes)


def _p_value(value: float | None, found: Corrected | None) -> str:
    corrected = f" ({found.p_value:.3f})" if found is not None and found.p_value is not None else ""
    return _number(value, 4) + corrected


def _by_metric(p: Prediction, name: str) -> str:
    """A mean of the choice; one a metric where targets have several."""
    if len(p.choice_by_metric) < 2:
        return _number(getattr(p.choice, name) if p.choice else None, 3)
    return "<br>".join(
        f"{escape(metric or 'unknown metric')} {_number(getattr(c, name), 3)}"
        for metric, c in p.choice_by_metric.items()
    )


def _span(interval: Interval) -> str:
    return "–" if interval.low is None else f"{_number(interval.low, 2)} to {_number(interval.high, 2)}"


def _number(value: float | None, decimals: int) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.{decimals}f}".replace("-", "−")


def _whisker(p: Prediction) -> str:
    """The mean and its interval on a line from -1 to 1."""
    if p.mean is None:
        return ""

    def place(value: float) -> float:
        return round(80 + 76 * value, 1)

    low, high = p.interval.low, p.interval.high
    line = (
        f'<line x1="{place(low)}" x2="{place(high)}" y1="9" y2="9" class="span"/>'
        if low is not None and high is not None
        else ""
    )
    said = f"{low:.2f} to {high:.2f}" if low is not None and high is not None else "no interval"
    return (
        f'<svg width="160" height="18" viewBox="0 0 160 18" role="img" aria-label="{said}"><line x1="4" x2="156" y1="9" y2="9" class="axis"/>'
        f'<line x1="80" x2="80" y1="3" y2="15" class="axis"/>{line}<circle cx="{place(p.mean)}" cy="9" r="4"/></svg>'
    )


WIDE_POINTS = 560
"""Pictures that are wider than this have several panels."""


def picture(item: Picture) -> str:
    """A figure inside the page, as data."""
    kind = {"svg": "image/svg+xml", "png": "image/png"}[item.kind]
    content = base64.b64encode(item.content).decode("ascii")
    image = f'<img src="data:{kind};base64,{content}" alt="{escape(item.title)}">'
    return (
        f"<figure>{wide_picture(image) if _is_wide(item) else image}"
        f"<figcaption><b>{escape(item.title)}.</b> {escape(item.caption)}</figcaption></figure>"
    )


def _is_wide(item: Picture) -> bool:
    """Whether a picture says that it is wider than a phone can show at a size that can be read."""
    found = re.search(rb'<svg[^>]* width="([\d.]+)pt"', item.content[:2000])
    return found is not None and float(found[1]) > WIDE_POINTS


def cross_model(table: pd.DataFrame, controls: tuple[str, ...]) -> str:
    """The table of projectors, controls marked: a projector counts where it beats them."""
    said = f"<p>Controls, in italics: {escape(', '.join(controls))}.</p>" if controls else ""
    return said + _numbers(table, controls)


def taught(item: Taught) -> str:
    """Scores of what learned from a teacher, controls marked, and what each row or column is."""
    head = f"<h3>{escape(item.title)}</h3><p>{escape(item.about)}</p>"
    return head + _numbers(item.table, item.controls) + (pairs(item.words) if item.words else "")


def _numbers(table: pd.DataFrame, controls: tuple[str, ...]) -> str:
    """A table of numbers to three decimals, those of whole columns as they are; rows that are controls are marked."""
    head = "".join(f"<th scope=col>{escape(str(c))}</th>" for c in table.columns)
    whole = [pd.api.types.is_integer_dtype(kind) for kind in table.dtypes]
    rows = []
    for name, values in zip(table.index, table.to_numpy(dtype=float, na_value=np.nan), strict=True):
        mark = ' class="reference"' if name in controls else ""
        cells = "".join(
            f"<td>{_number(float(value), 0 if plain else 3)}</td>"
            for value, plain in zip(values, whole, strict=True)
        )
        rows.append(f"<tr{mark}><th scope=row>{escape(str(name))}</th>{cells}</tr>")
    return scrolled(
        f'<table class="plain"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )


def pairs(values: Mapping[str, str]) -> str:
    """Names and what they are."""
    return (
        "<dl class=pairs>"
        + "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in values.items())
        + "</dl>"
    )
