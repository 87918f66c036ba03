"""Every tuning method side by side: scores beside full fine-tuning, transfer within and across types, and what it costs.

    prompttransfer study run methods --output runs/methods        # the scores: two embedded models, three seeds
    python scripts/measure_methods.py runs/methods                # the tables of docs/method-comparison.md

Scores and matrices are the study's. Costs are measured here, one member alone: a step (forward, backward, AdamW) in turns
with a prompt's, so read the ratio (BENCHMARK_CLOCK=cpu OMP_NUM_THREADS=1 on a busy machine); and what a step adds to the
memory of a process of its own at its highest.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from benchmark_models import clock
from benchmark_print import markdown

TASK, BATCH = "microworld-mnli", 32
FULL, PROMPT = "full", "prompt"


def stepper(backbone_name: str, text: str) -> tuple[Callable[[], None], int]:
    """What makes one step of the method, and how many values it trains."""
    import torch

    from prompttransfer.backbones.layouts import find_layout
    from prompttransfer.backbones.loading import load_backbone
    from prompttransfer.training.recipes import make_optimizer, method_and_recipe
    from tasks.catalog import find_task
    from tasks.loading import load_splits

    backbone = load_backbone(backbone_name, precision="fp32")
    method, recipe = method_and_recipe(backbone.family, backbone.width, text)
    task = find_task(TASK)
    member = method.member(backbone, task, start="random", seed=0)
    rows = backbone.encode(task, load_splits(task).train[:BATCH], reserved=method.reserved)
    batch = backbone.batch(rows, layout=find_layout("prompt-first"))
    owners = torch.zeros(batch.rows, dtype=torch.long)
    parameters = [value for value in member.parameters() if value.requires_grad]
    optimizer = make_optimizer(recipe, parameters)

    def step() -> None:
        backbone.loss(method.bank(backbone, [member]).rows(owners), batch).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, sum(value.numel() for value in parameters)


def peak(backbone: str, text: str) -> int:
    """Bytes that steps add at the highest to this process, which has done nothing else."""
    step, _ = stepper(backbone, text)
    Path("/proc/self/clear_refs").write_text("5")  # begins the high-water mark anew
    before = _memory("VmRSS")
    for _ in range(3):
        step()
    return _memory("VmHWM") - before


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def disk(backbone_name: str, text: str) -> int:
    """Bytes of the folder that `train` writes for one task."""
    with tempfile.TemporaryDirectory() as folder:
        given = f"train --backbone {backbone_name} --task {TASK} --method {text} --steps 2 --evaluate-every 2 --limit-test 20 --logger none"
        command = [sys.executable, "-m", "prompttransfer", *given.split(), "--output", f"{folder}/out"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        weights = next(Path(folder, "out").rglob("adapter_model.safetensors")).parent
        return sum(
            path.stat().st_size
            for path in weights.iterdir()
            if path.suffix == ".safetensors" and path.stem != "initial"
        )


def costs(backbone: str, methods: Sequence[str], rounds: int) -> dict[str, list[str]]:
    """Method -> trained values, step beside a prompt's, memory, disk."""
    base, _ = stepper(backbone, PROMPT)
    found = {}
    for text in methods:
        step, values = stepper(backbone, text)
        seconds: tuple[list[float], list[float]] = ([], [])
        for round_ in range(rounds + 2):
            for way, taken in zip((base, step), seconds, strict=True):
                start = clock()
                way()
                if round_ >= 2:
                    taken.append(clock() - start)
        theirs, ours = map(statistics.median, seconds)
        command = [sys.executable, __file__, "--peak", backbone, text]
        grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
        found[text] = [
            f"{values:,}", f"{ours / theirs:.2f}", f"{grown / 1e6:.0f}", f"{disk(backbone, text) / 1e3:,.0f}"
        ]  # fmt: skip
    return found


