"""Commands as a user gives them, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from prompttransfer.cli import app, main, spread


def call(*arguments: object, typed: str | None = None) -> Any:
    """What a command came to; `typed` is what is answered to its questions."""
    words = spread(get_command(app), [str(argument) for argument in arguments])
    return CliRunner().invoke(app, words, input=typed)


def output_of(*arguments: object, typed: str | None = None) -> str:
    """What a command that must succeed prints."""
    result = call(*arguments, typed=typed)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def exit_code(*arguments: object) -> int:
    """How the whole program ends."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def lines(path: Path) -> list[Any]:
    """The values of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]
