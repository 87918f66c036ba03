"""The study file: what is to be run, in one YAML mapping that is checked as a whole.

    study: my-study                     # a name; the folder of results is runs/<name> unless told
    backbones: [roberta-base]           # or {name: roberta-base, tasks: [...], recipe: {...}, layout: su2022};
                                        # recipe: {lr: 5e-3, per-task: {laptop: {lr: 1e-2}}} for single tasks
    tasks: [sst2, imdb, mnli]           # names, or YAML files of own tasks
    methods: [prompt, {name: lora, rank: 8, recipe: {lr: 1e-3}}]    # soft prompts alone if not given; or lora:rank=8;
                                        # {name: prompt, tune: {lr: [...], length: [5, 20]}}: the best by validation rows
    seeds: [0, 1, 2]
    shots: [16, 64]                     # few labelled rows, drawn by the seed: systems side by side (few_rows.py)
    library: {tasks: [rte, snli]}       # sources that such systems may use
    recipe: {steps: 300}                # as the options of `train`; a backbone's own recipe goes before it, a method's
                                        # own before both
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
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from prompttransfer.study.methods import HALVING

if TYPE_CHECKING:
    from prompttransfer.adaptations.method import Method

PRECISIONS = ("fp32", "bf16")
"""A study names its precision: `auto` would give other numbers on another machine."""

SOURCES = ("all", "same-type")


def _hyphens(name: str) -> str:
    return name.replace("_", "-")


class Part(BaseModel):
    """A part of the file: no unknown keys, no silent conversions, keys with hyphens."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=_hyphens)


class RecipeOptions(Part):
    """The options of `train` that make a recipe; what is not given comes from the backbone's recipe (training/recipes.py)."""

    optimizer: str | None = None
    lr: float | None = Field(default=None, gt=0, strict=False)
    weight_decay: float | None = Field(default=None, ge=0, strict=False)
    steps: int | None = Field(default=None, ge=1)
    batch: int | None = Field(default=None, ge=1)
    length: int | None = Field(default=None, ge=1)
    evaluate_every: int | None = Field(default=None, ge=1)
    patience: int | None = Field(default=None, ge=0)
    schedule: Literal["constant", "linear"] | None = None
    warm_up: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _check_warm_up(self) -> RecipeOptions:
        from prompttransfer.training.recipes import check_warm_up

        check_warm_up(self.warm_up, self.steps)
        return self

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


class MethodRecipe(RecipeOptions):
    """What one method is trained with, before all other options."""

    length: Literal[None] = None


class Tune(Part):
    """Settings that a run tries before the best by validation rows is kept; the steps of all of them count.

    Beside rates the axes of a sweep (training/sweep.py): values of the recipe, and settings of the method.
    """

    model_config = ConfigDict(extra="allow")

    lr: list[float] | None = Field(default=None, min_length=2)
    halving: bool = False
    """Whether the worse half is stopped behind a quarter and behind half of the steps."""

    @property
    def grid(self) -> dict[str, list[Any]]:
        """Axis -> values."""
        rates = {} if self.lr is None else {"lr": self.lr}
        return {**rates, **{_hyphens(axis): values for axis, values in (self.model_extra or {}).items()}}

    @property
    def settings(self) -> dict[str, Any]:
        """What a cell that tries them says."""
        return {**self.grid, **({HALVING: True} if self.halving else {})}

    @model_validator(mode="after")
    def _check_axes(self) -> Tune:
        for axis, values in (self.model_extra or {}).items():
            if "_" in axis and _hyphens(axis) in (self.model_extra or {}):
                raise ValueError(f"{axis} and {_hyphens(axis)} are one axis: keep one")
            if not isinstance(values, list) or len(values) < 2:
                raise ValueError(f"{axis} is {values!r}: give a list of two values or more, as in [5, 20]")
            if any(value in values[:place] for place, value in enumerate(values)):
                raise ValueError(f"a value of {axis} is given twice: keep one")
        if not self.grid:
            raise ValueError("nothing to try: give the values of an axis, as in {lr: [0.01, 0.1]}")
        return self

    @field_validator("lr", mode="before")
    @classmethod
    def _check_rates(cls, rates: object) -> object:
        if isinstance(rates, list):
            wrong = [rate for rate in rates if isinstance(rate, bool) or not isinstance(rate, (int, float))]
            wrong = wrong or [rate for rate in rates if not 0 < rate < 1e30]
            if wrong:
                raise ValueError(f"{wrong[0]!r} is no rate: a number above 0, such as 0.03")
            if len(set(rates)) < len(rates):
                raise ValueError("a rate is given twice: keep one")
            return [float(rate) for rate in rates]
        return rates


class Distil(Part):
    """A student that starts from scratch, with a run from the library on the same rows as its teacher (PANDA)."""

    start: str = "retrieve:top=1,by=C_average"
    """What the teacher starts from."""
    weight: float | None = Field(default=None, ge=0, lt=1e6, strict=False)
    """Of the distance to the teacher; a tenth of the similarity of target and source where none is given."""


class Teachers(Part):
    """The library's prompts teach its tasks while these are trained together (MPT)."""

    weight: float = Field(default=0.9, ge=0, lt=1e6, strict=False)
    """Of the distance to a teacher beside the cross entropy."""
    on: Literal["logits", "states", "both"] = "both"


