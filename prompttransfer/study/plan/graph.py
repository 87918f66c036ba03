"""Which cells a study has, what each is made from, and what runs together.

What runs together (a unit) is fixed by the file alone: prompts (or members of another method) of one backbone and seed
in banks of `bank` tasks in the file's order, all sources of one target and seed in one pass over its rows. What each cell
is named by stands in naming.py. Every method has such a graph of its own, with the same tasks, seeds and rows; what a
method cannot have is not a cell but is kept with its reason. A study of few rows has other cells (few_rows.py).

    prompt ──> score            zero-shot: every source on every target, beside the references
      │  └───> states ──> indicator (overlap)
      ├──────> indicator (similarity, estimate)
      ├──────> prompt (from a source) ──> score ──> tuned      TPT_task, with the run from scratch
      └──────> projector ──> carried ──> prompt ──> score ──> tuned      TPT_model
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prompttransfer.study.cell import Cell, Graph, Impossible, SystemRun, Unit
from prompttransfer.study.methods import PROMPT
from prompttransfer.study.plan.checks import sources_of, tried_on
from prompttransfer.study.plan.few_rows import cut, few_row_runs
from prompttransfer.study.plan.lookup import BackboneFacts, Facts
from prompttransfer.study.plan.naming import Naming
from prompttransfer.study.plan.spec import BackboneEntry, ProjectorEntry, ProjectorTuning, RecipeOptions, Spec
from prompttransfer.training.grids import Brought
from prompttransfer.training.recipes import SMALL_WIDTH, Recipe


def build_graph(spec: Spec, facts: Facts) -> Graph:
    """All cells of a study, in units, and what it asks for that cannot be."""
    wiring = _Wiring(spec, facts, Naming(spec))
    possible = [at for at in wiring.places() if not wiring.refused(at)]
    if spec.shots:
        runs = [run for entry in spec.backbones for run in wiring.systems(entry)]
        return Graph(tuple(wiring.units), tuple(wiring.impossible), tuple(runs))
    for at in possible:
        wiring.prompts(at)
    for at in possible:
        wiring.zero_shot(at)
        wiring.initialisation(at)
        wiring.indicators(at)
    for entry in spec.projectors:
        for chosen in range(len(spec.methods)):
            wiring.projector(entry, chosen)
    for name in facts.backbones:
        wiring.figures(name)
    return Graph(tuple(wiring.units), tuple(wiring.impossible), labels=wiring.labels)


At = tuple[str, int]
"""A backbone and the number of a method on it."""


@dataclass
class _Wiring:
    """Collects units; a cell that is there already is not made twice."""

    spec: Spec
    facts: Facts
    naming: Naming
    units: list[Unit] = field(default_factory=list)
    known: dict[str, Cell] = field(default_factory=dict)
    trained: dict[tuple[At, str, int], Cell] = field(default_factory=dict)
    """Backbone and method, task, seed -> the member trained from scratch."""
    scored: dict[tuple[At, str, str, int], Cell] = field(default_factory=dict)
    """Backbone and method, source, target, seed -> zero-shot score."""
    references: dict[tuple[At, str, int], Cell] = field(default_factory=dict)
    impossible: list[Impossible] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    """Of each method that the file gives a label, one cell on each backbone -> the label."""

    def places(self) -> list[At]:
        """Every method on every backbone, in the order of the study's file."""
        return [(name, chosen) for name in self.facts.backbones for chosen in range(len(self.spec.methods))]

    def side(self, at: At) -> BackboneFacts:
        """What is known of a backbone under a method."""
        name, chosen = at
        return self.facts.backbones[name].under(chosen)

    def recipe(self, at: At, task: str, own: Mapping[str, Any] = {}) -> tuple[Recipe, Brought]:
        """What a task (its name in the study file) is trained with; `own` goes before what the file says elsewhere."""
        name, chosen = at
        side, entry = self.side(at), next(one for one in self.spec.backbones if one.name == name)
        method = self.spec.methods[chosen]
        return tried_on(side.family, side.state_width, self.spec, entry, method, task, own)

    def refused(self, at: At) -> bool:
        """Whether the backbone cannot have the method, which is then said, as is a task that it is not for."""
        side = self.side(at)
        method = side.method
        if method.refused:
            self.say_impossible(f"{method.label} on {side.label}", side, method.refused)
            return True
        for task, reason in method.refused_tasks.items():
            self.say_impossible(f"{method.label} {task} on {side.label}", side, reason)
        for pair, reason in {**method.barred, **method.other_heads}.items():
            source, target = (side.tasks[name].task.name for name in pair)
            label = f"score on {target} of {method.label} {source} on {side.label}"
            self.say_impossible(label, side, reason)
        return False

    def say_impossible(self, label: str, side: BackboneFacts, reason: str) -> None:
        """Keep what cannot be, with its reason."""
        self.impossible.append(Impossible(label, side.label, side.method.label, reason))

    def add(self, cells: Sequence[Cell], gpu: bool = False) -> None:
        """A unit of those cells that no other unit makes."""
        new = list({cell.id: cell for cell in cells if cell.id not in self.known}.values())
        if new:
            self.known.update((cell.id, cell) for cell in new)
            self.units.append(Unit(tuple(new), {"gpu": 1.0} if gpu else {}))

    def systems(self, entry: BackboneEntry) -> list[SystemRun]:
        """All that a study of few rows does on one backbone."""
        side = self.facts.backbones[entry.name]
        return few_row_runs(self.spec, self.naming, entry, side, lambda cells: self.add(cells, _large(side)))

    def prompts(self, at: At) -> None:
        """One member a task and seed, banked by seed."""
        side = self.side(at)
        for seed in self.spec.seeds:
            cells = []
            for called, task in side.tasks.items():
                recipe, brought = self.recipe(at, called)
                cell = self.naming.prompt(side, task, seed, recipe, side.method.start, brought=brought)
                self.trained[at, called, seed] = cell
                cells.append(cell)
            if label := self.spec.methods[at[1]].label:
                self.labels.setdefault(cells[0].id, label)
            # Texts of one length belong in one bank: others would only pad it. A bank has one recipe.
            kinds = [(cell.settings["max_length"], cell.settings["recipe"]) for cell in cells]
            for kind in [one for index, one in enumerate(kinds) if one not in kinds[:index]]:
                alike = [cell for cell, own in zip(cells, kinds, strict=True) if own == kind]
                for part in cut(alike, max(1, self.spec.bank // side.method.beside)):
                    self.add(part, _large(side))

    def zero_shot(self, at: At) -> None:
        """Every source on every target (or each on its own task alone), with the reference rows."""
        side = self.side(at)
        for seed in self.spec.seeds:
            for target, facts in side.tasks.items():
                sources = list(side.tasks) if self.spec.transfers.zero_shot else [target]
                no = side.method.barred.keys() | side.method.other_heads.keys()
                sources = [source for source in sources if (source, target) not in no]
                prompts = {source: self.trained[at, source, seed] for source in sources}
                calibrate = self.spec.transfers.calibrate
                cells = {
                    source: self.naming.score(side, facts, prompt, calibrate)
                    for source, prompt in prompts.items()
                }
                for source, cell in cells.items():
                    self.scored[at, source, target, seed] = cell
                references = self.naming.references(side, facts, seed, prompts)
                self.references[at, target, seed] = references
                self.add([*cells.values(), references], _large(side))

    def initialisation(self, at: At) -> None:
        """TPT_task: every target from its sources, the run from scratch beside them."""
        given = self.spec.transfers.initialisation
        if given is None:
            return
        side = self.side(at)
        if not side.method.trains:
            reason = f"nothing of {side.method.label} is trained"
            self.say_impossible(f"training from {side.called}", side, reason)
            return
        types = {task: facts.task.type for task, facts in side.tasks.items()}
        for seed in self.spec.seeds:
            for target in side.tasks:
                sources = sources_of(given, target, list(side.tasks), types)
                able = [source for source in sources if (source, target) not in side.method.barred]
                starts = [self.trained[at, source, seed] for source in able]
                self.tuned(at, target, seed, starts, given, given.scratch)

    def tuned(
        self,
        at: At,
        target: str,
        seed: int,
        starts: Sequence[Cell],
        given: RecipeOptions,
        scratch_start: str,
    ) -> None:
        """Runs of one target and seed from prompts, in one bank with the run from scratch; scored and compared."""
        if not starts:
            return
        side = self.side(at)
        task = side.tasks[target]
        recipe, brought = self.recipe(at, target, given.overrides())
        fixed = [name.replace("_", "-") for name in given.overrides()]  # what is given here is not tuned
        scratch = self.naming.prompt(side, task, seed, recipe, scratch_start, fixed=fixed, brought=brought)
        runs = [
            self.naming.prompt(side, task, seed, recipe, "prompt", start, fixed=fixed, brought=brought)
            for start in starts
        ]
        whole, beside_each = [scratch, *runs], side.method.beside
        parts = [whole] if beside_each == 1 else cut(whole, max(1, self.spec.bank // beside_each))
        for part in parts:
            self.add(part, _large(side))
        beside, *scores = [self.naming.score(side, task, run) for run in (scratch, *runs)]
        self.add([beside, *scores], _large(side))
        self.add(
            [
                self.naming.speed_up(task, recipe, source=start, runs=(run, scratch), scores=(own, beside))
                for start, run, own in zip(starts, runs, scores, strict=True)
            ]
        )

    def projector(self, entry: ProjectorEntry, chosen: int) -> None:
        """One projector a seed, from the prompts of that seed, so that its spread over seeds is that of the whole way."""
        at, to = (entry.source, chosen), (entry.target, chosen)
        source, target = self.side(at), self.side(to)
        label = self.naming.projector_label(entry, source)
        if reason := source.method.refused or target.method.refused:
            self.say_impossible(label, target, reason)
            return
        if not source.method.vectors:
            reason = f"a projector maps vectors in front of the text, and {source.method.label} has none"
            self.say_impossible(label, target, reason)
            return
        if not (source.method.one_shape and target.method.one_shape):
            reason = f"a projector maps prompts of one shape, and each of {source.method.label} has the one that was best"
            self.say_impossible(label, target, reason)
            return
        tasks = [*entry.fitting, *entry.unseen]
        tuned = entry.initialisation
        if tuned is not None and source.method.text != PROMPT:
            reason = (
                f"what comes out of a projector is a soft prompt, which {source.method.label} cannot train on"
            )
            self.say_impossible(f"training from {label}", target, reason)
            tuned = None
        for seed in self.spec.seeds:
            near = {task: self.trained[at, task, seed] for task in tasks}
            far = {task: self.trained[to, task, seed] for task in tasks}
            fitted = self.naming.projector(entry, (source, target), seed, near, far)
            self.add([fitted], _large(source) or _large(target))
            if tuned is not None:
                wanted = [task for task in tasks if tuned.tasks is None or task in tuned.tasks]
                self.carry(entry, fitted, {task: near[task] for task in wanted}, seed, (to, tuned))

    def carry(
        self,
        entry: ProjectorEntry,
        fitted: Cell,
        prompts: Mapping[str, Cell],
        seed: int,
        training: tuple[At, ProjectorTuning],
    ) -> None:
        """TPT_model: the source's prompts through the projector, each then trained on its own task."""
        to, tuned = training
        carried = {task: self.naming.carried(entry, fitted, prompt) for task, prompt in prompts.items()}
        self.add(list(carried.values()))
        for task, cell in carried.items():
            self.tuned(to, task, seed, [cell], tuned, self.side(to).method.start)

    def indicators(self, at: At) -> None:
        """Similarity of tensors, estimates from rows, and overlap of neurons, one table a measure and seed."""
        side, given = self.side(at), self.spec.indicators
        if len(side.tasks) < 2:
            return
        lacks, estimates = side.method.lacks, given.estimates
        uneven = (
            [] if side.method.one_shape else [n for n in _of_one_shape(given.similarity) if n not in lacks]
        )
        reasons = {name: f"it {needed}, and {side.method.label} has none" for name, needed in lacks.items()}
        shape = f"it compares tensors of one shape, and each of {side.method.label} has the one that was best"
        for name, reason in (reasons | dict.fromkeys(uneven, shape)).items():
            self.say_impossible(f"{name} on {side.called}", side, reason)
        if side.method.unread:
            self.say_impossible(f"neurons on {side.called}", side, side.method.unread)
        alike = [name for name in given.similarity if name not in (*lacks, *uneven)]
        measures = [name for name in estimates.measures if name not in lacks] if estimates else []
        for seed in self.spec.seeds:
            prompts = {task: self.trained[at, task, seed] for task in side.tasks}
            self.add([self.naming.similarity(side, seed, name, prompts) for name in alike])
            if estimates is not None:  # one unit, whose cells share their passes over the rows
                cells = [self.naming.estimate(side, seed, name, estimates.rows, prompts) for name in measures]
                self.add(cells, _large(side))
            options = None if side.method.unread else given.neurons
            if options is not None:
                states = {task: self.naming.states(side, options, cell) for task, cell in prompts.items()}
                self.add(list(states.values()), _large(side))
                self.add(
                    [self.naming.overlap(side, seed, name, options, states) for name in options.measures]
                )

    def figures(self, name: str) -> None:
        """The heatmaps of zero-shot transfer of one backbone, one a method, on one scale of colours."""
        if not (self.spec.report.heatmaps and self.spec.transfers.zero_shot):
            return
        inputs = {self.side(at).method.label: self.scores_of(at) for at in self.places() if at[0] == name}
        found = {label: scores for label, scores in inputs.items() if scores}
        if found:
            self.add([self.naming.heatmap(self.facts.backbones[name], found)])

    def scores_of(self, at: At) -> dict[str, str]:
        """Role in a figure -> id of the score, of one method on one backbone; none where it cannot be."""
        found = {
            f"{source} > {target} {seed}": cell.id
            for (place, source, target, seed), cell in self.scored.items()
            if place == at
        }
        return found | {
            f"references > {target} {seed}": cell.id
            for (place, target, seed), cell in self.references.items()
            if place == at
        }


def _of_one_shape(names: Sequence[str]) -> list[str]:
    """Those that compare tensors entry by entry or vector by vector, which must be as many."""
    from analysis.prefixes import SIMILARITIES as PREFIXES
    from analysis.similarity import INDICATORS as VECTORS

    return [name for name in names if name in {**VECTORS, **PREFIXES}]


def _large(side: BackboneFacts) -> bool:
    """Whether a unit of this backbone asks for a GPU of its own; the small ones run anywhere."""
    return side.state_width >= SMALL_WIDTH
