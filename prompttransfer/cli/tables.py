"""What the looking commands share: matrices read from files, types of tasks, prompts from folders, figures to files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.documents import read_text, shortened
from tasks.errors import UserError
from tasks.records import KEPT, task_of_record

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.cli.sources import Placed


def read_matrix(path: Path) -> pd.DataFrame:
    """A labelled CSV as a table; its mistakes are named by line."""
    from prompttransfer.reports.run_folder import read_square

    return read_square(path)


def read_long_table(path: Path) -> pd.DataFrame:
    """A CSV with named columns, one observation a row."""
    from prompttransfer.reports.run_folder import read_long

    return read_long(path)


def task_types(
    labels: Iterable[str],
    given: Sequence[str] = (),
    prompts: Sequence[Adaptation] = (),
    recorded: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The type of every label that has one: as given (`name=type`), of the task of that name, or of a name that it begins with.

    `prompts` know the types of own tasks that they were trained on, `recorded` is what a transfer matrix says of its.

    `sst2-seed1` is of the type of `sst2`; names as in the matrices of Su et al. 2022 (SST2, movierationales) are known.
    """
    from analysis.matrices import PUBLISHED_TYPES
    from tasks.catalog import all_tasks

    own = parse_types(given)
    known = {**_types_kept(prompts), **(recorded or {}), **PUBLISHED_TYPES}
    known |= {name: task.type for name, task in all_tasks().items()} | own
    return {**_of_names(labels, known), **own}


def task_metrics(labels: Iterable[str]) -> dict[str, str]:
    """The metric of every label that is named after a task of the catalogue, as for `task_types`."""
    from tasks.catalog import all_tasks

    return _of_names(labels, {name: task.metric for name, task in all_tasks().items()})


def _of_names(labels: Iterable[str], known: Mapping[str, str]) -> dict[str, str]:
    """What is known of each label by its name, or by the longest name that it begins with."""
    found = {}
    for label in labels:
        stems = [n for n in known if label == n or re.match(re.escape(n) + r"[^A-Za-z0-9]", label)]
        if stems:
            found[label] = known[max(stems, key=len)]
    return found


def _types_kept(prompts: Sequence[Adaptation]) -> dict[str, str]:
    """Own task -> type, as the prompts keep it."""
    kept = {prompt.name: prompt.origin.data.get(KEPT) for prompt in prompts}
    tasks = [task_of_record(record, f"prompt {name!r}") for name, record in kept.items() if record]
    return {task.name: task.type for task in tasks}


def types_beside(matrix: Path) -> dict[str, str]:
    """Task -> type, from the `transfer.json` that lies beside a `transfer.csv`; nothing where there is none."""
    from prompttransfer.reports.run_folder import MATRIX, read_transfer

    record = matrix.with_name(MATRIX)
    return read_transfer(record).types if record.is_file() and record != matrix else {}


def parse_types(given: Sequence[str]) -> dict[str, str]:
    """`name=type` pairs, or files with one pair a line (`name,type` as well)."""
    types: dict[str, str] = {}
    for item in given:
        lines = [item] if "=" in item else read_text(Path(item), "file of types").splitlines()
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            name, mark, kind = line.partition("=" if "=" in line else ",")
            if not mark or not name.strip() or not kind.strip():
                raise UserError(
                    f"--types {item!r}, line {number}: {shortened(line)!r} is not of the form task=type"
                )
            types[name.strip()] = kind.strip()
    return types


def read_prompts(paths: Sequence[Path], methods: Sequence[str] | None = None) -> list[Adaptation]:
    """Adaptations of folders (one's own, or a folder of them) and prompts of safetensors files with a key a prompt.

    Only those of `methods` where some are named. Each gets a name of its own (`sources.named_apart`).
    """
    from prompttransfer.cli.sources import named_apart, of_methods

    found = [placed for path in paths for placed in _prompts_in(path)]
    if not found:
        raise UserError("no prompt given: name prompt folders or one safetensors file")
    chosen = of_methods([each for _, each in found], methods)
    return named_apart([placed for placed in found if any(placed[1] is each for each in chosen)])


