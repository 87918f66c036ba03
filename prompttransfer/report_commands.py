"""The commands on the report page that run everything again, from what the files say of how they were made."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from prompttransfer.indicators import INDICATORS
from prompttransfer.prompt import Prompt
from prompttransfer.revisions import pinned
from prompttransfer.run_folder import RunFolder, TransferRecord


def commands(folder: RunFolder, record: TransferRecord, prompts: Sequence[Prompt]) -> tuple[str, ...]:
    """The commands that run it again, from what the prompts and the matrix say of themselves."""
    trained: dict[tuple[str, ...], list[Prompt]] = {}
    for path, prompt in zip(folder.prompts, prompts, strict=True):
        trained.setdefault(_train_options(prompt, path.parent), []).append(prompt)
    lines = [
        ["prompttransfer", "train", "--task", *_unique(p.task for p in group), *options,
         "--seeds", *_unique(str(p.seed or 0) for p in group)]
        for options, group in trained.items()
        if "steps" in group[0].settings
    ]  # fmt: skip
    places = _unique(str(path.parent) for path in folder.prompts) or ["PROMPTS"]
    tune = ["--tune"] if record.tuned else []
    if record.calibrated is not None and record.calibrated.calibration:
        tune += ["--calibrate", record.calibrated.calibration.split(",")[0]]
    lines.append(["prompttransfer", "transfer", *places, "--to", *record.raw.targets, *tune, "--output", str(folder.matrix.parent)])  # fmt: skip
    for output, names in _compared(folder).items():
        lines.append(["prompttransfer", "compare", *places, "--metric", *names, "--output", str(output)])
    for path in folder.states:
        lines.append(["prompttransfer", "neurons", *places, "--output", str(path)])
        lines.append(["prompttransfer", "neurons", "overlap", str(path), "--output", str(path.parent)])
    lines.append(["prompttransfer", "report", str(folder.root)])
    return tuple(shlex.join(line) for line in lines)


def _compared(folder: RunFolder) -> dict[Path, list[str]]:
    """Folder -> the indicators that `compare` wrote there; overlap beside its states came from those."""
    found: dict[Path, list[str]] = {}
    for path in folder.indicators.values():
        name = path.stem.removeprefix("similarity_")
        ours = path.name.startswith("similarity_") and name in INDICATORS
        if ours and path.parent not in {states.parent for states in folder.states}:
            found.setdefault(path.parent, []).append(name)
    return found


def _train_options(prompt: Prompt, output: Path) -> tuple[str, ...]:
    names = ("optimizer", "lr", "weight_decay", "steps", "batch", "length", "evaluate_every", "patience")
    given = [
        text
        for name in names
        if name in prompt.settings
        for text in (f"--{name.replace('_', '-')}", f"{prompt.settings[name]}")
    ]
    start = ["--init", prompt.initialiser, "--layout", prompt.layout]
    return ("--backbone", prompt.backbone, *pinned(prompt.revision), *start, *given, "--output", str(output))


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
