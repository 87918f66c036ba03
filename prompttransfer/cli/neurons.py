"""`neurons`: which feed-forward neurons prompts activate, how much they share, and what happens without them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from prompttransfer.cli.mask import mask
from prompttransfer.cli.options import (
    AsJson,
    Columns,
    DataFolder,
    Device,
    LabelValues,
    MaxLength,
    OtherBackbone,
    OtherLayout,
    Overwrite,
    Precision,
    Revision,
    Shots,
    SkipEmpty,
    SourceMethods,
    SplitNames,
)
from prompttransfer.cli.values import OneOf, Output, Share, Whole, checked

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from prompttransfer.neurons.states import Captured

DEFAULT = "capture"
RULES = ("positive", "top")
MEASURES = ("ON", "jaccard")
_PRINTED_WHOLE = 6  # larger matrices are only written


class CaptureByDefault(TyperGroup):
    """`neurons PROMPT...` is `neurons capture PROMPT...`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Put the verb in front where the user left it out."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


neurons_app = typer.Typer(
    cls=CaptureByDefault,
    help="Activated neurons: `neurons PROMPT...` captures them (same as `neurons capture`).",
    no_args_is_help=True,
)


@neurons_app.command("capture")
@checked
def capture(
    prompts: Annotated[list[Path], typer.Argument(help="Prompt folders, or folders of them.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File for the states."), Output(folder=False)
    ] = Path("runs/neurons/states.safetensors"),
    method: SourceMethods = None,
    rule: Annotated[
        str,
        typer.Option(help="Active is: positive (the paper's, above 0) or top (largest share of a layer)."),
        OneOf("rule", RULES),
    ] = "positive",
    share: Annotated[
        float, typer.Option(help="Share of a layer that is active under --rule top."), Share
    ] = 0.1,
    task: Annotated[
        str | None,
        typer.Option("--task", "-t", help="Count over rows of this task instead of the prompt alone."),
    ] = None,
    rows: Annotated[int, typer.Option(help="Training rows of that task."), Whole()] = 64,
    data: DataFolder = None,
    columns: Columns = None,
    labels: LabelValues = None,
    splits: SplitNames = None,
    skip_empty: SkipEmpty = False,
    shots: Shots = None,
    backbone: Annotated[str | None, typer.Option("--backbone", "-b", help="Another backbone.")] = None,
    revision: Revision = None,
    other_layout: OtherLayout = False,
    other_backbone: OtherBackbone = False,
    max_length: MaxLength = None,
    precision: Precision = "auto",
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Capture which neurons each prompt activates, in all layers, and keep them as bits.

    The input is the prompt alone, read where the answer is given (Su et al. 2022, section 6), or with --task real rows:
    active is then what is active in more than half of them.
    """
    given = dict(locals())
    from prompttransfer.cli.data import asked, data_options
    from prompttransfer.cli.evaluate import backbone_of
    from prompttransfer.cli.mask import training_rows
    from prompttransfer.cli.tables import read_prompts, say_written
    from prompttransfer.neurons.capture import capture as capture_states
    from prompttransfer.neurons.states import save_states
    from prompttransfer.outputs import Files, settings_of
    from prompttransfer.reports.calls import note_call, precision_name, remember

    found, read = read_prompts(prompts, method), data_options(given).at_most(rows)
    tasks = read.tasks([] if task is None else [task], found)
    written = Files((output,), settings_of("neurons capture", asked(given)))
    written.check(overwrite=overwrite)
    model = backbone_of(found, backbone, precision, device, revision=revision)
    model.takes_any = other_backbone
    encoded = training_rows(model, found, tasks[0], read, max_length) if tasks else None
    captured = capture_states(
        model, found, rule=rule, share=share, encoded=encoded, other_layout=other_layout
    )
    written.claim()
    path = save_states(captured, output)
    note_call([path], remember("neurons capture", capture, given, precision=precision_name(model.precision)))
    if as_json:
        say_written([path], True, _record(captured))
    else:
        _print_states(captured)
        say_written([path])


def _record(captured: Captured) -> dict[str, object]:
    from analysis.neurons import active_share

    states = captured.states
    shares = active_share(states)
    return {
        "backbone": states.backbone,
        "rule": states.rule,
        "tensor": captured.tensor,
        "layers": states.layers,
        "neurons": states.neurons,
        "active_share": {str(name): list(map(float, row)) for name, row in zip(shares.index, shares.to_numpy(), strict=True)},
    }  # fmt: skip


def _print_states(captured: Captured) -> None:
    """Active neurons a layer in per cent, and what that is the share of."""
    from analysis.neurons import active_share
    from prompttransfer.cli.common import say, table

    states = captured.states
    shares = active_share(states)
    say(f"{states.backbone}: {states.layers} layers of {states.neurons} neurons, {captured.tensor}")
    say(f"active: {states.rule}")
    rows = [
        [str(name), *(f"{100 * value:.1f}" for value in row)]
        for name, row in zip(shares.index, shares.to_numpy(), strict=True)
    ]
    table("active neurons, per cent of each layer", ["prompt", *shares.columns], rows)


@neurons_app.command("overlap")
@checked
def overlap(
    files: Annotated[list[Path], typer.Argument(help="Files of states, as `neurons PROMPT...` writes.")],
    measure: Annotated[
        list[str] | None,
        typer.Option("--measure", help="ON (the paper's cosine) or jaccard; both if not given."),
        OneOf("overlap", MEASURES),
    ] = None,
    window: Annotated[
        list[int] | None,
        typer.Option(
            "--window", help="Also by windows of so many layers: 3 as in the paper, 1 for every layer."
        ),
        Whole(),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option("--layers", help="Also over these layers, as 9-11 (from 0), may be repeated."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the CSV files."), Output()
    ] = Path("runs/neurons"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Overlap of every two prompts, over all layers and by windows, without the model; one CSV each, for `correlate`."""
    given = dict(locals())
    from analysis.neurons import OVERLAPS, overlaps
    from prompttransfer.cli.tables import say_written, write_table
    from prompttransfer.neurons.states import load_all
    from prompttransfer.outputs import Files, settings_of
    from prompttransfer.reports.calls import note_call, remember

    captured = load_all(files)
    spans = layer_spans(captured.states.layers, window or [], layers or [])
    names = list(dict.fromkeys(measure or OVERLAPS))
    places = {
        (name, span): output / f"similarity_{name}{'' if span == 'all' else f'_layers-{span}'}.csv"
        for name in names
        for span in spans
    }
    chosen = {"measure": None, "window": None, "layers": None}  # what is written, not what is in it
    written = Files(tuple(places.values()), settings_of("neurons overlap", given | chosen))
    written.check(overwrite=overwrite)
    tables = {name: overlaps(captured.states, spans, name) for name in names}
    written.claim()
    paths = [write_table(place, tables[name][span]) for (name, span), place in places.items()]
    note_call(paths, remember("neurons overlap", overlap, given))
    if as_json:
        matrices = {n: {s: t.to_numpy().tolist() for s, t in found.items()} for n, found in tables.items()}
        say_written(paths, True, {"prompts": list(captured.states.names), "overlap": matrices})
    else:
        _print_overlaps(tables)
        say_written(paths)


def layer_spans(layers: int, sizes: Sequence[int], given: Sequence[str]) -> dict[str, slice]:
    """Name -> layers: `all`, the windows of each size, and `first-last` as the user gave them."""
    import re

    from analysis.neurons import windows
    from tasks.errors import UserError

    spans = {"all": slice(None)}
    for size in sizes:
        spans.update(windows(layers, size))
    for text in given:
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
        first = int(found[1]) if found else -1
        last = int(found[2] or first) if found else -1
        if not 0 <= first <= last < layers:
            raise UserError(
                f"--layers {text!r}: give one layer or first-last within 0-{layers - 1}, as 0-{layers - 1}"
            )
        spans[text] = slice(first, last + 1)
    return spans


def _print_overlaps(tables: dict[str, dict[str, pd.DataFrame]]) -> None:
    """Small matrices whole, and for every span the mean over pairs."""
    import numpy as np

    from prompttransfer.cli.common import number, table

    for measure, found in tables.items():
        whole = found["all"]
        if len(whole) <= _PRINTED_WHOLE:
            rows = [[str(n), *map(number, r)] for n, r in zip(whole.index, whole.to_numpy(), strict=True)]
            table(f"{measure} over all layers", ["", *map(str, whole.columns)], rows)
        pairs = np.triu_indices(len(whole), k=1)
        spread = [
            [s, *(number(f(t.to_numpy()[pairs])) for f in (np.mean, np.min, np.max))]
            for s, t in found.items()
        ]
        if len(whole) > 1:
            table(f"{measure} of pairs", ["layers", "mean", "lowest", "highest"], spread)


neurons_app.command("mask")(mask)
