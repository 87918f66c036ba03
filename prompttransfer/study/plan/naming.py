"""What names every cell of a study: its settings and its inputs, kind by kind.

A cell names in its settings all that changes its result, and nothing else: a prompt names the rows that it learns
from, not those that it is tested on; a score names those. So a changed setting changes exactly the ids of the cells
that depend on it. Which cells a study has is graph.py's business.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from analysis.prefixes import SIMILARITIES as PREFIXES
from prompttransfer.adaptations.starts import folders_of
from prompttransfer.backbones.kernels.token_batching import sorts_by_length
from prompttransfer.outputs import content_of_path
from prompttransfer.study.cell import Cell, Json
from prompttransfer.study.kinds.versions import VERSIONS
from prompttransfer.study.methods import BY_OPTIMIZER, FIXED, METHOD, PROMPT, TUNE, called
from prompttransfer.study.plan.lookup import BackboneFacts, TaskFacts
from prompttransfer.study.plan.spec import NeuronOptions, ProjectorEntry, Spec
from prompttransfer.training.grids import NOTHING, Brought
from prompttransfer.training.recipes import Recipe
from tasks.task import Task


def asked_of(task: Task) -> dict[str, Json]:
    """What a task asks for where that is not one of its labels by a word: numbers, or the classes of a head."""
    asked: dict[str, Json] = {}
    if task.scale is not None:
        asked["scale"] = [task.scale.low, task.scale.high]
    if task.head:
        asked["classes"] = list(task.labels)
    if task.separator:
        asked["several"] = True
    return asked


@dataclass(frozen=True)
class Naming:
    """Makes the cells of one study."""

    spec: Spec

    def cell(self, kind: str, label: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> Cell:
        """A cell with the version of its kind's code."""
        return Cell(kind, label, settings, inputs, VERSIONS[kind])

    def backbone(self, side: BackboneFacts) -> dict[str, Json]:
        """What names a backbone on every machine."""
        return {"name": side.label, "revision": side.revision, "precision": self.spec.precision}

    def common(self, side: BackboneFacts, task: TaskFacts) -> dict[str, Json]:
        """What every use of a task on a backbone depends on."""
        return {
            "backbone": self.backbone(side),
            "task": task.task.name,
            "kind": task.task.kind,
            "metric": task.task.metric,
            "words": [[label, word] for label, word in task.words.items()],
            "max_length": task.budget,
            **self.place(side),
            **asked_of(task.task),
        }

    def place(self, side: BackboneFacts) -> dict[str, Json]:
        """How text, prompt and answer stand on a backbone; a template only where the study gives one."""
        template: dict[str, Json] = {} if side.template is None else {"template": side.template}
        return {"layout": side.layout, "aggregation": self.spec.aggregation, **template}

    def tested(self, side: BackboneFacts, task: TaskFacts) -> dict[str, Json]:
        """What every score on the test rows of a task depends on."""
        return {**self.common(side, task), "rows": task.rows.tested, "limit_test": self.spec.limit_test}

    # Prompts and scores ----------------------------------------------------------------------------------------

    def prompt(
        self,
        side: BackboneFacts,
        task: TaskFacts,
        seed: int,
        recipe: Recipe,
        start: str,
        source: Cell | None = None,
        fixed: Collection[str] = (),
        brought: Brought = NOTHING,
    ) -> Cell:
        """A prompt, or a member of another method, from the initialiser `start` or from another one.

        `fixed` are axes of what it is tuned over that it leaves alone, `brought` what its optimizers bring.
        """
        method = side.method
        settings = {
            **self.common(side, task),
            "rows": task.rows.learned,
            "limit_train": self.spec.limit_train,
            "recipe": recipe_settings(recipe, method.length),
            "seed": seed,
            "initialiser": "prompt" if source else start,
        }
        if recipe.batch < task.rows.train and not sorts_by_length(task.rows.train, recipe.batch):
            settings["row_order"] = "shuffled"  # it was sorted by length once; other prompts keep their names
        if method.text != PROMPT:
            settings[METHOD] = method.text
        settings |= tuned_settings(method.tune, fixed, brought)
        if not source and (folders := folders_of(start)):
            settings["started_from"] = [content_of_path(folder) for folder in folders]
        begun = f" from {source.label.removeprefix(f'{method.label} ')}" if source else ""
        return self.cell(
            "prompt",
            f"{method.label} {task.task.name} seed {seed} on {side.label}{begun}",
            settings,
            {"source": source.id} if source else {},
        )

    def score(self, side: BackboneFacts, target: TaskFacts, prompt: Cell, calibrate: str = "none") -> Cell:
        """A prompt on the test rows of a target."""
        label = f"score on {target.task.name} of {prompt.label}"
        settings = self.tested(side, target)
        if calibrate != "none":
            settings |= {"calibrate": calibrate, "unlabelled": self.unlabelled(target)}
        return self.cell("score", label, settings, {"prompt": prompt.id})

    def unlabelled(self, target: TaskFacts) -> dict[str, Json]:
        """The training rows, of which some without their labels calibrate scores."""
        return {"learned": target.rows.learned, "limit_train": self.spec.limit_train}

    def learned(self, target: TaskFacts) -> dict[str, Json]:
        """Training rows with their labels, and the words that stand for those."""
        return {"words": [[label, word] for label, word in target.words.items()], **self.unlabelled(target)}

    def references(
        self, side: BackboneFacts, target: TaskFacts, seed: int, prompts: Mapping[str, Cell]
    ) -> Cell:
        """No prompt, random prompts at the sources' norm, the majority answer; says of which type the task is.

        No prompt is there with calibrated label words too, by training rows where nothing else is asked for.
        """
        settings = {**self.tested(side, target), "unlabelled": self.unlabelled(target)}
        if self.spec.transfers.calibrate != "none":
            settings |= {"calibrate": self.spec.transfers.calibrate}
        if self.spec.transfers.random_draws is not None:
            settings |= {"draws": self.spec.transfers.random_draws}
        if self.spec.transfers.in_context is not None and not target.task.head:  # no word answers for a head
            settings |= {"in_context": self.spec.transfers.in_context}
        return self.cell(
            "score",
            f"references of {target.task.name} seed {seed} on {side.called}",
            {**settings, "references": seed, "type": target.task.type},
            {f"prompt {source}": cell.id for source, cell in prompts.items()},
        )

    def speed_up(
        self,
        task: TaskFacts,
        recipe: Recipe,
        *,
        source: Cell,
        runs: tuple[Cell, Cell],
        scores: tuple[Cell, Cell],
    ) -> Cell:
        """A run from a prompt beside the one from scratch; `runs` and `scores` in this order."""
        run, scratch = runs
        settings = {"metric": task.task.metric, "evaluate_every": recipe.evaluate_every}
        inputs = {
            "source": source.id,
            "run": run.id,
            "scratch": scratch.id,
            "run score": scores[0].id,
            "scratch score": scores[1].id,
        }
        return self.cell("tuned", f"speed-up of {run.label}", settings, inputs)

    # Projectors ------------------------------------------------------------------------------------------------

    def projector(
        self,
        entry: ProjectorEntry,
        sides: tuple[BackboneFacts, BackboneFacts],
        seed: int,
        near: Mapping[str, Cell],
        far: Mapping[str, Cell],
    ) -> Cell:
        """A projector from the source's prompts (`near`, by task) to the target's (`far`), with its report."""
        inputs = {f"source {task}": cell.id for task, cell in near.items()}
        inputs |= {f"target {task}": cell.id for task, cell in far.items()}
        settings = {**self.projector_settings(entry, *sides), "seed": seed}
        return self.cell(
            "projector", f"{self.projector_label(entry, sides[0])} seed {seed}", settings, inputs
        )

    def projector_label(self, entry: ProjectorEntry, source: BackboneFacts) -> str:
        """What a projector is called, without its seed."""
        return called(f"projector {entry.name}", source.method.label)

    def projector_settings(
        self, entry: ProjectorEntry, source: BackboneFacts, target: BackboneFacts
    ) -> dict[str, Json]:
        """Everything that a fit and its report depend on, beside the prompts and the seed."""
        start = entry.start or ("vocabulary" if entry.architecture == "linear" else "random")
        used = [target.tasks[name] for name in (*entry.fitting, *entry.unseen)]
        return {
            "source": self.backbone(source),
            "target": self.backbone(target),
            "method": entry.method,
            "architecture": {
                "name": entry.architecture,
                "hidden": entry.hidden,
                "rank": entry.rank,
                "activation": entry.activation,
                "standardise": entry.standardise if entry.standardise is not None else start == "random",
                "bias": entry.bias,
            },
            "start": start,
            "fit": {"distance": entry.distance, "steps": entry.steps, "lr": entry.lr, "noise": entry.noise},
            "fitting": [target.tasks[name].task.name for name in entry.fitting],
            "unseen": [target.tasks[name].task.name for name in entry.unseen],
            "tasks": {facts.task.name: self.projected(target, facts) for facts in used},
            "max_length": self.max_length(entry.target),
            "limit_train": self.spec.limit_train,
            "limit_test": self.spec.limit_test,
        }

    def projected(self, target: BackboneFacts, task: TaskFacts) -> dict[str, Json]:
        """What a projector depends on of one task."""
        rows: list[Json] = [task.rows.learned, task.rows.tested]
        return {**self.common(target, task), "type": task.task.type, "rows": rows}

    def max_length(self, name: str) -> int | None:
        """Text tokens that the file asks for on a backbone."""
        entry = next(entry for entry in self.spec.backbones if entry.name == name)
        return entry.max_length or self.spec.max_length

    def carried(self, entry: ProjectorEntry, fitted: Cell, prompt: Cell) -> Cell:
        """A prompt through a projector."""
        label = f"{prompt.label} by {entry.method} on {'+'.join(entry.fitting)} to {entry.target}"
        return self.cell("carried", label, {}, {"projector": fitted.id, "prompt": prompt.id})

    # Looking ---------------------------------------------------------------------------------------------------

    def similarity(self, side: BackboneFacts, seed: int, metric: str, prompts: Mapping[str, Cell]) -> Cell:
        """Similarity of the prompts of one seed, task by task; that of prefixes needs the backbone's attentions."""
        inputs = {task: cell.id for task, cell in prompts.items()}
        settings: dict[str, Json] = {"similarity": metric}
        if metric in PREFIXES:
            settings["backbone"] = self.backbone(side)
        return self.cell("indicator", f"{metric} seed {seed} on {side.called}", settings, inputs)

    def estimate(
        self, side: BackboneFacts, seed: int, measure: str, rows: int, prompts: Mapping[str, Cell]
    ) -> Cell:
        """What labelled training rows of every task say of what was trained with one seed."""
        inputs = {task: cell.id for task, cell in prompts.items()}
        settings: dict[str, Json] = {
            "estimate": measure,
            "backbone": self.backbone(side),
            "targets": {facts.task.name: self.learned(facts) for facts in side.tasks.values()},
            "limit": rows,
            "max_length": self.max_length(side.label),
            **self.place(side),
        }
        return self.cell("indicator", f"{measure} seed {seed} on {side.called}", settings, inputs)

    def states(self, side: BackboneFacts, options: NeuronOptions, prompt: Cell) -> Cell:
        """The neurons that a prompt activates."""
        rule = {"backbone": self.backbone(side), "rule": options.rule}
        return self.cell("states", f"neurons of {prompt.label}", rule, {"prompt": prompt.id})

    def overlap(
        self,
        side: BackboneFacts,
        seed: int,
        measure: str,
        options: NeuronOptions,
        states: Mapping[str, Cell],
    ) -> Cell:
        """Overlap of the neurons of one seed's prompts, task by task."""
        settings = {"overlap": measure, "window": options.window}
        inputs = {task: cell.id for task, cell in states.items()}
        return self.cell("indicator", f"{measure} seed {seed} on {side.called}", settings, inputs)

    def heatmap(self, side: BackboneFacts, inputs: Mapping[str, Mapping[str, str]]) -> Cell:
        """The figure of zero-shot transfer on one backbone: role -> id of a score, by method."""
        types = {facts.task.name: facts.task.type for facts in side.tasks.values()}
        settings: dict[str, Json] = {"figure": "heatmap", "types": dict(types), "backbone": side.label}
        only, *others = inputs
        if others or only != PROMPT:
            settings["methods"] = [*inputs]
        roles = {
            f"{label}: {role}" if "methods" in settings else role: cell
            for label, scores in inputs.items()
            for role, cell in scores.items()
        }
        return self.cell("figure", f"heatmap of {side.label}", settings, roles)


def tuned_settings(
    tune: Mapping[str, Any], fixed: Collection[str] = (), brought: Brought = NOTHING
) -> dict[str, Json]:
    """What a cell says of what it tries; nothing where it tries nothing."""
    left = sorted(set(fixed) & set(tune))
    own: dict[str, Json] = {name: dict(values) for name, values in brought.items()}
    said: dict[str, Json] = {TUNE: dict(tune), FIXED: list(left), BY_OPTIMIZER: own}
    return {name: value for name, value in said.items() if value}


def recipe_settings(recipe: Recipe, length: int) -> dict[str, Json]:
    """A recipe without the words on where its values are from, and without a length where a method has none."""
    left_out = {"source"} if length else {"source", "length"}
    return {name: value for name, value in recipe.as_dict().items() if name not in left_out}
