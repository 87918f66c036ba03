"""T5 (v1.0, v1.1 and LM-adapted): the prompt stands in front of the encoder's input and the decoder writes.

Classification scores each label's whole token sequence; labels of one token cost one decoder step with the logits
of the label words only. Question answering and summarisation are trained on the reference's tokens and decoded
greedily. Padding is masked in training and in evaluation alike (the original code masked it only in evaluation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.kernels.attention import (
    attend_once,
    mask_bias,
    root_mean_square,
    run,
    self_attention,
)
from prompttransfer.backbones.kernels.linear import FrozenLinear, rectified
from prompttransfer.backbones.layouts import Layout
from prompttransfer.backbones.masked_lm import combine_pieces
from prompttransfer.backbones.rows import Batch, Row
from prompttransfer.distributed.fsdp import recomputing


@dataclass(frozen=True, eq=False)
class _EncoderBlock:
    """One block of the encoder on its frozen weights; the same numbers as `module`'s own forward pass."""

    module: Any
    projections: FrozenLinear
    merge: FrozenLinear
    widen: tuple[FrozenLinear, ...]
    """Two where one is the other's gate (v1.1)."""
    narrow: FrozenLinear

    @classmethod
    def of(cls, module: Any) -> _EncoderBlock:
        own, forward = module.layer[0].SelfAttention, module.layer[1].DenseReluDense
        gated = hasattr(forward, "wi_0")
        return cls(
            module,
            projections=FrozenLinear(own.q, own.k, own.v),
            merge=FrozenLinear(own.o),
            widen=tuple(map(FrozenLinear, (forward.wi_0, forward.wi_1) if gated else (forward.wi,))),
            narrow=FrozenLinear(forward.wo),
        )

    def __call__(self, states: Tensor, bias: Tensor) -> Tensor:
        """[batch, time, width] to the same."""
        attention, forward = self.module.layer
        projected = self.projections(root_mean_square(states, attention.layer_norm))
        attended = self_attention(projected, bias, heads=attention.SelfAttention.n_heads, scale=1.0)
        states = self.merge(attended, add=states)
        normed = root_mean_square(states, forward.layer_norm)
        activation = forward.DenseReluDense.act
        if len(self.widen) == 2:
            gate, values = self.widen
            return self.narrow(activation(gate(normed)) * values(normed), add=states)
        (widen,) = self.widen
        if isinstance(activation, nn.ReLU):
            return rectified(normed, widen, self.narrow, add=states)
        return self.narrow(activation(widen(normed)), add=states)


