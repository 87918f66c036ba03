"""`prompttransfer project`: fit a projector between two backbones, carry prompts across with it, show what it is."""

from __future__ import annotations

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
from prompttransfer.cli.project_distil import distil
from prompttransfer.cli.project_weights import (
    Directions,
    Signs,
    SourceBackbone,
    SourceRevision,
    TargetBackbone,
    TargetRevision,
    Way,
    carry_all,
    compare_ways,
)
from prompttransfer.cli.values import Output, Rate, Real, Share, Whole, checked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from projectors.experiment import FitResult
    from projectors.projector import Projector
    from tasks.task import Task

project_app = typer.Typer(help="Carry prompts and LoRAs to another backbone.", no_args_is_help=True)
project_app.command("compare")(compare_ways)
project_app.command("distil")(distil)

SIZE_HELP = "for --dry-run without loading a model, as 100x1024"


@project_app.command("fit")
@checked
def fit(
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", "-t", help="Fitting tasks; several types make a better projector."),
    ] = None,
    source_backbone: Annotated[str, typer.Option(help="Where the prompts are from.")] = "microworld-roberta",
    target_backbone: Annotated[str, typer.Option(help="Where they go.")] = "microworld-roberta-wide",
    source_revision: Annotated[str | None, typer.Option(help="Commit of a hub source backbone.")] = None,
    target_revision: Annotated[str | None, typer.Option(help="Commit of a hub target backbone.")] = None,
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
    from dataclasses import replace

    from projectors.architectures import Architecture
    from projectors.artifacts import MARKER, load_projector
    from projectors.experiment import run_experiment
    from projectors.fitting import FitSettings
    from projectors.gathering import Options
    from projectors.methods import LABEL_FREE, check_start, find_method, plan_for
    from prompttransfer.backbones.loading import load_backbone
    from prompttransfer.backbones.locating import locate
    from prompttransfer.cli.common import say
    from prompttransfer.cli.data import asked, data_options
    from prompttransfer.files import check_free
    from prompttransfer.outputs import settings_of
    from prompttransfer.reports.calls import commit_of, note_call, precision_name, remember
    from tasks.errors import UserError

    find_method(method)
    if standardise is None:
        standardise = start != "vocabulary" and (architecture != "linear" or start == "random")
    shaped = Architecture(architecture, hidden, rank, activation, standardise=standardise, bias=bias)
    if dry_run and (source_size or target_size):
        report_size(shaped, both_sizes(source_size, target_size), as_json=as_json)
        return
    if not tasks:
        raise UserError("no fitting task given: name several, best of several types, with --tasks")
    check_free(output, marker=MARKER)
    settings = FitSettings(distance, steps, lr, noise=noise, null=null, contrast=contrast, mix=mix)
    plan = plan_for(shaped, settings, start=start, per_token=words)
    if method not in LABEL_FREE:
        check_start(plan)
    options = Options(
        method=method,
        plan=plan,
        seeds=tuple(dict.fromkeys(seeds or [0, 1, 2])),
        layout=layout,
        target_length=target_length,
        source_prompts=source_prompts,
        target_prompts=target_prompts,
        work=output.parent / f".{output.name}-fit",
        data=data,
        max_length=max_length,
        limit_train=limit_train,
        limit_test=limit_test,
        shots=shots,
    )
    read = data_options(given)
    as_they_are = replace(read, label_words=None)
    check_disjoint(as_they_are.tasks(tasks), as_they_are.tasks(unseen or []))
    every = read.tasks([*tasks, *(unseen or [])])  # a label word may be of some of them only
    fitting, others = every[: len(tasks)], every[len(tasks) :]
    made_from = settings_of("project fit", asked(given, "label_words") | {"dry_run": None})
    revisions = {
        "source": locate(source_backbone, source_revision)[1],
        "target": locate(target_backbone, target_revision)[1],
    }
    made_from["backbones"] = revisions
    if not (overwrite or dry_run) and is_finished(output, made_from):
        say("fitted before with the same settings: nothing is left to do", quiet=as_json)
        show_fit(load_projector(output), output, as_json=as_json)
        return
    source = load_backbone(source_backbone, revision=source_revision, precision=precision, device=device)
    target = load_backbone(target_backbone, revision=target_revision, precision=precision, device=device)
    if len(fitting) == 1 and method not in LABEL_FREE:
        say(
            "warning: one fitting task only: what comes out is a constant; give tasks of several types",
            quiet=as_json,
        )

    def tell(line: str) -> None:
        say(line, quiet=as_json)

    if dry_run:
        from projectors.gathering import shape_of

        report_size(shaped, shape_of(source, target, options), as_json=as_json)
        return
    outcome = run_experiment(source, target, fitting, others, options, tell=tell)
    save(outcome, output, made_from)
    call = remember(
        "project fit", fit, given, precision=precision_name(source.precision), source_backbone=source.name, source_revision=commit_of(source.revision),
        target_revision=commit_of(target.revision),
        target_backbone=target.name,
    )  # fmt: skip
    note_call([output / MARKER], call)
    show_fit(outcome.projector, output, as_json=as_json)


