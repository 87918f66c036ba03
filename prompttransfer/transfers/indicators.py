"""Indicators of transferability: what may tell, before any transfer, which adaptation will do well on which task.

One dict: an indicator is a function from a group of adaptations to a square table, rows sources, columns targets, more
is better. They differ in what they cost: the tensors alone (vectors of prompts, products B A of LoRA and its kin, keys and
values of prefixes), the names of the types (the flag that every other has to beat), one pass of the model over each
(overlap of neurons), or labelled rows of every target (few-shot, estimates from features and label words, gradients).
`missing` says where there is none for some adaptations, `gaps` which cells of a table stay empty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from analysis import low_rank, prefixes
from analysis import similarity as vectors
from analysis.low_rank import LowRank
from analysis.matrices import same_type
from analysis.neurons import OVERLAPS, overlap
from analysis.prediction import BASELINE
from analysis.transferability import OF_FEATURES, OF_PROBABILITIES
from prompttransfer.adaptations.adaptation import PROMPT_KEY, Adaptation
from prompttransfer.adaptations.method import Method
from prompttransfer.adaptations.running import called, common_encoding, impossible, stacked, together
from prompttransfer.evaluation.grouped import evaluate_all
from prompttransfer.neurons.capture import capture
from prompttransfer.transfers.compared import Compared
from prompttransfer.transfers.gradients import cosine, parameters_of, task2vec_cosine
from tasks.errors import UserError, unknown

FEW_SHOT = "few-shot"
ESTIMATES = (*OF_PROBABILITIES, *OF_FEATURES)
"""Of one pass over labelled rows (analysis/transferability.py)."""
AT_START = ("gradient-cosine", "step-cosine")
"""Of a target's gradients at a source and at what the source started from."""
FISHER = {"Fisher-cosine": cosine, "task2vec": task2vec_cosine}
"""Of the Fisher information of each adaptation on rows of its own task."""
OF_ROWS = (FEW_SHOT, *ESTIMATES, *AT_START, *FISHER)
"""Indicators that need labelled rows."""


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


# What there is and what there is not ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Need:
    """What an indicator asks of every adaptation."""

    what: str
    """In words, with its verb: `compares vectors in front of the text`."""
    of_method: Callable[[Method], bool] = lambda method: True
    """Whether adaptations of a method can have it."""
    itself: Callable[[Adaptation], bool] = lambda adaptation: True
    """Whether one of those has it."""
    every: bool = True
    """Whether one that lacks it leaves no table; else its cells stay empty."""

    def has(self, adaptation: Adaptation) -> bool:
        """Whether an adaptation has it."""
        return self.of_method(adaptation.method) and self.itself(adaptation)


def missing(name: str, adaptations: Sequence[Adaptation]) -> str:
    """Why an indicator has no value for these adaptations, and what there is instead; empty where it has."""
    without = _without(name, adaptations)
    if without is None:
        return ""
    there = ", ".join(each for each in INDICATORS if _without(each, adaptations) is None)
    return (
        f"{name} {NEEDS[name].what}, and {without.name!r} ({without.method}) has none; what these can be compared by: "
        f"{there}"
    )


def _without(name: str, adaptations: Sequence[Adaptation]) -> Adaptation | None:
    """The first that lacks what an indicator needs, where that leaves no table."""
    need = NEEDS.get(name)
    if need is None:
        return None
    lacking = [each for each in adaptations if not need.has(each)]
    return lacking[0] if lacking and (need.every or len(lacking) == len(adaptations)) else None


