"""Masked language models beside RoBERTa and BERT, run by the modules of transformers.

An entry of ENCODERS says where the parts of an architecture are; everything else is one class. A prompt stands among word
embeddings, so it has their width, which is not that of the layers where a model factorises its embeddings (ALBERT, ELECTRA).
In ModernBERT most layers see a window of `local_attention` positions around each; vectors in front of the text take part in
that window as words do, so they meet what stands far back through the layers that see everything. Keys and values in front
are no positions: every position of every layer sees them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from prompttransfer.backbones import deberta
from prompttransfer.backbones.interventions import Interventions, interventions
from prompttransfer.backbones.layouts import USUAL, Encoding
from prompttransfer.backbones.masked_lm import MaskedLM
from prompttransfer.backbones.plain import at_modules, real
from prompttransfer.backbones.rows import Batch, Row
from prompttransfer.distributed.fsdp import table_rows, whole
from tasks.errors import UserError
from tasks.task import Example, Task

Output = tuple[Any, Tensor | None]
"""The module whose weight [vocabulary, width of words] gives logits, and their bias [vocabulary]."""


def _output(model: Any) -> Output:
    layer = model.get_output_embeddings()
    return layer, layer.bias


def _nothing(model: Any, own: Interventions, rows: int) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class Encoder:
    """Where the parts of an encoder are in transformers; the names of modules go on from a layer's."""

    features: Callable[[Any, Tensor], Tensor]
    """What the output layer is given, of a model and its last states."""
    query: str
    key: str
    value: str
    merge: str
    """The map that attention ends with."""
    narrow: str
    """The map that the feed-forward ends with."""
    active: str
    """The module that gives the neurons of the feed-forward, after the activation."""
    attention: str = ""
    """The module that takes more keys and values; none where a model computes attention in a way of its own."""
    layer: str = r"encoder\.layer\.\d+"
    """What the name of a layer looks like, inside the base model."""
    first_position: int = 0
    separators: int = 1
    """Tokens between two texts."""
    feed_forward: str = "intermediate_size"
    """The setting that says how many neurons a layer has."""
    shared: bool = False
    """Whether one layer's weights are run several times over."""
    idle_keys: bool = True
    """Whether a bias of keys changes nothing, since it adds the same to all scores of a query."""
    output: Callable[[Any], Output] = _output
    around: Callable[[Any, Interventions, int], AbstractContextManager[None]] = _nothing
    """What a pass of so many rows stands in."""
    heads: tuple[Mapping[str, Any], ...] = ()
    """Settings under which the model has another head, tried where the weights lack the usual one's."""