def _prompts_in(path: Path) -> list[Placed]:
    from prompttransfer.adaptations.artifacts import find_adaptations, load_adaptation

    if path.is_file():
        return [((path.stem,), prompt) for prompt in _prompts_of_file(path)]
    if not path.exists():
        raise UserError(f"no such prompt: {path}")
    return [
        ((folder.resolve().parent.name, folder.resolve().name), load_adaptation(folder))
        for folder in find_adaptations(path)
    ]


def _prompts_of_file(path: Path) -> list[Adaptation]:
    from prompttransfer.adaptations.prompts import soft_prompt
    from prompttransfer.tensor_files import read_tensors

    tensors = read_tensors(path, "file of prompts").tensors
    odd = [
        f"{key} {list(value.shape)} {value.dtype}"
        for key, value in tensors.items()
        if value.ndim != 2 or not value.is_floating_point()
    ]
    if odd or not tensors:
        raise UserError(
            f"{path} must hold [length, width] arrays of floats, one key a prompt; it holds "
            f"{shortened(', '.join(odd)) or 'nothing'}"
        )
    return [
        soft_prompt(vectors=value.float(), task=key, backbone=f"the file {path.name}", name=key)
        for key, value in tensors.items()
    ]


def check_comparable(prompts: Sequence[Adaptation], *, shape: bool = True) -> None:
    """Only adaptations of one backbone can be compared, and by their vectors (`shape`) only prompts of one length.

    Otherwise say which belong together.
    """
    from prompttransfer.adaptations.running import called

    groups: dict[str, list[str]] = {}
    for prompt in prompts:
        size = f", {prompt.length} x {prompt.width}" if shape else ""
        groups.setdefault(f"{prompt.backbone}{size}", []).append(prompt.name)
    if len(groups) > 1:
        said = "; ".join(f"{_few(names)} ({kind})" for kind, names in groups.items())
        different = "backbone, length or width" if shape else "backbone"
        raise UserError(
            f"{called(prompts)} of different {different} cannot be compared: {said}; compare within one group"
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def write_table(path: Path, table: pd.DataFrame) -> Path:
    """A labelled CSV with ten digits, written whole or not at all."""
    from prompttransfer.files import write_text

    write_text(path, table.to_csv(float_format="%.10g", lineterminator="\n"))
    return path


def write_figure(figure: Figure, output: Path) -> list[Path]:
    """The figure as PNG and SVG side by side (and as PDF if `output` is named so); the paths that were written."""
    from analysis.figures import figure_bytes
    from prompttransfer.files import atomic_path

    written = figure_paths(output)
    for path in written:
        with atomic_path(path) as temporary:
            temporary.write_bytes(figure_bytes(figure, path.suffix.lstrip(".")))
    return written


def figure_paths(output: Path) -> list[Path]:
    """The files that a figure called `output` is written to; UserError for a name that ends in no format of figures."""
    from analysis.figures import FORMATS

    asked = output.suffix.lstrip(".").lower()
    if asked not in FORMATS:
        raise UserError(f"--output {output}: a figure is written as {', '.join(FORMATS)}; give such a name")
    return [output.with_suffix(f".{kind}") for kind in dict.fromkeys(["png", "svg", asked])]


def say_written(
    paths: Sequence[Path | str], as_json: bool = False, more: Mapping[str, object] | None = None
) -> None:
    """Where things lie, for a person or (with `more`) for a machine."""
    from prompttransfer.cli.terminal import json_text, say_line

    if as_json:
        print(json_text({"files": [str(p) for p in paths], **(more or {})}, indent=None))
    else:
        for path in paths:
            say_line(f"written: {path}")
