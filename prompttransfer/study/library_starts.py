"""What a system of a study of few rows takes from its library, as `start:` of a method says.

    retrieve:top=3,by=C_average   the `top` sources most like a probe of the target, each with its similarity as weight (SPoT)
    mixture:by=C_average          the same of all sources
    average                       all sources, each with the same weight
    best-of:top=3,by=C_average    the `top` one after the other; what is best on the validation rows is kept (SPoT)
    from-best                     the source with the best score on the validation rows as it is (no probe)
    vectors:top=2,by=C_average    the sum of what training added to the `top`, on the common start of all (task prompt vectors)
    shared                        what the sources learned in common, trained together by the same method (MPT)

A probe is a prompt that was trained on the target's few rows for a twentieth of the steps, at least 30 (transfers/retrieval.py), as
it is at that step, be it better than its start on the validation rows or not.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.errors import UserError, unknown

LIBRARY, PROBE, TEACHER = "library ", "probe", "teacher"
"""Roles of inputs of a cell: a prompt of the library (the task follows), a probe of the target, what it is distilled from."""
LIBRARY_START, DISTIL, TEACHERS = "library_start", "distil", "teachers"
"""Settings of a cell that names what it takes of the library, and how it or the library is distilled."""
USUAL_TOP = {"retrieve": 3, "best-of": 3, "vectors": 2}
"""Those that take the most similar of the sources -> how many where nothing is said."""
SIMILAR = (*USUAL_TOP, "mixture")
"""Those that look at similarities to a probe."""
SHARED, FROM_BEST, AVERAGE = "shared", "from-best", "average"
NAMES = (*USUAL_TOP, "mixture", AVERAGE, FROM_BEST, SHARED)


@dataclass(frozen=True)
class LibraryStart:
    """One way to start from a library."""

    how: str
    top: int | None = None
    """How many sources; None for all."""
    by: str = ""
    """The similarity; empty where none is looked at."""

    @property
    def probes(self) -> bool:
        """Whether it asks for a probe of the target."""
        return self.how in SIMILAR

    @property
    def runs(self) -> int:
        """How many runs on the target it takes."""
        return (self.top or 1) if self.how == "best-of" else 1

    def __str__(self) -> str:
        parts = [f"top={self.top}"] * (self.top is not None) + [f"by={self.by}"] * bool(self.by)
        return f"{self.how}:{','.join(parts)}" if parts else self.how


def parse_library_start(text: str) -> LibraryStart:
    """The start that a text stands for. Raises UserError."""
    name, sign, argument = text.partition(":")
    if name not in NAMES:
        raise unknown("start from the library", name, NAMES)
    known = ("top",) * (name in USUAL_TOP) + ("by",) * (name in SIMILAR)
    given: dict[str, str] = {}
    for part in argument.split(",") if sign else ():
        key, equals, value = part.strip().partition("=")
        if not equals or not value:
            raise UserError(
                f"start {text!r}: {part!r} is no setting: write it as in retrieve:top=3,by=C_average"
            )
        if key not in known:
            raise unknown(f"setting of start {name}", key, known)
        if key in given:
            raise UserError(f"start {text!r}: {key} is given twice: keep one")
        given[key] = value
    return LibraryStart(name, _top(name, text, given), _by(name, given))


def _top(name: str, text: str, given: dict[str, str]) -> int | None:
    top = given.get("top", str(USUAL_TOP.get(name, "")))
    if not top:
        return None
    if not (top.isdecimal() and int(top) >= 1):
        raise UserError(f"start {text!r}: top is {top!r}: it must be how many sources, at least 1")
    return int(top)


def _by(name: str, given: dict[str, str]) -> str:
    from analysis.similarity import INDICATORS

    if name not in SIMILAR:
        return ""
    by = given.get("by", "C_average")
    if by not in INDICATORS:
        raise unknown("similarity of prompts", by, INDICATORS)
    return by
