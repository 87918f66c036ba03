"""`prompts add | subtract | scale | average | interpolate | merge | fold | landscape`: new adaptations out of trained ones.

Nothing is trained. What comes out says in its record and card what it is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.cli.options import (
    AsJson,
    Columns,
    DataFolder,
    Device,
    LabelValues,
    LimitTest,
    Overwrite,
    Precision,
    Revision,
    SkipEmpty,
    SplitNames,
)
from prompttransfer.cli.values import OneOf, Output, Real, Seed, Share, Whole, checked

if TYPE_CHECKING:
    import pandas as pd

    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.adaptations.composition import Composed, Part

HOW = ("sum", "ties", "dare", "lorahub")
Folders = Annotated[list[Path], typer.Argument(help="Prompt folders (or folders of LoRAs).")]
One = Annotated[Path, typer.Argument(help="Prompt folder (or folder of a LoRA).")]
Place = Annotated[
    Path,
    typer.Option("--output", "-o", help="Folder for the new adaptation, which is called as it."),
    Output(),
]
Onto = Annotated[
    Path | None,
    typer.Option(help="Prompt whose start the sum stands on; the first one's own if not given."),
]
Weight = Real(-1e6, 1e6)


@checked
def add(
    adaptations: Folders,
    output: Place,
    onto: Onto = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Adaptation:
    """Add what training added: start + tau_1 + tau_2 + ... (task prompt vectors); of LoRAs the products are summed."""
    given = dict(locals())
    found = _read(adaptations, least=2)
    return _sum("add", found, [1.0] * len(found), add, given)


@checked
def subtract(
    minuend: One,
    subtrahends: Annotated[list[Path], typer.Argument(help="What is taken away.")],
    output: Place,
    onto: Onto = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Adaptation:
    """Take away what training added to others: start + tau_1 - tau_2 - ..., or the products of LoRAs."""
    given = dict(locals())
    found = _read([minuend, *subtrahends], least=2)
    return _sum("subtract", found, [1.0, *[-1.0] * len(subtrahends)], subtract, given)


@checked
def scale(
    adaptation: One,
    output: Place,
    by: Annotated[float, typer.Option("--by", help="The factor; -1 negates."), Weight],
    onto: Onto = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Adaptation:
    """Take what training added so many times: start + c tau."""
    given = dict(locals())
    return _sum("scale", _read([adaptation]), [by], scale, given)


@checked
def average(
    adaptations: Folders,
    output: Place,
    onto: Onto = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Adaptation:
    """Average what training added: start + mean tau."""
    given = dict(locals())
    found = _read(adaptations, least=2)
    return _sum("average", found, [1 / len(found)] * len(found), average, given)


@checked
def interpolate(
    first: One,
    second: One,
    output: Place,
    at: Annotated[
        float, typer.Option("--at", help="0 is the first, 1 the second; beyond is allowed."), Weight
    ] = 0.5,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Adaptation:
    """Go from one towards another as they are: (1 - t) first + t second; their starts do not matter."""
    given = dict(locals())
    from prompttransfer.adaptations.arithmetic import made_of, parts_of
    from prompttransfer.adaptations.composition import weighted_sum

    found, weights = _read([first, second]), [1 - at, at]
    made = made_of(
        found, weights, weighted_sum(parts_of(found, weights)), how="interpolate", name=_name(output)
    )
    return _write(made, "interpolate", interpolate, given)


@checked
def merge(
    adaptations: Annotated[
        list[str],
        typer.Argument(help="FOLDER=WEIGHT, or FOLDER alone for a weight of 1 (lorahub finds them)."),
    ],
    output: Place,
    how: Annotated[
        str,
        typer.Option(help="sum, ties, dare, or lorahub (weights from a few rows)."),
        OneOf("way to merge", HOW),
    ] = "sum",
    density: Annotated[float, typer.Option(help="ties: share of largest values kept."), Share] = 0.2,
    drop: Annotated[float, typer.Option(help="dare: share of values dropped."), Real(0, 1, below=True)] = 0.5,
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="lorahub: the task to find weights for.")
    ] = None,
    rows: Annotated[
        int, typer.Option("--rows", help="lorahub: labelled training rows."), Whole(1, 100_000)
    ] = 32,
    rounds: Annotated[int, typer.Option(help="lorahub: rounds of the search."), Whole(1, 100_000)] = 15,
    candidates: Annotated[int, typer.Option(help="lorahub: weightings a round."), Whole(5, 100_000)] = 24,
    l1: Annotated[float, typer.Option(help="lorahub: price of the mean weight."), Real(0, 1e6)] = 0.05,
    seed: Annotated[int, typer.Option(help="Of dare and lorahub."), Seed] = 0,
    data: DataFolder = None,
    columns: Columns = None,
    labels: LabelValues = None,
    splits: SplitNames = None,
    skip_empty: SkipEmpty = False,
    precision: Precision = "auto",
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Adaptation:
    """Merge adaptations of one backbone into one, without training: prompts by their vectors, LoRAs by their products."""
    given = dict(locals())
    import torch

    from prompttransfer.adaptations.arithmetic import made_of, parts_of
    from prompttransfer.adaptations.composition import dare, ties, weighted_sum
    from tasks.errors import UserError

    folders, weights = _weighted(adaptations)
    if (how == "lorahub") != (task is not None):
        raise UserError(
            "--task is what lorahub finds weights for: give both --how lorahub and --task, or neither"
        )
    found = _read(folders)
    settings: dict[str, Any] = {}
    if how == "lorahub":
        if any("=" in item for item in adaptations):
            raise UserError("lorahub finds the weights: name the folders alone")
        weights, settings = _search(found, given)
    ways: dict[str, Callable[[Sequence[Part]], Composed]] = {
        "sum": weighted_sum,
        "lorahub": weighted_sum,
        "ties": lambda parts: ties(parts, density=density),
        "dare": lambda parts: dare(parts, drop=drop, generator=torch.Generator().manual_seed(seed)),
    }
    settings |= {"ties": {"density": density}, "dare": {"drop": drop, "drop_seed": seed}}.get(how, {})
    composed = ways[how](parts_of(found, weights))
    made = made_of(found, weights, composed, how=how, name=_name(output), **settings)
    return _write(made, "merge", merge, given)


@checked
def fold(
    adaptation: Annotated[Path, typer.Argument(help="Folder of a LoRA or one of its kin.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the model."), Output()],
    backbone: Annotated[
        str | None, typer.Option("--backbone", "-b", help="Where the adaptation's own backbone lies now.")
    ] = None,
    revision: Revision = None,
    as_json: AsJson = False,
) -> Path:
    """Fold a LoRA, or another update of weights, into its model: a folder for transformers and for --backbone.

    The model's own folder stays as it is. Weights are written in float32; with them the bare model answers as the
    adaptation did, and costs what the bare model costs.
    """
    given = dict(locals())
    from prompttransfer.adaptations.folding import MARKER, save_folded
    from prompttransfer.backbones.loading import load_backbone
    from prompttransfer.backbones.revisions import is_commit
    from prompttransfer.cli.common import print_json, say
    from prompttransfer.files import check_free
    from prompttransfer.reports.calls import note_call, remember
    from tasks.errors import UserError

    (found,) = _read([adaptation])
    if found.has_vectors:
        raise UserError(f"{found.name!r} is a soft prompt, which is in front of the text and not in weights")
    check_free(output, marker=MARKER)
    wanted = revision or (found.revision if is_commit(found.revision) else None)
    model = load_backbone(
        backbone or found.backbone, revision=wanted, precision="fp32", device="cpu", engine="plain"
    )
    save_folded(model, found, output)
    note_call([output], remember("prompts fold", fold, given))
    if as_json:
        print_json({"folder": str(output), "adaptation": found.name, "backbone": model.name})
    else:
        say(f"{found.name} folded into {model.name}: written to {output}; use it with --backbone {output}")
    return output


@checked
def landscape(
    adaptations: Annotated[list[Path], typer.Argument(help="Two or three prompt folders (or LoRAs).")],
    task: Annotated[str, typer.Option("--task", "-t", help="Whose test rows are asked.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Name of the picture; PNG, SVG and CSV are written beside each other."
        ),
        Output(folder=False),
    ] = Path("runs/landscape.png"),
    points: Annotated[int, typer.Option(help="Places along each side."), Whole(3, 1000)] = 13,
    margin: Annotated[
        float, typer.Option(help="How far beyond the adaptations, in units of their distance."), Real(0, 10)
    ] = 0.25,
    value: Annotated[
        str, typer.Option(help="What is drawn: loss or score."), OneOf("value", ("loss", "score"))
    ] = "loss",
    data: DataFolder = None,
    columns: Columns = None,
    labels: LabelValues = None,
    splits: SplitNames = None,
    skip_empty: SkipEmpty = False,
    limit_test: LimitTest = None,
    precision: Precision = "auto",
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> pd.DataFrame:
    """Loss and score on the line between two adaptations, or the plane through three: figure and CSV."""
    given = dict(locals())
    from analysis.figures import landscape as draw
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.cli.common import say
    from prompttransfer.cli.data import asked, data_options
    from prompttransfer.cli.evaluate import backbone_of
    from prompttransfer.cli.tables import (
        figure_paths,
        read_prompts,
        say_written,
        write_figure,
        write_table,
    )
    from prompttransfer.outputs import Files, settings_of
    from prompttransfer.reports.calls import note_call, precision_name, remember
    from prompttransfer.transfers.landscape import landscape as between

    found = read_prompts(adaptations)
    csv = output.with_suffix(".csv")
    written = Files((csv, *figure_paths(output)), settings_of("prompts landscape", asked(given)))
    written.check(overwrite=overwrite)
    rows = data_options(given)
    (target,) = rows.targets(rows.tasks([task], found))
    wanted = target.task
    model = backbone_of(found, None, precision, device)
    encoding = Encoding(max_length=found[0].encoding.max_length, aggregation=found[0].encoding.aggregation)
    table = between(model, found, wanted, target.splits.test, points=points, margin=margin, encoding=encoding)
    figure = draw(table, value=value, title=wanted.name, label=value if value == "loss" else wanted.metric)
    written.claim()
    write_table(csv, table.set_index("a"))
    paths = [csv, *write_figure(figure, output)]
    ran = {"precision": precision_name(model.dtype)}
    note_call(paths, remember("prompts landscape", landscape, given, **ran))
    best = table.iloc[int(table[value].argmin() if value == "loss" else table[value].argmax())]
    shares = ", ".join(f"{each.name} {best[each.name]:.2f}" for each in found)
    say(f"best {value} {best[value]:.3g} at {shares}; {len(target.splits.test)} rows", quiet=as_json)
    say_written(paths, as_json, {"places": table.to_dict("records")})
    return table


def _read(folders: Sequence[Path], *, least: int = 1) -> list[Adaptation]:
    """The adaptations of folders, all that lie in each, with names of their own."""
    from prompttransfer.cli.tables import read_prompts
    from tasks.errors import UserError

    found = read_prompts(folders)
    if len(found) < least:
        raise UserError(f"this takes at least {least} adaptations; given {len(found)}")
    return found


def _name(output: Path) -> str:
    from prompttransfer.files import safe_name

    return safe_name(output.resolve().name, "name of --output")


def _weighted(items: Sequence[str]) -> tuple[list[Path], list[float]]:
    """Folders and weights of `FOLDER=WEIGHT`; a weight that is not given is 1."""
    from math import isfinite

    from tasks.errors import UserError

    folders, weights = [], []
    for item in items:
        path, sign, said = item.rpartition("=")
        try:
            weight = float(said) if sign else 1.0
        except ValueError:
            path, weight = item, 1.0  # a folder whose name has a sign of its own
        if sign and not (path and isfinite(weight) and weight >= 0):
            raise UserError(
                f"{item!r}: a weight is a number from 0 on, as in runs/prompts/sst2=0.5; to take one away use "
                f"`prompts subtract`"
            )
        folders.append(Path(path if sign else item))
        weights.append(weight)
    return folders, weights


def _sum(
    verb: str,
    found: Sequence[Adaptation],
    weights: Sequence[float],
    function: Callable[..., Any],
    given: dict[str, Any],
) -> Adaptation:
    """Task vectors times their weights on a start."""
    from prompttransfer.adaptations.arithmetic import added, made_of

    onto = _read([given["onto"]])[0] if given["onto"] is not None else None
    settings = {} if onto is None else {"onto": onto.name, "onto_digest": onto.digest}
    made = made_of(
        found,
        weights,
        added(found, weights, onto),
        how=verb,
        name=_name(given["output"]),
        initial=(onto or found[0]) if found[0].has_vectors else None,
        **settings,
    )
    return _write(made, verb, function, given)


def _search(found: Sequence[Adaptation], given: dict[str, Any]) -> tuple[list[float], dict[str, Any]]:
    """LoraHub's weights, and what is kept of how they were found."""
    from prompttransfer.cli.common import number, say, table
    from prompttransfer.cli.data import data_options
    from prompttransfer.cli.evaluate import backbone_of
    from prompttransfer.transfers.lorahub import Search, find_weights
    from tasks.errors import UserError
    from tasks.loading import sample

    read = data_options(given)
    (task,) = read.tasks([given["task"]], found)
    (target,) = read.targets([task])
    model = backbone_of(found, None, given["precision"], given["device"])
    search = Search(given["rounds"], given["candidates"], l1=given["l1"], seed=given["seed"])
    examples = sample(target.splits.train, given["seed"], given["rows"])
    if own := [each.name for each in found if each.knows(task.name)]:
        say(
            f"trained on {task.name} itself: {', '.join(own)}; without them the weights say what other tasks are worth",
            quiet=given["as_json"],
        )
    result = find_weights(model, found, task, examples, search)
    rows = [
        [each.name, number(weight), number(alone)]
        for each, weight, alone in zip(found, result.weights, result.alone, strict=True)
    ]
    if not given["as_json"]:
        table(f"weights for {task.name}", ["adaptation", "weight", "objective alone"], rows)
    say(
        f"objective {result.objective:.3f} (loss + {search.l1:g} x mean weight) on {result.rows} rows after "
        f"{result.evaluated} weightings; none {result.nothing:.3f}, mean {result.mean:.3f}",
        quiet=given["as_json"],
    )
    if not any(result.weights):
        raise UserError(
            f"on {result.rows} rows of {task.name} no adaptation at all is better than any weighting of these {len(found)}: "
            "nothing is written; give others, or more --rows"
        )
    kept = {"objective": result.objective, "l1": search.l1, "search_rounds": search.rounds}
    kept |= {"search_candidates": search.candidates, "search_seed": search.seed}
    return list(result.weights), {**kept, "searched_for": task.name, "search_rows": result.rows}


