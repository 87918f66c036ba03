"""`prompts remove | rename | copy | index`: keeping a library of adaptations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from prompttransfer.cli.options import AsJson, Overwrite
from prompttransfer.cli.values import Output, checked


@checked
def remove(
    folders: Annotated[list[Path], typer.Argument(help="Folders of adaptations, one each.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> list[Path]:
    """Delete adaptations, each with its folder. Asks first; a folder with other files in it is left alone."""
    import sys

    from prompttransfer.adaptations import library
    from prompttransfer.cli.common import few, print_json, say
    from tasks.errors import UserError

    for folder in folders:
        library.check_one(folder)
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise UserError(f"prompts remove deletes {few([str(f) for f in folders])}: say --yes")
        if not typer.confirm(f"Delete {few([str(folder) for folder in folders])}?"):
            raise typer.Exit(1)
    library.remove(folders)
    for above in dict.fromkeys(folder.parent for folder in folders):
        library.renew_index(above)
    if as_json:
        print_json({"removed": [str(folder) for folder in folders]})
    else:
        say(f"removed {few([str(folder) for folder in folders])}")
    return folders


@checked
def rename(
    folder: Annotated[Path, typer.Argument(help="The folder of one adaptation.")],
    name: Annotated[str, typer.Argument(help="What it and its folder are called from now on.")],
    as_json: AsJson = False,
) -> Path:
    """Give an adaptation, and its folder, another name; its tensors, scores and history stay."""
    from prompttransfer.adaptations import library

    kept = _call_of(folder)
    target = library.rename(folder, name)
    library.renew_index(folder.parent)
    _end(target, kept, "renamed to", as_json)
    return target


@checked
def copy(
    folder: Annotated[Path, typer.Argument(help="The folder of one adaptation.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder of the copy, which is called as it."),
        Output(),
    ],
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Path:
    """Copy an adaptation; the copy is called as its folder."""
    from prompttransfer.adaptations import library

    target = library.copy(folder, output, overwrite=overwrite)
    library.renew_index(output.parent)
    _end(target, _call_of(folder), "copied to", as_json)
    return target


@checked
def index(
    folder: Annotated[Path, typer.Argument(help="A folder of adaptations.")],
    as_json: AsJson = False,
) -> Path:
    """Keep what `prompts list` says of a folder in one file, for folders of thousands; what changes later is seen."""
    from prompttransfer.adaptations import library
    from prompttransfer.cli.common import print_json, say

    count = library.write_index(folder)
    if as_json:
        print_json({"index": str(folder / library.INDEX), "adaptations": count})
    else:
        say(f"{count:,} adaptations in {folder / library.INDEX}")
    return folder / library.INDEX


def _call_of(folder: Path) -> dict[str, object] | None:
    """The command that made an adaptation, where it was kept."""
    from prompttransfer.reports.calls import read_calls

    call = read_calls(folder.parent).get(folder.name)
    return None if call is None else call.model_dump()


def _end(target: Path, call: dict[str, object] | None, what: str, as_json: bool) -> None:
    """Carry the command along, and say where it is now."""
    from prompttransfer.cli.common import print_json, say
    from prompttransfer.reports.calls import note_call

    if call is not None:
        note_call([target], call)
    if as_json:
        print_json({"folder": str(target)})
    else:
        say(f"{what} {target}")


VERBS: dict[str, Callable[..., Any]] = {"remove": remove, "rename": rename, "copy": copy, "index": index}
