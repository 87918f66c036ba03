"""A step (forward, backward and what the method does behind it; no optimiser) of a bank of each method over one of plain
prompts: ratios of medians.

    python scripts/measure_steps.py [--backbone microworld-roberta] [--batch 4] [--members 16] [--rounds 15] METHOD ...

All methods run the same rows in one process, in turns, so that what else the machine does counts for all alike; on a busy machine by
processor time (BENCHMARK_CLOCK=cpu OMP_NUM_THREADS=1). The first METHOD is what the others are divided by. A METHOD that ends in
`@logits`, `@squared` (PANDA's), `@states` or `@both` (MPT's) has plain prompts of 20 vectors as teachers, one a member.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence

import torch
from benchmark_models import clock

from prompttransfer.adaptations.adaptation import PROMPT_KEY
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.adaptations.prompts import soft_prompt
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import LAYOUTS
from prompttransfer.backbones.loading import load_backbone
from prompttransfer.training.distillation import Distance, Teacher, teaching_of
from tasks.catalog import find_task
from tasks.loading import load_splits
from tasks.task import Example, Task

LAYOUT = LAYOUTS["prompt-first"]


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("methods", nargs="+")
    given.add_argument("--backbone", default="microworld-roberta")
    given.add_argument("--batch", type=int, default=4)
    given.add_argument("--members", type=int, default=16)
    given.add_argument("--rounds", type=int, default=15)
    options = given.parse_args()
    backbone = load_backbone(options.backbone)
    task = find_task("microworld-sst2")
    examples = load_splits(task, limit_train=options.batch * options.members, limit_test=10).train
    ways = [step_of(backbone, task, examples, text, options) for text in options.methods]
    times: list[list[float]] = [[] for _ in ways]
    for round_ in range(options.rounds + 3):
        for way, found in zip(ways, times, strict=True):
            start = clock()
            way()
            if round_ >= 3:
                found.append(clock() - start)
    medians = [statistics.median(found) for found in times]
    print(f"| method | over {options.methods[0]} |\n|---|--:|")
    for text, median in zip(options.methods, medians, strict=True):
        print(f"| {text} | {median / medians[0]:.2f} |")


def step_of(
    backbone: Backbone, task: Task, examples: Sequence[Example], text: str, options: argparse.Namespace
) -> Callable[[], None]:
    """A step of a bank of members of one method on the rows, each member on its share; with teachers behind an `@`."""
    text, _, part = text.partition("@")
    method = parse_method(text)
    members = [method.member(backbone, task, start="random", seed=seed) for seed in range(options.members)]
    parameters = [parameter for member in members for parameter in member.parameters()]
    rows = backbone.encode(task, examples, reserved=method.reserved)
    owners = torch.arange(options.members).repeat_interleave(options.batch).to(backbone.device)
    teaching = teaching_of(backbone, teachers(backbone, task, part, options.members) if part else [])

    def step() -> None:
        own, batch = method.bank(backbone, members).rows(owners), backbone.batch(rows, layout=LAYOUT)
        losses = backbone.loss(own, batch) if teaching is None else teaching.losses(own, batch, owners)
        losses.sum().backward()
        for member in members:
            member.after_step(1, 1)
        for parameter in parameters:
            parameter.grad = None

    return step


def teachers(backbone: Backbone, task: Task, part: str, count: int) -> list[Teacher]:
    """Random prompts as teachers, by what their distance is of."""
    distance = Distance(of_logits="squared") if part == "squared" else Distance(part)
    method = parse_method("prompt:length=20")
    found = []
    for seed in range(count):
        vectors = method.member(backbone, task, start="random", seed=seed).tensors()[PROMPT_KEY]
        made = soft_prompt(vectors=vectors, task=task.name, backbone=backbone.name, family=backbone.family)
        found.append(Teacher(made, 0.9, distance))
    return found


if __name__ == "__main__":
    main()
