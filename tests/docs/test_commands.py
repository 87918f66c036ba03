"""Every command in the README and in docs/ is one that the program knows."""

from __future__ import annotations

import re

import pytest
from commands import parsed
from pages import EVERY_BLOCK, Block

from prompttransfer.adaptations.methods import parse_method
from prompttransfer.cli.common import resolve_tasks
from tasks.proposing import is_proposed

OURS = [
    (block, words)
    for block in EVERY_BLOCK
    for words in block.commands()
    if words[0] == "prompttransfer" or ("prompttransfer" in words[:12] and words[0] in ("torchrun", "srun"))
]


@pytest.mark.parametrize(
    ("block", "words"), OURS, ids=lambda value: str(value) if isinstance(value, Block) else ""
)
def test_a_command_has_the_verb_the_options_and_the_values(block: Block, words: list[str]) -> None:
    _, _, values = parsed(words)
    if "--method" in words and not {"project", "plot"} & set(words):  # which have methods of their own
        given = values["method"]
        for text in [given] if isinstance(given, str) else given:
            parse_method(text)
    for name in ("task",) if "push" in words else ("task", "to"):  # what is pushed goes to a repository
        given = values.get(name) or ()
        named = [given] if isinstance(given, str) else list(given)
        resolve_tasks([task for task in named if not task.endswith(".yaml") and not is_proposed(task)])


def test_there_are_commands_of_every_verb_in_the_pages() -> None:
    shown = {words[words.index("prompttransfer") + 1] for _, words in OURS}
    assert {"train", "evaluate", "transfer", "project", "compare", "correlate", "recommend"} <= shown
    assert {"neurons", "plot", "predict", "study", "tasks", "import", "export", "report"} <= shown


def test_names_of_a_python_block_can_be_imported() -> None:
    for block in EVERY_BLOCK:
        if block.language == "python":
            compile(block.text, str(block), "exec")
            for line in re.findall(
                r"^from (?:prompttransfer|tasks|projectors|analysis)\S* import .+$", block.text, re.M
            ):
                exec(line, {})
