"""The cells of a study of few rows: systems side by side, each with what it takes from a library, and what it costs.

    library prompt ──┬─────────────────────────> prompt (target, shots, seed) ──> score
    probe of target ─┘ (systems that retrieve)      ├────> prompt that it teaches ──> score
    shared (the library together, mpt) ─────────────┘   (with `teachers` it has the library's prompts as inputs)
    library prompts ──> references of a target: no prompt, random prompts, majority

A system is an entry of `methods`; its runs are `Graph.runs`. What another system takes of the library goes into
`_System.inputs`, and what it makes of it into kinds/few_rows.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prompttransfer.study.cell import Cell, Json, SystemRun
from prompttransfer.study.library_starts import (
    DISTIL,
    LIBRARY,
    LIBRARY_START,
    PROBE,
    SHARED,
    TEACHER,
    TEACHERS,
    LibraryStart,
)
from prompttransfer.study.methods import METHOD, PROMPT
from prompttransfer.study.plan.checks import method_on, tried_on
from prompttransfer.study.plan.few_row_checks import library_start_of, takes_library
from prompttransfer.study.plan.lookup import BackboneFacts, TaskFacts
from prompttransfer.study.plan.naming import Naming, recipe_settings, tuned_settings
from prompttransfer.study.plan.spec import PROMPT_ALONE, BackboneEntry, MethodEntry, Spec
from prompttransfer.study.tuning import steps_tried
from prompttransfer.training.grids import Brought
from prompttransfer.training.recipes import Recipe, probe_steps

Add = Callable[[Sequence[Cell]], None]
"""Makes a unit of cells."""


def few_row_runs(
    spec: Spec, naming: Naming, entry: BackboneEntry, side: BackboneFacts, add: Add
) -> list[SystemRun]:
    """The cells of all systems on one backbone; returns their runs, in the order of the file."""
    able = [chosen for chosen in range(len(spec.methods)) if not side.under(chosen).method.refused]
    library = _Library(spec, naming, side, entry, add)
    library.prompts()
    systems = [_System(spec.methods[chosen], side.under(chosen), library) for chosen in able]
    found = [run for system in systems for run in system.runs()]
    if systems:
        library.references(systems[0])
    return found


@dataclass
class _Library:
    """The source tasks on one backbone, and whatever several systems take of them."""

    spec: Spec
    naming: Naming
    side: BackboneFacts
    entry: BackboneEntry
    add: Add
    trained: dict[tuple[str, int], Cell] = field(default_factory=dict)
    """Task and seed -> its prompt."""

    @property
    def prompt_side(self) -> BackboneFacts:
        """The backbone under the library's own prompts."""
        assert self.side.library is not None
        return replace(self.side, methods=(self.side.library,), chosen=0)

    def prompts(self) -> None:
        """One prompt a source task and seed, those of one task in one bank."""
        if self.spec.library is None:
            return
        side = self.prompt_side
        for called, task in side.tasks.items():
            cells = []
            for seed in self.spec.seeds:
                cell = self.naming.prompt(side, task, seed, side.recipe_of(called), side.method.start)
                self.trained[task.task.name, seed] = cell
                cells.append(cell)
            for part in cut(cells, self.spec.bank):
                self.add(part)

    def of(self, seed: int) -> dict[str, Cell]:
        """Role -> prompt of one seed."""
        return {f"{LIBRARY}{task}": cell for (task, own), cell in self.trained.items() if own == seed}

    def related(self, target: TaskFacts) -> int:
        """Its tasks that are of the type of a target."""
        sources = self.side.library.tasks.values() if self.side.library else ()
        return sum(source.task.type == target.task.type for source in sources)

    def untuned(self, side: BackboneFacts, entry: MethodEntry) -> BackboneFacts:
        """The backbone under the same method, with the recipe that it has where nothing is tried."""
        if not side.method.tune:
            return side

        def on(task: str | None = None) -> Recipe:
            return method_on(side.family, side.state_width, self.spec, self.entry, entry, task)[1]

        length = on().length if side.method.length else 0
        recipes = {task: on(task) for task in side.method.recipes}
        plain = replace(side.method, recipe=on(), recipes=recipes, length=length, tune={}, beside=1)
        methods = [plain if at == side.chosen else each for at, each in enumerate(side.methods)]
        return replace(side, methods=tuple(methods))

    def together(self, entry: MethodEntry, side: BackboneFacts, seed: int) -> Cell:
        """The library's tasks trained together by a method that shares, as one cell."""
        assert self.side.library is not None
        taught = entry.model_copy(update={"recipe": self.spec.library_entry.recipe})
        _, recipe = method_on(side.family, side.state_width, self.spec, self.entry, taught)
        tasks = [
            {**self.naming.common(side, task), "rows": task.rows.learned}
            for task in self.side.library.tasks.values()
        ]
        settings = {
            "backbone": self.naming.backbone(side),
            "tasks": [{key: value for key, value in task.items() if key != "backbone"} for task in tasks],
            "max_length": self.naming.max_length(self.entry.name),
            **self.naming.place(side),
            "limit_train": self.spec.limit_train,
            "recipe": recipe_settings(recipe, side.method.length),
            "seed": seed,
            METHOD: side.method.text,
        }
        teachers: dict[str, str] = {}
        if entry.teachers is not None:
            settings[TEACHERS] = {"weight": entry.teachers.weight, "on": entry.teachers.on}
            teachers = {role: cell.id for role, cell in self.of(seed).items()}
        label = f"{side.method.text} of the library{' with teachers' * bool(teachers)} seed {seed} on {side.label}"
        cell = self.naming.cell("shared", label, settings, teachers)
        self.add([cell])
        return cell

    def steps(self, entry: MethodEntry, side: BackboneFacts, member: Cell) -> int:
        """What a member takes of the steps on it: those of its prompts, or of its tasks together, or with teachers of both."""
        sources = self.side.library
        if sources is None or not member.inputs:
            return 0
        prompts = sum(sources.recipes.get(task, sources.recipe).steps for task in sources.tasks)
        if SHARED not in member.inputs:
            return prompts
        recipe: Any = self.together(entry, side, int(str(member.settings["seed"]))).settings["recipe"]
        together = int(recipe["steps"]) * len(sources.tasks)
        return together + prompts if entry.teachers is not None else together

    def references(self, first: _System) -> None:
        """No prompt, random prompts at the library's norms (or at those of the first system) and the majority, by target."""
        for called, task in first.side.tasks.items():
            for seed in self.spec.seeds:
                prompts = {role.removeprefix(LIBRARY): cell for role, cell in self.of(seed).items()}
                prompts = prompts or {task.task.name: first.member(called, max(self.spec.shots), seed)}
                self.add([self.naming.references(first.side, task, seed, prompts)])


