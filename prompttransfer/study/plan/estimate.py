"""What a study will cost, before anything runs: steps, tokens, arithmetic, memory and disk, kind by kind.

Tokens are counted from a sample of every task's texts. A multiplication and an addition count as two operations: 2 a
parameter and token forward, and as many again back to the prompt, for the frozen weights need no gradient. Memory is
the frozen weights and what the backward pass keeps, 34 times width bytes a token and layer at two bytes a value
(Korthikanti et al. 2022, arXiv 2205.05198, equation 2, without the part that grows with the square of the length).
Estimates are for planning: early stopping makes a study cheaper, and the cost of every finished cell is in its record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from prompttransfer.study.cell import Cell, Unit
from prompttransfer.study.library_starts import TEACHER, TEACHERS
from prompttransfer.study.methods import Use, use_of
from prompttransfer.study.plan.lookup import BackboneFacts, TaskFacts
from prompttransfer.study.plan.plan import Plan
from prompttransfer.study.tuning import plans_of
from tasks.loading import validation_size

RECORD_BYTES = 2_000
"""A cell's own record, and the small JSON beside it."""
CARD_BYTES = 12_000
"""The text files of a prompt's folder, its curve included."""
STATE_COPIES = 4
"""Vectors that a running prompt keeps on disk: itself, its best, two moments."""
CONDITIONS = 24
"""Prompts that a projector's report scores on each task."""
GENERATED = 20
"""Tokens written a row where answers are text; each is a pass of its own over one token."""


@dataclass(frozen=True)
class Cost:
    """What one kind of cells costs."""

    cells: int = 0
    units: int = 0
    steps: int = 0
    """Optimizer steps of single prompts or projectors; a bank makes several at once."""
    tokens: float = 0.0
    """Tokens that pass through a frozen backbone."""
    operations: float = 0.0
    """Floating-point operations."""
    memory: float = 0.0
    """Bytes of the largest unit, weights included."""
    disk: float = 0.0
    """Bytes when all is finished."""

    def plus(self, other: Cost) -> Cost:
        """Sums, and the larger memory."""
        summed = {name: getattr(self, name) + getattr(other, name) for name in asdict(self)}
        return Cost(**{**summed, "memory": max(self.memory, other.memory)})


@dataclass(frozen=True)
class Estimate:
    """Costs by kind, and of the whole."""

    kinds: Mapping[str, Cost]
    chain: float = 0.0
    """Operations of the longest chain of units that wait for one another; no number of machines is faster."""

    @property
    def workers(self) -> float:
        """How many equal machines the study can keep busy at most: its operations over those of the chain."""
        return self.total.operations / self.chain if self.chain else 1.0

    @property
    def total(self) -> Cost:
        """Everything; memory is that of one unit, as units run one after the other."""
        total = Cost()
        for cost in self.kinds.values():
            total = total.plus(cost)
        return total

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kinds": {kind: asdict(cost) for kind, cost in self.kinds.items()},
            "total": asdict(self.total),
            "chain": self.chain,
        }


def estimate(plan: Plan) -> Estimate:
    """The cost of every kind of a plan."""
    kinds: dict[str, Cost] = {}
    sides = sides_of(plan)
    cells = plan.graph.cells
    finish: dict[str, float] = {}
    for unit in plan.graph:
        count = COUNTERS.get(unit.kind, _nothing)
        one = Cost(units=1)
        for cell in unit.cells:
            one = one.plus(count(cell, unit, sides, cells))
        one = one.plus(Cost(cells=len(unit.cells), disk=RECORD_BYTES * len(unit.cells)))
        kinds[unit.kind] = kinds.get(unit.kind, Cost()).plus(one)
        begun = max((finish[name] for name in plan.graph.needs[unit.id]), default=0.0)
        finish[unit.id] = begun + one.operations
    return Estimate(kinds, max(finish.values(), default=0.0))


Sides = Mapping[Use, BackboneFacts]


def sides_of(plan: Plan) -> dict[Use, BackboneFacts]:
    """What is known of each method on each backbone."""
    found = {}
    for side in plan.facts.backbones.values():
        for chosen, method in enumerate(side.methods):
            whole = _with_library(side.under(chosen))
            found[Use(side.label, method.text, method.length, method.tuned)] = whole
            found.setdefault(Use(side.label, method.text, method.length), whole)  # a teacher is not tuned
        if side.library is not None:
            use = Use(side.label, side.library.text, side.library.length)
            found.setdefault(use, _with_library(replace(side, methods=(side.library,), chosen=0)))
    return found


