"""How fast prompts are trained and evaluated, beside what a researcher would use instead, and beside the machine's limit.

    python scripts/benchmark.py                      everything (a quiet machine, 20 to 40 minutes on two cores)
    python scripts/benchmark.py --only table         one section: table, levers, lora, methods, bank, ...
    python scripts/benchmark.py --quick              one round of few steps, small models' sections shortened
    python scripts/benchmark.py --task imdb --data DIR    lengths measured in DIR/imdb/train.jsonl

Models have real shapes and random weights, rows random tokens with real lengths; nothing is downloaded. Every
contestant has a process of its own and they take turns, so that a machine whose speed drifts is fair to all; figures
are medians over rounds. The limit is this machine's own matrix product, measured in the same turns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmark_lora import banked, evaluated
from benchmark_print import markdown, say
from benchmark_small import bank, matrix, memory, start

MARK = "RESULT "
NAMES = {
    "ours": "prompttransfer",
    "peft": "PEFT as documented",
    "peft-fair": "PEFT, bf16 autocast, dynamic padding",
    "peft-weights": "PEFT, bf16 weights, dynamic padding",
    "plain": "plain loop as the original code",
}
ALTERNATIVES = list(NAMES)[1:]
IN_FLOAT32 = {**NAMES, "peft-fair": "PEFT, dynamic padding"}
"""Where ours runs in float32 the fair fight does too; bf16 weights then have no part in it."""
del IN_FLOAT32["peft-weights"]


Limit = tuple[float, ...]
"""Operations a second of the matrix product: the fastest that was seen, and what was sustained."""


@dataclass
class Worker:
    """A process that holds one contestant and runs a round of it when asked."""

    setup: dict[str, Any]
    options: argparse.Namespace
    seconds: list[float] = field(default_factory=list)
    """Seconds a row, one value a round."""
    tokens: float = 0.0
    """Tokens a row."""
    waited: list[float] = field(default_factory=list)
    possible: list[float] = field(default_factory=list)
    """Operations a row that products would have done in its time, one value a round."""
    last: dict[str, Any] = field(default_factory=dict)
    killed: bool = False
    """Whether the system ended it, which it does when memory runs out."""

    def __post_init__(self) -> None:
        command = [sys.executable, __file__, "--worker", json.dumps(self.setup), "--task", self.options.task]
        if self.options.data:
            command += ["--data", str(self.options.data)]
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, steps: int) -> None:
        """One round; an alternative to ours that the system killed is left out from then on."""
        if self.killed:
            return
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):  # it may have been killed since its last round
            self.process.stdin.write(f"{steps}\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith(MARK):
                break
        else:
            self._end()
            return
        self.last = json.loads(line.removeprefix(MARK))
        self.seconds.append(self.last["seconds"] / self.last["rows"])
        self.tokens = self.last["tokens"] / self.last["rows"]
        self.waited.append(self.last["waited"] / self.last["seconds"])
        self.possible.append(self.last["possible"] / self.last["rows"])

    def _end(self) -> None:
        """What an ended process means: a killed alternative lacks memory, anything else ends the benchmark."""
        status = self.process.wait()
        self.killed = status == -signal.SIGKILL
        why = "killed, most likely for want of memory" if self.killed else "see its message above"
        if not self.killed or self.contestant not in ALTERNATIVES:
            raise SystemExit(f"the process of {self.setup} ended with status {status}: {why}")
        say(f"  {NAMES[self.contestant]}: {why}; --against {self.contestant} runs it alone beside ours")

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()

    @property
    def contestant(self) -> str:
        """Its name."""
        return str(self.setup["contestant"])

    @property
    def rate(self) -> float:
        """Rows a second, median over rounds."""
        return 1 / statistics.median(self.seconds)

    def share(self, limit: Limit) -> str:
        """Useful operations over the fastest product's, and over what products did around each step; in percent.

        On a GPU, whose speed is steady, the second is over what was sustained.
        """
        best, sustained = (self.last["operations_per_row"] * self.rate / rate for rate in limit)
        possible = statistics.median(self.possible)
        now = self.last["operations_per_row"] / possible if possible else sustained
        return f"{100 * best:.0f} % ({100 * now:.0f} %)"


def work(setup: dict[str, Any], task: str, data: Path | None) -> None:
    """The worker's side: a line with a number of steps in, a line with what they took out."""
    import torch
    from benchmark_contestants import Setup, make
    from benchmark_models import matmul_rate, operations, peak_memory
    from benchmark_rows import draw, lengths_of

    if setup["contestant"] == "limit":
        device = torch.device(setup["device"])
        for _ in sys.stdin:
            rates = {name: matmul_rate(getattr(torch, name), device) for name in setup["types"]}
            nothing = {"seconds": 1, "rows": 1, "tokens": 0, "possible": 0, "waited": 0}
            print(MARK + json.dumps({**nothing, **rates}), flush=True)
        return
    chosen = Setup(**setup)
    samples = draw(lengths_of(task, data), 4096, vocabulary=chosen.shape.vocabulary)
    contestant, model = make(chosen, samples)
    for line in sys.stdin:
        done = contestant(int(line))
        result = asdict(done)
        result["operations_per_row"] = operations(model, done.tokens / done.rows, 1)
        result["memory"] = peak_memory(chosen.place)
        print(MARK + json.dumps(result), flush=True)


