"""Systems side by side on few rows: means, differences to the first system with how sure one may be, and what each took.

The first system of the file is the one that the others are held against, on the same targets, rows and seeds. Doubt is about
other seeds on these targets (analysis/crossed.py); p values are corrected by Holm over the systems and numbers of rows of
one backbone and metric.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompttransfer.study.contents import read_score
from prompttransfer.study.methods import slug
from prompttransfer.study.results.long_table import Results

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05
CONTROLS = ("no prompt", "random prompt", "random adaptation", "majority")
SYSTEM_COLUMNS = {
    "backbone": "the model that was run",
    "metric": "of the targets' test rows",
    "shots": "labelled rows that each target was learned from; empty for controls, which learn nothing",
    "system": "what the study calls it; the first is what the others are held against",
    "mean": "score, mean over targets and seeds",
    "spread": "standard deviation over seeds of the mean over targets",
    "difference": "mean less that of the first system, over the same targets and seeds",
    "low": "lower end of its 95 % interval, for other seeds on these targets (analysis/crossed.py)",
    "high": "upper end",
    "p": "two-sided p value of the difference, for other seeds",
    "p_holm": "p corrected by Holm over the systems and numbers of rows of a backbone",
    "significant": "yes or no at 0.05 after correction; empty where there is no p",
    "with_source": "difference on targets of whose type the library has a source",
    "without_source": "difference on the other targets",
    "target_steps": "steps on rows of the target, of all that was tried and of a probe",
    "all_steps": "these, and the target's share of the steps of the library",
    "targets": "number of targets that are finished",
    "seeds": "number of seeds that are finished for all of these",
    "note": "why there is no interval or p",
}
"""Column of report/systems.csv -> what it is."""


def run_table(results: Results) -> pd.DataFrame:
    """Every finished run of a study of few rows and its controls, one a row."""
    import pandas as pd

    rows = [*_runs(results), *_controls(results)]
    columns = [
        "first", "backbone", "metric", "shots", "system", "target", "seed", "value", "related", "target_steps", "all_steps", "cell",
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    table["shots"] = table["shots"].astype("Int64")
    return table


def _runs(results: Results) -> Iterator[dict[str, Any]]:
    firsts = {run.backbone: run.system for run in reversed(results.graph.runs)}
    for run in results.graph.runs:
        if run.score not in results.finished:
            continue
        record = read_score(results.store.folder(run.score))
        yield {
            "first": firsts[run.backbone],
            "backbone": run.backbone,
            "metric": record["metric"],
            "shots": run.shots,
            "system": run.system,
            "target": run.target,
            "seed": run.seed,
            "value": record["value"],
            "related": run.related,
            "target_steps": run.target_steps,
            "all_steps": run.all_steps,
            "cell": run.score,
        }


def _controls(results: Results) -> Iterator[dict[str, Any]]:
    for cell in results.of_kind("score"):
        record = read_score(results.folder(cell))
        named: Any = cell.settings["backbone"]
        for control, value in record.get("references", {}).items():
            if control in CONTROLS:
                yield {
                    "backbone": named["name"],
                    "metric": record["metric"],
                    "shots": None,
                    "system": control,
                    "target": record["task"],
                    "seed": cell.settings["references"],
                    "value": value,
                    "cell": cell.id,
                }


def system_table(runs: pd.DataFrame) -> pd.DataFrame:
    """`run_table` as the table of SYSTEM_COLUMNS: systems by number of rows, controls beneath."""
    import pandas as pd

    from analysis.crossed import common_part
    from analysis.statistics import holm

    rows: list[dict[str, Any]] = []
    for _, part in runs.groupby(["backbone", "metric"], sort=False):
        places = _places(part)
        if not places:
            continue
        common = common_part([_difference(part, shots, system) for shots, system in places])
        own = [_system_row(part, shots, system, common) for shots, system in places]
        p_values = {str(place): row["p"] for place, row in enumerate(own) if row["p"] is not None}
        for place, p_value in holm(p_values).items():
            row = own[int(place)]
            row |= {"p_holm": p_value, "significant": "yes" if p_value <= LEVEL else "no"}
        controls = part[part["shots"].isna()]
        rows += [*own, *(_control_row(found) for _, found in controls.groupby("system", sort=False))]
    table = pd.DataFrame(rows, columns=list(SYSTEM_COLUMNS))
    table["shots"] = table["shots"].astype("Int64")
    return table


def _places(part: pd.DataFrame) -> list[tuple[int, str]]:
    """Numbers of rows and systems, in the order of the file."""
    known = part[part["shots"].notna()]
    systems = list(dict.fromkeys(known["system"]))
    return [(int(shots), system) for shots in dict.fromkeys(known["shots"]) for system in systems]


def _wide(part: pd.DataFrame, shots: int, system: str) -> pd.DataFrame:
    """[targets, seeds] of one system."""
    own = part[(part["shots"] == shots) & (part["system"] == system)]
    return own.pivot(index="target", columns="seed", values="value").astype(float)


def _first(part: pd.DataFrame) -> str:
    """The system that the others are held against."""
    return str(part["first"].dropna().iloc[0])


def _difference(part: pd.DataFrame, shots: int, system: str) -> pd.DataFrame:
    """[targets, seeds] of one system less the first; empty for the first itself."""
    first = _first(part)
    if system == first:
        return _wide(part, shots, first).iloc[:0, :0]
    return _wide(part, shots, system) - _wide(part, shots, first)


def _system_row(part: pd.DataFrame, shots: int, system: str, common: float) -> dict[str, Any]:
    from analysis.crossed import seed_difference
    from analysis.statistics import refused_claim

    own = part[(part["shots"] == shots) & (part["system"] == system)]
    values = _wide(part, shots, system)
    means = values.mean(axis=0) if values.notna().all(axis=None) else values.dropna(axis=1).mean(axis=0)
    row: dict[str, Any] = {
        "backbone": part["backbone"].iloc[0],
        "metric": part["metric"].iloc[0],
        "shots": shots,
        "system": system,
        "mean": values.stack().mean() if len(values) else None,
        "spread": means.std() if len(means) > 1 else None,
        "target_steps": own["target_steps"].mean() if len(own) else None,
        "all_steps": own["all_steps"].mean() if len(own) else None,
        "targets": len(values),
        "seeds": len(means),
        "p": None,
        "note": "",
    }
    if system == _first(part) or not len(values):
        return row
    difference = _difference(part, shots, system)
    found = seed_difference(difference.to_numpy(), common=common)
    refused = refused_claim(len(means))
    related = own.groupby("target")["related"].max().reindex(difference.index)
    return row | {
        "difference": found.mean,
        "low": found.interval.low,
        "high": found.interval.high,
        "p": None if refused or found.smallest_p != 0.0 else found.p_value,
        "with_source": _mean(difference[related > 0]),
        "without_source": _mean(difference[related == 0]),
        "note": "; ".join(filter(None, [refused, found.interval.reason])),
    }


def _mean(values: pd.DataFrame) -> float | None:
    """Of all numbers in a table; None for none."""
    found = values.stack()
    return float(found.mean()) if len(found) else None


def _control_row(found: pd.DataFrame) -> dict[str, Any]:
    values = found.pivot(index="target", columns="seed", values="value").astype(float)
    means = values.mean(axis=0)
    return {
        "backbone": found["backbone"].iloc[0],
        "metric": found["metric"].iloc[0],
        "system": found["system"].iloc[0],
        "mean": values.stack().mean(),
        "spread": means.std() if len(means) > 1 else None,
        "targets": len(values),
        "seeds": len(means),
        "significant": "",
        "note": "",
    }


def target_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Every system on every target: mean and spread over seeds, and the difference to the first system."""
    import pandas as pd

    keys = ["backbone", "metric", "shots", "system", "target"]
    rows = []
    firsts = {
        backbone: _first(part)
        for backbone, part in runs[runs["shots"].notna()].groupby("backbone", sort=False)
    }
    means = runs.groupby(keys, sort=False, dropna=False)["value"].mean()
    for place, part in runs.groupby(keys, sort=False, dropna=False):
        backbone, metric, shots, system, target = place
        row: dict[str, Any] = dict(zip(keys, place, strict=True))
        learned = part["shots"].notna().all()
        beside = means.get((backbone, metric, shots, firsts.get(backbone), target)) if learned else None
        row |= {
            "mean": part["value"].mean(),
            "spread": part["value"].std() if len(part) > 1 else None,
            "difference": None
            if beside is None or system == firsts[backbone]
            else part["value"].mean() - beside,
            "related_sources": part["related"].max(),
            "seeds": part["seed"].nunique(),
        }
        rows.append(row)
    table = pd.DataFrame(rows)
    table["shots"] = table["shots"].astype("Int64")
    return table


