"""The ways of training a prompt that the benchmark compares; each runs in a process of its own (benchmark.py).

ours            what `prompttransfer train` runs: BankTraining and BankData under Lightning
peft            PEFT with transformers.Trainer as the prompt-tuning guides of PEFT's documentation show
                it: float32, rows padded to one fixed length (128), the model's own loss over all logits
peft-fair       the same with bf16 autocast and rows padded to the longest of their batch
peft-weights    the same again with the weights themselves in bf16, which the documentation does not show
plain           a loop in the manner of the code of Su et al. 2022: float32, padded to 128, all logits
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from benchmark_models import SHAPES, WORDS, Probe, Shape, clock, make_model, synchronize
from benchmark_rows import LONGEST, Sample

LR = 1e-3
BEFORE, AFTER = (11, 12), (13, 14, 15, 12)
"""What a decoder reads around a text, in tokens: as long as `Review: ` and a cue on a line of its own are."""


@dataclass(frozen=True)
class Setup:
    """What a contestant is asked to do."""

    contestant: str
    model: str = "roberta-base"
    precision: str = "bf16"
    """Of ours; the others have their own."""
    length: int = 100
    batch: int = 16
    device: str = "cpu"
    method: str = "prompt"
    """One of `WITH_PEFT`; of ours any method that needs no setting."""
    more: int = 0
    """Tokens that every text is longer by."""
    lever: str = ""
    """What is taken away from ours (see `LEVERS` in benchmark_levers.py)."""

    @property
    def shape(self) -> Shape:
        return SHAPES[self.model]

    @property
    def place(self) -> torch.device:
        return torch.device(self.device)

    @property
    def reserved(self) -> int:
        """Positions in front of the text."""
        return self.length if self.method in ("prompt", "p-tuning") else 0


@dataclass(frozen=True)
class Round:
    """What a few steps took."""

    seconds: float
    rows: int
    tokens: int
    """Text, special and prompt tokens, padding not counted; of ours on a decoder the prompt once a step, as it is run."""
    possible: float = 0.0
    """Operations that products of large matrices would have done in that time; 0 where that was not measured."""
    waited: float = 0.0
    """Seconds in which the model waited for data (ours only)."""


Contestant = Callable[[int], Round]
"""Runs that many steps, after one that is not counted."""


def make(setup: Setup, samples: Sequence[Sample]) -> tuple[Contestant, Any]:
    """A contestant ready to run, and its model."""
    if setup.more:
        samples = [Sample((s.ids * (1 + setup.more))[: len(s.ids) + setup.more], s.label) for s in samples]
    return CONTESTANTS[setup.contestant](setup, samples)


# Ours ------------------------------------------------------------------------------------------------------------


def ours(setup: Setup, samples: Sequence[Sample]) -> tuple[Contestant, Any]:
    """Our own training loop, with one lever taken away if the setup says so."""
    from benchmark_levers import backbone_for

    import prompttransfer.training.batches
    from prompttransfer.adaptations.methods import parse_method
    from prompttransfer.backbones.label_words import Answers
    from prompttransfer.backbones.layouts import USUAL, find_layout
    from prompttransfer.backbones.rows import Row
    from prompttransfer.backbones.templates import TokenFrame
    from prompttransfer.evaluation.encoding import EncodedTask
    from prompttransfer.training.batches import BankData
    from prompttransfer.training.loop import BankTraining
    from prompttransfer.training.recipes import Recipe
    from prompttransfer.training.train import TrainingOptions, _fit
    from tasks.task import Example, Task

    backbone = backbone_for(setup)
    if setup.lever == "no length grouping":
        prompttransfer.training.batches.WINDOW = 1
    words = {"no": ("no",), "yes": ("yes",)}
    task = Task(
        name="speed",
        type="sentiment",
        kind="sentence",
        labels=("no", "yes"),
        words={"masked-lm": words, "t5": words},
    )
    answers = Answers(("no", "yes"), ("no", "yes"), WORDS, "mean")
    frame = TokenFrame(BEFORE, (), AFTER, False) if setup.shape.decodes else None
    rows = [Row(sample.ids, None, sample.label, answers, None, False, frame) for sample in samples]
    place = find_layout("prompt-first")
    check = EncodedTask(task, (Example("", label=0),), (rows[0],), setup.reserved, USUAL, place)
    method = parse_method(setup.method, length=setup.length)
    seeds = iter(range(1000))

    def run(steps: int) -> Round:
        seed = next(seeds)
        recipe = Recipe(
            "adamw", LR, "benchmark", steps=steps + 1, batch=setup.batch, length=setup.length,
            evaluate_every=steps + 1,
        )  # fmt: skip
        if setup.method == "prompt":  # vectors of the size of trained ones; these words are no tokenizer's
            generator = torch.Generator().manual_seed(seed)
            vectors = 0.5 * torch.randn(setup.length, backbone.width, generator=generator)
            member = method.restored({"prompt_embeddings": vectors})
        else:
            member = method.member(backbone, task, start="random", seed=seed)
        span = Span(setup, recipe.steps, backbone.dtype)
        watch: Any = _Watch(span)
        module = BankTraining(backbone, method, [member], [(check,)], recipe, None, watch)
        data = BankData(
            backbone, [rows], [seed], batch=setup.batch, reserved=setup.reserved, layout=place,
            steps=recipe.steps, evaluate_every=recipe.evaluate_every,
        )  # fmt: skip
        data.bank = module
        watch.watch(data)
        _fit(module, data, TrainingOptions(), "", recipe.steps)
        picked = [data.orders[0].step(step) for step in range(1, steps + 1)]
        around = 2 if frame is None else frame.size
        ahead = sum(setup.reserved if frame else setup.reserved * len(indices) for indices in picked)
        tokens = ahead + sum(rows[i].size + around for indices in picked for i in indices)
        return Round(span.seconds, sum(map(len, picked)), tokens, span.possible, sum(watch.waits[1:]))

    return run, backbone.model


class Span:
    """The time of all steps but the first.

    On a CPU each step has products of large matrices before and behind it (`Probe`), which are not counted: what they
    say of the machine's speed is what the step had. A GPU is waited for behind the first step and behind the last.
    """

    def __init__(self, setup: Setup, steps: int, dtype: torch.dtype):
        self.device = setup.place
        self.steps = steps
        self.probe = Probe(dtype) if self.device.type == "cpu" else None
        self.done = 0
        self.seconds = self.possible = 0.0
        self._start = self._rate = 0.0

    def tick(self) -> None:
        """A step was taken."""
        self.done += 1
        if self.probe is None and self.done in (1, self.steps):
            synchronize(self.device)
        taken = clock() - self._start
        rate = self.probe.rate() if self.probe is not None else 0.0
        if self.done > 1:
            self.seconds += taken
            self.possible += taken * (self._rate + rate) / 2
        self._rate, self._start = rate, clock()


class _Watch:
    """Takes the place of the progress display."""

    def __init__(self, span: Span):
        self.span = span
        self.waits: list[float] = []

    def step(self, bank: Any) -> None:
        self.span.tick()

    def evaluated(self, bank: Any) -> None:
        """Nothing to show."""

    def resumed(self, step: int) -> None:
        """Nothing to show."""

    def watch(self, data: Any) -> None:
        """Time how long the model waits for each step's rows: a GPU that still works when they are ready does not."""
        make_step = data.step

        def timed(step: int) -> Any:
            start = clock()
            made = make_step(step)
            busy = self.span.device.type == "cuda" and not torch.cuda.current_stream().query()
            self.waits.append(0.0 if busy else clock() - start)
            return made

        data.step = timed


