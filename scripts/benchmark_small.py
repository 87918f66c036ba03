"""Sections of the benchmark on the embedded world: banks of prompts, whole matrices, start-up and memory."""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmark_models import clock
from benchmark_print import markdown, say

BACKBONE = "microworld-roberta"
BANK_TASKS = ("microworld-sst2", "microworld-imdb", "microworld-mnli", "microworld-qqp")


def bank(options: argparse.Namespace) -> None:
    """Whole runs of a bank and of its prompts one after another: within one process, and as commands.

    On a GPU, which the embedded world cannot keep busy, the backbone has the shape of roberta-base; commands are left
    out, most of whose time is loading, and one after another they train also without recorded calls.
    """
    from prompttransfer.backbones.loading import load_backbone
    from prompttransfer.training.recipes import recipe_for
    from prompttransfer.training.train import Job, train_adaptations
    from tasks.catalog import find_task
    from tasks.loading import load_splits

    real = options.device.startswith("cuda")
    seeds, steps, evaluate_every = 1 if options.quick else 4, 300 if real else 50, 150 if real else 25
    tasks = [find_task(name) for name in BANK_TASKS]
    loaded = [load_splits(task, limit_train=2000, limit_test=200) for task in tasks]
    jobs = [
        Job(task, own, seed, name=f"{task.name}-s{seed}")
        for task, own in zip(tasks, loaded, strict=True)
        for seed in range(seeds)
    ]
    with tempfile.TemporaryDirectory() as folder:
        place = str(_save_backbone(Path(folder) / "roberta-base")) if real else BACKBONE
        backbone = load_backbone(place, device=options.device)
    more: dict[str, Any] = {"length": 100} if real else {}
    say(
        f"\n## bank: {len(jobs)} prompts of {len(tasks)} tasks on {Path(place).name}, {steps} steps, whole runs"
    )
    rows = []
    for batch in (16,) if real else (4, 8, 32):
        recipe = recipe_for(backbone, steps=steps, batch=batch, evaluate_every=evaluate_every, **more)
        given = f"--batch {batch} --steps {steps} --evaluate-every {evaluate_every} --limit-train 2000 --limit-test 200 --device {options.device}"
        ways: dict[str, Callable[[], Any]] = {
            "bank": partial(train_adaptations, backbone, jobs, recipe),
            "one by one": partial(_one_by_one, backbone, jobs, recipe),
        }
        if real:
            ways[LAUNCHED] = partial(_launched, backbone, jobs, recipe)
        else:
            each = [((name,), (seed,)) for name in BANK_TASKS for seed in range(seeds)]
            ways["one command"] = partial(_commands, [(BANK_TASKS, range(seeds))], given)
            ways["a command each"] = partial(_commands, each, given)
        taken = alternate(ways, options.rounds)
        ratios = {
            f"{fast} is faster than {slow} by": f"{taken[slow] / taken[fast]:.2f}"
            for slow, fast in (("one by one", "bank"), (LAUNCHED, "bank"), ("a command each", "one command"))
            if slow in taken
        }
        seconds = {f"{name} s": f"{value:.1f}" for name, value in taken.items()}
        rows.append({"batch": str(batch), **ratios, **seconds})
    markdown(list(rows[0]), [list(row.values()) for row in rows])


LAUNCHED = "one by one, not recorded"


def _one_by_one(backbone: Any, jobs: Sequence[Any], recipe: Any) -> None:
    """Prompts one after another."""
    from prompttransfer.training.train import train_adaptations

    for job in jobs:
        train_adaptations(backbone, [job], recipe)


def _launched(backbone: Any, jobs: Sequence[Any], recipe: Any) -> None:
    """The same, every product launched by Python."""
    backbone.records = False
    _one_by_one(backbone, jobs, recipe)
    backbone.records = True


def _commands(banks: Sequence[tuple[Sequence[str], Sequence[int]]], given: str) -> None:
    """`prompttransfer train` once a bank of (tasks, seeds), one after another, from the start of the process to its end."""
    with tempfile.TemporaryDirectory() as folder:
        for number, (tasks, seeds) in enumerate(banks):
            command = [sys.executable, "-m", "prompttransfer", "train", "--task", *tasks]
            command += ["--seeds", *map(str, seeds), "--output", f"{folder}/{number}", *given.split()]
            _quietly(command)


