"""`prompttransfer project distil`: prompts of one model on another, by public text and without labels (POST)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.cli.options import (
    LONGEST_PROMPT,
    AsJson,
    Columns,
    DataFolder,
    Device,
    LabelValues,
    LabelWords,
    LimitTest,
    LimitTrain,
    Overwrite,
    Precision,
    Shots,
    SkipEmpty,
    SplitNames,
)
from prompttransfer.cli.project_pair import (
    SourceBackbone,
    SourceRevision,
    TargetRevision,
    load_pair,
    remember_pair,
)
from prompttransfer.cli.values import Output, Rate, Real, Seed, Share, Whole, checked
from tasks.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from projectors.public_report import Entry
    from projectors.public_state import Keeping
    from projectors.public_text import PostSettings
    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.cli.data import DataOptions
    from prompttransfer.outputs import Files
    from tasks.task import Example, Task


@checked
def distil(
    prompts: Annotated[list[Path], typer.Argument(help="Prompt folders of the source, or folders of them.")],
    target_backbone: Annotated[str, typer.Option(help="Where they go.")],
    text: Annotated[
        Path | None,
        typer.Option(
            "--text",
            help='Public text: a file of lines, or .jsonl of {"text": ...} or {"text_a": ..., "text_b": ...}.',
        ),
    ] = None,
    text_tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--text-tasks", help="Tasks whose training rows are the public text; their labels are not read."
        ),
    ] = None,
    limit_text: Annotated[
        int, typer.Option("--limit-text", help="Use at most this many rows of public text."), Whole(10)
    ] = 512,
    source_backbone: SourceBackbone = None,
    source_revision: SourceRevision = None,
    target_revision: TargetRevision = None,
    target_prompts: Annotated[
        Path | None,
        typer.Option(
            "--target-prompts",
            help="The target's own prompts of these tasks, to stand beside the carried ones.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for one folder a prompt."), Output()
    ] = Path("runs/distilled"),
    alpha: Annotated[
        float,
        typer.Option(
            help="Share of the loss that compares what a prompt changes; the rest compares what is said."
        ),
        Share,
    ] = 0.5,
    temperature: Annotated[
        float, typer.Option(help="That scores of words are divided by."), Real(0, 1e6, above=True)
    ] = 2.0,
    steps: Annotated[int, typer.Option(help="Steps."), Whole()] = 1000,
    lr: Annotated[float, typer.Option(help="Learning rate of Adam."), Rate] = 1e-3,
    batch: Annotated[int, typer.Option(help="Rows of public text a step."), Whole(1, 1_000_000)] = 64,
    evaluate_every: Annotated[
        int, typer.Option("--evaluate-every", help="Steps between looks at held-out public text."), Whole()
    ] = 50,
    words: Annotated[
        int, typer.Option(help="Most shared words that are compared, frequent ones first."), Whole(2)
    ] = 8192,
    length: Annotated[
        int | None,
        typer.Option(
            "--length", help="Vectors of the target's prompts; as many as the source's if not given."
        ),
        Whole(1, LONGEST_PROMPT),
    ] = None,
    init: Annotated[str, typer.Option("--init", help="random, vocabulary or text:WORDS.")] = "random",
    seed: Annotated[int, typer.Option("--seed", help="Of start, row order and held-out rows."), Seed] = 0,
    data: DataFolder = None,
    columns: Columns = None,
    labels: LabelValues = None,
    splits: SplitNames = None,
    label_words: LabelWords = None,
    skip_empty: SkipEmpty = False,
    shots: Shots = None,
    limit_train: LimitTrain = None,
    limit_test: LimitTest = None,
    precision: Precision = "auto",
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Carry prompts to another backbone by what they make the source say to public text; no label is used (POST).

    The target's prompts are tuned so that they change what it says as the source's change what the source says, compared in
    the words that both vocabularies hold whole, so widths may differ. The step is chosen on public text that is held out. Beside the
    test scores stand the step that the task's labelled validation rows would choose (marked), a random source, random
    prompts, one prompt tuned for all tasks, the target's own prompts where they are given, and no prompt. Killed in the middle, it goes
    on from its last look when the same command is given again.
    """
    carry_out(asked_of(dict(locals())), distil)


@dataclass(frozen=True)
class Asked:
    """What a command asks for, checked before any backbone is loaded."""

    given: dict[str, Any]
    settings: PostSettings
    prompts: Sequence[Adaptation]
    own: Sequence[Adaptation]
    """The target's own prompts, to stand beside those that are carried."""
    public: Sequence[Example]
    said: str
    """What the public text is, in words."""
    read: DataOptions
    tasks: Sequence[Task]
    """Those of the prompts."""
    written: Files


