"""Methods: the ways to come to a projector, behind one interface.

    distance, task, distance+task      fitted on prompts or on the target's task loss (Su et al. 2022)
    vocabulary, vocabulary-mlp, combination, procrustes, anchors    from shared words alone, no label, no prompt

A method is a function from `Material` (what there is to fit on) to a module and its loss curve.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from projectors.anchors import AnchorSettings, anchors
from projectors.architectures import Architecture, Shape, build
from projectors.closed_form import (
    FEW_WORDS,
    SharedWords,
    combination,
    least_squares,
    procrustes,
    token_linear,
    vocabulary_mlp,
)
from projectors.fitting import (
    FitSettings,
    Lesson,
    Objective,
    Pair,
    distance_objective,
    fit,
    prepare,
    task_objective,
)
from tasks.errors import UserError, unknown

Report = Callable[[str, int, float], None]
"""Called with the phase of the fit, its step and its loss."""


@dataclass(frozen=True)
class Material:
    """What a projector can be fitted on; a method says clearly which part it misses."""

    shape: Shape
    pairs: Sequence[Pair] = ()
    lessons: Sequence[Lesson] = ()
    untrained: Tensor | None = None
    """[n, L_t, d_t] target prompts before training."""
    shared: SharedWords | None = None
    target_table: Tensor | None = None
    """[vocabulary, d_t] the target's whole embedding table."""


@dataclass(frozen=True)
class FitPlan:
    """How to fit: architecture, settings of the two phases, words a token for `combination`, and the search."""

    architecture: Architecture = field(default_factory=Architecture)
    distance: FitSettings = field(default_factory=FitSettings)
    task: FitSettings = field(default_factory=FitSettings)
    per_token: int = FEW_WORDS
    anchors: AnchorSettings = field(default_factory=AnchorSettings)
    start: str = "random"
    """What the weights are before the fit: `random`, or `vocabulary` for a per-token map that starts from words."""
    checkpoints: Path | None = None
    """Folder for the state of an unfinished fit."""
    report: Report | None = None

    @property
    def seed(self) -> int:
        return self.distance.seed


METHOD = "task"
NOISE = 0.5


def plan_for(
    architecture: Architecture | None = None,
    settings: FitSettings | None = None,
    *,
    start: str | None = None,
    **rest: Any,
) -> FitPlan:
    """A plan with what was measured to carry unseen tasks best for all that is not given.

    `linear` without a bias begins as the map that carries shared words and is tuned with noise on its inputs; other
    architectures begin at random, on standardised prompts. scripts/measure_projectors.py compares them.
    """
    shaped = architecture or Architecture("linear", bias=False)
    begin = start or ("vocabulary" if shaped.name == "linear" and not shaped.standardise else "random")
    fitting = settings or FitSettings(noise=NOISE)
    return FitPlan(shaped, distance=fitting, task=fitting, start=begin, **rest)


@dataclass(frozen=True)
class Fitted:
    """A fitted module, the architecture to rebuild it from, its settings for the record, and the loss at every step."""

    module: nn.Module
    architecture: Architecture
    settings: Mapping[str, Any]
    curve: tuple[float, ...] = ()


Method = Callable[[Material, FitPlan], Fitted]


def by_distance(material: Material, plan: FitPlan) -> Fitted:
    """min over W of distance(Projector(P_s), P_t)."""
    module = new_module(material, plan)
    objective = distance_objective(paired(material), plan.distance, material.untrained)
    curve = run(module, objective, material, plan, "distance")
    return Fitted(module, plan.architecture, {"distance": asdict(plan.distance)}, curve)


def by_task(material: Material, plan: FitPlan) -> Fitted:
    """The target's task loss through the frozen target model; pairs, if there are any, only set means and scales."""
    module = new_module(material, plan)
    objective = task_objective(taught(material), plan.task, material.untrained)
    curve = run(module, objective, material, plan, "task")
    return Fitted(module, plan.architecture, {"task": asdict(plan.task)}, curve)


def by_distance_then_task(material: Material, plan: FitPlan) -> Fitted:
    """`distance` as a warm start of `task`."""
    first = by_distance(material, plan)
    objective = task_objective(taught(material), plan.task, material.untrained)
    second = run(first.module, objective, material, plan, "task")
    settings = {**first.settings, "task": asdict(plan.task)}
    return Fitted(first.module, plan.architecture, settings, first.curve + second)


def by_vocabulary(material: Material, plan: FitPlan) -> Fitted:
    """Least squares on shared words."""
    words = shared(material)
    return Fitted(least_squares(words, material.shape), Architecture("linear", bias=False), said(words))


def by_vocabulary_mlp(material: Material, plan: FitPlan) -> Fitted:
    """A perceptron on shared words."""
    words = shared(material)
    module = vocabulary_mlp(words, material.shape, seed=plan.seed)
    hidden = 4 * material.shape.target_width
    return Fitted(module, Architecture("token-mlp", hidden=hidden, activation="relu"), said(words))


def by_combination(material: Material, plan: FitPlan) -> Fitted:
    """Each vector as a short combination of source words, said in target words."""
    words = shared(material)
    module = combination(words, material.shape, per_token=plan.per_token)
    return Fitted(
        module, Architecture("combination", rank=module.per_token, words=len(words.words)), said(words)
    )


def by_procrustes(material: Material, plan: FitPlan) -> Fitted:
    """The rotation, scale and shift that fit shared words best."""
    words = shared(material)
    return Fitted(procrustes(words, material.shape), Architecture("linear"), said(words))


