"""The models that learn the embedded world: a RoBERTa on masked lines, a T5 on exchanges.

One idea: each makes a line of its own kind from a row, and gives the loss of a batch of lines and the score of a probe that
asks by a natural cue. Weights are bfloat16 with eager attention (the fused one is slow backwards on a CPU).
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import torch
from microworld_lessons import lesson
from microworld_looks import finding_loss, look_loss
from microworld_text import (
    CLASSIFICATION,
    CUES,
    corrupted,
    draw,
    exchange,
    label_words,
    masked_line,
    plain_line,
    vocabulary,
)
from microworld_tokens import roberta_tokenizer, t5_tokenizer
from torch.nn.functional import cross_entropy
from transformers import RobertaConfig, RobertaForMaskedLM, T5Config, T5ForConditionalGeneration

from tasks.microworld import WORLD_TASKS

BACKBONES = {
    "microworld-roberta": {"width": 128, "layers": 4},
    "microworld-roberta-wide": {"width": 192, "layers": 4},
    "microworld-t5": {"width": 128, "layers": 3},  # and 2 in the decoder
}
ASPECTS = ("microworld-laptop", "microworld-restaurant")
LESSONS = (*CLASSIFICATION, "microworld-squad")
"""Tasks that have short lessons."""
SLOT_WEIGHT, TEXT_WEIGHT = 1.0, 0.5
"""Weight of an answer slot and of an ordinary masked word in the loss."""


class MaskedWorld:
    """A RoBERTa that learns masked lines."""

    def __init__(self, width: int, layers: int) -> None:
        self.words = vocabulary()
        self.tokenizer = roberta_tokenizer(self.words)
        self.ids = self.tokenizer.get_vocab()
        self.tasks = CLASSIFICATION
        self.teacher: MaskedWorld | None = None
        config = RobertaConfig(
            vocab_size=len(self.ids),
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=4 * width,
            max_position_embeddings=514,
            type_vocab_size=1,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=2,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=0.05,
        )
        config._attn_implementation = "eager"
        self.model = RobertaForMaskedLM(config)
        self.model.roberta.embeddings.position_embeddings.weight.data = waves(514, width) * 0.07
        self.model.bfloat16()

    def line(
        self,
        rng: random.Random,
        name: str,
        forbidden: set[frozenset[str]],
        noise: float,
        ease: float,
        lessons: float,
    ):
        easy = rng.random() < lessons
        row = lesson(rng, name) if easy else draw(rng, name, forbidden)
        fits = row.label == len(WORLD_TASKS[name].labels) - 1 and WORLD_TASKS[name].type != "sentiment"
        if rng.random() < (0.2 + 0.8 * ease if fits else 0.1):
            return plain_line(rng, name, row)
        line = masked_line(rng, name, row, self.words, noise, 0.75 - 0.8 * lessons)
        return replace(line, shown=name in ASPECTS)

    def size(self, line) -> int:
        return len(line.words)

    def loss(
        self, lines, rng: random.Random, noise_level: float = 1.0, teaching: float = 0.0
    ) -> tuple[torch.Tensor, float]:
        """Weighted sum of the cross-entropy at masked positions, and the sum of the weights."""
        longest = _rounded(max(len(line.words) for line in lines))
        ids = torch.full((len(lines), longest), 1)
        noise = torch.zeros(len(lines), longest)
        places, wanted, weights = [], [], []
        offsets = []
        for i, line in enumerate(lines):
            ids[i, : len(line.words)] = torch.tensor([self.ids[word] for word in line.words])
            if line.junk and rng.random() < 0.4:
                noise[i, list(line.junk)] = rng.choice((0.5, 1.0, 2.0))
            offsets.append(rng.randrange(121) if rng.random() < 0.6 * noise_level else 0)
            for position, word in line.answers:
                places.append(i * longest + position)
                wanted.append(self.ids[word])
                weights.append(SLOT_WEIGHT if word in _SLOT_WORDS else TEXT_WEIGHT)
        spare = _rounded(len(places), 64) - len(places)
        places, wanted, weights = places + [0] * spare, wanted + [0] * spare, weights + [0.0] * spare
        shift = torch.tensor(offsets)
        wanted_looks = self.teacher.looks(ids, shift) if self.teacher and teaching > 0 else ()
        hidden, looks = self.encode(ids, shift, noise, rng, looks=bool(wanted_looks))
        picked = hidden.flatten(0, 1)[torch.tensor(places)]
        losses = cross_entropy(self.model.lm_head(picked).float(), torch.tensor(wanted), reduction="none")
        weight = torch.tensor(weights)
        total = (losses * weight).sum()
        if looks:
            free = torch.tensor([not line.shown for line in lines])[:, None] & (ids != 1)
            lesson_loss = look_loss(looks, wanted_looks, free) + finding_loss(looks, lines, (1, 2))
            total = total + teaching * weight.sum() * lesson_loss
        return total, float(weight.sum())

    @torch.no_grad()
    def looks(self, ids, offsets) -> tuple[torch.Tensor, ...]:
        """Attention maps of a trained backbone on these rows, one [rows, heads, time, time] a layer."""
        return self.encode(ids, offsets, torch.zeros(ids.shape), None, looks=True)[1]

    def encode(
        self, ids, offsets, noise, rng: random.Random | None, looks: bool = False
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        table = self.model.roberta.embeddings.word_embeddings
        embedded = table(ids)
        if noise.any():
            generator = torch.Generator().manual_seed(rng.randrange(2**31) if rng else 0)
            strange = torch.randn(embedded.shape, generator=generator) * table.weight.detach().float().std()
            embedded = torch.where(
                noise[..., None] > 0, (strange * noise[..., None]).to(embedded.dtype), embedded
            )
        positions = torch.where(ids != 1, torch.arange(ids.shape[1])[None] + 2 + offsets[:, None], 1)
        output = self.model.roberta(
            inputs_embeds=embedded,
            attention_mask=(ids != 1).long(),
            position_ids=positions,
            output_attentions=looks,
        )
        return output.last_hidden_state, output.attentions or ()

    @torch.no_grad()
    def probe(self, name: str, rows, with_cue: bool = True) -> float:
        """Accuracy over the label words at a slot in front, asked by a natural cue or not at all."""
        task = WORLD_TASKS[name]
        lines = []
        for i, row in enumerate(rows):
            cue = CUES[task.type][i % len(CUES[task.type])].split() if with_cue else []
            second = ["</s>", "</s>", *row.second.split()] if row.second else []
            lines.append([*cue, "<s>", "<mask>", ".", *row.first.split(), *second, "</s>"])
        longest = _rounded(max(map(len, lines)))
        ids = torch.tensor([[self.ids[w] for w in line] + [1] * (longest - len(line)) for line in lines])
        hidden, _ = self.encode(ids, torch.zeros(len(lines), dtype=torch.long), torch.zeros(ids.shape), None)
        at = (ids == self.ids["<mask>"]).float().argmax(1)
        logits = self.model.lm_head(hidden[torch.arange(len(lines)), at]).float()
        chosen = logits[:, [self.ids[word] for word in label_words(task)]].argmax(1)
        return (chosen == torch.tensor([row.label for row in rows])).float().mean().item()


def waves(positions: int, width: int) -> torch.Tensor:
    """Sinusoids to start the position table from: distances are then the same wherever a text stands."""
    rate = torch.exp(-math.log(1000.0) * torch.arange(0, width, 2) / width)
    angle = torch.arange(positions)[:, None] * rate[None]
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


_SLOT_WORDS = frozenset(word for name in CLASSIFICATION for word in label_words(WORLD_TASKS[name]))


class SpokenWorld:
    """A T5 that learns exchanges."""

    def __init__(self, width: int, layers: int) -> None:
        self.words = vocabulary()
        self.tokenizer = t5_tokenizer(self.words)
        self.ids = self.tokenizer.get_vocab()
        self.tasks = tuple(WORLD_TASKS)
        shape: dict[str, Any] = dict(
            vocab_size=len(self.ids),
            d_model=width,
            d_kv=32,
            d_ff=4 * width,
            num_layers=layers,
            num_decoder_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="relu",
            tie_word_embeddings=True,
            decoder_start_token_id=0,
        )
        config = T5Config(**shape)
        config._attn_implementation = "eager"
        self.model = T5ForConditionalGeneration(config)
        self.model.bfloat16()

    def line(
        self,
        rng: random.Random,
        name: str,
        forbidden: set[frozenset[str]],
        noise: float,
        ease: float,
        lessons: float,
    ):
        easy = name in LESSONS and rng.random() < lessons
        row = lesson(rng, name) if easy else draw(rng, name, forbidden)
        fits = not WORLD_TASKS[name].generates and row.label == len(WORLD_TASKS[name].labels) - 1
        if rng.random() < (0.1 + 0.6 * ease if fits else 0.05):
            return corrupted(rng, row)
        line = exchange(rng, name, row, self.words, noise, 0.75 - 0.8 * lessons)
        return replace(line, shown=name == "microworld-squad")

    def size(self, line) -> int:
        return len(line.words)

    def loss(
        self, lines, rng: random.Random, noise_level: float = 1.0, teaching: float = 0.0
    ) -> tuple[torch.Tensor, float]:
        """Weighted sum of the cross-entropy of the target tokens, and the sum of the weights."""
        ids = _padded([[self.ids[w] for w in line.words] for line in lines], 0)
        target = _padded([[self.ids[w] for w in line.target] for line in lines], -100, 8)
        embedded = self.model.shared(ids)
        noise = torch.zeros(ids.shape)
        for i, line in enumerate(lines):
            if line.junk and rng.random() < 0.4:
                noise[i, list(line.junk)] = rng.choice((0.5, 1.0, 2.0))
        if noise.any():
            generator = torch.Generator().manual_seed(rng.randrange(2**31))
            strange = (
                torch.randn(embedded.shape, generator=generator)
                * self.model.shared.weight.detach().float().std()
            )
            embedded = torch.where(
                noise[..., None] > 0, (strange * noise[..., None]).to(embedded.dtype), embedded
            )
        shown = teaching > 0 and any(line.shown for line in lines)
        output = self.model(
            inputs_embeds=embedded,
            attention_mask=(ids != 0).long(),
            labels=target,
            output_attentions=shown,
        )
        losses = cross_entropy(
            output.logits.float().transpose(1, 2), target, ignore_index=-100, reduction="none"
        )
        lengths = (target != -100).sum(1).float()
        # Between a line and a token: a verdict of two tokens must not drown in summaries.
        weight = lengths.rsqrt()
        total, count = (losses.sum(1) * weight).sum(), float((lengths * weight).sum())
        if shown:
            total = total + teaching * count * finding_loss(output.encoder_attentions, lines, (0, 1))
        return total, count

    @torch.no_grad()
    def probe(self, name: str, rows, with_cue: bool = True) -> float:
        """Share of rows whose answer is said exactly, asked by a natural cue or not at all."""
        task = WORLD_TASKS[name]
        lines, wanted = [], []
        for i, row in enumerate(rows):
            cue = CUES[task.type][i % len(CUES[task.type])].split() if with_cue else []
            second = ["</s>", *row.second.split()] if row.second else []
            lines.append([self.ids[w] for w in [*cue, *row.first.split(), *second, "</s>"]])
            answer = row.references[0] if task.generates else label_words(task)[row.label]
            wanted.append([self.ids[w] for w in answer.split()] + [1])
        ids, target = _padded(lines, 0), _padded(wanted, -100, 8)
        logits = self.model(input_ids=ids, attention_mask=(ids != 0).long(), labels=target).logits
        if not task.generates:
            among = [self.ids[word] for word in label_words(task)]
            return (
                (logits[:, 0, among].argmax(1) == torch.tensor([row.label for row in rows]))
                .float()
                .mean()
                .item()
            )
        return ((logits.argmax(-1) == target) | (target == -100)).all(1).float().mean().item()


def _rounded(length: int, step: int = 16) -> int:
    """Few different shapes: each new one costs the matrix library a compilation."""
    return -(-length // step) * step


def _padded(rows: list[list[int]], fill: int, step: int = 16) -> torch.Tensor:
    longest = _rounded(max(map(len, rows)), step)
    return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])
