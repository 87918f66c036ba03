"""`report`: one self-contained HTML page of a run, to hand to a colleague."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prompttransfer.cli.options import AsJson, Overwrite
from prompttransfer.cli.values import Output, checked


@checked
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, as `demo` or `transfer --output` makes.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Name of the page; RUN/report.html if not given."),
        Output(folder=False),
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Path:
    """Write one HTML page of a run: matrix, indicators, maps, curves, projectors, and how to run it again.

    Nothing is fetched when it is read; it works from a disk, on a phone and in print.
    """
    given = dict(locals())
    from prompttransfer.cli.tables import say_written
    from prompttransfer.outputs import Files, settings_of
    from prompttransfer.reports.page import PAGE, write_report
    from prompttransfer.reports.run_folder import find_run

    find_run(run)
    page = output or run / PAGE
    written = Files((page,), settings_of("report", given, without=[page]))
    written.check(overwrite=overwrite)
    written.claim()
    path = write_report(run, output, title=title)
    say_written([path], as_json, {"bytes": path.stat().st_size} if as_json else None)
    return path
