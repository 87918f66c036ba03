"""Kind `tuned`: a run that started from a prompt beside the run from scratch, with both speed-ups.

Its files: `tuned.json`, the values of `TunedPair` (transfers/tuned_pairs.py). Nothing is trained or scored here: curves and test
scores are inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from prompttransfer.files import write_json
from prompttransfer.study.cell import Cell, Context, Json, Unit
from prompttransfer.study.contents import read_score
from prompttransfer.study.kinds.loading import prompt_of, setting
from prompttransfer.study.kinds.versions import VERSIONS

if TYPE_CHECKING:
    from prompttransfer.adaptations.adaptation import Adaptation

TUNED = "tuned.json"


class Tuned:
    """Arithmetic on curves."""

    version = VERSIONS["tuned"]

    def run(self, unit: Unit, context: Context) -> Mapping[str, Mapping[str, Json]]:
        """Compare every run of the unit with the run from scratch."""
        from prompttransfer.transfers.tuning import tuned_pair

        for cell in unit.cells:
            source = prompt_of(cell, "source", context)
            scratch, run = with_score(cell, "scratch", context), with_score(cell, "run", context)
            pair = tuned_pair(
                source.name,
                setting(cell.settings, "metric"),
                run.seed or 0,
                scratch,
                run,
                setting(cell.settings, "evaluate_every"),
            )
            record = pair.as_dict() | {"source_task": source.task, "metric": setting(cell.settings, "metric")}
            write_json(context.output(cell) / TUNED, record)
        return {cell.id: {} for cell in unit.cells}


def with_score(cell: Cell, role: str, context: Context) -> Adaptation:
    """The prompt of an input with its test score, which is another input."""
    prompt = prompt_of(cell, role, context)
    score = read_score(context.input(cell, f"{role} score"))
    test = {score["metric"]: score["value"], "chance": score["chance"], "rows": score["rows"]}
    return replace(prompt, scores={**prompt.scores, "test": test})
