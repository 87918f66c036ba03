"""The sections of the page below the matrix: what the numbers say, indicators, pictures, cross-model table, recipe."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from html import escape

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.matrices import split_references
from analysis.prediction import BASELINE, Prediction
from analysis.report.data import Picture, ReportData


def summary(data: ReportData) -> str:
    """The means that the matrix comes down to, of its first view, as a list of numbers with their names."""
    view = data.views[0]
    prompts, references = split_references(view.table)
    values = prompts.to_numpy(dtype=float)
    known = np.isfinite(values)
    sources, targets = _objects(prompts.index), _objects(prompts.columns)
    stems = _objects([name.split("@")[0] for name in sources])
    own = (sources[:, None] == targets[None, :]) | (stems[:, None] == targets[None, :])
    kinds, theirs = (_objects([data.types.get(name, "") for name in names]) for names in (sources, targets))
    same = (kinds[:, None] == theirs[None, :]) & (kinds != "")[:, None]
    groups = {
        "own prompt": values[known & own],
        "same type": values[known & ~own & same],
        "different type": values[known & ~own & ~same],
    }
    for name, row in zip(references.index, references.to_numpy(dtype=float), strict=True):
        groups[str(name)] = row[np.isfinite(row)]
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{_mean(scores, view.percent)}</dd></div>"
        for name, scores in groups.items()
        if len(scores)
    )
    meaning = f", {escape(view.meaning)}" if view.meaning else ""
    return f'<p>Mean over cells of the matrix ({escape(view.name)}{meaning}):</p><dl class="figures">{items}</dl>{_sentence(data)}'


def _objects(names: Iterable[object]) -> NDArray[np.object_]:
    return np.array([str(name) for name in names], dtype=object)


def _mean(values: NDArray[np.float64], percent: bool) -> str:
    mean = float(np.mean(values))
    return f"{mean * 100:.0f} %" if percent else f"{mean:.3g}"


def _sentence(data: ReportData) -> str:
    """What the indicators come down to, in one sentence."""
    ranked = [p for p in data.predictions if p.mean is not None]
    found = [p for p in ranked if p.indicator != BASELINE]
    if not found:
        return ""
    best, flag = found[0], next((p for p in ranked if p.indicator == BASELINE), None)
    text = f"Of the indicators, {escape(best.indicator)} ranks sources best: mean Spearman {_rho(best)}"
    if flag is not None and flag.mean is not None:
        text += f"; a plain same-type flag reaches {_rho(flag)}, {_against_flag(best)}"
    return f"<p>{text}.</p>"


def _against_flag(best: Prediction) -> str:
    """Whether the indicator tells more than the names of the types: only where the difference is more than chance."""
    other, p_value = best.against_baseline, best.p_corrected
    if other is None or other.mean is None or other.mean <= 0:
        return "so it tells no more than the names of the types do"
    if p_value is not None and p_value < 0.05:
        return f"so it tells more than the names of the types do (p {p_value:.3f})"
    doubt = f"p {p_value:.3f}" if p_value is not None else "too few tasks for a test"
    return f"and whether it tells more than the names of the types do is not sure ({doubt})"


def _rho(prediction: Prediction) -> str:
    low, high = prediction.interval.low, prediction.interval.high
    span = f" (95 % {low:.2f} to {high:.2f})" if low is not None and high is not None else ""
    return f"{prediction.mean:.2f}{span}"


def indicators(predictions: tuple[Prediction, ...]) -> str:
    """A row an indicator: rank correlation with its interval drawn, permutation p, regret, against the same-type flag."""
    head = "".join(
        f"<th scope=col>{h}</th>"
        for h in (
            "indicator",
            "mean ρ",
            "95 % interval, −1 to 1",
            "p, shuffled",
            "regret",
            "random source's",
            "NDCG",
            "ρ minus same type",
        )
    )
    rows = []
    for p in predictions:
        choice, other = p.choice, p.against_baseline
        cells = [
            _number(p.mean, 3),
            _whisker(p)
            if p.mean is not None
            else escape("; ".join(dict.fromkeys(t.reason for t in p.unranked))),
            _number(p.test.p_value, 4),
            _number(choice.regret if choice else None, 3),
            _number(choice.random_regret if choice else None, 3),
            _number(choice.ndcg if choice else None, 3),
            _number(other.mean if other else None, 3)
            + (f" (p {p.p_corrected:.3f})" if p.p_corrected is not None else ""),
        ]
        name = "<b>same-type flag</b> (baseline)" if p.indicator == BASELINE else escape(p.indicator)
        rows.append(f"<tr><th scope=row>{name}</th>{''.join(f'<td>{c}</td>' for c in cells)}</tr>")
    notes = dict.fromkeys(
        note for p in predictions for note in (p.interval.reason, p.test.reason, *p.notes) if note
    )
    said = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"""<p>Spearman's ρ between an indicator and transfer over the sources of a target, the target's own prompt left out,
averaged over targets. The interval draws tasks with replacement; p is the share of shuffles of the tasks that do as well.
Regret is what the indicator's first choice loses against the best source, in the unit of the matrix; p of the last
column is corrected by Holm for the number of indicators.</p>
<div class="scroll"><table class="plain"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>
{f"<ul>{said}</ul>" if said else ""}"""


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


def picture(item: Picture) -> str:
    """A figure inside the page, as data."""
    kind = {"svg": "image/svg+xml", "png": "image/png"}[item.kind]
    content = base64.b64encode(item.content).decode("ascii")
    return (
        f'<figure><img src="data:{kind};base64,{content}" alt="{escape(item.title)}">'
        f"<figcaption><b>{escape(item.title)}.</b> {escape(item.caption)}</figcaption></figure>"
    )


def cross_model(table: pd.DataFrame, controls: tuple[str, ...]) -> str:
    """The table of projectors, controls marked: a projector counts where it beats them."""
    head = "".join(f"<th scope=col>{escape(str(c))}</th>" for c in table.columns)
    rows = []
    for name, values in zip(table.index, table.to_numpy(dtype=float), strict=True):
        mark = ' class="reference"' if name in controls else ""
        cells = "".join(f"<td>{_number(float(v), 3)}</td>" for v in values)
        rows.append(f"<tr{mark}><th scope=row>{escape(str(name))}</th>{cells}</tr>")
    said = f"<p>Controls, in italics: {escape(', '.join(controls))}.</p>" if controls else ""
    return f'{said}<div class="scroll"><table class="plain"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def pairs(values: Mapping[str, str]) -> str:
    """Names and what they are."""
    return (
        "<dl class=pairs>"
        + "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in values.items())
        + "</dl>"
    )