TARGETS = {
    "roberta": ("query", "value"),
    "t5": ("q", "v"),
    "llama": ("q_proj", "v_proj"),
    "gpt2": ("c_attn",),
}
"""Family of shapes -> the maps that a LoRA is at."""


# Theirs ----------------------------------------------------------------------------------------------------------

WITH_PEFT = ("prompt", "p-tuning", "prefix", "p-tuning-v2", "lora", "dora", "adalora", "vera", "ia3")
"""Methods that PEFT trains too (LoRA+ and LoRA-FA are LoRA under another optimiser)."""


def peft_config(setup: Setup) -> Any:
    """PEFT's configuration of the method in the size that ours has by default."""
    import peft

    kind = "SEQ_2_SEQ_LM" if setup.shape.family == "t5" else "FEATURE_EXTRACTION"
    if setup.shape.decodes:
        kind = "CAUSAL_LM"
    at: dict[str, Any] = {
        "task_type": kind,
        "target_modules": list(TARGETS[setup.shape.family]),
        "fan_in_fan_out": setup.shape.family == "gpt2",
    }
    ahead: dict[str, Any] = {"task_type": kind, "num_virtual_tokens": setup.length}
    lora: dict[str, Any] = {"r": 8, "lora_alpha": 16, **at}
    match setup.method:
        case "prompt":
            return peft.PromptTuningConfig(**ahead)
        case "p-tuning":
            return peft.PromptEncoderConfig(**ahead)
        case "prefix" | "p-tuning-v2":
            return peft.PrefixTuningConfig(**ahead, prefix_projection=setup.method == "prefix")
        case "lora":
            return peft.LoraConfig(**lora)
        case "dora":
            return peft.LoraConfig(**lora, use_dora=True)
        case "adalora":
            return peft.AdaLoraConfig(**at, init_r=12, target_r=8, tinit=10, tfinal=10, total_step=1000)
        case "vera":
            return peft.VeraConfig(r=256, **at)
        case "ia3":
            return peft.IA3Config(task_type=kind)  # its own maps of this family
    raise ValueError(f"{setup.method}: PEFT has no such method")


