"""Sixteen members of a method in one bank against one after another: time of a step, forward and backward.

    python scripts/measure_banks.py [--backbone microworld-roberta] [--batch 4] [--members 16] [--rounds 15] [METHOD ...]

Both ways train the same rows in the same process; the rounds of both alternate, and medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch

from prompttransfer.adaptations.methods import METHODS, parse_method
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.interventions import Interventions
from prompttransfer.backbones.layouts import LAYOUTS
from prompttransfer.backbones.loading import load_backbone
from prompttransfer.backbones.rows import Row
from tasks.catalog import find_task
from tasks.errors import UserError
from tasks.loading import load_splits
from tasks.task import Example, Task


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("methods", nargs="*", default=usual())
    given.add_argument("--backbone", default="microworld-roberta")
    given.add_argument("--batch", type=int, default=4)
    given.add_argument("--members", type=int, default=16)
    given.add_argument("--rounds", type=int, default=15)
    options = given.parse_args()
    backbone = load_backbone(options.backbone)
    task = find_task("microworld-sst2")
    examples = load_splits(task, limit_train=options.batch * options.members, limit_test=10).train
    print(f"| method | one after another, ms | bank of {options.members}, ms | ratio |\n|---|--:|--:|--:|")
    for text in options.methods:
        alone, bank = measure(backbone, task, examples, text, options)
        print(f"| {text} | {1000 * alone:.1f} | {1000 * bank:.1f} | {alone / bank:.2f} |", flush=True)


def usual() -> list[str]:
    """The methods that are trained by steps and need no setting."""
    found = []
    for name, kind in METHODS.items():
        with suppress(UserError):
            method = kind()
            method.check_complete()
            if method.trains and not method.searches:
                found.append(name)
    return found


def measure(
    backbone: Backbone, task: Task, examples: Sequence[Example], text: str, options: argparse.Namespace
) -> tuple[float, float]:
    """Seconds of a step of all members, one after another and in a bank."""
    method = parse_method(text)
    members = [method.member(backbone, task, start="random", seed=seed) for seed in range(options.members)]
    parameters = [parameter for member in members for parameter in member.parameters()]
    rows = backbone.encode(task, examples, reserved=method.reserved)
    shares = [rows[at : at + options.batch] for at in range(0, len(rows), options.batch)]

    def together() -> None:
        owners = torch.arange(options.members).repeat_interleave(options.batch).to(backbone.device)
        step(method.bank(backbone, members).rows(owners), rows)

    def one_by_one() -> None:
        owners = torch.zeros(options.batch, dtype=torch.long, device=backbone.device)
        for member, share in zip(members, shares, strict=True):
            step(method.bank(backbone, [member]).rows(owners), share)

    def step(own: Interventions, some: Sequence[Row]) -> None:
        backbone.loss(own, backbone.batch(some, layout=LAYOUTS["prompt-first"])).sum().backward()
        for parameter in parameters:
            parameter.grad = None

    ways: tuple[Callable[[], None], ...] = (one_by_one, together)
    times: list[list[float]] = [[], []]
    for round_ in range(options.rounds + 3):
        for way, found in zip(ways, times, strict=True):
            start = time.perf_counter()
            way()
            if round_ >= 3:
                found.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


if __name__ == "__main__":
    main()
