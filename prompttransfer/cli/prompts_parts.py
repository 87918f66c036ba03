"""`prompts parts` and `prompts whole`: tasks of a shared prompt (`--method mpt`) as small files, and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.cli.options import AsJson, Overwrite
from prompttransfer.cli.values import Output, checked

if TYPE_CHECKING:
    from prompttransfer.adaptations.adaptation import Adaptation


@checked
def parts(
    folders: Annotated[list[Path], typer.Argument(help="Adaptations of mpt, or folders of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files."), Output()],
    as_json: AsJson = False,
) -> dict[str, Any]:
    """Write each task's own part of a shared prompt (u and v) as a file of a few KB, and every shared prompt once."""
    from prompttransfer.adaptations.parts import write_parts
    from prompttransfer.cli.common import print_json, say
    from prompttransfer.cli.tables import read_prompts

    small, shared = write_parts(read_prompts(folders), output)
    found = {"parts": {str(path): path.stat().st_size for path in small}}
    found["shared"] = {str(path): path.stat().st_size for path in shared}
    if as_json:
        print_json(found)
        return found
    for kind, sizes in found.items():
        say(
            f"{len(sizes)} {kind if len(sizes) != 1 else kind.removesuffix('s')}, {sum(sizes.values()):,} bytes in all"
        )
        for path, size in sizes.items():
            say(f"  {path}: {size:,} bytes")
    return found


@checked
def whole(
    files: Annotated[
        list[Path], typer.Argument(help="Files that `prompts parts` wrote, or folders of them.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for one folder a prompt."), Output()],
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> list[Adaptation]:
    """Make whole adaptations of parts and the shared prompts beside them, bit for bit those that they were."""
    from prompttransfer.adaptations.artifacts import MARKER, check_unlike, save_adaptation
    from prompttransfer.adaptations.parts import END, read_part
    from prompttransfer.cli.common import print_json, say
    from prompttransfer.files import check_free
    from tasks.errors import UserError

    paths = [at for path in files for at in (sorted(path.glob(f"*{END}")) if path.is_dir() else [path])]
    if not paths:
        raise UserError(
            f"no part in {', '.join(map(str, files))}: `prompttransfer prompts parts` writes NAME{END}"
        )
    made = [read_part(path) for path in paths]
    for each in made:
        check_free(output / each.name, marker=MARKER)
        if not overwrite:
            check_unlike(each, output / each.name)
    for each in made:
        save_adaptation(each, output / each.name)
    if as_json:
        print_json([{"name": each.name, "folder": str(output / each.name)} for each in made])
    else:
        say(f"{len(made)} adaptations written to {output}")
    return made


VERBS: dict[str, Callable[..., Any]] = {"parts": parts, "whole": whole}
"""What the group `prompts` has of this file."""
