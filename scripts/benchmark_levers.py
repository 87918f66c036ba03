"""Our training with one of its levers taken away, so that the benchmark can say what each of them is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from benchmark_models import make_backbone
from torch import Tensor
from torch.nn import functional as F

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


class _Disturbed:
    """Makes a backbone run Hugging Face's own modules."""

    undisturbed = False


class _ModulesMaskedLM(_Disturbed, MaskedLM):
    pass


class _ModulesT5(_Disturbed, T5):
    pass


class _AllLogitsMaskedLM(_Disturbed, MaskedLM):
    def label_scores(self, prompts: Tensor, batch: Batch) -> Tensor:
        """Every logit of every position, of which two are used."""
        from transformers.masking_utils import create_bidirectional_mask

        assert batch.candidates is not None
        states, present = self._inputs(prompts, batch)
        mask = create_bidirectional_mask(self.model.config, states, present)
        logits = self.model.lm_head(
            self.model.base_model.encoder(states, attention_mask=mask).last_hidden_state
        )
        slot = logits[:, self.answer_slot(prompts.shape[1], batch.layout)].float()
        return F.log_softmax(slot.gather(1, batch.candidates[:, :, 0]), dim=-1)


class _AllLogitsT5(_Disturbed, T5):
    def _first_step(self, states: Tensor, mask: Tensor, candidates: Tensor) -> Tensor:
        logits = self.model.lm_head(self._one_step(states, mask)).float()
        return logits.gather(1, candidates[:, :, 0])[..., None]


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
    "modules, eager attention": (_ModulesMaskedLM, _ModulesT5),
    "modules, sdpa attention": (_ModulesMaskedLM, _ModulesT5),
}
"""Lever -> backbone classes for a masked LM and for T5."""


def backbone_for(setup: Setup) -> Any:
    """Our backbone with the lever of the setup taken away."""
    masked, t5 = KINDS.get(setup.lever, (MaskedLM, T5))
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
    layers = backbone._layers if hasattr(backbone, "_layers") else backbone._blocks
    for layer in layers:
        method = "everywhere" if hasattr(layer, "everywhere") else "__call__"
        if method == "everywhere":
            object.__setattr__(layer, method, torch.compile(layer.everywhere, dynamic=True))
    if not hasattr(backbone, "_layers"):
        backbone.__dict__["_blocks"] = [torch.compile(layer.__call__, dynamic=True) for layer in layers]