class MethodEntry(Part):
    """One tuning method; beside these keys its own settings, which `METHODS` (adaptations/methods) knows."""

    model_config = ConfigDict(extra="allow")

    name: str
    recipe: MethodRecipe = MethodRecipe()
    initialiser: str | None = None
    """What its members start from where that is not what the study says."""
    label: str = ""
    """What it is called in tables and figures, where its text is not what it should be called by."""
    start: str | None = None
    """What it takes from the library (study/library_starts.py)."""
    tune: Tune | None = None
    distil: Distil | None = None
    teachers: Teachers | None = None
    """What teaches the library's tasks where these are trained together (`start: shared`)."""

    @property
    def given(self) -> dict[str, Any]:
        """Its own settings, as they stand in the file."""
        return dict(self.model_extra or {})

    @property
    def text(self) -> str:
        """It as `--method` takes it."""
        from prompttransfer.adaptations.method import spelled

        parts = (
            f"{key}={spelled(tuple(value) if isinstance(value, list) else value)}"
            for key, value in self.given.items()
        )
        return f"{self.name}:{','.join(parts)}"

    def method(self, length: int) -> Method:
        """The method itself; `length` counts where it has one and gives none. Raises UserError for wrong settings."""
        from prompttransfer.adaptations.methods import make_method

        return make_method(self.name, self.given, length=length)


PROMPT_ALONE = MethodEntry(name="prompt")


class Library(Part):
    """Source tasks whose prompts are trained first, on all their rows (or `limit-train` of them), one a seed."""

    tasks: list[str] = Field(min_length=1)
    recipe: MethodRecipe = MethodRecipe()


class BackboneEntry(Part):
    """One backbone with what is its own."""

    name: str
    revision: str | None = None
    """Commit, branch or tag of a hub model; what a folder must be at."""
    tasks: list[str] | None = None
    recipe: BackboneRecipe = BackboneRecipe()
    layout: str | None = None
    template: str | None = None
    """What a decoder reads in place of each task's own template."""
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
    """A second matrix of scores with the bias of the label words taken off (evaluation/calibration.py)."""
    random_draws: int | None = Field(default=None, ge=2)
    """Random adaptations for each method that the row of the matrix is the mean of; 12 or more if not given."""
    in_context: int | None = Field(default=None, ge=1)
    """Labelled rows of the target in front of each of its rows, as one more row of the matrix; a draw a seed."""
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


class EstimateOptions(Part):
    """Indicators from labelled training rows of every task."""

    measures: list[str] = Field(default_factory=lambda: ["LogME"], min_length=1)
    rows: int = Field(default=32, ge=1)
    """Most rows a task."""


class Indicators(Part):
    """What is to be compared with transfer."""

    similarity: list[str] = Field(default_factory=list)
    neurons: NeuronOptions | None = None
    estimates: EstimateOptions | None = None


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
    methods: list[MethodEntry] = Field(default_factory=lambda: [PROMPT_ALONE], min_length=1)
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
    shots: list[int] = Field(default_factory=list)
    """Numbers of labelled rows that each target is learned from, those of a smaller number among those of a larger."""
    library: Library | None = None
    bank: int = Field(default=8, ge=1)
    """Most members of a method that are trained together in one bank."""
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

    @field_validator("shots")
    @classmethod
    def _check_shots(cls, shots: list[int]) -> list[int]:
        if any(count < 1 for count in shots):
            raise ValueError(f"{min(shots)} rows: at least 1 is needed")
        if len(set(shots)) < len(shots):
            raise ValueError("a number of rows is given twice: keep one")
        return shots

    @property
    def library_entry(self) -> MethodEntry:
        """How the library's prompts are trained."""
        return MethodEntry(name="prompt", recipe=self.library.recipe if self.library else MethodRecipe())

    def tasks_of(self, backbone: BackboneEntry) -> list[str]:
        """The tasks that a backbone is to learn, in order."""
        return backbone.tasks if backbone.tasks is not None else self.tasks

    def recipe_of(
        self, backbone: BackboneEntry, task: str | None = None, method: MethodEntry = PROMPT_ALONE
    ) -> dict[str, Any]:
        """The study's recipe options; before them go the backbone's, the task's on it, and first the method's own."""
        own = backbone.recipe.per_task.get(task, TaskRecipe()) if task is not None else TaskRecipe()
        parts = (self.recipe, backbone.recipe, own, method.recipe)
        return {name: value for part in parts for name, value in part.overrides().items()}

    def start_of(self, method: MethodEntry) -> str:
        """What members of a method start from."""
        return method.initialiser or self.initialiser


# Mistakes of form ------------------------------------------------------------------------------------------------


PARTS: dict[tuple[str, ...], type[Part]] = {
    (): Spec,
    ("recipe",): RecipeOptions,
    ("backbones", "*"): BackboneEntry,
    ("backbones", "*", "recipe"): BackboneRecipe,
    ("backbones", "*", "recipe", "per-task", "*"): TaskRecipe,
    ("methods", "*", "recipe"): MethodRecipe,
    ("methods", "*", "tune"): Tune,
    ("methods", "*", "distil"): Distil,
    ("methods", "*", "teachers"): Teachers,
    ("library",): Library,
    ("library", "recipe"): MethodRecipe,
    ("transfers",): Transfers,
    ("transfers", "initialisation"): Initialisation,
    ("projectors", "*"): ProjectorEntry,
    ("projectors", "*", "initialisation"): ProjectorTuning,
    ("indicators",): Indicators,
    ("indicators", "neurons"): NeuronOptions,
    ("indicators", "estimates"): EstimateOptions,
    ("report",): ReportOptions,
}
"""Place in the file -> what may stand there."""


EXAMPLES = {
    "study": "as in study: my-study",
    "backbones": "as in backbones: [microworld-roberta]",
    "tasks": "as in tasks: [microworld-imdb, microworld-mnli]",
    "name": "as in name: roberta-base",
    "method": "as in {name: lora, rank: 8}",
    "fitting": "as in fitting: [sst2, mnli]",
    "source": "a backbone of this study",
    "target": "a backbone of this study",
}


def listed(values: Iterable[str]) -> str:
    """`a, b, c` for messages."""
    return ", ".join(values)
