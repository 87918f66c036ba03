"""RoBERTa and BERT as masked language models: the answer is the label word that fits the `<mask>` slot best.

Only what is needed is computed: the last layer and the head run on the answer slot alone, and only for the label
words' rows of the decoder. Position ids are explicit, so neither padding nor the prompt moves a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.masking_utils import create_bidirectional_mask

from prompttransfer.backbones.answer_losses import answer_losses
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.interventions import Interventions, changed, interventions
from prompttransfer.backbones.kernels.attention import (
    attend_once,
    attend_to,
    mask_bias,
    reach,
    run,
    self_attention,
)
from prompttransfer.backbones.kernels.linear import FrozenLinear
from prompttransfer.backbones.layouts import Layout
from prompttransfer.backbones.plain import at_modules, by_weights, real
from prompttransfer.backbones.rows import Batch, Row
from prompttransfer.distributed.fsdp import recomputing, whole
from tasks.errors import UserError


@dataclass(frozen=True, eq=False)
class _Layer:
    """One layer on its frozen weights; the same numbers as `module`'s own forward pass."""

    module: Any
    sites: dict[str, str]
    """attention, query, key, value, merge, widen, narrow -> the full name of that module."""
    projections: FrozenLinear
    merge: FrozenLinear
    widen: FrozenLinear
    narrow: FrozenLinear
    heads: int
    scale: float

    @classmethod
    def of(cls, module: Any, name: str) -> _Layer:
        own = module.attention.self
        return cls(
            module,
            sites={short: f"{name}.{inside}" for short, inside in _INSIDE.items()},
            projections=FrozenLinear(own.query, own.key, own.value),
            merge=FrozenLinear(module.attention.output.dense),
            widen=FrozenLinear(module.intermediate.dense),
            narrow=FrozenLinear(module.output.dense),
            heads=own.num_attention_heads,
            scale=own.scaling,
        )

    def everywhere(self, states: Tensor, bias: Tensor | None, own: Interventions) -> Tensor:
        """[batch, time, width] to the same."""
        sites = self.sites["query"], self.sites["key"], self.sites["value"]
        projected = own.joined(sites, states, self.projections(states))
        front = own.given(self.sites["attention"])
        bias = reach(bias, front, own.extra)
        attended = self_attention(projected, bias, heads=self.heads, scale=self.scale, front=front)
        return self._rest(attended, states, own)

    def at(self, slot: int, states: Tensor, bias: Tensor | None, own: Interventions) -> Tensor:
        """The output at one position, [batch, width]."""
        attention, sites, asking = self.module.attention.self, self.sites, states[:, slot]
        query = own.changed(sites["query"], asking, attention.query(asking))
        front = own.given(sites["attention"])
        bias = reach(bias, front, own.extra)
        if own.changes(sites["key"], sites["value"]):
            key = own.changed(sites["key"], states, attention.key(states))
            value = own.changed(sites["value"], states, attention.value(states))
            attended = attend_to(query, key, value, bias, heads=self.heads, scale=self.scale, front=front)
        else:
            attended = attend_once(
                query,
                states,
                attention.key,
                attention.value,
                bias,
                heads=self.heads,
                scale=self.scale,
                front=front,
            )
        return self._rest(attended, asking, own)

    def _rest(self, attended: Tensor, states: Tensor, own: Interventions) -> Tensor:
        merged = changed(self.merge, self.sites["merge"], attended, own, add=states)
        middle = self.module.attention.output.LayerNorm(merged)
        wide = changed(self.widen, self.sites["widen"], middle, own)
        active = self.module.intermediate.intermediate_act_fn(wide)
        narrow = changed(self.narrow, self.sites["narrow"], active, own, add=middle)
        output: Tensor = self.module.output.LayerNorm(narrow)
        return output


_INSIDE = {
    "attention": "attention.self",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "merge": "attention.output.dense",
    "widen": "intermediate.dense",
    "active": "intermediate",
    "narrow": "output.dense",
}


