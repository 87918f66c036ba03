"""Sections of the benchmark on banks of LoRAs: training on the embedded world, and evaluation beside PEFT's mixed batches."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

from benchmark_models import SHAPES, WORDS, clock, make_backbone, make_model, synchronize
from benchmark_print import markdown, say
from benchmark_rows import draw, lengths_of

BACKBONE = "microworld-roberta"
TASKS = ("microworld-sst2", "microworld-imdb", "microworld-mnli", "microworld-qqp")
MEMBERS = 16
TRAINED = ("prompt", "lora", "lora-plus", "lora-fa", "delta-lora", "dora", "adalora", "vera", "ia3", "bitfit")


def banked(options: argparse.Namespace) -> None:
    """Whole runs of 16 members at batch 4, as a bank and one after another in one process."""
    from prompttransfer.adaptations.methods import parse_method
    from prompttransfer.backbones.loading import load_backbone
    from prompttransfer.training.recipes import recipe_for
    from prompttransfer.training.train import Job, train_adaptations
    from tasks.catalog import find_task
    from tasks.loading import load_splits

    backbone = load_backbone(BACKBONE, device=options.device)
    tasks = [find_task(name) for name in TASKS]
    splits = [load_splits(task, limit_train=1000, limit_test=100) for task in tasks]
    jobs = [
        Job(task, own, seed, name=f"{task.name}-s{seed}")
        for task, own in zip(tasks, splits, strict=True)
        for seed in range(MEMBERS // len(TASKS))
    ]
    say(f"\n{len(jobs)} members of {len(tasks)} tasks on {BACKBONE}, batch 4, 50 steps, whole runs")
    rows = []
    for name in ("lora",) if options.quick else TRAINED:
        method = parse_method(name, length=20)
        recipe = recipe_for(backbone, method, steps=50, batch=4, evaluate_every=50)

        def train(chosen: list[Job], method: Any = method, recipe: Any = recipe) -> None:
            train_adaptations(backbone, chosen, recipe, method=method)

        train(jobs[:1])
        ratios = rounds(
            options.rounds,
            lambda train=train: train(jobs),
            lambda train=train: [train([job]) for job in jobs],
        )
        rows.append([name, *ratios])
    markdown(["method", "a bank is faster than one by one by (each round)", "bank s", "one by one s"], rows)


def rounds(count: int, fast: Callable[[], Any], slow: Callable[[], Any]) -> list[str]:
    """What each round's ratio is, and the median seconds of both; they take turns."""
    taken: list[tuple[float, float]] = []
    for _ in range(count):
        seconds = []
        for way in (fast, slow):
            start = clock()
            way()
            seconds.append(clock() - start)
        taken.append((seconds[0], seconds[1]))
    ratios = [theirs / ours for ours, theirs in taken]
    found = f"{statistics.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})"
    return [found, *(f"{statistics.median(values):.2f}" for values in zip(*taken, strict=True))]


def evaluated(options: argparse.Namespace) -> None:
    """16 LoRAs on the same rows: our evaluation beside PEFT's `adapter_names`, all of them in one batch."""
    import torch
    from peft import LoraConfig, get_peft_model

    from prompttransfer.adaptations.bank import on_the_same
    from prompttransfer.adaptations.methods import parse_method
    from prompttransfer.backbones.label_words import Answers
    from prompttransfer.backbones.layouts import find_layout
    from prompttransfer.backbones.rows import Row

    shape, device = SHAPES[options.models[0]], torch.device(options.device)
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    backbone = make_backbone(shape, dtype, device)
    answers = Answers(("no", "yes"), ("no", "yes"), WORDS, "mean")
    samples = draw(lengths_of(options.task, options.data), 4, vocabulary=shape.vocabulary)
    rows = [Row(sample.ids, None, sample.label, answers, None, False) for sample in samples]
    batch = backbone.batch(rows, layout=find_layout("prompt-first"))
    method = parse_method("lora")
    members = [method.member(backbone, None, start="random", seed=seed) for seed in range(MEMBERS)]  # type: ignore[arg-type]
    base = make_model(shape, dtype, device)
    config = LoraConfig(task_type="FEATURE_EXTRACTION", r=8, lora_alpha=16, target_modules=["query", "value"])
    model = get_peft_model(base, config, adapter_name="a0")
    for number in range(1, MEMBERS):
        model.add_adapter(f"a{number}", config)
    model.eval()
    names = [f"a{number}" for number in range(MEMBERS) for _ in rows]
    inputs = {"input_ids": batch.ids.repeat(MEMBERS, 1), "attention_mask": batch.mask.repeat(MEMBERS, 1)}
    words = torch.tensor([piece for (piece,) in WORDS], device=device)

    def ours() -> None:
        bank = method.bank(backbone, members)
        backbone.label_scores(*on_the_same(bank, batch))
        synchronize(device)

    def theirs() -> None:
        logits = model.base_model(**inputs, adapter_names=names).logits
        logits[:, 1][:, words].float().log_softmax(-1)
        synchronize(device)

    with torch.no_grad():
        for way in (ours, theirs):
            way()
        found = rounds(2 + options.rounds, ours, theirs)
    say(f"\n{MEMBERS} LoRAs on the same {len(rows)} rows in one batch, {shape.name}, {dtype}")
    markdown(["ours is faster by (each round)", "ours s", "PEFT, adapter_names s"], [found])
