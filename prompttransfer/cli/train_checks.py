"""What `train` looks at before anything is loaded: mixtures, grids, names, where it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prompttransfer.adaptations.method import Method
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.cli.data import DataOptions
    from prompttransfer.training.distillation import Teacher
    from tasks.task import Task

PROMPT = "prompt"
"""The method where none is given."""
RECIPE = (
    "optimizer", "lr", "weight_decay", "schedule", "warm_up", "steps", "batch", "length", "evaluate_every", "patience",
    "embed_at",
)  # fmt: skip
"""Options that are settings of the recipe."""


@dataclass(frozen=True)
class Asked:
    """What `train` was asked for, looked at before anything is loaded."""

    given: Mapping[str, Any]
    """Every option by its name."""
    rows: DataOptions
    tasks: Sequence[Task]
    seeds: Sequence[int]
    names: Mapping[tuple[str, int], str]
    """(task, seed) -> name of what is trained; the task of a mixture is `together`."""
    method: str
    grid: dict[str, tuple[str, ...]]
    """That of a sweep, empty for none."""

    @property
    def together(self) -> str:
        """What a mixture of the tasks is called."""
        return "+".join(task.name for task in self.tasks)

    @property
    def overrides(self) -> dict[str, Any]:
        """Settings of the recipe, None where not given."""
        return {name: self.given[name] for name in RECIPE}

    def teachers(self) -> dict[tuple[str, int], Teacher]:
        """(task, seed) -> what teaches the run; none without --distil. Raises UserError."""
        from prompttransfer.cli.teachers import teachers_of
        from prompttransfer.training.distillation import Distance

        on, distance, temperature = (
            self.given[f"distil_{name}"] for name in ("on", "distance", "temperature")
        )
        return teachers_of(
            [task.name for task in self.tasks],
            self.seeds,
            self.given["distil"],
            weight=self.given["distil_weight"],
            distance=Distance(on or "logits", distance or "kl", temperature or 1.0),
        )


def asked_of(given: Mapping[str, Any]) -> Asked:
    """What the options of `train` ask for; UserError for what cannot be, before anything is loaded."""
    from prompttransfer.adaptations.heads import check_head
    from prompttransfer.adaptations.methods import parse_method
    from prompttransfer.adaptations.starts import check_start
    from prompttransfer.cli.data import data_options
    from prompttransfer.training.grids import first_of
    from prompttransfer.training.recipes import check_warm_up
    from prompttransfer.training.run_logs import check_logger

    rows = data_options(given)
    tasks = rows.tasks(given["task"])
    seeds = list(dict.fromkeys(given["seeds"] or [0]))
    init, mixture = given["init"] or "random", given["mixture"]
    names = [item.name for item in tasks]
    named = names_of(["+".join(names)] if mixture else names, seeds, given["output"])
    check_start(init)
    if mixture:
        check_mixture(tasks, init, given["distil"])
    check_distil(given)
    method = given["method"] or source_method(init)
    overrides = {name: given[name] for name in RECIPE}
    grid = grid_of(given["sweep"], method, overrides, dry_run=given["dry_run"])
    wanted = parse_method(first_of(method, grid), length=given["length"] or 1)
    wanted.check_complete()
    if wanted.trains and not wanted.searches:
        check_warm_up(given["warm_up"], given["steps"])
    for item in tasks:
        check_head(wanted, item)
    check_logger(given["logger"])
    return Asked(given, rows, tasks, seeds, named, method, grid)


def check_distil(given: Mapping[str, Any]) -> None:
    """Raise UserError where it is said how to learn from teachers, and none are given."""
    from tasks.errors import UserError

    how = ("distil_weight", "distil_on", "distil_distance", "distil_temperature")
    if given["distil"] is None and any(given[name] is not None for name in how):
        raise UserError(
            "--distil-weight and the like say how to learn from teachers: give --distil FOLDER, too"
        )


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
