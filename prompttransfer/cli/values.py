"""What the values of options may be, said once beside each option and held for the command line and for Python alike.

A check stands in the option's annotation, after typer's own: `Annotated[int, typer.Option(...), Whole(1)]`. A verb
under `checked` looks at every value before anything is imported, read or made. Typer never sees the checks, so a
message is the same wherever the verb is called from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache, wraps
from inspect import signature
from numbers import Integral
from numbers import Real as RealNumber
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_args, get_type_hints

import typer

from prompttransfer.outputs import check_place
from tasks.errors import UserError, unknown

Verb = TypeVar("Verb", bound=Callable[..., Any])
LARGEST = 10**9
"""No count that an option takes is larger: what needs more is a slip of the key, and does not fit elsewhere."""
LARGEST_SEED = 2**32 - 1
"""What torch, NumPy and scikit-learn all take."""


class Check(Protocol):
    """Looks at one value of an option."""

    def check(self, option: str, value: Any) -> None:
        """Raise UserError if `value` cannot be the option's."""


@dataclass(frozen=True)
class Whole:
    """A whole number from `least` to `most`."""

    least: int = 1
    most: int = LARGEST

    def check(self, option: str, value: Any) -> None:
        if (
            isinstance(value, bool)
            or not isinstance(value, Integral)
            or not self.least <= int(value) <= self.most
        ):
            raise UserError(f"{option} {value}: give a whole number from {self.least} to {self.most}")


@dataclass(frozen=True)
class Real:
    """A number between `least` and `most`, both allowed unless `above` or `below` leaves the end out."""

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    below: bool = False

    def check(self, option: str, value: Any) -> None:
        number = not isinstance(value, bool) and isinstance(value, RealNumber) and math.isfinite(value)
        if (
            number
            and (value > self.least if self.above else value >= self.least)
            and (value < self.most if self.below else value <= self.most)
        ):
            return
        raise UserError(f"{option} {value}: give a number {self}")

    def __str__(self) -> str:
        parts = []
        if self.least > -math.inf:
            parts.append(f"above {self.least:g}" if self.above else f"from {self.least:g} on")
        if self.most < math.inf:
            parts.append(f"below {self.most:g}" if self.below else f"up to {self.most:g}")
        return " and ".join(parts) or "that is finite"


@dataclass(frozen=True)
class OneOf:
    """One of a few names; `kind` says of what in the message."""

    kind: str
    names: Collection[str]

    def check(self, option: str, value: Any) -> None:
        if value not in self.names:
            raise unknown(self.kind, str(value), self.names)


@dataclass(frozen=True)
class Output:
    """A place that can be written to: a folder, or else a file."""

    folder: bool = True
    standard: str | None = None
    """Where the command writes when it is not told; a call from Python is told, or writes nothing."""

    def check(self, option: str, value: Any) -> None:
        check_place(Path(value), folder=self.folder, option=option)


Seed = Whole(0, LARGEST_SEED)
Rate = Real(0, 1e30, above=True, below=True)  # beyond it a step does not fit float32
Share = Real(0, 1)


def checked(verb: Verb) -> Verb:
    """`verb` with all its values looked at before it begins; text for a path becomes one."""
    # What a verb returns is for Python callers; its type is heavy to import, and typer would evaluate it.
    verb.__annotations__.pop("return", None)
    shape = signature(verb)

    @cache
    def hints() -> dict[str, Any]:
        return get_type_hints(verb, include_extras=True)

    @wraps(verb)
    def call(*given: Any, **named: Any) -> Any:
        bound = shape.bind(*given, **named)
        for name, value in bound.arguments.items():
            bound.arguments[name] = _looked_at(name, value, hints()[name])
        return verb(*bound.args, **bound.kwargs)

    return call  # type: ignore[return-value]


def as_command(verb: Callable[..., Any]) -> Callable[..., Any]:
    """`verb` as the command line has it: with the standard place of every output that is not given."""

    @wraps(verb)
    def call(*given: Any, **named: Any) -> Any:
        return verb(*given, **named)

    hints = get_type_hints(verb, include_extras=True)
    parameters = []
    for parameter in signature(verb).parameters.values():
        hint = hints[parameter.name]
        place = next((c.standard for c in _checks(hint) if isinstance(c, Output)), None)
        default = parameter.default if place is None else Path(place)
        parameters.append(parameter.replace(annotation=hint, default=default))
    call.__signature__ = signature(verb).replace(parameters=parameters)  # type: ignore[attr-defined]
    return call


def _looked_at(name: str, value: Any, hint: Any) -> Any:
    """The value, after every check that stands in its hint; each of several values is looked at."""
    if value is None:
        return None
    several = isinstance(value, (list, tuple))
    values = list(value) if several else [value]
    option = _option(name, hint)
    if several and not values and not _optional(hint):
        raise UserError(f"{option}: give at least one")
    if _is_path(hint):
        values = [_path(option, one) for one in values]
    for check in _checks(hint):
        for one in values:
            check.check(option, one)
    return values if several else values[0]


def _path(option: str, value: Any) -> Path:
    if value == "" or "\0" in str(value):
        raise UserError(f"{option} {str(value)!r}: that is no path; give the name of a file or folder")
    return Path(value)


def _checks(hint: Any) -> Iterator[Check]:
    for part in getattr(hint, "__metadata__", ()):
        if hasattr(part, "check"):
            yield part


def _option(name: str, hint: Any) -> str:
    """How the option is written on the command line; an argument's name in capitals."""
    for part in getattr(hint, "__metadata__", ()):
        if isinstance(part, typer.models.ArgumentInfo):
            return name.upper()
        if isinstance(part, typer.models.OptionInfo):
            written = [str(w) for w in (part.default, *(part.param_decls or ())) if str(w).startswith("--")]
            return written[0] if written else f"--{name.replace('_', '-')}"
    return f"--{name.replace('_', '-')}"


def _kinds(hint: Any) -> Iterator[Any]:
    """Every plain type that a hint names, however deep."""
    inner = get_args(hint)[:1] if hasattr(hint, "__metadata__") else get_args(hint)
    if not inner:
        yield hint
    for part in inner:
        yield from _kinds(part)


def _is_path(hint: Any) -> bool:
    return Path in _kinds(hint)


def _optional(hint: Any) -> bool:
    return type(None) in _kinds(hint)


def lines_of(text: str | None) -> str | None:
    r"""What was typed with its `\n` as new lines, which a shell hands over as two characters."""
    return None if text is None else text.replace("\\n", "\n")
