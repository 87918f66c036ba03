"""What `train` says beside its results: of rows and words, of memory, of what went wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.adaptations.method import Method
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.distributed.placement import Placement
    from prompttransfer.training.recipes import Recipe
    from prompttransfer.training.train import Job, Trained
    from prompttransfer.transfers.zero_shot import Target

UNKNOWN_ROWS, FEW_UNKNOWN = 200, 0.03
"""Training rows of which the words are looked at, and the share of unknown ones above which it is said."""


def shares_line(job: Job) -> str:
    """How often each task of a mixture comes, for people."""
    counts = {task.name: len(splits.train) for task, splits in job.parts}
    said = ", ".join(f"{name} {count / sum(counts.values()):.3f}" for name, count in counts.items())
    return f"mixture by rows (examples-proportional; --limit-train is the most of each task): {said}"


def record_of(prompt: Adaptation, output: Path | None, tried: Mapping[str, Any]) -> dict[str, Any]:
    """What `train --json` says of a prompt."""
    from prompttransfer.training.sweep import NOTE

    place = {} if output is None else {"folder": str(output / prompt.name)}
    swept = {"sweep": {**prompt.notes[NOTE], "tried": tried.get(prompt.task)}} if NOTE in prompt.notes else {}
    return {**place, "scores": prompt.scores, **swept}


def say_strange(model: Backbone, targets: Sequence[Target], *, quiet: bool) -> None:
    """Say what was strange about a backbone, and of which tasks it does not know more than a few of the words."""
    from prompttransfer.cli.common import say, unknown_words

    for remark in model.remarks:
        say(f"warning: {remark}", quiet=quiet)
    for target in targets:
        examples = target.splits.train[:UNKNOWN_ROWS]
        if (model.unknown_share(examples) or 0) > FEW_UNKNOWN:
            line = unknown_words(model, target.task.name, examples)
            say(f"warning: {line}: what it reads there is not the text", quiet=quiet)


def predictions_of_runs(
    model: Backbone, jobs: Sequence[Job], results: Sequence[Trained], encoding: Encoding
) -> list[dict[str, Any]]:
    """What every adaptation says to the test rows of its task."""
    from prompttransfer.evaluation.predictions import predictions_of

    lines = []
    for job, run in zip(jobs, results, strict=True):
        for task, splits in job.parts:
            lines += predictions_of(model, [run.adaptation], task, splits.test, encoding)
    return lines


def say_memory(
    model: Backbone,
    jobs: Sequence[Job],
    recipe: Recipe,
    encoding: Encoding,
    method: Method,
    *,
    precision: str,
    device: str,
    placement: Placement,
    quiet: bool,
) -> None:
    """Print the expected peak memory of a run, with and without activation checkpointing."""
    from collections import Counter
    from dataclasses import asdict

    from prompttransfer.backbones.loading import choose_dtype
    from prompttransfer.cli.common import print_json, say
    from prompttransfer.distributed.processes import choose_device
    from prompttransfer.training.memory import expected_memory
    from prompttransfer.training.train import RowEncoder, bank_data

    if not method.trains:
        say(f"{method.name}: nothing is trained, so it takes what an evaluation takes", quiet=quiet)
        if quiet:
            print_json({"trains": False})
        return
    asked = model.checkpoints
    place = encoding.place(model.family)
    encode = RowEncoder(model, method.reserved, encoding)
    data = bank_data(model, [encode.train(job) for job in jobs], jobs, recipe, method, place)
    where = choose_device(device)
    dtype = choose_dtype(precision, where)
    evaluated = Counter(part for job in jobs for part in (*encode.validations(job), *encode.tests(job)))
    with_, without = (
        expected_memory(
            model, data, evaluated, method, dtype=dtype, device=where, checkpoints=choice, placement=placement
        )
        for choice in (True, False)
    )
    if quiet:
        print_json(
            {
                "precision": model.precision,
                "expected": {**asdict(without), "total": without.total},
                "expected_with_checkpoints": {**asdict(with_), "total": with_.total},
            }
        )
        return
    chosen, other = (with_, without) if asked else (without, with_)
    each = f" in each of {placement}" if placement.several else ""
    say(f"{dtype} on {where}{each}; {chosen}")
    flag = "without --checkpoint-activations" if asked else "with --checkpoint-activations"
    say(f"{flag}: {other.total / 1e9:.2f} GB")


def raise_failures(results: list[Trained]) -> None:
    from tasks.errors import UserError

    failures = [line for run in results if (line := run.failure) is not None]
    if failures:
        raise UserError("; ".join(failures))
