"""The command line: one verb a command, every heavy import inside its command, so that `--help` answers at once.

A user's mistake is one line and exit code 2, the machine's fault one line and exit code 3, a stop from outside one line
and 130 (Ctrl-C) or 143 (SIGTERM); never a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import typer
import typer.main

from prompttransfer.cli.compare import compare
from prompttransfer.cli.correlate import correlate
from prompttransfer.cli.demo import demo
from prompttransfer.cli.evaluate import evaluate
from prompttransfer.cli.exchange import export_prompt, import_prompt
from prompttransfer.cli.lean_imports import make_imports_lean
from prompttransfer.cli.neurons import neurons_app
from prompttransfer.cli.plot import plot_app
from prompttransfer.cli.project import project_app
from prompttransfer.cli.recommend import recommend
from prompttransfer.cli.report import report
from prompttransfer.cli.study import study_app
from prompttransfer.cli.tasks import tasks_app
from prompttransfer.cli.train import train
from prompttransfer.cli.transfer import transfer
from prompttransfer.signals import Interrupted, listening, say_once
from tasks.errors import MachineError, UserError

app = typer.Typer(
    name="prompttransfer",
    help="Train soft prompts on frozen language models, reuse them across tasks and models, and see why it works.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
VERBS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "train": train,
    "evaluate": evaluate,
    "transfer": transfer,
    "compare": compare,
    "correlate": correlate,
    "recommend": recommend,
    "report": report,
    "import": import_prompt,
    "export": export_prompt,
}
for verb, function in VERBS.items():
    # What a verb returns is for Python callers; its type is heavy to import, and typer would evaluate it.
    function.__annotations__.pop("return", None)
    app.command(verb)(function)
app.add_typer(tasks_app, name="tasks")
app.add_typer(project_app, name="project")
app.add_typer(neurons_app, name="neurons")
app.add_typer(plot_app, name="plot")
app.add_typer(study_app, name="study")


def spread(command: Any, arguments: list[str]) -> list[str]:
    """Repeat an option of several values before each of them: `--to sst2 imdb` becomes `--to sst2 --to imdb`."""
    several = set(_repeatable(command, arguments))
    spread_out: list[str] = []
    option, fresh = None, True
    for argument in arguments:
        if argument.startswith("-") and argument != "-":
            option = argument if argument in several else None
            fresh = True
        elif option is not None:
            if not fresh:
                spread_out.append(option)
            fresh = False
        spread_out.append(argument)
    return spread_out


def _repeatable(command: Any, arguments: list[str]) -> Iterator[str]:
    """The options that may be given more than once in the command below `command` that `arguments` begin with."""
    for argument in arguments:
        if argument not in getattr(command, "commands", {}):
            break
        command = command.commands[argument]
    for parameter in command.params:
        if getattr(parameter, "multiple", False):
            yield from parameter.opts


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; `arguments` are those of the process if not given."""
    given = sys.argv[1:] if arguments is None else arguments
    if arguments is None:  # the process is ours alone
        make_imports_lean()
    if not sys.stdout.isatty():
        os.environ.setdefault("COLUMNS", "160")  # no terminal to fit: tables need not be folded
    try:
        command = typer.main.get_command(app)  # made once: it takes a tenth of a second
        with listening():
            command(spread(command, given), standalone_mode=True)
    except Interrupted as error:
        say_once(str(error))
        raise SystemExit(error.code) from None
    except UserError as error:
        _stop(*getattr(error, "lines", [str(error)]), code=2)
    except MachineError as error:
        _stop(str(error), code=3)
    except OSError as error:
        _stop(
            f"the machine says: {error.strerror or error}{f' ({error.filename})' if error.filename else ''}",
            code=3,
        )
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "out of memory" not in str(error):
            raise
        _stop("out of memory: use a smaller --batch, a shorter --length or --max-length", code=3)


def _stop(*lines: str, code: int) -> None:
    """One line, or one for each mistake of a file."""
    for line in lines:
        print(f"error: {' '.join(line.split())}", file=sys.stderr)
    raise SystemExit(code)
