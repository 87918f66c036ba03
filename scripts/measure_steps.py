"""A step (forward, backward and what the method does behind it; no optimiser) of a bank of each method over one of plain
prompts: ratios of medians.

    python scripts/measure_steps.py [--backbone microworld-roberta] [--batch 4] [--members 16] [--rounds 15] METHOD ...

All methods run the same rows in one process, in turns, so that what else the machine does counts for all alike. The first
METHOD is what the others are divided by.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from prompttransfer.adaptations.methods import parse_method
from prompttransfer.backbones.layouts import LAYOUTS
from prompttransfer.backbones.loading import load_backbone
from tasks.catalog import find_task
from tasks.loading import load_splits

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
            start = time.perf_counter()
            way()
            if round_ >= 3:
                found.append(time.perf_counter() - start)
    medians = [statistics.median(found) for found in times]
    print(f"| method | over {options.methods[0]} |\n|---|--:|")
    for text, median in zip(options.methods, medians, strict=True):
        print(f"| {text} | {median / medians[0]:.2f} |")


def step_of(backbone, task, examples, text: str, options: argparse.Namespace) -> Callable[[], None]:  # type: ignore[no-untyped-def]
    """A step of a bank of members of one method on the rows, each member on its share."""
    method = parse_method(text)
    members = [method.member(backbone, task, start="random", seed=seed) for seed in range(options.members)]
    parameters = [parameter for member in members for parameter in member.parameters()]
    rows = backbone.encode(task, examples, reserved=method.reserved)
    owners = torch.arange(options.members).repeat_interleave(options.batch).to(backbone.device)

    def step() -> None:
        own = method.bank(backbone, members).rows(owners)
        backbone.loss(own, backbone.batch(rows, layout=LAYOUT)).sum().backward()
        for member in members:
            member.after_step(1, 1)
        for parameter in parameters:
            parameter.grad = None

    return step


if __name__ == "__main__":
    main()
