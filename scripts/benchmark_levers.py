"""Our training with one of its levers taken away, so that the benchmark can say what each of them is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from benchmark_models import make_backbone
from torch import Tensor
from torch.nn import functional as F

from prompttransfer.backbones.interventions import Interventions, interventions
from prompttransfer.backbones.layouts import Layout
from prompttransfer.backbones.masked_lm import MaskedLM
from prompttransfer.backbones.rows import Batch, Row
from prompttransfer.backbones.seq2seq import T5

if TYPE_CHECKING:
    from benchmark_contestants import Setup

LEVERS = {
    "no bf16": "float32 weights",
    "autocast": "float32 weights, cast to bf16 at every step",
    "all logits": "logits of the whole vocabulary at every position",
    "no length grouping": "rows of a batch drawn without regard to length",
    "fixed padding": "every row padded to 128 text tokens",
    "modules, eager attention": "Hugging Face's own modules, plain attention",
    "modules, sdpa attention": "Hugging Face's own modules, their default attention",
    "weights not frozen": "gradients of all weights computed as well",
    "activation checkpoints": "inner values computed again in the backward pass (saves memory)",
    "compiled": "our layers through torch.compile",
    "no recorded calls": "a GPU's calls launched one by one by Python",
}
ON_GPU = ("no recorded calls",)
"""Levers that only a GPU has."""


class _AllLogitsMaskedLM(MaskedLM):
    def label_scores(self, own: Interventions | Tensor, batch: Batch) -> Tensor:
        """Every logit of every position, of which two are used."""
        from transformers.masking_utils import create_bidirectional_mask

        assert batch.candidates is not None
        own = interventions(own)
        states, present = self._inputs(own, batch)
        mask = create_bidirectional_mask(self.model.config, states, present)
        logits = self.model.lm_head(
            self.model.base_model.encoder(states, attention_mask=mask).last_hidden_state
        )
        slot = logits[:, self.answer_slot(own.reserved, batch.layout)].float()
        return F.log_softmax(slot.gather(1, batch.candidates[:, :, 0]), dim=-1)


class _AllLogitsT5(T5):
    def _first_step(self, output: Tensor, candidates: Tensor) -> Tensor:
        return self._logits(output).gather(1, candidates[:, :, 0])[..., None]


class _FixedPadding:
    """Pads every row to 128 text tokens."""

    def batch(self, rows: Sequence[Row], *, layout: Layout) -> Batch:
        made: Batch = super().batch(rows, layout=layout)  # type: ignore[misc]
        room = 128 + self.special_tokens - made.ids.shape[1]  # type: ignore[attr-defined]
        pad = self.tokenizer.pad_token_id  # type: ignore[attr-defined]
        from dataclasses import replace

        return replace(made, ids=F.pad(made.ids, (0, room), value=pad), mask=F.pad(made.mask, (0, room)))


class _FixedMaskedLM(_FixedPadding, MaskedLM):
    pass


class _FixedT5(_FixedPadding, T5):
    pass


KINDS: dict[str, tuple[Any, Any]] = {
    "all logits": (_AllLogitsMaskedLM, _AllLogitsT5),
    "fixed padding": (_FixedMaskedLM, _FixedT5),
}
"""Lever -> backbone classes for a masked LM and for T5."""
PLAIN = ("all logits", "modules, eager attention", "modules, sdpa attention", "weights not frozen")
"""Levers with which the modules of transformers run."""


def backbone_for(setup: Setup) -> Any:
    """Our backbone with the lever of the setup taken away."""
    masked, t5 = KINDS.get(setup.lever, (None, None))  # none takes the family's own
    cast = setup.lever == "autocast"
    full = setup.precision == "fp32" or setup.lever == "no bf16" or cast
    attention = "sdpa" if "sdpa" in setup.lever else "eager"
    backbone = make_backbone(
        setup.shape,
        torch.float32 if full else torch.bfloat16,
        setup.place,
        t5 if setup.shape.family == "t5" else masked,
        attention,
    )
    if setup.lever in PLAIN:
        backbone.use("plain")
    if setup.lever == "weights not frozen":
        backbone.model.requires_grad_(True)
        _drop_gradients(backbone)
    if setup.lever == "activation checkpoints":
        backbone.checkpoints = True
    if setup.lever in ("no recorded calls", "autocast", "compiled"):
        backbone.records = False
    if cast:
        loss = backbone.loss

        def cast_loss(prompts: Tensor, batch: Batch) -> Tensor:
            with torch.autocast(setup.place.type, torch.bfloat16):
                result: Tensor = loss(prompts, batch)
            return result

        backbone.loss = cast_loss
    if setup.lever == "compiled":
        _compile(backbone)
    return backbone


def _drop_gradients(backbone: Any) -> None:
    """Let weights' gradients be computed, but not pile up from step to step."""
    for parameter in backbone.model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda leaf: setattr(leaf, "grad", None))


def _compile(backbone: Any) -> None:
    """Put every layer of the encoder through torch.compile, with lengths left open."""
    if hasattr(backbone.frozen_layers[0], "everywhere"):
        for layer in backbone.frozen_layers:
            object.__setattr__(layer, "everywhere", torch.compile(layer.everywhere, dynamic=True))
    else:
        calls = [torch.compile(layer.__call__, dynamic=True) for layer in backbone.frozen_layers]
        backbone.frozen_layers = calls
