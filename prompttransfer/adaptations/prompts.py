"""Soft prompts by hand: adaptations of method prompt from vectors that were not trained here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from prompttransfer.adaptations.adaptation import PROMPT_KEY, Adaptation, CurvePoint, Origin, check_tensors
from prompttransfer.adaptations.methods.prompt import PromptTuning
from prompttransfer.backbones.layouts import Encoding


def soft_prompt(
    vectors: Tensor,
    *,
    task: str,
    backbone: str,
    name: str = "",
    layout: str = "prompt-first",
    max_length: int | None = None,
    aggregation: str | None = None,
    initial: Tensor | None = None,
    scores: Mapping[str, Any] | None = None,
    curve: tuple[CurvePoint, ...] = (),
    **origin: Any,
) -> Adaptation:
    """A soft prompt of `vectors` [length, width] float32 and what is known of it; `origin` are fields of `Origin`.

    Raises UserError for vectors of another shape or type, or that are not finite.
    """
    tensors = {PROMPT_KEY: vectors}
    check_tensors(tensors, f"prompt {name or task!r}")
    return Adaptation(
        method=PromptTuning(len(vectors)),
        tensors=tensors,
        origin=Origin(task, backbone, **origin),
        encoding=Encoding(layout, max_length, aggregation),
        name=name,
        initial=None if initial is None else {PROMPT_KEY: initial},
        scores=scores or {},
        curve=curve,
    )