def gaps(name: str, group: Compared) -> list[str]:
    """Why cells of an indicator's table are empty, a line a reason; nothing where all have a value."""
    need, found = NEEDS.get(name), []
    lacking = [each.name for each in group.prompts if need and not need.has(each)]
    if need and lacking:
        found.append(f"{name} {need.what}; none for {', '.join(lacking)}")
    if name in ESTIMATES or name in FISHER:
        written = [
            task
            for task, target in group.targets(name).items()
            if not target.task.one_label or (name in FISHER and target.task.head)
        ]
        found += (
            [f"{name} is of tasks with one label a row; none for {', '.join(written)}"] if written else []
        )
    if name in FISHER and any(not together(one, other) for one in group.prompts for other in group.prompts):
        found.append(f"{name} compares adaptations of one method and shape; none for other pairs")
    if name == FEW_SHOT or name in AT_START:
        tasks = [target.task for target in group.targets(name).values()]
        headed = [task.name for task in tasks if task.head and name in AT_START]
        pairs = [(each, task) for task in tasks if task.name not in headed for each in group.prompts]
        reasons = [reason for each, task in pairs if (reason := impossible(each, task))]
        found += [f"{name}: {reason}" for reason in dict.fromkeys(reasons)]
        found += [f"{name} is of tasks with label words; none for {', '.join(headed)}"] if headed else []
    return found


def cost(name: str, group: Compared) -> str:
    """What of the model an indicator ran, in words, with those that share the run; empty for what needs none."""
    each, tasks = f"{len(group.prompts)} {called(group.prompts)}", len(group.tasks)
    if name in OVERLAPS:
        return f"{', '.join(OVERLAPS)}: {each} forward once"
    if name not in OF_ROWS:
        return ""
    rows = sum(len(target.splits.train) for target in group.targets(name).values())
    over = f"{each} x {rows} training rows of {tasks} tasks forward"
    if name in AT_START:
        return f"{', '.join(AT_START)}: {over} and backward, as often from their starts"
    if name in FISHER:
        return f"{', '.join(FISHER)}: {each} on training rows of their own tasks forward, and backward once a label"
    return f"{', '.join(ESTIMATES) if name in ESTIMATES else name}: {over}"


def usual(adaptations: Sequence[Adaptation]) -> tuple[str, ...]:
    """The indicators to take where none is named.

    The paper's four of soft prompts, of LoRA and its kin those of their products, of prefixes those of keys and values, of
    any others overlap of neurons.
    """
    for names in (vectors.PAPER_METRICS, tuple(low_rank.SIMILARITIES), PREFIXES):
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


def _latent(name: str) -> Indicator:
    """A similarity of z [length, rank] of prompts of ulpt, in the coordinates of their one frozen matrix."""

    def table(group: Compared) -> pd.DataFrame:
        settings = [(each.method.settings(), each) for each in group.prompts]
        (first, one), *rest = settings
        for key in ("basis", "rank", "length"):
            other = next((each for own, each in rest if own[key] != first[key]), None)
            if other is not None:
                raise UserError(
                    f"{name} compares z of one basis, rank and length: {one.name!r} is {one.method}, {other.name!r} is "
                    f"{other.method}; by their vectors they are compared with --metric {name.removeprefix(IN_Z)}"
                )
        return vectors.similarity(
            name.removeprefix(IN_Z),
            torch.stack([each.encoder[LATENT] for each in group.prompts]),
            group.names,
        )

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
    return lambda group: _labelled(low_rank.SIMILARITIES[name](_updates(group)), group)


def _updates(group: Compared) -> list[LowRank]:
    return [low_rank_of(each) for each in group.prompts]


def _at_attentions(name: str, group: Compared) -> dict[str, Tensor]:
    """Full name of an attention -> how alike the prefixes are there, [n, n]."""
    found: dict[str, Tensor] = {}
    first, backbone = group.prompts[0], group.model(name)
    common_encoding(backbone, group.prompts, group.encoding)  # or say that one is of another model
    other = next((each for each in group.prompts if not _same_shape(first, each)), None)
    if other is not None:
        raise UserError(
            f"prefixes of different length cannot be compared: {first.name!r} is {first.method}, {other.name!r} is "
            f"{other.method}"
        )
    for kind, attentions in backbone.attentions.items():
        key = PROMPT_KEY if len(first.tensors) == 1 else f"{kind}.{PROMPT_KEY}"
        own = prefixes.split_attentions(torch.stack([p.tensors[key] for p in group.prompts]), len(attentions))
        starts = [p.initial[key] for p in group.prompts if p.initial is not None]
        known = len(starts) == len(group.prompts)
        initial = prefixes.split_attentions(torch.stack(starts), len(attentions)) if known else None
        found |= zip(attentions, prefixes.SIMILARITIES[name](own, initial), strict=True)
    return found


