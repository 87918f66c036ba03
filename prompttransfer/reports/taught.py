"""What runs with a teacher came to, for the page: PANDA's students (`distilled` of a transfer) and POST's (`public-text.csv`).

Each table stands with what its columns or rows are in words, the controls among them, so that no score is read alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from analysis.report import Taught
from projectors.public_report import CONDITIONS, NOT_CONTROLS
from prompttransfer.reports.run_folder import RunFolder, TransferRecord, read_long
from tasks.errors import UserError

PANDA = {
    "chance": "control: always the commonest answer",
    "scratch": "control: trained on the target alone, from the start of the student, same rows and steps",
    "from source": "the teacher, also a control: trained on the target from the source's vectors (TPT_task)",
    "distilled": "the student: from the start of `scratch`, the distance to the teacher added to its loss",
    "weight": "of that distance, mean over seeds; at 0 a student is a run from scratch",
    "steps": "all of a student: those of the source, the teacher and itself",
}
"""Columns of PANDA's table -> what they are."""
SCORES = {
    "chance": "chance",
    "scratch": "scratch",
    "from source": "transferred",
    "distilled": "distilled",
    "weight": "weight",
    "steps": "distilled_all_steps",
}
"""Those columns -> their names in a record."""


def taught(folder: RunFolder, record: TransferRecord, prefix: str) -> tuple[Taught, ...]:
    """A table for each of the two that the run has; names of tasks without `prefix`."""
    metrics = dict(zip(record.raw.targets, record.raw.metrics, strict=False))
    found = [from_sources(record)] if record.distilled else []
    return (*found, *(by_public_text(path, prefix, metrics) for path in folder.public))


def from_sources(record: TransferRecord) -> Taught:
    """Source and target -> test scores beside their controls, mean over seeds."""
    rows = pd.DataFrame([pair.as_dict() for pair in record.distilled])
    rows.index = rows["source"] + " → " + rows["target"]
    table = rows[list(SCORES.values())].astype(float).groupby(level=0, sort=False).mean()
    seeds = rows["seed"].nunique()
    about = (
        "Test scores of students that learned from what was tuned from a source, beside their controls; "
        f"{'one seed' if seeds == 1 else f'means over {seeds} seeds'}."
    )
    table.columns = pd.Index(SCORES)
    table["steps"] = table["steps"].round().astype("Int64")
    return Taught("Distilled from the tuned run (PANDA)", about, table, PANDA)


def by_public_text(path: Path, prefix: str, metrics: Mapping[str, str]) -> Taught:
    """Condition and task -> test score, with the mean over tasks where all are known to be of one metric.

    Raises UserError for a table of another kind.
    """
    long = read_long(path)
    wanted = {"task", "condition", "score"}
    if not wanted <= set(long.columns):
        raise UserError(f"{path}: it has no columns {', '.join(sorted(wanted))}: run `project distil` again")
    strange = sorted(set(long["condition"].astype(str)) - set(CONDITIONS))
    if strange:
        raise UserError(f"{path}: condition {strange[0]!r} is none of `project distil`: run it again")
    scores = pd.to_numeric(long["score"], errors="coerce")
    names = long["task"].astype(str).str.removeprefix(prefix)
    table = scores.groupby([long["condition"].astype(str), names], sort=False).mean().unstack(sort=False)
    table = table.loc[[name for name in CONDITIONS if name in table.index]]
    if len({metrics.get(task) for task in table.columns}) == 1 and table.columns[0] in metrics:
        table["mean"] = table.mean(axis=1)
    about = (
        f"Test scores of prompts that were carried to another backbone by public text, without a label ({path.parent.name}), "
        "beside their controls, in italics; one seed of the carrying."
    )
    words = {name: CONDITIONS[name] for name in table.index}
    controls = tuple(name for name in table.index if name not in NOT_CONTROLS)
    return Taught("Carried by public text (POST)", about, table, words, controls)
