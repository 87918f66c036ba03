"""From the text of a study's file to its `StudyFile`: every mistake of the file is told, each with its line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prompttransfer.study.plan.document import Document, Mistake, Path_, parse_document, read_document
from prompttransfer.study.plan.spec import EXAMPLES, PARTS, Spec, _hyphens
from tasks.errors import UserError, unknown


@dataclass(frozen=True)
class StudyFile:
    """A checked study with the document that it was read from, for the lines of later mistakes."""

    spec: Spec
    document: Document
    folder: Path
    """Relative names of data folders and task files are beside the file."""


def read_study(path: Path) -> StudyFile:
    """Read and check a study file; one UserError with all its mistakes, none of which needs a backbone to be found."""
    return check_study(read_document(path), path.resolve().parent)


def parse_study(text: str, name: str = "study.yaml", folder: Path | None = None) -> StudyFile:
    """The same from text."""
    return check_study(parse_document(text, name), folder or Path.cwd())


def check_study(document: Document, folder: Path) -> StudyFile:
    """Build the spec, collecting mistakes of form first and of content on all parts whose form is right."""
    from prompttransfer.study.plan.checks import content_mistakes
    from prompttransfer.study.plan.few_row_checks import few_row_mistakes

    values = normalised(document.values)
    mistakes = document.repeated()
    spec, found = _build(document, values)
    mistakes += found
    if spec is not None:
        mistakes += content_mistakes(spec, document, folder)
        mistakes += few_row_mistakes(spec, document, folder)
    document.raise_all(mistakes)
    assert spec is not None
    return StudyFile(spec, document, folder)


def normalised(values: dict[str, Any]) -> dict[str, Any]:
    """The file's short forms written out: a backbone's name, lists of measures, one name for a list, `true`."""
    made = dict(values)
    if isinstance(made.get("backbones"), str):
        made["backbones"] = [made["backbones"]]
    if isinstance(made.get("backbones"), list):
        made["backbones"] = [{"name": item} if isinstance(item, str) else item for item in made["backbones"]]
    if "methods" in made:
        given = made["methods"]
        made["methods"] = [_method(item) for item in given] if isinstance(given, list) else [_method(given)]
        for key in ("distil", "teachers"):
            made["methods"] = [_with(item, key, _switch) for item in made["methods"]]
    made["transfers"] = _with(made.get("transfers", {}), "initialisation", _switch)
    made["indicators"] = _with(made.get("indicators", {}), "neurons", _measures)
    made["indicators"] = _with(made["indicators"], "estimates", _measures)
    library = made.get("library")
    if isinstance(library, dict) and isinstance(library.get("tasks"), list) and "methods" in made:
        count = len(library["tasks"])
        made["methods"] = [
            _with(item, "sources", lambda given: _counted(given, count)) for item in made["methods"]
        ]
    if isinstance(made.get("projectors"), list):
        made["projectors"] = [_with(item, "initialisation", _switch) for item in made["projectors"]]
    sources = made["transfers"].get("initialisation") if isinstance(made["transfers"], dict) else None
    if isinstance(sources, dict) and isinstance(sources.get("sources"), dict):
        each = {target: [one] if isinstance(one, str) else one for target, one in sources["sources"].items()}
        made["transfers"] = {**made["transfers"], "initialisation": {**sources, "sources": each}}
    return made


def _with(part: Any, key: str, change: Any) -> Any:
    return {**part, key: change(part[key])} if isinstance(part, dict) and key in part else part


def _method(value: Any) -> Any:
    """`lora:rank=8` as on a command line, written out as a mapping; one that cannot be read is told by `check_study`."""
    from prompttransfer.adaptations.methods import settings_in

    if not isinstance(value, str):
        return value
    try:
        return {"name": value.partition(":")[0].strip(), **settings_in(value)}
    except UserError:
        return {"name": value}


def _counted(sources: Any, count: int) -> Any:
    """`sources: library` as the method takes it, with how many there are."""
    return f"library:{count}" if sources == "library" else sources


def _switch(value: Any) -> Any:
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


def _measures(value: Any) -> Any:
    return {"measures": value} if isinstance(value, list) else _switch(value)


def _build(document: Document, values: dict[str, Any]) -> tuple[Spec | None, list[Mistake]]:
    """The spec, and what is wrong; parts that are wrong are left out so that the rest can be checked further."""
    try:
        return Spec.model_validate(values), []
    except ValidationError as error:
        errors = error.errors()
    mistakes = list(dict.fromkeys(_explain(document, item) for item in errors))
    pruned = values
    for _ in range(5):
        for item in sorted(errors, key=lambda item: len(item["loc"]), reverse=True):
            pruned = _without(pruned, item["loc"])
        pruned = _filled(pruned)
        try:
            return Spec.model_validate(pruned), mistakes
        except ValidationError as error:
            errors = error.errors()
    return None, mistakes


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    """Stand-ins for what every study needs, so that the rest can be checked."""
    stand_in = {
        "study": "unnamed",
        "backbones": [{"name": "microworld-roberta"}],
        "tasks": ["microworld-imdb"],
    }
    return {**values, **{key: stand_in[key] for key in stand_in if not values.get(key)}}


def _without(value: Any, loc: Sequence[Any]) -> Any:
    """The value without what `loc` leads to; an item of a list goes with anything wrong that it cannot lose."""
    if not loc:
        return value
    step, rest = loc[0], loc[1:]
    if isinstance(value, dict) and step in value:
        if not rest:
            return {key: item for key, item in value.items() if key != step}
        return {**value, step: _without(value[step], rest)}
    if isinstance(value, dict) and rest:
        return _without(value, rest)  # a branch of a union, which is no place in the file
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        changed = _without(value[step], rest) if rest else None
        if changed is None or changed == value[step]:
            return [item for index, item in enumerate(value) if index != step]
        return [*value[:step], changed, *value[step + 1 :]]
    return value


def keys_at(path: Path_) -> list[str]:
    """The keys that are known at a place."""
    named = {index + 1 for index, step in enumerate(path) if step == "per-task"}
    part = PARTS.get(
        tuple("*" if isinstance(step, int) or index in named else step for index, step in enumerate(path))
    )
    return [_hyphens(name) for name in part.model_fields] if part else []


def _explain(document: Document, item: Any) -> Mistake:
    """One of pydantic's errors as a line of ours."""
    path: Path_ = tuple(step for step in item["loc"] if not _is_branch(step))
    line, key = document.line(path), str(path[-1]) if path else "the file"
    kind = item["type"]
    if kind == "extra_forbidden":
        known = keys_at(path[:-1])
        hyphened = key.replace("_", "-")
        if hyphened in known:
            return Mistake(line, f"unknown key {key!r}: did you mean {hyphened!r}?")
        return Mistake(line, str(unknown("key", key, known)))
    if kind == "missing":
        example = EXAMPLES.get("method" if path[0] == "methods" else key, "see `study plan --help`")
        return Mistake(document.line(path[:-1]), f"no {key!r} here: it is needed ({example})")
    if kind == "value_error":
        return Mistake(line, f"{key}: {item['ctx']['error']}")
    said = item["msg"][0].lower() + item["msg"][1:]
    if path[-1:] == ("length",) and "per-task" in path:
        return Mistake(line, "length cannot be given here: all prompts of a backbone have one length")
    if path[-1:] == ("length",) and path[0] == "methods":
        return Mistake(line, "length is a setting of the method: write it beside its name, not in its recipe")
    if path[-1:] == ("length",) and "initialisation" in path:
        return Mistake(line, "length cannot be given here: a run from a prompt has that prompt's length")
    place = ".".join(str(step) for step in path)
    return Mistake(line, f"{place} is {item['input']!r}: {said}")


def _is_branch(step: Any) -> bool:
    """Names of union branches in pydantic's places: `str`, `dict[str,list[str]]`."""
    return isinstance(step, str) and (step in ("str", "int") or step.startswith(("dict[", "list[")))