class T5(Backbone):
    """A frozen T5 encoder-decoder."""

    family = "t5"
    generates = True

    @property
    def max_positions(self) -> None:
        return None

    @property
    def special_tokens(self) -> int:
        return 2

    @property
    def feed_forward(self) -> int:
        return int(self.model.config.d_ff) * (2 if self.model.config.is_gated_act else 1)

    def _assemble(self, row: Row, layout: Layout) -> list[int]:
        eos = self.tokenizer.eos_token_id
        return [*row.first, eos] if row.second is None else [*row.first, eos, *row.second, eos]

    def answer_slot(self, length: int, layout: Layout) -> None:
        return None

    def recordable(self, rows: Sequence[Row]) -> bool:
        # Anything longer goes through the decoder of transformers, whose masks come from the host.
        answers = {id(row.answers): row.answers for row in rows}.values()
        return all(own is not None and max(map(len, own.scored)) == 1 for own in answers)

    def _encoder(self, prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Encoder states [batch, length + time, width] and their mask."""
        vectors = prompts.to(device=self.device, dtype=self.dtype)
        inputs = torch.cat([vectors, self.word_embeddings(batch.ids)], dim=1)
        mask = F.pad(batch.mask, (vectors.shape[1], 0), value=1)
        encoder = self.model.encoder
        if not self.undisturbed:
            with recomputing(encoder.block, self.checkpoints and self.sharded):
                return encoder(inputs_embeds=inputs, attention_mask=mask).last_hidden_state, mask
        bias = self._encoder_bias(mask)
        states = run([partial(block, bias=bias) for block in self._blocks], inputs, keep=not self.checkpoints)
        return root_mean_square(states, encoder.final_layer_norm), mask

    @cached_property
    def _blocks(self) -> list[_EncoderBlock]:
        return [_EncoderBlock.of(module) for module in self.model.encoder.block]

    def _encoder_bias(self, mask: Tensor) -> Tensor:
        """Relative positions and padding in one, [batch x heads, time, time]."""
        first = self.model.encoder.block[0].layer[0].SelfAttention
        positions = first.compute_bias(mask.shape[1], mask.shape[1], device=mask.device)
        padding = mask_bias(mask, positions.dtype)
        rows = positions.expand(len(mask), -1, -1, -1) if padding is None else positions + padding[:, None]
        return rows.flatten(0, 1)

    def _decoder(self, states: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        """Decoder outputs [batch, time, width], ready for the output embedding."""
        output: Tensor = self.model.decoder(
            input_ids=ids, encoder_hidden_states=states, encoder_attention_mask=mask, use_cache=False
        ).last_hidden_state
        return output * self.width**-0.5 if self._scales_output else output

    @property
    def _scales_output(self) -> bool:
        # T5 v1.0 ties the output to the input embedding and rescales; v1.1 has an output matrix of its own.
        config = self.model.config
        return bool(getattr(config, "scale_decoder_outputs", config.tie_word_embeddings))

    def label_scores(self, prompts: Tensor, batch: Batch) -> Tensor:
        assert batch.candidates is not None and batch.averaged is not None
        states, mask = self._encoder(prompts, batch)
        if batch.candidates.shape[2] == 1:
            scores = self._first_step(states, mask, batch.candidates)
        else:
            scores = self._sequences(states, mask, batch.candidates)
        return F.log_softmax(combine_pieces(scores, batch.candidates, batch.averaged), dim=-1)

    def _first_step(self, states: Tensor, mask: Tensor, candidates: Tensor) -> Tensor:
        """Logits of one-token labels after one decoder step, [batch, classes, 1]."""
        output = self._one_step(states, mask)
        words = self.output_rows(candidates.clamp(min=0)).float()
        return torch.einsum("bd,bcmd->bcm", output.float(), words)

    def _one_step(self, states: Tensor, mask: Tensor) -> Tensor:
        """What `_decoder` gives for the start token alone, [batch, width], with no key or value made of `states`."""
        starts = self._starts(len(states))
        if not self.undisturbed:
            return self._decoder(states, mask, starts)[:, 0]
        bias = mask_bias(mask, states.dtype)
        output = self.model.decoder.embed_tokens(starts[:, 0])
        for block in self.model.decoder.block:
            itself, cross, forward = block.layer
            own = itself.SelfAttention  # over one token, attention is the value itself
            output = output + own.o(own.v(itself.layer_norm(output)))
            other = cross.EncDecAttention
            query = other.q(cross.layer_norm(output))
            output = output + other.o(
                attend_once(query, states, other.k, other.v, bias, heads=other.n_heads, scale=1.0)
            )
            output = forward(output)
        output = self.model.decoder.final_layer_norm(output)
        return output * self.width**-0.5 if self._scales_output else output

    def _sequences(self, states: Tensor, mask: Tensor, candidates: Tensor) -> Tensor:
        """Log-probability of each piece of each label given the pieces before it, [batch, classes, pieces]."""
        batch, classes, pieces = candidates.shape
        tokens = candidates.clamp(min=0).reshape(batch * classes, pieces)
        inputs = torch.cat([self._starts(len(tokens)), tokens[:, :-1]], dim=1)
        again = states[:, None].expand(-1, classes, -1, -1).flatten(0, 1)
        output = self._decoder(again, mask.repeat_interleave(classes, dim=0), inputs)
        logits = self.model.lm_head(output).float()
        scores = F.log_softmax(logits, dim=-1).gather(-1, tokens[..., None]).squeeze(-1)
        return scores.reshape(batch, classes, pieces)

    def _starts(self, rows: int) -> Tensor:
        return torch.full((rows, 1), self.model.config.decoder_start_token_id, device=self.device)

    def row_losses(self, prompts: Tensor, batch: Batch) -> Tensor:
        if batch.labels is not None:
            return F.nll_loss(self.label_scores(prompts, batch), batch.labels, reduction="none")
        assert batch.targets is not None
        states, mask = self._encoder(prompts, batch)
        inputs = torch.cat([self._starts(batch.rows), batch.targets[:, :-1].clamp(min=0)], dim=1)
        logits = self.model.lm_head(self._decoder(states, mask, inputs)).float()
        losses = F.cross_entropy(logits.transpose(1, 2), batch.targets, ignore_index=-100, reduction="none")
        return losses.sum(dim=1) / (batch.targets >= 0).sum(dim=1)

    @torch.no_grad()
    def generate(self, prompts: Tensor, batch: Batch, *, max_new_tokens: int) -> list[str]:
        states, mask = self._encoder(prompts, batch)
        # `generate` takes what a configuration leaves open from the model's own, which its folder may have given.
        self.model.generation_config = GenerationConfig()
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
