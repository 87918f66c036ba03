"""Which cells a study has, what each is made from, and what runs together.

What runs together (a unit) is fixed by the file alone: prompts of one backbone and seed in banks of `bank` tasks in the
file's order, all sources of one target and seed in one pass over its rows. What each cell is named by stands in naming.py.

    prompt ──> score            zero-shot: every source on every target, beside the references
      │  └───> states ──> indicator (overlap)
      ├──────> indicator (similarity)
      ├──────> prompt (from a source) ──> score ──> tuned      TPT_task, with the run from scratch
      └──────> projector ──> carried ──> prompt ──> score ──> tuned      TPT_model
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from prompttransfer.study.cell import Cell, Graph, Unit
from prompttransfer.study.plan.checks import sources_of
from prompttransfer.study.plan.lookup import BackboneFacts, Facts
from prompttransfer.study.plan.naming import Naming
from prompttransfer.study.plan.spec import ProjectorEntry, ProjectorTuning, RecipeOptions, Spec
from prompttransfer.training.recipes import SMALL_WIDTH


def build_graph(spec: Spec, facts: Facts) -> Graph:
    """All cells of a study, in units."""
    wiring = _Wiring(spec, facts, Naming(spec))
    for name in facts.backbones:
        wiring.prompts(name)
    for name in facts.backbones:
        wiring.zero_shot(name)
        wiring.initialisation(name)
        wiring.indicators(name)
    for entry in spec.projectors:
        wiring.projector(entry)
    for name in facts.backbones:
        wiring.figures(name)
    return Graph(tuple(wiring.units))


@dataclass
class _Wiring:
    """Collects units; a cell that is there already is not made twice."""

    spec: Spec
    facts: Facts
    naming: Naming
    units: list[Unit] = field(default_factory=list)
    known: dict[str, Cell] = field(default_factory=dict)
    trained: dict[tuple[str, str, int], Cell] = field(default_factory=dict)
    """Backbone, task, seed -> the prompt from scratch."""
    scored: dict[tuple[str, str, str, int], Cell] = field(default_factory=dict)
    """Backbone, source, target, seed -> zero-shot score."""
    references: dict[tuple[str, str, int], Cell] = field(default_factory=dict)

    def add(self, cells: Sequence[Cell], gpu: bool = False) -> None:
        """A unit of those cells that no other unit makes."""
        new = list({cell.id: cell for cell in cells if cell.id not in self.known}.values())
        if new:
            self.known.update((cell.id, cell) for cell in new)
            self.units.append(Unit(tuple(new), {"gpu": 1.0} if gpu else {}))

    def prompts(self, name: str) -> None:
        """One prompt a task and seed, banked by seed."""
        side = self.facts.backbones[name]
        for seed in self.spec.seeds:
            cells = [
                self.naming.prompt(side, task, seed, side.recipe_of(called), self.spec.initialiser)
                for called, task in side.tasks.items()
            ]
            for task, cell in zip(side.tasks, cells, strict=True):
                self.trained[name, task, seed] = cell
            # Texts of one length belong in one bank: others would only pad it. A bank has one recipe.
            kinds = [(cell.settings["max_length"], cell.settings["recipe"]) for cell in cells]
            for kind in [one for index, one in enumerate(kinds) if one not in kinds[:index]]:
                alike = [cell for cell, own in zip(cells, kinds, strict=True) if own == kind]
                for start in range(0, len(alike), self.spec.bank):
                    self.add(alike[start : start + self.spec.bank], _large(side))

    def zero_shot(self, name: str) -> None:
        """Every source on every target (or each prompt on its own task alone), with the reference rows."""
        side = self.facts.backbones[name]
        for seed in self.spec.seeds:
            for target, facts in side.tasks.items():
                sources = list(side.tasks) if self.spec.transfers.zero_shot else [target]
                prompts = {source: self.trained[name, source, seed] for source in sources}
                calibrate = self.spec.transfers.calibrate
                cells = {
                    source: self.naming.score(side, facts, prompt, calibrate)
                    for source, prompt in prompts.items()
                }
                for source, cell in cells.items():
                    self.scored[name, source, target, seed] = cell
                references = self.naming.references(side, facts, seed, prompts)
                self.references[name, target, seed] = references
                self.add([*cells.values(), references], _large(side))

    def initialisation(self, name: str) -> None:
        """TPT_task: every target from its sources, the run from scratch beside them."""
        given = self.spec.transfers.initialisation
        if given is None:
            return
        side = self.facts.backbones[name]
        types = {task: facts.task.type for task, facts in side.tasks.items()}
        for seed in self.spec.seeds:
            for target in side.tasks:
                sources = sources_of(given, target, list(side.tasks), types)
                starts = [self.trained[name, source, seed] for source in sources]
                self.tuned(name, target, seed, starts, given, given.scratch)

    def tuned(
        self,
        name: str,
        target: str,
        seed: int,
        starts: Sequence[Cell],
        given: RecipeOptions,
        scratch_start: str,
    ) -> None:
        """Runs of one target and seed from prompts, in one bank with the run from scratch; scored and compared."""
        if not starts:
            return
        side = self.facts.backbones[name]
        task = side.tasks[target]
        recipe = replace(side.recipe_of(target), **given.overrides())
        scratch = self.naming.prompt(side, task, seed, recipe, scratch_start)
        runs = [self.naming.prompt(side, task, seed, recipe, "prompt", start) for start in starts]
        self.add([scratch, *runs], _large(side))
        beside, *scores = [self.naming.score(side, task, run) for run in (scratch, *runs)]
        self.add([beside, *scores], _large(side))
        self.add(
            [
                self.naming.speed_up(task, recipe, source=start, runs=(run, scratch), scores=(own, beside))
                for start, run, own in zip(starts, runs, scores, strict=True)
            ]
        )

    def projector(self, entry: ProjectorEntry) -> None:
        """One projector a seed, from the prompts of that seed, so that its spread over seeds is that of the whole way."""
        source, target = self.facts.backbones[entry.source], self.facts.backbones[entry.target]
        tasks = [*entry.fitting, *entry.unseen]
        for seed in self.spec.seeds:
            near = {task: self.trained[entry.source, task, seed] for task in tasks}
            far = {task: self.trained[entry.target, task, seed] for task in tasks}
            fitted = self.naming.projector(entry, (source, target), seed, near, far)
            self.add([fitted], _large(source) or _large(target))
            tuned = entry.initialisation
            if tuned is not None:
                chosen = [task for task in tasks if tuned.tasks is None or task in tuned.tasks]
                self.carry(entry, fitted, {task: near[task] for task in chosen}, seed, tuned)

    def carry(
        self,
        entry: ProjectorEntry,
        fitted: Cell,
        prompts: Mapping[str, Cell],
        seed: int,
        tuned: ProjectorTuning,
    ) -> None:
        """TPT_model: the source's prompts through the projector, each then trained on its own task."""
        carried = {task: self.naming.carried(entry, fitted, prompt) for task, prompt in prompts.items()}
        self.add(list(carried.values()))
        for task, cell in carried.items():
            self.tuned(entry.target, task, seed, [cell], tuned, self.spec.initialiser)

    def indicators(self, name: str) -> None:
        """Similarity of vectors and overlap of neurons, one table a measure and seed."""
        side, given = self.facts.backbones[name], self.spec.indicators
        if len(side.tasks) < 2:
            return
        for seed in self.spec.seeds:
            prompts = {task: self.trained[name, task, seed] for task in side.tasks}
            self.add([self.naming.similarity(side, seed, metric, prompts) for metric in given.similarity])
            options = given.neurons
            if options is not None:
                states = {task: self.naming.states(side, options, cell) for task, cell in prompts.items()}
                self.add(list(states.values()), _large(side))
                measures = options.measures
                self.add([self.naming.overlap(side, seed, measure, options, states) for measure in measures])

    def figures(self, name: str) -> None:
        """The heatmap of zero-shot transfer of one backbone."""
        if not (self.spec.report.heatmaps and self.spec.transfers.zero_shot):
            return
        inputs = {
            f"{source} > {target} {seed}": cell.id
            for (backbone, source, target, seed), cell in self.scored.items()
            if backbone == name
        }
        inputs |= {
            f"references > {target} {seed}": cell.id
            for (backbone, target, seed), cell in self.references.items()
            if backbone == name
        }
        self.add([self.naming.heatmap(self.facts.backbones[name], inputs)])


def _large(side: BackboneFacts) -> bool:
    """Whether a unit of this backbone asks for a GPU of its own; the small ones run anywhere."""
    return side.width >= SMALL_WIDTH
