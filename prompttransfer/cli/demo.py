"""`prompttransfer demo`: the whole story on the embedded world, in minutes, with no network.

Trains prompts of eight tasks of four types on a small frozen model, moves each to every other task, compares their
vectors, draws the matrix, and writes one page. Each stage is the command that a user would type, and is said before it runs.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prompttransfer.cli.options import EMBEDDED_DEFAULT, BackboneName

if TYPE_CHECKING:
    from prompttransfer.matrix import TransferMatrix

DEMO_TASKS = tuple(
    f"microworld-{name}"
    for name in ("imdb", "restaurant", "mnli", "snli", "deontology", "justice", "qqp", "mrpc")
)
STEPS, TEST_ROWS = 150, 200


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for everything that is made.")
    ] = Path("runs/demo"),
    backbone: BackboneName = EMBEDDED_DEFAULT,
    steps: Annotated[int, typer.Option(help="Training steps of each prompt.")] = STEPS,
    seed: Annotated[int, typer.Option(help="Seed of the prompts.")] = 0,
    tasks: Annotated[list[str] | None, typer.Option(help="Other tasks of the embedded world.")] = None,
) -> None:
    """Train eight prompts on a small embedded model, transfer each to every other task, and draw the heatmap."""
    from prompttransfer.cli.common import say
    from prompttransfer.cli.compare import compare
    from prompttransfer.cli.plot import heatmap
    from prompttransfer.cli.report import report
    from prompttransfer.cli.train import train
    from prompttransfer.cli.transfer import transfer

    started = time.monotonic()
    chosen = list(tasks or DEMO_TASKS)
    listed = " ".join(chosen)
    prompts, moved, alike = output / "prompts", output / "transfer", output / "compare"
    _stage(f"1. train one soft prompt a task on the frozen {backbone}")
    say(f"$ prompttransfer train --task {listed} --steps {steps} --output {prompts}\n")
    train(
        task=chosen, backbone=backbone, steps=steps, seeds=[seed], output=prompts,
        limit_test=TEST_ROWS, evaluate_every=max(1, steps // 3),
    )  # fmt: skip
    folders = [prompts / name for name in chosen]
    _stage("2. move each prompt to every task, with nothing trained")
    say(f"$ prompttransfer transfer {prompts} --to {listed} --output {moved}\n")
    matrix = transfer(sources=folders, to=chosen, output=moved, limit_test=TEST_ROWS)
    _stage("3. compare the prompts' vectors")
    say(f"$ prompttransfer compare {prompts} --output {alike}\n")
    compare(folders, output=alike)
    _stage("4. draw the matrix")
    picture = output / "heatmap.png"
    table = moved / "transfer_relative.csv"
    say(f"$ prompttransfer plot heatmap {table} --output {picture}\n")
    title = "Zero-shot transfer, relative to own prompt"
    heatmap(table, output=picture, title=title)
    _stage("5. put it all on one page")
    say(f"$ prompttransfer report {output}\n")
    report(output)
    _explain(matrix, time.monotonic() - started)


def _stage(line: str) -> None:
    from prompttransfer.cli.common import console

    console.print(f"\n[bold]{line}[/bold]")


def _explain(matrix: TransferMatrix, seconds: float) -> None:
    """What was seen, in numbers and words."""
    from prompttransfer.cli.common import say, table
    from prompttransfer.matrix import MAJORITY, NO_PROMPT, RANDOM_PROMPT
    from tasks.catalog import find_task

    types = {name: find_task(name).type for name in matrix.targets}
    means = matrix.relative().summary(types)
    meaning = {
        "same type": "prompts of another task of the same type: what the task type carries over",
        "different type": "prompts of tasks of other types",
        RANDOM_PROMPT: "random vectors at the same norm: what any prompt does",
        NO_PROMPT: "the model alone",
        MAJORITY: "always the commonest answer: chance",
    }
    rows = [[name, f"{100 * means[name]:.0f} %", text] for name, text in meaning.items() if name in means]
    drawn = [[name, text, share] for name, share, text in rows]
    table(
        "\nwhat a prompt is worth on another task, relative to the task's own prompt",
        ["source", "what it is", "mean"],
        drawn,
        left=2,
    )
    say(f"\nOne seed: a demonstration, not evidence. Took {seconds:.0f} s.")