def turns(
    setups: Sequence[dict[str, Any]], options: argparse.Namespace
) -> tuple[list[Worker], dict[str, Limit]]:
    """Let contestants take turns; returns them with their figures, and the limits by type."""
    types = ["float32"] if options.precision == "fp32" else ["float32", "bfloat16"]
    limit = Worker({"contestant": "limit", "device": options.device, "types": types}, options)
    workers = [Worker(setup, options) for setup in setups]
    limits: dict[str, list[Limit]] = {}
    for round_number in range(options.rounds):
        limit.run(1)
        for name in types:
            limits.setdefault(name, []).append(limit.last[name])
        for worker in workers:
            worker.run(options.steps * 3 if worker.contestant == "ours" else options.steps)
        say(f"  round {round_number + 1} of {options.rounds} done")
    for worker in (limit, *workers):
        worker.close()
    medians = {
        name: tuple(map(statistics.median, zip(*values, strict=True))) for name, values in limits.items()
    }
    return workers, medians


def table(options: argparse.Namespace) -> None:
    """Ours beside PEFT and the plain loop, for every model."""
    for model in options.models:
        say(f"\n## {model}, prompt of {options.length}, lengths of {options.task}, batch {options.batch}")
        common = {"model": model, "length": options.length, "batch": options.batch, "device": options.device}
        precision = options.precision
        shown = NAMES if precision == "bf16" else IN_FLOAT32
        names = ["ours", *(name for name in shown if name in options.against)]
        setups = [{"contestant": name, "precision": precision, **common} for name in names]
        workers, limits = turns(setups, options)
        ours = workers[0]
        half = precision == "bf16"
        rows = []
        for worker in workers:
            name = worker.contestant
            kind = "bfloat16" if half and name not in ("peft", "plain") else "float32"
            if worker.killed:
                rows.append([shown[name], "-", "-", "did not fit", kind, "-"])
                continue
            rows.append(
                [
                    shown[name], f"{ours.rate / worker.rate:.2f}", f"{worker.rate:.2f}",
                    f"{worker.last['memory']:.2f}", kind, worker.share(limits[kind]),
                ]
            )  # fmt: skip
        head = [
            "",
            "ours is faster by",
            "examples/s",
            "peak memory GB",
            "product",
            "share of its best rate (of its rate at the time)",
        ]
        markdown(head, rows)
        rates = ", ".join(
            f"{name} {best / 1e9:.0f} (median {sustained / 1e9:.0f})"
            for name, (best, sustained) in limits.items()
        )
        say(f"matrix product: {rates} GFLOP/s")
        say(f"time our model waits for data: {100 * statistics.median(ours.waited):.2f} %")


def levers(options: argparse.Namespace) -> None:
    """Ours with one lever at a time taken away."""
    from benchmark_levers import LEVERS, ON_GPU

    model = options.models[0]
    say(f"\n## levers: {model}, prompt of {options.length}, lengths of {options.task}, batch {options.batch}")
    left_out = {"compiled"} if options.quick else set()
    if not options.device.startswith("cuda"):
        left_out |= set(ON_GPU)
    if options.precision == "fp32":
        left_out |= {"no bf16", "autocast"}  # nothing to take away
    chosen = [lever for lever in LEVERS if lever not in left_out]
    common = {
        "contestant": "ours", "precision": options.precision, "model": model, "length": options.length,
        "batch": options.batch, "device": options.device,
    }  # fmt: skip
    rows = []
    for lever in chosen:  # two processes at a time: memory stays small, and each has ours beside it
        workers, _ = turns([common, {**common, "lever": lever}], options)
        ours, other = workers
        rows.append(
            [
                lever,
                LEVERS[lever],
                f"{ours.rate / other.rate:.2f}",
                f"{other.rate:.2f}",
                f"{other.last['memory']:.2f}",
            ]
        )
    rows.insert(0, ["ours", "", "1.00", f"{ours.rate:.2f}", f"{ours.last['memory']:.2f}"])
    markdown(["ours with", "what that is", "ours is faster by", "examples/s", "peak memory GB"], rows)


