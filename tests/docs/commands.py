"""Commands of the pages as a user would give them, in this process and on small settings."""

from __future__ import annotations

import contextlib
import glob
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from reduced_study import reduced
from typer.main import get_command

from prompttransfer.cli import app, main, spread

SMALL = {
    "--steps": "2",
    "--evaluate-every": "2",
    "--batch": "4",
    "--limit-train": "24",
    "--limit-test": "8",
    "--limit-text": "16",
    "--rows": "12",
    "--probe-steps": "1",
    "--words": "60",
    "--precision": "fp32",
}
"""What is put behind a command that is run, as far as it has the option."""
SMALL_WHERE_GIVEN = {"--embed-at": "1", "--draws": "1"}
"""The same, of options that a command does not have to be given."""
LARGER = {"composition.md": {"--steps": "40", "--evaluate-every": "40"}}
"""What a page needs in place of it: no weights can be found for LoRAs that have learned nothing."""

SENTIMENT_AND_NLI = "--task microworld-imdb microworld-snli microworld-mnli"
SEVEN = (
    "--task microworld-imdb microworld-laptop microworld-snli microworld-mnli microworld-deontology "
    "microworld-justice microworld-qqp"
)
TAKEN_FOR_GRANTED = {
    "runs/prompts": f"train {SENTIMENT_AND_NLI} --output runs/prompts",
    "runs/lora": "train --task microworld-imdb microworld-snli --method lora:rank=4 --output runs/lora",
    "runs/transfer": "transfer runs/prompts --to microworld-sst2 microworld-mnli --output runs/transfer",
    "runs/compare": "compare runs/prompts --output runs/compare",
    "runs/demo/prompts": f"train {SEVEN} --output runs/demo/prompts",
    "runs/demo/compare": "compare runs/demo/prompts --output runs/demo/compare",
}
"""What pages find there: of README and quickstart, and of `make demo`."""

KEPT = {"later-systems": [f"microworld-{task}" for task in ("sst2", "mnli", "imdb", "laptop", "snli")]}
"""Tasks of a shipped study that has a library, whose backbones are not used but by themselves."""


def parsed(words: Sequence[str]) -> tuple[Any, list[str], dict[str, Any]]:
    """The command that `words` call, its arguments, and the values that it is given; raises for what it does not know."""
    command: Any = get_command(app)
    arguments = list(words[words.index("prompttransfer") + 1 :])
    spread_out = spread(command, arguments)
    while spread_out and spread_out[0] in getattr(command, "commands", {}):
        command = command.commands[spread_out.pop(0)]
    if spread_out in (["--version"], ["--help"]):
        return command, spread_out, {}
    return command, spread_out, command.make_context("prompttransfer", list(spread_out)).params


def run(words: Sequence[str], **other: str) -> str:
    """Run a command on small settings (but for `other`) in this folder, in this process; returns what it said."""
    words = [found for word in words for found in (sorted(glob.glob(word)) if "*" in word else [word])]
    command, arguments, _ = parsed(words)
    has = {option for parameter in command.params for option in parameter.opts}
    has -= {"--limit-train"} if "--shots" in words else set()
    given = {name: value for name, value in SMALL_WHERE_GIVEN.items() if name in words}
    small = [
        word
        for option, value in {**SMALL, **given, **other}.items()
        if option in has
        for word in (option, value)
    ]
    only_asks = arguments in (["--version"], ["--help"])
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main([*words[1:], *([] if only_asks else small)])
        except SystemExit as ended:
            assert ended.code == 0, f"{' '.join(words)}\n{said.getvalue()}"
    return said.getvalue()


def prepare(commands: Sequence[Sequence[str]], texts: Sequence[str]) -> None:
    """Make here what these commands and texts read and none of these commands makes."""
    made = {words[words.index("--output") + 1] for words in commands if "--output" in words}
    for folder in TAKEN_FOR_GRANTED:
        if folder not in made and any(folder in text for text in texts):
            _make(folder)


def _make(folder: str) -> None:
    words = TAKEN_FOR_GRANTED[folder].split()
    for needed in TAKEN_FOR_GRANTED:
        if needed in words and needed != folder:
            _make(needed)
    if not Path(folder).exists():
        run(["prompttransfer", *words])


def small_study(name: str, place: Path) -> Path:
    """A file in `place` of a shipped study with few seeds, rows and steps, and of few rows also few tasks."""
    values = reduced(name, keep=KEPT.get(name)).document.values
    values["backbones"] = values["backbones"][: 1 if name in KEPT else None]
    path = place / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path