def scores(results: pd.DataFrame) -> dict[str, list[str]]:
    """Method -> own test score over tasks, its spread over seeds, and how far it is from full fine-tuning."""
    own = results[(results["condition"] == "own prompt") & (results["measure"] == "accuracy")]
    by_seed = own.groupby(["method", "seed"])["value"].mean().unstack()
    upper = by_seed.loc[FULL].mean() if FULL in by_seed.index else float("nan")
    return {
        str(method): [f"{row.mean():.3f}", f"{row.std():.3f}", f"{row.mean() - upper:+.3f}"]
        for method, row in by_seed.iterrows()
    }


CONTROLS = {
    "random": ("random prompt", "random adaptation"),
    "no adaptation": ("no prompt",),
    "calibrated": ("no prompt, calibrated",),
    "majority": ("majority",),
}
"""Column -> what it is called in results.csv."""


CONTRASTS = ("same type minus different type", "different type minus random")
"""Of comparisons.csv, over target tasks; `random` is called a prompt or an adaptation there."""


def contrasts(found: pd.DataFrame) -> dict[str, list[str]]:
    """Method -> differences of zero-shot scores with 95 % intervals, each of which is for itself."""
    over = found[(found["family"] == "zero-shot") & (found["over"] == "tasks")]
    told: dict[str, list[str]] = {}
    for method, part in over.groupby("method", sort=False):
        for name in CONTRASTS:
            row = part[part["comparison"].str.startswith(name)].iloc[0]
            told.setdefault(str(method), []).append(
                f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
            )
    return told


def transfers(results: pd.DataFrame, flags: pd.DataFrame) -> dict[str, list[str]]:
    """Method -> scores over own score: zero-shot within and across types, and of the controls; then how well the same-type
    flag orders sources."""
    scores = results[results["measure"] == "accuracy"]
    best = scores[scores["condition"] == "own prompt"].groupby(["method", "target"])["value"].mean()
    found = {}
    for method, part in scores.groupby("method", sort=False):
        own = part["target"].map(lambda target, method=method: best.get((method, target)))
        part = part.assign(relative=part["value"] / own)
        shots = part[part["condition"] == "zero-shot"].groupby("relation")["relative"].mean()
        cells = [shots.get(relation, float("nan")) for relation in ("same type", "different type")]
        cells += [part[part["condition"].isin(names)]["relative"].mean() for names in CONTROLS.values()]
        flag = flags[(flags["method"] == method) & (flags["indicator"] == "same-type")]
        said = ["-", "-"]
        if len(flag):
            row = flag.iloc[0]
            said = [
                f"{row['mean_spearman']:.2f} ({row['low']:.2f} to {row['high']:.2f})",
                f"{row['p_permutation']:.4f}",
            ]
        found[str(method)] = [f"{value:.3f}" for value in cells] + said
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, nargs="?", help="folder of the study `methods`")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=("scores", "costs"))
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(peak(*options.peak))
        return
    if options.study is None:
        parser.error("give the folder of the study `methods`")
    results = pd.read_csv(options.study / "results.csv")
    flags, compared = (
        pd.read_csv(options.study / "report" / f"{name}.csv") for name in ("indicators", "comparisons")
    )
    for backbone, part in results.groupby("backbone", sort=False):
        own = scores(part)
        print(f"\n{backbone}: mean over tasks, three seeds")
        head = ["method", "test", "sd over seeds", "minus full"]
        paid: dict[str, list[str]] = {}
        if options.only != "scores":
            head += ["trained values", "step, in prompts' steps", "memory MB", "disk KB"]
            paid = costs(str(backbone), list(own), options.rounds)
        markdown(head, [[name, *row, *paid.get(name, [])] for name, row in own.items()])
        if not (part["condition"] == "zero-shot").any():
            continue
        moved = transfers(part, flags[flags["backbone"] == backbone])
        differences = contrasts(compared[compared["backbone"] == backbone])
        print(f"\n{backbone}: zero-shot over own score")
        markdown(
            ["method", "same type", "different type", *CONTROLS, "flag's rho (95 %)", "p"],
            [[name, *row] for name, row in moved.items()],
        )
        print(f"\n{backbone}: differences of zero-shot scores, mean over targets (95 %)")
        markdown(["method", *CONTRASTS], [[name, *row] for name, row in differences.items()])


if __name__ == "__main__":
    main()
