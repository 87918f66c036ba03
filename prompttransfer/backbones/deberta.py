"""What is special in DeBERTa v2 and v3: two kinds of heads, and maps that read relative positions beside the text.

Queries and keys of relative positions are made by the maps of the text (`share_att_key`), once for all rows. Where these
maps differ from row to row, as in a bank of LoRAs, each row has to have its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from prompttransfer.backbones.interventions import Interventions

READ = ("query_proj", "key_proj", "pos_query_proj", "pos_key_proj")
"""The maps of an attention that may be given relative positions."""


def features(model: Any, states: Tensor) -> Tensor:
    """What the output layer is given."""
    if model.legacy:
        given: Tensor = model.cls.predictions.transform(states)
        return given
    head = model.lm_predictions.lm_head
    given = head.LayerNorm(head.transform_act_fn(head.dense(states)))
    return given


def output(model: Any) -> tuple[Any, Tensor | None]:
    """The module whose weight gives logits, and their bias."""
    if model.legacy:
        layer = model.get_output_embeddings()
        return layer, layer.bias
    return model.get_input_embeddings(), model.lm_predictions.lm_head.bias


@contextmanager
def relative_rows(model: Any, own: Interventions, rows: int) -> Iterator[None]:
    """In this block maps that `own` changes row by row are given the relative positions of every row."""
    undo: list[Callable[[], Any]] = []
    if rows > 1 and not own.alike:
        for name, attention in model.named_modules():
            if not hasattr(attention, "disentangled_attention_bias"):
                continue
            inside = [part for part in READ if own.changes(f"{name}.{part}")]
            if not inside:
                continue
            for part in READ:
                if hasattr(attention, part):
                    map_ = getattr(attention, part)
                    undo.append(map_.register_forward_pre_hook(_for_each(rows)).remove)
            made = attention.transpose_for_scores
            attention.transpose_for_scores = _apart(made)
            undo.append(partial(delattr, attention, "transpose_for_scores"))
    try:
        yield
    finally:
        for step in undo:
            step()


def _for_each(rows: int) -> Callable[[Any, tuple[Tensor, ...]], tuple[Tensor, ...] | None]:
    def expanded(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        (states,) = inputs
        return (states.expand(rows, -1, -1),) if len(states) == 1 else None

    return expanded


def _apart(made: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def each(states: Tensor, heads: int) -> Tensor:
        return made(states, heads).as_subclass(_Rows)

    return each


class _Rows(Tensor):
    """[rows x heads, ...] of every row already, where transformers repeats what it takes for that of one."""

    def repeat(self, *sizes: Any) -> Tensor:
        return self.as_subclass(Tensor)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # What is made of it is a plain tensor.
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {}))
