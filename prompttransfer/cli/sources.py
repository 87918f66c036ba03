"""Adaptations as a command line names them: which of them are meant, and what each is called beside the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.adaptations.method import Method

Placed = tuple[Sequence[str], "Adaptation"]
"""Words that tell where an adaptation lies, the best in front, and the adaptation."""


def of_methods(found: Sequence[Adaptation], methods: Sequence[str] | None) -> list[Adaptation]:
    """Those of the methods that are named (`lora`, `lora:rank=8`); all where none is.

    Settings that are not given may be any. Raises UserError where a method is unknown, or none is of it.
    """
    if not methods:
        return list(found)
    fits = {text: _fitting(text) for text in methods}
    for text, is_one in fits.items():
        if not any(is_one(each.method) for each in found):
            there = ", ".join(dict.fromkeys(str(each.method) for each in found)) or "none"
            raise UserError(f"--method {text}: nothing here is of it; what is given is of {there}")
    return [each for each in found if any(is_one(each.method) for is_one in fits.values())]


def _fitting(text: str) -> Callable[[Method], bool]:
    from prompttransfer.adaptations.methods import parse_method, settings_in

    wanted = parse_method(text)
    given = [key.replace("-", "_") for key in settings_in(text)]
    settings = {key: value for key, value in wanted.settings().items() if key in given}

    def fits(method: Method) -> bool:
        own = method.settings()
        return method.name == wanted.name and all(own[key] == value for key, value in settings.items())

    return fits


def named_apart(found: Sequence[Placed]) -> list[Adaptation]:
    """The adaptations, each with a name of its own.

    Where they are of several methods each says its own (`sst2@lora`); those that still share a name are told apart by
    their settings, else by where they lie (`sst2@run-1`). Raises UserError for one that is given twice.
    """
    from dataclasses import replace

    named = _with_methods([each for _, each in found])
    places = [(each.name, (str(each.method), *words)) for each, (words, _) in zip(named, found, strict=True)]
    apart = {name: _apart([words for other, words in places if other == name]) for name, _ in places}
    repeated = sorted(name for name, words in apart.items() if words is None)
    if repeated:
        raise UserError(f"given twice: {', '.join(repeated)}; name every one once")
    left = {name: iter(words or ()) for name, words in apart.items()}
    told = [(each, next(left[each.name])) for each in named]
    return [replace(each, name=f"{each.name}@{word}") if word else each for each, word in told]


def _apart(places: Sequence[Sequence[str]]) -> Sequence[str] | None:
    """The first words of each place that are another for each; an empty word for one alone, None where there are none."""
    if len(places) == 1:
        return [""]
    return next((words for words in zip(*places, strict=False) if len(set(words)) == len(words)), None)


def _with_methods(found: Sequence[Adaptation]) -> list[Adaptation]:
    """The same, with its method behind each name where there are several."""
    from dataclasses import replace

    methods = list(dict.fromkeys(each.method for each in found))
    if len({method.name for method in methods}) < 2:
        return list(found)
    kinds = [method.name for method in methods]
    said = {method: method.name if kinds.count(method.name) == 1 else str(method) for method in methods}
    return [replace(each, name=f"{each.name}@{said[each.method]}") for each in found]