class PlainEncoder(MaskedLM):
    """A masked LM of ENCODERS."""

    engines = ("plain",)

    @property
    def parts(self) -> Encoder:
        """Where its parts are."""
        return ENCODERS[self.model.config.model_type]

    @property
    def max_positions(self) -> int:
        # MPNet counts positions from 2 on, as RoBERTa does, and so can use 512 of its 514.
        return int(self.model.config.max_position_embeddings) - self._first_position

    @property
    def _first_position(self) -> int:
        return self.parts.first_position

    @property
    def _separators(self) -> int:
        return self.parts.separators

    @property
    def feed_forward(self) -> int:
        return int(getattr(self.model.config, self.parts.feed_forward))

    @property
    def state_width(self) -> int:
        return int(self.model.config.hidden_size)

    @cached_property
    def layer_names(self) -> tuple[str, ...]:
        layer = re.compile(f"{self.model.base_model_prefix}.{self.parts.layer}")
        return tuple(f"{name}." for name, _ in self.model.named_modules() if layer.fullmatch(name))

    def _inside(self, part: str) -> tuple[str, ...]:
        inside = getattr(self.parts, part)
        return tuple(f"{layer}{inside}" for layer in self.layer_names)

    @property
    def attentions(self) -> dict[str, tuple[str, ...]]:
        return {"encoder": self._inside("attention")} if self.parts.attention else {}

    @property
    def roles(self) -> Mapping[str, str]:
        parts = self.parts
        named = {"query": parts.query, "key": parts.key, "value": parts.value, "narrow": parts.narrow}
        if parts.query == parts.key:  # one map makes all three
            named = {"joint": parts.query, "narrow": parts.narrow}
        return {role: rf"\.\d+\.{re.escape(name)}$" for role, name in named.items()}

    @property
    def idle_biases(self) -> tuple[str, ...]:
        return self.maps_of("key") if self.parts.idle_keys else ()

    @property
    def neuron_sites(self) -> tuple[tuple[str, ...], str]:
        if self.parts.shared:
            raise UserError(
                f"neurons of {self.name} ({self.model.config.model_type}) are not read: its layers share one set of them"
            )
        words = f"{self.parts.active}, after the activation, at the mask"
        return self._inside("active"), words

    @property
    def passed_by(self) -> tuple[str, ...]:
        base = self.model.base_model_prefix
        return tuple(name for name, _ in self.model.named_modules() if name.partition(".")[0] != base)

    def lay_out(self) -> None:
        raise NotImplementedError  # `engines` has no frozen one

    def encode(
        self, task: Task, examples: Sequence[Example], encoding: Encoding = USUAL, *, reserved: int
    ) -> list[Row]:
        if encoding.place(self.family).zero_positions:
            raise UserError(
                f"layout {encoding.layout!r} is not for {self.name} ({self.model.config.model_type}): choose prompt-first or "
                f"after-bos"
            )
        return super().encode(task, examples, encoding, reserved=reserved)

    def answer_state(self, own: Interventions | Tensor, batch: Batch) -> Tensor:
        own = interventions(own)
        self.check()
        own, words = own.read(self.word_embeddings(batch.ids), batch.mask)
        start = batch.layout.start
        vectors = own.vectors()
        if vectors is not None:
            prompt = vectors.to(device=self.device, dtype=self.dtype)
            words = torch.cat([words[:, :start], prompt, words[:, start:]], dim=1)
        first = self._first_position + own.extra
        with self.parts.around(self.model, own, batch.rows), at_modules(self.model, own):
            hidden: Tensor = self.model.base_model(
                inputs_embeds=words,
                attention_mask=real(F.pad(batch.mask, (own.reserved, 0), value=1)),
                position_ids=torch.arange(first, first + words.shape[1], device=self.device)[None],
            ).last_hidden_state
        return hidden[:, self.answer_slot(own.reserved, batch.layout)]

    def output_rows(self, ids: Tensor) -> Tensor:
        return table_rows(self.parts.output(self.model)[0], ids)

    def _head(self, slot: Tensor) -> tuple[Tensor, Tensor]:
        bias = self.parts.output(self.model)[1]
        if bias is None:
            bias = slot.new_zeros(self.word_embeddings.num_embeddings)
        return self.parts.features(self.model, slot), whole(bias)


def _distilbert(model: Any, states: Tensor) -> Tensor:
    given: Tensor = model.vocab_layer_norm(model.activation(model.vocab_transform(states)))
    return given


def _albert(model: Any, states: Tensor) -> Tensor:
    head = model.predictions
    given: Tensor = head.LayerNorm(head.activation(head.dense(states)))
    return given


def _mpnet(model: Any, states: Tensor) -> Tensor:
    given: Tensor = model.lm_head.layer_norm(F.gelu(model.lm_head.dense(states)))
    return given


ENCODERS: dict[str, Encoder] = {
    "distilbert": Encoder(
        _distilbert,
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        merge="attention.out_lin",
        narrow="ffn.lin2",
        active="ffn.activation",
        attention="attention",
        layer=r"transformer\.layer\.\d+",
        feed_forward="hidden_dim",
    ),
    "albert": Encoder(
        _albert,
        query="attention.query",
        key="attention.key",
        value="attention.value",
        merge="attention.dense",
        narrow="ffn_output",
        active="activation",
        layer=r"encoder\.albert_layer_groups\.\d+\.albert_layers\.\d+",
        shared=True,
    ),
    "electra": Encoder(
        lambda model, states: model.generator_predictions(states),
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        attention="attention.self",
        merge="attention.output.dense",
        narrow="output.dense",
        active="intermediate",
    ),
    "deberta-v2": Encoder(
        deberta.features,
        query="attention.self.query_proj",
        key="attention.self.key_proj",
        value="attention.self.value_proj",
        idle_keys=False,  # they meet relative positions too
        around=deberta.relative_rows,
        output=deberta.output,
        heads=({"legacy": False},),
        merge="attention.output.dense",
        narrow="output.dense",
        active="intermediate",
    ),
    "modernbert": Encoder(
        lambda model, states: model.head(states),
        query="attn.Wqkv",
        key="attn.Wqkv",
        value="attn.Wqkv",
        merge="attn.Wo",
        narrow="mlp.Wo",
        active="mlp.act",
        attention="attn",
        layer=r"layers\.\d+",
    ),
    "mpnet": Encoder(
        _mpnet,
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        merge="attention.attn.o",
        narrow="output.dense",
        active="intermediate",
        first_position=2,
        separators=2,
    ),
}
"""`model_type` of a Hugging Face configuration -> where the parts of its models are."""


def missing_head(model_type: str) -> tuple[Mapping[str, Any], ...]:
    """Settings to try where weights lack what the usual head of an architecture has."""
    return ENCODERS[model_type].heads if model_type in ENCODERS else ()