def lora(options: argparse.Namespace) -> None:
    """LoRA of rank 8: a step beside PEFT's and beside a prompt's over as many positions, a bank, and evaluation."""
    model = options.models[0]
    say(f"\n## lora: {model}, rank 8, lengths of {options.task}, batch {options.batch}")
    common = {"model": model, "length": options.length, "batch": options.batch, "device": options.device}
    common |= {"precision": options.precision, "method": "lora"}
    shown = NAMES if options.precision == "bf16" else IN_FLOAT32
    names = ["ours", *(name for name in shown if name in options.against and name != "plain")]
    workers, _ = turns([{"contestant": name, **common} for name in names], options)
    rows = [
        [shown[w.contestant], times_faster(workers[0], w), f"{w.rate:.2f}"] for w in workers if not w.killed
    ]
    markdown(["", "ours is faster by (each round)", "examples/s"], rows)
    prompt = {"contestant": "ours", **common, "method": "prompt"}
    longer = [{"contestant": "ours", **common, "more": options.length, "method": name} for name in KINDRED]
    workers, _ = turns([prompt, *longer], options)
    names = ["prompt", *KINDRED]
    rows = [
        [name, times_faster(workers[0], w), f"{w.rate:.2f}"] for name, w in zip(names, workers, strict=True)
    ]
    say(f"\nsteps over as many positions: a prompt of {options.length}, and texts longer by as much")
    markdown(["", "takes so many times a prompt's step (each round)", "examples/s"], rows)
    banked(options)
    evaluated(options)


def methods(options: argparse.Namespace) -> None:
    """Steps of every method that PEFT has too, beside PEFT's."""
    from benchmark_contestants import WITH_PEFT

    model = options.models[0]
    say(
        f"\n## methods: {model}, lengths of {options.task}, batch {options.batch}, {PREFIX} vectors where there are any"
    )
    common = {"model": model, "length": PREFIX, "batch": options.batch, "device": options.device}
    common |= {"precision": options.precision}
    shown = NAMES if options.precision == "bf16" else IN_FLOAT32
    theirs = [name for name in shown if name in options.against and name.startswith("peft")]
    rows = []
    for method in options.methods or WITH_PEFT:
        setups = [{"contestant": name, **common, "method": method} for name in ("ours", *theirs)]
        (ours, *others), _ = turns(setups, options)
        faster = ["did not fit" if other.killed else times_faster(ours, other) for other in others]
        rows.append([f"`{method}`", *faster, f"{ours.rate:.2f}"])
    markdown(
        ["ours is faster (each round) than", *(shown[name] for name in theirs), "ours, examples/s"], rows
    )


PREFIX = 20
"""Vectors of `methods`."""

KINDRED = ("lora", "lora-fa", "dora", "adalora", "vera", "ia3")
"""Methods at linear maps whose steps are measured beside a prompt's."""


def times_faster(fast: Worker, slow: Worker) -> str:
    """The median of what each round's ratio is, and all of them."""
    ratios = [theirs / ours for ours, theirs in zip(fast.seconds, slow.seconds, strict=True)]
    return f"{statistics.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})"


SECTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "table": table,
    "levers": levers,
    "lora": lora,
    "methods": methods,
    "bank": bank,
    "matrix": matrix,
    "start": start,
    "memory": memory,
}


def describe_machine(device: str) -> str:
    """The processor, its threads and the versions that matter."""
    import torch
    import transformers

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    wanted = {"amx_bf16", "avx512_bf16"}
    flags = next((set(line.split()) & wanted for line in lines if line.startswith("flags")), set())
    place = (
        torch.cuda.get_device_name(0) if device.startswith("cuda") else f"{torch.get_num_threads()} threads"
    )
    return (
        f"{model}, {place}, {' '.join(sorted(flags)) or 'no bf16'}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=SECTIONS, nargs="+", help="sections to run")
    parser.add_argument("--quick", action="store_true", help="one round of few steps")
    parser.add_argument(
        "--models", nargs="+", default=None, help="roberta-base, roberta-large, t5-base, t5-large"
    )
    parser.add_argument(
        "--task", default="sst2", help="whose lengths: sst2, snli, imdb, squad, or a folder in --data"
    )
    parser.add_argument("--data", type=Path, help="folder with <task>/train.jsonl to measure lengths in")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=100, help="prompt vectors")
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--steps", type=int, default=None, help="steps a round (ours: three times as many)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--precision", choices=("bf16", "fp32"), default=None, help="ours; default: what the hardware has"
    )
    parser.add_argument(
        "--against", nargs="+", choices=ALTERNATIVES, default=ALTERNATIVES, help="in the table"
    )
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: processor seconds of one thread (a busy machine)",
    )
    parser.add_argument("--methods", nargs="+", help="of sections `methods` and `lora`; all if not given")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(json.loads(options.worker), options.task, options.data)
        return
    if options.clock == "cpu" and os.environ.get("BENCHMARK_CLOCK") != "cpu":
        environment = {**os.environ, "BENCHMARK_CLOCK": "cpu", "OMP_NUM_THREADS": "1"}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)  # before torch counts its threads
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.steps = options.steps or (2 if options.quick else 3)
    options.models = options.models or ["roberta-base", "t5-base"] + (
        [] if options.quick else ["roberta-large"]
    )
    if options.precision is None:
        import torch

        from prompttransfer.backbones.loading import choose_dtype

        auto = choose_dtype("auto", torch.device(options.device))
        options.precision = "bf16" if auto is torch.bfloat16 else "fp32"
    say(describe_machine(options.device))
    for name in options.only or SECTIONS:
        SECTIONS[name](options)


if __name__ == "__main__":
    main()
