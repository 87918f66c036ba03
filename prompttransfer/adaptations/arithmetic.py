"""Arithmetic of adaptations: task vectors added, taken away, scaled, averaged; and adaptations made of others, with their origin.

The task vector of a prompt is what training added to it, tau = tuned - initial (Belanec et al. 2024, arXiv 2408.01119); a
sum of them stands on a start, P = start + sum of c tau. What training added to a LoRA is its product s B A, since that is
zero at its start, so there a task vector is the LoRA itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from prompttransfer.adaptations.adaptation import PROMPT_KEY, Adaptation, Origin
from prompttransfer.adaptations.composition import Composed, Part, check_parts, weighted_sum
from prompttransfer.backbones.revisions import DECIDING, differing
from tasks.errors import UserError
from tasks.records import KEPT


def parts_of(adaptations: Sequence[Adaptation], weights: Sequence[float]) -> list[Part]:
    """What enters a composition. Raises UserError where the adaptations are not of one backbone, layout and kind."""
    check_alike(adaptations)
    parts = [
        Part(each.method, each.tensors, weight) for each, weight in zip(adaptations, weights, strict=True)
    ]
    check_parts(parts)
    return parts


def check_alike(adaptations: Sequence[Adaptation]) -> None:
    """Raise UserError, naming the first two that differ, unless all are of one backbone and read texts in one way."""
    first = adaptations[0]
    for each in adaptations[1:]:
        known = first.revision and each.revision
        other = (
            differing(first.revision, each.revision, DECIDING) if known else first.backbone != each.backbone
        )
        if other:
            raise UserError(
                f"{first.name!r} is of backbone {first.backbone}, {each.name!r} of {each.backbone}"
                f"{' at another revision' * (first.backbone == each.backbone)}: combine those of one backbone"
            )
        if first.encoding != each.encoding:
            raise UserError(
                f"{first.name!r} reads texts as {_told(first)}, {each.name!r} as {_told(each)}: combine those that read them "
                f"in the same way"
            )


def _told(adaptation: Adaptation) -> str:
    own = adaptation.encoding
    parts = [own.layout]
    if own.template:
        parts.append(f"template {own.template}")
    if own.max_length:
        parts.append(f"{own.max_length} tokens")
    return ", ".join([*parts, own.aggregation] if own.aggregation else parts)


def task_vector(prompt: Adaptation) -> Tensor:
    """tau = tuned - initial of a soft prompt, [length, width]. Raises UserError where its start was not kept."""
    start = prompt.first_vectors
    if start is None:
        raise UserError(
            f"{prompt.name!r} does not say what it started from (no initial.safetensors), so what training added to it is not "
            f"known: train it here, or combine it with `prompts merge` or `prompts interpolate`, which take it as it is"
        )
    return prompt.vectors - start


def added(
    adaptations: Sequence[Adaptation], weights: Sequence[float], onto: Adaptation | None = None
) -> Composed:
    """Task vectors times their weights, on the start of `onto` (of the first one if not given), or LoRAs summed.

    Raises UserError for what cannot be combined, or a prompt whose start is not known.
    """
    parts = parts_of([*adaptations, *([onto] if onto else [])], [*weights, *([1.0] if onto else [])])
    if not adaptations[0].has_vectors:
        if onto is not None:
            raise UserError("--onto is for prompts: a LoRA starts at zero wherever it starts")
        return weighted_sum(parts)
    base = onto or adaptations[0]
    start = base.vectors - task_vector(base)
    total = torch.stack([w * task_vector(each) for each, w in zip(adaptations, weights, strict=True)]).sum(0)
    return adaptations[0].method, {PROMPT_KEY: start + total}


def made_of(
    adaptations: Sequence[Adaptation],
    weights: Sequence[float],
    composed: Composed,
    *,
    how: str,
    name: str,
    initial: Adaptation | None = None,
    **settings: object,
) -> Adaptation:
    """The adaptation that a composition gave, which says what it is made of; of several tasks, its task is called `a+b`.

    `initial` is the prompt whose start is that of the sum too. Vectors of encoders become those of a plain prompt.
    """
    method, tensors = composed
    if PROMPT_KEY in tensors:
        from prompttransfer.adaptations.methods.prompt import PromptTuning

        method = PromptTuning(len(tensors[PROMPT_KEY]))
    first = adaptations[0]
    tasks = list(dict.fromkeys(each.task for each in adaptations))
    seeds = {each.seed for each in adaptations}
    words = {label: word for each in adaptations for label, word in each.origin.words.items()}
    agree = all(words[label] == word for each in adaptations for label, word in each.origin.words.items())
    data = {"source": "made of others, without training"}
    if len(tasks) == 1 and KEPT in first.origin.data:
        data[KEPT] = first.origin.data[KEPT]
    made = [
        {
            "name": each.name,
            "task": each.task,
            "seed": each.seed,
            "digest": each.digest,
            "weight": float(weight),
        }
        for each, weight in zip(adaptations, weights, strict=True)
    ]
    origin = Origin(
        "+".join(tasks),
        first.backbone,
        first.revision,
        family=first.family,
        seed=seeds.pop() if len(seeds) == 1 else None,
        start=f"made:{how}",
        words=words if agree else {},
        recipe={"made_by": how, "made_of": made, **settings},
        data=data,
    )
    start = None if initial is None or initial.initial is None else dict(initial.initial)
    return replace(
        first,
        method=method,
        tensors=tensors,
        origin=origin,
        name=name,
        initial=start,
        encoder={},
        embedding=None,
        scores={},
        curve=(),
        head=None,
    )
