"""T5 (v1.0, v1.1, LM-adapted, Flan), mT5, ByT5 and LongT5: the prompt stands in front of the encoder's input and the decoder writes.

Classification scores each label's whole token sequence; labels of one token cost one decoder step with the logits
of the label words only. Question answering and summarisation are trained on the reference's tokens and decoded
greedily. Padding is masked in training and in evaluation alike (the original code masked it only in evaluation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from prompttransfer.backbones.answer_losses import answer_losses
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.interventions import Interventions, changed, interventions
from prompttransfer.backbones.kernels.attention import (
    attend_once,
    attend_to,
    mask_bias,
    reach,
    root_mean_square,
    run,
    self_attention,
)
from prompttransfer.backbones.kernels.linear import FrozenLinear, rectified
from prompttransfer.backbones.label_words import Pieces
from prompttransfer.backbones.layouts import Layout
from prompttransfer.backbones.masked_lm import class_scores, combine_pieces
from prompttransfer.backbones.plain import at_modules, by_weights, real
from prompttransfer.backbones.rows import Batch, Row
from prompttransfer.backbones.tokens import BYTES, first_ids
from prompttransfer.distributed.fsdp import recomputing


@dataclass(frozen=True, eq=False)
class _EncoderBlock:
    """One block of the encoder on its frozen weights; the same numbers as `module`'s own forward pass."""

    module: Any
    name: str
    """Full name of the block, as in encoder.block.0."""
    projections: FrozenLinear
    merge: FrozenLinear
    widen: tuple[FrozenLinear, ...]
    """Two where one is the other's gate (v1.1)."""
    narrow: FrozenLinear

    @classmethod
    def of(cls, module: Any, name: str) -> _EncoderBlock:
        own, forward = module.layer[0].SelfAttention, module.layer[1].DenseReluDense
        gated = hasattr(forward, "wi_0")
        return cls(
            module,
            name,
            projections=FrozenLinear(own.q, own.k, own.v),
            merge=FrozenLinear(own.o),
            widen=tuple(map(FrozenLinear, (forward.wi_0, forward.wi_1) if gated else (forward.wi,))),
            narrow=FrozenLinear(forward.wo),
        )

    def __call__(self, states: Tensor, bias: Tensor, own: Interventions) -> Tensor:
        """[batch, time, width] to the same."""
        attention, forward = self.module.layer
        inside = f"{self.name}.layer.0.SelfAttention"
        normed = root_mean_square(states, attention.layer_norm)
        projected = own.joined([f"{inside}.{part}" for part in "qkv"], normed, self.projections(normed))
        front, heads = own.given(inside), attention.SelfAttention.n_heads
        attended = self_attention(
            projected, reach(bias, front, own.extra), heads=heads, scale=1.0, front=front
        )
        states = changed(self.merge, f"{inside}.o", attended, own, add=states)
        return self._forward(root_mean_square(states, forward.layer_norm), states, own)

    def _forward(self, normed: Tensor, states: Tensor, own: Interventions) -> Tensor:
        """The feed-forward part and the residual."""
        inside, activation = f"{self.name}.layer.1.DenseReluDense", self.module.layer[1].DenseReluDense.act
        into = ("wi_0", "wi_1") if len(self.widen) == 2 else ("wi",)
        sites = [f"{inside}.{part}" for part in into]
        out = f"{inside}.wo"
        if isinstance(activation, nn.ReLU) and len(self.widen) == 1 and not own.changes(*sites, out):
            return rectified(normed, self.widen[0], self.narrow, add=states)
        wide = [changed(product, site, normed, own) for product, site in zip(self.widen, sites, strict=True)]
        active = activation(wide[0])
        return changed(self.narrow, out, active * wide[1] if len(wide) == 2 else active, own, add=states)


