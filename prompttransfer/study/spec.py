"""The study file: what is to be run, in one YAML mapping that is checked as a whole.

    study: my-study                     # a name; the folder of results is runs/<name> unless told
    backbones: [roberta-base]           # or {name: roberta-base, tasks: [...], recipe: {...}, layout: su2022};
                                        # recipe: {lr: 5e-3, per-task: {laptop: {lr: 1e-2}}} for single tasks
    tasks: [sst2, imdb, mnli]           # names, or YAML files of own tasks
    seeds: [0, 1, 2]
    recipe: {steps: 300}                # as the options of `train`; a backbone's own recipe goes before it
    transfers:
      zero-shot: true
      calibrate: train-mean             # a second matrix of calibrated scores; or content-free
      initialisation: {sources: same-type, steps: 100}
    projectors:
      - {source: roberta-base, target: roberta-large, method: task, fitting: [sst2, mnli], initialisation: true}
    indicators: {similarity: [C_average], neurons: [ON]}
    report: {title: My study}

Every mistake of a file is reported with its line, together with all others. Checks against catalogues and other parts
of the file are in checks.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from prompttransfer.study.document import Document, Mistake, Path_, parse_document, read_document
from tasks.errors import unknown

PRECISIONS = ("fp32", "bf16")
"""A study names its precision: `auto` would give other numbers on another machine."""

SOURCES = ("all", "same-type")


def _hyphens(name: str) -> str:
    return name.replace("_", "-")


class Part(BaseModel):
    """A part of the file: no unknown keys, no silent conversions, keys with hyphens."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=_hyphens)


class RecipeOptions(Part):
    """The options of `train` that make a recipe; what is not given comes from the backbone's recipe (recipes.py)."""

    optimizer: str | None = None
    lr: float | None = Field(default=None, gt=0, strict=False)
    weight_decay: float | None = Field(default=None, ge=0, strict=False)
    steps: int | None = Field(default=None, ge=1)
    batch: int | None = Field(default=None, ge=1)
    length: int | None = Field(default=None, ge=1)
    evaluate_every: int | None = Field(default=None, ge=1)
    patience: int | None = Field(default=None, ge=0)

    def overrides(self) -> dict[str, Any]:
        """What was given, under the names of `Recipe`."""
        return {
            name: value for name in RecipeOptions.model_fields if (value := getattr(self, name)) is not None
        }


class TaskRecipe(RecipeOptions):
    """What one task is trained with on a backbone, before the backbone's own options."""

    length: Literal[None] = None


class BackboneRecipe(RecipeOptions):
    """The options of one backbone, and of single tasks on it."""

    per_task: dict[str, TaskRecipe] = Field(default_factory=dict)


class BackboneEntry(Part):
    """One backbone with what is its own."""

    name: str
    revision: str | None = None
    """Commit, branch or tag of a hub model; what a folder must be at."""
    tasks: list[str] | None = None
    recipe: BackboneRecipe = BackboneRecipe()
    layout: str | None = None
    max_length: int | None = Field(default=None, ge=1)
    label_words: dict[str, str] = Field(default_factory=dict)


class Initialisation(RecipeOptions):
    """Transfer as initialisation (TPT_task): which sources each target is trained from, and with what recipe."""

    length: Literal[None] = None
    sources: str | dict[str, list[str]] = "all"
    scratch: str = "random"


class Transfers(Part):
    """What the trained prompts are used for."""

    zero_shot: bool = True
    calibrate: Literal["none", "content-free", "train-mean"] = "none"
    """A second matrix of scores with the bias of the label words taken off (calibration.py)."""
    initialisation: Initialisation | None = None


class ProjectorTuning(RecipeOptions):
    """Training from the projected prompts (TPT_model)."""

    length: Literal[None] = None
    tasks: list[str] | None = None


class ProjectorEntry(Part):
    """One projector; the options of `project fit`."""

    source: str
    target: str
    method: str = "task"
    fitting: list[str] = Field(min_length=1)
    unseen: list[str] = Field(default_factory=list)
    architecture: str = "linear"
    hidden: int = Field(default=768, ge=1)
    rank: int = Field(default=64, ge=1)
    activation: str = "leaky-relu"
    standardise: bool | None = None
    bias: bool = False
    start: str | None = None
    distance: str = "squared-l2"
    steps: int = Field(default=300, ge=1)
    lr: float = Field(default=1e-3, gt=0, strict=False)
    noise: float = Field(default=0.5, ge=0, strict=False)
    initialisation: ProjectorTuning | None = None
    """Train the target's prompts from the projected ones."""

    @property
    def name(self) -> str:
        """Short, for people: what it joins and how."""
        return f"{self.source} to {self.target}, {self.method} on {'+'.join(self.fitting)}"


