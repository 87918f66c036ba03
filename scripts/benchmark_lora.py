"""Sections of the benchmark on banks of LoRAs: training on the embedded world, and evaluation beside PEFT's mixed batches."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmark_models import SHAPES, WORDS, clock, make_backbone, make_model, synchronize
from benchmark_print import markdown, say
from benchmark_rows import draw, lengths_of
from measure_banks import usual

BACKBONE = "microworld-roberta"
TASKS = ("microworld-sst2", "microworld-imdb", "microworld-mnli", "microworld-qqp")
MEMBERS = 16


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
    for name in options.methods or (("prompt", "lora") if options.quick else usual()):
        method = parse_method(name, length=20)
        recipe = recipe_for(backbone, method, steps=50, batch=4, evaluate_every=50)

        def train(chosen: list[Job], method: Any = method, recipe: Any = recipe) -> None:
            train_adaptations(backbone, chosen, recipe, method=method)

        train(jobs[:1])
        ratios = rounds(
            options.rounds,
            partial(train, jobs),
            partial(one_by_one, train, jobs),
        )
        rows.append([name, *ratios])
    markdown(["method", "a bank is faster than one by one by (each round)", "bank s", "one by one s"], rows)


def one_by_one(train: Callable[[list[Any]], None], jobs: list[Any]) -> None:
    """Each job in a run of its own."""
    for job in jobs:
        train([job])


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
    """16 LoRAs on the rows of one task: our evaluation beside PEFT's `adapter_names`, all of them in each batch."""
    import torch
    from transformers import AutoModelForMaskedLM

    from prompttransfer.backbones.label_words import Answers
    from prompttransfer.backbones.loading import load_backbone
    from prompttransfer.backbones.locating import EMBEDDED_FOLDER
    from prompttransfer.backbones.rows import Row
    from tasks.catalog import find_task
    from tasks.loading import load_splits

    shape, device = SHAPES[options.models[0]], torch.device(options.device)
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    answers = Answers(("no", "yes"), ("no", "yes"), WORDS, "mean")
    samples = draw(lengths_of(options.task, options.data), 32, vocabulary=shape.vocabulary)
    rows = [Row(sample.ids, None, sample.label, answers, None, False) for sample in samples]
    task = find_task(TASKS[0])
    small = load_backbone(BACKBONE, device=options.device, precision=options.precision)
    test = load_splits(task, limit_test=128).test
    embedded = small.encode(task, test, reserved=0)
    found = []
    for theirs in dict.fromkeys((dtype, torch.float32)):  # float32 is what PEFT's documentation loads
        large = make_backbone(shape, dtype, device)
        said = f"{str(dtype).removeprefix('torch.')}, PEFT {str(theirs).removeprefix('torch.')}"
        found.append([shape.name, said, *mixed(large, make_model(shape, theirs, device), rows, options)])
        base = AutoModelForMaskedLM.from_pretrained(EMBEDDED_FOLDER / BACKBONE, dtype=theirs).to(device)
        found.append([BACKBONE, said, *mixed(small, base, embedded, options)])
    say(f"\n{MEMBERS} LoRAs on the same rows, {PER_BATCH} of these for all of them in a batch")
    markdown(["", "ours", "ours is faster by (each round)", "ours s", "PEFT, adapter_names s"], found)


PER_BATCH = 4


def mixed(backbone: Any, base: Any, rows: list[Any], options: argparse.Namespace) -> list[str]:
    """Ratios and seconds of both on one backbone; PEFT's rows are padded to the longest of their batch."""
    import torch
    from peft import LoraConfig, get_peft_model

    from prompttransfer.adaptations.methods import parse_method
    from prompttransfer.backbones.layouts import USUAL, find_layout
    from prompttransfer.evaluation.encoding import EncodedTask
    from prompttransfer.evaluation.evaluate import predict
    from tasks.catalog import find_task
    from tasks.task import Example

    layout, method = find_layout("prompt-first"), parse_method("lora")
    members = [
        method.member(backbone, find_task(TASKS[0]), start="random", seed=seed) for seed in range(MEMBERS)
    ]
    examples = tuple(Example("", label=row.label) for row in rows)
    encoded = EncodedTask(find_task(TASKS[0]), examples, tuple(rows), 0, USUAL, layout)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"])
    model = get_peft_model(base, config, adapter_name="a0")
    for number in range(1, MEMBERS):
        model.add_adapter(f"a{number}", config)
    model.eval()
    starts = range(0, len(rows), PER_BATCH)
    batches = [backbone.batch(rows[start : start + PER_BATCH], layout=layout) for start in starts]

    def ours() -> None:
        predict(backbone, method.bank(backbone, members), encoded)
        synchronize(backbone.device)

    def theirs() -> None:
        for batch in batches:
            names = [f"a{number}" for number in range(MEMBERS) for _ in range(batch.rows)]
            inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
            inputs = {name: value.repeat(MEMBERS, 1) for name, value in inputs.items()}
            logits = model(**inputs, adapter_names=names).logits[:, 1]
            candidates = batch.candidates[..., 0].repeat(MEMBERS, 1)
            logits.gather(1, candidates).float().log_softmax(-1).tolist()

    with torch.no_grad():
        for way in (ours, theirs):
            way()
        return rounds(options.rounds, ours, theirs)
