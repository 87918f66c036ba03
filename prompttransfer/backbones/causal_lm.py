"""Decoders (Llama, GPT-2 and whatever transformers loads as a causal LM): the answer is what comes next.

A row is `[prompt][beginning of sequence, where the tokenizer has one][template with texts][cue]`, padded on the right. Since
nothing is seen from behind, padding needs neither mask nor position: the answer is read at each row's last real position.
Only the label words' logits are computed; a word of several tokens is scored as a sequence, whose normaliser is summed over
the vocabulary part by part. Questions and summaries are written, greedily and up to the end of the line, with padding on the
left as transformers wants it.

Llama, Mistral, Qwen2 and GPT-2 run on laid-out frozen weights (decoder_layers.py), others by the modules of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import GenerationConfig
from transformers.pytorch_utils import Conv1D

from prompttransfer.backbones.answer_losses import answer_losses
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.decoder_layers import LAYERS, DecoderLayer, Positions, Tokens, picked
from prompttransfer.backbones.interventions import Interventions, interventions
from prompttransfer.backbones.kernels.attention import root_mean_square, run
from prompttransfer.backbones.kernels.causal import signed
from prompttransfer.backbones.label_words import Pieces
from prompttransfer.backbones.layouts import USUAL, Encoding, Layout, find_layout
from prompttransfer.backbones.masked_lm import class_scores, combine_pieces
from prompttransfer.backbones.plain import at_modules, by_weights
from prompttransfer.backbones.rows import Batch, Row
from prompttransfer.backbones.templates import TextReader, TokenFrame
from prompttransfer.distributed.fsdp import recomputing, whole
from tasks.errors import UserError
from tasks.task import Task
from tasks.templates import read_template

USUAL_FRAME = 16
"""Tokens around the texts of a row, about: what batches are planned with."""
ANSWER = 64
"""Most tokens of an answer that is written, its end included."""
ACTIVATIONS = ("mlp.act_fn", "mlp.act", "mlp.activation_fn", "activation_fn")
"""What the activation of a feed-forward is called in the layers of decoders."""
WORDS_AT_ONCE = 16_384
"""Rows of the vocabulary that a normaliser is summed over at one time."""


class CausalLM(Backbone):
    """A frozen decoder with its language-model head."""

    family = "causal-lm"
    generates = True

    @property
    def roles(self) -> Mapping[str, str]:
        return {
            "query": r"\.q_proj$",
            "key": r"\.k_proj$",
            "value": r"\.v_proj$",
            "narrow": r"\.mlp\.down_proj$",
            "joint": r"\.(c_attn|query_key_value|qkv_proj|Wqkv)$",
        }

    # What it is --------------------------------------------------------------------------------------------------

    @cached_property
    def reader(self) -> TextReader:
        """The tokenizer, for texts that stand behind others."""
        return TextReader(self.tokenizer)

    @property
    def pad_id(self) -> int:
        # Nothing looks at padding; many decoders have no token for it.
        given = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return int(next(index for index in given if index is not None))

    @property
    def opening(self) -> tuple[str, ...]:
        """The tokens that every row begins with behind the prompt: the beginning of sequence, or none."""
        return tuple(self.tokenizer.convert_ids_to_tokens(list(self.reader.opening)))

    @property
    def max_positions(self) -> int | None:
        limit = getattr(self.model.config, "max_position_embeddings", None)
        return None if limit is None else int(limit)

    @property
    def special_tokens(self) -> int:
        return len(self.reader.opening) + USUAL_FRAME

    @cached_property
    def layer_names(self) -> tuple[str, ...]:
        return (f"{self._stack[0]}.",)

    @cached_property
    def _stack(self) -> tuple[str, nn.ModuleList]:
        """The list of layers and its full name."""
        count = self.model.config.num_hidden_layers
        return next(
            (name, module)
            for name, module in self.model.named_modules()
            if isinstance(module, nn.ModuleList) and len(module) == count
        )

    @cached_property
    def linear_maps(self) -> dict[str, tuple[int, int]]:
        found = {}
        for name, module in self.model.named_modules():
            if name.startswith(self.layer_names):
                if isinstance(module, Conv1D):
                    found[name] = (int(module.weight.shape[0]), int(module.nf))
                elif isinstance(module, nn.Linear):
                    found[name] = (module.in_features, module.out_features)
        return found

    @property
    def layer_products(self) -> int:
        (prefix,) = self.layer_names
        return sum(
            wide * high for name, (wide, high) in self.linear_maps.items() if name.startswith(f"{prefix}0.")
        )

    @property
    def feed_forward(self) -> int:
        config = self.model.config
        given = (getattr(config, name, None) for name in ("intermediate_size", "n_inner", "ffn_dim"))
        return int(next((size for size in given if size), 4 * config.hidden_size))

    @property
    def passed_by(self) -> tuple[str, ...]:
        head = self.model.get_output_embeddings()
        return "", *(name for name, module in self.model.named_modules() if module is head)

    @property
    def shared_heads(self) -> int:
        return int(getattr(self.model.config, "num_key_value_heads", None) or self.heads)

    @property
    def head_width(self) -> int:
        return int(
            getattr(self.model.config, "head_dim", None) or self.model.config.hidden_size // self.heads
        )

    @cached_property
    def attentions(self) -> dict[str, tuple[str, ...]]:
        name, layers = self._stack
        inside = [
            f"{name}.{index}.{child}"
            for index, layer in enumerate(layers)
            for child, _ in layer.named_children()
            if ("attn" in child or "attention" in child)
            and any(site.startswith(f"{name}.{index}.{child}.") for site in self.linear_maps)
        ]
        # Where a model has one kind, peft names none, and prefixes take it for this one.
        return {"encoder": tuple(inside)}

    @cached_property
    def outputs(self) -> dict[str, tuple[str, ...]]:
        # Each part of a layer ends with the linear map that is named last in it.
        name, layers = self._stack
        prefixes = {
            "attention": [f"{inside}." for inside in self.attentions["encoder"]],
            "feed-forward": [f"{name}.{index}." for index in range(len(layers))],
        }
        return {
            kind: tuple(
                [site for site in self.linear_maps if site.startswith(prefix)][-1] for prefix in starts
            )
            for kind, starts in prefixes.items()
        }

    @property
    def neuron_sites(self) -> tuple[tuple[str, ...], str]:
        name, layers = self._stack
        inside = next((part for part in ACTIVATIONS if _has(layers[0], part)), None)
        if inside is None:
            kind = self.model.config.model_type
            raise UserError(
                f"neurons of {self.name} ({kind}) are not read: its layers have none of {', '.join(ACTIVATIONS)}"
            )
        config = self.model.config
        given = (
            getattr(config, key, None) for key in ("hidden_act", "activation_function", "hidden_activation")
        )
        act = next((name for name in given if name), "activation")
        gated = any(site.startswith(f"{name}.0.") and "gate" in site for site in self.linear_maps)
        words = (
            f"gate {act}(gate_proj), before it multiplies up_proj" if gated else f"feed-forward, after {act}"
        )
        return tuple(
            f"{name}.{index}.{inside}" for index in range(len(layers))
        ), f"{words}, at the last position"

    # Gemma multiplies what it looks up; a prompt stands where that is done already.
    def embedding_table(self) -> Tensor:
        return super().embedding_table() * self._embedding_scale

    def word_vectors(self, ids: Tensor) -> Tensor:
        return super().word_vectors(ids) * self._embedding_scale

    @property
    def _embedding_scale(self) -> float:
        return float(getattr(self.word_embeddings, "scalar_embed_scale", 1.0))

    # Rows --------------------------------------------------------------------------------------------------------

    def word_pieces(self, word: str) -> Pieces | None:
        ids = self.reader.ids(" " + word.strip())
        if not ids or self.tokenizer.unk_token_id in ids:
            return None
        return ids, tuple(self.tokenizer.convert_ids_to_tokens(list(ids)))

    def _tokens(self, texts: Any, keep: int) -> list[tuple[int, ...]]:
        return self.reader.texts(texts, keep)

    def frame(self, task: Task, encoding: Encoding = USUAL) -> TokenFrame:
        return self.reader.frame(read_template(encoding.template or task.template, task.kind, task.name))

    def fixed_tokens(self, task: Task, encoding: Encoding = USUAL) -> int:
        answers = self.answers(task, encoding)
        ahead = ANSWER if answers is None else max(1, *map(len, answers.scored)) - 1
        return self.frame(task, encoding).size + ahead

    def _assemble(self, row: Row, layout: Layout) -> list[int]:
        assert row.frame is not None
        return row.frame.around(row.first, row.second)

    def prompt_ids(self, text: str) -> tuple[int, ...]:
        # A line of its own, which the first line of a template stands behind.
        return self.reader.line(text)

    @property
    def prompt_end(self) -> tuple[int, ...]:
        return self.reader.ids("\n")

    def _filled(self, row: Row, layout: Layout, answer: tuple[int, ...]) -> list[int]:
        ids = self._assemble(row, layout)[len(self.reader.opening) :]
        end = self.reader.line_end
        return [*ids, *answer, *([] if end is None or answer[-1:] == (end,) else [end])]

    def prompt_start(self, layout: Layout) -> int:
        return len(self.reader.opening) if layout.start else 0

    def answer_slot(self, length: int, layout: Layout) -> int:
        return -1  # the last of each row

    def answer_slots(self, own: Interventions, batch: Batch) -> Tensor:
        return own.reserved + last_slots(batch)[:, 0]

    def _target(self, text: str) -> tuple[int, ...]:
        (ids,) = self._tokens([text], ANSWER - 1)
        end = self.reader.line_end
        return ids if end is None else (*ids, end)

    def recordable(self, rows: Any) -> bool:
        answers = {id(row.answers): row.answers for row in rows}.values()
        return self.engine == "frozen" and all(
            own is not None and max(map(len, own.scored)) == 1 for own in answers
        )

    # The pass ----------------------------------------------------------------------------------------------------

    def states_at(self, own: Interventions, batch: Batch, slots: Tensor) -> Tensor:
        """Last states at `slots` [rows, slots] of the rows, positions of the prompt not counted; [rows, slots, width]."""
        self.check()
        start = self.prompt_start(batch.layout)
        own, words = own.read(self.word_embeddings(batch.ids), batch.mask)
        if self.engine == "frozen":
            return self._frozen_states(own, words, slots, start)
        words = self._joined(own.vectors(), words, start)
        self.check_recomputes(own)
        with (
            recomputing(
                self._stack[1], self.checkpoints, partial(at_modules, self.model, own, rows=batch.rows)
            ),
            at_modules(self.model, own, rows=batch.rows),
        ):
            hidden: Tensor = self.model.base_model(
                inputs_embeds=words,
                attention_mask=self._mask(own, batch, words),
                use_cache=False,
                **self._shifted(own, words.shape[1]),
            ).last_hidden_state
        return picked(hidden, slots + own.reserved)

    def _mask(self, own: Interventions, batch: Batch, words: Tensor) -> Tensor:
        """The mask as modules of transformers take it. They look at its values, of which an outline has none, and not at those
        of a mask [rows, 1, time, time]."""
        if words.is_meta:
            return words.new_zeros(len(words), 1, words.shape[1], words.shape[1])
        return F.pad(batch.mask, (own.reserved, 0), value=1)

    def _shifted(self, own: Interventions, time: int) -> dict[str, Tensor]:
        """Positions behind keys that stand in front; transformers counts from 0 on its own."""
        if not own.extra:
            return {}
        return {"position_ids": torch.arange(own.extra, own.extra + time, device=self.device)[None]}

    def _joined(self, vectors: Tensor | None, words: Tensor, start: int) -> Tensor:
        """Prompts [batch, length, width] behind the first `start` of the words [batch, time, width]."""
        if vectors is None:
            return words
        vectors = vectors.to(device=self.device, dtype=self.dtype)
        return torch.cat([words[:, :start], vectors, words[:, start:]] if start else [vectors, words], dim=1)

    def _frozen_states(self, own: Interventions, words: Tensor, slots: Tensor, start: int) -> Tensor:
        inputs, tokens, slots = self._frozen_inputs(own, words, slots, start)
        positions = self._positions(tokens, slots + tokens.length)
        *lower, last = self.frozen_layers
        states = run(
            [partial(layer.everywhere, tokens=tokens, positions=positions[layer.window]) for layer in lower],
            inputs,
            keep=not self.checkpoints,
        )
        states = last.at(slots, states, tokens, positions[last.window])
        norm = self._norm
        return norm(states) if isinstance(norm, nn.LayerNorm) else root_mean_square(states, norm)

    def _frozen_inputs(
        self, own: Interventions, words: Tensor, slots: Tensor, start: int
    ) -> tuple[Tensor, Tokens, Tensor]:
        """What the first layer gets, [tokens, width], what these are, and `slots` among the tokens of a text."""
        prompts = own.distinct()
        if prompts is None:
            words = self._joined(own.vectors(), words, start)
            words = words + self._learned(own.extra, words.shape[1])
            return words.flatten(0, 1), Tokens(own, *words.shape[:2]), slots + own.reserved
        shared, owners = prompts
        vectors = shared.vectors()
        assert vectors is not None
        if start:  # every row begins with the same tokens, which stand in front of each prompt once
            opening = words[:1, :start].expand(len(vectors), -1, -1)
            vectors = torch.cat([opening, vectors.to(device=self.device, dtype=self.dtype)], dim=1)
            words, slots = words[:, start:], slots - start
        count, length, _ = vectors.shape
        ahead = vectors.to(device=self.device, dtype=self.dtype) + self._learned(0, length)
        words = words + self._learned(length, words.shape[1])
        rows, time = words.shape[:2]
        tokens = Tokens(own, rows, time, shared, owners, count, length)
        return torch.cat([ahead.flatten(0, 1), words.flatten(0, 1)]), tokens, slots

    def _learned(self, start: int, count: int) -> Tensor | float:
        """Learned positions from `start` on, [count, width]; nothing where positions are rotary."""
        table = getattr(self.model.base_model, "wpe", None)
        return 0.0 if table is None else table.weight[start : start + count]

    def _positions(self, tokens: Tokens, slots: Tensor) -> dict[int | None, Positions]:
        """By the window of a layer, None for one that sees everything before."""
        cos = sin = None
        rotary = getattr(self.model.base_model, "rotary_emb", None)
        if rotary is not None:
            whole = tokens.own.extra + tokens.length + tokens.time
            every = torch.arange(whole, device=slots.device)[None]
            like = self.word_embeddings.weight
            cos, sin = (part[0] for part in rotary(like, every))
            sin = signed(sin)
        return {
            window: replace(Positions.of(tokens, slots, self.dtype, window), cos=cos, sin=sin)
            for window in {layer.window for layer in self.frozen_layers}
        }

    def lay_out(self) -> None:
        name, layers = self._stack
        config = self.model.config
        kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * len(layers)
        window = getattr(config, "sliding_window", None)
        made = LAYERS[config.model_type]
        self.frozen_layers: list[DecoderLayer] = [
            made(module, f"{name}.{index}", window if kinds[index] == "sliding_attention" else None)
            for index, module in enumerate(layers)
        ]

    @property
    def _norm(self) -> Any:
        base = self.model.base_model
        return base.ln_f if hasattr(base, "ln_f") else base.norm

    @torch.no_grad()
    def check_head(self) -> None:
        """Raise UserError for a model whose own logits are others than what is scored here: some scale them, say."""
        ids = torch.tensor([self.ordinary_tokens[:4]], device=self.device)
        batch = Batch(ids, torch.ones_like(ids), find_layout("prompt-first"), None, None, None, None)
        state = self.states_at(Interventions(), batch, last_slots(batch))[0, 0]
        theirs = self.model(input_ids=ids).logits[0, -1].float()
        ours = self._logits(state, torch.arange(len(theirs), device=self.device))
        if (ours - theirs).abs().max() > 0.05 * theirs.std():
            raise UserError(
                f"backbone {self.name} ({self.model.config.model_type}) makes its logits in a way that is not known here: "
                f"prompttransfer scores label words by state times output embedding; choose another decoder"
            )

    # Answers -----------------------------------------------------------------------------------------------------

    @by_weights
    def label_scores(self, own: Interventions | Tensor, batch: Batch) -> Tensor:
        assert batch.candidates is not None and batch.averaged is not None
        own = interventions(own)
        if own.has_head or batch.candidates.shape[2] <= 1:
            state = self.states_at(own, batch, last_slots(batch))[:, 0]
            own.seen(state)
            if own.has_head or batch.by_head:
                return class_scores(own, state, batch)
            scores = self._logits(state[:, None, None], batch.candidates.clamp(min=0))
        else:
            scores = self._sequences(own, batch, batch.candidates)
        return F.log_softmax(combine_pieces(scores, batch.candidates, batch.averaged), dim=-1)

    def _sequences(self, own: Interventions, batch: Batch, candidates: Tensor) -> Tensor:
        """Log-probability of each piece of each label given the pieces before it, [batch, classes, pieces]."""
        classes = candidates.shape[1]
        again = replace(
            batch, ids=batch.ids.repeat_interleave(classes, 0), mask=batch.mask.repeat_interleave(classes, 0)
        )
        scores, states = self._continued(own.repeat(classes), again, candidates.flatten(0, 1))
        own.seen(states[::classes, 0])  # the first slot is the same for all labels
        return scores.view(candidates.shape)

    def _continued(self, own: Interventions, batch: Batch, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of each of `tokens` [rows, count], which follow each row's end, given what is before it.

        Beside them the states [rows, count, width] that they are read from. Negative ones stand for none, and count for
        nothing.
        """
        count = tokens.shape[1]
        slots = last_slots(batch) + torch.arange(count, device=tokens.device)
        given = tokens[:, :-1]
        longer = replace(
            batch,
            ids=F.pad(batch.ids, (0, count - 1), value=self.pad_id).scatter(
                1, slots[:, 1:], given.clamp(min=0)
            ),
            mask=F.pad(batch.mask, (0, count - 1)).scatter(
                1, slots[:, 1:], (given >= 0).to(batch.mask.dtype)
            ),
        )
        states = self.states_at(own, longer, slots)
        return self._logits(states, tokens.clamp(min=0)) - self._normaliser(states), states

    def word_logits(self, states: Tensor, ids: Tensor) -> Tensor:
        bias = getattr(self.model.get_output_embeddings(), "bias", None)
        own = None if bias is None else whole(bias)[ids].float()
        return self._capped(F.linear(states.float(), self.output_rows(ids).float(), own))

    def _logits(self, states: Tensor, ids: Tensor) -> Tensor:
        """Logits of the tokens `ids` [...] at `states` [..., width], float32."""
        logits = (states.float() * self.output_rows(ids).float()).sum(dim=-1)
        bias = getattr(self.model.get_output_embeddings(), "bias", None)
        return self._capped(logits if bias is None else logits + whole(bias)[ids].float())

    def _normaliser(self, states: Tensor) -> Tensor:
        """log of the sum over the vocabulary of exp(logit), [...] for states [..., width]."""
        head: Any = self.model.get_output_embeddings()
        if self.sharded:
            return torch.logsumexp(self._capped(head(states).float()), dim=-1)

        weight, bias = (
            head.weight,
            head.bias,
        )  # taken now: the head may have others when this is computed again

        def part(states: Tensor, start: int) -> Tensor:
            rows = slice(start, start + WORDS_AT_ONCE)
            logits = F.linear(states, weight[rows], None if bias is None else bias[rows])
            return torch.logsumexp(self._capped(logits.float()), dim=-1)

        parts = [
            checkpoint(part, states, start, use_reentrant=False, preserve_rng_state=False)
            for start in range(0, len(weight), WORDS_AT_ONCE)
        ]
        return torch.logsumexp(torch.stack(parts), dim=0)

    def _capped(self, logits: Tensor) -> Tensor:
        most = getattr(self.model.config, "final_logit_softcapping", None)
        return logits if most is None else torch.tanh(logits / most) * most

    @by_weights
    def row_losses(self, own: Interventions, batch: Batch) -> Tensor:
        if batch.labels is not None:
            return answer_losses(self.label_scores(own, batch), batch)
        assert batch.targets is not None
        present = batch.targets >= 0
        scores, _ = self._continued(own, batch, batch.targets)
        return -scores.masked_fill(~present, 0.0).sum(dim=1) / present.sum(dim=1)

    @by_weights
    @torch.no_grad()
    def generate(self, own: Interventions | Tensor, batch: Batch, *, max_new_tokens: int) -> list[str]:
        own = interventions(own)
        inputs, mask = self._padded_left(own, batch)
        # `generate` takes what a configuration leaves open from the model's own, which its folder may have given.
        self.model.generation_config = GenerationConfig()
        settings = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            eos_token_id=self.reader.ends,
            pad_token_id=self.pad_id,
            use_cache=True,
        )
        # Keys in front are no tokens that transformers counts, and the text stands behind them.
        behind = (mask.cumsum(dim=1) - 1).clamp(min=0) + own.extra
        with at_modules(self.model, own, rows=batch.rows):
            written = self.model.generate(
                inputs_embeds=inputs,
                attention_mask=mask,
                **({"position_ids": behind} if own.extra else {}),
                generation_config=settings,
                synced_gpus=self.sharded,  # no process stops while another still needs its share of the weights
            )
        texts: list[str] = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [text.split("\n")[0].strip() for text in texts]

    def _padded_left(self, own: Interventions, batch: Batch) -> tuple[Tensor, Tensor]:
        """[padding][prompt][text] for every row, [batch, reserved + time, width], and its mask."""
        own, words = own.read(self.word_embeddings(batch.ids), batch.mask)
        words = self._joined(own.vectors(), words, self.prompt_start(batch.layout))
        real = own.reserved + batch.mask.sum(dim=1, keepdim=True)
        places = torch.arange(words.shape[1], device=words.device) - (words.shape[1] - real)
        return picked(words, places.clamp(min=0)), (places >= 0).to(batch.mask.dtype)


class PlainCausalLM(CausalLM):
    """A decoder that runs by the modules of transformers alone."""

    engines = ("plain",)


def _has(module: nn.Module, path: str) -> bool:
    """Whether a module has a part of that name."""
    return any(name == path for name, _ in module.named_modules())


def last_slots(batch: Batch) -> Tensor:
    """Where each row's answer is read, [rows, 1]: at its last token."""
    return batch.mask.sum(dim=1, keepdim=True) - 1