class NeuronOptions(Part):
    """Overlap of activated neurons."""

    measures: list[str] = Field(default_factory=lambda: ["ON"], min_length=1)
    window: int | None = Field(default=None, ge=1)
    rule: str = "positive"


class Indicators(Part):
    """What is to be compared with transfer."""

    similarity: list[str] = Field(default_factory=list)
    neurons: NeuronOptions | None = None


class ReportOptions(Part):
    """What is drawn and written at the end."""

    title: str = ""
    heatmaps: bool = True


class Spec(Part):
    """A whole study."""

    study: str
    about: str = ""
    backbones: list[BackboneEntry] = Field(min_length=1)
    tasks: list[str] = Field(min_length=1)
    seeds: list[int] = Field(default_factory=lambda: [0], min_length=1)
    recipe: RecipeOptions = RecipeOptions()
    initialiser: str = "random"
    layout: str = "prompt-first"
    precision: str = "fp32"
    aggregation: str | None = None
    data: str | None = None
    max_length: int | None = Field(default=None, ge=1)
    limit_train: int | None = Field(default=None, ge=1)
    limit_test: int | None = Field(default=None, ge=1)
    bank: int = Field(default=8, ge=1)
    """Most prompts that are trained together in one bank."""
    transfers: Transfers = Transfers()
    projectors: list[ProjectorEntry] = Field(default_factory=list)
    indicators: Indicators = Indicators()
    report: ReportOptions = ReportOptions()

    @field_validator("study")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}", name) or ".." in name:
            raise ValueError(f"{name!r} cannot be a folder name: use letters, digits, '-', '_' and '.'")
        return name

    def tasks_of(self, backbone: BackboneEntry) -> list[str]:
        """The tasks that a backbone is to learn, in order."""
        return backbone.tasks if backbone.tasks is not None else self.tasks

    def recipe_of(self, backbone: BackboneEntry, task: str | None = None) -> dict[str, Any]:
        """The study's recipe options with the backbone's own before them, and before those the task's on it."""
        own = backbone.recipe.per_task.get(task, TaskRecipe()) if task is not None else TaskRecipe()
        return self.recipe.overrides() | backbone.recipe.overrides() | own.overrides()


@dataclass(frozen=True)
class StudyFile:
    """A checked study with the document that it was read from, for the lines of later mistakes."""

    spec: Spec
    document: Document
    folder: Path
    """Relative names of data folders and task files are beside the file."""


def read_study(path: Path) -> StudyFile:
    """Read and check a study file; one UserError with all its mistakes, none of which needs a backbone to be found."""
    return check_study(read_document(path), path.resolve().parent)


def parse_study(text: str, name: str = "study.yaml", folder: Path | None = None) -> StudyFile:
    """The same from text."""
    return check_study(parse_document(text, name), folder or Path.cwd())


def check_study(document: Document, folder: Path) -> StudyFile:
    """Build the spec, collecting mistakes of form first and of content on all parts whose form is right."""
    from prompttransfer.study.checks import content_mistakes

    values = normalised(document.values)
    mistakes = document.repeated()
    spec, found = _build(document, values)
    mistakes += found
    if spec is not None:
        mistakes += content_mistakes(spec, document, folder)
    document.raise_all(mistakes)
    assert spec is not None
    return StudyFile(spec, document, folder)


def normalised(values: dict[str, Any]) -> dict[str, Any]:
    """The file's short forms written out: a backbone's name, lists of measures, one name for a list, `true`."""
    made = dict(values)
    if isinstance(made.get("backbones"), str):
        made["backbones"] = [made["backbones"]]
    if isinstance(made.get("backbones"), list):
        made["backbones"] = [{"name": item} if isinstance(item, str) else item for item in made["backbones"]]
    made["transfers"] = _with(made.get("transfers", {}), "initialisation", _switch)
    made["indicators"] = _with(made.get("indicators", {}), "neurons", _measures)
    if isinstance(made.get("projectors"), list):
        made["projectors"] = [_with(item, "initialisation", _switch) for item in made["projectors"]]
    sources = made["transfers"].get("initialisation") if isinstance(made["transfers"], dict) else None
    if isinstance(sources, dict) and isinstance(sources.get("sources"), dict):
        each = {target: [one] if isinstance(one, str) else one for target, one in sources["sources"].items()}
        made["transfers"] = {**made["transfers"], "initialisation": {**sources, "sources": each}}
    return made


def _with(part: Any, key: str, change: Any) -> Any:
    return {**part, key: change(part[key])} if isinstance(part, dict) and key in part else part


def _switch(value: Any) -> Any:
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


def _measures(value: Any) -> Any:
    return {"measures": value} if isinstance(value, list) else _switch(value)


# Mistakes of form ------------------------------------------------------------------------------------------------


