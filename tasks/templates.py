"""Templates: how a row becomes one text that a decoder goes on with, the answer being what comes next.

    Review: {text}\nSentiment:                                    great / terrible
    {text_a}\nQuestion: {text_b} True?\nAnswer:                   yes / maybe / no

A template names every text of its kind of task once, in any order, and ends in a cue. It says nothing to masked LMs and
T5, whose rows are their texts alone. Names of a task's fields are those of its kind (task.KINDS); what an aspect is about
stands behind the text (rows.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tasks.errors import UserError, unknown

TEXTS: dict[str, tuple[str, ...]] = {
    "sentence": ("text",),
    "pair": ("text_a", "text_b"),
    "extractive-qa": ("question", "context"),
    "closed-book-qa": ("question",),
    "summarisation": ("document",),
}
"""Kind -> the fields that are `first` and `second` of an Example."""

USUAL: dict[str, str] = {
    "sentence": "{text}\nAnswer:",
    "pair": "{text_a}\n{text_b}\nAnswer:",
    "extractive-qa": "{context}\nQuestion: {question}\nAnswer:",
    "closed-book-qa": "Question: {question}\nAnswer:",
    "summarisation": "{document}\nSummary:",
}
"""Kind -> the template of a task that names none."""

OF_TYPE: dict[tuple[str, str], str] = {
    ("sentiment", "sentence"): "Review: {text}\nSentiment:",
    ("nli", "pair"): "{text_a}\nQuestion: {text_b} True?\nAnswer:",
    ("ethics", "sentence"): "{text}\nQuestion: Is that reasonable?\nAnswer:",
    ("ethics", "pair"): "{text_a}\n{text_b}\nQuestion: Is that reasonable?\nAnswer:",
    ("paraphrase", "pair"): "{text_a}\n{text_b}\nQuestion: Do both mean the same?\nAnswer:",
}
"""(type, kind) -> the same where the type says what is asked."""

_FIELD = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Frame:
    """What stands around the texts of a row."""

    before: str
    between: str | None
    """None where the task has one text."""
    after: str
    """The cue."""
    swapped: bool
    """Whether the second text stands first."""


def usual_template(type_: str, kind: str) -> str:
    """The template of a task that names none."""
    return OF_TYPE.get((type_, kind), USUAL[kind])


def read_template(template: str, kind: str, task: str) -> Frame:
    """The parts of a template for tasks of `kind`.

    A text is read with a space in front, so it stands behind white space or begins the template; a space there is the
    text's own. Raises UserError, one line that names `task`, for a template that is none.
    """
    fields = TEXTS[kind]
    named = _FIELD.findall(template)
    where = f"template {template!r} of task {task!r}"
    if strange := set(named) - set(fields):
        raise unknown(f"field in the {where}:", min(strange), fields)
    if sorted(named) != sorted(fields):
        needed = " and ".join(f"{{{field}}}" for field in fields)
        raise UserError(f"{where} must name {needed} once, as in {USUAL[kind]!r}")
    literals = _FIELD.split(template)[::2]
    if "{" in "".join(literals) or "}" in "".join(literals):
        raise UserError(f"{where} has a brace that belongs to no field: leave it out")
    if any(part and not part[-1].isspace() for part in literals[:1]) or any(
        not part or not part[-1].isspace() for part in literals[1:-1]
    ):
        raise UserError(f"{where}: a text stands behind a space or a new line: put one before its brace")
    if not literals[-1] or literals[-1][-1].isspace():
        raise UserError(
            f"{where} must end in a cue that is no space, as in 'Sentiment:': the answer has a space of its own"
        )
    before, *middle = (part.removesuffix(" ") for part in literals[:-1])
    return Frame(before, middle[0] if middle else None, literals[-1], named != list(fields))