def asked_of(given: dict[str, Any]) -> Asked:
    """Read the prompts and the public text. Raises UserError for what cannot be carried or would overwrite another thing."""
    from projectors.public_report import TABLE
    from projectors.public_text import PostSettings, check_public
    from prompttransfer.adaptations.artifacts import MARKER
    from prompttransfer.backbones.locating import locate
    from prompttransfer.cli.data import data_options
    from prompttransfer.cli.tables import read_prompts
    from prompttransfer.files import check_free, safe_name
    from prompttransfer.outputs import Files, settings_of

    as_given = ("alpha", "temperature", "lr", "steps", "batch", "words", "seed")
    settings = PostSettings(
        every=given["evaluate_every"], start=given["init"], **{name: given[name] for name in as_given}
    )
    text, text_tasks, output = given["text"], given["text_tasks"] or [], given["output"]
    if (text is None) == (not text_tasks):
        raise UserError("give public text: --text FILE, or --text-tasks TASK..., one of the two")
    locate(given["target_backbone"], given["target_revision"])
    found = read_prompts(given["prompts"])
    _check(found)
    read = data_options(given)
    tasks = read.tasks(list(dict.fromkeys(prompt.task for prompt in found)), found)
    for prompt in found:
        check_free(output / safe_name(prompt.name, "prompt name"), marker=MARKER)
    written = Files((output / TABLE,), settings_of("project distil", given))
    written.check(overwrite=given["overwrite"])
    public, said = _public(text, text_tasks, found, given["data"], given["limit_text"], given["seed"])
    check_public(public)
    beside = given["target_prompts"]
    own = read_prompts([beside]) if beside is not None else []
    return Asked(given, settings, found, own, public, said, read, tasks, written)


def carry_out(asked: Asked, command: Callable[..., None]) -> None:
    """Load both backbones, carry the prompts, score them beside the controls, write and show."""
    from projectors.public_report import TABLE, Looking, report, to_csv, with_random_source
    from projectors.public_text import adaptations_of, carry_by_text
    from prompttransfer.adaptations.artifacts import check_unlike, save_adaptation
    from prompttransfer.adaptations.running import other_words
    from prompttransfer.cli.common import print_json, say, warn
    from prompttransfer.files import write_text
    from prompttransfer.reports.calls import note_call

    given, settings, found = asked.given, asked.settings, asked.prompts
    output, quiet = given["output"], given["as_json"]
    source, target = load_pair(given, given["source_backbone"] or found[0].backbone, given["target_backbone"])
    own = _own(asked.own, target, given["length"] or found[0].length)
    for line in other_words(target, own, asked.tasks):
        warn(line)
    rows = {at.task.name: (at.task, at.splits) for at in asked.read.targets(asked.tasks)}
    say(f"{len(found)} prompts of {source.name} to {target.name} by {asked.said}", quiet=quiet)
    validation = {task.name: (task, splits.validation) for task, splits in rows.values()}
    keeping = _keeping(output, validation, quiet=quiet)
    carried = carry_by_text(
        source,
        target,
        with_random_source(found, settings.seed),
        asked.public,
        settings,
        length=given["length"],
        look=Looking(target, found, validation),
        tell=lambda step, loss: say(f"step {step}/{settings.steps}: held-out loss {loss:.4f}", quiet=quiet),
        keeping=keeping,
    )
    made = adaptations_of(carried, found, target, settings, {"text": asked.said, "rows": len(asked.public)})
    for prompt in made if not given["overwrite"] else ():
        check_unlike(prompt, output / prompt.name)
    entries = report(target, found, carried, rows, own, seed=settings.seed, keeping=keeping)
    for prompt in made:
        save_adaptation(prompt, output / prompt.name)
    call = remember_pair("project distil", command, given, source, target)
    asked.written.claim()
    write_text(output / TABLE, to_csv(entries))
    note_call([output / TABLE, *(output / prompt.name for prompt in made)], call)
    keeping.clear()
    picked = dict(zip((prompt.name for prompt in found), carried.picked_steps, strict=False))
    if quiet:
        print_json(_record(made, entries, picked, output))
        return
    _show(made, entries, picked)
    say(
        f"the table is in {output / TABLE}, and on the page of `prompttransfer report` where a matrix lies beside it"
    )
    say(f"written to {output}; use them with `prompttransfer transfer {output} --to TASK...`")


def _keeping(
    output: Path, validation: Mapping[str, tuple[Task, Sequence[Example]]], *, quiet: bool
) -> Keeping:
    """Where the run is kept while it goes on, known by the rows that it looks at."""
    from projectors.public_state import Keeping
    from prompttransfer.cli.common import say
    from tasks.rows import digest_rows

    looked = [(name, task.metric, digest_rows([examples])) for name, (task, examples) in validation.items()]
    return Keeping(
        output,
        repr(looked),
        lambda step: say(f"going on from step {step} of the run that was interrupted", quiet=quiet),
    )


