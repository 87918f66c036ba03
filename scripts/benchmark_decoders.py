"""Seconds of processor time that a training step of a decoder takes, frozen layers beside the modules of transformers.

    python scripts/benchmark_decoders.py --backbone smollm2-135m

Rows have the lengths of sst2 in a template (about 20 to 40 tokens); a step is the loss of 16 of them and its gradient.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from prompttransfer.adaptations.methods import parse_method
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import LAYOUTS
from prompttransfer.backbones.loading import load_backbone
from prompttransfer.backbones.rows import Batch
from tasks.catalog import TASKS

ROWS = 16
METHODS = ("prompt:length=100", "prompt:length=20", "lora:rank=8")
LENGTHS = (20, 40)


def batch_of(backbone: Backbone) -> Batch:
    """Random tokens, and the label words of sst2."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(*LENGTHS, (ROWS,), generator=generator)
    ids = torch.randint(backbone.word_embeddings.num_embeddings, (ROWS, LENGTHS[1]), generator=generator)
    mask = (torch.arange(LENGTHS[1]) < lengths[:, None]).long()
    answers = backbone.answers(TASKS["sst2"])
    assert answers is not None
    candidates = torch.tensor(answers.scored).expand(ROWS, -1, -1)
    labels = torch.randint(2, (ROWS,), generator=generator)
    return Batch(ids, mask, LAYOUTS["prompt-first"], candidates, torch.zeros(ROWS), labels, None)


def step_of(backbone: Backbone, text: str) -> Callable[[], None]:
    """A step of one member of a method."""
    method = parse_method(text)
    member = method.member(backbone, TASKS["sst2"], start="random", seed=0)
    batch, owners = batch_of(backbone), torch.zeros(ROWS, dtype=torch.long)

    def step() -> None:
        member.zero_grad()
        backbone.loss(method.bank(backbone, [member]).rows(owners), batch).mean().backward()

    return step


def seconds(step: Callable[[], None], times: int) -> float:
    """The least processor time of a step."""
    step()
    found = []
    for _ in range(times):
        begin = time.process_time()
        step()
        found.append(time.process_time() - begin)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--times", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    frozen, plain = (
        load_backbone(given.backbone, precision=given.precision, device="cpu", engine=engine)
        for engine in ("frozen", "plain")
    )
    print(f"{given.backbone}, {frozen.dtype}, {ROWS} rows of {LENGTHS[0]} to {LENGTHS[1]} tokens, 1 thread")
    for text in METHODS:
        ours, theirs = (seconds(step_of(backbone, text), given.times) for backbone in (frozen, plain))
        print(f"{text:20} frozen {ours:.2f} s  plain {theirs:.2f} s  ratio {theirs / ours:.2f}")


if __name__ == "__main__":
    main()