def system_lines(table: pd.DataFrame) -> list[str]:
    """What the table comes to, one line a backbone and metric."""
    lines = []
    for (backbone, metric), part in table.groupby(["backbone", "metric"], sort=False):
        own = part[part["difference"].notna()]
        if own.empty:
            continue
        first = part["system"].iloc[0]
        told = {
            word: own[(own["significant"] == "yes") & (own["difference"] * sign > 0)]
            for word, sign in (("better", 1), ("worse", -1))
        }
        said = [
            f"{word} than it: "
            + ", ".join(
                f"{row.system} with {row.shots} rows ({row.difference:+.3f})" for row in found.itertuples()
            )
            for word, found in told.items()
            if len(found)
        ]
        verdict = "; ".join(said) or "no difference to it is shown"
        lines.append(f"{backbone}, {metric}, against {first}: {verdict} ({len(own)} comparisons, corrected).")
    return lines


def draw_systems(table: pd.DataFrame, folder: Path) -> list[Path]:
    """A figure a backbone and metric: differences with intervals, by number of rows."""
    from analysis.figures import difference_rows, figure_bytes

    shutil.rmtree(folder, ignore_errors=True)
    written: list[Path] = []
    several = table["metric"].nunique() > 1
    for (backbone, metric), part in table.groupby(["backbone", "metric"], sort=False):
        drawn = part[part["difference"].notna()]
        if drawn.empty:
            continue
        first = part["system"].iloc[0]
        figure = difference_rows(
            drawn.assign(panel=[f"{shots} rows" for shots in drawn["shots"]]).rename(
                columns={"system": "row"}
            ),
            title=f"{backbone}: {metric} less that of {first}",
            value_label=f"difference of {metric}, mean over targets, with 95 % interval",
        )
        folder.mkdir(parents=True, exist_ok=True)
        name = slug(f"{backbone}-{metric}" if several else str(backbone), len(".svg"))
        for kind in ("svg", "png"):
            path = folder / f"{name}.{kind}"
            path.write_bytes(figure_bytes(figure, kind))
            written.append(path)
    return written


def rows_for_people(table: pd.DataFrame) -> Sequence[Sequence[str]]:
    """`system_table` for a terminal."""

    def number(value: Any, digits: int = 3) -> str:
        return "-" if value is None or value != value else f"{value:.{digits}f}"

    return [
        [
            str(row.backbone),
            _or_dash(row.shots),
            str(row.system),
            number(row.mean),
            number(row.difference),
            "-" if number(row.low) == "-" else f"{row.low:+.3f} to {row.high:+.3f}",
            number(row.p_holm),
            str(row.significant) if isinstance(row.significant, str) else "",
            number(row.target_steps, 0),
            number(row.all_steps, 0),
            f"{row.targets} x {row.seeds}",
        ]
        for row in table.itertuples(index=False)
    ]


def _or_dash(value: Any) -> str:
    import pandas as pd

    return "-" if pd.isna(value) else str(value)


PEOPLE = [
    "model", "rows", "system", "mean", "difference", "95 % interval", "p (Holm)", "significant", "target steps", "all steps",
    "targets x seeds",
]  # fmt: skip
"""Heads of `rows_for_people`."""
