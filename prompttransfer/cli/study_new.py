"""`study new`: a commented study file, which `study plan` accepts as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prompttransfer.cli.options import EMBEDDED_DEFAULT, Overwrite
from prompttransfer.cli.values import Output, checked

FIRST_TASKS = ("microworld-imdb", "microworld-snli", "microworld-mnli")


@checked
def new_study(
    file: Annotated[Path, typer.Argument(help="The file to write, as my-study.yaml."), Output(folder=False)],
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", help="Tasks by name or YAML file; three embedded ones if not given."),
    ] = None,
    backbone: Annotated[
        list[str] | None,
        typer.Option("--backbone", "-b", help="Backbones; an embedded one if not given."),
    ] = None,
    overwrite: Overwrite = False,
) -> Path:
    """Write a study file with a comment on every part; `study plan` then says what would run."""
    from prompttransfer.cli.common import say
    from prompttransfer.files import write_text
    from prompttransfer.study.plan.reading import parse_study
    from prompttransfer.study.plan.template import study_template
    from tasks.errors import UserError

    if file.suffix not in (".yaml", ".yml"):
        raise UserError(f"{file}: a study file is called so: {file.stem}.yaml")
    if file.exists() and not overwrite:
        raise UserError(f"{file} is there already: choose another name, or replace it with --overwrite")
    text = study_template(file.stem, backbone or [EMBEDDED_DEFAULT], task or FIRST_TASKS)
    parse_study(text, str(file), file.parent)
    write_text(file, text)
    say(f"written to {file}; next: prompttransfer study plan {file}")
    return file