def collate(
    setup: Setup, rows: Sequence[Sample], *, fixed: bool, prompt_in_labels: bool
) -> dict[str, torch.Tensor]:
    """Padded tokens, mask and labels, as a data collator gives them."""
    special = setup.shape.special
    if setup.shape.decodes:
        return _continued(setup, rows, fixed=fixed)
    if setup.shape.family == "t5":
        ids = [[*row.ids, special.eos_token_id] for row in rows]
        labels = torch.tensor([[*WORDS[row.label], special.eos_token_id] for row in rows])
    else:
        ids = [[special.cls_token_id, special.mask_token_id, *row.ids, special.sep_token_id] for row in rows]
    room = LONGEST + setup.more + 3 if fixed else max(map(len, ids))
    padded = torch.tensor([row + [special.pad_token_id] * (room - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (room - len(row)) for row in ids])
    if setup.shape.family != "t5":
        ahead = setup.reserved if prompt_in_labels else 0
        labels = torch.full((len(rows), ahead + room), -100)
        labels[:, ahead + 1] = torch.tensor([WORDS[row.label][0] for row in rows])
    return {"input_ids": padded, "attention_mask": mask, "labels": labels}


def _continued(setup: Setup, rows: Sequence[Sample], *, fixed: bool) -> dict[str, torch.Tensor]:
    """Texts with their answers behind them, padded on the left, as in PEFT's guide to causal language models."""
    ids = [[*BEFORE, *row.ids, *AFTER, *WORDS[row.label]] for row in rows]
    room = LONGEST + setup.more + len(BEFORE) + len(AFTER) + 1 if fixed else max(map(len, ids))
    pads = [room - len(row) for row in ids]
    padded = torch.tensor([[0] * pad + row for pad, row in zip(pads, ids, strict=True)])
    labels = torch.full_like(padded, -100)
    labels[:, -1] = padded[:, -1]
    mask = torch.tensor([[0] * pad + [1] * (room - pad) for pad in pads])
    return {"input_ids": padded, "attention_mask": mask, "labels": labels}


def count_tokens(setup: Setup, rows: Sequence[Sample]) -> int:
    """Tokens without padding, the prompt included."""
    special = 1 if setup.shape.family == "t5" else 3
    if setup.shape.decodes:
        special = len(BEFORE) + len(AFTER)
    return sum(len(row.ids) + special + setup.reserved for row in rows)


def peft(
    setup: Setup,
    samples: Sequence[Sample],
    *,
    fixed: bool = True,
    autocast: bool = False,
    weights: bool = False,
) -> tuple[Contestant, Any]:
    """PEFT's method (`peft_config`) under transformers.Trainer."""
    from peft import get_peft_model
    from transformers import Trainer, TrainerCallback, TrainingArguments

    base = make_model(setup.shape, torch.bfloat16 if weights else torch.float32, setup.place)
    model = get_peft_model(base, peft_config(setup))
    seen: list[Sequence[Sample]] = []

    def collator(rows: Sequence[Sample]) -> dict[str, torch.Tensor]:
        seen.append(rows)
        return collate(setup, rows, fixed=fixed, prompt_in_labels=True)

    class Ticker(TrainerCallback):
        def __init__(self, span: Span):
            self.span = span

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.span.tick()

    def run(steps: int) -> Round:
        seen.clear()
        span = Span(setup, steps + 1, torch.bfloat16 if autocast or weights else torch.float32)
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder, max_steps=steps + 1, per_device_train_batch_size=setup.batch, learning_rate=LR,
                bf16=autocast, use_cpu=setup.place.type == "cpu", report_to="none", save_strategy="no",
                logging_strategy="no", remove_unused_columns=False, disable_tqdm=True, label_names=["labels"],
            )  # fmt: skip
            Trainer(
                model,
                arguments,
                train_dataset=list(samples),
                data_collator=collator,
                callbacks=[Ticker(span)],
            ).train()
        rows = [row for batch in seen[1 : steps + 1] for row in batch]
        return Round(span.seconds, len(rows), count_tokens(setup, rows), span.possible)

    return run, base