def _build(document: Document, values: dict[str, Any]) -> tuple[Spec | None, list[Mistake]]:
    """The spec, and what is wrong; parts that are wrong are left out so that the rest can be checked further."""
    try:
        return Spec.model_validate(values), []
    except ValidationError as error:
        errors = error.errors()
    mistakes = list(dict.fromkeys(_explain(document, item) for item in errors))
    pruned = values
    for _ in range(5):
        for item in sorted(errors, key=lambda item: len(item["loc"]), reverse=True):
            pruned = _without(pruned, item["loc"])
        pruned = _filled(pruned)
        try:
            return Spec.model_validate(pruned), mistakes
        except ValidationError as error:
            errors = error.errors()
    return None, mistakes


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    """Stand-ins for what every study needs, so that the rest can be checked."""
    stand_in = {
        "study": "unnamed",
        "backbones": [{"name": "microworld-roberta"}],
        "tasks": ["microworld-imdb"],
    }
    return {**values, **{key: stand_in[key] for key in stand_in if not values.get(key)}}


def _without(value: Any, loc: Sequence[Any]) -> Any:
    """The value without what `loc` leads to; an item of a list goes with anything wrong that it cannot lose."""
    if not loc:
        return value
    step, rest = loc[0], loc[1:]
    if isinstance(value, dict) and step in value:
        if not rest:
            return {key: item for key, item in value.items() if key != step}
        return {**value, step: _without(value[step], rest)}
    if isinstance(value, dict) and rest:
        return _without(value, rest)  # a branch of a union, which is no place in the file
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        changed = _without(value[step], rest) if rest else None
        if changed is None or changed == value[step]:
            return [item for index, item in enumerate(value) if index != step]
        return [*value[:step], changed, *value[step + 1 :]]
    return value


PARTS: dict[tuple[str, ...], type[Part]] = {
    (): Spec,
    ("recipe",): RecipeOptions,
    ("backbones", "*"): BackboneEntry,
    ("backbones", "*", "recipe"): BackboneRecipe,
    ("backbones", "*", "recipe", "per-task", "*"): TaskRecipe,
    ("transfers",): Transfers,
    ("transfers", "initialisation"): Initialisation,
    ("projectors", "*"): ProjectorEntry,
    ("projectors", "*", "initialisation"): ProjectorTuning,
    ("indicators",): Indicators,
    ("indicators", "neurons"): NeuronOptions,
    ("report",): ReportOptions,
}
"""Place in the file -> what may stand there."""


def keys_at(path: Path_) -> list[str]:
    """The keys that are known at a place."""
    named = {index + 1 for index, step in enumerate(path) if step == "per-task"}
    part = PARTS.get(
        tuple("*" if isinstance(step, int) or index in named else step for index, step in enumerate(path))
    )
    return [_hyphens(name) for name in part.model_fields] if part else []


def _explain(document: Document, item: Any) -> Mistake:
    """One of pydantic's errors as a line of ours."""
    path: Path_ = tuple(step for step in item["loc"] if not _is_branch(step))
    line, key = document.line(path), str(path[-1]) if path else "the file"
    kind = item["type"]
    if kind == "extra_forbidden":
        known = keys_at(path[:-1])
        hyphened = key.replace("_", "-")
        if hyphened in known:
            return Mistake(line, f"unknown key {key!r}: did you mean {hyphened!r}?")
        return Mistake(line, str(unknown("key", key, known)))
    if kind == "missing":
        return Mistake(
            document.line(path[:-1]),
            f"no {key!r} here: it is needed ({EXAMPLES.get(key, 'see `study plan --help`')})",
        )
    if kind == "value_error":
        return Mistake(line, f"{key}: {item['ctx']['error']}")
    said = item["msg"][0].lower() + item["msg"][1:]
    if path[-1:] == ("length",) and "per-task" in path:
        return Mistake(line, "length cannot be given here: all prompts of a backbone have one length")
    if path[-1:] == ("length",) and "initialisation" in path:
        return Mistake(line, "length cannot be given here: a run from a prompt has that prompt's length")
    place = ".".join(str(step) for step in path)
    return Mistake(line, f"{place} is {item['input']!r}: {said}")


EXAMPLES = {
    "study": "as in study: my-study",
    "backbones": "as in backbones: [microworld-roberta]",
    "tasks": "as in tasks: [microworld-imdb, microworld-mnli]",
    "name": "as in name: roberta-base",
    "fitting": "as in fitting: [sst2, mnli]",
    "source": "a backbone of this study",
    "target": "a backbone of this study",
}


def _is_branch(step: Any) -> bool:
    """Names of union branches in pydantic's places: `str`, `dict[str,list[str]]`."""
    return isinstance(step, str) and (step in ("str", "int") or step.startswith(("dict[", "list[")))


def listed(values: Iterable[str]) -> str:
    """`a, b, c` for messages."""
    return ", ".join(values)