def _with_library(side: BackboneFacts) -> BackboneFacts:
    """The same with the tasks of the library, of which the same method may be trained."""
    targets = next((method.tasks for method in side.methods), {})
    method = replace(side.method, tasks={**targets, **side.all_tasks})
    return replace(side, methods=(method,), chosen=0) if side.library else side


def _nothing(cell: Cell, unit: Unit, sides: Sides, cells: Mapping[str, Cell]) -> Cost:
    return Cost(disk=10_000)


def _side(cell: Cell, sides: Sides, cells: Mapping[str, Cell], end: str = "") -> BackboneFacts:
    """What is known of the backbone and method of a cell; of a projector, of one of its ends."""
    if end:
        cell = cells[next(name for role, name in cell.inputs.items() if role.startswith(f"{end} "))]
    return sides[use_of(cell, cells)]


def _task(side: BackboneFacts, name: Any) -> TaskFacts:
    return next(task for task in side.tasks.values() if task.task.name == name)


def row_tokens(side: BackboneFacts, task: TaskFacts) -> float:
    """Positions of one row: what the method reserves, text, special tokens."""
    return side.method.reserved + task.tokens + side.special


def worked(side: BackboneFacts) -> int:
    """Parameters that every token is multiplied with: the table of embeddings is only looked up."""
    return max(1, side.parameters - side.embedded)


def kept_bytes(side: BackboneFacts, tokens: float, bytes_a_value: int) -> float:
    """Bytes of the weights and of what a backward pass over `tokens` keeps."""
    return side.parameters * bytes_a_value + 17 * bytes_a_value * side.width * side.layers * tokens


def _value_bytes(cell: Cell, key: str = "backbone") -> int:
    named: Any = cell.settings[key]
    return 4 if named["precision"] == "fp32" else 2  # nf4 computes in bf16


