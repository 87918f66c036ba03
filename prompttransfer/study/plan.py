"""From a study file to its graph of cells.

Every cell names in its settings all that changes its result, and nothing else: a prompt names the rows that it learns
from, not those that it is tested on; a score names those. So a changed setting changes exactly the ids of the cells
that depend on it. What runs together (a unit) is fixed by the file alone: prompts of one backbone and seed in banks of
`bank` tasks in the file's order, all sources of one target and seed in one pass over its rows.

    prompt ──> score            zero-shot: every source on every target, beside the references
      │  └───> states ──> indicator (overlap)
      ├──────> indicator (similarity)
      ├──────> prompt (from a source) ──> score ──> tuned      TPT_task, with the run from scratch
      └──────> projector ──> carried ──> prompt ──> score ──> tuned      TPT_model
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prompttransfer.recipes import SMALL_WIDTH, Recipe
from prompttransfer.study.cell import Cell, Graph, Json, Unit, short_digest
from prompttransfer.study.checks import sources_of
from prompttransfer.study.facts import BackboneFacts, Facts, TaskFacts, data_folder, gather_facts
from prompttransfer.study.kinds.versions import VERSIONS
from prompttransfer.study.spec import ProjectorEntry, ProjectorTuning, RecipeOptions, Spec, StudyFile


@dataclass(frozen=True)
class Plan:
    """A study that is ready to run."""

    file: StudyFile
    facts: Facts
    graph: Graph
    local: Mapping[str, Json]
    """What this machine knows and no result depends on: where the data, the backbones and the tasks' files are."""

    @property
    def spec(self) -> Spec:
        """The study."""
        return self.file.spec

    @property
    def name(self) -> str:
        """The study's name; its folder is `runs/<name>` unless told."""
        return self.spec.study


def plan_study(file: str | Path, *, data: Path | None = None) -> Plan:
    """The plan of a study file, or of a shipped study by name, ready to run; `data` goes before the file's own folder.

    Raises UserError with all mistakes of the file, MachineError where a backbone or rows are out of reach.
    """
    from prompttransfer.study.shipping import find_study

    study = find_study(str(file))
    if data is not None:
        study = replace(study, spec=study.spec.model_copy(update={"data": str(data.resolve())}))
    return make_plan(study)


def make_plan(study: StudyFile, *, guess: bool = False) -> Plan:
    """Look up what the study names and build its graph; `guess` lets widely known sizes stand in, for a cost only."""
    facts = gather_facts(study, guess=guess)
    return Plan(study, facts, build_graph(study.spec, facts), local_settings(study, facts))


def local_settings(study: StudyFile, facts: Facts) -> dict[str, Json]:
    """Where this machine finds what the cells name."""
    data = data_folder(study.spec, study.folder)
    files: dict[str, Json] = {
        task.task.name: str((study.folder / name).resolve())
        for backbone in facts.backbones.values()
        for name, task in backbone.tasks.items()
        if name.endswith((".yaml", ".yml"))
    }
    places: dict[str, Json] = {b.label: _absolute(b.place) for b in facts.backbones.values()}
    return {
        "data": str(data.resolve()) if data else None,
        "device": "auto",
        "backbones": places,
        "tasks": files,
    }


def _absolute(place: str) -> str:
    return str(Path(place).resolve()) if Path(place).is_dir() else place


def build_graph(spec: Spec, facts: Facts) -> Graph:
    """All cells of a study, in units."""
    builder = _Builder(spec, facts)
    for name in facts.backbones:
        builder.prompts(name)
    for name in facts.backbones:
        builder.zero_shot(name)
        builder.initialisation(name)
        builder.indicators(name)
    for entry in spec.projectors:
        builder.projector(entry)
    for name in facts.backbones:
        builder.figures(name)
    return Graph(tuple(builder.units))


