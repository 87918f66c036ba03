"""What was said to each test row, as JSON lines: for whoever looks at errors, compares two adaptations, draws a confusion.

    {"prompt": "sst2", "task": "sst2", "row": 0, "text": "...", "gold": "negative", "predicted": "positive",
     "right": false, "score": 0.0, "probabilities": {"negative": 0.31, "positive": 0.69}}

`row` is the place in the test split, `text_b` the second text where there is one. Where text is written `gold` is the list of
accepted answers, `right` whether one of them is met exactly, `score` the task's metric of this row alone. Of a regression
`gold` and `predicted` are numbers and `score` is 1 - |error| / (high - low); nothing is right or wrong there. Where
a row may have several labels both are lists of them, `right` whether they are the same and `score` the F1 of the row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import Encoding
from prompttransfer.evaluation.evaluate import Answered
from prompttransfer.evaluation.grouped import evaluate_all
from prompttransfer.files import write_text
from tasks.documents import checked, parse_json_lines, read_bytes
from tasks.errors import UserError
from tasks.label_metrics import f1_of_row
from tasks.metrics import METRICS, exact_match
from tasks.task import Example, Task

DIGITS = 6
"""Of probabilities and scores."""


class Prediction(BaseModel):
    """One line."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)
    prompt: str
    task: str
    row: int
    text: str
    text_b: str | None = None
    gold: str | float | list[str]
    predicted: str | float | list[str]
    right: bool | None
    score: float
    probabilities: dict[str, float] | None = None


@dataclass(frozen=True)
class Said:
    """What one adaptation said to the rows of one task, in their order."""

    prompt: str
    task: str
    rows: tuple[Prediction, ...]

    @property
    def of_labels(self) -> bool:
        """Whether labels were predicted, and neither text nor numbers."""
        return all(isinstance(row.gold, str) for row in self.rows)

    @property
    def of_sets(self) -> bool:
        """Whether any number of labels was predicted for each row."""
        return all(isinstance(row.predicted, list) for row in self.rows)

    @property
    def of_values(self) -> bool:
        """Whether numbers were predicted."""
        return all(isinstance(row.gold, float) for row in self.rows)

    @property
    def labels(self) -> list[str]:
        """The labels in the order of the task where probabilities tell it, else sorted."""
        first = self.rows[0].probabilities
        return (
            list(first) if first else sorted({str(said) for r in self.rows for said in (r.gold, r.predicted)})
        )


def predicted_lines(
    prompt: str, task: Task, examples: Sequence[Example], answered: Answered
) -> Iterator[dict[str, Any]]:
    """The lines of one adaptation on one task."""
    for place, (example, said) in enumerate(zip(examples, answered.said, strict=True)):
        line: dict[str, Any] = {"prompt": prompt, "task": task.name, "row": place, "text": example.first}
        if example.second is not None:
            line["text_b"] = example.second
        if task.generates:
            value = METRICS[task.metric]([said], [example])
            right = exact_match([said], [example]) == 1
            line |= {"gold": list(example.references), "predicted": said, "right": right}
            line["score"] = round(value, DIGITS)
        elif task.scale is not None and example.value is not None:
            apart = abs(said - example.value) / (task.scale.high - task.scale.low)
            line |= {"gold": example.value, "predicted": round(said, DIGITS), "right": None}
            line["score"] = round(1 - apart, DIGITS)
        elif example.labels is not None:
            sets = [[task.labels[index] for index in each] for each in (example.labels, said)]
            line |= {"gold": sets[0], "predicted": sets[1], "right": sets[0] == sets[1]}
            line["score"] = round(f1_of_row(said, example.labels), DIGITS)
        elif example.label is not None:
            right = said == example.label
            line |= {"gold": task.labels[example.label], "predicted": task.labels[said], "right": right}
            line["score"] = float(right)
        if answered.probabilities is not None:
            shares = zip(task.labels, answered.probabilities[place], strict=False)
            line["probabilities"] = {label: round(share, DIGITS) for label, share in shares}
        yield line


def predictions_of(
    backbone: Backbone,
    adaptations: Sequence[Adaptation],
    task: Task,
    examples: Sequence[Example],
    encoding: Encoding,
) -> list[dict[str, Any]]:
    """The lines of adaptations on rows of one task."""
    scores = evaluate_all(backbone, adaptations, task, examples, encoding, keep=True)
    return [
        line
        for each, score in zip(adaptations, scores, strict=True)
        if score.answered is not None
        for line in predicted_lines(each.name, task, examples, score.answered)
    ]


def write_predictions(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Write lines to a file, whole or not at all."""
    write_text(path, "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))


def read_predictions(path: Path) -> list[Said]:
    """What each adaptation of a file said to each task, in the order of their first rows."""
    found: dict[tuple[str, str], list[Prediction]] = {}
    for number, value in parse_json_lines(read_bytes(path, "file of predictions"), str(path)):
        row = checked(Prediction, value, f"{path}:{number}")
        found.setdefault((row.prompt, row.task), []).append(row)
    if not found:
        raise UserError(f"{path} holds no predictions: `evaluate --predictions` writes them")
    return [Said(prompt, task, tuple(rows)) for (prompt, task), rows in found.items()]


def choose(
    found: Sequence[Said], path: Path, prompt: str | None, task: str | None, option: str
) -> list[Said]:
    """Those of an adaptation and a task where they are named; UserError where none is so."""
    chosen = [said for said in found if prompt in (None, said.prompt) and task in (None, said.task)]
    if not chosen:
        there = "; ".join(f"{said.prompt} on {said.task}" for said in found[:8])
        wanted = " on ".join(name for name in (prompt, task) if name)
        raise UserError(
            f"{path} has no predictions of {wanted}: there are {there}; choose with {option} and --task"
        )
    return chosen


Outcome = Literal["both right", "only the first", "only the second", "both wrong"]


def outcome(first: Prediction, second: Prediction) -> Outcome:
    """Which of two predictions of one row is right."""
    if first.right and second.right:
        return "both right"
    if first.right:
        return "only the first"
    return "only the second" if second.right else "both wrong"


def check_same_rows(first: Said, second: Said) -> None:
    """Raise UserError unless both are about the very same rows."""
    for one, other in zip(first.rows, second.rows, strict=False):
        if (one.row, one.text, one.text_b, one.gold) != (other.row, other.text, other.text_b, other.gold):
            raise UserError(
                f"row {one.row} of {first.prompt} and row {other.row} of {second.prompt} on {first.task} are not the same: "
                f"predict both on the same test rows"
            )
    if len(first.rows) != len(second.rows):
        raise UserError(
            f"{first.prompt} has {len(first.rows)} rows of {first.task}, {second.prompt} {len(second.rows)}: predict both on "
            f"the same test rows"
        )
