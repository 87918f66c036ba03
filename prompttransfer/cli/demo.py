"""`prompttransfer demo`: the whole story on the embedded world, in minutes, with no network.

Trains prompts of eight tasks of four types on a small frozen model, moves each to every other task, compares their
vectors, draws the matrix, carries the prompts to a second model through a projector, and writes one page. Each stage
is the command that a user would type, and is said before it runs.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from prompttransfer.cli.options import EMBEDDED_DEFAULT, BackboneName, Overwrite, Revision
from prompttransfer.cli.values import Output, Seed, Whole, checked

if TYPE_CHECKING:
    from prompttransfer.transfers.matrix import TransferMatrix

DEMO_TASKS = tuple(
    f"microworld-{name}"
    for name in ("imdb", "laptop", "mnli", "snli", "deontology", "justice", "qqp", "mrpc")
)
STEPS, TEST_ROWS = 80, 150
INDICATORS = ("E_concat", "E_average", "C_concat", "C_average", "C_concat-minus-initial", "ON", "few-shot")
OTHER_BACKBONES = ("microworld-roberta-wide", "microworld-roberta")
"""Where the prompts are carried to: the first that they are not from."""
OTHER_STEPS, FIT_STEPS, MOST_UNSEEN = 100, 200, 3


@checked
def demo(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for everything that is made."),
        Output(standard="runs/demo"),
    ] = None,
    backbone: BackboneName = EMBEDDED_DEFAULT,
    revision: Revision = None,
    steps: Annotated[int, typer.Option(help="Training steps of each prompt."), Whole()] = STEPS,
    seed: Annotated[int, typer.Option(help="Seed of the prompts."), Seed] = 0,
    tasks: Annotated[list[str] | None, typer.Option(help="Other tasks of the embedded world.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Train eight prompts on a small embedded model, move each to every other task and to another model, and draw it."""
    from prompttransfer.cli.common import resolve_tasks, say
    from prompttransfer.cli.compare import compare
    from prompttransfer.cli.plot import heatmap
    from prompttransfer.cli.report import report
    from prompttransfer.cli.train import train
    from prompttransfer.cli.transfer import transfer
    from tasks.errors import UserError

    if output is None:
        raise UserError("the demo is the files that it writes: say where with output")
    resolve_tasks(tasks or DEMO_TASKS)
    started = time.monotonic()
    chosen = list(tasks or DEMO_TASKS)
    listed = " ".join(chosen)
    prompts, moved, alike = output / "prompts", output / "transfer", output / "compare"
    stage(f"1. train one soft prompt a task on the frozen {backbone}")
    given = f"--steps {steps} --evaluate-every {max(1, steps // 2)} --limit-test {TEST_ROWS}"
    say(f"$ prompttransfer train --task {listed} {given} --output {prompts}\n")
    train(
        task=chosen, backbone=backbone, revision=revision, steps=steps, seeds=[seed], output=prompts,
        limit_test=TEST_ROWS, evaluate_every=max(1, steps // 2), overwrite=overwrite,
    )  # fmt: skip
    folders = [prompts / name for name in chosen]
    stage("2. move each prompt to every task, with nothing trained")
    say(f"$ prompttransfer transfer {prompts} --to {listed} --limit-test {TEST_ROWS} --output {moved}\n")
    matrix = transfer(sources=folders, to=chosen, output=moved, limit_test=TEST_ROWS, overwrite=overwrite)
    stage("3. compare the prompts: their vectors, the neurons they activate, their scores on a few rows")
    say(f"$ prompttransfer compare {prompts} --metric {' '.join(INDICATORS)} --output {alike}\n")
    compare(folders, metric=list(INDICATORS), output=alike, overwrite=overwrite)
    stage("4. draw the matrix")
    picture = output / "heatmap.png"
    table = moved / "transfer_relative.csv"
    say(f"$ prompttransfer plot heatmap {table} --output {picture}\n")
    title = "Zero-shot transfer, relative to own prompt"
    heatmap([table], output=picture, title=title, overwrite=overwrite)
    projected = _carry(output, prompts, chosen, backbone, revision, seed, overwrite)
    stage("6. put it all on one page")
    say(f"$ prompttransfer report {output} --overwrite\n")
    report(output, overwrite=True)  # a demo that is run again has drawn its pictures anew
    _explain(cast("TransferMatrix", matrix))
    if projected is not None:
        _explain_projector(projected)
    say(f"\nOne seed: a demonstration, not evidence. Took {time.monotonic() - started:.0f} s.")


def _carry(
    output: Path,
    prompts: Path,
    tasks: list[str],
    backbone: str,
    revision: str | None,
    seed: int,
    overwrite: bool,
) -> Path | None:
    """Fit a projector to another model on the first task of each type and measure it on others; its folder."""
    from prompttransfer.cli.common import say
    from prompttransfer.cli.project_fit import fit
    from prompttransfer.cli.train import train

    other = next(name for name in OTHER_BACKBONES if name != backbone)
    stage(
        f"5. carry the prompts to another model, {other}, through a projector that never saw some of the tasks"
    )
    fitting, unseen = _fitting_and_unseen(tasks)
    if len(fitting) < 2 or not unseen:
        say("left out: it needs tasks of two types and one more task of one of them")
        return None
    own, projector = output / "other-model", output / "projector"
    listed, shown = (
        " ".join(fitting + unseen),
        f"--steps {OTHER_STEPS} --evaluate-every {OTHER_STEPS} --limit-test {TEST_ROWS}",
    )
    say(f"$ prompttransfer train --backbone {other} --task {listed} {shown} --output {own}")
    train(
        task=fitting + unseen, backbone=other, steps=OTHER_STEPS, seeds=[seed], output=own,
        limit_test=TEST_ROWS, evaluate_every=OTHER_STEPS, overwrite=overwrite,
    )  # fmt: skip
    say(
        f"\n$ prompttransfer project fit --source-backbone {backbone} --target-backbone {other} --source-prompts {prompts} "
        f"--target-prompts {own} --tasks {' '.join(fitting)} --unseen {' '.join(unseen)} --seeds {seed} --steps {FIT_STEPS} "
        f"--limit-test {TEST_ROWS} --output {projector}\n"
    )
    fit(
        tasks=fitting, source_backbone=backbone, source_revision=revision, target_backbone=other, source_prompts=prompts, target_prompts=own,
        unseen=unseen, seeds=[seed], steps=FIT_STEPS, limit_test=TEST_ROWS, output=projector,
        overwrite=overwrite,
    )  # fmt: skip
    return projector


def _fitting_and_unseen(tasks: list[str]) -> tuple[list[str], list[str]]:
    """The first task of each type, and a few others of these types."""
    from tasks.catalog import find_task

    first: dict[str, str] = {}
    for name in tasks:
        first.setdefault(find_task(name).type, name)
    fitting = list(first.values())
    return fitting, [name for name in tasks if name not in fitting][:MOST_UNSEEN]


def stage(line: str) -> None:
    """Say what is done next."""
    from prompttransfer.cli.common import console

    console.print(f"\n[bold]{line}[/bold]")


def _explain(matrix: TransferMatrix) -> None:
    """What was seen, in numbers and words."""
    from prompttransfer.cli.common import table
    from prompttransfer.transfers.matrix import MAJORITY, NO_PROMPT, NO_PROMPT_CALIBRATED, RANDOM_PROMPT
    from tasks.catalog import find_task

    types = {name: find_task(name).type for name in matrix.targets}
    means = matrix.relative().summary(types)
    meaning = {
        "same type": "prompts of another task of the same type: what the task type carries over",
        "different type": "prompts of tasks of other types",
        RANDOM_PROMPT: "random vectors at the same norm: what any prompt does",
        NO_PROMPT: "the model alone",
        NO_PROMPT_CALIBRATED: "the model alone, less what its label words score whatever the text says",
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


def _explain_projector(folder: Path) -> None:
    """What carrying prompts to another model gave on tasks that the projector had not seen."""
    from projectors.artifacts import load_projector
    from projectors.report import SAME_TYPE
    from prompttransfer.cli.common import say, table

    projector = load_projector(folder)
    rows = projector.scores.get(SAME_TYPE, {})
    meaning = {
        "own prompt": "trained on the second model: what there is to reach",
        "projected": "trained on the first model and carried across",
        "random source": "random vectors carried by the same projector: high if it ignores its input",
        "tuned constant": "one prompt for all tasks, trained like the projector",
        "no prompt": "the second model alone",
    }
    drawn = [
        [name, text, f"{100 * rows[name]['mean']:.0f} %"] for name, text in meaning.items() if name in rows
    ]
    title = f"\nwhat a prompt of {projector.source.backbone} is worth on {projector.target.backbone}, tasks that the projector never saw"
    table(title, ["prompt", "what it is", "accuracy"], drawn, left=2)
    say(f"the projector is {projector.verdict}")
