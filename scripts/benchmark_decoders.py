"""How fast adaptations of decoders are trained, beside PEFT and beside the modules of transformers.

    python scripts/benchmark_decoders.py                       PEFT: SmolLM2-135M and GPT-2, a prompt of 100, of 20, LoRA 8
    python scripts/benchmark_decoders.py --only engines --backbone smollm2-135m

Beside PEFT models have real shapes and random weights, rows the lengths of sst2 and a template around them, and every
contestant its own process; they take turns (benchmark.py). By default seconds are those of one processor's time, which a
busy machine leaves comparable. `engines` needs the packaged model: frozen layers beside transformers' own modules, a step
being the loss of 16 rows of 20 to 40 tokens and its gradient.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

import torch
from benchmark import NAMES, describe_machine, times_faster, turns
from benchmark_print import markdown, say

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


CONTESTANTS = ("ours", "peft", "peft-weights")
"""Ours, PEFT as its guides show it, and the fair fight: weights in bf16, rows padded to the longest of their batch."""
ASKED = (("prompt", 100), ("prompt", 20), ("lora", 1))
"""Method and its length, which a LoRA has none of."""


def beside_peft(options: argparse.Namespace) -> None:
    """Ours beside PEFT under transformers.Trainer, for every model and method."""
    say(describe_machine("cpu"))
    for model in options.models:
        rows = []
        for method, length in ASKED:
            common = {"model": model, "method": method, "length": length, "batch": ROWS, "device": "cpu"}
            setups = [{"contestant": name, "precision": options.precision, **common} for name in CONTESTANTS]
            workers, limits = turns(setups, options)
            kind = "bfloat16" if options.precision == "bf16" else "float32"
            said = f"prompt of {length}" if method == "prompt" else "LoRA, rank 8"
            for worker in workers:
                if worker.killed:
                    rows.append([said, NAMES[worker.contestant], "did not fit", "-", "-"])
                    continue
                share = worker.share(limits["float32" if worker.contestant == "peft" else kind])
                faster = times_faster(workers[0], worker)
                rows.append([said, NAMES[worker.contestant], faster, f"{worker.rate:.2f}", share])
        say(f"\n## {model}, lengths of {options.task} in a template, batch {ROWS}")
        head = [
            "",
            "",
            "ours is faster by (each round)",
            "examples/s",
            "share of the product's best rate (at the time)",
        ]
        markdown(head, rows)


def engines(options: argparse.Namespace) -> None:
    """Frozen layers beside the modules of transformers."""
    frozen, plain = (
        load_backbone(options.backbone, precision=options.precision, device="cpu", engine=engine)
        for engine in ("frozen", "plain")
    )
    say(f"{options.backbone}, {frozen.dtype}, {ROWS} rows of {LENGTHS[0]} to {LENGTHS[1]} tokens, 1 thread")
    for text in METHODS:
        ours, theirs = (seconds(step_of(backbone, text), options.times) for backbone in (frozen, plain))
        say(f"{text:20} frozen {ours:.2f} s  plain {theirs:.2f} s  ratio {theirs / ours:.2f}")


SECTIONS: dict[str, Callable[[argparse.Namespace], None]] = {"peft": beside_peft, "engines": engines}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=SECTIONS, default="peft")
    parser.add_argument("--models", nargs="+", default=["smollm2-135m", "gpt2"], help="shapes beside PEFT")
    parser.add_argument("--backbone", default="smollm2-135m", help="of `engines`")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="steps a round (ours: three times as many)")
    parser.add_argument(
        "--times", type=int, default=5, help="steps of `engines`, of which the fastest counts"
    )
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    options = parser.parse_args()
    if options.clock == "cpu" and os.environ.get("BENCHMARK_CLOCK") != "cpu":
        environment = {**os.environ, "BENCHMARK_CLOCK": "cpu", "OMP_NUM_THREADS": "1"}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)  # before torch counts its threads
    options.task, options.data, options.device = "sst2", None, "cpu"
    SECTIONS[options.only](options)


if __name__ == "__main__":
    main()