def _check(prompts: Sequence[Adaptation]) -> None:
    """Raise UserError for what is no soft prompt, or prompts that cannot run together."""
    from prompttransfer.adaptations.running import stacked

    other = next((prompt for prompt in prompts if not prompt.has_vectors), None)
    if other is not None:
        raise UserError(
            f"{other.name!r} is of method {other.method.name}: `project distil` carries soft prompts; LoRAs are carried by "
            f"`project apply --method`"
        )
    stacked(prompts, "carried together")


def _own(own: Sequence[Adaptation], target: Any, length: int) -> list[Adaptation]:
    """The target's own prompts. Raises UserError for those of another backbone; those of another length stand beside none."""
    from prompttransfer.adaptations.running import common_encoding, stacked

    if own:
        common_encoding(target, own)
        if (there := stacked(own, "set beside those that are carried").shape[1]) != length:
            raise UserError(
                f"--target-prompts are of {there} vectors, carried ones of {length}: give --length {there}"
            )
    return list(own)


def _public(
    text: Path | None,
    tasks: Sequence[str],
    prompts: Sequence[Adaptation],
    data: Path | None,
    limit: int,
    seed: int,
) -> tuple[list[Example], str]:
    """Public rows without labels, at most `limit`, and what they are in words."""
    from dataclasses import replace

    from prompttransfer.cli.common import resolve_tasks
    from tasks.loading import load_splits, sample

    if text is not None:
        rows = read_public(text)
        return list(sample(rows, seed, limit)), f"{min(limit, len(rows))} of {len(rows)} rows of {text}"
    mine = sorted({prompt.task for prompt in prompts} & set(tasks))
    if mine:
        raise UserError(
            f"--text-tasks {', '.join(mine)}: these are tasks of the prompts, whose rows are not public: name others"
        )
    found: list[Example] = []
    each = max(1, limit // len(tasks))
    for task in resolve_tasks(list(tasks)):
        own = load_splits(task, data=data).train
        found += [replace(row, label=None, references=()) for row in sample(own, seed, each)]
    return found, f"{len(found)} training rows of {', '.join(tasks)} without their labels"


def read_public(path: Path) -> list[Example]:
    """The rows of a file of public text. Raises UserError for one that is empty or cannot be read."""
    from tasks.documents import parse_json_lines, read_bytes, read_text
    from tasks.rows import question_of
    from tasks.task import Example

    if path.suffix == ".jsonl":
        from projectors.public_text import public_task

        kinds = {kind: public_task(kind, ("one", "two")) for kind in ("sentence", "pair")}
        rows = []
        for number, row in parse_json_lines(read_bytes(path, "public text"), str(path)):
            where = f"{path}:{number}"
            if not isinstance(row, dict):
                raise UserError(f"{where}: this is a {type(row).__name__}; each line must be a JSON object")
            rows.append(question_of(kinds["pair" if "text_a" in row else "sentence"], row, where))
    else:
        lines = read_text(path, "public text").splitlines()
        rows = [Example(line.strip()) for line in lines if line.strip()]
    if not rows:
        raise UserError(f"public text {path}: there is no row in it; give a text on each line")
    return rows


def _record(
    made: Sequence[Adaptation], entries: Sequence[Entry], picked: dict[str, int], output: Path
) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "prompts": [
            {
                "name": prompt.name,
                "folder": str(output / prompt.name),
                "chosen_step": prompt.origin.recipe["chosen_step"],
                "held_out_loss": prompt.origin.recipe["held_out_loss"],
                "step_by_labels": picked.get(prompt.name),
            }
            for prompt in made
        ],
        "scores": [asdict(entry) for entry in entries],
    }


def _show(made: Sequence[Adaptation], entries: Sequence[Entry], picked: dict[str, int]) -> None:
    """Steps and losses of every prompt, then the conditions on every task."""
    from statistics import fmean

    from projectors.public_report import CONDITIONS
    from prompttransfer.cli.common import number, say, table

    table(
        "carried by public text",
        ["prompt", "step", "held-out loss", "step by labels"],
        [
            [
                prompt.name,
                str(prompt.origin.recipe["chosen_step"]),
                f"{prompt.origin.recipe['held_out_loss']:.4f}",
                str(picked.get(prompt.name, "-")),
            ]
            for prompt in made
        ],
        left=1,
    )
    tasks = list(dict.fromkeys(entry.task for entry in entries))
    shared = "microworld-" if all(task.startswith("microworld-") for task in tasks) else ""
    rows = []
    for condition, what in CONDITIONS.items():
        scores = {entry.task: entry.score for entry in entries if entry.condition == condition}
        if scores:
            mean = number(fmean(scores.values()))
            rows.append(
                [condition, *(number(scores[task]) if task in scores else "-" for task in tasks), mean, what]
            )
    table(
        "\ntest scores" + (f" ({shared!r} left out of the names)" if shared else ""),
        ["condition", *(task.removeprefix(shared) for task in tasks), "mean", "what it is"],
        rows,
    )
    say("one seed of the carrying: differences of a few hundredths are not evidence; give another --seed")
