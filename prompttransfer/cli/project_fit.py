"""`prompttransfer project fit`: fit a projector between two backbones and measure it beside every control."""

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
    LayoutName,
    LimitTest,
    LimitTrain,
    MaxLength,
    Overwrite,
    Precision,
    Seeds,
    Shots,
    SkipEmpty,
    SplitNames,
)
from prompttransfer.cli.project_pair import SourceRevision, TargetRevision, load_pair, remember_pair
from prompttransfer.cli.project_tables import show_fit
from prompttransfer.cli.values import Output, Rate, Real, Share, Whole, checked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from projectors.architectures import Architecture
    from projectors.experiment import FitResult
    from projectors.gathering import Options
    from tasks.task import Task

SIZE_HELP = "for --dry-run without loading a model, as 100x1024"


@checked
def fit(
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", "-t", help="Fitting tasks; several types make a better projector."),
    ] = None,
    source_backbone: Annotated[str, typer.Option(help="Where the prompts are from.")] = "microworld-roberta",
    target_backbone: Annotated[str, typer.Option(help="Where they go.")] = "microworld-roberta-wide",
    source_revision: SourceRevision = None,
    target_revision: TargetRevision = None,
    method: Annotated[
        str,
        typer.Option(
            help="distance, task, distance+task; without labels: vocabulary, vocabulary-mlp, combination, "
            "procrustes, anchors."
        ),
    ] = "task",
    source_prompts: Annotated[
        Path | None,
        typer.Option("--source-prompts", help="Folder of prompt folders; trained if not given."),
    ] = None,
    target_prompts: Annotated[
        Path | None,
        typer.Option("--target-prompts", help="Folder of prompt folders; trained if not given."),
    ] = None,
    unseen: Annotated[
        list[str] | None,
        typer.Option(
            "--unseen", help="Tasks to test on only; all others that have source prompts if not given."
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the projector."), Output()
    ] = Path("runs/projector"),
    data: DataFolder = None,
    columns: Columns = None,
    labels: LabelValues = None,
    splits: SplitNames = None,
    label_words: LabelWords = None,
    skip_empty: SkipEmpty = False,
    shots: Shots = None,
    architecture: Annotated[
        str, typer.Option(help="linear, token-mlp, low-rank or mlp (the paper's).")
    ] = "linear",
    hidden: Annotated[int, typer.Option(help="Hidden size of the perceptrons."), Whole(1, 1_000_000)] = 768,
    rank: Annotated[int, typer.Option(help="Rank of low-rank."), Whole(1, 1_000_000)] = 64,
    activation: Annotated[str, typer.Option(help="leaky-relu, tanh, relu or gelu.")] = "leaky-relu",
    standardise: Annotated[
        bool | None,
        typer.Option(
            help="Map deviations from the mean prompts, in units of their size; as a rule, with a random start."
        ),
    ] = None,
    bias: Annotated[
        bool, typer.Option(help="Let linear add a vector, which can learn a constant prompt.")
    ] = False,
    distance: Annotated[str, typer.Option(help="squared-l2, cosine or l1.")] = "squared-l2",
    steps: Annotated[int, typer.Option(help="Steps of each phase of the fit."), Whole()] = 300,
    lr: Annotated[float, typer.Option(help="Learning rate of each phase."), Rate] = 1e-3,
    noise: Annotated[
        float, typer.Option(help="Noise on source prompts, as a share of their size."), Real(0, 1e30)
    ] = 0.5,
    null: Annotated[
        float,
        typer.Option(help="Share of random inputs that must come out untrained."),
        Real(0, 1, below=True),
    ] = 0.0,
    contrast: Annotated[
        float, typer.Option(help="Weight of the term that tells tasks apart."), Real(0, 1e30)
    ] = 0.0,
    mix: Annotated[
        float, typer.Option(help="Largest share of another seed's prompt mixed into a source."), Share
    ] = 0.0,
    distil_weight: Annotated[
        float,
        typer.Option(
            "--distil-weight",
            help="Weight, beside the task loss, of the distance to what the source answers to the same rows (0).",
        ),
        Real(0, 1e30),
    ] = 0.0,
    words: Annotated[
        int, typer.Option(help="Words a vector may use (combination)."), Whole(1, 1_000_000)
    ] = 2,
    start: Annotated[
        str | None,
        typer.Option(
            help="Weights before the fit: random, or vocabulary (the map that carries shared words), as a rule for linear."
        ),
    ] = None,
    seeds: Seeds = None,
    layout: LayoutName = "prompt-first",
    target_length: Annotated[
        int | None,
        typer.Option(help="Length of target prompts; that of the target prompts if not given."),
        Whole(1, LONGEST_PROMPT),
    ] = None,
    max_length: MaxLength = None,
    limit_train: LimitTrain = None,
    limit_test: LimitTest = None,
    precision: Precision = "auto",
    device: Device = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print parameters and memory, fit nothing.")
    ] = False,
    source_size: Annotated[str | None, typer.Option(help=f"LENGTHxWIDTH {SIZE_HELP}.")] = None,
    target_size: Annotated[str | None, typer.Option(help=f"LENGTHxWIDTH {SIZE_HELP}.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Fit a projector and measure it beside every control.

    The table has the target's own prompt, the projected one, a random source through the same projector, constant
    prompts, random prompts and no prompt, on fitted tasks, unseen tasks of a fitted type and unseen tasks of others.
    A killed fit goes on when the same command is given again, and one that is finished is shown. The fit of the first
    seed is kept.
    """
    given = dict(locals())
    from projectors.artifacts import load_projector
    from prompttransfer.cli.common import say

    shaped = shaped_as(given)
    if dry_run and (source_size or target_size):
        report_size(shaped, both_sizes(source_size, target_size), as_json=as_json)
        return
    asked = asked_of(given, shaped)
    if not (overwrite or dry_run) and is_finished(output, asked.made_from):
        say("fitted before with the same settings: nothing is left to do", quiet=as_json)
        show_fit(load_projector(output), output, as_json=as_json)
        return
    carry_out(asked, fit)


@dataclass(frozen=True)
class Asked:
    """What a command asks for, checked before any backbone is loaded."""

    given: dict[str, Any]
    options: Options
    fitting: Sequence[Task]
    unseen: Sequence[Task]
    made_from: dict[str, Any]
    """The settings that are kept with the projector, and the commits of both backbones."""


def shaped_as(given: dict[str, Any]) -> Architecture:
    """The architecture that is asked for. Raises UserError for a name or size that there is none of."""
    from projectors.architectures import Architecture
    from projectors.methods import find_method

    find_method(given["method"])
    name, start, standardise = given["architecture"], given["start"], given["standardise"]
    if standardise is None:
        standardise = start != "vocabulary" and (name != "linear" or start == "random")
    return Architecture(
        name,
        given["hidden"],
        given["rank"],
        given["activation"],
        standardise=standardise,
        bias=given["bias"],
    )


def asked_of(given: dict[str, Any], shaped: Architecture) -> Asked:
    """Everything else that is asked for. Raises UserError for what cannot be fitted or would overwrite another thing."""
    from dataclasses import replace

    from projectors.artifacts import MARKER
    from prompttransfer.backbones.locating import locate
    from prompttransfer.cli.data import asked, data_options
    from prompttransfer.files import check_free
    from prompttransfer.outputs import settings_of
    from tasks.errors import UserError

    tasks, unseen = given["tasks"], given["unseen"] or []
    if not tasks:
        raise UserError("no fitting task given: name several, best of several types, with --tasks")
    check_free(given["output"], marker=MARKER)
    options = options_of(given, shaped)
    read = data_options(given)
    as_they_are = replace(read, label_words=None)
    check_disjoint(as_they_are.tasks(tasks), as_they_are.tasks(unseen))
    every = read.tasks([*tasks, *unseen])  # a label word may be of some of them only
    made_from = settings_of("project fit", asked(given, "label_words") | {"dry_run": None})
    made_from["backbones"] = {
        side: locate(given[f"{side}_backbone"], given[f"{side}_revision"])[1] for side in ("source", "target")
    }
    return Asked(given, options, every[: len(tasks)], every[len(tasks) :], made_from)


def options_of(given: dict[str, Any], shaped: Architecture) -> Options:
    """How the projector is fitted, and on which prompts and rows."""
    from projectors.fitting import FitSettings
    from projectors.gathering import Options
    from projectors.methods import LABEL_FREE, check_start, plan_for
    from tasks.errors import UserError

    of_fit = ("distance", "steps", "lr", "noise", "null", "contrast", "mix")
    settings = FitSettings(distil=given["distil_weight"], **{name: given[name] for name in of_fit})
    if settings.distil and "task" not in given["method"]:
        raise UserError(
            f"--distil-weight is of task and distance+task, whose loss it is added to; --method is {given['method']}"
        )
    plan = plan_for(shaped, settings, start=given["start"], per_token=given["words"])
    if given["method"] not in LABEL_FREE:
        check_start(plan)
    output = given["output"]
    as_given = ("method", "layout", "target_length", "source_prompts", "target_prompts", "data", "max_length",
                "limit_train", "limit_test", "shots")  # fmt: skip
    return Options(
        plan=plan,
        seeds=tuple(dict.fromkeys(given["seeds"] or [0, 1, 2])),
        work=output.parent / f".{output.name}-fit",
        **{name: given[name] for name in as_given},
    )


def carry_out(asked: Asked, command: Callable[..., None]) -> None:
    """Load both backbones, fit, write and show; with --dry-run only say how large the projector would be."""
    from projectors.artifacts import MARKER
    from projectors.experiment import run_experiment
    from projectors.gathering import shape_of
    from projectors.methods import LABEL_FREE
    from prompttransfer.cli.common import say
    from prompttransfer.reports.calls import note_call

    given, quiet = asked.given, asked.given["as_json"]
    source, target = load_pair(given, given["source_backbone"], given["target_backbone"])
    if len(asked.fitting) == 1 and given["method"] not in LABEL_FREE:
        say(
            "warning: one fitting task only: what comes out is a constant; give tasks of several types",
            quiet=quiet,
        )
    if given["dry_run"]:
        shape = shape_of(source, target, asked.options)
        report_size(asked.options.plan.architecture, shape, as_json=quiet)
        return
    outcome = run_experiment(
        source, target, asked.fitting, asked.unseen, asked.options, tell=lambda line: say(line, quiet=quiet)
    )
    save(outcome, given["output"], asked.made_from)
    call = remember_pair("project fit", command, given, source, target)
    note_call([given["output"] / MARKER], call)
    show_fit(outcome.projector, given["output"], as_json=quiet)


def check_disjoint(fitting: Sequence[Task], unseen: Sequence[Task]) -> None:
    """Raise UserError for a task that is fitted on and called unseen."""
    from tasks.errors import UserError

    twice = sorted({task.name for task in fitting} & {task.name for task in unseen})
    if twice:
        raise UserError(
            f"{', '.join(twice)}: fitted on and called unseen; take it out of --tasks or out of --unseen"
        )


def is_finished(output: Path, made_from: dict[str, Any]) -> bool:
    """Whether a projector of these settings lies in `output`; UserError for one of other settings."""
    from projectors.artifacts import MARKER
    from prompttransfer.outputs import check_same, settings_in

    if not (output / MARKER).exists():
        return False
    check_same(output, settings_in(output), made_from, what="a finished projector")
    return True


def save(outcome: FitResult, output: Path, made_from: dict[str, Any]) -> None:
    """Write the projector with the cells of its report and its settings beside it."""
    import json

    from projectors.artifacts import save_projector
    from prompttransfer.outputs import SETTINGS, plain

    settings = json.dumps(plain(made_from), indent=2) + "\n"
    save_projector(outcome.projector, output, extra={"report.csv": outcome.to_csv(), SETTINGS: settings})


def both_sizes(source: str | None, target: str | None) -> Any:
    """The shape of `--source-size` and `--target-size`."""
    from projectors.architectures import Shape
    from tasks.errors import UserError

    numbers: list[int] = []
    for option, given in (("--source-size", source), ("--target-size", target)):
        length, _, width = (given or "").partition("x")
        if not (length.isdigit() and width.isdigit()):
            raise UserError(f"{option} {given!r}: give LENGTHxWIDTH, as in 100x1024, for both sides")
        numbers += [int(length), int(width)]
    return Shape(*numbers)


def report_size(architecture: Any, shape: Any, *, as_json: bool) -> None:
    """Print the parameters of an architecture and the memory they take."""
    from projectors.architectures import size
    from prompttransfer.cli.common import print_json, say

    found = size(architecture, shape)
    if as_json:
        memory = {"apply_bytes": found.apply_bytes, "fit_bytes": found.fit_bytes}
        print_json(
            {"architecture": architecture.name, "shape": str(shape), "parameters": found.parameters, **memory}
        )
    else:
        say(f"{architecture.name}, {shape}: {found}")
