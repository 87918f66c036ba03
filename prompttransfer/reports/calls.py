"""How a command was called, kept with what it wrote, so that a page can say how to run it again.

A call is a verb and its options, as they were given (paths made absolute) or, where the machine or the recipe chose,
as they were chosen: the precision, the steps, the rate. It stands in `commands.json` beside what it wrote, by the name
of the file or folder, so that the records of results say nothing of the places of a machine.
"""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from prompttransfer.adaptations.starts import on_folders
from prompttransfer.backbones.revisions import is_commit
from prompttransfer.files import write_json
from tasks.documents import read_json
from tasks.errors import UserError

FILE = "commands.json"

Plain = str | bool | int | float
_POSITIONAL = {
    "transfer": ("sources",),
    "compare": ("prompts",),
    "neurons capture": ("prompts",),
    "neurons overlap": ("files",),
    "neurons mask": ("prompt",),
    "project apply": ("projector", "prompts"),
    "project compare": ("adaptations",),
    "prompts add": ("adaptations",),
    "prompts average": ("adaptations",),
    "prompts fold": ("adaptation",),
    "prompts interpolate": ("first", "second"),
    "prompts landscape": ("adaptations",),
    "prompts merge": ("adaptations",),
    "prompts scale": ("adaptation",),
    "prompts subtract": ("minuend", "subtrahends"),
    "study run": ("file",),
    "study report": ("folder",),
    "pull": ("repo",),
    "report": ("run",),
}
"""The arguments of a verb that stand in front without a name."""
_NOT_KEPT = {
    "as_json",
    "json_",
    "dry_run",
    "logger",
    "overwrite",
    "retry_failed",
    "verify",
    "track",
    "track_to",
}
"""Options that change nothing of what is computed."""
_TASKS = ("task", "to", "tasks", "unseen", "types")


class Call(BaseModel):
    """A command; read from files, so it is checked."""

    model_config = ConfigDict(extra="forbid")

    verb: str
    options: dict[str, Plain | list[Plain]] = {}

    def line(self) -> str:
        """The command for a shell, on one line: every word quoted where it needs to be."""
        first = _POSITIONAL.get(self.verb, ())
        words = ["prompttransfer", *self.verb.split()]
        words += [str(value) for name in first for value in _several(self.options.get(name, []))]
        for name, value in self.options.items():
            if name not in first:
                words += _option(name.replace("_", "-"), value)
        return shlex.join(words)

    def with_options(self, **changed: Any) -> Call:
        """The call with other options; None takes one away."""
        kept = {**self.options, **{name: _plain(name, value) for name, value in changed.items()}}
        return Call(
            verb=self.verb, options={name: value for name, value in kept.items() if value is not None}
        )


def _option(name: str, value: Plain | list[Plain]) -> list[str]:
    """`--name value`, a flag, or `--name a b c`; a value that begins with a dash stands in one word with its option."""
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    values = [str(item) for item in _several(value)]
    if any(item.startswith("-") for item in values):
        return [f"--{name}={item}" for item in values]
    return [f"--{name}", *values] if values else []


def _several(value: Plain | list[Plain]) -> list[Plain]:
    return value if isinstance(value, list) else [value]


def remember(
    verb: str, function: Callable[..., Any], given: Mapping[str, Any], **known: Any
) -> dict[str, Any]:
    """The call of a command's function as JSON: what was `given` and is not the default, and what is `known` by now."""
    defaults = {name: p.default for name, p in inspect.signature(function).parameters.items()}
    asked = {name: given[name] for name in defaults if name in given and given[name] != defaults[name]}
    asked.update((name, value) for name, value in known.items() if name in defaults and value is not None)
    options = {
        name: plain
        for name in defaults  # in the order of the command's own options
        if name in asked and name not in _NOT_KEPT and (plain := _plain(name, asked[name])) not in (None, [])
    }
    return Call(verb=verb, options=options).model_dump()


RECIPE = (
    "optimizer", "lr", "weight_decay", "schedule", "warm_up", "steps", "batch", "length", "evaluate_every", "patience",
)  # fmt: skip


def recipe_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options of training that the settings of a prompt hold."""
    return {name: settings[name] for name in RECIPE if name in settings}


def commit_of(revision: str) -> str | None:
    """The commit of a hub backbone, which a command can ask for again; None for a folder, which has but one revision."""
    return revision if is_commit(revision) else None


def precision_name(kept: object) -> str:
    """What `--precision` calls what is kept of it: float32 is fp32."""
    return {"float32": "fp32", "bfloat16": "bf16"}.get(str(kept), str(kept))


def _plain(name: str, value: Any) -> Any:
    """A value as JSON holds it; every path is absolute, also that of a task's file and of a prompt to start from."""
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in value]
    if isinstance(value, Path):
        return os.path.abspath(value)
    if not isinstance(value, str):
        return value
    if name in _TASKS and (value.endswith((".yaml", ".yml")) or (name == "types" and "=" not in value)):
        return os.path.abspath(value)
    if name == "init":
        return on_folders(value, os.path.abspath)
    return value


_CALLS = TypeAdapter(dict[str, Call])


def note_call(paths: Iterable[Path], call: Mapping[str, Any]) -> None:
    """Keep the call that wrote `paths` beside them."""
    folders: dict[Path, list[str]] = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(path.name)
    for folder, names in folders.items():
        calls = {
            name: known.model_dump() for name, known in read_calls(folder).items() if (folder / name).exists()
        }
        write_json(folder / FILE, {**calls, **{name: dict(call) for name in names}})


def read_calls(folder: Path) -> dict[str, Call]:
    """Name of a file in `folder` -> the call that wrote it, as far as that was kept."""
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        return _CALLS.validate_python(read_json(path, "record of commands"))
    except (ValidationError, UserError) as error:
        raise UserError(f"{path} is damaged: delete it, it only says how to run things again") from error