class T5(Backbone):
    """A frozen T5 encoder-decoder."""

    family = "t5"
    generates = True

    @property
    def roles(self) -> Mapping[str, str]:
        return {
            "query": r"Attention\.q$",
            "key": r"Attention\.k$",
            "value": r"Attention\.v$",
            "narrow": r"\.wo$",
        }

    @property
    def own_attention(self) -> str:
        """What the encoder's attention is called in its layers."""
        return "SelfAttention"

    @cached_property
    def reads_bytes(self) -> bool:
        """Whether tokens are bytes (ByT5): a word then has as many as it has letters, and no space of its own in front."""
        return type(self.tokenizer).__name__ == BYTES

    def word_pieces(self, word: str) -> Pieces | None:
        if not self.reads_bytes:
            return super().word_pieces(word)
        ids = tuple(self.tokenizer(word.strip(), add_special_tokens=False)["input_ids"])
        return (ids, tuple(self.tokenizer.convert_ids_to_tokens(list(ids)))) if ids else None

    def _tokens(self, texts: Sequence[str], keep: int) -> list[tuple[int, ...]]:
        if not self.reads_bytes:
            return super()._tokens(texts, keep)
        return first_ids(self.tokenizer, [text.strip() for text in texts], keep)

    @property
    def neuron_sites(self) -> tuple[tuple[str, ...], str]:
        act, last = self.model.config.dense_act_fn, "layer.2.DenseReluDense"
        blocks = [f"decoder.block.{index}.{last}" for index in range(self.model.config.num_decoder_layers)]
        if not self.model.config.is_gated_act:
            return tuple(f"{name}.wi" for name in blocks), f"decoder wi, before {act}, first decoding step"
        # A gated layer has two halves; the gate act(wi_0) decides what passes, so it is what counts as active.
        words = f"decoder gate {act}(wi_0), before it multiplies wi_1, first decoding step"
        return tuple(f"{name}.act" for name in blocks), words

    @property
    def max_positions(self) -> None:
        return None

    @property
    def special_tokens(self) -> int:
        return 2

    @property
    def layer_names(self) -> tuple[str, ...]:
        return "encoder.block.", "decoder.block."

    @property
    def feed_forward(self) -> int:
        return int(self.model.config.d_ff) * (2 if self.model.config.is_gated_act else 1)

    @property
    def neurons(self) -> int:
        return int(self.model.config.d_ff)

    def _assemble(self, row: Row, layout: Layout) -> list[int]:
        eos = self.tokenizer.eos_token_id
        return [*row.first, eos] if row.second is None else [*row.first, eos, *row.second, eos]

    def _filled(self, row: Row, layout: Layout, answer: tuple[int, ...]) -> list[int]:
        end = self.tokenizer.eos_token_id
        return [*self._assemble(row, layout)[:-1], *(index for index in answer if index != end), end]

    def answer_slot(self, length: int, layout: Layout) -> None:
        return None

    def recordable(self, rows: Sequence[Row]) -> bool:
        # Anything longer goes through the decoder of transformers, whose masks come from the host.
        answers = {id(row.answers): row.answers for row in rows}.values()
        return all(own is not None and max(map(len, own.scored)) == 1 for own in answers)

    def _encoder(self, own: Interventions, batch: Batch) -> tuple[Tensor, Tensor]:
        """Encoder states [batch, reserved + time, width] and their mask."""
        own, inputs = own.read(self.word_embeddings(batch.ids), batch.mask)
        vectors = own.vectors()
        if vectors is not None:
            inputs = torch.cat([vectors.to(device=self.device, dtype=self.dtype), inputs], dim=1)
        mask = F.pad(batch.mask, (own.reserved, 0), value=1)
        encoder = self.model.encoder
        self.check()
        if self.engine == "plain":
            self.check_recomputes(own)
            with (
                recomputing(
                    encoder.block, self.checkpoints, partial(at_modules, self.model, own, "encoder.")
                ),
                at_modules(self.model, own, "encoder."),
            ):
                return encoder(inputs_embeds=inputs, attention_mask=real(mask)).last_hidden_state, mask
        bias = self._encoder_bias(mask, own.extra)
        blocks = [partial(block, bias=bias, own=own) for block in self.frozen_layers]
        states = run(blocks, inputs, keep=not self.checkpoints)
        return root_mean_square(states, encoder.final_layer_norm), mask

    def lay_out(self) -> None:
        blocks = self.model.encoder.block
        self.frozen_layers = [
            _EncoderBlock.of(module, f"encoder.block.{index}") for index, module in enumerate(blocks)
        ]

    @property
    def passed_by(self) -> tuple[str, ...]:
        return "", "shared", "encoder.embed_tokens", "lm_head"

    def _encoder_bias(self, mask: Tensor, extra: int) -> Tensor:
        """Relative positions and padding in one, [batch x heads, time, extra + time]."""
        first, time = self.model.encoder.block[0].layer[0].SelfAttention, mask.shape[1]
        positions = first.compute_bias(time, extra + time, device=mask.device, past_seen_tokens=extra)
        padding = mask_bias(F.pad(mask, (extra, 0), value=1), positions.dtype)
        rows = positions.expand(len(mask), -1, -1, -1) if padding is None else positions + padding[:, None]
        return rows.flatten(0, 1)

    @property
    def attentions(self) -> dict[str, tuple[str, ...]]:
        config = self.model.config
        encoder, decoder = range(config.num_layers), range(config.num_decoder_layers)
        return {
            "encoder": tuple(f"encoder.block.{index}.layer.0.{self.own_attention}" for index in encoder),
            "decoder": tuple(f"decoder.block.{index}.layer.0.SelfAttention" for index in decoder),
            "cross": tuple(f"decoder.block.{index}.layer.1.EncDecAttention" for index in decoder),
        }

    @property
    def head_width(self) -> int:
        return int(self.model.config.d_kv)

    @property
    def outputs(self) -> dict[str, tuple[str, ...]]:
        config = self.model.config
        encoder = [f"encoder.block.{index}.layer." for index in range(config.num_layers)]
        decoder = [f"decoder.block.{index}.layer." for index in range(config.num_decoder_layers)]
        itself = [f"{name}0.{self.own_attention}" for name in encoder]
        itself += [f"{name}0.SelfAttention" for name in decoder]
        last = [f"{name}1" for name in encoder] + [f"{name}2" for name in decoder]
        return {
            "attention": tuple(f"{name}.o" for name in itself),
            "feed-forward": tuple(f"{name}.DenseReluDense.wo" for name in last),
        }

    def _decoder(self, own: Interventions, states: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        """Decoder outputs, [batch, time, width]."""
        with at_modules(self.model, own, "decoder."):
            output: Tensor = self.model.decoder(
                input_ids=ids,
                encoder_hidden_states=states,
                encoder_attention_mask=real(mask),
                use_cache=False,
            ).last_hidden_state
        return output

    def _logits(self, output: Tensor) -> Tensor:
        """Scores of the whole vocabulary for outputs of the decoder, [..., vocabulary] float32."""
        logits: Tensor = self.model.lm_head(self._scaled(output)).float()
        return logits

    def _scaled(self, output: Tensor) -> Tensor:
        """What is compared with the output embedding."""
        return output * self.width**-0.5 if self._scales_output else output

    @property
    def _scales_output(self) -> bool:
        # T5 v1.0 ties the output to the input embedding and rescales; v1.1 and mT5 have an output matrix of their own.
        config = self.model.config
        if config.model_type == "mt5":
            return False
        return bool(getattr(config, "scale_decoder_outputs", config.tie_word_embeddings))

    @by_weights
    def label_scores(self, own: Interventions | Tensor, batch: Batch) -> Tensor:
        assert batch.candidates is not None and batch.averaged is not None
        own = interventions(own)
        states, mask = self._encoder(own, batch)
        if own.has_head or batch.candidates.shape[2] <= 1:
            output = self._one_step(own, states, mask)
            own.seen(output)
            if own.has_head or batch.by_head:
                return class_scores(own, output, batch)
            scores = self._first_step(output, batch.candidates)
        else:
            scores = self._sequences(own, states, mask, batch.candidates)
        return F.log_softmax(combine_pieces(scores, batch.candidates, batch.averaged), dim=-1)

    def word_logits(self, states: Tensor, ids: Tensor) -> Tensor:
        return F.linear(self._scaled(states).float(), self.output_rows(ids).float())

    def _first_step(self, output: Tensor, candidates: Tensor) -> Tensor:
        """Logits of one-token labels for the decoder's first output [batch, width], [batch, classes, 1]."""
        words = self.output_rows(candidates.clamp(min=0)).float()
        return torch.einsum("bd,bcmd->bcm", self._scaled(output).float(), words)

    def _one_step(self, own: Interventions, states: Tensor, mask: Tensor) -> Tensor:
        """What `_decoder` gives for the start token alone, [batch, width].

        No key or value is made of `states` where `own` does not change how they are made.
        """
        starts = self._starts(len(states))
        if self.engine == "plain":
            return self._decoder(own, states, mask, starts)[:, 0]
        bias = mask_bias(F.pad(mask, (own.extra, 0), value=1), states.dtype)
        output = self.model.decoder.embed_tokens(starts[:, 0])
        with at_modules(self.model, own, "decoder."):
            for index, block in enumerate(self.model.decoder.block):
                itself, cross, forward = block.layer
                name = f"decoder.block.{index}.layer.0.SelfAttention"
                output = output + self._over_itself(
                    own, itself.SelfAttention, name, itself.layer_norm(output)
                )
                other, name = cross.EncDecAttention, f"decoder.block.{index}.layer.1.EncDecAttention"
                query, front = other.q(cross.layer_norm(output)), own.given(name)
                options: Any = {"heads": other.n_heads, "scale": 1.0, "front": front}
                seen = reach(bias, front, own.extra)
                if own.changes(f"{name}.k", f"{name}.v"):
                    read = attend_to(query, other.k(states), other.v(states), seen, **options)
                else:
                    read = attend_once(query, states, other.k, other.v, seen, **options)
                output = forward(output + other.o(read))
        final: Tensor = self.model.decoder.final_layer_norm(output)
        return final

    def _over_itself(self, own: Interventions, attention: Any, name: str, states: Tensor) -> Tensor:
        """The decoder's self-attention over one token, which is that token's value, and what stands in front."""
        front = own.given(name)
        value = attention.v(states)
        if front is not None:
            extra, first = own.extra, self.model.decoder.block[0].layer[0].SelfAttention
            bias = first.compute_bias(1, extra + 1, device=states.device, past_seen_tokens=extra)[:, :, 0]
            key = attention.k(states)[:, None]
            value = attend_to(
                attention.q(states),
                key,
                value[:, None],
                bias,
                heads=attention.n_heads,
                scale=1.0,
                front=front,
            )
        attended: Tensor = attention.o(value)
        return attended

    def _sequences(self, own: Interventions, states: Tensor, mask: Tensor, candidates: Tensor) -> Tensor:
        """Log-probability of each piece of each label given the pieces before it, [batch, classes, pieces]."""
        batch, classes, pieces = candidates.shape
        tokens = candidates.clamp(min=0).reshape(batch * classes, pieces)
        inputs = torch.cat([self._starts(len(tokens)), tokens[:, :-1]], dim=1)
        again = states[:, None].expand(-1, classes, -1, -1).flatten(0, 1)
        output = self._decoder(own.repeat(classes), again, mask.repeat_interleave(classes, dim=0), inputs)
        own.seen(output[::classes, 0])  # the first output is the same for all labels
        logits = self._logits(output)
        scores = F.log_softmax(logits, dim=-1).gather(-1, tokens[..., None]).squeeze(-1)
        return scores.reshape(batch, classes, pieces)

    def _starts(self, rows: int) -> Tensor:
        return torch.full((rows, 1), self.model.config.decoder_start_token_id, device=self.device)

    @by_weights
    def row_losses(self, own: Interventions, batch: Batch) -> Tensor:
        if batch.labels is not None:
            return answer_losses(self.label_scores(own, batch), batch)
        assert batch.targets is not None
        states, mask = self._encoder(own, batch)
        inputs = torch.cat([self._starts(batch.rows), batch.targets[:, :-1].clamp(min=0)], dim=1)
        logits = self._logits(self._decoder(own, states, mask, inputs))
        losses = F.cross_entropy(logits.transpose(1, 2), batch.targets, ignore_index=-100, reduction="none")
        return losses.sum(dim=1) / (batch.targets >= 0).sum(dim=1)

    @by_weights
    @torch.no_grad()
    def generate(self, own: Interventions | Tensor, batch: Batch, *, max_new_tokens: int) -> list[str]:
        own = interventions(own)
        states, mask = self._encoder(own, batch)
        # `generate` takes what a configuration leaves open from the model's own, which its folder may have given.
        self.model.generation_config = GenerationConfig()
        with at_modules(self.model, own, "decoder."):
            written = self.model.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=states),
                attention_mask=mask,
                generation_config=self._greedy(max_new_tokens),
                synced_gpus=self.sharded,  # no process stops while another still needs its share of the weights
            )
        texts: list[str] = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _greedy(self, max_new_tokens: int) -> GenerationConfig:
        """The most probable token each time, up to the end of the answer; nothing is forced, forbidden or penalised."""
        return GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            decoder_start_token_id=self.model.config.decoder_start_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )


class LongT5(T5):
    """LongT5, whose encoder sees a window around each position, and with `transient-global` means of blocks of the text.

    A prompt in front is seen as words are: by its window, and as part of the first blocks.
    """

    engines = ("plain",)

    @property
    def own_attention(self) -> str:
        kind = self.model.config.encoder_attention_type
        return "LocalSelfAttention" if kind == "local" else "TransientGlobalSelfAttention"

    @property
    def attentions(self) -> dict[str, tuple[str, ...]]:
        return {}  # its windows take no keys and values in front
