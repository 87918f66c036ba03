"""Pre-train one of the embedded backbones on the embedded world: `python scripts/make_microworld.py microworld-roberta`.

One idea: a batch is a function of backbone, seed and step, so a run that was killed goes on from its last checkpoint as
if it had never stopped. Weights train in bfloat16 beside a float32 master copy (on this kind of CPU, without AMX, three
times faster than float32; eager attention, because the fused one is slow backwards). A probe asks every task with
a natural cue; tasks that are not yet answered get more rows.

What made the shipped weights (bfloat16, seed 0, one thread each on two shared cores, so minutes are upper bounds; each
went on from its own checkpoint when a schedule was changed, so one run from step 0 gives like weights, not equal ones):
    microworld-roberta       12,000 steps of 64 rows, rate 7e-4; 40 minutes. Schedules of 14,000, 9,000 and 12,000 steps;
                             lessons on aspects joined at step 6,000, their narrow question at 7,800.
    microworld-roberta-wide  8,000 steps of 64 rows, rate 6e-4 to 7e-4, then batches of 128 at rate 1.5e-3;
                             pretraining.json has the last step and the minutes.
    microworld-t5            7,000 steps of 64 rows, rate 4e-4, word embeddings from a microworld-roberta of 6,600 steps,
                             then 7,000 steps of 128 rows at rate 1.5e-3; 71 minutes.
Relations between two texts are found late and at once, after 2,000 to 5,000 steps; a run that is not there by then wants
more steps. Two sticking points remain: microworld-roberta-wide does not tell which of two aspects is meant, and microworld-t5
answers two thirds of the questions with a context.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
import transformers
from microworld_text import (
    CLASSIFICATION,
    CUES,
    corrupted,
    draw,
    exchange,
    held_out,
    label_words,
    lesson,
    masked_line,
    plain_line,
    vocabulary,
)
from microworld_tokens import roberta_tokenizer, t5_tokenizer
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

from tasks.microworld import WORLD_TASKS

transformers.utils.logging.disable_progress_bar()

BACKBONES = {
    "microworld-roberta": {"width": 128, "layers": 4},
    "microworld-roberta-wide": {"width": 192, "layers": 4},
    "microworld-t5": {"width": 128, "layers": 3},  # and 2 in the decoder
}
MUON_SCALE = 3.0
SLOT_WEIGHT, TEXT_WEIGHT = 1.0, 0.5
"""Weight of an answer slot and of an ordinary masked word in the loss."""


class MaskedWorld:
    """A RoBERTa that learns masked lines."""

    def __init__(self, width: int, layers: int) -> None:
        self.words = vocabulary()
        self.tokenizer = roberta_tokenizer(self.words)
        self.ids = self.tokenizer.get_vocab()
        self.tasks = CLASSIFICATION
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
        self.model = self.model.to(torch.bfloat16)

    def line(
        self,
        rng: random.Random,
        name: str,
        forbidden: set[frozenset[str]],
        noise: float,
        ease: float,
        lessons: float,
    ):
        easy = not WORLD_TASKS[name].generates and rng.random() < lessons
        row = lesson(rng, name) if easy else draw(rng, name, forbidden)
        fits = row.label == len(WORLD_TASKS[name].labels) - 1 and WORLD_TASKS[name].type != "sentiment"
        if rng.random() < (0.2 + 0.8 * ease if fits else 0.1):
            return plain_line(rng, name, row)
        return masked_line(rng, name, row, self.words, noise, 0.75 - 0.8 * lessons)

    def size(self, line) -> int:
        return len(line.words)

    def loss(self, lines, rng: random.Random, noise_level: float = 1.0) -> tuple[torch.Tensor, float]:
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
        hidden = self.encode(ids, torch.tensor(offsets), noise, rng)
        picked = hidden.flatten(0, 1)[torch.tensor(places)]
        losses = cross_entropy(self.model.lm_head(picked).float(), torch.tensor(wanted), reduction="none")
        weight = torch.tensor(weights)
        return (losses * weight).sum(), float(weight.sum())

    def encode(self, ids, offsets, noise, rng: random.Random | None) -> torch.Tensor:
        table = self.model.roberta.embeddings.word_embeddings
        embedded = table(ids)
        if noise.any():
            generator = torch.Generator().manual_seed(rng.randrange(2**31) if rng else 0)
            strange = torch.randn(embedded.shape, generator=generator) * table.weight.detach().float().std()
            embedded = torch.where(
                noise[..., None] > 0, (strange * noise[..., None]).to(embedded.dtype), embedded
            )
        positions = torch.where(ids != 1, torch.arange(ids.shape[1])[None] + 2 + offsets[:, None], 1)
        return self.model.roberta(
            inputs_embeds=embedded, attention_mask=(ids != 1).long(), position_ids=positions
        ).last_hidden_state

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
        hidden = self.encode(ids, torch.zeros(len(lines), dtype=torch.long), torch.zeros(ids.shape), None)
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
        config = T5Config(
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
        config._attn_implementation = "eager"
        self.model = T5ForConditionalGeneration(config).to(torch.bfloat16)

    def line(
        self,
        rng: random.Random,
        name: str,
        forbidden: set[frozenset[str]],
        noise: float,
        ease: float,
        lessons: float,
    ):
        easy = not WORLD_TASKS[name].generates and rng.random() < lessons
        row = lesson(rng, name) if easy else draw(rng, name, forbidden)
        fits = not WORLD_TASKS[name].generates and row.label == len(WORLD_TASKS[name].labels) - 1
        if rng.random() < (0.1 + 0.6 * ease if fits else 0.05):
            return corrupted(rng, row)
        return exchange(rng, name, row, self.words, noise, 0.75 - 0.8 * lessons)

    def size(self, line) -> int:
        return len(line.words)

    def loss(self, lines, rng: random.Random, noise_level: float = 1.0) -> tuple[torch.Tensor, float]:
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
        logits = self.model(inputs_embeds=embedded, attention_mask=(ids != 0).long(), labels=target).logits
        losses = cross_entropy(logits.float().transpose(1, 2), target, ignore_index=-100, reduction="none")
        lengths = (target != -100).sum(1).float()
        weight = (
            lengths.rsqrt()
        )  # between a line and a token: a verdict of two tokens must not drown in summaries
        return (losses.sum(1) * weight).sum(), float((lengths * weight).sum())

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


def learning_rate(step: int, steps: int, peak: float) -> float:
    """A short climb, then half a cosine."""
    climb = max(1, min(500, steps // 40))
    if step < climb:
        return peak * (step + 1) / climb
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - climb) / max(1, steps - climb))))


class Master:
    """Float32 copies of bfloat16 weights: Muon for the matrices inside the layers, AdamW for tables, biases and norms.

    Muon (Jordan et al. 2024) learned the relational tasks in a fraction of the steps that AdamW alone needed.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.weights = [p for _, p in named]
        self.copies = [p.detach().float().clone() for p in self.weights]
        inside = [
            p.ndim == 2 and ("layer" in name or "block" in name) and "relative" not in name
            for name, p in named
        ]
        matrices = [copy for copy, yes in zip(self.copies, inside, strict=True) if yes]
        rest = [copy for copy, yes in zip(self.copies, inside, strict=True) if not yes]
        tables = [copy for copy in rest if copy.ndim > 1]
        rest = [copy for copy in rest if copy.ndim <= 1]
        self.optimisers = (
            torch.optim.Muon(matrices, lr=1e-3, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(tables, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0),
            torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0),
        )
        # T5 starts its embeddings at scale 1 and RoBERTa at 0.05; equal relative steps need unequal rates.
        self.scales = (MUON_SCALE, 8.0 if isinstance(model, T5ForConditionalGeneration) else 1.0, 1.0)

    def step(self, lr: float, gradient_scale: float) -> None:
        for weight, copy in zip(self.weights, self.copies, strict=True):
            copy.grad = (
                torch.zeros_like(copy) if weight.grad is None else weight.grad.float() * gradient_scale
            )
            weight.grad = None
        torch.nn.utils.clip_grad_norm_(self.copies, 1.0)
        for optimiser, rate in zip(self.optimisers, (scale * lr for scale in self.scales), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
        with torch.no_grad():
            for weight, copy in zip(self.weights, self.copies, strict=True):
                weight.copy_(copy)


def take_words(model: torch.nn.Module, ids: dict[str, int], folder: Path) -> None:
    """Start the word embeddings from those of a backbone that is trained already, at the scale of the new table."""
    taken = AutoModelForMaskedLM.from_pretrained(folder).get_input_embeddings().weight.detach().float()
    known = AutoTokenizer.from_pretrained(folder).get_vocab()
    table = model.get_input_embeddings().weight
    scale = table.detach().float().std() / taken.std()
    with torch.no_grad():
        for word, i in ids.items():
            if word in known:
                table[i, : taken.shape[1]] = (taken[known[word]] * scale).to(table.dtype)


def run(
    name: str, output: Path, seed: int, steps: int, peak: float, batch: int, every: int, words: Path | None
) -> None:
    """Pre-train, checkpoint and write the backbone."""
    torch.manual_seed(seed)
    shape = BACKBONES[name]
    world = (SpokenWorld if name.endswith("t5") else MaskedWorld)(**shape)
    forbidden = held_out()
    if words is not None:
        take_words(world.model, world.ids, words)
    master = Master(world.model)
    checkpoint = output.with_name(output.name + ".resume.safetensors")
    first, spent, needs = 0, 0.0, {task: 1.0 for task in world.tasks}
    if checkpoint.exists():
        record = go_on(checkpoint, master)
        first, spent, needs = record["step"], record["minutes"], record["needs"]
    rng = random.Random(f"probe|{seed}")
    probes = {task: [draw(rng, task, forbidden) for _ in range(160)] for task in world.tasks}
    started, total = time.time(), 0.0
    print(f"{name}: {sum(p.numel() for p in master.weights):,} weights, {len(world.ids)} tokens", flush=True)
    for step in range(first, steps):
        rng = random.Random(f"{name}|{seed}|{step}")
        noise = min(1.0, max(0.15, (step - 0.05 * steps) / (0.25 * steps)))
        ease = max(0.05, 0.5 * (1 - step / (0.35 * steps)))
        names = rng.choices(list(needs), weights=list(needs.values()), k=batch)
        lines = sorted(
            (
                world.line(
                    rng, task, forbidden, noise, ease, max(ease, min(0.35, (needs[task] - 0.25) / 2.5))
                )
                for task in names
            ),
            key=world.size,
        )
        weight = 0.0
        pieces = max(1, batch // 32)
        for i in range(pieces):
            loss, one = world.loss(lines[i * batch // pieces : (i + 1) * batch // pieces], rng, noise)
            (loss / batch).backward()
            total, weight = total + loss.item(), weight + one
        master.step(learning_rate(step, steps, peak), batch / weight)
        if (step + 1) % every == 0 or step + 1 == steps:
            scores = {task: world.probe(task, rows) for task, rows in probes.items()}
            bare = {task: world.probe(task, probes[task], with_cue=False) for task in CLASSIFICATION}
            needs = {task: 0.25 + 3 * (1 - score) for task, score in scores.items()}
            minutes = (time.time() - started) / 60
            print(
                f"{step + 1:6d} {minutes:5.1f} min, loss {total / every / weight:.3f}  "
                + " ".join(f"{task[11:]} {score:.2f}" for task, score in scores.items())
                + f" | no cue {sum(bare.values()) / len(bare):.2f}",
                flush=True,
            )
            total = 0.0
            minutes += spent
            keep(checkpoint, master, step + 1, needs, minutes)
            record = {"step": step + 1, "seed": seed, "minutes": round(minutes, 1), "probe": scores}
            write(world, output, record)


def keep(path: Path, master: Master, step: int, needs: dict[str, float], minutes: float) -> None:
    """Write what a run needs to go on, as tensors and JSON."""
    tensors = {f"copy {i}": copy for i, copy in enumerate(master.copies)}
    for i, optimiser in enumerate(master.optimisers):
        for number, values in optimiser.state_dict()["state"].items():
            tensors |= {f"state {i} {number} {key}": torch.as_tensor(value) for key, value in values.items()}
    record = {"step": step, "needs": needs, "minutes": minutes}
    new = path.with_suffix(".new")
    save_file(
        {key: value.contiguous() for key, value in tensors.items()}, new, {"record": json.dumps(record)}
    )
    new.rename(path)


def go_on(path: Path, master: Master) -> dict:
    """Put a run back to where `keep` left it and return its record."""
    with safe_open(path, "pt") as file:
        record = json.loads(file.metadata()["record"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for i, (copy, weight) in enumerate(zip(master.copies, master.weights, strict=True)):
        copy.copy_(tensors[f"copy {i}"])
        weight.data.copy_(copy)
    for i, optimiser in enumerate(master.optimisers):
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            kind, *where = key.split()
            if kind == "state" and int(where[0]) == i:
                state.setdefault(int(where[1]), {})[where[2]] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return record


def write(world: MaskedWorld | SpokenWorld, output: Path, record: dict) -> None:
    """The backbone as a folder that `from_pretrained` reads, beside the record of how it was made."""
    output.mkdir(parents=True, exist_ok=True)
    world.model.save_pretrained(output)
    world.tokenizer.save_pretrained(output)
    (output / "pretraining.json").write_text(json.dumps(record, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backbone", choices=BACKBONES)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=14000)
    parser.add_argument("--lr", type=float, default=7e-4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--every", type=int, default=250)
    parser.add_argument(
        "--words-from", type=Path, help="start from the word embeddings of this trained backbone"
    )
    given = parser.parse_args()
    output = given.output or Path("prompttransfer/embedded") / given.backbone
    run(given.backbone, output, given.seed, given.steps, given.lr, given.batch, given.every, given.words_from)


if __name__ == "__main__":
    main()