@project_app.command("apply")
@checked
def apply(
    projector: Annotated[
        Path, typer.Argument(help="Projector folder; with --method the first of the folders to carry.")
    ],
    prompts: Annotated[
        list[Path] | None, typer.Argument(help="Prompt folders, or folders of them.", show_default=False)
    ] = None,
    method: Way = None,
    source_backbone: SourceBackbone = None,
    target_backbone: TargetBackbone = None,
    source_revision: SourceRevision = None,
    target_revision: TargetRevision = None,
    rank: Directions = None,
    signs: Signs = "words",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for one folder a prompt."), Output()
    ] = Path("runs/projected"),
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Carry prompts across; what comes out are ordinary prompts of the target, for evaluate and transfer.

    With --method it is LoRAs and their kin, which need no projector: `project apply --method cross-lora
    --target-backbone NAME FOLDER`. What comes out are plain LoRAs of the target.
    """
    given = dict(locals())
    if method is not None:
        from projectors.weights import Carrier
        from prompttransfer.reports.calls import note_call, remember

        made_in = carry_all(
            [projector, *(prompts or [])],
            Carrier(method, rank, signs),
            source=source_backbone,
            target=target_backbone,
            revisions=(source_revision, target_revision),
            output=output,
            device=device,
            overwrite=overwrite,
            as_json=as_json,
        )
        note_call(made_in, remember("project apply", apply, given))
        return
    from projectors.artifacts import load_projector
    from projectors.projector import check_source, project
    from prompttransfer.adaptations.artifacts import (
        MARKER,
        check_unlike,
        find_adaptations,
        load_adaptation,
        save_adaptation,
    )
    from prompttransfer.cli.common import print_json, say
    from prompttransfer.files import check_free, safe_name
    from prompttransfer.reports.calls import note_call, remember
    from tasks.errors import UserError

    fitted = load_projector(projector)
    if not prompts:
        raise UserError("no prompt given: name prompt folders behind the projector's")
    unused = {"--target-backbone": target_backbone, "--source-backbone": source_backbone, "--rank": rank}
    for option, value in unused.items():
        if value is not None:
            raise UserError(f"{option} is for LoRAs, with --method: a projector knows its own")
    found = [load_adaptation(folder) for path in prompts for folder in find_adaptations(path)]
    names = [safe_name(prompt.name, "prompt name") for prompt in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(
            f"two prompts are called {twice!r}: carry them one at a time, or to different folders"
        )
    for prompt in found:
        check_source(fitted, prompt)
        check_free(output / prompt.name, marker=MARKER)
    if fitted.collapsed:
        say(f"warning: this projector is {fitted.verdict}", quiet=as_json)
    made = [project(fitted, prompt) for prompt in found]
    for prompt in made if not overwrite else ():
        check_unlike(prompt, output / prompt.name)
    for prompt in made:
        save_adaptation(prompt, output / prompt.name)
        say(
            f"{prompt.name}: now a prompt of {prompt.backbone} ({prompt.length} x {prompt.width})",
            quiet=as_json,
        )
    note_call([output / prompt.name for prompt in made], remember("project apply", apply, given))
    if as_json:
        print_json([{"name": prompt.name, "folder": str(output / prompt.name)} for prompt in made])
    else:
        say(f"written to {output}; use them with `prompttransfer transfer {output} --to TASK...`")


@project_app.command("show")
@checked
def show(
    projector: Annotated[Path, typer.Argument(help="Projector folder.")], as_json: AsJson = False
) -> None:
    """Show what a projector joins, how it was fitted, its table and whether it is collapsed."""
    from projectors.artifacts import load_projector, read_record
    from prompttransfer.cli.common import print_json, say, table

    if as_json:
        print_json(read_record(projector).model_dump())
        return
    found = load_projector(projector)
    rows = [
        ["takes", f"prompts of {found.source}"],
        ["gives", f"prompts of {found.target}"],
        ["method", f"{found.method}, {found.architecture.name}, seed {found.seed}"],
        ["fitted on", ", ".join(found.tasks) or "no task (shared words only)"],
        ["loss", f"{found.curve[0]:.4f} -> {found.curve[-1]:.4f}" if found.curve else "-"],
        ["parameters", f"{sum(p.numel() for p in found.module.parameters()):,}"],
        ["verdict", found.verdict],
    ]
    table(f"projector {projector}", ["", ""], rows, left=2)
    show_scores(found)
    say("a random source that scores like a projected prompt means that the projector is a constant")


@project_app.command("methods")
def methods() -> None:
    """List the methods, architectures and distances."""
    from projectors.architectures import ARCHITECTURES
    from projectors.fitting import DISTANCES
    from projectors.methods import LABEL_FREE, METHODS
    from projectors.weights import CARRIERS
    from prompttransfer.cli.common import table

    rows = [
        [name, "no" if name in LABEL_FREE else "yes", (method.__doc__ or "").strip().splitlines()[0]]
        for name, method in METHODS.items()
    ]
    table("methods", ["method", "labels", "what it does"], rows, left=3)
    kinds = [[name, (kind.__doc__ or "").strip().splitlines()[0]] for name, kind in ARCHITECTURES.items()]
    table("architectures", ["architecture", "what it is"], kinds, left=2)
    table("distances", ["distance"], [[name] for name in DISTANCES], left=1)
    ways = [[name, (way.__doc__ or "").strip().splitlines()[0]] for name, way in CARRIERS.items()]
    table("for LoRAs, nothing is fitted", ["method", "what an update becomes"], ways, left=2)


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


def show_fit(projector: Projector, output: Path, *, as_json: bool) -> None:
    """What came of a fit, whether it was made now or before: the table, the input sensitivity and the verdict."""
    from prompttransfer.cli.common import print_json, say

    if as_json:
        print_json(
            {
                "method": projector.method,
                "tasks": list(projector.tasks),
                "collapsed": projector.collapsed,
                "verdict": projector.verdict,
                "sensitivity": dict(projector.sensitivity),
                "scores": dict(projector.scores),
                "folder": str(output),
            }
        )
        return
    show_scores(projector)
    for line in measured_lines(projector.sensitivity):
        say(line)
    say(f"verdict: {projector.verdict}")
    say(f"it lies in {output}; carry prompts with `prompttransfer project apply {output} PROMPT...`")


def measured_lines(measured: Mapping[str, float]) -> list[str]:
    """How far apart outputs lie, and what the input is worth, as far as it was measured."""
    lines = []
    if "inputs" in measured:
        lines.append(
            f"input sensitivity: outputs are {measured['outputs']:.3g} apart where inputs are {measured['inputs']:.3g} "
            f"(ratio {measured['ratio']:.3g}), pairwise cosine of outputs {measured['cosine']:.6f}; their directions are "
            f"{measured['relative']:.3g} times as far apart as those of the target's own prompts"
        )
    if "projected_minus_random" in measured:
        ends = [measured.get(f"projected_minus_random_{end}") for end in ("low", "high")]
        span = "" if None in ends else f" (95 % {ends[0]:+.3f} to {ends[1]:+.3f})"
        kept = measured.get("kept_by_random")
        share = "" if kept is None else f"; a random source keeps {kept:.0%} of the gain"
        lines.append(f"projected minus random source: {measured['projected_minus_random']:+.3f}{span}{share}")
    return lines


def show_scores(projector: Projector) -> None:
    """One table a group of tasks: every condition with mean, spread and share of the own prompt."""
    from projectors.report import CONDITIONS
    from prompttransfer.cli.common import number, table

    for group, conditions in projector.scores.items():
        own = conditions.get("own prompt", {}).get("mean")
        count = max(entry["tasks"] for entry in conditions.values())
        rows = [
            [
                name,
                number(entry["mean"]),
                number(entry["spread"]) if entry["seeds"] > 1 else "-",
                number(entry["mean"] / own) if own else "-",
                CONDITIONS.get(name, ""),
            ]
            for name, entry in conditions.items()
        ]
        title = f"\ntasks {group} ({count}): test score, mean over tasks and seeds; spread over seeds, of random prompts over draws"
        table(title, ["condition", "mean", "spread", "of own", "what it is"], rows)


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