@dataclass
class _Builder:
    """Collects units; a cell that is there already is not made twice."""

    spec: Spec
    facts: Facts
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

    # Prompts ---------------------------------------------------------------------------------------------------

    def prompts(self, name: str) -> None:
        """One prompt a task and seed, banked by seed."""
        side = self.facts.backbones[name]
        for seed in self.spec.seeds:
            cells = [
                self.prompt(side, task, seed, side.recipe, self.spec.initialiser)
                for task in side.tasks.values()
            ]
            for task, cell in zip(side.tasks, cells, strict=True):
                self.trained[name, task, seed] = cell
            # Texts of one length belong in one bank: others would only pad it.
            for budget in dict.fromkeys(task.budget for task in side.tasks.values()):
                alike = [cell for cell in cells if cell.settings["max_length"] == budget]
                for start in range(0, len(alike), self.spec.bank):
                    self.add(alike[start : start + self.spec.bank], _large(side))

    def prompt(
        self,
        side: BackboneFacts,
        task: TaskFacts,
        seed: int,
        recipe: Recipe,
        start: str,
        source: Cell | None = None,
    ) -> Cell:
        """The cell of one prompt."""
        settings = {
            **self.common(side, task),
            "rows": task.rows.learned,
            "limit_train": self.spec.limit_train,
            "recipe": recipe_settings(recipe),
            "seed": seed,
            "initialiser": "prompt" if source else start,
        }
        begun = f" from {source.label.removeprefix('prompt ')}" if source else ""
        return self.cell(
            "prompt",
            f"prompt {task.task.name} seed {seed} on {side.label}{begun}",
            settings,
            {"source": source.id} if source else {},
        )

    def common(self, side: BackboneFacts, task: TaskFacts) -> dict[str, Json]:
        """What every use of a task on a backbone depends on."""
        return {
            "backbone": self.backbone(side),
            "task": task.task.name,
            "kind": task.task.kind,
            "metric": task.task.metric,
            "words": [[label, word] for label, word in task.words.items()],
            "layout": side.layout,
            "max_length": task.budget,
            "aggregation": self.spec.aggregation,
        }

    def backbone(self, side: BackboneFacts) -> dict[str, Json]:
        """What names a backbone on every machine."""
        return {"name": side.label, "revision": side.revision, "precision": self.spec.precision}

    def cell(self, kind: str, label: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> Cell:
        """A cell with the version of its kind's code."""
        return Cell(kind, label, settings, inputs, VERSIONS[kind])

    # Scores ----------------------------------------------------------------------------------------------------

    def zero_shot(self, name: str) -> None:
        """Every source on every target (or each prompt on its own task alone), with the reference rows."""
        side = self.facts.backbones[name]
        for seed in self.spec.seeds:
            for target, facts in side.tasks.items():
                sources = list(side.tasks) if self.spec.transfers.zero_shot else [target]
                prompts = {source: self.trained[name, source, seed] for source in sources}
                cells = {source: self.score(side, facts, seed, prompt) for source, prompt in prompts.items()}
                for source, cell in cells.items():
                    self.scored[name, source, target, seed] = cell
                reference = self.reference(side, facts, seed, prompts)
                self.references[name, target, seed] = reference
                self.add([*cells.values(), reference], _large(side))

    def score(self, side: BackboneFacts, target: TaskFacts, seed: int, prompt: Cell) -> Cell:
        """A prompt on the test rows of a target."""
        return self.cell(
            "score",
            f"score on {target.task.name} of {prompt.label}",
            {**self.common(side, target), "rows": target.rows.tested, "limit_test": self.spec.limit_test},
            {"prompt": prompt.id},
        )

    def reference(
        self, side: BackboneFacts, target: TaskFacts, seed: int, prompts: Mapping[str, Cell]
    ) -> Cell:
        """No prompt, random prompts at the sources' norm, the majority answer; says of which type the task is."""
        settings = {
            **self.common(side, target),
            "rows": target.rows.tested,
            "limit_test": self.spec.limit_test,
        }
        return self.cell(
            "score",
            f"references of {target.task.name} seed {seed} on {side.label}",
            {**settings, "references": seed, "type": target.task.type},
            {f"prompt {source}": cell.id for source, cell in prompts.items()},
        )

    # Training from prompts -------------------------------------------------------------------------------------

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
        recipe = replace(side.recipe, **given.overrides())
        scratch = self.prompt(side, task, seed, recipe, scratch_start)
        runs = [self.prompt(side, task, seed, recipe, "prompt", start) for start in starts]
        self.add([scratch, *runs], _large(side))
        scores = [self.score(side, task, seed, run) for run in (scratch, *runs)]
        self.add(scores, _large(side))
        settings = {"metric": task.task.metric, "evaluate_every": recipe.evaluate_every}
        pairs = [
            self.cell(
                "tuned",
                f"speed-up of {run.label}",
                settings,
                {
                    "source": start.id,
                    "run": run.id,
                    "scratch": scratch.id,
                    "run score": own.id,
                    "scratch score": scores[0].id,
                },
            )
            for start, run, own in zip(starts, runs, scores[1:], strict=True)
        ]
        self.add(pairs)

    # Projectors ------------------------------------------------------------------------------------------------

    def projector(self, entry: ProjectorEntry) -> None:
        """One projector a seed, from the prompts of that seed, so that its spread over seeds is that of the whole way."""
        source, target = self.facts.backbones[entry.source], self.facts.backbones[entry.target]
        tasks = [*entry.fitting, *entry.unseen]
        for seed in self.spec.seeds:
            near = {task: self.trained[entry.source, task, seed] for task in tasks}
            far = {task: self.trained[entry.target, task, seed] for task in tasks}
            inputs = {f"source {task}": cell.id for task, cell in near.items()}
            inputs |= {f"target {task}": cell.id for task, cell in far.items()}
            settings = self.projector_settings(entry, source, target) | {"seed": seed}
            fitted = self.cell("projector", f"projector {entry.name} seed {seed}", settings, inputs)
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
        carried = {
            task: self.cell(
                "carried",
                f"{prompt.label} by {entry.method} on {'+'.join(entry.fitting)} to {entry.target}",
                {},
                {"projector": fitted.id, "prompt": prompt.id},
            )
            for task, prompt in prompts.items()
        }
        self.add(list(carried.values()))
        for task, cell in carried.items():
            self.tuned(entry.target, task, seed, [cell], tuned, self.spec.initialiser)

    def projector_settings(
        self, entry: ProjectorEntry, source: BackboneFacts, target: BackboneFacts
    ) -> dict[str, Json]:
        """Everything that a fit and its report depend on, beside the prompts."""
        start = entry.start or ("vocabulary" if entry.architecture == "linear" else "random")
        standardise = entry.standardise if entry.standardise is not None else start == "random"
        used = [target.tasks[name] for name in (*entry.fitting, *entry.unseen)]
        tasks: dict[str, Json] = {
            facts.task.name: {
                **self.common(target, facts),
                "type": facts.task.type,
                "rows": [facts.rows.learned, facts.rows.tested],
            }
            for facts in used
        }
        return {
            "source": self.backbone(source),
            "target": self.backbone(target),
            "method": entry.method,
            "architecture": {
                "name": entry.architecture,
                "hidden": entry.hidden,
                "rank": entry.rank,
                "activation": entry.activation,
                "standardise": standardise,
                "bias": entry.bias,
            },
            "start": start,
            "fit": {"distance": entry.distance, "steps": entry.steps, "lr": entry.lr, "noise": entry.noise},
            "fitting": [target.tasks[name].task.name for name in entry.fitting],
            "unseen": [target.tasks[name].task.name for name in entry.unseen],
            "tasks": tasks,
            "max_length": self.max_length(entry.target),
            "limit_train": self.spec.limit_train,
            "limit_test": self.spec.limit_test,
        }

    def max_length(self, name: str) -> int | None:
        """Text tokens that the file asks for on a backbone."""
        entry = next(entry for entry in self.spec.backbones if entry.name == name)
        return entry.max_length or self.spec.max_length

    # Looking ---------------------------------------------------------------------------------------------------

    def indicators(self, name: str) -> None:
        """Similarity of vectors and overlap of neurons, one table a measure and seed."""
        side, given = self.facts.backbones[name], self.spec.indicators
        if len(side.tasks) < 2:
            return
        for seed in self.spec.seeds:
            prompts = {task: self.trained[name, task, seed] for task in side.tasks}
            inputs = {task: cell.id for task, cell in prompts.items()}
            tables = [
                self.cell(
                    "indicator", f"{metric} seed {seed} on {side.label}", {"similarity": metric}, inputs
                )
                for metric in given.similarity
            ]
            self.add(tables)
            if given.neurons is not None:
                rule: dict[str, Json] = {"backbone": self.backbone(side), "rule": given.neurons.rule}
                states = {
                    task: self.cell("states", f"neurons of {cell.label}", rule, {"prompt": cell.id})
                    for task, cell in prompts.items()
                }
                self.add(list(states.values()), _large(side))
                inputs = {task: cell.id for task, cell in states.items()}
                window = given.neurons.window
                self.add(
                    [
                        self.cell(
                            "indicator",
                            f"{measure} seed {seed} on {side.label}",
                            {"overlap": measure, "window": window},
                            inputs,
                        )
                        for measure in given.neurons.measures
                    ]
                )

    def figures(self, name: str) -> None:
        """The heatmap of zero-shot transfer of one backbone."""
        if not (self.spec.report.heatmaps and self.spec.transfers.zero_shot):
            return
        side = self.facts.backbones[name]
        inputs = {
            f"{source} > {target} {seed}": cell.id
            for (n, source, target, seed), cell in self.scored.items()
            if n == name
        }
        inputs |= {
            f"references > {target} {seed}": cell.id
            for (n, target, seed), cell in self.references.items()
            if n == name
        }
        types: dict[str, Json] = {facts.task.name: facts.task.type for facts in side.tasks.values()}
        settings: dict[str, Json] = {"figure": "heatmap", "types": types, "backbone": side.label}
        self.add([self.cell("figure", f"heatmap of {side.label}", settings, inputs)])


def _large(side: BackboneFacts) -> bool:
    """Whether a unit of this backbone asks for a GPU of its own; the small ones run anywhere."""
    return side.width >= SMALL_WIDTH


def recipe_settings(recipe: Recipe) -> dict[str, Json]:
    """A recipe without the words on where its values are from."""
    return {name: value for name, value in recipe.as_dict().items() if name != "source"}


def kinds_of(graph: Graph) -> Iterator[tuple[str, list[Cell]]]:
    """Kind -> its cells, in the order of the first one."""
    kinds: dict[str, list[Cell]] = {}
    for cell in graph.cells.values():
        kinds.setdefault(cell.kind, []).append(cell)
    yield from kinds.items()


def plan_digest(graph: Graph) -> str:
    """16 digits that change with any cell of the plan."""
    return short_digest(" ".join(graph.cells))
