"""The command line: one verb a command, every heavy import inside its command, so that `--help` answers at once.

A user's mistake is one line and exit code 2, the machine's fault one line and exit code 3, a stop from outside one line
and 130 (Ctrl-C) or 143 (SIGTERM); never a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version as installed
from typing import Annotated, Any

import typer
import typer.main

from prompttransfer.cli.backbones import backbones_app
from prompttransfer.cli.compare import compare
from prompttransfer.cli.correlate import correlate
from prompttransfer.cli.demo import demo
from prompttransfer.cli.demo_real import demo_real
from prompttransfer.cli.evaluate import evaluate
from prompttransfer.cli.exchange import export_prompt, import_prompt
from prompttransfer.cli.leaderboard import leaderboard
from prompttransfer.cli.lean_imports import make_imports_lean
from prompttransfer.cli.neurons import neurons_app
from prompttransfer.cli.plot import plot_app
from prompttransfer.cli.predict import predict
from prompttransfer.cli.predictions import compare_predictions
from prompttransfer.cli.project import project_app
from prompttransfer.cli.prompts import prompts_app
from prompttransfer.cli.recommend import recommend
from prompttransfer.cli.report import report
from prompttransfer.cli.sharing import pull, push
from prompttransfer.cli.study import study_app
from prompttransfer.cli.tasks import tasks_app
from prompttransfer.cli.terminal import clean_line, replace_unknown_letters
from prompttransfer.cli.train import train
from prompttransfer.cli.transfer import transfer
from prompttransfer.cli.values import as_command
from prompttransfer.cli.waiting import wait_briefly
from prompttransfer.signals import Interrupted, listening, say_once
from tasks.errors import MachineError, UserError, out_of_memory

app = typer.Typer(
    name="prompttransfer",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
GROUPS: dict[str, dict[str, Callable[..., Any] | typer.Typer]] = {
    "Begin": {"demo": demo, "demo-real": demo_real, "tasks": tasks_app, "backbones": backbones_app},
    "Train and use": {
        "train": train,
        "evaluate": evaluate,
        "transfer": transfer,
        "project": project_app,
        "predict": predict,
        "compare-predictions": compare_predictions,
    },
    "Why it transfers, and what to start from": {
        "compare": compare,
        "correlate": correlate,
        "recommend": recommend,
        "neurons": neurons_app,
    },
    "Figures, pages, whole experiments": {
        "plot": plot_app,
        "report": report,
        "leaderboard": leaderboard,
        "study": study_app,
    },
    "Folders and files": {
        "prompts": prompts_app,
        "import": import_prompt,
        "export": export_prompt,
        "push": push,
        "pull": pull,
    },
}
"""What `--help` shows together -> name -> a verb, or several with one name in front."""
for subject, entries in GROUPS.items():
    for name, entry in entries.items():
        if isinstance(entry, typer.Typer):
            app.add_typer(entry, name=name, rich_help_panel=subject)
        else:
            app.command(name, rich_help_panel=subject)(as_command(entry))


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"prompttransfer {installed('prompttransfer')}")
        raise typer.Exit


@app.callback()
def begin(
    version: Annotated[
        bool,
        typer.Option("--version", help="Say which version this is.", callback=_say_version, is_eager=True),
    ] = False,
) -> None:
    """Train soft prompts on frozen language models, reuse them across tasks and models, and see why it works."""


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


def check_arguments(arguments: list[str]) -> None:
    """Raise UserError for an argument that can be no value: empty where a value is needed, or no text at all."""
    for place, argument in enumerate(arguments):
        option, _, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        before = option or (arguments[place - 1] if place else "")
        if not value.strip() and ("=" in argument or not option) and before not in MAY_BE_EMPTY:
            name = f"{before} is" if before.startswith("-") else "an argument is"
            raise UserError(
                f"{name} empty: give a value, or leave it out (is a variable of your script not set?)"
            )
        if any("\ud800" <= letter <= "\udfff" for letter in argument):
            raise UserError(
                f"argument {argument!r} is no text in the encoding of this shell ({sys.getfilesystemencoding()}): "
                f"rename what it names, or set LC_ALL=C.UTF-8"
            )


MAY_BE_EMPTY = {"--title", "--label"}
"""Options whose value is only shown."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; `arguments` are those of the process if not given."""
    given = sys.argv[1:] if arguments is None else arguments
    if arguments is None:  # the process is ours alone
        make_imports_lean()
        wait_briefly(os.environ)
    replace_unknown_letters()
    if not sys.stdout.isatty():
        os.environ.setdefault("COLUMNS", "160")  # no terminal to fit: tables need not be folded
    try:
        check_arguments(given)
        command = typer.main.get_command(app)  # made once: it takes a tenth of a second
        with listening():
            code = command(spread(command, given), standalone_mode=False)
    except Interrupted as error:
        say_once(str(error))
        raise SystemExit(error.code) from None
    except MISUSE as error:  # typer's own: an unknown option, text for a number
        if type(error).__name__ != "NoArgsIsHelpError":  # the help has been printed then
            _stop(f"{error.format_message()} ({_how_to_get_help(error)})", code=2)
        raise SystemExit(2) from None
    except UserError as error:
        _stop(*getattr(error, "lines", [str(error)]), code=2)
    except MachineError as error:
        _stop(str(error), code=3)
    except Exception as error:
        if out_of_memory(error):
            _stop("out of memory: use a smaller --batch, a shorter --length or --max-length", code=3)
        if isinstance(error, OSError):
            place = f" ({error.filename})" if error.filename else ""
            _stop(f"the machine says: {error.strerror or error}{place}", code=3)
        raise
    raise SystemExit(code if isinstance(code, int) else 0)


MISUSE: type[Any] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def _how_to_get_help(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return f"`{context.command_path if context else 'prompttransfer'} --help` shows what there is"


def _stop(*lines: str, code: int) -> None:
    """One line, or one for each mistake of a file."""
    for line in lines:
        print(f"error: {clean_line(line)}", file=sys.stderr)
    raise SystemExit(code)