def _write(made: Adaptation, verb: str, function: Callable[..., Any], given: dict[str, Any]) -> Adaptation:
    """Write what was made and say what it is."""
    from prompttransfer.adaptations.artifacts import MARKERS, check_unlike, save_adaptation
    from prompttransfer.cli.common import print_json, say
    from prompttransfer.files import check_free
    from prompttransfer.reports.calls import note_call, remember

    output, quiet = given["output"], given["as_json"]
    check_free(output, marker=MARKERS)
    if not given["overwrite"]:
        check_unlike(made, output)
    save_adaptation(made, output)
    note_call([output], remember(f"prompts {verb}", function, given))
    parts = made.origin.recipe["made_of"]
    if quiet:
        print_json({"folder": str(output), "method": str(made.method), "made_of": parts})
        return made
    said = " ".join(f"{'+-'[part['weight'] < 0]} {abs(part['weight']):g} {part['name']}" for part in parts)
    say(f"{made.name}: {made.method}, {said.removeprefix('+ ')}")
    tasks = " ".join(dict.fromkeys(part["task"] for part in parts))
    say(f"written to {output}; try it with `prompttransfer transfer {output} --to {tasks}`")
    return made


VERBS: dict[str, Callable[..., Any]] = {
    "add": add,
    "subtract": subtract,
    "scale": scale,
    "average": average,
    "interpolate": interpolate,
    "merge": merge,
    "fold": fold,
    "landscape": landscape,
}
"""What the group `prompts` has of this file."""