def _same_shape(one: Adaptation, other: Adaptation) -> bool:
    return {n: t.shape for n, t in one.tensors.items()} == {n: t.shape for n, t in other.tensors.items()}


def _prefix(name: str) -> Indicator:
    return lambda group: _labelled(torch.stack([*_at_attentions(name, group).values()]).mean(0), group)


def check_layers(names: Sequence[str]) -> None:
    """Raise UserError for an indicator that is not one of single layers."""
    there = (*low_rank.AT_MAPS, *prefixes.SIMILARITIES)
    wrong = next((name for name in names if name not in there), None)
    if wrong is not None:
        raise UserError(
            f"indicator {wrong} is not one of single linear maps or attentions; those that are: {', '.join(there)}"
        )


def by_layer(name: str, group: Compared) -> dict[str, pd.DataFrame]:
    """Linear map or attention -> the table of an indicator at it alone. Raises what `check_layers` raises."""
    check_layers([name])
    if name in low_rank.AT_MAPS:
        found = low_rank.AT_MAPS[name](_updates(group))
    else:
        found = _at_attentions(name, group)
    return {site: _labelled(values, group) for site, values in found.items()}


def _labelled(values: Tensor | NDArray[np.float64], group: Compared) -> pd.DataFrame:
    return pd.DataFrame(np.asarray(values), index=group.names, columns=group.names)


def _overlap(name: str) -> Indicator:
    return lambda group: overlap(capture(group.model(name), group.prompts).states, name)


def _same_type(group: Compared) -> pd.DataFrame:
    """1 where source and target are of one type: costs nothing but the names."""
    kinds = {prompt.name: group.types.get(prompt.task, "") for prompt in group.prompts}
    return same_type(group.names, kinds)


def _by_task(group: Compared, column: Callable[[str], Sequence[float]]) -> pd.DataFrame:
    """A table from what `column` says of every source on a task."""
    columns = {task: column(task) for task in group.tasks}
    return pd.DataFrame({prompt.name: columns[prompt.task] for prompt in group.prompts}, index=group.names)


def _few_shot(group: Compared) -> pd.DataFrame:
    """Every source's score on a few labelled training rows of every task, nothing trained."""
    targets, backbone = group.targets(FEW_SHOT), group.model(FEW_SHOT)
    encoding = common_encoding(backbone, group.prompts, group.encoding)

    def column(task: str) -> list[float]:
        target = targets[task]
        able = [each for each in group.prompts if not impossible(each, target.task)]
        scores = evaluate_all(backbone, able, target.task, target.splits.train, encoding)
        found = {each.name: score.value for each, score in zip(able, scores, strict=True)}
        return [found.get(each.name, float("nan")) for each in group.prompts]

    return _by_task(group, column)


def _estimate(name: str) -> Indicator:
    return lambda group: _by_task(group, lambda task: estimates(name, group, task))


def estimates(name: str, group: Compared, task: str) -> list[float]:
    """What an estimate of ESTIMATES says of every source for one task; NaN of those that lack what it reads.

    And of all of them for a task without labels.
    """
    if not group.targets(name)[task].task.one_label:
        return [float("nan")] * len(group.prompts)
    seen = group.observed(name, task)
    given = seen.features if name in OF_FEATURES else seen.probabilities
    estimate = {**OF_FEATURES, **OF_PROBABILITIES}[name]
    use = [
        part is not None and NEEDS[name].has(each) for part, each in zip(given, group.prompts, strict=True)
    ]
    try:
        return [
            estimate(part, seen.labels) if used and part is not None else float("nan")
            for part, used in zip(given, use, strict=True)
        ]
    except UserError as error:
        raise UserError(f"{name} on {task}: {error}") from None