def alternate(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of wall time of each way; they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def matrix(options: argparse.Namespace) -> None:
    """Zero-shot evaluation of a matrix of random prompts: targets encoded once, all sources in one pass."""
    import torch

    from prompttransfer.adaptations.prompts import soft_prompt
    from prompttransfer.backbones.loading import load_backbone
    from prompttransfer.transfers.zero_shot import Target, zero_shot
    from tasks.catalog import all_tasks, find_task
    from tasks.loading import load_splits

    backbone = load_backbone(BACKBONE, device=options.device)
    size, count = (3, 50) if options.quick else (17, 1000)
    names = [name for name in all_tasks() if name.startswith("microworld-") and not find_task(name).generates]
    targets = []
    for index in range(size):  # the embedded world has fewer tasks, and fewer test rows than training rows
        task = find_task(names[index % len(names)])
        splits = load_splits(task, limit_train=count)
        targets.append(Target(task, replace(splits, test=splits.train)))
    prompts = [
        soft_prompt(
            vectors=torch.randn(20, backbone.width, generator=torch.Generator().manual_seed(seed)),
            task=names[seed % len(names)], name=f"p{seed}", backbone=backbone.name, revision=backbone.revision,
            family=backbone.family, seed=seed,
        )
        for seed in range(size)
    ]  # fmt: skip
    start = clock()
    zero_shot(backbone, prompts, targets)
    taken = clock() - start
    tested = sum(len(target.splits.test) for target in targets)
    say(
        f"\n## matrix: {size} sources x {size} targets, {tested / size:.0f} rows a target, on {BACKBONE}: {taken:.0f} s "
        f"({tested * size / taken:.0f} rows and prompts a second, reference rows not counted)"
    )


def start(options: argparse.Namespace) -> None:
    """Seconds from the command to `--help`, and to the end of the first training step."""
    say("\n## start-up, seconds from the command")
    first_step = (
        "import os, sys, prompttransfer.training.progress as p; p.TrainingProgress.step = lambda *a: os._exit(0);"
        "from prompttransfer.cli import main; sys.argv = ['prompttransfer', *{arguments!r}]; main()"
    )
    rounds = max(3, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["train", "--task", "microworld-sst2", "--output", folder, "--device", options.device]
        commands = {
            "prompttransfer --help": [sys.executable, "-m", "prompttransfer", "--help"],
            "prompttransfer train, first step done": [
                sys.executable,
                "-c",
                first_step.format(arguments=arguments),
            ],
        }
        taken = alternate({name: partial(_quietly, command) for name, command in commands.items()}, rounds)
    markdown(["command", "s"], [[name, f"{seconds:.2f}"] for name, seconds in taken.items()])


def memory(options: argparse.Namespace) -> None:
    """What `train --dry-run` expects beside the peak of the same run: what the operating system counted, or on a GPU what
    torch had set aside for tensors."""
    say("\n## memory: expected by --dry-run, and measured")
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        real = _save_backbone(Path(folder) / "roberta-base")
        short = ["--steps", "3", "--limit-train", "200", "--limit-test", "100", "--task", "microworld-sst2"]
        long = [
            "--steps",
            "150",
            "--task",
            *(f"microworld-{name}" for name in ("imdb", "snli", "sst2", "qqp")),
        ]
        checkpoints = ["--checkpoint-activations"]
        cases = [
            ("microworld, one task, 3 steps", BACKBONE, 20, 32, short, ([], checkpoints)),
            ("microworld, four tasks, 150 steps", BACKBONE, 20, 32, long, ([],)),
            ("roberta-base, one task, 3 steps", real, 100, 16, short, ([], checkpoints)),
        ]
        # Without bf16 units a step of roberta-base in bf16 takes minutes, and nobody would train so.
        precisions = ("fp32", "bf16") if options.precision == "bf16" else ("fp32",)
        if options.device.startswith(
            "cuda"
        ):  # the libraries' own memory is not counted there, and hides nothing
            cases, precisions = cases[-1:], precisions[-1:]
        for name, backbone, length, batch, given, flags in cases:
            for precision in precisions:
                for flag in flags:
                    arguments = [
                        *(
                            "train",
                            "--backbone",
                            str(backbone),
                            "--length",
                            str(length),
                            "--batch",
                            str(batch),
                        ),
                        *("--precision", precision, "--device", options.device, *given),
                        *("--output", str(Path(folder) / "out" / str(len(rows))), *flag),
                    ]
                    said = _quietly([sys.executable, "-m", "prompttransfer", *arguments, "--dry-run"])
                    found = re.search(r"expected peak memory: ([\d.]+) GB", said)
                    if found is None:
                        raise SystemExit(f"the dry run said no memory: {said}")
                    expected, measured = float(found[1]), _peak_memory(arguments, options.device)
                    rows.append(
                        [
                            name, precision, "yes" if flag else "no", f"{expected:.2f}",
                            f"{measured:.2f}", f"{100 * (expected / measured - 1):+.0f} %",
                        ]
                    )  # fmt: skip
    markdown(["run", "precision", "checkpoints", "expected GB", "measured GB", "difference"], rows)


def _quietly(command: Sequence[str]) -> str:
    """Run a command; its output."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "400"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled modules are kept, as they are for a user
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")
    return done.stdout


PEAK = """
import resource as r, subprocess as s, sys
s.check_call([sys.executable, "-m", "prompttransfer", *sys.argv[1:]])
print("PEAK", r.getrusage(r.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""
"""Linux counts the memory of whoever starts a process as that process's own peak, so something small has to start it."""
PEAK_ON_GPU = """
import torch
from prompttransfer.cli import main
try:
    main()
finally:
    print("PEAK", torch.cuda.max_memory_reserved())
"""


def _peak_memory(arguments: Sequence[str], device: str) -> float:
    """Run `prompttransfer`; its peak memory in GB."""
    code = PEAK_ON_GPU if device.startswith("cuda") else PEAK
    return int(_quietly([sys.executable, "-c", code, *arguments]).rpartition("PEAK ")[2]) / 1e9


def _save_backbone(folder: Path) -> Path:
    """A folder of roberta-base with random weights and the embedded world's tokenizer."""
    import torch
    from benchmark_models import SHAPES, make_model
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    from prompttransfer.backbones.locating import EMBEDDED_FOLDER

    disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_FOLDER / BACKBONE)
    model = make_model(SHAPES["roberta-base"], torch.float32, torch.device("cpu"))
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