class MaskedLM(Backbone):
    """A frozen RoBERTa or BERT with its language-model head."""

    family = "masked-lm"
    generates = False

    @property
    def roles(self) -> Mapping[str, str]:
        return {
            "query": r"\.attention\.self\.query$",
            "key": r"\.attention\.self\.key$",
            "value": r"\.attention\.self\.value$",
            "narrow": r"\.layer\.\d+\.output\.dense$",
        }

    @property
    def max_positions(self) -> int:
        return int(self._embeddings.position_embeddings.num_embeddings) - self._first_position

    @property
    def special_tokens(self) -> int:
        return 3 + self._separators

    @property
    def layer_names(self) -> tuple[str, ...]:
        return (f"{self.model.base_model_prefix}.encoder.layer.",)

    @property
    def feed_forward(self) -> int:
        return int(self.model.config.intermediate_size)

    @property
    def _embeddings(self) -> Any:
        return self.model.base_model.embeddings

    @property
    def _first_position(self) -> int:
        # RoBERTa counts positions from padding_idx + 1 and so can use 512 of its 514; BERT counts from 0.
        return int(self.model.config.pad_token_id) + 1 if self._is_roberta else 0

    @property
    def _is_roberta(self) -> bool:
        return self.model.config.model_type != "bert"

    @property
    def _separators(self) -> int:
        return 2 if self._is_roberta else 1

    def _assemble(self, row: Row, layout: Layout) -> list[int]:
        tokenizer = self.tokenizer
        bos, eos = tokenizer.cls_token_id, tokenizer.sep_token_id
        # Su et al. join the texts of a pair by one </s>; RoBERTa's own pre-training used two.
        between = [eos] * (1 if layout.mask_is_first_row else self._separators)
        opening = [bos] if layout.mask_is_first_row else [bos, tokenizer.mask_token_id]
        second = [] if row.second is None else [*between, *row.second]
        return [*opening, *row.first, *second, eos]

    def _filled(self, row: Row, layout: Layout, answer: tuple[int, ...]) -> list[int]:
        # Behind what stands in front of a prompt: in `after-bos` the rows shown share the one <s>.
        ids = self._assemble(row, layout)
        mask = ids.index(self.tokenizer.mask_token_id)
        return [*ids[layout.start : mask], *answer, *ids[mask + 1 :]]

    def answer_slot(self, length: int, layout: Layout) -> int:
        # The mask is the second token of the text part, behind the prompt wherever that stands.
        return 0 if layout.mask_is_first_row else length + 1

    def _inputs(self, own: Interventions, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the first layer gets, [batch, reserved + time, width], and its mask."""
        table = self._embeddings
        own, words = own.read(table.word_embeddings(batch.ids), batch.mask)
        given = own.vectors()
        vectors = words[:, :0] if given is None else given.to(device=self.device, dtype=self.dtype)
        if batch.layout.mask_is_first_row:
            mask = torch.full((batch.rows, 1), self.tokenizer.mask_token_id, device=self.device)
            vectors = torch.cat([table.word_embeddings(mask), vectors[:, 1:]], dim=1)
        # Without a prompt, su2022 still has its mask: the row count is that of the vectors, not of the prompt.
        start, length = batch.layout.start, vectors.shape[1]
        inputs = torch.cat([words[:, :start], vectors, words[:, start:]], dim=1)
        present = F.pad(batch.mask, (length, 0), value=1)
        first = self._first_position + own.extra
        positions = table.position_embeddings.weight[first : first + inputs.shape[1]]
        if batch.layout.zero_positions:
            positions = torch.cat([torch.zeros_like(positions[:length]), positions[length:]])
        return table.LayerNorm(inputs + table.token_type_embeddings.weight[0] + positions), present

    @by_weights
    def answer_state(self, own: Interventions | Tensor, batch: Batch) -> Tensor:
        """Last hidden state at the answer slot, [batch, width]."""
        own = interventions(own)
        slot = self.answer_slot(own.reserved, batch.layout)
        states, present = self._inputs(own, batch)
        self.check()
        if self.engine == "plain":
            attention = create_bidirectional_mask(self.model.config, states, real(present))
            encoder = self.model.base_model.encoder
            self.check_recomputes(own)
            with (
                recomputing(encoder.layer, self.checkpoints, partial(at_modules, self.model, own)),
                at_modules(self.model, own),
            ):
                hidden: Tensor = encoder(states, attention_mask=attention).last_hidden_state
            return hidden[:, slot]
        *lower, last = self.frozen_layers
        bias = mask_bias(F.pad(present, (own.extra, 0), value=1), states.dtype)
        spread = None if bias is None else bias.repeat_interleave(last.heads, dim=0)
        states = run(
            [partial(layer.everywhere, bias=spread, own=own) for layer in lower],
            states,
            keep=not self.checkpoints,
        )
        return last.at(slot, states, bias, own)

    def lay_out(self) -> None:
        (prefix,) = self.layer_names
        layers = self.model.base_model.encoder.layer
        self.frozen_layers = [_Layer.of(module, f"{prefix}{index}") for index, module in enumerate(layers)]

    @property
    def passed_by(self) -> tuple[str, ...]:
        embeddings = f"{self.model.base_model_prefix}.embeddings"
        parts = (
            f"{embeddings}.{part}" for part in ("position_embeddings", "token_type_embeddings", "dropout")
        )
        head = (
            ("lm_head", "lm_head.decoder")
            if self._is_roberta
            else ("cls", "cls.predictions", "cls.predictions.decoder")
        )
        return "", self.model.base_model_prefix, embeddings, *parts, *head

    @property
    def attentions(self) -> dict[str, tuple[str, ...]]:
        return {"encoder": self._inside("attention")}

    @property
    def outputs(self) -> dict[str, tuple[str, ...]]:
        return {"attention": self._inside("merge"), "feed-forward": self._inside("narrow")}

    @property
    def idle_biases(self) -> tuple[str, ...]:
        # They add the same to all scores of a query, which the softmax takes out again.
        return self.maps_of("key")

    @property
    def neuron_sites(self) -> tuple[tuple[str, ...], str]:
        words = f"intermediate, after {self.model.config.hidden_act}, at the mask"
        return self._inside("active"), words

    def _inside(self, part: str) -> tuple[str, ...]:
        (prefix,) = self.layer_names
        return tuple(f"{prefix}{index}.{_INSIDE[part]}" for index in range(self.layers))

    @by_weights
    def label_scores(self, own: Interventions | Tensor, batch: Batch) -> Tensor:
        assert batch.candidates is not None and batch.averaged is not None
        own = interventions(own)
        slot = self.answer_state(own, batch)
        own.seen(slot)
        if own.has_head or batch.by_head:
            return class_scores(own, slot, batch)
        features, bias = self._head(slot)
        ids = batch.candidates.clamp(min=0)
        words = self.output_rows(ids).float()
        logits = torch.einsum("bd,bcmd->bcm", features.float(), words) + bias[ids].float()
        return F.log_softmax(combine_pieces(logits, batch.candidates, batch.averaged), dim=-1)

    def word_logits(self, states: Tensor, ids: Tensor) -> Tensor:
        features, bias = self._head(states)
        return F.linear(features.float(), self.output_rows(ids).float(), bias[ids].float())

    def _head(self, slot: Tensor) -> tuple[Tensor, Tensor]:
        """The head's features [batch, width] and the bias of its decoder [vocabulary].

        The bias is that of the output layer: where a model ties nothing, `head.bias` is read by no one.
        """
        if self._is_roberta:
            head = self.model.lm_head
            features = head.layer_norm(F.gelu(head.dense(slot)))
        else:
            features = self.model.cls.predictions.transform(slot)
        return features, whole(self.model.get_output_embeddings().bias)

    @by_weights
    def row_losses(self, own: Interventions, batch: Batch) -> Tensor:
        return answer_losses(self.label_scores(own, batch), batch)


def class_scores(own: Interventions, state: Tensor, batch: Batch) -> Tensor:
    """Log-probabilities of a head of `own` over the labels of the rows, [batch, classes]; log odds where several may be right.

    Other members of a bank may have more of them, which count for nothing here. Raises UserError where there are less.
    """
    assert batch.candidates is not None
    logits, classes = own.head(state).float(), batch.candidates.shape[1]
    if logits.shape[1] < classes:
        raise UserError(
            f"a probe or head of {logits.shape[1]} classes cannot answer a task with {classes} labels"
        )
    return logits[:, :classes] if batch.several else F.log_softmax(logits, dim=-1)[:, :classes]


def combine_pieces(scores: Tensor, candidates: Tensor, averaged: Tensor) -> Tensor:
    """One score a label from the scores of its pieces: their sum, or mean where `averaged` is 1.

    scores and candidates: [batch, classes, pieces]; averaged: [batch]; returns [batch, classes], -inf for labels
    that a row does not have.
    """
    present = candidates >= 0
    total = scores.masked_fill(~present, 0.0).sum(dim=-1)
    count = present.sum(dim=-1)
    mean = total / count.clamp(min=1)
    combined = torch.where(averaged[:, None] > 0, mean, total)
    return combined.masked_fill(count == 0, float("-inf"))
