"""The methods, one file a kind and one entry here; `parse_method` reads what stands on a command line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import MISSING, fields
from typing import Any

from prompttransfer.adaptations.method import Method
from prompttransfer.adaptations.methods.adalora import AdaLora
from prompttransfer.adaptations.methods.attempt import Attempt
from prompttransfer.adaptations.methods.biases import BitFit
from prompttransfer.adaptations.methods.bmtpt import BayesPrompt
from prompttransfer.adaptations.methods.bottleneck import Houlsby, Pfeiffer
from prompttransfer.adaptations.methods.delta import DeltaLora
from prompttransfer.adaptations.methods.dept import DePT
from prompttransfer.adaptations.methods.dora import Dora
from prompttransfer.adaptations.methods.dtvg import Grouping
from prompttransfer.adaptations.methods.encoded import PTuning
from prompttransfer.adaptations.methods.frozen_a import LoraFA
from prompttransfer.adaptations.methods.full import Full
from prompttransfer.adaptations.methods.in_context import InContext
from prompttransfer.adaptations.methods.low_rank import Lora, LoraPlus
from prompttransfer.adaptations.methods.multitask import Multitask
from prompttransfer.adaptations.methods.particles import Particles
from prompttransfer.adaptations.methods.prefixes import PrefixTuning, PTuningV2
from prompttransfer.adaptations.methods.probe import Probe
from prompttransfer.adaptations.methods.prompt import PromptTuning
from prompttransfer.adaptations.methods.residual import Residual
from prompttransfer.adaptations.methods.scaling import IA3
from prompttransfer.adaptations.methods.text import TextPrompt
from prompttransfer.adaptations.methods.text_search import TextSearch
from prompttransfer.adaptations.methods.ulpt import LowDimensional
from prompttransfer.adaptations.methods.vera import Vera
from tasks.errors import UserError, unknown

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        *(PromptTuning, PTuning, PrefixTuning, PTuningV2),
        *(Lora, LoraPlus, LoraFA, DeltaLora, Dora, AdaLora, Vera),
        *(Residual, LowDimensional, DePT, Multitask, Attempt, Grouping, Particles, BayesPrompt),
        *(IA3, BitFit, Houlsby, Pfeiffer, Probe, Full),
        *(TextPrompt, TextSearch, InContext),
    )
}


def parse_method(text: str, **defaults: Any) -> Method:
    """The method that `name` or `name:setting=value,...` stands for, as in `lora:rank=8,targets=query+value`.

    A value may stand in double quotes, as a string of JSON (`text:prompt="good, or bad?"`); without them it ends at the
    next comma. `defaults` are settings that count where the text gives none and the method has them. Raises UserError for
    an unknown name or setting, or a value that is not what the setting takes.
    """
    name = text.partition(":")[0]
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return make_method(name, settings_in(text), **defaults)


def settings_in(text: str) -> dict[str, str]:
    """Setting -> value as they stand in `name:setting=value,...`. Raises UserError where that is none."""
    name, _, rest = text.partition(":")
    given: dict[str, str] = {}
    while rest := rest.lstrip(" ,"):
        part, sign, value = rest.partition("=")
        if not sign or "," in part:
            said = f"method {text!r}: {part.partition(',')[0].strip()!r} is no setting"
            raise UserError(f"{said}: {_advice(name, given)}")
        value, rest = _read_value(text, value)
        _check_new(f"method {text!r}", part.strip(), given)
        given[part.strip()] = value
    return given


def _check_new(what: str, key: str, given: Iterable[str]) -> None:
    """Raise UserError for a setting that is given before, be it spelled with the other of `-` and `_`."""
    twice = next((other for other in given if other.replace("_", "-") == key.replace("_", "-")), None)
    if twice is not None:
        said = f"{key} is given twice" if twice == key else f"{twice} and {key} are one setting"
        raise UserError(f"{what}: {said}: keep one")


def _read_value(text: str, value: str) -> tuple[str, str]:
    """What a value at the beginning of `value` is, and what stands behind it and its comma."""
    if not value.lstrip().startswith('"'):
        found, _, rest = value.partition(",")
        return found.strip(), rest
    value = value.lstrip()
    try:
        found, end = json.JSONDecoder(strict=False).raw_decode(value)
    except json.JSONDecodeError:
        raise UserError(
            f"method {text!r}: the quotes of {value} are not closed, or a backslash in them is none of JSON's: write "
            f'"...", and \\" for a quote inside'
        ) from None
    rest = value[end:].lstrip()
    if rest and not rest.startswith(","):
        raise UserError(f"method {text!r}: a comma must follow the quotes, not {rest!r}")
    return found, rest[1:]


def _advice(name: str, given: dict[str, str]) -> str:
    """What to write in its place; where a text was cut at its comma, in quotes that the shell leaves alone."""
    if given and name in METHODS:
        last, value = next(reversed(given.items()))
        if last in {f.name for f in fields(METHODS[name]) if isinstance(f.default, str)}:
            return f"""a {last} with a comma stands in quotes, as in '{name}:{last}="{value}, ..."'"""
    return f"write {_example(name)}"


def make_method(name: str, given: dict[str, Any], **defaults: Any) -> Method:
    """The method `name` with settings as text or values."""
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    known = {field.name.replace("_", "-"): field for field in fields(METHODS[name])}
    values = {
        key: value for key, value in defaults.items() if key in {field.name for field in known.values()}
    }
    for place, (key, value) in enumerate(given.items()):
        spelled = key.replace("_", "-")
        _check_new(name, key, list(given)[:place])
        if not known:
            raise UserError(f"method {name} has no settings, {key!r} was given: write {name} alone")
        if spelled not in known:
            raise unknown(f"setting of method {name}", key, known)
        values[known[spelled].name] = _value(f"{name}: {key}", value, known[spelled].default)
    return METHODS[name](**values)


def _example(name: str) -> str:
    given = fields(METHODS[name])
    if not given:
        return f"{name} alone, which has no settings"
    return f"setting=value, as in {name}:{given[0].name}={given[0].default}"


def _value(what: str, given: Any, like: Any) -> Any:
    """`given` as the kind of value that the default `like` is."""
    assert like is not MISSING
    try:
        if isinstance(like, bool):
            return {"true": True, "false": False}[str(given).lower()]
        if isinstance(like, tuple):
            return tuple(given) if isinstance(given, list | tuple) else tuple(str(given).split("+"))
        if isinstance(like, int) and isinstance(given, bool | float):
            raise ValueError
        return type(like)(given)
    except (ValueError, KeyError, TypeError):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}.get(type(like), "a word")
        raise UserError(f"{what} is {given!r}: it must be {kind}, such as {like}") from None
