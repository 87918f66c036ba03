"""What `train` looks at before anything is loaded: mixtures, grids, names, where it starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prompttransfer.adaptations.method import Method
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task

PROMPT = "prompt"
"""The method where none is given."""


def check_mixture(tasks: Sequence[Task], init: str, distil: Sequence[Path] | None) -> None:
    """Raise UserError for a mixture that cannot be, before anything is loaded."""
    from tasks.errors import UserError

    if len(tasks) < 2:
        raise UserError("--mixture is of several tasks: give two or more with --task")
    if init.partition(":")[0] == "retrieve":
        raise UserError("--mixture cannot start from what is retrieved for one task: give another --init")
    if distil:
        raise UserError("--distil teaches runs of one task each: leave it out with --mixture")


def check_mixed_sources(method: Method, model: Backbone, tasks: Sequence[Task]) -> None:
    """Raise UserError where a source of a method is of a task of the mixture."""
    from prompttransfer.adaptations.methods.sourced import Sourced
    from tasks.errors import UserError

    own = method.left_out(model, [task.name for task in tasks]) if isinstance(method, Sourced) else []
    if own:
        raise UserError(
            f"--mixture: sources of {method.name} are of tasks of the mixture ({', '.join(own)}): give a folder of others"
        )


def grid_of(
    sweep: Sequence[str] | None, method: str, overrides: dict[str, Any], *, dry_run: bool
) -> dict[str, tuple[str, ...]]:
    """The grid of a sweep, empty for none; UserError for one that cannot be, before anything is read or loaded."""
    from tasks.errors import UserError

    if not sweep:
        return {}
    from prompttransfer.training.grids import check_axes, parse_grid

    grid = parse_grid(sweep)
    check_axes(method, grid, overrides)
    if dry_run:
        raise UserError("--dry-run says the memory of one bank: give the largest setting in place of --sweep")
    return grid


def names_of(tasks: Sequence[str], seeds: Sequence[int], output: Path | None) -> dict[tuple[str, int], str]:
    """(task, seed) -> name of the prompt; UserError where one cannot be a folder's name, or its folder is not free."""
    from prompttransfer.adaptations.artifacts import MARKERS
    from prompttransfer.files import check_free, safe_name
    from prompttransfer.outputs import COMMANDS
    from tasks.errors import UserError

    if COMMANDS in tasks:
        raise UserError(
            f"a task cannot be called {COMMANDS!r}: a file of that name stands beside the prompts"
        )
    names = {
        (task, seed): safe_name(task if len(seeds) == 1 else f"{task}-s{seed}")
        for task in tasks
        for seed in seeds
    }
    if output is not None:
        for name in names.values():
            check_free(output / name, marker=MARKERS)
    return names


def source_method(init: str) -> str:
    """The method of what a run starts from, so that it need not be said twice; soft prompts for other starts."""
    from prompttransfer.adaptations.artifacts import method_of, read_record
    from prompttransfer.adaptations.starts import Retrieve, parse_start, source_of

    start = parse_start(init) if init.partition(":")[0] == "retrieve" else None
    if isinstance(start, Retrieve):
        from prompttransfer.transfers.retrieval import check_retrieve

        return str(check_retrieve(start))
    source = source_of(init)
    return PROMPT if source is None else str(method_of(read_record(Path(source))))