def by_anchors(material: Material, plan: FitPlan) -> Fitted:
    """Relative representation over shared words, searched when applied."""
    words = shared(material)
    table = words.target if material.target_table is None else material.target_table
    settings = replace(plan.anchors, seed=plan.seed)
    module = anchors(words, material.shape, table, settings)
    return Fitted(module, Architecture("anchors", words=len(words.words)), asdict(settings))


METHODS: dict[str, Method] = {
    "distance": by_distance,
    "task": by_task,
    "distance+task": by_distance_then_task,
    "vocabulary": by_vocabulary,
    "vocabulary-mlp": by_vocabulary_mlp,
    "combination": by_combination,
    "procrustes": by_procrustes,
    "anchors": by_anchors,
}

LABEL_FREE = ("vocabulary", "vocabulary-mlp", "combination", "procrustes", "anchors")
"""Methods that need neither labels nor prompts, only words that both vocabularies hold."""


STARTS = ("random", "vocabulary")


def find_method(name: str) -> Method:
    """The method called `name`; a UserError if there is none."""
    if name not in METHODS:
        raise unknown("projector method", name, METHODS)
    return METHODS[name]


def check_start(plan: FitPlan) -> None:
    """Raise UserError where a plan's start is none, or not one for its architecture; needs no model and no prompt."""
    architecture = plan.architecture
    if plan.start not in STARTS:
        raise unknown("start", plan.start, STARTS)
    per_token = architecture.name in ("linear", "token-mlp") and not architecture.standardise
    if plan.start == "vocabulary" and not per_token:
        raise UserError(
            f"only a per-token map can start from shared words, given {architecture.name}"
            f"{' standardised' * architecture.standardise}: use linear or token-mlp without --standardise, or --start random"
        )


def new_module(material: Material, plan: FitPlan) -> nn.Module:
    """The architecture at its start: random with means and scales of the pairs, or the map that carries words."""
    check_start(plan)
    if plan.start == "vocabulary":
        return words_start(material, plan)
    module = build(plan.architecture, material.shape, seed=plan.seed)
    prepare(module, material.pairs)
    return module


def words_start(material: Material, plan: FitPlan) -> nn.Module:
    """The per-token map fitted on shared words, which the fit then goes on from."""
    architecture = plan.architecture
    if architecture.name == "linear":
        carried = least_squares(shared(material), material.shape)
        zero = torch.zeros(material.shape.target_width) if architecture.bias else None
        return token_linear(material.shape, carried.map.weight.detach().T, zero)
    return vocabulary_mlp(
        shared(material),
        material.shape,
        hidden=architecture.hidden,
        activation=architecture.activation,
        seed=plan.seed,
    )


def run(
    module: nn.Module, objective: Objective, material: Material, plan: FitPlan, phase: str
) -> tuple[float, ...]:
    """One phase of a fit, resumable where the plan keeps checkpoints."""
    settings = plan.distance if phase == "distance" else plan.task
    if plan.start == "vocabulary":
        settings = replace(settings, unit=unit_of(shared(material)))
    checkpoint = None
    if plan.checkpoints is not None:
        checkpoint = plan.checkpoints / f".fit-{phase}-{fingerprint(material, plan)}.safetensors"
    report = None
    if plan.report is not None:
        tell = plan.report

        def report(step: int, loss: float) -> None:
            tell(phase, step, loss)

    return tuple(fit(module, objective, settings, checkpoint=checkpoint, report=report).losses)


def unit_of(words: SharedWords) -> float:
    """The rms of the target's words over that of the source's, which is how much larger the map's weights are.

    A T5's embeddings are ten times as large as a RoBERTa's; steps of one size would move its map a tenth as far.
    """
    source, target = (float(table.square().mean().sqrt()) for table in (words.source, words.target))
    return target / max(source, 1e-12)


def fingerprint(material: Material, plan: FitPlan) -> str:
    """16 digits that change with anything that a fit depends on, so that no other fit's state is taken up."""
    sha = hashlib.sha256(
        repr((material.shape, plan.architecture, plan.start, plan.distance, plan.task)).encode()
    )
    for pair in material.pairs:
        sha.update(pair.source.numpy().tobytes() + pair.target.numpy().tobytes())
    for lesson in material.lessons:
        sha.update((lesson.task + lesson.origin).encode() + lesson.sources.numpy().tobytes())
    if material.shared is not None and plan.start == "vocabulary":
        sha.update(material.shared.source.numpy().tobytes() + material.shared.target.numpy().tobytes())
    return sha.hexdigest()[:16]


def paired(material: Material) -> Sequence[Pair]:
    """The pairs, or a UserError."""
    if not material.pairs:
        raise UserError(
            "fitting by distance needs prompts of the same tasks on both backbones: give --source-prompts and "
            "--target-prompts, or fit with --method task, which needs source prompts only"
        )
    return material.pairs


def taught(material: Material) -> Sequence[Lesson]:
    """The lessons, or a UserError."""
    if not material.lessons:
        raise UserError("task-tuning needs fitting tasks with rows: give --tasks")
    return material.lessons


def shared(material: Material) -> SharedWords:
    """The shared words, or a UserError."""
    if material.shared is None:
        raise UserError("a label-free projector needs the two vocabularies: load both backbones")
    return material.shared


def said(words: SharedWords) -> dict[str, Any]:
    """What the record says of the words used."""
    return {"shared_words": len(words.words)}