def _prompt(cell: Cell, unit: Unit, sides: Sides, cells: Mapping[str, Cell]) -> Cost:
    side = _side(cell, sides, cells)
    task = _task(side, cell.settings["task"])
    per_row = row_tokens(side, task)
    plans = plans_of(cell)
    steps = sum(plan["steps"] for plan in plans)
    learned = sum(plan["steps"] * plan["batch"] for plan in plans) * per_row
    looks = sum(plan["steps"] // plan["evaluate_every"] + 1 for plan in plans)
    written = GENERATED if task.task.generates else 0
    watched = looks * _watched(cell, task) * (per_row + written)
    at_once = len(unit.cells) * sum(plan["batch"] for plan in plans) * per_row
    return Cost(
        steps=steps,
        tokens=learned + watched,
        operations=worked(side) * ((6 if TEACHER in cell.inputs else 4) * learned + 2 * watched),
        memory=kept_bytes(side, min(at_once, MICRO_BATCH), _value_bytes(cell)),
        disk=2 * 4 * side.method.values + CARD_BYTES,
    )


def _watched(cell: Cell, task: TaskFacts) -> int:
    """Validation rows of a prompt: fewer where it is learned from few rows."""
    limit: Any = cell.settings["limit_train"]
    few = validation_size(task.rows.train + task.rows.validation, limit)
    return few if "split_seed" in cell.settings else task.rows.validation


def _shared(cell: Cell, unit: Unit, sides: Sides, cells: Mapping[str, Cell]) -> Cost:
    """A library's tasks in one bank."""
    settings: Any = cell.settings
    recipe, length = settings["recipe"], settings["recipe"].get("length", 0)
    side = sides[Use(settings["backbone"]["name"], settings["method"], length)]
    tasks = [_task(side, given["task"]) for given in settings["tasks"]]
    learned = recipe["steps"] * recipe["batch"] * sum(row_tokens(side, task) for task in tasks)
    looks = recipe["steps"] // recipe["evaluate_every"] + 1
    watched = looks * sum(task.rows.validation * row_tokens(side, task) for task in tasks)
    at_once = recipe["batch"] * sum(row_tokens(side, task) for task in tasks)
    return Cost(
        steps=recipe["steps"] * len(tasks),
        tokens=learned + watched,
        operations=worked(side) * ((6 if TEACHERS in cell.settings else 4) * learned + 2 * watched),
        memory=kept_bytes(side, min(at_once, MICRO_BATCH), _value_bytes(cell)),
        disk=4 * side.method.values + CARD_BYTES,
    )


MICRO_BATCH = 131_072
"""Most tokens that are trained on at one time on a GPU (training/batches.py); a CPU takes 4,096."""


def _score(cell: Cell, unit: Unit, sides: Sides, cells: Mapping[str, Cell]) -> Cost:
    from prompttransfer.adaptations.random_prompts import random_draws

    side = _side(cell, sides, cells)
    task = _task(side, cell.settings["task"])
    # Beside no prompt, random ones are scored, and where it is asked for rows in context, which are computed once.
    asked: Any = cell.settings.get("draws")
    prompts = 1
    if "references" in cell.settings:
        prompts += (asked or random_draws(len(cell.inputs))) + ("in_context" in cell.settings)
    per_row = row_tokens(side, task) + (GENERATED if task.task.generates else 0)
    tokens = prompts * task.rows.test * per_row
    weights = side.parameters * _value_bytes(cell)
    return Cost(tokens=tokens, operations=2 * worked(side) * tokens, memory=weights, disk=300)


def _projector(cell: Cell, unit: Unit, sides: Sides, cells: Mapping[str, Cell]) -> Cost:
    from projectors.architectures import Architecture, Shape, size
    from projectors.methods import LABEL_FREE

    source, target = _side(cell, sides, cells, "source"), _side(cell, sides, cells, "target")
    settings: Any = cell.settings
    shape = Shape(source.recipe.length, source.width, target.recipe.length, target.width)
    found = size(Architecture(**settings["architecture"]), shape)
    fitting = [_task(target, name) for name in settings["fitting"]]
    tasks = [_task(target, name) for name in settings["tasks"]]
    phases = 0 if settings["method"] in LABEL_FREE else 1 + (settings["method"] == "distance+task")
    taught = settings["fit"]["steps"] * 32 * sum(row_tokens(target, task) for task in fitting)
    learned = taught * (
        2 if settings["method"] in ("task", "distance+task") else 1
    )  # the constant control beside it
    tested = CONDITIONS * sum(task.rows.test * row_tokens(target, task) for task in tasks)
    return Cost(
        steps=settings["fit"]["steps"] * phases,
        tokens=learned + tested,
        operations=worked(target) * (4 * learned + 2 * tested),
        memory=found.fit_bytes
        + kept_bytes(target, 32 * max(row_tokens(target, t) for t in fitting), _value_bytes(cell, "target")),
        disk=4 * found.parameters + CARD_BYTES,
    )


def _carried(cell: Cell, unit: Unit, sides: Sides, cells: Mapping[str, Cell]) -> Cost:
    target = _side(cells[cell.inputs["projector"]], sides, cells, "target")
    return Cost(disk=4 * target.recipe.length * target.width + CARD_BYTES)


def _states(cell: Cell, unit: Unit, sides: Sides, cells: Mapping[str, Cell]) -> Cost:
    side = _side(cell, sides, cells)
    tokens = side.method.reserved + side.special
    weights = side.parameters * _value_bytes(cell)
    return Cost(
        tokens=tokens,
        operations=2 * worked(side) * tokens,
        memory=weights,
        disk=side.layers * side.neurons / 8 + 1_000,
    )


def _indicator(cell: Cell, unit: Unit, sides: Sides, cells: Mapping[str, Cell]) -> Cost:
    """Passes over rows, which the cells of a unit share where they are of the same kind."""
    if "estimate" not in cell.settings:
        return Cost()
    kind = _kind_of(cell)
    if any(_kind_of(other) == kind for other in unit.cells[: unit.cells.index(cell)]):
        return Cost()
    settings: Mapping[str, Any] = cell.settings
    side = _side(cell, sides, cells)
    tokens = sum(row_tokens(side, _task(side, name)) for name in settings["targets"])
    tokens *= settings["limit"] * len(cell.inputs)
    backward = kind == "gradients"
    return Cost(tokens=tokens, operations=(6 if backward else 2) * worked(side) * tokens)


def _kind_of(cell: Cell) -> str:
    from prompttransfer.transfers.indicators import ESTIMATES

    name = str(cell.settings.get("estimate"))
    return "pass" if name in ESTIMATES else "few-shot" if name == "few-shot" else "gradients"


def _figure(cell: Cell, unit: Unit, sides: Sides, cells: Mapping[str, Cell]) -> Cost:
    return Cost(disk=300_000)


COUNTERS = {
    "prompt": _prompt,
    "score": _score,
    "projector": _projector,
    "carried": _carried,
    "states": _states,
    "indicator": _indicator,
    "figure": _figure,
    "shared": _shared,
}
"""Kind -> its cost a cell; kinds that are only arithmetic on files cost nothing worth counting."""


def in_words(count: float, unit: str = "") -> str:
    """`1.3 G`: a number for people."""
    for power, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= power:
            return f"{count / power:.3g} {letter}{unit}"
    return f"{count:.3g} {unit}".strip()