def gradient_cosines(name: str, group: Compared, task: str) -> list[float]:
    """What an indicator of AT_START says of every source for one task.

    `gradient-cosine` holds the gradient at the source against that at its start; `step-cosine` the way from start to
    source against the direction in which the target's loss falls at the start.
    """
    found = group.gradients(name, task)

    def value(each: Adaptation) -> float:
        if each.name not in found or each.initial is None:
            return float("nan")
        here, start = found[each.name]
        if name == "gradient-cosine":
            return cosine(here, start)
        step = parameters_of(each.method, each.tensors) - parameters_of(each.method, each.initial)
        return cosine(step, -start)

    return [value(each) for each in group.prompts]


def _at_start(name: str) -> Indicator:
    return lambda group: _by_task(group, lambda task: gradient_cosines(name, group, task))


def _fisher(name: str) -> Indicator:
    def table(group: Compared) -> pd.DataFrame:
        values = np.full((len(group.prompts), len(group.prompts)), np.nan)
        labelled = {
            task
            for task, target in group.targets(name).items()
            if target.task.one_label and target.task.has_words
        }
        able = [n for n, each in enumerate(group.prompts) if each.task in labelled and NEEDS[name].has(each)]
        for row in able:
            for column in able:
                one, other = group.prompts[row], group.prompts[column]
                if together(one, other):
                    values[row, column] = FISHER[name](group.fisher(name, one), group.fisher(name, other))
        return _labelled(values, group)

    return table


IN_Z, LATENT = "z-", "latent"
"""What the names of similarities of z begin with, and what z is called in an adaptation of ulpt."""
LATENTS = tuple(f"{IN_Z}{name}" for name in vectors.METRICS)
_Z = Need(
    "compares z of prompts of ulpt",
    lambda method: method.name == "ulpt",
    lambda adaptation: LATENT in adaptation.encoder,
)
PREFIXES = tuple(name for name in prefixes.SIMILARITIES if not name.endswith("-minus-initial"))
_VECTORS = Need(
    "compares vectors in front of the text",
    lambda method: method.is_prompt,
    lambda adaptation: adaptation.has_vectors,
)
_PRODUCTS = Need(
    "compares the products B A of LoRA and its kin", lambda method: method.compared_by == "products"
)
_PREFIXES = Need("compares keys and values of prefixes", lambda method: method.compared_by == "prefixes")
_CHANGES = Need("reads changes inside the model", lambda method: method.changes_states, every=False)
_WORDS = Need("reads the label words of a source", itself=lambda each: bool(each.origin.words), every=False)
_START = Need(
    "needs a known start and parameters that train",
    lambda method: method.has_gradients,
    lambda each: each.initial is not None,
    every=False,
)
_FISHER = Need(
    "reads label words and parameters that train",
    lambda method: method.has_gradients,
    lambda each: bool(each.origin.words),
    every=False,
)
NEEDS: dict[str, Need] = {
    **dict.fromkeys(vectors.INDICATORS, _VECTORS),
    **dict.fromkeys(LATENTS, _Z),
    **dict.fromkeys(low_rank.SIMILARITIES, _PRODUCTS),
    **dict.fromkeys(prefixes.SIMILARITIES, _PREFIXES),
    **dict.fromkeys((*OVERLAPS, *OF_FEATURES), _CHANGES),
    **dict.fromkeys(OF_PROBABILITIES, _WORDS),
    **dict.fromkeys(FISHER, _FISHER),
    **dict.fromkeys(AT_START, _START),
}
"""Indicator -> what it asks of an adaptation; those that are not here ask for nothing."""
INDICATORS: dict[str, Indicator] = {
    **{name: _similarity(name) for name in vectors.INDICATORS},
    **{name: _latent(name) for name in LATENTS},
    **{name: _low_rank(name) for name in low_rank.SIMILARITIES},
    **{name: _prefix(name) for name in prefixes.SIMILARITIES},
    **{name: _overlap(name) for name in OVERLAPS},
    BASELINE: _same_type,
    FEW_SHOT: _few_shot,
    **{name: _estimate(name) for name in ESTIMATES},
    **{name: _at_start(name) for name in AT_START},
    **{name: _fisher(name) for name in FISHER},
}
"""Name -> indicator."""
