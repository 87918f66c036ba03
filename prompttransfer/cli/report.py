"""`report`: one self-contained HTML page of a run, to hand to a colleague."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prompttransfer.cli.options import AsJson


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, as `demo` or `transfer --output` makes.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Name of the page; RUN/report.html if not given.")
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "",
    as_json: AsJson = False,
) -> Path:
    """Write one HTML page of a run: matrix, indicators, maps, curves, projectors, and how to run it again.

    Nothing is fetched when it is read; it works from a disk, on a phone and in print.
    """
    from prompttransfer.cli.tables import say_written
    from prompttransfer.reporting import write_report

    path = write_report(run, output, title=title)
    say_written([path], as_json, {"bytes": path.stat().st_size} if as_json else None)
    return path
