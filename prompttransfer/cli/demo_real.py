"""`prompttransfer demo-real`: transfer on a real pre-trained model and real data, in half an hour on two cores.

Trains a prompt and a LoRA on sst2 and on snli, on SmolLM2-135M, moves the four to tasks of the same type and of the other
one, draws the matrices and says what a source of the same type is worth. Each stage is the command that a user would type.
How long it takes is said before it begins, from a few steps and rows of each kind.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from prompttransfer.cli.demo import stage
from prompttransfer.cli.options import BackboneName, Overwrite
from prompttransfer.cli.values import Output, Real, Seed, Whole, checked

if TYPE_CHECKING:
    from prompttransfer.adaptations.method import Method
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.transfers.matrix import TransferMatrix
    from prompttransfer.transfers.zero_shot import Target

BACKBONE = "smollm2-135m"


@dataclass(frozen=True)
class Lesson:
    """One adaptation that is trained."""

    method: str
    task: str
    steps: int
    batch: int
    folder: str
    """Where adaptations of its method lie."""


LESSONS = (
    Lesson("prompt", "sst2", 100, 8, "prompts"),
    Lesson("lora:rank=8", "sst2", 50, 8, "loras"),
    Lesson("prompt", "snli", 240, 16, "prompts"),
    Lesson("lora:rank=8", "snli", 120, 16, "loras"),
)
"""Sentiment is there in 400 rows, inference not in 1,000 (docs/real-models.md)."""
NEW = ("rotten_tomatoes", "imdb", "tweeteval_sentiment", "mnli")
"""Tasks that nothing is trained on."""
TARGETS = ("sst2", "snli", *NEW)
LENGTH, DRAWS, TEST_ROWS = 20, 2, 100
SHOWN, SHOWN_DRAWS = 4, 3
"""Labelled rows of the target in front of each row, beside the matrix, and how often they are drawn."""
TIMED_STEPS, TIMED_ROWS = 3, 16
START_SECONDS = 15
"""What each command takes before it computes anything, about."""


@checked
def demo_real(
    data: Annotated[
        Path, typer.Option("--data", help="Folder with the rows: <task>/{train,validation}.jsonl.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for everything that is made."),
        Output(standard="runs/demo-real"),
    ] = None,
    backbone: BackboneName = BACKBONE,
    share: Annotated[
        float,
        typer.Option(help="Share of the training steps; 0.5 takes half as long to train."),
        Real(0.01, 10),
    ] = 1.0,
    limit_test: Annotated[
        int, typer.Option("--limit-test", help="Test rows of each task."), Whole()
    ] = TEST_ROWS,
    seed: Annotated[int, typer.Option(help="Seed of the adaptations."), Seed] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Train prompts and LoRAs of sst2 and snli on a real model, move them to four other tasks, and draw it."""
    from prompttransfer.cli.common import load_targets, resolve_tasks, say
    from prompttransfer.cli.plot import heatmap
    from prompttransfer.cli.report import report
    from prompttransfer.cli.train import train
    from prompttransfer.cli.transfer import transfer
    from tasks.errors import UserError

    if output is None:
        raise UserError("the demo is the files that it writes: say where with output")
    check_data(data)
    begun = time.monotonic()
    targets = load_targets(resolve_tasks(TARGETS), data=data, limit_test=limit_test, seeds=[seed])
    say_how_long(backbone, targets, share, limit_test)
    for number, lesson in enumerate(LESSONS, start=1):
        steps = steps_of(lesson, share)
        stage(
            f"{number}. train a {lesson.method.partition(':')[0]} of {lesson.task} on the frozen {backbone}"
        )
        place = output / lesson.folder
        rows = lesson.batch * steps
        given = f"--method {lesson.method} --steps {steps} --batch {lesson.batch} --evaluate-every {-(-steps // 2)}"
        say(
            f"$ prompttransfer train --task {lesson.task} --backbone {backbone} --data {data} {given} --seeds {seed} "
            f"--limit-train {rows} --limit-test {limit_test} --output {place}\n"
        )
        train(
            task=[lesson.task], backbone=backbone, data=data, method=lesson.method, steps=steps, batch=lesson.batch,
            evaluate_every=-(-steps // 2), seeds=[seed], limit_train=rows, limit_test=limit_test, output=place,
            overwrite=overwrite,
        )  # fmt: skip
    folders = list(dict.fromkeys(output / lesson.folder for lesson in LESSONS))
    moved = output / "transfer"
    stage("5. move each to every task, with nothing trained; 4 of the tasks are new to all")
    listed = " ".join(map(str, folders))
    say(
        f"$ prompttransfer transfer {listed} --to {' '.join(TARGETS)} --data {data} --limit-test {limit_test} "
        f"--calibrate train-mean --random-draws {DRAWS} --in-context {SHOWN} --draws {SHOWN_DRAWS} --output {moved}\n"
    )
    matrix = transfer(
        sources=folders, to=list(TARGETS), data=data, limit_test=limit_test, calibrate="train-mean",
        random_draws=DRAWS, in_context=SHOWN, draws=SHOWN_DRAWS, output=moved, overwrite=overwrite,
    )  # fmt: skip
    stage("6. draw the matrices, and put it all on one page")
    for name, title in (("transfer", "as it is"), ("transfer_calibrated", "calibrated")):
        table, picture = moved / f"{name}.csv", output / f"{name}.png"
        say(f"$ prompttransfer plot heatmap {table} --output {picture} --overwrite")
        heatmap(
            [table], output=picture, title=f"Zero-shot transfer on {backbone}, {title}", overwrite=True
        )  # fmt: skip
    say(f"$ prompttransfer report {output} --overwrite\n")
    report(output, overwrite=True)  # a demo that is run again has drawn its pictures anew
    explain(cast("TransferMatrix", matrix))
    say(f"\nOne seed: a demonstration, not evidence. Took {(time.monotonic() - begun) / 60:.0f} minutes.")


def check_data(data: Path) -> None:
    """Raise UserError, before anything is loaded, where rows of a task are missing."""
    from tasks.errors import UserError

    missing = [
        f"{task}/{split}.jsonl"
        for task in TARGETS
        for split in ("train", "validation")
        if not (data / task / f"{split}.jsonl").is_file()
    ]
    if missing:
        raise UserError(
            f"--data {data} lacks {', '.join(missing[:3])}{' and more' * (len(missing) > 3)}: the demo needs rows of "
            f"{', '.join(TARGETS)}, as JSON lines with text (or text_a, text_b) and label"
        )


def steps_of(lesson: Lesson, share: float) -> int:
    """How many steps are trained."""
    return max(2, round(lesson.steps * share))


# How long --------------------------------------------------------------------------------------------------------


def say_how_long(name: str, targets: Sequence[Target], share: float, limit_test: int) -> None:
    """Load the backbone, time a little of everything, and say what the whole will take."""
    import torch

    from prompttransfer.backbones.loading import load_backbone
    from prompttransfer.cli.common import describe, say

    model = load_backbone(name)
    say(describe(model))
    training, matrix = (seconds / 60 for seconds in expected_seconds(model, targets, share, limit_test))
    threads = torch.get_num_threads()
    said = f"{threads} thread{'s' * (threads > 1)}" if model.device.type == "cpu" else str(model.device)
    say(
        f"this will take about {training + matrix:.0f} minutes on {said}: {training:.0f} to train, {matrix:.0f} for the matrix "
        "(a few steps and rows of each kind were timed). Stopped, the same command goes on"
    )


def expected_seconds(
    model: Backbone, targets: Sequence[Target], share: float, limit_test: int
) -> tuple[float, float]:
    """Seconds of all training, with its evaluations, and of the matrix."""
    from prompttransfer.adaptations.methods import parse_method
    from prompttransfer.evaluation.calibration import ROWS
    from tasks.loading import validation_size

    by_task = {target.task.name: target for target in targets}
    a_row = {name: row_seconds(model, target) for name, target in by_task.items()}
    training = 0.0
    for lesson in LESSONS:
        steps, target = steps_of(lesson, share), by_task[lesson.task]
        rows = len(target.splits.train) + len(target.splits.validation)
        looked_at = 3 * validation_size(rows, lesson.batch * steps) + 2 * limit_test
        a_step = step_seconds(model, parse_method(lesson.method, length=LENGTH), target, lesson.batch)
        training += steps * a_step + looked_at * a_row[lesson.task] + START_SECONDS
    methods = len({lesson.method for lesson in LESSONS})
    passes = len(LESSONS) + DRAWS * methods + 1 + SHOWN_DRAWS
    matrix = sum(
        passes * (len(target.splits.test) + min(ROWS, len(target.splits.train))) * a_row[name]
        for name, target in by_task.items()
    )
    return training, matrix + START_SECONDS


def step_seconds(model: Backbone, method: Method, target: Target, batch: int) -> float:
    """Seconds of a training step, the fastest of a few."""
    import torch

    from prompttransfer.backbones.layouts import USUAL

    rows = model.encode(target.task, target.splits.train[: batch * TIMED_STEPS], reserved=method.reserved)
    member = method.member(model, target.task, start="random", seed=0)
    times = []
    for start in range(0, len(rows), batch):
        begun = time.monotonic()
        few = rows[start : start + batch]
        owners = torch.zeros(len(few), dtype=torch.long, device=model.device)
        padded = model.batch(few, layout=USUAL.place(model.family))
        model.loss(method.bank(model, [member]).rows(owners), padded).sum().backward()
        times.append(time.monotonic() - begun)
    return min(times)


def row_seconds(model: Backbone, target: Target) -> float:
    """Seconds of scoring a row with nothing trained."""
    from prompttransfer.adaptations.bank import BareBank
    from prompttransfer.evaluation.encoding import encode_task
    from prompttransfer.evaluation.evaluate import evaluate_bank

    few = target.splits.train[:TIMED_ROWS]
    encoded = encode_task(model, target.task, few, reserved=0)
    begun = time.monotonic()
    evaluate_bank(model, BareBank(), encoded)
    return (time.monotonic() - begun) / len(few)


# What was seen ---------------------------------------------------------------------------------------------------


def explain(matrix: TransferMatrix) -> None:
    """What each kind of source is worth on the tasks that nothing was trained on, in numbers and words."""
    from prompttransfer.cli.common import number, table

    assert matrix.calibrated is not None
    raw, calibrated = (worth(one) for one in (matrix, matrix.calibrated))
    drawn = [
        [name, text, number(raw[name]), number(calibrated[name])]
        for name, text in MEANING.items()
        if name in raw
    ]
    table(
        f"\nmean accuracy on {', '.join(NEW)}, for which nothing was trained",
        ["source", "what it is", "raw", "calibrated"],
        drawn,
        left=2,
    )


MEANING = {
    "prompt, same type": "20 vectors of sst2 for sentiment, of snli for inference",
    "prompt, other type": "the same the other way round",
    "lora, same type": "a LoRA of sst2 for sentiment, of snli for inference",
    "lora, other type": "the same the other way round",
    "random adaptation": "random ones of the same size: what any adaptation does",
    "no prompt": "the model alone",
    "no prompt, calibrated": "the model alone, less what its label words score whatever the text says",
    "in-context": f"{SHOWN} labelled rows of the target in front of each row, nothing trained",
    "majority": "always the commonest answer: chance",
}


def worth(matrix: TransferMatrix) -> dict[str, float]:
    """Kind of source -> mean score on the new tasks; for each of them every kind counts once."""
    from tasks.catalog import find_task

    found: dict[str, list[float]] = {}
    for row, task in enumerate(matrix.source_tasks):
        for column, target in enumerate(matrix.targets):
            if target not in NEW:
                continue
            kind = task
            if row < len(matrix.methods):
                alike = find_task(task).type == find_task(target).type
                kind = f"{matrix.methods[row].partition(':')[0]}, {'same' if alike else 'other'} type"
            found.setdefault(kind, []).append(float(matrix.values[row, column]))
    return {kind: sum(values) / len(values) for kind, values in found.items()}
