"""Indicators of transferability: what may tell, before any transfer, which adaptation will do well on which task.

One dict: an indicator is a function from a group of adaptations to a square table, rows sources, columns targets, more
is better. They differ in what they cost: the vectors alone (analysis/similarity.py), the names of the types (the flag
that every other has to beat), one pass of the model over each (overlap of neurons), or labelled rows of every target
(few-shot, the expensive one). Those of vectors are for soft prompts, those of B A (analysis/low_rank.py) for LoRA and its
kin; `missing` says so of any others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor

from analysis import low_rank
from analysis import similarity as vectors
from analysis.low_rank import LowRank
from analysis.matrices import same_type
from analysis.neurons import OVERLAPS, overlap
from analysis.prediction import BASELINE
from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.running import called, common_encoding, stacked
from prompttransfer.backbones.base import Backbone
from prompttransfer.evaluation.grouped import evaluate_all
from prompttransfer.neurons.capture import capture
from prompttransfer.transfers.zero_shot import Target
from tasks.errors import UserError, unknown

FEW_SHOT = "few-shot"


@dataclass(frozen=True)
class Compared:
    """Prompts of one backbone, and ways to what some indicators ask for beside the vectors; nothing is loaded unasked."""

    prompts: tuple[Adaptation, ...]
    types: Mapping[str, str] = field(default_factory=dict)
    """Task -> type."""
    backbone: Callable[[], Backbone] | None = None
    rows: Callable[[Sequence[str]], Sequence[Target]] | None = None
    """Names of tasks -> the tasks with a few labelled training rows each."""

    @property
    def names(self) -> list[str]:
        """The prompts' names, which label both sides of a table."""
        return [prompt.name for prompt in self.prompts]

    def model(self, indicator: str) -> Backbone:
        """The backbone, or a UserError that names the indicator that needs it."""
        if self.backbone is None:
            raise UserError(f"indicator {indicator} runs the backbone, and none is given: name it")
        return self.backbone()


Indicator = Callable[[Compared], pd.DataFrame]


def indicator_table(name: str, group: Compared) -> pd.DataFrame:
    """The indicator `name` over a group of prompts, rows sources, columns targets."""
    if name not in INDICATORS:
        raise unknown("indicator", name, INDICATORS)
    if len(group.prompts) < 2:
        raise UserError(f"comparing needs at least two {called(group.prompts)}; given {len(group.prompts)}")
    if reason := missing(name, group.prompts):
        raise UserError(reason)
    return INDICATORS[name](group)


def missing(name: str, adaptations: Sequence[Adaptation]) -> str:
    """Why an indicator has no value for these adaptations, and what there is instead; empty where it has."""
    without = _without(name, adaptations)
    if without is None:
        return ""
    what = (
        "vectors in front of the text"
        if name in vectors.INDICATORS
        else "the products B A of LoRA and its kin"
    )
    there = ", ".join(each for each in INDICATORS if _without(each, adaptations) is None)
    return (
        f"{name} compares {what}, and {without.name!r} ({without.method}) has none; what these can be compared by: "
        f"{there}"
    )


def _without(name: str, adaptations: Sequence[Adaptation]) -> Adaptation | None:
    """The first that lacks what an indicator compares."""
    if name in vectors.INDICATORS:
        return next((each for each in adaptations if not each.has_vectors), None)
    if name in low_rank.SIMILARITIES:
        return next((each for each in adaptations if not low_rank_of(each)), None)
    return None


def usual(adaptations: Sequence[Adaptation]) -> tuple[str, ...]:
    """The indicators to take where none is named.

    The paper's four of soft prompts, of LoRA and its kin those of their products, of any others overlap of neurons.
    """
    for names in (vectors.PAPER_METRICS, tuple(low_rank.SIMILARITIES)):
        if not missing(names[0], adaptations):
            return tuple(names)
    return tuple(OVERLAPS)


def of_vectors(prompts: Sequence[Adaptation]) -> list[str]:
    """The indicators that these prompts' vectors alone give: no initial vectors, no minus-initial; none without vectors."""
    if not all(prompt.has_vectors for prompt in prompts):
        return []
    known = all(prompt.first_vectors is not None for prompt in prompts)
    names = [name for name in vectors.INDICATORS if known or not name.endswith("-minus-initial")]
    return [name for name in names if len(prompts) > 2 or not name.endswith("-minus-mean")]


def _similarity(name: str) -> Indicator:
    def table(group: Compared) -> pd.DataFrame:
        found = [prompt.first_vectors for prompt in group.prompts if prompt.first_vectors is not None]
        initial = torch.stack(found) if len(found) == len(group.prompts) else None
        return vectors.similarity(name, stacked(group.prompts), group.names, initial)

    return table


def low_rank_of(adaptation: Adaptation) -> LowRank:
    """A and B at each linear map of what is an update of low rank (LoRA and its kin); empty for anything else.

    The diagonal of AdaLoRA counts as a part of A.
    """
    tables: dict[str, dict[str, Tensor]] = {"lora_A": {}, "lora_B": {}, "lora_E": {}}
    for name, tensor in adaptation.tensors.items():
        site, _, kind = name.removesuffix(".weight").rpartition(".")
        if kind in tables:
            tables[kind][site] = tensor
    into, out, between = tables.values()
    if not into or into.keys() != out.keys():
        return {}
    return {site: (into[site] * between[site] if site in between else into[site], out[site]) for site in into}


def _low_rank(name: str) -> Indicator:
    def table(group: Compared) -> pd.DataFrame:
        found = low_rank.SIMILARITIES[name]([low_rank_of(each) for each in group.prompts])
        return pd.DataFrame(found.numpy(), index=group.names, columns=group.names)

    return table


def _overlap(name: str) -> Indicator:
    return lambda group: overlap(capture(group.model(name), group.prompts).states, name)


def _same_type(group: Compared) -> pd.DataFrame:
    """1 where source and target are of one type: costs nothing but the names."""
    kinds = {prompt.name: group.types.get(prompt.task, "") for prompt in group.prompts}
    return same_type(group.names, kinds)


def _few_shot(group: Compared) -> pd.DataFrame:
    """Every prompt's score on a few labelled training rows of every prompt's task, nothing trained."""
    if group.rows is None:
        raise UserError(f"indicator {FEW_SHOT} needs labelled rows of every task, and none are given")
    backbone = group.model(FEW_SHOT)
    encoding = common_encoding(backbone, group.prompts)
    scores = {
        target.task.name: [
            score.value
            for score in evaluate_all(backbone, group.prompts, target.task, target.splits.train, encoding)
        ]
        for target in group.rows(list(dict.fromkeys(prompt.task for prompt in group.prompts)))
    }
    return pd.DataFrame({prompt.name: scores[prompt.task] for prompt in group.prompts}, index=group.names)


INDICATORS: dict[str, Indicator] = {
    **{name: _similarity(name) for name in vectors.INDICATORS},
    **{name: _low_rank(name) for name in low_rank.SIMILARITIES},
    **{name: _overlap(name) for name in OVERLAPS},
    BASELINE: _same_type,
    FEW_SHOT: _few_shot,
}
"""Name -> indicator."""