@dataclass
class _System:
    """One entry of `methods` on one backbone."""

    entry: MethodEntry
    side: BackboneFacts
    library: _Library

    @property
    def start(self) -> LibraryStart | None:
        return library_start_of(self.entry)

    @property
    def teacher(self) -> _System | None:
        """The system whose run on the same rows teaches this one's."""
        if self.entry.distil is None:
            return None
        update = {"start": self.entry.distil.start, "distil": None, "tune": None}
        entry = self.entry.model_copy(update=update)
        return replace(self, entry=entry, side=self.library.untuned(self.side, entry))

    @property
    def beside(self) -> int:
        """Members of one bank that one is chosen among."""
        return self.side.method.beside * (self.start.runs if self.start else 1)

    def runs(self) -> Iterator[SystemRun]:
        """Its members with their scores, and what each took."""
        spec, naming = self.library.spec, self.library.naming
        for called, task in self.side.tasks.items():
            places = [(shots, seed) for shots in spec.shots for seed in spec.seeds]
            cells = {place: self.member(called, *place) for place in places}
            self.train(called, places, cells)
            scores = {place: naming.score(self.side, task.few(*place), cell) for place, cell in cells.items()}
            self.library.add(list(scores.values()))
            for (shots, seed), score in scores.items():
                yield SystemRun(
                    self.side.method.label,
                    self.side.label,
                    task.task.name,
                    shots,
                    seed,
                    score.id,
                    *self.steps(called, (shots, seed), cells[shots, seed]),
                    len(self.side.tasks),
                    self.library.related(task),
                )

    def train(
        self, called: str, places: Sequence[tuple[int, int]], cells: Mapping[tuple[int, int], Cell]
    ) -> None:
        """The units of its members on a target, and of what these take that no other system has asked for."""
        if self.teacher is not None:
            members = {place: self.teacher.member(called, *place) for place in places}
            self.teacher.train(called, places, members)
        self.probes(called, places)
        for part in self.banks(cells):
            self.library.add(part)

    def banks(self, cells: Mapping[tuple[int, int], Cell]) -> list[list[Cell]]:
        """What trains together: as many as a bank holds; of a method that shares, only those of different seeds."""
        size = max(1, self.library.spec.bank // self.beside)
        if self.entry.method(1).shares:
            return [
                part
                for shots in self.library.spec.shots
                for part in cut([cell for (own, _), cell in cells.items() if own == shots], size)
            ]
        return cut(list(cells.values()), size)

    def recipe(self, called: str) -> Recipe:
        """What each run is trained with; of several settings the first stands in it."""
        return self.tried(called)[0]

    def tried(self, called: str) -> tuple[Recipe, Brought]:
        """The same, with what other optimizers bring."""
        side, library = self.side, self.library
        return tried_on(side.family, side.state_width, library.spec, library.entry, self.entry, called)

    def member(self, called: str, shots: int, seed: int) -> Cell:
        """What it learns from a target's few rows of one seed."""
        method, task = self.side.method, self.side.tasks[called].few(shots, seed)
        recipe, brought = self.tried(called)
        settings = few_settings(self.library.naming, self.side, task, recipe, shots, seed)
        settings["initialiser"] = method.start
        if self.start is not None:
            settings[LIBRARY_START] = str(self.start)
        settings |= tuned_settings(method.tune, brought=brought)
        if method.text != PROMPT:
            settings[METHOD] = method.text
        if self.entry.distil is not None:
            teacher = self.teacher.start if self.teacher else None
            settings[DISTIL] = {"weight": self.entry.distil.weight, "by": teacher.by if teacher else ""}
        label = f"{method.label} {task.task.name} {shots} rows seed {seed} on {self.side.label}"
        return self.library.naming.cell("prompt", label, settings, self.inputs(called, shots, seed))

    def inputs(self, called: str, shots: int, seed: int) -> dict[str, str]:
        """Role -> id of what it takes."""
        start, found = self.start, {}
        if self.teacher is not None and self.entry.distil is not None:
            found[TEACHER] = self.teacher.member(called, shots, seed).id
            start = self.teacher.start if self.entry.distil.weight is None else None
        if start is not None and start.probes:
            found[PROBE] = self.probe(called, shots, seed).id
        if start is not None and start.how == SHARED:
            found[SHARED] = self.library.together(self.entry, self.side, seed).id
        elif start is not None or takes_library(self.entry):
            found |= {role: cell.id for role, cell in self.library.of(seed).items()}
        return found

    def probe(self, called: str, shots: int, seed: int) -> Cell:
        """A prompt after a few steps on the target, from the random start of the library's prompts of that seed.

        It is compared as it is at that step: by validation rows it could be its untrained start, which is like nothing.
        """
        library = self.library
        sources = library.prompt_side
        side = replace(sources, methods=(replace(sources.method, tasks=self.side.tasks),), chosen=0)
        _, recipe = method_on(
            side.family, side.state_width, library.spec, library.entry, PROMPT_ALONE, called
        )
        steps = probe_steps(self.recipe(called).steps)
        short = replace(
            recipe, steps=steps, evaluate_every=steps, length=sources.method.length, embed_at=steps
        )
        task = self.side.tasks[called].few(shots, seed)
        settings = few_settings(library.naming, side, task, short, shots, seed)
        settings["initialiser"] = side.method.start
        label = f"probe of {task.task.name} {shots} rows seed {seed} on {side.label}"
        return library.naming.cell("prompt", label, settings, {})

    def probes(self, called: str, places: Sequence[tuple[int, int]]) -> None:
        """The probes of a target, in banks; those that another system has asked for are there already."""
        if self.start is not None and self.start.probes:
            for part in cut([self.probe(called, *place) for place in places], self.library.spec.bank):
                self.library.add(part)

    def steps(self, called: str, place: tuple[int, int], cell: Cell) -> tuple[int, int]:
        """Steps on the target and on the library."""
        own = steps_tried(cell)
        taught = self.teacher
        if taught is not None:
            own += steps_tried(taught.member(called, *place))
        if any(
            start is not None and start.probes for start in (self.start, taught.start if taught else None)
        ):
            own += probe_steps(self.recipe(called).steps)
        return own, self.library.steps(self.entry, self.side, cell)


def few_settings(
    naming: Naming, side: BackboneFacts, task: TaskFacts, recipe: Recipe, shots: int, seed: int
) -> dict[str, Any]:
    """What everything depends on that is learned from a target's few rows."""
    settings: dict[str, Json] = {
        **naming.common(side, task),
        "rows": task.rows.learned,
        "limit_train": shots,
        "split_seed": seed,
        "recipe": recipe_settings(recipe, side.method.length),
        "seed": seed,
    }
    return settings


def cut(cells: Sequence[Cell], size: int) -> list[list[Cell]]:
    """Cells in parts of at most `size`."""
    return [list(cells[begin : begin + size]) for begin in range(0, len(cells), size)]
