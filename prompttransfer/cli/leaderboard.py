"""`leaderboard`: one page over the test scores of many runs and methods."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prompttransfer.cli.options import AsJson, Overwrite
from prompttransfer.cli.values import Output, checked

if TYPE_CHECKING:
    from analysis.report.board import Line


@checked
def leaderboard(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of studies, of transfers, or of trained adaptations; they are looked through."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Name of the page."),
        Output(folder=False),
    ] = Path("leaderboard.html"),
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Leaderboard",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> list[Line]:
    """Write one HTML page of the test scores of many runs and methods: a row a method in a run, a column a task.

    Rows sort and are found on the page; nothing is fetched when it is read. What a study or run has several seeds of is one
    score, their mean.
    """
    given = dict(locals())
    from analysis.report.board import render_board
    from prompttransfer.cli.common import say
    from prompttransfer.cli.tables import say_written
    from prompttransfer.files import write_text
    from prompttransfer.outputs import Files, settings_of
    from prompttransfer.study.results.leaderboard import leaderboard as lines_in

    lines = lines_in(folders)
    written = Files((output,), settings_of("leaderboard", given, without=[output]))
    written.check(overwrite=overwrite)
    written.claim()
    write_text(output, render_board(lines, title=title, notes=_notes(lines)))
    records = [
        {
            "run": line.run,
            "backbone": line.backbone,
            "method": line.method,
            "how": line.how,
            "scores": [
                {
                    "metric": metric,
                    "task": task,
                    "mean": value.mean,
                    "spread": value.spread,
                    "seeds": value.seeds,
                }
                for (metric, task), value in line.values.items()
            ],
        }
        for line in lines
    ]
    runs = len({line.run for line in lines})
    say(f"{len(lines)} rows of {runs} run{'s' * (runs > 1)}", quiet=as_json)
    say_written([output], as_json, {"lines": records})
    return lines


def _notes(lines: list[Line]) -> list[str]:
    """What a reader has to know."""
    one = [line for line in lines if not line.reference and all(v.seeds == 1 for v in line.values.values())]
    notes = [
        "The test split is the official validation split of each data set; settings and checkpoints are chosen on others."
    ]
    if one:
        notes.append(f"{len(one)} of the rows are of one seed: their differences are not evidence.")
    return notes