def plain(setup: Setup, samples: Sequence[Sample]) -> tuple[Contestant, Any]:
    """A loop in the manner of the original code: float32, padded to 128, all logits of all positions."""
    model = make_model(setup.shape, torch.float32, setup.place)
    embed = model.get_input_embeddings()
    prompt = torch.nn.Parameter(0.5 * torch.randn(setup.length, embed.embedding_dim, device=setup.place))
    optimizer = torch.optim.AdamW([prompt], lr=LR)

    def step(rows: Sequence[Sample]) -> None:
        batch = {
            k: v.to(setup.place) for k, v in collate(setup, rows, fixed=True, prompt_in_labels=True).items()
        }
        ahead = prompt.expand(len(rows), -1, -1)
        mask = torch.cat(
            [
                torch.ones(len(rows), setup.length, dtype=torch.long, device=setup.place),
                batch["attention_mask"],
            ],
            1,
        )
        inputs = torch.cat([ahead, embed(batch["input_ids"])], dim=1)
        loss = model(inputs_embeds=inputs, attention_mask=mask, labels=batch["labels"]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    stream = _batches(samples, setup.batch)

    def run(steps: int) -> Round:
        picked = [next(stream) for _ in range(steps + 1)]
        span = Span(setup, steps + 1, torch.float32)
        for rows in picked:
            step(rows)
            span.tick()
        flat = [row for rows in picked[1:] for row in rows]
        return Round(span.seconds, len(flat), count_tokens(setup, flat), span.possible)

    return run, model


def _batches(samples: Sequence[Sample], batch: int) -> Iterator[list[Sample]]:
    chance = random.Random(0)
    while True:
        yield chance.sample(list(samples), batch)


def peft_fair(setup: Setup, samples: Sequence[Sample]) -> tuple[Contestant, Any]:
    """PEFT with bf16 autocast and rows padded to the longest of their batch."""
    return peft(setup, samples, fixed=False, autocast=setup.precision == "bf16")


def peft_weights(setup: Setup, samples: Sequence[Sample]) -> tuple[Contestant, Any]:
    """PEFT on weights in bf16, with rows padded to the longest of their batch."""
    return peft(setup, samples, fixed=False, weights=setup.precision == "bf16")


CONTESTANTS: dict[str, Callable[[Setup, Sequence[Sample]], tuple[Contestant, Any]]] = {
    "ours": ours,
    "peft": peft,
    "peft-fair": peft_fair,
    "peft-weights": peft_weights,
    "plain": plain,
}
